"""Bring a new image through the versions of another: its sizes, what changed in each, and snapshots of the same names.

A change is made as it was made there: what was written is written, to the byte, and what was given up is cut off, punched
out or removed, and only where there is something. So the copy's own records and maps tell of the same changes. Everything
that changes in an object from one version to the next goes in one operation.

The two may be laid out differently: then the changes of the one's objects are gathered into those of the other's.
"""

from __future__ import annotations

import errno
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from rbd_native import cls_rbd
from rbd_native.constants import RBD_SNAP_CREATE_SKIP_QUIESCE
from rbd_native.engine import for_each
from rbd_native.image import copyup
from rbd_native.image import io as writing
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.image.pieces import write_steps
from rbd_native.image.reading import FANOUT, find_in_parent
from rbd_native.object_map import BitVector, ObjectState
from rbd_native.operations import resize, snapshots
from rbd_native.operations.progress import Progress
from rbd_native.operations.version_changes import Changes, Kind, Piece, Version, history
from rbd_native.rados.port import Create, ObjectStat, RadosError, Read, Stat, Truncate, WriteStep, Zero
from rbd_native.snap_diff import Intervals, joined
from rbd_native.striping import ObjectExtent
from rbd_native.zeros import filled_runs

_BLOCK: Final = 4096
"""Zeros in whole blocks of so many bytes are not written out."""
_NEAR: Final = 64 << 10
"""What lies so near to each other is read at once."""
_STEPS: Final = 1024
"""How many steps go in an operation, at most."""
_READS: Final = 64
"""How many ranges are read in an operation, at most."""
_MANY: Final = 256
"""Of so many pieces of an object, neighbours are joined."""


async def replay(source: ImageContext, target: ImageContext, versions: Sequence[Version], progress: Progress) -> None:
    """`source` is left as it is, and need not be set to any of the versions. `target` is new, and maybe a clone of the same
    parent."""
    largest = max((version.size for version in versions), default=0)
    resize.check_map(target, largest)
    shared = 0 if target.parent is None else target.overlap
    befores = [shared, *(version.overlap for version in versions)]
    shares = any(befores)
    changes, existing = await history(source, versions, shares=shares)
    plans = [_Plan.of(source, *item) for item in zip(changes, befores, versions, strict=False)]
    total, done = sum(plan.objects for plan in plans), 0
    depth = source.settings.integer("rbd_concurrent_management_ops")
    rests = set[int]()
    for place, (version, plan) in enumerate(zip(versions, plans, strict=True)):
        if target.header.size < version.size or target.parent is not None:
            await resize.resize(target, version.size)
            await target.fresh()
        again = _Again(source, target, version, existing, rests, fresh=not place)
        await for_each(again.work(plan, progress, done, total), depth)
        if target.header.size > version.size:
            await for_each(map(again.remove, again.beyond(rests)), depth)
            await _lower(target, version.size)
        if version.snapshot is not None:
            await snapshots.create(target, version.snapshot.info.name, RBD_SNAP_CREATE_SKIP_QUIESCE)
            await target.fresh()
        done += plan.objects


async def _lower(target: ImageContext, size: int) -> None:
    """Without cutting anything off: what the source has cut off, the target has not got any more either."""

    async def change() -> None:
        async with target.alone(Operation.RESIZE), target.writes_blocked():
            await target.io.write(target.header_oid, [cls_rbd.set_size(size).step])
            if target.head_map is not None:
                await target.head_map.resize(target.layout.object_count(size))

    await target.under_lock(change)
    await target.changed()
    await target.fresh()


class _Plan(NamedTuple):
    """What is done for a version: the objects that changed, and those of which the parent shows more, or less, than in the
    version before."""

    changes: Changes
    shared: range

    @classmethod
    def of(cls, source: ImageContext, changes: Changes, before: int, version: Version) -> _Plan:
        """`before`: the overlap of the version before."""
        low, high = sorted((before, version.overlap))
        return cls(changes, source.layout.object_range(low, high - low))

    @property
    def objects(self) -> int:
        return self.changes.objects + len(self.shared)

    def pieces(self, object_size: int) -> Iterator[tuple[int, list[Piece]]]:
        """By objects of the source."""
        for objectno, pieces in self.changes:
            if objectno not in self.shared:
                yield objectno, pieces
        for objectno in self.shared:
            yield objectno, [(0, object_size, Kind.ANYTHING)]


# --- an object -------------------------------------------------------------------------------------------------------


class _Again:
    """One version. `existing`: the objects of the source that may exist at any. `rests`: those of the target of which parts
    were given up. `fresh`: the target has no objects yet."""

    def __init__(
        self,
        source: ImageContext,
        target: ImageContext,
        version: Version,
        existing: BitVector | None,
        rests: set[int],
        *,
        fresh: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._version = version
        self._existing = existing
        self._end = max(target.header.size, version.size)
        self._rests = rests
        self._fresh = fresh
        self._same = source.layout == target.layout

    def work(self, plan: _Plan, progress: Progress, done: int, total: int) -> Iterator[Coroutine[Any, Any, None]]:
        """For each object of the target. Of the source's, `done` of `total` were done before."""
        cut = ((number, self._cut(number, pieces)) for number, pieces in plan.pieces(self._source.layout.object_size))
        if self._same:
            found: Iterable[tuple[int, list[Piece]]] = cut
            count = plan.objects
        else:
            gathered = self._gathered(cut)
            found, count = gathered.items(), len(gathered)
        for place, (objectno, pieces) in enumerate(found):
            yield self._step(objectno, pieces, progress, done + plan.objects * place // count, total)

    async def _step(self, objectno: int, pieces: list[Piece], progress: Progress, done: int, total: int) -> None:
        await self._object(objectno, pieces)
        progress.update(done, total)

    def _cut(self, objectno: int, pieces: list[Piece]) -> list[Piece]:
        """What lies within the image: beyond the end of the version, there are zeros."""
        layout = self._source.layout
        limit, end = (layout.object_extent_in(size, objectno) for size in (self._version.size, self._end))
        found: list[Piece] = []
        for start, stop, kind in pieces:
            if start < min(stop, limit):
                found.append((start, min(stop, limit), kind))
            if max(start, limit) < min(stop, end):
                found.append((max(start, limit), min(stop, end), Kind.ZEROS))
        return found

    def _gathered(self, cut: Iterable[tuple[int, list[Piece]]]) -> dict[int, list[Piece]]:
        """By objects of the target."""
        found: dict[int, list[Piece]] = {}
        for objectno, pieces in cut:
            for start, end, kind in pieces:
                for offset, length in self._source.layout.image_extents(objectno, start, end - start):
                    for extent in self._target.layout.iter_extents(offset, length, buffers=False):
                        mine = found.setdefault(extent.objectno, [])
                        mine.append((extent.offset, extent.offset + extent.length, kind))
                        if len(mine) >= _MANY and not len(mine) & (len(mine) - 1):
                            mine[:] = [(*part, kind) for kind in Kind for part in _of_kind(mine, kind)]
        return found

    def beyond(self, numbers: set[int]) -> list[int]:
        """Those of the target's objects of which nothing lies within the version."""
        return sorted(n for n in numbers if not self._target.layout.object_extent_in(self._version.size, n))

    async def remove(self, objectno: int) -> None:
        epoch = await writing.enter(self._target)
        try:
            await writing.remove_object(self._target, objectno)
        finally:
            self._target.gate.leave(epoch)

    async def _object(self, objectno: int, pieces: list[Piece]) -> None:
        if self.beyond({objectno}):
            await self.remove(objectno)
            return
        data, anything = _of_kind(pieces, Kind.DATA), _of_kind(pieces, Kind.ANYTHING)
        content = _Content()
        for low, high in _near(joined(data + anything)):
            view = memoryview(await self._read(objectno, low, high - low))
            content.take_data(view, low, [part for part in data if low <= part[0] < high])
            content.take_anything(view, low, [part for part in anything if low <= part[0] < high])
        content.cleared += _of_kind(pieces, Kind.ZEROS)
        await self._change(objectno, content)

    async def _change(self, objectno: int, content: _Content) -> None:
        target = self._target
        epoch = await writing.enter(target)
        try:
            beneath = copyup.has_parent_at(target, objectno)
            size = 0
            if content.looks:
                size = -1 if self._fresh else await self._size(objectno)
            if beneath and size < 0:
                steps, left = content.blind_steps(target, objectno), True
            else:
                steps, left = content.steps(target, objectno, max(size, 0))
            if content.cleared and left:
                self._rests.add(objectno)
            if left or beneath:
                for at in range(0, len(steps), _STEPS):
                    await writing.apply(target, objectno, steps[at : at + _STEPS])
            elif steps:
                await writing.remove_object(target, objectno)
        finally:
            target.gate.leave(epoch)

    async def _size(self, objectno: int) -> int:
        """Of an object of the target; -1 where there is none."""
        target = self._target
        if target.head_map is not None and not target.head_map.may_exist(objectno):
            return -1
        oid = target.object_name(objectno)
        reply = await target.data_io.read(oid, [Stat()]).bare()
        if reply.rv == -errno.ENOENT:
            return -1
        if reply.rv < 0:
            raise RadosError(-reply.rv, oid, reply)
        found: ObjectStat = reply.outs[0]
        return found.size

    # --- what the source has ---

    async def _read(self, objectno: int, offset: int, length: int) -> bytes:
        """A part of an object of the target, as the source shows it at the version, without the zeros that may follow."""
        if self._same:
            (found,) = await self._read_object(objectno, [(offset, length)])
            return found
        out = bytearray(length)

        async def fetch(objectno: int, placed: list[tuple[int, ObjectExtent]]) -> None:
            ranges = [(extent.offset, extent.length) for _, extent in placed]
            for (at, extent), data in zip(placed, await self._read_object(objectno, ranges), strict=True):
                taken = 0
                for position, size in extent.buffer_extents:
                    piece = data[taken : taken + size]
                    out[at + position : at + position + len(piece)] = piece
                    taken += size

        parts = self._by_source_object(objectno, offset, length)
        await for_each((fetch(*item) for item in parts.items()), FANOUT)
        return bytes(out)

    def _by_source_object(self, objectno: int, offset: int, length: int) -> dict[int, list[tuple[int, ObjectExtent]]]:
        """What lies under a part of an object of the target: each extent, and where in the part its image range begins."""
        found: dict[int, list[tuple[int, ObjectExtent]]] = {}
        at = 0
        for start, size in self._target.layout.image_extents(objectno, offset, length):
            for extent in self._source.layout.extents(start, size):
                found.setdefault(extent.objectno, []).append((at, extent))
            at += size
        return found

    async def _read_object(self, objectno: int, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Ranges of an object of the source, each (offset, length)."""
        source, version = self._source, self._version
        found: list[bytes] = []
        if self._existing is None or self._existing[objectno] is not ObjectState.NONEXISTENT:
            oid = source.object_name(objectno)
            for at in range(0, len(ranges), _READS):
                reads = [Read(*part) for part in ranges[at : at + _READS]]
                reply = await source.data_io.read(oid, reads, snap=version.snap).bare()
                if reply.rv == -errno.ENOENT:
                    found = []
                    break
                if reply.rv < 0:
                    raise RadosError(-reply.rv, oid, reply)
                found += reply.outs
        if found:
            return found
        if not version.overlap or source.parent is None:
            return [b""] * len(ranges)
        parent, overlap = source.parent, version.overlap
        return [await find_in_parent(source, parent, objectno, *part, overlap) for part in ranges]


def _of_kind(pieces: list[Piece], kind: Kind) -> Intervals:
    return joined((start, end) for start, end, found in pieces if found is kind)


def _near(parts: Intervals) -> Intervals:
    """The same, those that are near to each other as one."""
    found: Intervals = []
    for start, end in parts:
        if found and start - found[-1][1] <= _NEAR:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


class _Content:
    """What an object becomes. `runs`: bytes to be written. `holes`: written, too, but with zeros. `cleared`: given up.
    `end`: of what was written, holes included."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, memoryview]] = []
        self.holes: Intervals = []
        self.cleared: Intervals = []
        self.end = 0

    def take_data(self, view: memoryview, low: int, parts: Intervals) -> None:
        """Parts that were written; the view begins at `low`, and what it has not got is zeros."""
        for start, end in parts:
            for hole in self._take(view, low, start, end):
                if hole[1] - hole[0] < _BLOCK:
                    self.runs.append((hole[0], memoryview(bytes(hole[1] - hole[0]))))
                else:
                    self.holes.append(hole)
            self.end = max(self.end, end)

    def take_anything(self, view: memoryview, low: int, parts: Intervals) -> None:
        """Parts where there is something, or nothing."""
        for start, end in parts:
            self.cleared += self._take(view, low, start, end)

    def _take(self, view: memoryview, low: int, start: int, end: int) -> Intervals:
        """The zeros among them."""
        data = view[start - low : end - low]
        holes: Intervals = []
        at = start
        for first, last in filled_runs(data, _BLOCK):
            if at < start + first:
                holes.append((at, start + first))
            self.runs.append((start + first, data[first:last]))
            at = start + last
        if at < end:
            holes.append((at, end))
        return holes

    @property
    def looks(self) -> bool:
        """Whether what is to be done depends on how large the object is."""
        return bool(self.holes or self.cleared)

    def steps(self, target: ImageContext, objectno: int, size: int) -> tuple[tuple[WriteStep, ...], bool]:
        """For an object of that size, and whether anything is left of it. Zeros are not written out, but the object becomes
        as large as if they were."""
        clearing, left = _zero_steps(self.holes, size)
        written = max((start + len(data) for start, data in self.runs), default=0)
        growing: tuple[WriteStep, ...] = ()
        left = max(left, written)
        if left < self.end:
            growing = (Truncate(self.end),)
            left = self.end
        giving_up, left = _zero_steps(joined(self.cleared), left)
        writes = write_steps(target, objectno, self.runs)
        if growing and not writes and not size:
            writes = (Create(exclusive=False),)
        steps = (*clearing, *writes, *growing, *giving_up)
        return (steps, True) if left or not steps else ((Truncate(0),), False)

    def blind_steps(self, target: ImageContext, objectno: int) -> tuple[WriteStep, ...]:
        """For an object that is missing and gets what the parent has first, however much that is."""
        zeros = [Zero(start, end - start) for start, end in joined(self.holes + self.cleared)]
        return (*zeros, *write_steps(target, objectno, self.runs))


def _zero_steps(parts: Intervals, size: int) -> tuple[tuple[WriteStep, ...], int]:
    """Zeros over parts of an object of that size, where it has anything; and its size after it."""
    steps: list[WriteStep] = []
    for start, end in parts:
        if start < size:
            steps.append(Zero(start, min(end, size) - start))
            size = start if end >= size else size
    return tuple(steps), size
