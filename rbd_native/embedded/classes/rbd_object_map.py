"""Class `rbd`, object maps: the whole data of `rbd_object_map.*` is one :class:`BitVector`."""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.constants import RBD_MAX_OBJECT_MAP_OBJECTS
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.object_map import BitVector, ObjectMapCorrupt, ObjectState


def _decode(raw: bytes, *, for_update: bool = False) -> BitVector:
    try:
        return BitVector.decode(raw, for_update=for_update)
    except ObjectMapCorrupt:
        raise ClassError(errno.EINVAL) from None


def _load(context: ObjectContext) -> BitVector:
    """ENOENT where the object is missing or empty."""
    if not context.size():
        raise ClassError(errno.ENOENT)
    return _decode(omap.data(context))


@handles(cls_rbd.object_map_load)
def object_map_load(context: ObjectContext) -> bytes:
    return _load(context).encode(with_crcs=False)


@handles(cls_rbd.object_map_save)
def object_map_save(context: ObjectContext, bit_vector: bytes) -> None:
    context.write_full(_decode(bit_vector).encode())


@handles(cls_rbd.object_map_resize)
def object_map_resize(context: ObjectContext, object_count: int, default_state: int) -> None:
    if object_count > RBD_MAX_OBJECT_MAP_OBJECTS:
        raise ClassError(errno.EINVAL)
    vector = _load(context) if context.exists() and context.size() else BitVector()
    if object_count < len(vector):
        going = vector.counts(object_count)
        if default_state > 3 or going[default_state] != sum(going):
            raise ClassError(errno.ESTALE)
    vector.resize(object_count, ObjectState(default_state & 3))
    context.write_full(vector.encode())


@handles(cls_rbd.object_map_update)
def object_map_update(context: ObjectContext, start: int, end: int, state: int, expected: int | None) -> None:
    omap.require_object(context)
    vector = _decode(omap.data(context), for_update=True)
    if start >= end or end > len(vector):
        raise ClassError(errno.ERANGE)
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
    vector = _load(context)
    if vector.snap_add():
        context.write_full(vector.encode())


@handles(cls_rbd.object_map_snap_remove)
def object_map_snap_remove(context: ObjectContext, removed: bytes) -> None:
    older = _decode(removed)
    vector = _load(context)
    if vector.snap_remove(older):
        context.write_full(vector.encode())
