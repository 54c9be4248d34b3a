"""The header of a format 2 image, and the directory and id objects that lead to it.

A name leads to an id through `rbd_id.<name>`, an id to a name through `rbd_directory`; everything else of an image is
in the omap of `rbd_header.<id>`, read and written only through class calls. What an open needs is read in one compound
operation, which is atomic: size, features, flags, snapshots and parent are those of one moment.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from rbd_native import cls_lock, cls_rbd, names
from rbd_native.cls_client import ClassCall, call, call_all, call_optional
from rbd_native.constants import (
    RBD_FEATURE_MIGRATING,
    RBD_FEATURE_STRIPINGV2,
    RBD_FLAG_FAST_DIFF_INVALID,
    RBD_FLAG_OBJECT_MAP_INVALID,
)
from rbd_native.encoding import UTime
from rbd_native.engine import gather
from rbd_native.rados.port import HEAD, Io, RadosError, SnapContext, Stat
from rbd_native.striping import Layout
from rbd_native.types import (
    GroupSpec,
    LockInfo,
    ParentImageSpec,
    SnapshotInfo,
    TrashImageSpec,
)

INVALID_MAPS = RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID
"""The flags of an object map that is not to be believed."""

_MAX_SNAP = HEAD - 1
"""HEAD, and the one number beyond it, are no snapshot's."""

_CONF = "conf_"
_ATTEMPTS = 100
_METADATA_PAGE = 64
_DIRECTORY_PAGE = 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of an image: its record, and what holds at it. `bound`: as of the header."""

    info: SnapshotInfo
    bound: bool
    parent_overlap: int
    flags: int
    protection: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """What never changes in an image's life. `prefix`: of its data objects, whose numbers have so many hex `digits`;
    `data_pool`: -1 for the image's own."""

    layout: Layout
    prefix: str
    data_pool: int
    created: UTime
    digits: int = 16


@dataclass(frozen=True, slots=True)
class Header:
    """The changing state of an image, as of one moment. Sizes in bytes; snapshots newest first.

    `incompatible`: the feature bits a client must know. `parent`: of the image or of any snapshot. `bound`: the image as it
    is now has it; it may share nothing with it all the same: `parent_overlap` is 0 then, and where there is no parent.
    An overlap that goes beyond the end of the image ends there. `config`: the image's `conf_` metadata without that prefix.
    """

    size: int
    features: int
    incompatible: int
    flags: int
    op_features: int
    snapc: SnapContext
    snapshots: tuple[Snapshot, ...]
    parent: ParentImageSpec | None
    bound: bool
    parent_overlap: int
    group: GroupSpec
    lock: LockInfo
    accessed: UTime
    modified: UTime
    config: dict[str, bytes]


async def read(io: Io, identifier: str, *, read_only: bool) -> tuple[Fixed, Header]:
    """Fixed and changing state of the image with this id. RadosError ENOENT where it has no header."""
    oid = names.header(identifier)
    for _ in range(_ATTEMPTS):
        values = await call_all(io, oid, _all_calls(read_only))
        prefix, data_pool, created = values[:3]
        (order, _), (features, _) = values[3], values[4]
        stripe_unit, stripe_count = 1 << order, 1
        if features & RBD_FEATURE_STRIPINGV2:
            unit, count = await call(io, oid, cls_rbd.get_stripe_unit_count())
            if unit and count:  # zeros mean the defaults, to librbd too
                stripe_unit, stripe_count = unit, count
        try:
            layout = Layout(order, stripe_unit, stripe_count)
        except ValueError as error:
            raise RadosError(errno.EINVAL, f"{oid}: {error}") from error
        if "\0" in prefix:
            raise RadosError(errno.EINVAL, f"{oid}: no object can have the prefix {prefix!r}")
        header = await _assemble(io, oid, values[3:])
        if header is not None:
            return Fixed(layout, prefix, data_pool, created), header
    raise RadosError(errno.EIO, f"{oid}: a snapshot has no record")


async def refresh(io: Io, identifier: str, *, read_only: bool) -> Header:
    """The changing state alone."""
    oid = names.header(identifier)
    for _ in range(_ATTEMPTS):
        header = await _assemble(io, oid, await call_all(io, oid, _changing_calls(read_only)))
        if header is not None:
            return header
    raise RadosError(errno.EIO, f"{oid}: a snapshot has no record")


@cache
def _all_calls(read_only: bool) -> list[ClassCall[Any]]:
    return [
        cls_rbd.get_object_prefix(),
        cls_rbd.get_data_pool(),
        cls_rbd.get_create_timestamp(),
        *_changing_calls(read_only),
    ]


@cache
def _changing_calls(read_only: bool) -> list[ClassCall[Any]]:
    return [
        cls_rbd.get_size(HEAD),
        cls_rbd.get_features(HEAD, read_only),
        cls_rbd.get_flags(HEAD),
        cls_rbd.get_snapcontext(),
        cls_rbd.parent_get(),
        cls_rbd.parent_overlap_get(HEAD),
        cls_rbd.op_features_get(),
        cls_rbd.image_group_get(),
        cls_lock.get_info(names.LOCK_NAME),
        cls_rbd.get_access_timestamp(),
        cls_rbd.get_modify_timestamp(),
        first_config(),
    ]


async def _assemble(io: Io, oid: str, values: list[Any]) -> Header | None:
    """The header from what the compound read gave; None where a snapshot vanished before its own record was read."""
    (_, size), (features, incompatible), flags, (seq, ids), parent, overlap = values[:6]
    op_features, group, lock, accessed, modified, page = values[6:]
    try:
        snapshots = await _snapshots(io, oid, ids)
    except RadosError as error:
        if error.errno == errno.ENOENT and ids:
            return None
        raise
    return Header(
        size, features, incompatible, flags, op_features, snap_context(oid, seq, ids), snapshots,
        parent if parent.exists else None, overlap is not None, min(overlap or 0, size), group, lock, accessed, modified,
        await config(io, oid, page),
    )  # fmt: skip


def snap_context(oid: str, seq: int, ids: Iterable[int], code: int = errno.EBADMSG) -> SnapContext:
    """The error `code` unless the ids descend, from `seq` at most, which is none of the reserved ones: an OSD would take
    no write with it."""
    found = SnapContext(seq, tuple(ids))
    if seq > _MAX_SNAP or any(newer <= older for newer, older in itertools.pairwise((seq + 1, *found.ids))):
        raise RadosError(code, f"{oid}: snapshots {found.ids} under {seq}")
    return found


async def _snapshots(io: Io, oid: str, ids: list[int]) -> tuple[Snapshot, ...]:
    if not ids:
        return ()
    calls: list[ClassCall[Any]] = []
    for snap in ids:
        calls += [
            cls_rbd.snapshot_get(snap),
            cls_rbd.parent_overlap_get(snap),
            cls_rbd.get_flags(snap),
            cls_rbd.get_protection_status(snap),
        ]
    values = await call_all(io, oid, calls)
    return tuple(
        Snapshot(info, overlap is not None, min(overlap or 0, info.image_size), flags, protection)
        for info, overlap, flags, protection in zip(*[iter(values)] * 4, strict=True)
    )


def first_config() -> ClassCall[dict[str, bytes]]:
    """Reads the first page of metadata that :func:`config` takes."""
    return cls_rbd.metadata_list(_CONF, _METADATA_PAGE)


async def config(io: Io, oid: str, page: dict[str, bytes]) -> dict[str, bytes]:
    """The `conf_` entries: the first page came with the header, more are read only where it was full of them."""
    found = {key: value for key, value in page.items() if key.startswith(_CONF)}
    while len(page) == _METADATA_PAGE and len(found) % _METADATA_PAGE == 0 and found:
        last = max(page, key=lambda key: key.encode("utf-8", "surrogateescape"))
        page = await call(io, oid, cls_rbd.metadata_list(last, _METADATA_PAGE))
        found |= {key: value for key, value in page.items() if key.startswith(_CONF)}
    return {key.removeprefix(_CONF): value for key, value in found.items()}


async def pool_config(io: Io) -> dict[str, bytes]:
    """The `conf_` metadata of the pool, kept in its default namespace; empty where there is none."""
    info = io.in_namespace("")
    page: dict[str, Any] = await call_optional(info, names.INFO, first_config(), {})
    return await config(info, names.INFO, page)


async def metadata(io: Io, oid: str, prefix: str = "") -> dict[str, bytes]:
    """All metadata of an image header or of rbd_info whose key starts with `prefix`, ascending."""
    found: dict[str, bytes] = {}
    after = prefix
    while True:
        page = await call(io, oid, cls_rbd.metadata_list(after, _METADATA_PAGE))
        found |= {key: value for key, value in page.items() if key.startswith(prefix)}
        if len(page) < _METADATA_PAGE or not next(reversed(page)).startswith(prefix):
            return found
        after = next(reversed(page))


def migrating(features: int) -> bool:
    return bool(features & RBD_FEATURE_MIGRATING)


# --- names and ids ---------------------------------------------------------------------------------------------------


async def id_of(io: Io, name: str) -> str:
    """The id that a name leads to, by its id object. RadosError ENOENT."""
    return await call(io, names.image_id(name), cls_rbd.get_id())


async def name_of(io: Io, identifier: str) -> str:
    """The name of an id, in the directory or, failing that, in the trash. RadosError ENOENT."""
    name = await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_name(identifier), None)
    if name is not None:
        return name
    spec = await call(io, names.TRASH, cls_rbd.trash_get(identifier))
    return spec.name


async def unused(io: Io, name: str) -> None:
    """EEXIST where an image of either format has the name."""
    if any(await gather((exists(io, oid) for oid in (names.old_header(name), names.image_id(name))), 2)):
        raise RadosError(errno.EEXIST, name)


async def exists(io: Io, oid: str) -> bool:
    reply = await io.read(oid, [Stat()]).bare()
    if reply.rv == -errno.ENOENT:
        return False
    if reply.rv < 0:
        raise RadosError(-reply.rv, oid)
    return True


async def directory(io: Io) -> AsyncGenerator[tuple[str, str], None]:
    """(name, id) of every format 2 image, in the order of the names' bytes."""
    after = ""
    while True:
        page: dict[str, Any] = await call_optional(io, names.DIRECTORY, cls_rbd.dir_list(after, _DIRECTORY_PAGE), {})
        for name, identifier in page.items():
            yield name, identifier
        if len(page) < _DIRECTORY_PAGE:
            return
        after = next(reversed(page))


async def trash(io: Io) -> AsyncIterator[tuple[str, TrashImageSpec]]:
    """(id, entry) of everything in the trash, images that are being removed included."""
    after = ""
    while True:
        page: dict[str, Any] = await call_optional(io, names.TRASH, cls_rbd.trash_list(after, _DIRECTORY_PAGE), {})
        for identifier, spec in page.items():
            yield identifier, spec
        if len(page) < _DIRECTORY_PAGE:
            return
        after = next(reversed(page))


__all__ = [
    "Fixed",
    "Header",
    "Snapshot",
    "config",
    "directory",
    "exists",
    "first_config",
    "id_of",
    "metadata",
    "migrating",
    "name_of",
    "pool_config",
    "read",
    "refresh",
    "snap_context",
    "trash",
    "unused",
]
