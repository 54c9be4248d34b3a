"""Whether a pool can hold images, and what those it holds amount to.

It must allow overwrites and self-managed snapshots. What was found out is written into `rbd_info` of the pool, so that
it is asked once in a pool's life.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call_all
from rbd_native.engine import gather
from rbd_native.operations import listing, pool_metadata, trash
from rbd_native.rados.port import HEAD, Create, Io, RadosError, Read, Reply, Write

_PROBE = b"validate"
_APPLICATION: Final = "rbd"


async def initialize(io: Io, *, force: bool) -> None:
    """Make a pool one for images. EPERM where it is one for something else, unless with `force`; EINVAL as `validate`."""
    await io.cluster.application_enable(io.pool_id, _APPLICATION, force)
    await trash.make(io)
    settings = await pool_metadata.settings(io)
    if settings.flag("rbd_validate_pool"):
        await validate(io)


async def mark(io: Io) -> Reply:
    """What says whether :func:`validate` has something to do."""
    return await io.in_namespace("").read(names.INFO, [Read(0, len(names.VALIDATED) + 1)]).bare()


async def validate(io: Io, reply: Reply | None = None) -> None:
    """Prove it, unless that was done before. EINVAL where the pool cannot hold images. `reply`: its :func:`mark`."""
    info = io.in_namespace("")
    if reply is None:
        reply = await mark(io)
    if reply.rv == 0 and reply.outs[0] == names.VALIDATED:
        return
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, names.INFO)
    try:
        snap = await info.snap_create()
    except RadosError as error:
        raise RadosError(errno.EINVAL, "the pool keeps pool snapshots: it cannot hold images") from error
    try:
        await info.write(names.INFO, [Create(exclusive=False), Write(0, _PROBE)])
    finally:
        await info.snap_remove(snap)
    try:
        await info.write(names.INFO, [Write(0, names.VALIDATED)])
    except RadosError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise RadosError(errno.EINVAL, "the pool does not allow overwrites") from error


# --- what it holds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Amount:
    """Of some images: how many, bytes as of now, bytes each at its largest (now or at a snapshot), snapshots."""

    images: int
    provisioned: int
    max_provisioned: int
    snapshots: int


async def amounts(io: Io) -> tuple[Amount, Amount]:
    """Of the images of format 2, and of those in the trash."""
    depth = (await pool_metadata.settings(io)).integer("rbd_concurrent_management_ops")
    images = [identifier for _, identifier in await listing.images(io) if identifier]
    trashed = [identifier for identifier, _ in await trash.listing(io)]
    return await _amount(io, images, depth), await _amount(io, trashed, depth)


async def _amount(io: Io, identifiers: list[str], depth: int) -> Amount:
    sizes = await gather((_sizes(io, identifier) for identifier in identifiers), depth)
    return Amount(
        len(identifiers),
        sum(found[0] for found in sizes if found),
        sum(max(found) for found in sizes if found),
        sum(len(found) - 1 for found in sizes if found),
    )


async def _sizes(io: Io, identifier: str) -> list[int]:
    """Bytes now, and at each snapshot; nothing where there is no header."""
    oid = names.header(identifier)
    ids: list[int] = []
    while True:
        try:
            (_, size), (_, ids) = await call_all(io, oid, [cls_rbd.get_size(HEAD), cls_rbd.get_snapcontext()])
            snapshots = await call_all(io, oid, [cls_rbd.get_size(snap) for snap in ids]) if ids else []
        except RadosError as error:
            if error.errno != errno.ENOENT:
                raise
            if not ids:
                return []
            ids = []  # a snapshot went in between, or all of it did: look again
            continue
        return [size, *(size for _, size in snapshots)]
