"""Class `rbd`, headers of format 1: the object's data, as :mod:`rbd_native.format1` has it, with a table of snapshots."""

from __future__ import annotations

import errno

from rbd_native import cls_rbd, format1
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import DecodeError, u64
from rbd_native.format1 import MIGRATING, Header, Snap
from rbd_native.format1 import TEXT as NORMAL
from rbd_native.types import MigrationHeaderType, MigrationSpec


def read_header(context: ObjectContext) -> Header:
    """EINVAL where the object is too short to be one, EIO where the table is not whole."""
    data = omap.data(context)
    if len(data) < format1.HEAD_SIZE:
        raise ClassError(errno.EINVAL)
    try:
        return format1.parse_header(data)
    except DecodeError:
        raise ClassError(errno.EIO) from None


def _write_header(context: ObjectContext, header: Header) -> None:
    context.write_full(format1.encode_header(header))


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
    snaps = (Snap(snap_id, header.size, raw), *header.snaps)
    _write_header(context, header._replace(seq=snap_id, snaps=snaps))


@handles(cls_rbd.snap_remove)
def snap_remove(context: ObjectContext, name: str) -> None:
    header = read_header(context)
    raw = _c_string(name)
    found = next((snap for snap in header.snaps if snap.name == raw), None)
    if found is None:
        raise ClassError(errno.ENOENT)
    _write_header(context, header._replace(snaps=tuple(snap for snap in header.snaps if snap is not found)))


@handles(cls_rbd.snap_rename)
def snap_rename(context: ObjectContext, snap_id: int, name: str) -> None:
    header = read_header(context)
    raw = _c_string(name)
    if any(snap.name == raw for snap in header.snaps):
        raise ClassError(errno.EEXIST)
    found = next((snap for snap in header.snaps if snap.id == snap_id), None)
    if found is None:
        raise ClassError(errno.ENOENT)
    snaps = tuple(snap._replace(name=raw) if snap is found else snap for snap in header.snaps)
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
