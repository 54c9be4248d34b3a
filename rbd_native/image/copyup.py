"""Writes to objects that a clone does not have yet: the parent's data comes first.

An object that exists hides the parent's data there, so its first write must bring along what it does not overwrite. Data
and write go in one operation, and the data is taken only if the object still is missing: whoever else did the same, the
result is the same. Where the clone has snapshots, they must go on seeing the parent's data even once the clone is
flattened: the data is put in first, under no snapshot context at all, which makes it the object's state at all of them.

It is the head's overlap that counts. A snapshot may share more with the parent, since the image has been smaller once: then
all objects beyond the head's overlap were brought before the image shrank, and the snapshot has them.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from rbd_native import cls_rbd, names
from rbd_native.cls_client import mutate
from rbd_native.constants import RBD_FEATURE_FAST_DIFF, RBD_FEATURE_OBJECT_MAP
from rbd_native.header import INVALID_MAPS, Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.image.head_map import HeadMap
from rbd_native.image.reading import find_in_parent
from rbd_native.object_map import ObjectState
from rbd_native.rados.port import AllocHint, AssertExists, RadosError, SnapContext, Stat, WriteFull, WriteStep
from rbd_native.zeros import filled_runs

_NO_SNAPSHOTS = SnapContext(0, ())
_BLOCK = 4096


def has_parent_at(image: ImageContext, objectno: int) -> bool:
    """Whether the parent has anything where the object lies."""
    state = image.state
    if state.parent is None:
        return False
    return image.layout.object_extent_in(state.header.parent_overlap, objectno) > 0


async def apply(image: ImageContext, objectno: int, steps: tuple[WriteStep, ...]) -> None:
    """Write to an object under which the parent may have data."""
    keeper = image.head_map
    if keeper is None or keeper.may_exist(objectno):
        if keeper is not None:
            await keeper.will_write(objectno)
        oid = image.object_name(objectno)
        reply = await image.data_io.write(oid, (AssertExists(), *steps), snapc=image.snapc).bare()
        if reply.rv >= 0:
            return
        if reply.rv != -errno.ENOENT:
            raise RadosError(-reply.rv, oid, reply)
    await copyup(image, objectno, steps)


async def secure(image: ImageContext, objectno: int) -> bool:
    """Bring the parent's data into an object if it is missing; whether it was.

    That the object map has the object is not enough: who was to make it may have died in between.
    """
    if not has_parent_at(image, objectno):
        return False
    keeper = image.head_map
    if keeper is None or keeper.may_exist(objectno):
        reply = await image.data_io.read(image.object_name(objectno), [Stat()]).bare()
        if reply.rv != -errno.ENOENT:
            return False
    return await copyup(image, objectno, ())


async def copyup(image: ImageContext, objectno: int, steps: tuple[WriteStep, ...]) -> bool:
    """Bring the parent's data into an object that is missing, and then do `steps`. Whether anything was brought."""
    size = image.layout.object_size
    state = image.state
    snapc, overlap, parent = state.header.snapc, state.header.parent_overlap, state.parent
    whole = not snapc.ids and any(type(step) is WriteFull for step in steps)
    # Without a parent: it has just been flattened, by somebody who has brought everything.
    data = b"" if whole or parent is None else await find_in_parent(image, parent, objectno, 0, size, overlap)
    extents, packed = sparse(data)
    if not extents and not steps:
        return False
    # The plain method takes the bytes as they are; of the other's input, a copy has to be made.
    bringing = cls_rbd.copyup(packed) if list(extents) == [0] else cls_rbd.sparse_copyup(extents, packed)
    bring: tuple[WriteStep, ...] = (bringing.step, *image.hints)
    if extents and snapc.ids:
        return await _under_snapshots(image, objectno, bring, steps)
    keeper = image.head_map
    if keeper is not None:
        await (keeper.will_write(objectno) if steps else _announce(keeper, objectno))
    rest = [step for step in steps if type(step) is not AllocHint]  # of which there is one by now
    await image.data_io.write(image.object_name(objectno), (*bring, *rest), snapc=snapc)
    if keeper is not None and not steps:
        await keeper.update(objectno, ObjectState.EXISTS, ObjectState.PENDING)
    return bool(extents)


async def _announce(keeper: HeadMap, objectno: int) -> bool:
    """Before data is brought: the object may exist, and may not. Whether the map had it missing.

    To say that it exists would do harm if we died now: librbd flattens no object of which the map says that, and so
    would lose what the parent has there.
    """
    if keeper.may_exist(objectno):
        await keeper.update(objectno, ObjectState.PENDING, ObjectState.EXISTS)
        return False
    await keeper.update(objectno, ObjectState.PENDING, ObjectState.NONEXISTENT)
    return True


async def _under_snapshots(
    image: ImageContext, objectno: int, bring: tuple[WriteStep, ...], steps: tuple[WriteStep, ...]
) -> bool:
    """In two operations, so one at a time: whoever comes second finds the object there, and leaves it as it is."""
    oid = image.object_name(objectno)
    await image.copyups.enter(objectno)
    try:
        there = (await image.data_io.read(oid, (Stat(),)).bare()).rv == 0
        keeper = image.head_map
        if not there:
            await _mark_snapshots(image, objectno)
            missing = keeper is not None and await _announce(keeper, objectno)
            await image.data_io.write(oid, bring, snapc=_NO_SNAPSHOTS)
            if keeper is not None and not steps:
                # Where the map had it before, somebody may have written to it since, trusting in that.
                state = _unchanged(image) if missing else ObjectState.EXISTS
                await keeper.update(objectno, state, ObjectState.PENDING)
        if steps:
            if keeper is not None:
                await keeper.will_write(objectno)
            await image.data_io.write(oid, steps, snapc=image.snapc)
        return not there
    finally:
        image.copyups.leave(objectno)


async def _mark_snapshots(image: ImageContext, objectno: int) -> None:
    """The object will exist at every snapshot that overlaps the parent there: their maps say so before it does."""
    if not image.header.features & RBD_FEATURE_OBJECT_MAP:
        return
    state: ObjectState = ObjectState.EXISTS
    for snapshot in _covering(image, objectno):
        oid = names.object_map(image.id, snapshot.info.id)
        reply = await image.io.write(
            oid, [cls_rbd.object_map_update(objectno, objectno + 1, state, None).step]
        ).bare()
        if reply.rv < 0 and reply.rv != -errno.ENOENT:  # damaged: the snapshot's alone to be mistrusted
            await mutate(image.io, image.header_oid, cls_rbd.set_flags(INVALID_MAPS, INVALID_MAPS, snapshot.info.id))
            image.invalidate()
        state = _unchanged(image)  # the later ones see no change since


def _unchanged(image: ImageContext) -> ObjectState:
    """Of an object that is what it was at the snapshot before."""
    return ObjectState.EXISTS_CLEAN if image.header.features & RBD_FEATURE_FAST_DIFF else ObjectState.EXISTS


def _covering(image: ImageContext, objectno: int) -> Iterator[Snapshot]:
    for snapshot in reversed(image.header.snapshots):  # oldest first
        if image.layout.object_extent_in(snapshot.parent_overlap, objectno):
            yield snapshot


def sparse(data: bytes) -> tuple[dict[int, int], bytes]:
    """What is not zeros, in whole blocks of 4 KiB: {offset: length}, and the bytes one behind the other."""
    runs = filled_runs(data, _BLOCK)
    extents = {start: end - start for start, end in runs}
    if runs == [(0, len(data))]:
        return extents, data
    return extents, b"".join(data[start:end] for start, end in runs)
