"""Class `rbd`, `rbd_children`: clones of version 1. Key: u64 pool, string image id, u64 snapshot of the
parent.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import encode, text, u64

_CHILDREN = set[text]
_KEY = tuple[u64, text, u64]


def _key(pool_id: int, image_id: str, snap_id: int) -> bytes:
    return encode((pool_id, image_id, snap_id), _KEY)


@handles(cls_rbd.add_child)
def add_child(context: ObjectContext, pool_id: int, image_id: str, snap_id: int, child_id: str) -> None:
    key = _key(pool_id, image_id, snap_id)
    children = omap.find(context, key, _CHILDREN, set())
    if child_id in children:
        raise ClassError(errno.EEXIST)
    omap.put(context, key, children | {child_id}, _CHILDREN)


@handles(cls_rbd.remove_child)
def remove_child(context: ObjectContext, pool_id: int, image_id: str, snap_id: int, child_id: str) -> None:
    key = _key(pool_id, image_id, snap_id)
    children = omap.need(context, key, _CHILDREN)
    if child_id not in children:
        raise ClassError(errno.ENOENT)
    left = children - {child_id}
    if left:
        omap.put(context, key, left, _CHILDREN)
    else:
        omap.drop(context, key)


@handles(cls_rbd.get_children)
def get_children(context: ObjectContext, pool_id: int, image_id: str, snap_id: int) -> set[str]:
    found: set[str] = omap.need(context, _key(pool_id, image_id, snap_id), _CHILDREN)
    return found
