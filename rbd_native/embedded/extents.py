"""Sets of bytes of an object, as the ascending offsets at which they begin and end, by turns: ``[0, 4, 8, 16]``.

So what lies at an odd place of the list is an end, and a range is cut out by replacing what lies between. Stored, a set is
its offsets as little-endian 64 bit numbers.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Extents = list[int]


def of(ranges: Iterable[tuple[int, int]]) -> Extents:
    """The set of all bytes of some (offset, length), which may overlap."""
    extents: Extents = []
    for offset, length in ranges:
        add(extents, offset, length)
    return extents


def ranges(extents: Extents) -> tuple[tuple[int, int], ...]:
    """Disjoint (offset, length), ascending."""
    return tuple((start, end - start) for start, end in zip(extents[::2], extents[1::2], strict=True))


def add(extents: Extents, offset: int, length: int) -> None:
    if length:
        first, last = bisect_left(extents, offset), bisect_right(extents, offset + length)
        extents[first:last] = [offset] * (first % 2 == 0) + [offset + length] * (last % 2 == 0)


def cut(extents: Extents, offset: int, length: int) -> None:
    if length:
        first, last = bisect_left(extents, offset), bisect_right(extents, offset + length)
        extents[first:last] = [offset] * (first % 2) + [offset + length] * (last % 2)


def intersection(some: Extents, others: Extents) -> Extents:
    common = list(some)
    if common:
        around = [0, *others, max(common[-1], others[-1] if others else 0)]  # the gaps, once the ends are there
        for offset, length in ranges(around):
            cut(common, offset, length)
    return common


def pack(extents: Extents) -> bytes:
    return struct.pack(f"<{len(extents)}Q", *extents)


def unpack(stored: bytes) -> Extents:
    return list(struct.unpack(f"<{len(stored) // 8}Q", stored))
