"""Make an object map anew from the objects themselves.

What exists is found by asking for each object, or, where the image could have far more objects than the pool holds, by
listing the pool once. An object that exists is clean where it was not written since the newest snapshot: its own record
of snapshots ends before that one. The map is saved whole, in one step, and only then called valid.

The states are kept packed, two bits an object, so an image of 256 million objects takes 64 MB.
"""

from __future__ import annotations

import errno

from rbd_native import cls_lock, cls_rbd, names
from rbd_native.cls_client import mutate
from rbd_native.constants import (
    RBD_FEATURE_OBJECT_MAP,
    RBD_FLAG_FAST_DIFF_INVALID,
    RBD_FLAG_OBJECT_MAP_INVALID,
)
from rbd_native.engine import for_each
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.object_map import BitVector, ObjectState
from rbd_native.operations.presence import listed, listing_pays
from rbd_native.operations.progress import Progress
from rbd_native.operations.resize import check_map
from rbd_native.rados.port import HEAD, Clone, ListSnaps, RadosError, SnapSet, Stat, WriteFull
from rbd_native.types import LockType
from rbd_native.watch_notify import RebuildObjectMap

_FLAGS = RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID


async def rebuild(image: ImageContext, progress: Progress | None = None) -> None:
    """Rebuild the map of the head or of the snapshot the handle is set to. EINVAL without the feature, EROFS."""
    if image.stale:
        await image.fresh()
    if image.read_only:
        raise RadosError(errno.EROFS, image.name)
    _check(image)
    if image.snap is not None:
        at = image.snap.info.id
        await image.under_lock(lambda: _snapshot(image, at, image.size, progress or Progress()))
        return
    await image.requests.carry_out(
        RebuildObjectMap, lambda: apply(image, progress), progress.update if progress is not None else None
    )


def _check(image: ImageContext) -> None:
    if not image.header.features & RBD_FEATURE_OBJECT_MAP:
        raise RadosError(errno.EINVAL, "the image has no object map")


async def apply(image: ImageContext, progress: Progress | None = None) -> None:
    """What whoever owns the image does for :func:`rebuild`."""
    async with image.alone(Operation.REBUILD_OBJECT_MAP), image.writes_blocked():
        _check(image)
        check_map(image, image.header.size)
        bits = BitVector(image.layout.object_count(image.header.size))
        await _examine(image, bits, progress or Progress())
        held = cls_lock.assert_locked(names.LOCK_NAME, LockType.EXCLUSIVE, "", "")
        raw = bits.encode()
        await image.io.write(names.object_map(image.id), [held.step, cls_rbd.object_map_save(raw).step])
        if image.lock is not None:  # kept up before it is called valid
            await image.lock.open_map(raw)
        await mutate(image.io, image.header_oid, cls_rbd.set_flags(0, _FLAGS))
    await image.changed()


async def _snapshot(image: ImageContext, snap: int, size: int, progress: Progress) -> None:
    """A snapshot does not change: no write need be kept out."""
    async with image.alone(Operation.REBUILD_OBJECT_MAP):
        check_map(image, size)
        bits = BitVector(image.layout.object_count(size))
        await _examine(image, bits, progress, snap)
        await image.io.write(names.object_map(image.id, snap), [WriteFull(bits.encode())])
        await image.update_header(cls_rbd.set_flags(0, _FLAGS, snap))


async def _examine(image: ImageContext, bits: BitVector, progress: Progress, snap: int = HEAD) -> None:
    total = len(bits)
    # A listing shows heads alone: what only a snapshot still has must be asked for.
    listing = snap == HEAD and await listing_pays(image, total)
    found = await listed(image, 0, total) if listing else range(total)
    done = 0

    async def step(objectno: int) -> None:
        nonlocal done
        state = await _state(image, objectno, snap)
        if state is not ObjectState.NONEXISTENT:
            bits[objectno] = state
        done += 1
        progress.update(done, len(found))

    await for_each(map(step, found), image.settings.integer("rbd_concurrent_management_ops"))


async def _state(image: ImageContext, objectno: int, snap: int) -> ObjectState:
    oid = image.object_name(objectno)
    older = [other for other in image.snapc.ids if other < snap]
    snaps = older or snap != HEAD
    reply = await image.data_io.read(oid, [ListSnaps() if snaps else Stat()]).bare()
    if reply.rv == -errno.ENOENT:
        return ObjectState.NONEXISTENT
    if reply.rv < 0:
        raise RadosError(-reply.rv, oid, reply)
    if not snaps:
        return ObjectState.EXISTS
    found: SnapSet = reply.outs[0]
    now = serving(found, snap)
    if now is None:
        return ObjectState.NONEXISTENT
    before = serving(found, older[0]) if older else None
    return ObjectState.EXISTS_CLEAN if now is before else ObjectState.EXISTS


def serving(found: SnapSet, snap: int) -> Clone | None:
    """What the object was at a snapshot: the clone that serves it, or the head where nothing was written since."""
    for clone in found.clones:
        if snap in clone.snaps or (clone.is_head and snap > found.seq):
            return clone
    return None
