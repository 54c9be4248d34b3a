"""What changed in an image between two of its versions: extents in ascending order, each with data or become zeros.

Exactly, each object is asked what its snapshots share. Where only whole objects are asked for and the image keeps valid
object maps with fast-diff, the maps of the versions tell it all, and no object is asked anything. In either case an object
that no map has at either end costs nothing but a look at the maps: so the time depends on what was written, not on the
size of the image.

What is reported, how it is cut (at the ends of object sets) and joined (within them) is librbd's, list for list. From the
beginning of time, what the parent has belongs to a clone where it has nothing of its own.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

import numpy as np
import numpy.typing as npt

from rbd_native import cls_rbd, names
from rbd_native.cls_client import ClassCall, call, call_all
from rbd_native.constants import RBD_FEATURE_FAST_DIFF, RBD_FEATURE_OBJECT_MAP
from rbd_native.engine import gather
from rbd_native.header import INVALID_MAPS, Snapshot
from rbd_native.image import io as writing
from rbd_native.image.context import ImageContext
from rbd_native.image.reading import FANOUT, clip
from rbd_native.object_map import BitVector, ObjectMapCorrupt, ObjectState
from rbd_native.operations import snapshots
from rbd_native.pipeline import in_order
from rbd_native.rados.port import HEAD, ListSnaps, RadosError
from rbd_native.snap_diff import DiffState, Fold, Intervals, common, joined, object_changes
from rbd_native.striping import ObjectExtent

Extent = tuple[int, int, bool]
"""(image offset, length, whether there is data: otherwise it is zeros now)."""

U64 = npt.NDArray[np.uint64]

_DEPTH: Final = 64
"""How many object sets are under way at once: a question each, and little to remember."""
_CHUNK_OBJECTS: Final = 1 << 18
_MANY_SETS: Final = 1 << 26
_BLOCKS: Final = 1 << 13
"""Into how many stripe units what is looked at as one is cut, at most."""
_BLOCKS_UNDER_WAY: Final = 1 << 16


async def changes(
    image: ImageContext,
    offset: int,
    length: int,
    since: str | int | None,
    *,
    include_parent: bool = True,
    whole_object: bool = False,
) -> AsyncGenerator[list[Extent], None]:
    """Yield the changes within a range, in order, some at a time (``contextlib.aclosing`` for whoever may stop earlier).

    From the snapshot of that name or id, or from the beginning of time (None), to what the handle is set to. ENOENT;
    EINVAL where the snapshot is newer than that, or the range begins beyond the end.
    """
    await writing.flush(image)
    if image.stale:
        await image.fresh()
    length = clip(image, offset, length)
    start = 0 if since is None else snapshot_of(image, since).info.id
    if start > image.read_snap:
        raise RadosError(errno.EINVAL, f"snapshot {since} is newer than what the image is set to")
    if start == image.read_snap or not length:
        return
    level = await _Level.open(image, start, whole=whole_object, fast=whole_object, with_parent=include_parent)
    async with aclosing(level.report(offset, offset + length)) as batches:
        async for batch in batches:
            yield batch


async def occupied(image: ImageContext) -> AsyncGenerator[tuple[int, int], None]:
    """The ranges (start, end) outside of which the image, as the handle shows it, has nothing but zeros: what the maps tell
    and no question asked, so without maps that is all of it. In order, none longer than an object set."""
    await writing.flush(image)
    if image.stale:
        await image.fresh()
    level = await _Level.open(image, 0, whole=False, fast=False, with_parent=True)
    for _, parts in level.ranges(0, image.size):
        for part in parts:
            yield part


def snapshot_of(image: ImageContext, key: str | int) -> Snapshot:
    """By id, or by name among those of users. ENOENT."""
    return snapshots.with_id(image, key) if isinstance(key, int) else snapshots.named(image, key)


class _Level:
    """An image of a family and what its maps tell. `folded`: the states of its objects between the versions, if maps can
    tell them. `present`: otherwise, and if maps can tell that, those that exist in either version."""

    def __init__(self, image: ImageContext, since: int, *, whole: bool) -> None:
        self._image = image
        self._layout = image.layout
        self._since = since
        self._whole = whole
        self._folded: BitVector | None = None
        self._present: BitVector | None = None
        self._parent: _Level | None = None

    @classmethod
    async def open(
        cls, image: ImageContext, since: int, *, whole: bool, fast: bool, with_parent: bool
    ) -> _Level:
        level = cls(image, since, whole=whole)
        if fast:
            level._folded = await _folded(image, since)
        if level._folded is None:
            level._present = await _present(image, since)
        if with_parent and not since and image.parent is not None and image.overlap:
            fast = level._folded is not None
            level._parent = await cls.open(image.parent, 0, whole=whole, fast=fast, with_parent=True)
        return level

    # --- the whole range ---

    def ranges(self, low: int, high: int) -> Iterator[tuple[U64, list[tuple[int, int]]]]:
        """The object sets in which something may have changed, by their numbers and cut to the range, many at a time."""
        period = self._layout.period
        step = period * max(_CHUNK_OBJECTS // self._layout.stripe_count, 1)
        for base in range(low - low % step, high, step):
            first, end = max(low, base), min(high, base + step)
            sets = self._suspects(first, end)
            if len(sets):
                starts = [number * period for number in sets.tolist()]
                yield sets, [(max(first, start), min(end, start + period)) for start in starts]

    async def report(self, low: int, high: int) -> AsyncGenerator[list[Extent], None]:
        plain = self._folded is not None and self._parent is None and self._layout.stripe_count == 1
        for sets, parts in self.ranges(low, high):
            if plain:
                yield self._objects(sets, parts)
                continue
            held: list[Extent] = []
            async with aclosing(in_order(map(self._of_part, self._cut(parts)), self._depth)) as batches:
                async for batch, end in batches:
                    held = _continued(held, batch)
                    goes_on = end % self._layout.period and held and sum(held[-1][:2]) == end
                    yield held[:-1] if goes_on else held
                    held = held[-1:] if goes_on else []
            yield held

    @property
    def _blocks(self) -> int:
        """Into how many blocks an object set is cut, at most."""
        return 1 if self._layout.stripe_count == 1 else self._layout.period // self._layout.stripe_unit

    @property
    def _depth(self) -> int:
        return max(min(_DEPTH, _BLOCKS_UNDER_WAY // self._blocks), _BLOCKS_UNDER_WAY // _BLOCKS)

    def _cut(self, parts: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Each object set in parts that are not too many blocks to be worked on at once."""
        longest = self._layout.period if self._blocks <= _BLOCKS else self._layout.stripe_unit * _BLOCKS
        for low, high in parts:
            for start in range(low, high, longest):
                yield start, min(high, start + longest)

    async def _of_part(self, part: tuple[int, int]) -> tuple[list[Extent], int]:
        """And where the part ends."""
        told = self._folded is not None and self._parent is None
        return self._known(*part) if told else await self._changes(*part), part[1]

    def _suspects(self, low: int, high: int) -> U64:
        """The numbers of the object sets in which something may have changed, ascending."""
        if low >= high:
            return np.empty(0, np.uint64)
        period, count = self._layout.period, self._layout.stripe_count
        first, last = low // period, (high - 1) // period
        bits = self._present if self._folded is None else self._folded
        if bits is None:
            return np.arange(first, last + 1, dtype=np.uint64)
        start, end = min(first * count, len(bits)), min((last + 1) * count, len(bits))
        states = bits.unpack(start, end)
        found = np.flatnonzero(states if self._folded is None else states & DiffState.HOLE_UPDATED)
        own = np.unique((found.astype(np.uint64) + np.uint64(start)) // np.uint64(count))
        if self._parent is None:
            return own
        return np.union1d(own, self._parent._touching(low, min(high, self._image.overlap), period))

    def _touching(self, low: int, high: int, period: int) -> U64:
        """The suspects, as numbers of the sets of an image that has this as its parent: all that there are, where this has
        no map, or so many more sets that it would take long to tell."""
        own = self._layout.period
        unknown = self._present is None and self._folded is None
        if low < high and (unknown or (high - low) // own > _MANY_SETS):
            return np.arange(low // period, (high - 1) // period + 1, dtype=np.uint64)
        sets = self._suspects(low, high)
        if own == period:
            return sets
        parts = [
            np.arange(max(low, number * own) // period, (min(high, number * own + own) - 1) // period + 1, dtype=np.uint64)
            for number in sets.tolist()
        ]
        return np.unique(np.concatenate(parts)) if parts else sets

    # --- where the maps tell it all ---

    def _objects(self, objects: U64, parts: list[tuple[int, int]]) -> list[Extent]:
        """The changes of many objects of an image that is not striped."""
        assert self._folded is not None
        first, last = int(objects[0]), int(objects[-1])
        states = self._folded.unpack(first, last + 1)[(objects - objects[0]).astype(np.intp)]
        exists = (states == DiffState.DATA_UPDATED).tolist()
        return [(start, end - start, data) for (start, end), data in zip(parts, exists, strict=True)]

    def _known(self, low: int, high: int) -> list[Extent]:
        parts = [self._told(extent) for extent in self._layout.iter_extents(low, high - low, buffers=False)]
        return _merged(parts)

    def _told(self, extent: ObjectExtent) -> tuple[Intervals, Intervals]:
        """What has data and what became zeros, in bytes of the image, by the maps."""
        assert self._folded is not None
        state = self._folded[extent.objectno] if extent.objectno < len(self._folded) else DiffState.HOLE
        if state not in (DiffState.DATA_UPDATED, DiffState.HOLE_UPDATED):
            return [], []
        pieces = self._in_image(extent.objectno, [(extent.offset, extent.offset + extent.length)])
        return (pieces, []) if state == DiffState.DATA_UPDATED else ([], pieces)

    # --- where objects, or the parent's, are asked ---

    async def _changes(self, low: int, high: int) -> list[Extent]:
        extents = list(self._layout.iter_extents(low, high - low, buffers=False))
        if len(extents) == 1:
            return _merged([await self._object(extents[0])])
        return _merged(await gather(map(self._object, extents), FANOUT))

    async def _object(self, extent: ObjectExtent) -> tuple[Intervals, Intervals]:
        number = extent.objectno
        if self._folded is not None:
            data, zeros = self._told(extent)
        else:
            data, zeros = await self._asked(extent)
        if self._parent is not None and not data and not zeros:
            pieces = self._in_image(number, [(extent.offset, extent.offset + extent.length)])
            data = await self._of_parent(pieces)
        return data, zeros

    async def _asked(self, extent: ObjectExtent) -> tuple[Intervals, Intervals]:
        number, present = extent.objectno, self._present
        if present is not None and (number >= len(present) or present[number] == ObjectState.NONEXISTENT):
            return [], []
        image = self._image
        oid = image.object_name(number)
        reply = await image.data_io.read(oid, [ListSnaps()]).bare()
        if reply.rv == -errno.ENOENT:
            return [], []
        if reply.rv < 0:
            raise RadosError(-reply.rv, oid, reply)
        wanted = [(extent.offset, extent.offset + extent.length)]
        size = self._layout.object_size
        changed = object_changes(reply.outs[0], self._since, image.read_snap, wanted, size, whole=self._whole)
        data, zeros = (self._in_image(number, part) for part in changed)
        return data, zeros

    def _in_image(self, objectno: int, intervals: Intervals) -> Intervals:
        return [
            (at, at + size)
            for start, end in intervals
            for at, size in self._layout.image_extents(objectno, start, end - start)
        ]

    async def _of_parent(self, pieces: Intervals) -> Intervals:
        """What the parent has of these ranges. What became zeros there is nothing here."""
        assert self._parent is not None
        overlap = self._image.overlap
        shared = [(low, min(high, overlap)) for low, high in pieces if low < overlap]
        if not shared:
            return []
        start, end = shared[0][0], shared[-1][1]
        if len(self._parent._layout.object_range(start, end - start)) < len(shared):  # all at once is less to ask
            changes = await self._parent._changes(start, end)
            return common(joined((at, at + length) for at, length, exists in changes if exists), shared)
        found: Intervals = []
        for low, high in shared:
            changes = await self._parent._changes(low, high)
            found += [(at, at + length) for at, length, exists in changes if exists]
        return found


def _continued(held: list[Extent], batch: list[Extent]) -> list[Extent]:
    """An extent, if any, and those of the part behind it, joined where they touch."""
    if held and batch:
        (start, length, exists), (following, more, same) = held[0], batch[0]
        if start + length == following and exists == same:
            return [(start, length + more, exists), *batch[1:]]
    return held + batch


def _merged(parts: list[tuple[Intervals, Intervals]]) -> list[Extent]:
    data = joined(piece for part, _ in parts for piece in part)
    zeros = joined(piece for _, part in parts for piece in part)
    if not zeros:
        return [(start, end - start, True) for start, end in data]
    both = [(start, end - start, True) for start, end in data] + [(start, end - start, False) for start, end in zeros]
    return sorted(both)


# --- maps ------------------------------------------------------------------------------------------------------------


class _NoAnswer(Exception):
    """The maps cannot tell."""


async def _folded(image: ImageContext, since: int) -> BitVector | None:
    """The states of the objects between two versions; None where maps cannot tell."""
    if not image.header.features & RBD_FEATURE_FAST_DIFF:
        return None
    fold = Fold()
    versions = list(_versions(image, since))
    try:
        for snap in versions:
            bits = await _map(image, snap)
            if bits is not None and snap == since:
                fold.start(bits, _count(image, snap))
            elif bits is not None:
                fold.then(bits, _count(image, snap), last=snap == image.read_snap)
            elif snap in (since, image.read_snap):
                return None
            # One in between that is not there is being removed: what it saw change, the next one tells.
    except _NoAnswer:
        return None
    return fold.states if await _valid(image, versions) else None


def _versions(image: ImageContext, since: int) -> Iterator[int]:
    """Those that count between two, oldest first: from the beginning of time, only the last."""
    if since:
        yield from (snap for snap in reversed(image.snapc.ids) if since <= snap < image.read_snap)
    yield image.read_snap


async def _present(image: ImageContext, since: int) -> BitVector | None:
    """Which objects exist in either version (state not NONEXISTENT); None where maps cannot tell."""
    if not image.header.features & RBD_FEATURE_OBJECT_MAP:
        return None
    versions = [since, image.read_snap] if since else [image.read_snap]
    try:
        maps = [await _map(image, snap) for snap in versions]
    except _NoAnswer:
        return None
    union: BitVector | None = None
    for bits in maps:
        if bits is None:
            return None
        union = bits if union is None else _union(union, bits)
    return union if await _valid(image, versions) else None


def _union(first: BitVector, second: BitVector) -> BitVector:
    shorter, longer = sorted((first, second), key=len)
    for start, states in shorter.chunks():
        longer.put(start, states | longer.unpack(start, start + len(states)))  # absent in both: 0
    return longer


def _count(image: ImageContext, snap: int) -> int:
    size = image.header.size if snap == HEAD else snapshots.with_id(image, snap).info.image_size
    return image.layout.object_count(size)


async def _map(image: ImageContext, snap: int) -> BitVector | None:
    """None where there is none; _NoAnswer where it is damaged or too small."""
    oid = names.object_map(image.id, None if snap == HEAD else snap)
    try:
        raw: bytes = await call(image.io, oid, cls_rbd.object_map_load())
        bits = BitVector.decode(raw)
    except RadosError as error:
        if error.errno == errno.ENOENT:
            return None
        if error.errno in (errno.EINVAL, errno.EIO):
            raise _NoAnswer from error
        raise
    except ObjectMapCorrupt as error:
        raise _NoAnswer from error
    if len(bits) < _count(image, snap):
        raise _NoAnswer
    return bits


async def _valid(image: ImageContext, versions: list[int]) -> bool:
    """Whether the maps could be believed when they were read: asked afterwards, and of the header itself. For who goes on
    without a map says so first; and a handle that only reads does not hear of it."""
    calls: list[ClassCall[int]] = [cls_rbd.get_flags(snap) for snap in versions]
    try:
        flags = await call_all(image.io, image.header_oid, calls)
    except RadosError as error:
        if error.errno != errno.ENOENT:  # a snapshot that is gone meanwhile
            raise
        return False
    return not any(one & INVALID_MAPS for one in flags)
