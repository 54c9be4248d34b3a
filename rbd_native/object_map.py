"""Object maps: two bits of state for each data object of an image, and the file that holds them.  No I/O.

The file is the whole data of `rbd_object_map.<image id>` (and of `....<snapshot id>` for a snapshot):

    u32 14 · u8 1 · u8 1 · u32 8 · u64 n                    header: a versioned struct within a length
    ceil(n / 4) bytes                                       entry i: byte i // 4, the first in the top two bits
    u32 L · L bytes: u32 header_crc · u32 k · k × u32 crc   footer: a checksum for each 4096 bytes of data

`header_crc` covers the 14 bytes after the first length; all are `crc32c`.  With L = 0 there are no checksums: so
object_map_load answers, and object_map_save takes either.  The bits after entry n - 1 in the last byte mean nothing,
are left as they were when a map shrinks, and are covered by the checksum all the same.

What a running OSD (16.2.15) takes is taken here: the version of a later writer that a reader of version 1 may read,
any k, a longer footer, more bytes after it; and to update a map, any L.  But a header of another length than 14, which
it loads and will not update, is refused, and so is an absurd number of entries, at which it aborts.

The data is held packed and worked on packed, a chunk at a time: a map at the limit of 256,000,000 objects takes
64 MB, and its operations little more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum, IntEnum
from functools import cache
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from rbd_native.constants import RBD_MAX_OBJECT_MAP_OBJECTS
from rbd_native.crc32c import crc32c

U8 = npt.NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview

BLOCK_SIZE: Final = 4096
BLOCK_ENTRIES: Final = 4 * BLOCK_SIZE
# Packed bytes worked on at once, a whole number of blocks.
CHUNK_SIZE: Final = 64 * BLOCK_SIZE

_HEADER: Final = struct.Struct("<IBBIQ")
_HEADER_BODY: Final = slice(4, 18)
_FOOTER: Final = struct.Struct("<III")
HEADER_SIZE: Final = _HEADER.size


class ObjectState(IntEnum):
    """What a map says of an object."""

    NONEXISTENT = 0
    EXISTS = 1
    PENDING = 2  # its deletion has begun
    EXISTS_CLEAN = 3  # exists, unchanged since the newest snapshot


class Part(Enum):
    """Where a map file is corrupt."""

    LAYOUT = "layout"
    HEADER_CRC = "header checksum"
    DATA_CRC = "data checksum"


class ObjectMapCorrupt(ValueError):
    """The bytes are no object map, or not the one that was written; `part` says where it shows."""

    def __init__(self, part: Part, message: str) -> None:
        super().__init__(f"object map: {part.value}: {message}")
        self.part = part


class _Footer(NamedTuple):
    header_crc: int
    block_crcs: npt.NDArray[np.uint32]


_STATES: Final = tuple(ObjectState)
_SHIFTS: Final = (6, 4, 2, 0)
_ONE, _LOW = np.uint8(1), np.uint8(0b01010101)
# The states that an update with this expected state changes.
_MATCHES: Final[dict[int | None, frozenset[int]]] = {
    None: frozenset({0, 1, 2, 3}),
    0: frozenset({0}),
    1: frozenset({1, 3}),
    2: frozenset({2}),
    3: frozenset({3}),
}


def _packed(states: U8) -> U8:
    """Four entries to a byte; the number of entries is a multiple of 4."""
    rows = states.reshape(-1, 4)
    data = rows[:, 3].copy()
    for slot, shift in enumerate(_SHIFTS[:3]):
        data |= rows[:, slot] << shift
    return data


def _unpacked(data: U8) -> U8:
    """The entries of packed bytes, a byte each."""
    rows = np.empty((len(data), 4), np.uint8)
    for slot, shift in enumerate(_SHIFTS):
        np.right_shift(data, shift, out=rows[:, slot])
    rows &= 3
    return rows.reshape(-1)


# For each value of a byte: its four entries; how many of them are of each state; how many are not 0.
_ENTRIES: Final = _unpacked(np.arange(256, dtype=np.uint8))
_CENSUS: Final = (_ENTRIES.reshape(256, 4, 1) == np.arange(4)).sum(axis=1)
_NONZERO: Final = bytes((4 - _CENSUS[:, 0]).tolist())


@cache
def _translation(state: int, expected: int | None) -> bytes:
    """What an update makes of each value of a byte whose four entries are all in its range."""
    matches = np.isin(_ENTRIES, list(_MATCHES[expected]))
    return _packed(np.where(matches, np.uint8(state), _ENTRIES)).tobytes()


def data_size(n: int) -> int:
    """Bytes of data that n entries take."""
    return -(-n // 4)


def blocks_of(start: int, end: int) -> range:
    """The numbers of the 4 KiB blocks that hold the entries start..end."""
    return range(start // BLOCK_ENTRIES, -(-end // BLOCK_ENTRIES)) if start < end else range(0)


class BitVector:
    """The entries of one object map.

    Indexes are object numbers, ranges are half open; IndexError where they are not within the map.  A checksum is
    worked out when it is needed, and only for blocks that changed since it was last known.
    """

    __slots__ = ("_bytes", "_crcs", "_data", "_n", "_stale")

    def __init__(self, n: int = 0, state: int = ObjectState.NONEXISTENT) -> None:
        """n entries of one state; ValueError over the limit."""
        self._adopt(0, np.empty(0, np.uint8))
        self.resize(n, state)

    def _adopt(self, n: int, data: U8) -> None:
        self._n = n
        self._data = data
        self._bytes: memoryview = data.data  # for single entries: an item of it is an int, and comes faster
        blocks = -(-len(data) // BLOCK_SIZE)
        self._crcs = np.zeros(blocks, np.uint32)
        self._stale = np.ones(blocks, np.bool_)

    # Entries

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> ObjectState:
        if not 0 <= index < self._n:
            raise IndexError(f"object {index} is not in a map of {self._n}")
        return _STATES[self._bytes[index >> 2] >> _SHIFTS[index & 3] & 3]

    def __setitem__(self, index: int, state: int) -> None:
        self.set_range(index, index + 1, state)

    def __eq__(self, other: object) -> bool:
        """Whether the entries are the same; what lies after the last one doesn't matter."""
        if not isinstance(other, BitVector):
            return NotImplemented
        whole = self._n // 4
        return (
            self._n == other._n
            and all(np.array_equal(self._data[a:b], other._data[a:b]) for a, b in _chunks(0, whole))
            and all(self[index] == other[index] for index in range(4 * whole, self._n))
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._n} objects>"

    def set_range(self, start: int, end: int, state: int, expected: int | None = None) -> int:
        """Set entries, or those of the `expected` state (1 means 1 or 3); how many were changed."""
        self._check(start, end)
        state = ObjectState(state)
        matches = _MATCHES[expected if expected is None else ObjectState(expected)]
        first, last = -(-start // 4), end // 4
        if first >= last:
            return self._set_each(range(start, end), state, matches)
        changed = self._set_each(range(start, 4 * first), state, matches)
        changed += self._set_each(range(4 * last, end), state, matches)
        table = _translation(state, expected)
        for low, high in _chunks(first, last):
            new = np.frombuffer(self._data[low:high].tobytes().translate(table), np.uint8)
            changed += self._replace(low, new)
        return changed

    def _set_each(self, indexes: range, state: int, matches: frozenset[int]) -> int:
        changed = 0
        for index in indexes:
            shift = _SHIFTS[index & 3]
            byte = self._bytes[index >> 2]
            old = byte >> shift & 3
            if old != state and old in matches:
                self._bytes[index >> 2] = byte ^ (old ^ state) << shift
                self._stale[index // BLOCK_ENTRIES] = True
                changed += 1
        return changed

    def _replace(self, low: int, new: U8) -> int:
        """Put bytes at `low`; how many entries that changes."""
        old = self._data[low : low + len(new)]
        difference = old ^ new
        if not difference.any():
            return 0
        first = low // BLOCK_SIZE
        inner = range((first + 1) * BLOCK_SIZE - low, len(new), BLOCK_SIZE)
        touched = np.bitwise_or.reduceat(difference, [0, *inner]) != 0
        self._stale[first : first + len(touched)] |= touched
        old[:] = new
        return int(np.frombuffer(difference.tobytes().translate(_NONZERO), np.uint8).sum())

    def resize(self, n: int, state: int = ObjectState.NONEXISTENT) -> None:
        """Drop entries from the end, or add some of one state.  ValueError over the limit.

        Dropping clears no bits; whether the dropped entries may go is for the caller to say (see `counts`).
        """
        state = ObjectState(state)
        if not 0 <= n <= RBD_MAX_OBJECT_MAP_OBJECTS:
            raise ValueError(f"an object map has at most {RBD_MAX_OBJECT_MAP_OBJECTS} objects, not {n}")
        old_n, old, old_crcs, old_stale = self._n, self._data, self._crcs, self._stale
        size, kept = data_size(n), min(data_size(n), len(old))
        if size != len(old):
            self._adopt(n, np.zeros(size, np.uint8))
            self._data[:kept] = old[:kept]
            whole = kept // BLOCK_SIZE  # a block cut short or made longer has another checksum
            self._crcs[:whole], self._stale[:whole] = old_crcs[:whole], old_stale[:whole]
        self._n = n
        if old_n < n:
            self.set_range(old_n, n, state)

    # Many entries at once

    @classmethod
    def pack(cls, states: npt.ArrayLike) -> Self:
        """A map of the given states."""
        array = np.asarray(states)
        vector = cls(len(array))
        vector.put(0, array)
        return vector

    def put(self, start: int, states: npt.ArrayLike) -> int:
        """Set consecutive entries to the given states, any integers 0..3; how many were changed."""
        array = np.asarray(states)
        end = start + len(array)
        self._check(start, end)
        if len(array) and not (array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 3):
            raise ValueError("the states of objects are 0..3")
        changed = 0
        for low, high in _chunks(start // 4, data_size(end)):
            # Entries of the same bytes before the start and after the end stay as they are.
            entries = _unpacked(self._data[low:high])
            first, last = max(start, 4 * low), min(end, 4 * high)
            entries[first - 4 * low : last - 4 * low] = array[first - start : last - start]
            changed += self._replace(low, _packed(entries))
        return changed

    def unpack(self, start: int = 0, end: int | None = None) -> U8:
        """The states of a range, a byte each: see `chunks` for large maps."""
        end = self._n if end is None else end
        self._check(start, end)
        first = start // 4
        entries = _unpacked(self._data[first : data_size(end)])
        return entries[start - 4 * first : end - 4 * first]

    def chunks(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, U8]]:
        """(first object, states) for consecutive parts of a range, about a million objects each."""
        end = self._n if end is None else end
        self._check(start, end)
        for low, high in _chunks(start // 4, data_size(end)) if start < end else ():
            first = max(start, 4 * low)
            yield first, self.unpack(first, min(end, 4 * high))

    def counts(self, start: int = 0, end: int | None = None) -> tuple[int, int, int, int]:
        """How many entries of a range there are of each state."""
        end = self._n if end is None else end
        self._check(start, end)
        first, last = -(-start // 4), end // 4
        edges = [(start, end)] if first >= last else [(start, 4 * first), (4 * last, end)]
        bytes_ = np.zeros(256, np.int64)
        for low, high in _chunks(first, last):
            bytes_ += np.bincount(self._data[low:high], minlength=256)
        total = bytes_ @ _CENSUS
        for low, high in edges:
            total += np.bincount(self.unpack(low, high), minlength=4)
        zero, exists, pending, clean = total.tolist()
        return zero, exists, pending, clean

    def snap_add(self) -> int:
        """A snapshot was taken: what exists is clean.  How many entries changed."""
        return self.set_range(0, self._n, ObjectState.EXISTS_CLEAN, ObjectState.EXISTS)

    def snap_remove(self, removed: BitVector) -> int:
        """The snapshot before this map goes: what it had changed is not clean here.  How many entries changed.

        `removed` is that snapshot's map; objects it did not have count as changed.
        """
        shared = min(self._n, removed._n)
        changed = self.set_range(shared, self._n, ObjectState.EXISTS, ObjectState.EXISTS_CLEAN)
        for index in range(shared - shared % 4, shared):
            if removed[index] == ObjectState.EXISTS:
                changed += self.set_range(index, index + 1, ObjectState.EXISTS, ObjectState.EXISTS_CLEAN)
        for low, high in _chunks(0, shared // 4):
            mine, theirs = self._data[low:high], removed._data[low:high]
            # The low bit of each pair: set where this entry is 3, and where that one is 1.
            clean, dirty = mine & mine >> _ONE & _LOW, theirs & ~(theirs >> _ONE) & _LOW
            changed += self._replace(low, mine ^ (clean & dirty) << _ONE)
        return changed

    def _check(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self._n:
            raise IndexError(f"objects {start}..{end} are not in a map of {self._n}")

    # The file

    def verify(self, start: int, end: int) -> None:
        """Compare the blocks of a range with the checksums that came with them: ObjectMapCorrupt."""
        for block in blocks_of(start, end):
            if not self._stale[block] and self._crc(block) != self._crcs[block]:
                raise ObjectMapCorrupt(Part.DATA_CRC, f"block {block} is damaged")

    def _crc(self, block: int) -> int:
        return crc32c(self._bytes[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE])

    def block_crcs(self) -> npt.NDArray[np.uint32]:
        """The checksum of each block of 4 KiB."""
        for block in np.flatnonzero(self._stale).tolist():
            self._crcs[block] = self._crc(block)
        self._stale[:] = False
        return self._crcs.copy()

    def _header(self) -> bytes:
        return _HEADER.pack(14, 1, 1, 8, self._n)

    def _footer(self) -> bytes:
        crcs = self.block_crcs()
        header_crc = crc32c(self._header()[_HEADER_BODY])
        return _FOOTER.pack(8 + crcs.nbytes, header_crc, len(crcs)) + crcs.astype("<u4").tobytes()

    def encode(self, with_crcs: bool = True) -> bytes:
        """The file."""
        footer = self._footer() if with_crcs else bytes(4)
        return b"".join((self._header(), self._bytes, footer))

    def patch(self, start: int, end: int) -> list[tuple[int, bytes]]:
        """(offset, bytes) to write to the file this came from, after entries of a range were changed.

        They are the blocks and their checksums: no other part of the file is repaired, as an OSD repairs none.
        """
        blocks = blocks_of(start, end)
        if not blocks:
            return []
        low, high = blocks.start * BLOCK_SIZE, blocks.stop * BLOCK_SIZE
        crcs = self.block_crcs()[blocks.start : blocks.stop].astype("<u4")
        crcs_at = HEADER_SIZE + len(self._data) + _FOOTER.size + 4 * blocks.start
        return [(HEADER_SIZE + low, bytes(self._bytes[low:high])), (crcs_at, crcs.tobytes())]

    @classmethod
    def decode(cls, raw: Buffer, *, for_update: bool = False) -> Self:
        """The map in a file, verified as far as it has checksums: ObjectMapCorrupt.

        With `for_update` it is read as an OSD does that updates it in place: there must be checksums, and none is
        looked at yet.  Call `verify` for the range to be updated, then `patch`.
        """
        view = memoryview(raw).cast("B")
        n = _decode_header(view)
        end = HEADER_SIZE + data_size(n)
        footer = _decode_footer(view[end:], -(-data_size(n) // BLOCK_SIZE), for_update)
        if footer and not for_update and footer.header_crc != crc32c(view[_HEADER_BODY]):
            raise ObjectMapCorrupt(Part.HEADER_CRC, "the header is damaged")
        vector = cls.__new__(cls)
        vector._adopt(n, np.frombuffer(bytearray(view[HEADER_SIZE:end]), np.uint8))
        if footer:
            vector._crcs[:] = footer.block_crcs
            vector._stale[:] = False
            if not for_update:
                vector.verify(0, n)
        return vector


def _decode_header(view: memoryview) -> int:
    """The number of entries; whether there are so many shows when the footer is looked for after them."""
    if len(view) < HEADER_SIZE:
        raise ObjectMapCorrupt(Part.LAYOUT, "the header is short")
    length, _, compat, body, n = _HEADER.unpack_from(view)
    if (length, body) != (14, 8) or compat > 1:
        raise ObjectMapCorrupt(Part.LAYOUT, "the header is not one of version 1")
    if n > RBD_MAX_OBJECT_MAP_OBJECTS:
        raise ObjectMapCorrupt(Part.LAYOUT, f"{n} objects are too many")
    return int(n)


def _decode_footer(view: memoryview, blocks: int, for_update: bool) -> _Footer | None:
    """The checksums of the blocks; None for a map without."""
    if len(view) < 4:
        raise ObjectMapCorrupt(Part.LAYOUT, "there is no footer")
    needed = _FOOTER.size + 4 * blocks
    length = int.from_bytes(view[:4], "little")
    if length == 0 and not for_update:
        return None
    if len(view) < needed or (not for_update and not needed <= 4 + length <= len(view)):
        raise ObjectMapCorrupt(Part.LAYOUT, f"the footer of {length} bytes does not hold {blocks} checksums")
    _, header_crc, _ = _FOOTER.unpack_from(view)
    return _Footer(header_crc, np.frombuffer(view, "<u4", blocks, _FOOTER.size).astype(np.uint32))


def _chunks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Cut a range of bytes where chunks end: (first, last) of each part."""
    while first < last:
        end = min(first - first % CHUNK_SIZE + CHUNK_SIZE, last)
        yield first, end
        first = end
