"""Class `rbd`, data objects."""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.types import AssertSnapcSeqState


@handles(cls_rbd.copyup)
def copyup(context: ObjectContext, data: bytes) -> None:
    if not context.exists():
        context.write(0, data)


@handles(cls_rbd.sparse_copyup)
def sparse_copyup(context: ObjectContext, extents: dict[int, int], data: bytes) -> None:
    if context.exists():
        return
    if not extents:
        context.create(exclusive=True)
        return
    position = 0
    for offset, length in extents.items():
        if position + length > len(data):
            raise ClassError(errno.EINVAL)
        context.write(offset, data[position : position + length])
        position += length


@handles(cls_rbd.assert_snapc_seq)
def assert_snapc_seq(context: ObjectContext, seq: int, state: AssertSnapcSeqState) -> None:
    written = context.snapset_seq()
    newer = written is None or seq > written
    if state not in (AssertSnapcSeqState.GT_SNAPSET_SEQ, AssertSnapcSeqState.LE_SNAPSET_SEQ):
        raise ClassError(errno.EOPNOTSUPP)
    if newer != (state == AssertSnapcSeqState.GT_SNAPSET_SEQ):
        raise ClassError(errno.ERANGE)


@handles(cls_rbd.sparsify)
def sparsify(context: ObjectContext, sparse_size: int, remove_empty: bool) -> None:
    omap.require_object(context)
    data = omap.data(context)
    length = len(data.rstrip(b"\0"))
    if length:
        _cut_zeros(context, data, length, sparse_size)
    elif remove_empty:
        context.remove()
    elif data:
        context.truncate(0)


def _cut_zeros(context: ObjectContext, data: bytes, length: int, unit: int) -> None:
    # Holes read as zeros here and need no storage of their own, but the zero units at the end go.
    if not unit:
        raise ClassError(errno.EINVAL)  # a real OSD never comes back from it
    whole_units = -(-length // unit) * unit
    if whole_units < len(data):
        context.truncate(whole_units)
