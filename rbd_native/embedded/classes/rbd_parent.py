"""Class `rbd`, the two ends of a clone of version 2: key `parent` of the clone, `snap_children_<id>` of its
parent.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native import constants as c
from rbd_native.embedded.classes import omap
from rbd_native.embedded.classes.records import (
    PARENT,
    all_snapshots,
    change_op_features,
    has_feature,
    load_parent,
    load_snapshot,
    require_feature,
    save_parent,
    save_snapshot,
)
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import u64
from rbd_native.types import NO_PARENT, ChildImageSpec, ParentImageSpec, StoredParent, TrashSnapshotNamespace

_CHILDREN = set[ChildImageSpec]


@handles(cls_rbd.parent_get)
def parent_get(context: ObjectContext) -> ParentImageSpec:
    omap.require_object(context)
    parent = load_parent(context) if has_feature(context, c.RBD_FEATURE_LAYERING) else None
    return parent.spec if parent else NO_PARENT


@handles(cls_rbd.parent_overlap_get)
def parent_overlap_get(context: ObjectContext, snap_id: int) -> int | None:
    if not has_feature(context, c.RBD_FEATURE_LAYERING):
        return None
    if snap_id != c.NOSNAP:
        return load_snapshot(context, snap_id).parent_overlap
    parent = load_parent(context)
    return parent.head_overlap if parent else None


@handles(cls_rbd.parent_attach)
def parent_attach(context: ObjectContext, parent: ParentImageSpec, overlap: int, reattach: bool) -> None:
    omap.require_object(context)
    require_feature(context, c.RBD_FEATURE_LAYERING)
    if not parent.exists or not overlap:
        raise ClassError(errno.EINVAL)
    old = load_parent(context)
    # What only snapshots depend on may become the parent of the head again.
    if old is not None and (old.head_overlap is not None or old.spec != parent) and not reattach:
        raise ClassError(errno.EEXIST)
    overlap = min(overlap, omap.need(context, b"size", u64))
    made = StoredParent(parent.pool_id, parent.pool_namespace, parent.image_id, parent.snap_id, overlap)
    omap.put(context, PARENT, made)


@handles(cls_rbd.parent_detach)
def parent_detach(context: ObjectContext) -> None:
    _detach(context)


def _detach(context: ObjectContext, *, legacy: bool = False) -> None:
    omap.require_object(context)
    require_feature(context, c.RBD_FEATURE_LAYERING)
    parent: StoredParent = omap.need(context, PARENT, StoredParent)
    if legacy and parent.pool_namespace:
        raise ClassError(errno.EXDEV)
    if parent.head_overlap is None:
        raise ClassError(errno.ENOENT)
    dependent = [snapshot for snapshot in all_snapshots(context) if snapshot.parent_overlap is not None]
    if dependent and not has_feature(context, c.RBD_FEATURE_DEEP_FLATTEN):
        save_parent(context, parent, head_overlap=None)
        return
    for snapshot in dependent:
        save_snapshot(context, snapshot, parent_overlap=None)
    omap.drop(context, PARENT)
    change_op_features(context, 0, c.RBD_OPERATION_FEATURE_CLONE_CHILD)


# --- before Nautilus


@handles(cls_rbd.get_parent)
def get_parent(context: ObjectContext, snap_id: int) -> tuple[int, str, int, int]:
    omap.require_object(context)
    absent = NO_PARENT.pool_id, NO_PARENT.image_id, NO_PARENT.snap_id, 0
    if not has_feature(context, c.RBD_FEATURE_LAYERING):
        return absent
    parent = load_parent(context)
    if parent and parent.pool_namespace:
        raise ClassError(errno.EXDEV)
    overlap = parent.head_overlap or 0 if parent else 0
    if snap_id != c.NOSNAP:
        of_snapshot = _snapshot_overlap(context, snap_id)
        if of_snapshot is None:
            return absent
        if parent is None or not parent.spec.exists:
            raise ClassError(errno.EINVAL)
        overlap = of_snapshot
    return (parent.pool_id, parent.image_id, parent.snap_id, overlap) if parent else absent


def _snapshot_overlap(context: ObjectContext, snap_id: int) -> int | None:
    try:
        return load_snapshot(context, snap_id).parent_overlap
    except ClassError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


@handles(cls_rbd.set_parent)
def set_parent(context: ObjectContext, pool_id: int, image_id: str, snap_id: int, overlap: int) -> None:
    parent_attach(context, ParentImageSpec(pool_id, "", image_id, snap_id), overlap, False)


@handles(cls_rbd.remove_parent)
def remove_parent(context: ObjectContext) -> None:
    _detach(context, legacy=True)


# --- the parent's end


@handles(cls_rbd.child_attach)
def child_attach(context: ObjectContext, snap_id: int, child: ChildImageSpec) -> None:
    snapshot = load_snapshot(context, snap_id)
    if isinstance(snapshot.namespace, TrashSnapshotNamespace):
        raise ClassError(errno.ENOENT)
    children = omap.find(context, _children_key(snap_id), _CHILDREN, set())
    if child in children:
        raise ClassError(errno.EEXIST)
    omap.put(context, _children_key(snap_id), children | {child}, _CHILDREN)
    save_snapshot(context, snapshot, child_count=snapshot.child_count + 1)
    feature = c.RBD_OPERATION_FEATURE_CLONE_PARENT
    change_op_features(context, feature, feature)


@handles(cls_rbd.child_detach)
def child_detach(context: ObjectContext, snap_id: int, child: ChildImageSpec) -> None:
    snapshot = load_snapshot(context, snap_id)
    children = omap.find(context, _children_key(snap_id), _CHILDREN, set())
    if snapshot.child_count != len(children):
        raise ClassError(errno.EINVAL)
    if child not in children:
        raise ClassError(errno.ENOENT)
    left = children - {child}
    if left:
        omap.put(context, _children_key(snap_id), left, _CHILDREN)
    else:
        omap.drop(context, _children_key(snap_id))
    save_snapshot(context, snapshot, child_count=len(left))
    if not left and not any(s.child_count for s in all_snapshots(context) if s.id != snap_id):
        change_op_features(context, 0, c.RBD_OPERATION_FEATURE_CLONE_PARENT)


@handles(cls_rbd.children_list)
def children_list(context: ObjectContext, snap_id: int) -> set[ChildImageSpec]:
    load_snapshot(context, snap_id)
    found: set[ChildImageSpec] = omap.need(context, _children_key(snap_id), _CHILDREN)
    return found


def _children_key(snap_id: int) -> bytes:
    return b"snap_children_%016x" % snap_id
