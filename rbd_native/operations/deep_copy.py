"""Copy an image with its history: every snapshot of users, and what changed between them.

The target goes through the states of the source, oldest first: it gets the size and the changed objects of each snapshot,
and then a snapshot of that name. What changed is known from the objects' own records: one question an object, and none
for those that no object map has ever seen. A clone's copy is a clone of the same parent, unless it is to be flattened.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call
from rbd_native.constants import (
    RBD_FEATURE_LAYERING,
    RBD_FEATURE_OBJECT_MAP,
    RBD_FEATURES_IMPLICIT,
    RBD_MAX_OBJECT_MAP_OBJECTS,
    RBD_SNAP_CREATE_SKIP_QUIESCE,
)
from rbd_native.engine import for_each
from rbd_native.header import Snapshot
from rbd_native.image import io as writing
from rbd_native.image.context import ImageContext
from rbd_native.image.reading import find_object
from rbd_native.object_map import BitVector, ObjectMapCorrupt, ObjectState
from rbd_native.operations import bond, clone, create, resize, snapshots
from rbd_native.operations.copy import copy_metadata
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.operations.rebuild_object_map import serving
from rbd_native.rados.port import HEAD, Io, ListSnaps, RadosError, SnapSet
from rbd_native.types import ProtectionStatus, UserSnapshotNamespace
from rbd_native.zeros import filled_runs

_BLOCK = 4096


async def deep_copy(
    source: ImageContext,
    io: Io,
    name: str,
    wish: create.Wish,
    *,
    clone_format: int = 0,
    flatten: bool = False,
    progress: Progress | None = None,
) -> None:
    """Up to the snapshot the source is set to. EEXIST, EINVAL (name), and what :func:`create.create` refuses."""
    if source.stale:
        await source.fresh()
    if not name:
        raise RadosError(errno.EINVAL, "an image needs a name")
    await writing.flush(source)  # what its objects hold is compared, not what the handle has kept
    versions = _versions(source)
    bound = source.header.parent is not None and not flatten
    if bound:
        wish = clone.masked(wish)
    wish = clone.inherit(source, wish, source.header.features & ~RBD_FEATURES_IMPLICIT)
    if bound and not (wish.features or 0) & RBD_FEATURE_LAYERING:
        raise RadosError(errno.ENOSYS, "a copy that shares its parent needs layering")
    identifier = await create.create(io, name, wish)
    target = await open_image(io, identifier=identifier)
    try:
        if bound:
            await _same_parent(source, target, clone_format)
        await _replay(source, target, versions, progress or Progress())
        await copy_metadata(source, target)
        await writing.flush(target)
        await _protect(target, versions)
    finally:
        await target.close()


def _versions(source: ImageContext) -> list[Snapshot | None]:
    """The states of the source, oldest first: the users' snapshots, and what comes after the last one (None) unless the
    source is set to that."""
    last = source.read_snap
    taken = [
        snapshot
        for snapshot in reversed(source.header.snapshots)
        if snapshot.info.id <= last and isinstance(snapshot.info.namespace, UserSnapshotNamespace)
    ]
    return [*taken, *([None] if last == HEAD else [])]


async def _same_parent(source: ImageContext, target: ImageContext, clone_format: int) -> None:
    assert source.header.parent is not None
    old = await clone.old_format(target.io, target.settings, clone_format)
    child = bond.spec_of(target.io, target.id)
    parent, features = source.header.parent, target.header.features
    await bond.attach(child, target.io, features, parent, source.widest_overlap, old=old)
    await target.changed()
    await target.fresh()


# --- what changed ----------------------------------------------------------------------------------------------------


class _Changes(NamedTuple):
    """The numbers of the objects that came, where none had been in any version before, and of those that differ from the
    version before."""

    new: array[int]
    other: array[int]


async def _changes(source: ImageContext, ids: Sequence[int], count: int) -> list[_Changes]:
    """For each version."""
    changed = [_Changes(array("Q"), array("Q")) for _ in ids]

    async def examine(objectno: int) -> None:
        oid = source.object_name(objectno)
        reply = await source.data_io.read(oid, [ListSnaps()]).bare()
        if reply.rv == -errno.ENOENT:
            return
        if reply.rv < 0:
            raise RadosError(-reply.rv, oid, reply)
        found: SnapSet = reply.outs[0]
        before, new = None, True
        for place, snap in enumerate(ids):
            now = serving(found, snap)
            if now is not before:
                (changed[place].new if new else changed[place].other).append(objectno)
                new = False
            before = now

    depth = source.settings.integer("rbd_concurrent_management_ops")
    await for_each(map(examine, await _candidates(source, ids, count)), depth)
    return changed


class _Plan(NamedTuple):
    """What is copied for a version: objects under which the target has nothing yet, and others."""

    new: Sequence[int]
    other: Sequence[int]
    shared: range
    """Those of which the parent shows more, or less, than in the version before."""


def _plan(source: ImageContext, changes: _Changes, before: int, now: int, *, shares: bool) -> _Plan:
    """`shares`: the source has, or had, a parent, of which the target may have something where the source has no object."""
    low, high = sorted((before, now))
    shared = source.layout.object_range(low, high - low)
    new, other = (array("Q", (number for number in numbers if number not in shared)) for numbers in changes)
    return _Plan((), new + other, shared) if shares else _Plan(new, other, shared)


async def _candidates(source: ImageContext, ids: Sequence[int], count: int) -> Iterable[int]:
    """The objects that may have existed at any of the versions."""
    if not source.header.features & RBD_FEATURE_OBJECT_MAP or count > RBD_MAX_OBJECT_MAP_OBJECTS:
        return range(count)
    flags = {snapshot.info.id: snapshot.flags for snapshot in source.header.snapshots} | {HEAD: source.header.flags}
    union = BitVector(count)
    for snap in ids:
        bits = None if flags[snap] else await _map(source, snap)
        if bits is None:
            return range(count)
        end = min(len(bits), count)
        for start, states in bits.chunks(0, end):
            present = union.unpack(start, start + len(states)) | (states != ObjectState.NONEXISTENT)
            union.put(start, present)
    return (start + int(place) for start, states in union.chunks() for place in states.nonzero()[0])


async def _map(source: ImageContext, snap: int) -> BitVector | None:
    oid = names.object_map(source.id, None if snap == HEAD else snap)
    try:
        raw: bytes = await call(source.io, oid, cls_rbd.object_map_load())
        return BitVector.decode(raw)
    except (RadosError, ObjectMapCorrupt):
        return None


# --- doing it again --------------------------------------------------------------------------------------------------


async def _replay(
    source: ImageContext, target: ImageContext, versions: list[Snapshot | None], progress: Progress
) -> None:
    ids = [HEAD if version is None else version.info.id for version in versions]
    sizes = [source.header.size if version is None else version.info.image_size for version in versions]
    overlaps = [source.header.parent_overlap if version is None else version.parent_overlap for version in versions]
    largest = max(sizes, default=0)
    resize.check_map(target, largest)
    count = source.layout.object_count(largest)
    changed = await _changes(source, ids, count)
    shared = 0 if target.parent is None else target.overlap
    befores = [shared, *overlaps]
    shares = any(befores)
    plans = [_plan(source, *item, shares=shares) for item in zip(changed, befores, overlaps, strict=False)]
    total = sum(len(plan.new) + len(plan.other) + plan.shared.stop - plan.shared.start for plan in plans)
    done = 0
    at = source.snap

    async def again(objectno: int, size: int, *, new: bool) -> None:
        nonlocal done
        await _object(source, target, objectno, size, new=new)
        progress.update(done, total)
        done += 1

    try:
        for version, size, plan in zip(versions, sizes, plans, strict=True):
            source.state = source.state.at(version)
            if target.header.size != size:
                await resize.resize(target, size)
                await target.fresh()
            depth = source.settings.integer("rbd_concurrent_management_ops")
            newly = (again(objectno, size, new=True) for objectno in plan.new)
            others = (again(objectno, size, new=False) for objectno in chain(plan.other, plan.shared))
            await for_each(chain(newly, others), depth)
            if version is not None:
                await _snapshot(target, version)
    finally:
        source.state = source.state.at(at)


async def _snapshot(target: ImageContext, version: Snapshot) -> None:
    await snapshots.create(target, version.info.name, RBD_SNAP_CREATE_SKIP_QUIESCE)
    await target.fresh()


async def _protect(target: ImageContext, versions: list[Snapshot | None]) -> None:
    """Last: it fails where the copy was to have no layering, which is otherwise whole then."""
    for version in versions:
        if version is not None and version.protection == ProtectionStatus.PROTECTED:
            await snapshots.protect(target, version.info.name)


async def _object(source: ImageContext, target: ImageContext, objectno: int, size: int, *, new: bool) -> None:
    """Give the target what the source shows where one of its objects lies; zeros too, for they may hide something, unless
    that is `new`."""
    length = source.layout.object_extent_in(size, objectno)
    if not length:
        return
    data = await find_object(source, objectno, 0, length)
    view = memoryview(data)
    at = 0
    for start, end in (*filled_runs(data, _BLOCK), (length, length)):
        if start > at and not new:
            for offset, piece in source.layout.image_extents(objectno, at, start - at):
                await writing.write_zeroes(target, offset, piece)
        taken = start
        for offset, piece in source.layout.image_extents(objectno, start, end - start):
            await writing.write(target, offset, view[taken : taken + piece])
            taken += piece
        at = end
