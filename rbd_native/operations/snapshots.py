"""Snapshots of an image: taken, renamed, protected, counted.

Taking one: an id from the cluster first, then the record in the header, then the object map's copy. A client that dies in
between leaves an id that nobody uses, or a snapshot whose map is missing, which is flagged when it is looked at.
"""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from typing import Any

from rbd_native import cls_rbd, names
from rbd_native.cls_client import ClassCall, call, call_optional, mutate
from rbd_native.constants import (
    RBD_FEATURE_LAYERING,
    RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR,
    RBD_SNAP_CREATE_SKIP_QUIESCE,
)
from rbd_native.engine import gather
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.operations import family, mirror_state
from rbd_native.operations.quiesce import quiesce, unquiesce
from rbd_native.rados.port import RadosError, Read, WriteFull
from rbd_native.types import (
    MirrorSnapshotNamespace,
    ProtectionStatus,
    SnapshotNamespace,
    UserSnapshotNamespace,
)
from rbd_native.watch_notify import (
    SNAP_IGNORE_QUIESCE_ERROR,
    SNAP_SKIP_OBJECT_MAP,
    SNAP_SKIP_QUIESCE,
    AsyncRequestId,
    SnapCreate,
)

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
    async with image.alone(Operation.SNAP_CREATE):
        return await _take(image, name, namespace, flags)


async def _take(image: ImageContext, name: str, namespace: SnapshotNamespace, flags: int) -> int:
    _absent(image, name, namespace)
    request = image.requests.new_id()
    asks = not flags & SNAP_SKIP_QUIESCE
    snap = await _id_in_quiet(image, request, flags) if asks else await image.data_io.snap_create()
    try:
        async with image.writes_blocked():  # who passes after it carries the new snapshot, however far this came
            snap = await _record(image, name, namespace, snap, with_map=not flags & SNAP_SKIP_OBJECT_MAP)
    except BaseException:
        if asks:
            await unquiesce(image, request)
        raise
    telling = [image.changed()]  # first: whoever then goes on has heard of it
    if asks:
        telling.append(unquiesce(image, request))
    await gather(telling, 2)
    return snap


async def _id_in_quiet(image: ImageContext, request: AsyncRequestId, flags: int) -> int:
    """An id, and meanwhile have every client hold still; neither where one of the two fails."""
    still, given = False, list[int]()

    async def hold_still() -> None:
        nonlocal still
        await quiesce(image, request, ignore_errors=bool(flags & SNAP_IGNORE_QUIESCE_ERROR))
        still = True

    async def ask() -> None:
        given.append(await image.data_io.snap_create())

    try:
        await gather([hold_still(), ask()], 2)
    except BaseException:
        for snap in given:
            await image.data_io.snap_remove(snap)
        if still:
            await unquiesce(image, request)
        raise
    return given[0]


async def _record(image: ImageContext, name: str, namespace: SnapshotNamespace, snap: int, *, with_map: bool) -> int:
    """Make it known, with its object map; its id, which is another where `snap` was not new enough."""
    keeper = image.head_map if with_map else None
    adding: list[Coroutine[Any, Any, Any]] = [_add(image, name, namespace, snap)]
    if keeper is not None:
        adding.append(image.io.read(names.object_map(image.id), [Read(0, 0)]).bare())
    snap, *read = await gather(adding, 2)
    if keeper is not None:
        # The head's map as it is now is the snapshot's; in the head's, what exists is clean from here on.
        if read[0].rv == 0:
            await image.io.write(names.object_map(image.id, snap), [WriteFull(read[0].outs[0])])
        await keeper.snap_add()
    if isinstance(namespace, MirrorSnapshotNamespace) and namespace.is_primary:
        await mirror_state.write(image, snap)
    return snap


async def _add(image: ImageContext, name: str, namespace: SnapshotNamespace, snap: int) -> int:
    """Its id. One that another client's newer snapshot has overtaken is given back for a newer one. ESTALE where the header
    tells of ids that the pool has not given yet: there would be no end to that."""
    old, newest = image.old_format, 0
    while True:
        record = cls_rbd.snap_add(name, snap) if old else cls_rbd.snapshot_add(name, snap, namespace)
        reply = await image.io.write(image.header_oid, [record.step]).bare()
        if reply.rv == 0:
            return snap
        error = RadosError(-reply.rv, image.header_oid, reply)
        if error.unanswered:  # then the id stays taken: the record may have it, now or later
            if await _is_recorded(image, name, snap):
                return snap
            raise error
        await image.data_io.snap_remove(snap)
        if reply.rv != -errno.ESTALE or snap < newest:
            raise error
        asking: ClassCall[Any] = cls_rbd.snap_list() if old else cls_rbd.get_snapcontext()
        newest, _ = await call(image.io, image.header_oid, asking)
        snap = await image.data_io.snap_create()


async def _is_recorded(image: ImageContext, name: str, snap: int) -> bool:
    if image.old_format:
        _, snapshots = await call(image.io, image.header_oid, cls_rbd.snap_list())
        return any(number == snap for number, _, _ in snapshots)
    return await call_optional(image.io, image.header_oid, cls_rbd.snapshot_get(snap), None) is not None


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
    await image.update_header(rename_it(snap, new_name))


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
    await image.update_header(_status(snapshot, status))


def _status(snapshot: Snapshot, status: ProtectionStatus) -> ClassCall[None]:
    return cls_rbd.set_protection_status(snapshot.info.id, status)


async def _has_old_children(image: ImageContext, snap: int) -> bool:
    async for _ in family.old_children_of(image.io, image.id, snap):
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
