"""Snapshots of an image: taken, removed, renamed, protected, counted.

Taking one: an id from the cluster first, then the record in the header, then the object map's copy. A client that dies in
between leaves an id that nobody uses, or a snapshot whose map is missing, which is flagged when it is looked at. Removing
one: the record is marked as trash first, so that no clone can be made of it any more; if clones depend on it, that is
where it ends, until the last of them goes.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import ClassCall, call, call_optional, mutate
from rbd_native.constants import (
    RBD_FEATURE_LAYERING,
    RBD_FEATURE_OBJECT_MAP,
    RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR,
    RBD_SNAP_CREATE_SKIP_QUIESCE,
)
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.object_map import BitVector, ObjectMapCorrupt
from rbd_native.operations import bond, erase, mirror_state
from rbd_native.operations.quiesce import quiesce, unquiesce
from rbd_native.rados.port import RadosError, Read, Remove, WriteFull
from rbd_native.types import (
    ChildImageSpec,
    MirrorSnapshotNamespace,
    ParentImageSpec,
    ProtectionStatus,
    SnapshotInfo,
    SnapshotNamespace,
    SnapshotNamespaceType,
    TrashSnapshotNamespace,
    UserSnapshotNamespace,
)
from rbd_native.watch_notify import (
    SNAP_IGNORE_QUIESCE_ERROR,
    SNAP_SKIP_OBJECT_MAP,
    SNAP_SKIP_QUIESCE,
    SnapCreate,
    SnapRemove,
)

log = logging.getLogger(__name__)

USER = UserSnapshotNamespace()
_WIRE_FLAGS = {
    0: 0,
    RBD_SNAP_CREATE_SKIP_QUIESCE: SNAP_SKIP_QUIESCE,
    RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR: SNAP_IGNORE_QUIESCE_ERROR,
}
"""Users' flags, of which there is one at most, as clients tell each other."""


async def writable(image: ImageContext) -> None:
    """Current, and not open read-only: EROFS. Snapshots may be changed through a handle that is set to one."""
    if image.stale:
        await image.fresh()
    if image.read_only:
        raise RadosError(errno.EROFS, image.name)


def named(image: ImageContext, name: str, namespace: SnapshotNamespace = USER) -> Snapshot:
    """ENOENT."""
    for snapshot in image.header.snapshots:
        if snapshot.info.name == name and snapshot.info.namespace == namespace:
            return snapshot
    raise RadosError(errno.ENOENT, f"{image.name}@{name}")


def with_id(image: ImageContext, snap: int) -> Snapshot:
    """ENOENT."""
    for snapshot in image.header.snapshots:
        if snapshot.info.id == snap:
            return snapshot
    raise RadosError(errno.ENOENT, f"snapshot {snap} of {image.name}")


async def removable(image: ImageContext, key: str | int) -> Snapshot:
    """By name or id: ENOENT, and only for one that is there EROFS."""
    if image.stale:
        await image.fresh()
    snapshot = named(image, key) if isinstance(key, str) else with_id(image, key)
    await writable(image)
    return snapshot


# --- take ------------------------------------------------------------------------------------------------------------


async def create(image: ImageContext, name: str, flags: int = 0, namespace: SnapshotNamespace = USER) -> None:
    """EEXIST, EDQUOT (over the limit), EINVAL (flags), EROFS, and what a client answers that cannot hold still."""
    wire = check_flags(flags)
    await writable(image)
    _absent(image, name, namespace)
    await image.requests.carry_out(
        lambda request: SnapCreate(name, namespace, request, wire),
        lambda: apply_create(image, name, namespace, wire),
        done_before=errno.EEXIST,
    )


def check_flags(flags: int) -> int:
    """Users' flags as they stand in a message. EINVAL."""
    if flags not in _WIRE_FLAGS:
        raise RadosError(errno.EINVAL, f"flags {flags:#x}")
    return _WIRE_FLAGS[flags]


def _absent(image: ImageContext, name: str, namespace: SnapshotNamespace) -> None:
    if any(s.info.name == name and s.info.namespace == namespace for s in image.header.snapshots):
        raise RadosError(errno.EEXIST, f"{image.name}@{name}")


async def apply_create(image: ImageContext, name: str, namespace: SnapshotNamespace, flags: int) -> None:
    """What whoever owns the image does for :func:`create`; `flags` as in the message."""
    await take(image, name, namespace, flags)


async def take(image: ImageContext, name: str, namespace: SnapshotNamespace, flags: int) -> int:
    """Take it, as the owner of the image; its id. `flags` as in a message."""
    _absent(image, name, namespace)
    request = image.requests.new_id()
    asks = not flags & SNAP_SKIP_QUIESCE
    if asks:
        await quiesce(image, request, ignore_errors=bool(flags & SNAP_IGNORE_QUIESCE_ERROR))
    await image.gate.close()
    try:
        snap = await _add(image, name, namespace)
        if not flags & SNAP_SKIP_OBJECT_MAP:
            await _copy_map(image, snap)
        if isinstance(namespace, MirrorSnapshotNamespace) and namespace.is_primary:
            await mirror_state.write(image, snap)
    finally:
        image.stale = True  # before any write can pass: each must carry the new snapshot, however far this came
        image.gate.open()
        if asks:
            await unquiesce(image, request)
    await image.changed()
    return snap


async def _add(image: ImageContext, name: str, namespace: SnapshotNamespace) -> int:
    """Its id. One that another client's newer snapshot has overtaken is given back for a newer one. ESTALE where the header
    tells of ids that the pool has not given yet: there would be no end to that."""
    old, newest = image.old_format, 0
    while True:
        snap: int = await image.data_io.snap_create()
        record = cls_rbd.snap_add(name, snap) if old else cls_rbd.snapshot_add(name, snap, namespace)
        reply = await image.io.write(image.header_oid, [record.step]).bare()
        if reply.rv == 0:
            return snap
        await image.data_io.snap_remove(snap)
        if reply.rv != -errno.ESTALE or snap < newest:
            raise RadosError(-reply.rv, image.header_oid, reply)
        asking: ClassCall[Any] = cls_rbd.snap_list() if old else cls_rbd.get_snapcontext()
        newest, _ = await call(image.io, image.header_oid, asking)


async def _copy_map(image: ImageContext, snap: int) -> None:
    """The head's map as it is now is the snapshot's; in the head's, what exists is clean from here on."""
    keeper = image.head_map
    if keeper is None:
        return
    reply = await image.io.read(names.object_map(image.id), [Read(0, 0)]).bare()
    if reply.rv == 0:
        await image.io.write(names.object_map(image.id, snap), [WriteFull(reply.outs[0])])
    await keeper.snap_add()


# --- remove ----------------------------------------------------------------------------------------------------------


async def remove(image: ImageContext, snapshot: Snapshot) -> None:
    """EBUSY where it is protected, EROFS. Where clones depend on it, it goes with the last of them."""
    await writable(image)
    _unprotected(image, snapshot)
    info = snapshot.info
    await image.requests.carry_out(
        lambda request: SnapRemove(info.name, info.namespace, request),
        lambda: apply_remove(image, info.name, info.namespace),
        done_before=errno.ENOENT,
    )


def _unprotected(image: ImageContext, snapshot: Snapshot) -> None:
    if snapshot.protection != ProtectionStatus.UNPROTECTED:
        raise RadosError(errno.EBUSY, f"{image.name}@{snapshot.info.name} is protected")


async def apply_remove(image: ImageContext, name: str, namespace: SnapshotNamespace) -> None:
    """What whoever owns the image does for :func:`remove`."""
    snapshot = named(image, name, namespace)
    _unprotected(image, snapshot)
    snap = snapshot.info.id
    if not image.old_format and await _kept_by_clones(image, snap):
        await image.changed()
        return
    parent = image.header.parent if _alone_bound(image, snapshot) else None
    if parent is not None:
        await bond.detach(image, parent)
    await _drop_map(image, snap)
    if _of_mirroring(snapshot.info):
        await mirror_state.remove(image, snap)
    await image.data_io.snap_remove(snap)
    await mutate(
        image.io, image.header_oid, cls_rbd.snap_remove(name) if image.old_format else cls_rbd.snapshot_remove(snap)
    )
    await image.changed()
    if parent is not None:
        await sweep(image, parent)


async def _kept_by_clones(image: ImageContext, snap: int) -> bool:
    """Put it into the trash; whether it has to stay there."""
    reply = await image.io.write(image.header_oid, [cls_rbd.snapshot_trash_add(snap).step]).bare()
    if reply.rv < 0 and reply.rv != -errno.EEXIST:  # in the trash already, from an attempt that did not end
        raise RadosError(-reply.rv, image.header_oid, reply)
    info = await call(image.io, image.header_oid, cls_rbd.snapshot_get(snap))
    return bool(info.child_count) and await _has_children(image, snap)


def _of_mirroring(info: SnapshotInfo) -> bool:
    """Or was, before an attempt to remove it that did not end."""
    namespace = info.namespace
    if isinstance(namespace, TrashSnapshotNamespace):
        return namespace.original_type == SnapshotNamespaceType.MIRROR
    return isinstance(namespace, MirrorSnapshotNamespace)


def _alone_bound(image: ImageContext, snapshot: Snapshot) -> bool:
    """Whether it is the last for whose sake a clone that was flattened still is bound to its parent."""
    others = (other.bound for other in image.header.snapshots if other.info.id != snapshot.info.id)
    return snapshot.bound and not image.header.bound and not any(others)


async def sweep(child: ImageContext, spec: ParentImageSpec) -> None:
    """Remove the parent's snapshot for good if it only waited, in the trash, for its last clone to go; and the parent
    itself if that waited for the snapshot.

    For that the parent must be had; where somebody keeps it, the clone is none the less free, and the snapshot stays.
    """
    await _sweep_snapshot(child, spec)
    await erase.sweep(child, spec)


async def _sweep_snapshot(child: ImageContext, spec: ParentImageSpec) -> None:
    there = child.io.cluster.io(spec.pool_id, spec.pool_namespace)
    try:
        info = await call(there, names.header(spec.image_id), cls_rbd.snapshot_get(spec.snap_id))
        if not waits(info):
            return
        parent = await child.open_relative(there, spec.image_id)
        try:
            await remove(parent, with_id(parent, spec.snap_id))
        finally:
            await parent.close()
    except RadosError as error:
        if error.errno != errno.ENOENT:
            log.warning("snapshot %d of image %s stays in the trash: %s", spec.snap_id, spec.image_id, error)


def waits(info: SnapshotInfo) -> bool:
    """Whether it is in the trash, and no clone keeps it there."""
    return isinstance(info.namespace, TrashSnapshotNamespace) and not info.child_count


async def _has_children(image: ImageContext, snap: int) -> bool:
    try:
        children: set[ChildImageSpec] = await call(image.io, image.header_oid, cls_rbd.children_list(snap))
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return bool(children)


async def _drop_map(image: ImageContext, snap: int) -> None:
    """What the removed snapshot saw change must not look clean in the next newer map."""
    if not image.header.features & RBD_FEATURE_OBJECT_MAP:
        return
    oid = names.object_map(image.id, snap)
    try:
        raw: bytes = await call(image.io, oid, cls_rbd.object_map_load())
        removed = BitVector.decode(raw)
    except (RadosError, ObjectMapCorrupt) as error:
        if isinstance(error, RadosError) and error.errno not in (errno.ENOENT, errno.EINVAL, errno.EIO):
            raise
        await _invalidate_next(image, snap)
    else:
        await _pass_on(image, snap, removed)
    reply = await image.io.write(oid, [Remove()]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, oid, reply)


def _next_newer(image: ImageContext, snap: int) -> int | None:
    """The next newer snapshot; None for the head."""
    return min((other for other in image.snapc.ids if other > snap), default=None)


async def _pass_on(image: ImageContext, snap: int, removed: BitVector) -> None:
    newer = _next_newer(image, snap)
    if newer is None:
        if image.head_map is not None:
            await image.head_map.snap_remove(removed)
        return
    oid = names.object_map(image.id, newer)
    request = cls_rbd.object_map_snap_remove(removed.encode(with_crcs=False))
    reply = await image.io.write(oid, [request.step]).bare()
    if reply.rv < 0:
        await _flag_invalid(image, newer)


async def _invalidate_next(image: ImageContext, snap: int) -> None:
    newer = _next_newer(image, snap)
    if newer is not None:
        await _flag_invalid(image, newer)
    elif image.head_map is not None:
        await image.head_map.invalidate()


async def _flag_invalid(image: ImageContext, snap: int) -> None:
    await mutate(image.io, image.header_oid, cls_rbd.set_flags(headers.INVALID_MAPS, headers.INVALID_MAPS, snap))


# --- rename and protect ----------------------------------------------------------------------------------------------


async def rename(image: ImageContext, name: str, new_name: str) -> None:
    """ENOENT, EEXIST (also where it has that name), EROFS."""
    await writable(image)
    snapshot = named(image, name)
    _absent(image, new_name, USER)
    await apply_rename(image, snapshot.info.id, new_name)


async def apply_rename(image: ImageContext, snap: int, new_name: str) -> None:
    with_id(image, snap)
    rename_it = cls_rbd.snap_rename if image.old_format else cls_rbd.snapshot_rename
    await mutate(image.io, image.header_oid, rename_it(snap, new_name))
    await image.changed()


async def protect(image: ImageContext, name: str) -> None:
    """EBUSY where it is protected, ENOSYS without the feature layering, ENOENT, EROFS."""
    await writable(image)
    _need_layering(image)
    snapshot = named(image, name)
    if snapshot.protection == ProtectionStatus.PROTECTED:
        raise RadosError(errno.EBUSY, f"{image.name}@{name} is protected")
    await _protection(image, snapshot, ProtectionStatus.PROTECTED)


async def unprotect(image: ImageContext, name: str) -> None:
    """EINVAL where it is not protected, EBUSY where it has clones of format 1 in any pool, ENOENT, EROFS."""
    await writable(image)
    snapshot = named(image, name)
    if snapshot.protection == ProtectionStatus.UNPROTECTED:
        raise RadosError(errno.EINVAL, f"{image.name}@{name} is not protected")
    # Clones of format 1 look at the status when they are made: from here on none can be, while we look for them.
    await mutate(image.io, image.header_oid, _status(snapshot, ProtectionStatus.UNPROTECTING))
    try:
        if await _has_old_children(image, snapshot.info.id):
            raise RadosError(errno.EBUSY, f"{image.name}@{name} has clones")
    except BaseException:
        await _protection(image, snapshot, ProtectionStatus.PROTECTED)
        raise
    await _protection(image, snapshot, ProtectionStatus.UNPROTECTED)


def _need_layering(image: ImageContext) -> None:
    if not image.header.features & RBD_FEATURE_LAYERING:
        raise RadosError(errno.ENOSYS, f"{image.name} lacks the feature layering")


async def _protection(image: ImageContext, snapshot: Snapshot, status: ProtectionStatus) -> None:
    await mutate(image.io, image.header_oid, _status(snapshot, status))
    await image.changed()


def _status(snapshot: Snapshot, status: ProtectionStatus) -> ClassCall[None]:
    return cls_rbd.set_protection_status(snapshot.info.id, status)


async def _has_old_children(image: ImageContext, snap: int) -> bool:
    pools: dict[int, str] = await image.io.cluster.pools()
    request = cls_rbd.get_children(image.io.pool_id, image.id, snap)
    for pool in pools:
        io = image.io.cluster.io(pool, image.io.namespace)
        if await call_optional(io, names.CHILDREN, request, set(), errno.ENOENT, errno.EOPNOTSUPP):
            return True
    return False


# --- count -----------------------------------------------------------------------------------------------------------


async def limit(image: ImageContext) -> int:
    """How many snapshots the image may have; 2**64 - 1 for any number."""
    return await call(image.io, image.header_oid, cls_rbd.snapshot_get_limit())


async def set_limit(image: ImageContext, number: int) -> None:
    """ERANGE where it has more already, EROFS."""
    await writable(image)

    async def change() -> None:
        await mutate(image.io, image.header_oid, cls_rbd.snapshot_set_limit(number))

    await image.under_lock(change)
