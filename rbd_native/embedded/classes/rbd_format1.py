"""Class `rbd`, headers of format 1: the object's data is a table of snapshots behind a fixed part, little
endian.

    0 text (40)   40 block name (24)   64 "RBD\\0"   68 version (8)   76 order, 3 bytes   80 image size (u64)
    88 snap_seq (u64)   96 snap_count (u32)   100 reserved (u32)   104 length of the names (u64)
    112 snapshots, newest first, each id and image size (u64, u64), then their names, each ended by NUL
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import u64
from rbd_native.types import MigrationHeaderType, MigrationSpec

_SIZE: Final = 112
_TABLE: Final = struct.Struct("<QIIQ")
_TABLE_AT: Final = 88
_IMAGE_SIZE: Final = struct.Struct("<Q")
_IMAGE_SIZE_AT: Final = 80
_SNAP: Final = struct.Struct("<QQ")

NORMAL: Final = b"<<< Rados Block Device Image >>>\n\0"
MIGRATING: Final = b"<<< Migrating RBD Image      >>>\n\0"


class Snap(NamedTuple):
    id: int
    size: int
    name: bytes


class Header(NamedTuple):
    """`fixed`: the bytes before the table, unchanged by all that is done here. `snaps`: newest first."""

    fixed: bytes
    reserved: int
    seq: int
    snaps: list[Snap]

    @property
    def size(self) -> int:
        size: int = _IMAGE_SIZE.unpack_from(self.fixed, _IMAGE_SIZE_AT)[0]
        return size


def read_header(context: ObjectContext) -> Header:
    """EINVAL where the object is too short to be one, EIO where the table is not whole."""
    data = omap.data(context)
    if len(data) < _SIZE:
        raise ClassError(errno.EINVAL)
    seq, count, reserved, names_length = _TABLE.unpack_from(data, _TABLE_AT)
    names_at = _SIZE + count * _SNAP.size
    if len(data) < names_at + names_length:
        raise ClassError(errno.EIO)
    names = data[names_at : names_at + names_length].split(b"\0")[:-1]
    if len(names) != count:
        raise ClassError(errno.EIO)
    ids = _SNAP.iter_unpack(data[_SIZE:names_at])
    snaps = [Snap(snap_id, size, name) for (snap_id, size), name in zip(ids, names, strict=True)]
    return Header(data[:_TABLE_AT], reserved, seq, snaps)


def _write_header(context: ObjectContext, header: Header) -> None:
    names = b"".join(snap.name + b"\0" for snap in header.snaps)
    table = _TABLE.pack(header.seq, len(header.snaps), header.reserved, len(names))
    entries = b"".join(_SNAP.pack(snap.id, snap.size) for snap in header.snaps)
    context.write_full(header.fixed + table + entries + names)


def _c_string(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape").partition(b"\0")[0]


@handles(cls_rbd.snap_list)
def snap_list(context: ObjectContext) -> tuple[int, list[tuple[int, int, str]]]:
    header = read_header(context)
    return header.seq, [(s.id, s.size, s.name.decode("utf-8", "surrogateescape")) for s in header.snaps]


@handles(cls_rbd.snap_add)
def snap_add(context: ObjectContext, name: str, snap_id: int) -> None:
    header = read_header(context)
    if header.seq > snap_id:
        raise ClassError(errno.ESTALE)
    limit = omap.find(context, b"snap_limit", u64)
    if limit is not None and len(header.snaps) >= limit:
        raise ClassError(errno.EDQUOT)
    raw = _c_string(name)
    if any(snap.name == raw for snap in header.snaps):
        raise ClassError(errno.EEXIST)
    snaps = [Snap(snap_id, header.size, raw), *header.snaps]
    _write_header(context, header._replace(seq=snap_id, snaps=snaps))


@handles(cls_rbd.snap_remove)
def snap_remove(context: ObjectContext, name: str) -> None:
    header = read_header(context)
    raw = _c_string(name)
    found = next((snap for snap in header.snaps if snap.name == raw), None)
    if found is None:
        raise ClassError(errno.ENOENT)
    _write_header(context, header._replace(snaps=[snap for snap in header.snaps if snap is not found]))


@handles(cls_rbd.snap_rename)
def snap_rename(context: ObjectContext, snap_id: int, name: str) -> None:
    header = read_header(context)
    raw = _c_string(name)
    if any(snap.name == raw for snap in header.snaps):
        raise ClassError(errno.EEXIST)
    found = next((snap for snap in header.snaps if snap.id == snap_id), None)
    if found is None:
        raise ClassError(errno.ENOENT)
    snaps = [snap._replace(name=raw) if snap is found else snap for snap in header.snaps]
    _write_header(context, header._replace(snaps=snaps))


# --- the text at the start says whether the image is the source of a migration


def header_text(context: ObjectContext) -> bytes:
    """NORMAL or MIGRATING; ENXIO for anything else."""
    text = omap.data(context, len(NORMAL))
    if text not in (NORMAL, MIGRATING):
        raise ClassError(errno.ENXIO)
    return text


def begin_migration(context: ObjectContext, spec: MigrationSpec) -> None:
    if header_text(context) == MIGRATING:
        raise ClassError(errno.EEXIST)
    if spec.header_type != MigrationHeaderType.SRC:
        raise ClassError(errno.EINVAL)
    context.write(0, MIGRATING[:-1])


def end_migration(context: ObjectContext) -> None:
    if header_text(context) == NORMAL:
        raise ClassError(errno.EINVAL)
    context.write(0, NORMAL[:-1])
