"""The header of a format 1 image, and its place in the directory.

There is no id: the header object is named after the image, and so is the line in the table that `rbd_directory` keeps as
its data. What an open needs is read in one compound operation, as for format 2, and comes as the same dataclasses: an
image without features, flags, parent or group. Metadata and locks lie beside the data of the header object.

Source of the formats: :mod:`rbd_native.format1`.
"""

from __future__ import annotations

import errno
from typing import Final

from rbd_native import cls_lock, format1, names
from rbd_native import header as headers
from rbd_native.cls_client import decoded
from rbd_native.constants import RBD_FEATURE_MIGRATING
from rbd_native.encoding import DecodeError, UTime
from rbd_native.header import Fixed, Header, Snapshot
from rbd_native.rados.port import (
    AssertVersion,
    Create,
    Io,
    RadosError,
    Read,
    Reply,
    Write,
    WriteFull,
    WriteStep,
)
from rbd_native.striping import Layout
from rbd_native.types import NO_GROUP, LockInfo, ProtectionStatus, SnapshotInfo, UserSnapshotNamespace

_DIGITS: Final = 12
_NEVER: Final = UTime()
_FEATURES: Final = {format1.TEXT: 0, format1.MIGRATING: RBD_FEATURE_MIGRATING}
_OVERTAKEN: Final = (-errno.ERANGE, -errno.EOVERFLOW, -errno.EEXIST, -errno.ENOENT)
"""What a change of the directory meets where another was faster."""


async def read(io: Io, name: str) -> tuple[Fixed, Header]:
    """Fixed and changing state of the image of this name. RadosError ENOENT where it has no header, EIO or ENXIO where that
    is none."""
    stored, header = await _read(io, name)
    try:
        layout = Layout(stored.order, 1 << stored.order, 1)
    except ValueError as error:
        raise RadosError(errno.EINVAL, f"{names.old_header(name)}: {error}") from error
    return Fixed(layout, stored.prefix, -1, _NEVER, _DIGITS), header


async def refresh(io: Io, name: str) -> Header:
    """The changing state alone."""
    _, header = await _read(io, name)
    return header


async def _read(io: Io, name: str) -> tuple[format1.Header, Header]:
    oid = names.old_header(name)
    lock, options = cls_lock.get_info(names.LOCK_NAME), headers.first_config()
    reply = await io.read(oid, [Read(0, 0), lock.step, options.step])
    stored = _parsed(oid, reply.outs[0])
    config = await headers.config(io, oid, decoded(options, reply.outs[2], oid))
    return stored, _header(oid, stored, decoded(lock, reply.outs[1], oid), config)


def _parsed(oid: str, data: bytes) -> format1.Header:
    try:
        stored = format1.parse_header(data)
    except DecodeError as error:
        raise RadosError(errno.EIO, f"{oid}: {error}") from error
    if stored.text not in _FEATURES:
        raise RadosError(errno.ENXIO, f"{oid} is no header of an image")
    return stored


def _header(oid: str, stored: format1.Header, lock: LockInfo, config: dict[str, bytes]) -> Header:
    """Time stamps are kept by librbd too, but never read."""
    features = _FEATURES[stored.text]
    snapc = headers.snap_context(oid, stored.seq, (snap.id for snap in stored.snaps), errno.EIO)
    snapshots = tuple(_snapshot(snap) for snap in stored.snaps)
    return Header(
        stored.size, features, features, 0, 0, snapc, snapshots, None, False, 0, NO_GROUP, lock,
        _NEVER, _NEVER, config,
    )  # fmt: skip


def _snapshot(snap: format1.Snap) -> Snapshot:
    name = snap.name.decode("utf-8", "surrogateescape")
    info = SnapshotInfo(snap.id, UserSnapshotNamespace(), name, snap.size, _NEVER, 0)
    return Snapshot(info, False, 0, 0, ProtectionStatus.UNPROTECTED)


def set_size(size: int) -> Write:
    """The step that gives a header another size, in bytes."""
    return Write(format1.SIZE_AT, format1.size_field(size))


# --- the directory ---------------------------------------------------------------------------------------------------


async def directory(io: Io) -> list[str]:
    """The names of the images, by their bytes."""
    _, (_, listed) = await _directory(io)
    return list(listed)


async def relist(io: Io, *, add: str | None = None, remove: str | None = None) -> bool:
    """Enter a name, take one out, or both in one step; what is so already stays so. Whether `remove` was there."""
    while True:
        reply, (head, listed) = await _directory(io)
        before = dict(listed)
        known = remove is not None and listed.pop(remove, None) is not None
        if add is not None:
            listed.setdefault(add, b"")
        if listed == before:
            return known
        # The object may be there without a table: format 2 keeps its names in its omap.
        first: WriteStep = AssertVersion(reply.version) if reply.rv == 0 else Create()
        written = await io.write(names.DIRECTORY, [first, WriteFull(format1.encode_directory(head, listed))]).bare()
        if written.rv == 0:
            return known
        if written.rv not in _OVERTAKEN:
            raise RadosError(-written.rv, names.DIRECTORY, written)


async def _directory(io: Io) -> tuple[Reply, tuple[bytes, dict[str, bytes]]]:
    reply = await io.read(names.DIRECTORY, [Read(0, 0)]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, names.DIRECTORY, reply)
    try:
        return reply, format1.parse_directory(reply.outs[0] if reply.rv == 0 else b"")
    except DecodeError as error:
        raise RadosError(errno.EIO, f"{names.DIRECTORY}: {error}") from error
