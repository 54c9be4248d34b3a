"""Bytes of an object that are to be written: kept piece by piece, written in one operation."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from rbd_native.rados.port import Buffer, Write, WriteFull, WriteStep

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

Store = Callable[["ImageContext", int, tuple[WriteStep, ...]], Awaitable[None]]
"""How steps are done to a data object, by its number."""


_LARGE: Final = 32 << 10


class Pieces:
    """Bytes of an object, in disjoint pieces. What comes later replaces what was there."""

    __slots__ = ("_data", "_starts", "size")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._data: list[Buffer] = []
        self.size = 0

    def put(self, start: int, data: Buffer) -> None:
        """`data` is kept as it is, and must not change."""
        if not len(data):
            return
        starts, kept, end = self._starts, self._data, start + len(data)
        self.size += len(data)
        if not starts or starts[-1] + len(kept[-1]) <= start:
            starts.append(start)
            kept.append(data)
            return
        first = bisect_right(starts, start)
        if first and starts[first - 1] + len(kept[first - 1]) > start:
            first -= 1
        last = bisect_left(starts, end)
        edges: list[tuple[int, Buffer]] = []
        for place in range(first, last):
            begin, old = starts[place], kept[place]
            self.size -= len(old)
            if begin < start:
                edges.append((begin, memoryview(old)[: start - begin]))
            if begin + len(old) > end:
                edges.append((end, memoryview(old)[end - begin :]))
        self.size += sum(len(piece) for _, piece in edges)
        edges.append((start, data))
        edges.sort(key=lambda edge: edge[0])
        starts[first:last] = [begin for begin, _ in edges]
        kept[first:last] = [piece for _, piece in edges]

    def within(self, start: int, end: int) -> Iterator[tuple[int, Buffer]]:
        """(start, bytes) of what lies in a range."""
        place = max(bisect_right(self._starts, start) - 1, 0)
        for begin, data in zip(self._starts[place:], self._data[place:], strict=True):
            if begin >= end:
                return
            low, high = max(start - begin, 0), min(end - begin, len(data))
            if low < high:
                yield begin + low, data if high - low == len(data) else memoryview(data)[low:high]

    def runs(self) -> Iterator[tuple[int, Buffer]]:
        """(start, bytes), neighbours joined where they are small: copying large ones would cost more than it saves."""
        begin, end, gathered = 0, -1, list[Buffer]()
        for start, data in zip(self._starts, self._data, strict=True):
            if gathered and (start != end or len(data) >= _LARGE):
                yield begin, _joined(gathered)
                gathered = []
            if not gathered:
                begin = start
            gathered.append(data)
            end = start + len(data)
        if gathered:
            yield begin, _joined(gathered)


def _joined(pieces: list[Buffer]) -> Buffer:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_steps(image: ImageContext, objectno: int, runs: Iterable[tuple[int, Buffer]]) -> tuple[WriteStep, ...]:
    """What writes runs of bytes, (start, bytes), to an object, in one operation: all of it at once where they are all of
    it. How large it will be is told where it may be new."""
    size = image.layout.object_size
    steps = tuple([WriteFull(data) if len(data) == size else Write(start, data) for start, data in runs])
    hints, keeper = image.hints, image.head_map
    if hints and (keeper is None or hints[0].flags or not keeper.may_exist(objectno)):
        return hints + steps
    return steps
