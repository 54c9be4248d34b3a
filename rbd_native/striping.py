"""Striping: where the bytes of an image lie in its data objects, and back.  Pure arithmetic, no I/O.

The image is cut into blocks of `stripe_unit` bytes, dealt out round-robin to the `stripe_count` objects of an
object set; a set is full after `stripe_count * object_size` bytes (the period) and the next one begins:

    blockno  = offset // stripe_unit            stripeno = blockno // stripe_count
    objsetno = stripeno // stripes_per_object   objectno = objsetno * stripe_count + blockno % stripe_count
    offset in the object = stripeno % stripes_per_object * stripe_unit + offset % stripe_unit

Two consequences carry the code.  `object_size` is a power of two and `stripe_unit` divides it, so every
division but the one by `stripe_count` is a shift.  And a contiguous image range takes one contiguous extent
from each object it touches, because the blocks an object gets from consecutive stripes are neighbours in it:
hence exactly one `ObjectExtent` per object.  With `stripe_count == 1` the stripe unit makes no difference and
whole objects serve as blocks.

All offsets and lengths are bytes.  Images end at 2**64 - 1 at most, so an end always fits an unsigned 64-bit
integer; what lies beyond is a ValueError.  Scalars are Python integers, arrays one-dimensional and of uint64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Index = npt.NDArray[np.intp]
# The formulas are written once, for an integer and for a uint64 array. (Any: numpy's stubs hold uint64 & int
# to be signed.)
N = TypeVar("N", int, npt.NDArray[Any])

MIN_ORDER, MAX_ORDER = 12, 25
DEFAULT_ORDER = 22
# librbd passes the stripe count through a field of 32 bits: a larger one would mean something else there.
MAX_STRIPE_COUNT = 2**32 - 1
MAX_IMAGE_SIZE = 2**64 - 1
CHUNK_ROWS = 1 << 16


class ObjectExtent(NamedTuple):
    """`length` contiguous bytes of one object at `offset`, and the pieces of the request's buffer they are.

    `buffer_extents` are (offset from the start of the request, length), in the order of the object's bytes,
    which is also ascending buffer order; the lengths add up to `length`.
    """

    objectno: int
    offset: int
    length: int
    buffer_extents: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Parallel arrays, a row per piece: object_offset~length of objectno is image_offset~length of the image.

    `request` is the index of the input extent that a row belongs to.  Rows come in the order of the inputs,
    within one by ascending offset.  No row is empty and none crosses a block.
    """

    request: Index
    objectno: U64
    object_offset: U64
    length: U64
    image_offset: U64

    def __len__(self) -> int:
        return len(self.length)

    @classmethod
    def concatenate(cls, parts: list[Pieces]) -> Pieces:
        """All rows of `parts`, in order."""
        if len(parts) == 1:
            return parts[0]
        empty = cls(np.empty(0, np.intp), *(np.empty(0, np.uint64) for _ in range(4)))
        return cls(*(np.concatenate([getattr(p, f.name) for p in (empty, *parts)]) for f in fields(cls)))


@dataclass(frozen=True, slots=True)
class Layout:
    """How an image is spread over objects of 2**order bytes.  ValueError if no image may be laid out so."""

    order: int
    stripe_unit: int
    stripe_count: int
    # Worked out once. The block is the stripe unit, or the object where nothing is striped.
    _shift: int = field(init=False, repr=False, compare=False)
    _block: int = field(init=False, repr=False, compare=False)
    _rows_shift: int = field(init=False, repr=False, compare=False)
    _period: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = 1 << _checked_order(self.order)
        if self.stripe_unit < 1 or size % self.stripe_unit:
            raise ValueError(f"stripe unit {self.stripe_unit} does not divide the object size {size}")
        if not 1 <= self.stripe_count <= MAX_STRIPE_COUNT:
            raise ValueError(f"stripe count {self.stripe_count} is not in 1..{MAX_STRIPE_COUNT}")
        block = size if self.stripe_count == 1 else self.stripe_unit
        shift = block.bit_length() - 1
        object.__setattr__(self, "_shift", shift)
        object.__setattr__(self, "_block", block)
        object.__setattr__(self, "_rows_shift", self.order - shift)
        object.__setattr__(self, "_period", size * self.stripe_count)

    @classmethod
    def create(cls, order: int = 0, stripe_unit: int = 0, stripe_count: int = 0) -> Self:
        """The layout a caller of create asks for: 0 is the default; unit and count come both or neither."""
        order = _checked_order(order or DEFAULT_ORDER)
        if bool(stripe_unit) != bool(stripe_count):
            raise ValueError("a stripe unit needs a stripe count and the other way round")
        return cls(order, stripe_unit or 1 << order, stripe_count or 1)

    @property
    def object_size(self) -> int:
        """Bytes in a full data object."""
        return 1 << self.order

    @property
    def period(self) -> int:
        """Bytes in a full object set."""
        return self._period

    @property
    def fancy(self) -> bool:
        """Whether an image of this layout carries the STRIPINGV2 feature bit."""
        return self.stripe_unit != 1 << self.order or self.stripe_count != 1

    # From the image to its objects

    def place(self, offset: int, length: int) -> tuple[int, int] | None:
        """The object and the offset in it, of an image range that lies in one block. Nearly every request does."""
        within = offset & (self._block - 1)
        if not (0 < length <= self._block - within and 0 <= offset <= MAX_IMAGE_SIZE - length):
            return None
        return (offset >> self._shift, within) if self.stripe_count == 1 else self._locate(offset)

    def extents(self, offset: int, length: int) -> list[ObjectExtent]:
        """The object extents of an image range by first image offset: one per object, none if it is empty."""
        place = self.place(offset, length)
        return list(self.iter_extents(offset, length)) if place is None else [ObjectExtent(*place, length, ((0, length),))]

    def iter_extents(self, offset: int, length: int, *, buffers: bool = True) -> Iterator[ObjectExtent]:
        """`extents`, one at a time: takes the memory of one object's pieces, however long the range is; and not even that
        without `buffers`, when each has no buffer extents."""
        end = _checked_end(offset, length)
        if length == 0:
            return
        period = self._period
        for base in range(offset - offset % period, end, period):
            low, high = max(offset, base), min(end, base + period)
            yield from self._set_extents(low, high, offset, buffers=buffers)

    def _set_extents(self, low: int, high: int, origin: int, *, buffers: bool) -> Iterator[ObjectExtent]:
        """The object extents of image bytes low..high, all of one object set; the buffer begins at origin."""
        count, block, shift = self.stripe_count, self._block, self._shift
        first, last = low >> shift, (high - 1) >> shift
        for blockno in range(first, min(first + count, last + 1)):
            rows = (last - blockno) // count + 1
            start, final = blockno << shift, (blockno + (rows - 1) * count) << shift
            head, tail = max(low - start, 0), max(final + block - high, 0)
            objectno, at = self._locate(start)
            pieces = _blocks(start - origin, count * block, rows, block, head, tail) if buffers else ()
            yield ObjectExtent(objectno, at + head, rows * block - head - tail, tuple(pieces))

    def map_extents(self, offsets: U64, lengths: U64) -> Pieces:
        """The pieces of many image ranges at once: 40 bytes a row; empty ranges give no row."""
        return Pieces.concatenate(list(self.map_chunks(offsets, lengths)))

    def map_chunks(self, offsets: U64, lengths: U64, rows: int = CHUNK_ROWS) -> Iterator[Pieces]:
        """`map_extents` in chunks of at most `rows` rows, each made when it is asked for."""
        starts, sizes = _checked_ranges(offsets, lengths)
        if np.any(starts > MAX_IMAGE_SIZE - sizes):
            raise ValueError("an extent ends beyond 2**64 - 1")
        for request, at, length in self._cut(starts, sizes, rows):
            objectno, object_offset = self._locate(at)
            yield Pieces(request, objectno, object_offset, length, at)

    def object_range(self, offset: int, length: int) -> range:
        """The smallest range of object numbers that holds every object the image range touches.

        Exact unless the image is striped and the range is shorter than a stripe: see `object_ranges`.
        """
        touched = self.object_ranges(offset, length)
        return range(touched[0].start, touched[-1].stop) if touched else range(0)

    def object_ranges(self, offset: int, length: int) -> tuple[range, ...]:
        """Exactly the objects that an image range touches: at most two ascending ranges of their numbers.

        They are two where a range shorter than a stripe goes over the end of a stripe within an object set.
        """
        end = _checked_end(offset, length)
        if length == 0:
            return ()
        per_set = self._period >> self._shift
        first, last = offset >> self._shift, (end - 1) >> self._shift
        first_set, last_set = first // per_set, last // per_set
        if first_set == last_set:
            return self._touched(first, last)
        # Up to the end of a set and from the start of one there is no gap.
        low = self._touched(first, (first_set + 1) * per_set - 1)[0].start
        high = self._touched(last_set * per_set, last)[-1].stop
        return (range(low, high),)

    def _touched(self, first: int, last: int) -> tuple[range, ...]:
        """The objects that blocks first..last, all of one object set, lie in."""
        count = self.stripe_count
        base = first // (self._period >> self._shift) * count
        if last - first + 1 >= count:
            return (range(base, base + count),)
        low, high = base + first % count, base + last % count + 1
        if low < high:
            return (range(low, high),)
        return (range(base, high), range(low, base + count))

    # From an object to the image

    def image_extents(self, objectno: int, offset: int, length: int) -> list[tuple[int, int]]:
        """The (image offset, length) pieces of an object range, ascending; a single one without striping."""
        if objectno < 0 or offset < 0 or length < 0 or offset + length > self.object_size:
            raise ValueError(f"{offset}~{length} of object {objectno} is not within {self.object_size} bytes")
        if length == 0:
            return []
        shift, block = self._shift, self._block
        first, last = offset >> shift, (offset + length - 1) >> shift
        head, tail = offset - (first << shift), ((last + 1) << shift) - offset - length
        start = self._image_offset(objectno, first << shift)
        pieces = _blocks(start, self.stripe_count * block, last - first + 1, block, head, tail)
        _checked_end(*pieces[-1])
        return pieces

    def map_object_extents(self, objectnos: U64, offsets: U64, lengths: U64) -> Pieces:
        """The pieces of many object ranges at once: the inverse of `map_extents`."""
        return Pieces.concatenate(list(self.map_object_chunks(objectnos, offsets, lengths)))

    def map_object_chunks(
        self, objectnos: U64, offsets: U64, lengths: U64, rows: int = CHUNK_ROWS
    ) -> Iterator[Pieces]:
        """`map_object_extents` in chunks of at most `rows` rows, each made when it is asked for."""
        starts, sizes = _checked_ranges(offsets, lengths)
        numbers, _ = _checked_ranges(objectnos, lengths)
        if np.any(sizes > self.object_size) or np.any(starts > self.object_size - sizes):
            raise ValueError(f"an extent ends beyond the object size {self.object_size}")
        self._check_image_end(numbers[sizes > 0], (starts + sizes)[sizes > 0] - np.uint64(1))
        for request, at, length in self._cut(starts, sizes, rows):
            objectno = numbers[request]
            yield Pieces(request, objectno, at, length, self._image_offset(objectno, at))

    def _check_image_end(self, objectno: U64, offset: U64) -> None:
        """ValueError if one of these bytes of objects lies where no image has a byte."""
        # A set that begins within uint64 is short enough (less than 2**57) to wrap at most once.
        objsetno = objectno // self.stripe_count
        at = self._image_offset(objectno, offset)
        reachable = objsetno <= MAX_IMAGE_SIZE // self._period
        if not np.all(reachable & (at >= objsetno * self._period) & (at < MAX_IMAGE_SIZE)):
            raise ValueError("an object extent lies beyond image offset 2**64 - 1")

    # How many objects, how much of each

    def object_count(self, size: int) -> int:
        """How many objects an image of `size` bytes has, holes included: their numbers are 0 .. count - 1."""
        sets, rest = divmod(_checked_end(0, size), self._period)
        return sets * self.stripe_count + min(-(-rest >> self._shift), self.stripe_count)

    def object_extent_in(self, size: int, objectno: int) -> int:
        """How many bytes of object `objectno` belong to an image of `size` bytes: always its first ones."""
        if objectno < 0:
            raise ValueError(f"object number {objectno} is negative")
        sets, rest = divmod(_checked_end(0, size), self._period)
        objsetno, stripepos = divmod(objectno, self.stripe_count)
        if objsetno != sets:
            return self.object_size if objsetno < sets else 0
        rows, tail = divmod(rest, self.stripe_count * self._block)
        return rows * self._block + min(max(tail - stripepos * self._block, 0), self._block)

    def object_extents_in(self, size: int, objectnos: U64) -> U64:
        """`object_extent_in` for an array of object numbers."""
        sets, rest = divmod(_checked_end(0, size), self._period)
        numbers, _ = _checked_ranges(objectnos, objectnos)
        objsetno, stripepos = divmod(numbers, self.stripe_count)
        rows, tail = divmod(rest, self.stripe_count * self._block)
        before = stripepos * self._block
        partial = rows * self._block + np.minimum(np.maximum(before, tail) - before, self._block)
        full_or_none = np.where(objsetno < sets, np.uint64(self.object_size), np.uint64(0))
        return np.where(objsetno == sets, partial, full_or_none)

    # The formulas

    def _locate(self, offset: N) -> tuple[N, N]:
        """(object number, offset in it) of an image offset."""
        count = self.stripe_count
        blockno = offset >> self._shift
        within = offset & (self._block - 1)
        if count == 1:
            return blockno, within
        stripeno = blockno // count
        row = stripeno & ((1 << self._rows_shift) - 1)
        objectno = (stripeno >> self._rows_shift) * count + (blockno - stripeno * count)
        return objectno, (row << self._shift) + within

    def _image_offset(self, objectno: N, offset: N) -> N:
        """The image offset of a byte of an object; for arrays, modulo 2**64."""
        objsetno = objectno // self.stripe_count
        stripepos = objectno - objsetno * self.stripe_count
        blockno = (offset >> self._shift) * self.stripe_count + stripepos
        at: N = objsetno * self._period + (blockno << self._shift) + (offset & (self._block - 1))
        return at

    def _cut(self, starts: U64, sizes: U64, rows: int) -> Iterator[tuple[Index, U64, U64]]:
        """Cut ranges at block boundaries: (index of the range, start, length), at most `rows` rows a time."""
        shift, block = self._shift, self._block
        ends = starts + sizes
        first = starts >> shift
        # An empty range has no blocks; what its end - 1 gives, wrapped at offset 0, is not taken.
        numbers = np.where(sizes > 0, ((ends - 1) >> shift) - first + 1, 0)
        for request, ordinal in _ragged(numbers, rows):
            at = np.maximum((first[request] + ordinal) << shift, starts[request])
            yield request, at, np.minimum(block - (at & (block - 1)), ends[request] - at)


def object_name(prefix: str, objectno: int, old_format: bool = False) -> str:
    """The name of data object `objectno`; `prefix` is the stored object_prefix (block_name in format 1)."""
    return f"{prefix}.{objectno:012x}" if old_format else f"{prefix}.{objectno:016x}"


def _checked_order(order: int) -> int:
    if not MIN_ORDER <= order <= MAX_ORDER:
        raise ValueError(f"order {order} is not in {MIN_ORDER}..{MAX_ORDER}")
    return order


def _checked_end(offset: int, length: int) -> int:
    """The end of an image range, once it is known to be one."""
    if offset < 0 or length < 0 or offset + length > MAX_IMAGE_SIZE:
        raise ValueError(f"{offset}~{length} is not within an image of at most 2**64 - 1 bytes")
    return offset + length


def _checked_ranges(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[U64, U64]:
    """Two parallel arrays of non-negative integers as uint64; ValueError if they are something else."""
    arrays = (np.asarray(first), np.asarray(second))
    for array in arrays:
        if array.ndim != 1 or array.shape != arrays[0].shape or (array.dtype.kind not in "iu" and array.size):
            raise ValueError("parallel one-dimensional arrays of integers are needed")
        if array.dtype.kind == "i" and np.any(array < 0):
            raise ValueError("an offset, length or object number is negative")
    return arrays[0].astype(np.uint64, copy=False), arrays[1].astype(np.uint64, copy=False)


def _blocks(first: int, stride: int, number: int, block: int, head: int, tail: int) -> list[tuple[int, int]]:
    """(start, length) of `number` blocks `stride` apart, less the first `head` and the last `tail` bytes."""
    pieces = [(at, block) for at in range(first, first + number * stride, stride)]
    pieces[-1] = (pieces[-1][0], block - tail)
    start, length = pieces[0]
    pieces[0] = (start + head, length - head)
    return pieces


def _ragged(numbers: U64, rows: int) -> Iterator[tuple[Index, U64]]:
    """Count 0 .. numbers[i] - 1 for each i, in chunks of at most `rows` rows: (i of each row, the count)."""
    if rows < 1:
        raise ValueError("a chunk has at least one row")
    index, done = 0, 0  # the number being counted, and how far it was counted in earlier chunks
    while index < len(numbers):
        left = numbers[index : index + rows].copy()
        left[0] -= np.uint64(done)
        # What exceeds `rows` cannot show in this chunk; clipped, the sums cannot overflow.
        clipped = np.minimum(left, rows).astype(np.intp)
        ends = np.cumsum(clipped)
        taken = np.minimum(ends, rows) - np.minimum(ends - clipped, rows)
        request = np.repeat(np.arange(index, index + len(left)), taken)
        ordinal = (np.arange(len(request)) - np.repeat(ends - clipped, taken)).astype(np.uint64)
        ordinal[: taken[0]] += np.uint64(done)
        if len(request):
            yield request, ordinal
        unfinished = np.flatnonzero(taken.astype(np.uint64) < left)
        step = int(unfinished[0]) if len(unfinished) else len(left)
        carried = done if step == 0 else 0
        done = carried + int(taken[step]) if len(unfinished) else 0
        index += step
