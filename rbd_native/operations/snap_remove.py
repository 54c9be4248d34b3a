"""Remove a snapshot: the record is marked as trash first, so that no clone can be made of it any more; if clones depend on
it, that is where it ends, until the last of them goes.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Coroutine
from typing import Any

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, mutate
from rbd_native.constants import RBD_FEATURE_FAST_DIFF, RBD_FEATURE_JOURNALING, RBD_FEATURE_OBJECT_MAP
from rbd_native.engine import gather
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.object_map import BitVector, ObjectMapCorrupt
from rbd_native.operations import bond, erase, mirror_state
from rbd_native.operations.snapshots import named, with_id, writable
from rbd_native.rados.port import RadosError, Remove
from rbd_native.types import (
    ChildImageSpec,
    MirrorSnapshotNamespace,
    ParentImageSpec,
    ProtectionStatus,
    SnapshotInfo,
    SnapshotNamespace,
    SnapshotNamespaceType,
    TrashSnapshotNamespace,
)
from rbd_native.watch_notify import SnapRemove

log = logging.getLogger(__name__)


async def remove(image: ImageContext, snapshot: Snapshot) -> None:
    """EBUSY where it is protected, EROFS. Where clones depend on it, it goes into the trash, and from there with the last
    of them; until then EBUSY for who wants it removed from there."""
    await writable(image)
    _unprotected(image, snapshot)
    info = snapshot.info
    if not _needs_owner(image):
        async with image.unsure_on_failure():
            await apply_remove(image, info.name, info.namespace)
        return
    await image.requests.carry_out(
        lambda request: SnapRemove(info.name, info.namespace, request),
        lambda: apply_remove(image, info.name, info.namespace),
        done_before=errno.ENOENT,
    )


def _needs_owner(image: ImageContext) -> bool:
    """Whether the owner of the lock has to do it, who keeps the head's object map: what a snapshot saw change goes into
    it."""
    return bool(image.header.features & (RBD_FEATURE_FAST_DIFF | RBD_FEATURE_JOURNALING))


def _unprotected(image: ImageContext, snapshot: Snapshot) -> None:
    if snapshot.protection != ProtectionStatus.UNPROTECTED:
        raise RadosError(errno.EBUSY, f"{image.name}@{snapshot.info.name} is protected")


async def apply_remove(image: ImageContext, name: str, namespace: SnapshotNamespace) -> None:
    """What whoever owns the image does for :func:`remove`."""
    async with image.alone(Operation.SNAP_REMOVE, locked=_needs_owner(image)):
        parent = await _remove(image, named(image, name, namespace))
    if parent is not None:
        await sweep(image, parent)


async def _remove(image: ImageContext, snapshot: Snapshot) -> ParentImageSpec | None:
    """The parent that the image is not bound to any more, if that is so."""
    _unprotected(image, snapshot)
    snap = snapshot.info.id
    looking: list[Coroutine[Any, Any, Any]] = [_kept_by_clones(image, snap), _map_of(image, snap)]
    kept, removed = await gather(looking, 2)
    if kept:
        if isinstance(snapshot.info.namespace, TrashSnapshotNamespace):
            raise RadosError(errno.EBUSY, f"{image.name}@{snap} has clones")
        await image.changed()
        return None
    parent = image.header.parent if _alone_bound(image, snapshot) else None
    if parent is not None:
        await bond.detach(image, parent)
    await _pass_map_on(image, snap, removed)
    if _of_mirroring(snapshot.info):
        await mirror_state.remove(image, snap)
    await gather([_drop_map(image, snap), _give_up(image, snap)], 2)
    request = cls_rbd.snap_remove(snapshot.info.name) if image.old_format else cls_rbd.snapshot_remove(snap)
    await image.update_header(request)
    return parent


async def _kept_by_clones(image: ImageContext, snap: int) -> bool:
    """Put it into the trash; whether it has to stay there."""
    if image.old_format:
        return False
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


async def _map_of(image: ImageContext, snap: int) -> BitVector | None:
    """Its object map. None where there is none, or it is damaged."""
    if not image.header.features & RBD_FEATURE_OBJECT_MAP:
        return None
    try:
        raw: bytes = await call(image.io, names.object_map(image.id, snap), cls_rbd.object_map_load())
        return BitVector.decode(raw)
    except ObjectMapCorrupt:
        return None
    except RadosError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EIO):
            raise
        return None


async def _give_up(image: ImageContext, snap: int) -> None:
    await image.data_io.snap_remove(snap)


async def _drop_map(image: ImageContext, snap: int) -> None:
    if image.header.features & RBD_FEATURE_OBJECT_MAP:
        oid = names.object_map(image.id, snap)
        reply = await image.io.write(oid, [Remove()]).bare()
        if reply.rv < 0 and reply.rv != -errno.ENOENT:
            raise RadosError(-reply.rv, oid, reply)


def _next_newer(image: ImageContext, snap: int) -> int | None:
    """The next newer snapshot; None for the head."""
    return min((other for other in image.snapc.ids if other > snap), default=None)


async def _pass_map_on(image: ImageContext, snap: int, removed: BitVector | None) -> None:
    """What the removed snapshot saw change must not look clean in the next newer map."""
    if not image.header.features & RBD_FEATURE_OBJECT_MAP:
        return
    if removed is None:
        await _invalidate_next(image, snap)
        return
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
