"""Class `rbd`, snapshots of a format 2 header: keys `snapshot_<id>`, `snap_seq`, `snap_limit`."""

from __future__ import annotations

import dataclasses
import errno
import uuid

from rbd_native import cls_rbd
from rbd_native import constants as c
from rbd_native.embedded.classes import omap, rbd_format1
from rbd_native.embedded.classes.records import (
    PARENT,
    SNAPSHOT,
    all_snapshots,
    change_op_features,
    load_parent,
    load_snapshot,
    require_feature,
    save_snapshot,
    snapshot_key,
)
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import UTime, u64
from rbd_native.types import (
    MirrorSnapshotNamespace,
    ProtectionStatus,
    SnapshotInfo,
    SnapshotNamespace,
    SnapshotNamespaceType,
    StoredSnapshot,
    TrashSnapshotNamespace,
    UnknownSnapshotNamespace,
    UserSnapshotNamespace,
)

_NO_LIMIT = 2**64 - 1
_TRASH = c.RBD_OPERATION_FEATURE_SNAP_TRASH


@handles(cls_rbd.get_snapcontext)
def get_snapcontext(context: ObjectContext) -> tuple[int, list[int]]:
    ids = [omap.number(entry[len(SNAPSHOT) :]) for entry in context.omap_all(SNAPSHOT)]
    return omap.need(context, b"snap_seq", u64), sorted(ids, reverse=True)


@handles(cls_rbd.snapshot_get)
def snapshot_get(context: ObjectContext, snap_id: int) -> SnapshotInfo:
    found = _snapshot_not_head(context, snap_id)
    return SnapshotInfo(found.id, found.namespace, found.name, found.image_size, found.timestamp, found.child_count)


@handles(cls_rbd.get_snapshot_name)
def get_snapshot_name(context: ObjectContext, snap_id: int) -> str:
    return _snapshot_not_head(context, snap_id).name


@handles(cls_rbd.get_snapshot_timestamp)
def get_snapshot_timestamp(context: ObjectContext, snap_id: int) -> UTime:
    return _snapshot_not_head(context, snap_id).timestamp


def _snapshot_not_head(context: ObjectContext, snap_id: int) -> StoredSnapshot:
    if snap_id == c.NOSNAP:
        raise ClassError(errno.EINVAL)
    return load_snapshot(context, snap_id)


@handles(cls_rbd.snapshot_add)
def snapshot_add(context: ObjectContext, name: str, snap_id: int, namespace: SnapshotNamespace) -> None:
    if isinstance(namespace, UnknownSnapshotNamespace) or snap_id > c.MAXSNAP:
        raise ClassError(errno.EINVAL)
    if snap_id < omap.need(context, b"snap_seq", u64):
        raise ClassError(errno.ESTALE)
    size = omap.need(context, b"size", u64)
    _check_room(context, name, snap_id, namespace)
    if isinstance(namespace, TrashSnapshotNamespace):
        change_op_features(context, _TRASH, _TRASH)
    parent = load_parent(context)
    made = StoredSnapshot(
        id=snap_id,
        name=name,
        image_size=size,
        protection_status=ProtectionStatus.UNPROTECTED,
        flags=omap.find(context, b"flags", u64, 0),
        namespace=namespace,
        timestamp=context.now(),
        child_count=0,
        parent_overlap=parent.head_overlap if parent else None,
    )
    omap.put(context, b"snap_seq", snap_id, u64)
    save_snapshot(context, made)


def _check_room(context: ObjectContext, name: str, snap_id: int, namespace: SnapshotNamespace) -> None:
    limit = omap.find(context, b"snap_limit", u64, _NO_LIMIT)
    for count, old in enumerate(all_snapshots(context), start=1):
        # The limit is looked at before each older snapshot, so which error comes depends on their order.
        if count >= limit:
            raise ClassError(errno.EDQUOT)
        if old.id == snap_id or (old.name == name and _same(old.namespace, namespace)):
            raise ClassError(errno.EEXIST)


def _same(one: SnapshotNamespace, other: SnapshotNamespace) -> bool:
    """The trash is one namespace, whatever its snapshots were."""
    both_trash = isinstance(one, TrashSnapshotNamespace) and isinstance(other, TrashSnapshotNamespace)
    return both_trash or one == other


@handles(cls_rbd.snapshot_remove)
def snapshot_remove(context: ObjectContext, snap_id: int) -> None:
    snapshot = load_snapshot(context, snap_id)
    if snapshot.protection_status != ProtectionStatus.UNPROTECTED or snapshot.child_count:
        raise ClassError(errno.EBUSY)
    omap.drop(context, snapshot_key(snap_id))
    others = [other for other in all_snapshots(context) if other.id != snap_id]
    parent = load_parent(context)
    depends = any(other.parent_overlap is not None for other in others)
    head_depends = parent is not None and parent.head_overlap is not None
    unused = 0
    if not depends and not head_depends:
        unused |= c.RBD_OPERATION_FEATURE_CLONE_CHILD
        if parent is not None:
            omap.drop(context, PARENT)
    if not any(isinstance(other.namespace, TrashSnapshotNamespace) for other in others):
        unused |= _TRASH
    if unused:
        change_op_features(context, 0, unused)


@handles(cls_rbd.snapshot_rename)
def snapshot_rename(context: ObjectContext, snap_id: int, name: str) -> None:
    for other in all_snapshots(context):
        if isinstance(other.namespace, UserSnapshotNamespace) and other.name == name:
            raise ClassError(errno.EEXIST)
    snapshot = load_snapshot(context, snap_id)
    if not isinstance(snapshot.namespace, UserSnapshotNamespace):
        raise ClassError(errno.EINVAL)
    save_snapshot(context, snapshot, name=name)


@handles(cls_rbd.snapshot_trash_add)
def snapshot_trash_add(context: ObjectContext, snap_id: int) -> None:
    snapshot = load_snapshot(context, snap_id)
    if snapshot.protection_status != ProtectionStatus.UNPROTECTED:
        raise ClassError(errno.EBUSY)
    if isinstance(snapshot.namespace, TrashSnapshotNamespace):
        raise ClassError(errno.EEXIST)
    change_op_features(context, _TRASH, _TRASH)
    trash = TrashSnapshotNamespace(snapshot.name, SnapshotNamespaceType(snapshot.namespace.type))
    save_snapshot(context, snapshot, namespace=trash, name=str(uuid.uuid4()))


# --- the limit


@handles(cls_rbd.snapshot_get_limit)
def snapshot_get_limit(context: ObjectContext) -> int:
    found: int = omap.find(context, b"snap_limit", u64, _NO_LIMIT)
    return found


@handles(cls_rbd.snapshot_set_limit)
def snapshot_set_limit(context: ObjectContext, limit: int) -> None:
    if limit == _NO_LIMIT:
        omap.drop(context, b"snap_limit")
        return
    if limit < _snapshot_count(context):
        raise ClassError(errno.ERANGE)
    omap.put(context, b"snap_limit", limit, u64)


def _snapshot_count(context: ObjectContext) -> int:
    try:
        return len(rbd_format1.read_header(context).snaps)
    except ClassError as error:
        if error.errno != errno.EINVAL:
            raise
        return len(context.omap_all(SNAPSHOT))


# --- protection, which clones of version 1 rely on


@handles(cls_rbd.get_protection_status)
def get_protection_status(context: ObjectContext, snap_id: int) -> ProtectionStatus:
    omap.require_object(context)
    status = _snapshot_not_head(context, snap_id).protection_status
    if status > ProtectionStatus.PROTECTED:
        raise ClassError(errno.EIO)
    return status


@handles(cls_rbd.set_protection_status)
def set_protection_status(context: ObjectContext, snap_id: int, status: ProtectionStatus) -> None:
    omap.require_object(context)
    require_feature(context, c.RBD_FEATURE_LAYERING)
    if status > ProtectionStatus.PROTECTED:
        raise ClassError(errno.EINVAL)
    save_snapshot(context, _snapshot_not_head(context, snap_id), protection_status=status)


# --- snapshots of mirroring


@handles(cls_rbd.mirror_image_snapshot_unlink_peer)
def mirror_image_snapshot_unlink_peer(context: ObjectContext, snap_id: int, peer_uuid: str) -> None:
    snapshot, namespace = _mirror_snapshot(context, snap_id)
    if peer_uuid not in namespace.mirror_peer_uuids:
        raise ClassError(errno.ENOENT)
    left = namespace.mirror_peer_uuids - {peer_uuid}
    save_snapshot(context, snapshot, namespace=dataclasses.replace(namespace, mirror_peer_uuids=left))


@handles(cls_rbd.mirror_image_snapshot_set_copy_progress)
def mirror_image_snapshot_set_copy_progress(
    context: ObjectContext, snap_id: int, complete: bool, last_copied_object_number: int
) -> None:
    snapshot, namespace = _mirror_snapshot(context, snap_id)
    changed = dataclasses.replace(namespace, complete=complete)
    if namespace.is_non_primary:
        changed = dataclasses.replace(changed, last_copied_object_number=last_copied_object_number)
    save_snapshot(context, snapshot, namespace=changed)


def _mirror_snapshot(context: ObjectContext, snap_id: int) -> tuple[StoredSnapshot, MirrorSnapshotNamespace]:
    snapshot = load_snapshot(context, snap_id)
    if not isinstance(snapshot.namespace, MirrorSnapshotNamespace):
        raise ClassError(errno.EINVAL)
    return snapshot, snapshot.namespace
