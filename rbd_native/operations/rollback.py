"""Make an image what it was at a snapshot.

The size first, then object by object; no write overlaps it. The head's object map says throughout that an object may exist
if it exists before or after: so a client that dies halfway leaves no map that denies an object. Doing it again finishes it.
"""

from __future__ import annotations

import errno

import numpy as np

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call
from rbd_native.engine import for_each
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.image.head_map import HeadMap
from rbd_native.object_map import BitVector, ObjectMapCorrupt, ObjectState
from rbd_native.operations import resize, snapshots
from rbd_native.operations.progress import Progress
from rbd_native.rados.port import RadosError
from rbd_native.types import SnapshotNamespace


async def rollback(image: ImageContext, name: str, progress: Progress | None = None) -> None:
    """ENOENT, EROFS."""
    await snapshots.writable(image)
    if image.snap_gone:
        raise RadosError(errno.ENOENT, f"{image.name}: the snapshot was removed")
    if image.snap is not None:
        raise RadosError(errno.EROFS, f"{image.name} is set to a snapshot")
    snapshots.named(image, name)
    # A living owner is not asked for the lock: whoever works with the image is not to lose what it works on.
    await image.under_lock(lambda: apply(image, name, snapshots.USER, progress), ask=False)


async def apply(
    image: ImageContext, name: str, namespace: SnapshotNamespace, progress: Progress | None = None
) -> None:
    """What whoever owns the image does for :func:`rollback`."""
    async with image.alone(Operation.ROLLBACK):
        async with image.writes_blocked():
            snapshot = snapshots.named(image, name, namespace)
            size = snapshot.info.image_size
            if size != image.header.size:
                resize.check_map(image, size)
                await resize.set_size(image, size)
                await image.changed()
                await image.fresh()
            await _objects(image, snapshot, progress or Progress())
        await image.changed()


async def _objects(image: ImageContext, snapshot: Snapshot, progress: Progress) -> None:
    snap = snapshot.info.id
    count = image.layout.object_count(image.header.size)
    keeper = image.head_map
    then = await _map_of(image, snap, count) if keeper is not None else None
    if keeper is not None and then is not None:
        await _admit(keeper, then)
    done = 0

    async def step(objectno: int) -> None:
        nonlocal done
        was = then is None or then[objectno] is not ObjectState.NONEXISTENT
        if was or keeper is None or keeper.may_exist(objectno):
            await image.data_io.rollback(image.object_name(objectno), snap, image.snapc)
        progress.update(done, count)
        done += 1

    await for_each(map(step, range(count)), image.settings.integer("rbd_concurrent_management_ops"))
    if keeper is not None:
        if then is None:
            await keeper.invalidate()
        else:
            await keeper.replace(_all_changed(then))


async def _map_of(image: ImageContext, snap: int, count: int) -> BitVector | None:
    """The snapshot's map, where it can be believed."""
    if any(s.info.id == snap and s.flags for s in image.header.snapshots):
        return None
    try:
        raw: bytes = await call(image.io, names.object_map(image.id, snap), cls_rbd.object_map_load())
        bits = BitVector.decode(raw)
    except (RadosError, ObjectMapCorrupt):
        return None
    return bits if len(bits) == count else None


async def _admit(keeper: HeadMap, then: BitVector) -> None:
    """Say of every object that will come back that it may be there, before it does: one step, the whole map."""
    merged = BitVector(len(then))
    for (start, now), (_, later) in zip(keeper.bits.chunks(0, len(then)), then.chunks(), strict=True):
        merged.put(start, np.where(now != ObjectState.NONEXISTENT, now, later))
    await keeper.replace(merged)


def _all_changed(then: BitVector) -> BitVector:
    """The snapshot's map as the head's. What it calls unchanged is so since the snapshot before it, not since the newest
    one, which is what that means in a head's map: there, whatever was rolled back has changed.

    (librbd 16 takes the map as it is: the fast diff from a newer snapshot then does not see the rollback.)
    """
    changed = BitVector(len(then))
    for start, states in then.chunks():
        changed.put(start, np.where(states != ObjectState.NONEXISTENT, ObjectState.EXISTS, ObjectState.NONEXISTENT))
    return changed
