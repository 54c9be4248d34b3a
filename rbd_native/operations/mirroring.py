"""What is said of the mirroring of a pool, or of a namespace of it, and to whom.

While it is on, a pool has a mode and a mirroring uuid, by which other sites know it; each image that is mirrored has a
record, and a global id, which is the same at every site. All of it lies in `rbd_mirroring`.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator
from enum import Enum

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call, call_optional
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import (
    MirrorImage,
    MirrorMode,
    MirrorPeer,
    MirrorPeerDirection,
    MirrorSnapshotNamespace,
    MirrorSnapshotState,
)

_NOTIFY_TIMEOUT_MS = 5000
_PAGE = 1024
_DEFAULT_NAMESPACE = ""


class Promotion(Enum):
    """Where an image is primary. UNKNOWN: it has no mirror snapshot."""

    PRIMARY = "here"
    NON_PRIMARY = "elsewhere"
    ORPHAN = "nowhere"
    UNKNOWN = "unknown"


_PROMOTIONS = {
    MirrorSnapshotState.PRIMARY: Promotion.PRIMARY,
    MirrorSnapshotState.NON_PRIMARY: Promotion.NON_PRIMARY,
    MirrorSnapshotState.PRIMARY_DEMOTED: Promotion.ORPHAN,
    MirrorSnapshotState.NON_PRIMARY_DEMOTED: Promotion.ORPHAN,
}


def promotion(newest: MirrorSnapshotNamespace | None) -> Promotion:
    """By the newest mirror snapshot of an image."""
    return Promotion.UNKNOWN if newest is None else _PROMOTIONS[newest.state]


async def announce(io: Io, notice: bytes) -> None:
    """Tell whoever watches the mirroring of the pool. It is done, whether or not they hear of it."""
    with contextlib.suppress(RadosError):
        await io.notify(names.MIRRORING, notice, _NOTIFY_TIMEOUT_MS)


async def mode(io: Io) -> MirrorMode:
    return await call_optional(io, names.MIRRORING, cls_rbd.mirror_mode_get(), MirrorMode.DISABLED)


async def uuid(io: Io) -> str:
    """That of the pool, whatever the namespace. ENOENT while mirroring is off there."""
    found = await call(io.in_namespace(_DEFAULT_NAMESPACE), names.MIRRORING, cls_rbd.mirror_uuid_get())
    if not found:
        raise RadosError(errno.ENOENT, names.MIRRORING)
    return found


async def receivers(io: Io) -> set[str]:
    """The uuids of the peers that images of the pool are sent to. ENOENT where mirroring of the pool, of its default
    namespace that is, never was on."""
    peers = await call(io.in_namespace(_DEFAULT_NAMESPACE), names.MIRRORING, cls_rbd.mirror_peer_list())
    return {peer.uuid for peer in peers if peer.direction != MirrorPeerDirection.RX}


async def peers(io: Io) -> list[MirrorPeer]:
    """Of this very namespace, by uuid."""
    nothing: list[MirrorPeer] = []
    return await call_optional(io, names.MIRRORING, cls_rbd.mirror_peer_list(), nothing)


async def record(io: Io, identifier: str) -> MirrorImage | None:
    """What is said of an image; None where it is not mirrored."""
    return await call_optional(io, names.MIRRORING, cls_rbd.mirror_image_get(identifier), None)


async def mirrored(io: Io) -> AsyncIterator[str]:
    """The ids of the images that have a record, ascending."""
    after = ""
    while True:
        page: dict[str, str] = await call_optional(io, names.MIRRORING, cls_rbd.mirror_image_list(after, _PAGE), {})
        for identifier in page:
            yield identifier
        if len(page) < _PAGE:
            return
        after = next(reversed(page))
