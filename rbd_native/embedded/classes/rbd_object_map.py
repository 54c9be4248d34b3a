"""Class `rbd`, object maps: the whole data of `rbd_object_map.*` is one :class:`BitVector`."""

from __future__ import annotations

import errno
from typing import NamedTuple

from rbd_native import cls_rbd
from rbd_native.constants import RBD_MAX_OBJECT_MAP_OBJECTS
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.object_map import HEADER_SIZE, BitVector, ObjectMapCorrupt, ObjectState, data_size


def _decode(raw: bytes, *, for_update: bool = False) -> BitVector:
    try:
        return BitVector.decode(raw, for_update=for_update)
    except ObjectMapCorrupt:
        raise ClassError(errno.EINVAL) from None


_ENTRY_COUNT = slice(HEADER_SIZE - 8, HEADER_SIZE)


class _Stored(NamedTuple):
    """A map, and whether its file has checksums: it keeps them, or gets none."""

    vector: BitVector
    with_crcs: bool = True

    def save(self, context: ObjectContext) -> None:
        context.write_full(self.vector.encode(self.with_crcs))


def _load(context: ObjectContext) -> _Stored:
    """ENOENT where the object is missing or empty."""
    if not context.size():
        raise ClassError(errno.ENOENT)
    raw = omap.data(context)
    vector = _decode(raw)
    footer = HEADER_SIZE + data_size(len(vector))
    return _Stored(vector, any(raw[footer : footer + 4]))


@handles(cls_rbd.object_map_load)
def object_map_load(context: ObjectContext) -> bytes:
    return _load(context).vector.encode(with_crcs=False)


@handles(cls_rbd.object_map_save)
def object_map_save(context: ObjectContext, bit_vector: bytes) -> None:
    context.write_full(_decode(bit_vector).encode())


@handles(cls_rbd.object_map_resize)
def object_map_resize(context: ObjectContext, object_count: int, default_state: int) -> None:
    if object_count > RBD_MAX_OBJECT_MAP_OBJECTS:
        raise ClassError(errno.EINVAL)
    stored = _load(context) if context.exists() and context.size() else _Stored(BitVector())
    vector = stored.vector
    if object_count < len(vector):
        going = vector.counts(object_count)
        if default_state > 3 or going[default_state] != sum(going):
            raise ClassError(errno.ESTALE)
    vector.resize(object_count, ObjectState(default_state & 3))
    stored.save(context)


@handles(cls_rbd.object_map_update)
def object_map_update(context: ObjectContext, start: int, end: int, state: int, expected: int | None) -> None:
    omap.require_object(context)
    raw = omap.data(context)
    # The range is held against what the header says before anything else of the file is looked at.
    if len(raw) >= HEADER_SIZE and not start < end <= int.from_bytes(raw[_ENTRY_COUNT], "little"):
        raise ClassError(errno.ERANGE)
    vector = _decode(raw, for_update=True)
    try:
        vector.verify(start, end)
    except ObjectMapCorrupt:
        raise ClassError(errno.EINVAL) from None
    if (expected or 0) > 3:
        return  # no entry is in a state that does not exist
    if vector.set_range(start, end, state & 3, expected):
        for offset, data in vector.patch(start, end):
            context.write(offset, data)


@handles(cls_rbd.object_map_snap_add)
def object_map_snap_add(context: ObjectContext) -> None:
    stored = _load(context)
    if stored.vector.snap_add():
        stored.save(context)


@handles(cls_rbd.object_map_snap_remove)
def object_map_snap_remove(context: ObjectContext, removed: bytes) -> None:
    older = _decode(removed)
    stored = _load(context)
    if stored.vector.snap_remove(older):
        stored.save(context)
