"""What changed in an object, or in all objects of an image, between two versions.  No I/O.

Two sources tell it. An object's own record (:class:`~rbd_native.rados.port.SnapSet`) is exact: each clone says which
snapshots it serves, how large it is and what it shares with the next newer one. Object maps know whole objects only, but
all of them at once: each says of every object whether it exists and whether it changed since the snapshot before.

Versions are snapshot ids; 0 is before everything, HEAD is now. Intervals are sorted lists of (start, end) in bytes which
neither overlap nor touch.

Source: the answers of a running 20.2.4 librbd, which are the same list for the same history.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rbd_native.object_map import BitVector
from rbd_native.rados.port import HEAD, Clone, SnapSet

U8 = npt.NDArray[np.uint8]
Intervals = list[tuple[int, int]]


# --- intervals -------------------------------------------------------------------------------------------------------


def joined(pieces: Iterable[tuple[int, int]]) -> Intervals:
    """The union of pieces in any order; empty ones are nothing."""
    out: Intervals = []
    for start, end in sorted(piece for piece in pieces if piece[0] < piece[1]):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def common(first: Intervals, second: Intervals) -> Intervals:
    """The intersection."""
    out: Intervals = []
    i = j = 0
    while i < len(first) and j < len(second):
        start, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if start < end:
            out.append((start, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return out


def without(first: Intervals, second: Intervals) -> Intervals:
    """What of the first is not in the second."""
    gaps: Intervals = []
    at = 0
    for start, end in second:
        gaps.append((at, start))
        at = end
    gaps.append((at, max(at, first[-1][1] if first else at)))
    return common(first, [gap for gap in gaps if gap[0] < gap[1]])


# --- one object ------------------------------------------------------------------------------------------------------


class _Change(NamedTuple):
    """`extents`: what differs; `size` and `exists`: of the later version. None for extents: it cannot be told."""

    extents: Intervals | None
    size: int
    exists: bool


def _span(clone: Clone, seq: int) -> tuple[int, int]:
    """The first and the last version that it serves."""
    return (seq + 1, HEAD) if clone.is_head else (clone.snaps[0], clone.snaps[-1])


def _between(found: SnapSet, since: int, until: int) -> _Change:
    """Differences in the bytes of an object between two versions."""
    diff: Intervals = []
    start_size: int | None = None
    clones = found.clones
    for place, clone in enumerate(clones):
        if not clone.is_head and not clone.snaps:
            return _Change(None, 0, True)
        first, last = _span(clone, found.seq)
        if last < since:
            continue
        if start_size is None:
            absent = since < first
            start_size = 0 if absent else clone.size
            diff = joined([(0, clone.size)]) if absent else []
        if until < first:
            break
        if until <= last:
            # What was cut off in between, and is beyond either version, is a difference of neither.
            return _Change(common(diff, joined([(0, max(start_size, clone.size))])), clone.size, True)
        if place + 1 < len(clones):
            diff = joined(diff + _step(clone, clones[place + 1]))
    return _Change(joined([(0, start_size or 0)]), 0, False)


def _step(clone: Clone, newer: Clone) -> Intervals:
    """The differences from one clone to the next; what was cut off is one, whether or not anybody saw it."""
    shared = joined((offset, offset + length) for offset, length in clone.overlap)
    return without(joined([(0, max(clone.size, newer.size))]), shared)


def object_changes(
    found: SnapSet, since: int, until: int, wanted: Intervals, object_size: int, *, whole: bool
) -> tuple[Intervals, Intervals]:
    """The parts of `wanted` that changed: those that have data in the later version, and those that became zeros.

    `whole`: where anything changed, take it that all did.
    """
    before = 0
    if since:
        at_start = _between(found, 0, since)
        before = object_size if at_start.extents is None else at_start.size
    diff, size, exists = _between(found, since, until)
    everything = [(0, object_size)]
    if diff is None or (whole and diff):
        diff, size = everything, object_size
    changed = common(diff, wanted)
    gone = common(joined([(size, before)]), wanted)
    changed = without(changed, gone)
    return (changed, gone) if exists else ([], joined(changed + gone))


# --- all objects -----------------------------------------------------------------------------------------------------


class DiffState(IntEnum):
    """What object maps tell of an object between two versions."""

    HOLE = 0  # it is not there, and was not
    DATA = 1  # it is there, as it was
    HOLE_UPDATED = 2  # it is not there any more
    DATA_UPDATED = 3  # it was written


_H, _D, _HU, _DU = DiffState
# By the state so far (down) and what the next map says (across: NONEXISTENT, EXISTS, PENDING, EXISTS_CLEAN).
_START: Final = np.array([_H, _D, _DU, _D], np.uint8)
_LAST: Final = np.array(
    [
        [_H, _DU, _DU, _DU],
        [_HU, _DU, _DU, _D],
        [_HU, _DU, _DU, _DU],
        [_HU, _DU, _DU, _DU],
    ],
    np.uint8,
)
# What was absent at the start is judged by the last map alone.
_BETWEEN: Final = np.vstack([np.full(4, _H, np.uint8), _LAST[1:]])


class Fold:
    """The states of all objects, from maps given oldest first: that of the earlier version, unless it is 0, those of all
    snapshots in between, and that of the later one."""

    def __init__(self) -> None:
        self.states = BitVector()

    def start(self, bits: BitVector, count: int) -> None:
        """The map of the earlier version, which had `count` objects."""
        self._apply(bits, count, np.vstack([_START] * 4))

    def then(self, bits: BitVector, count: int, *, last: bool) -> None:
        """The next map. Objects beyond its count are forgotten: the image was shrunk."""
        self._apply(bits, count, _LAST if last else _BETWEEN)

    def _apply(self, bits: BitVector, count: int, table: U8) -> None:
        self.states.resize(count, DiffState.HOLE)
        flat = table.reshape(-1)
        for start, now in bits.chunks(0, count):
            before = self.states.unpack(start, start + len(now))
            self.states.put(start, flat[before * 4 + now])

