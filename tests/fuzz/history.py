"""Which bytes an image may show, when calls overlap.

What is written is a :class:`Layer` of bytes with the time from its call to its answer. A reading from t0 to t1 may show, of
each byte, a layer that had begun by t1, and that no other layer has replaced for certain: one that was answered before t0,
and that had begun after the first was answered. What has no answer, or an error of unknown meaning, may be there and
replaces nothing. What was acknowledged out of a cache ("soft") is seen by its own handle; others may see it, until it is
flushed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rbd_native.striping import Layout

U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
NEVER = 1 << 62
GRANULARITY = 64 << 10
_numbers = itertools.count(1)


@dataclass(eq=False)
class Layer:
    """`alive`: which of its bytes may still be seen. `whole`: an operation that a snapshot has all of, or nothing."""

    start: int
    data: U8
    t0: int
    t1: int
    who: str
    words: str
    firm: bool = True
    whole: bool = False
    alive: Mask = field(default_factory=lambda: np.zeros(0, bool))
    number: int = field(default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        if len(self.alive) != len(self.data):
            self.alive = np.ones(len(self.data), bool)

    @property
    def stop(self) -> int:
        return self.start + len(self.data)

    def copy(self) -> Layer:
        return Layer(
            self.start,
            self.data,
            self.t0,
            self.t1,
            self.who,
            self.words,
            self.firm,
            self.whole,
            self.alive.copy(),
            self.number,
        )


class Possible:
    """What may be seen: at each byte, what any layer that is alive there has."""

    def __init__(self, size: int, layers: list[Layer], *, exact: bool = False) -> None:
        self.size = size
        self.layers = layers
        self.exact = exact  # whether it is of that size and no other

    def wrong(self, found: bytes, offset: int = 0) -> Mask:
        """Of the bytes found at an offset, those that may not be there."""
        array = np.frombuffer(found, np.uint8)
        fine = np.zeros(len(array), bool)
        for layer in self.layers:
            low, high = max(layer.start, offset), min(layer.stop, offset + len(array))
            if low < high:
                part = slice(low - layer.start, high - layer.start)
                fine[low - offset : high - offset] |= layer.alive[part] & (
                    layer.data[part] == array[low - offset : high - offset]
                )
        return ~fine

    def explain(self, found: bytes, offset: int) -> str:
        """Where it is first wrong, what is there and what may be."""
        wrong = np.flatnonzero(self.wrong(found, offset))
        at = int(wrong[0])
        place = offset + at
        allowed = [
            f"{bytes(layer.data[place - layer.start : place - layer.start + 8]).hex()} ({layer.words})"
            for layer in self.layers
            if layer.start <= place < layer.stop and layer.alive[place - layer.start]
        ]
        return f"{len(wrong)} bytes wrong, first at {place}: {found[at : at + 8].hex()}, allowed: {', '.join(allowed)}"

    def certain(self) -> bytes:
        """One content that is allowed."""
        data = np.zeros(self.size, np.uint8)
        for layer in sorted(self.layers, key=lambda one: one.t0):
            stop = min(layer.stop, self.size)
            if layer.start < stop:
                part = slice(0, stop - layer.start)
                data[layer.start : stop] = np.where(layer.alive[part], layer.data[part], data[layer.start : stop])
        return data.tobytes()

    def cut(self, size: int) -> Possible:
        """The same up to a size, beyond which nothing may be read."""
        return Possible(size, self.layers)


class Content:
    """The bytes of one image, up to `capacity`; beyond its size it holds zeros."""

    def __init__(self, capacity: int, layers: Iterable[Layer] = ()) -> None:
        self.capacity = capacity
        self.layers = list(layers) or [self._base(np.zeros(capacity, np.uint8), "zeros of old")]

    @staticmethod
    def _base(data: U8, words: str) -> Layer:
        return Layer(0, data, -1, -1, "", words)

    def add(
        self,
        start: int,
        data: bytes | U8,
        t0: int,
        t1: int,
        who: str,
        words: str,
        *,
        firm: bool = True,
        whole: bool = False,
    ) -> None:
        array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        array = array[: max(self.capacity - start, 0)]
        if len(array):
            self.layers.append(Layer(start, array, t0, t1, who, words, firm, whole))

    def zero(
        self, start: int, stop: int, t0: int, t1: int, who: str, words: str, *, firm: bool = True, whole: bool = False
    ) -> None:
        if start < stop:
            self.add(start, np.zeros(stop - start, np.uint8), t0, t1, who, words, firm=firm, whole=whole)

    def add_possible(self, seen: Possible, t0: int, t1: int, who: str, words: str) -> None:
        """All bytes become what may be seen there, as by a rollback."""
        size = min(seen.size, self.capacity)
        found = np.frombuffer(seen.certain(), np.uint8)[:size]
        self.add(0, found, t0, t1, who, words, whole=True)
        self.zero(size, self.capacity, t0, t1, who, words, whole=True)
        for layer in seen.layers:
            more = layer.copy()
            keep = min(layer.stop, size) - layer.start
            if keep > 0:
                more.data, more.alive = more.data[:keep], more.alive[:keep]
                more.t0, more.t1, more.who, more.words, more.firm = t0, NEVER, who, f"{words}: {layer.words}", True
                more.whole = True
                self.layers.append(more)

    def flushed(self, who: str | None, before: int) -> None:
        """What `who` (None: anybody) wrote and had acknowledged by then is firm."""
        for layer in self.layers:
            if not layer.firm and layer.t1 <= before and who in (None, layer.who):
                layer.firm = True

    def possible(
        self, t0: int, t1: int, who: str = "", *, hard: frozenset[int] = frozenset(), without: frozenset[int] = frozenset()
    ) -> Possible:
        """What a reading from t0 to t1 by handle `who` may show. hard, without: numbers of layers that are surely in, or
        out."""
        seen = [layer.copy() for layer in self.layers if layer.t0 < t1 and layer.number not in without]
        for later in seen:
            certain = later.number in hard or (later.t1 <= t0 and (later.firm or later.who == who))
            if certain:
                for earlier in seen:
                    if earlier is not later and self._replaces(later, earlier):
                        _blot(earlier, later)
        return Possible(self.capacity, [layer for layer in seen if layer.alive.any()])

    @staticmethod
    def _replaces(later: Layer, earlier: Layer) -> bool:
        if earlier.t1 >= NEVER or (not earlier.firm and earlier.who != later.who):
            return earlier.t1 < later.t0 < NEVER and earlier.who == later.who
        return earlier.t1 < later.t0

    def settle(self) -> None:
        """Forget what nobody can see any more."""
        self.layers = self.possible(NEVER - 1, NEVER).layers

    def seen(self, found: bytes, now: int) -> None:
        """At a time when nothing was under way, nor in a cache, it was read: from now on it is that."""
        data = np.zeros(self.capacity, np.uint8)
        data[: len(found)] = np.frombuffer(found, np.uint8)
        later = [layer for layer in self.layers if layer.t0 > now]
        self.layers = [self._base(data, "as it was read"), *later]

    def wholes(self, t0: int, t1: int) -> list[Layer]:
        """Operations on the whole image that overlap with this time."""
        return [layer for layer in self.layers if layer.whole and layer.t0 < t1 and layer.t1 > t0 and layer.t1 < NEVER]


def _blot(earlier: Layer, later: Layer) -> None:
    low, high = max(earlier.start, later.start), min(earlier.stop, later.stop)
    if low < high:
        earlier.alive[low - earlier.start : high - earlier.start] = False


def discarded(layout: Layout, offset: int, length: int, size: int) -> list[tuple[int, int]]:
    """The ranges (start, stop) of an image that a discard makes zeros: rounded inward within each object."""
    granularity = min(GRANULARITY, layout.object_size)
    found = []
    for extent in layout.iter_extents(offset, max(min(length, size - offset), 0)):
        start, stop = extent.offset, extent.offset + extent.length
        if granularity < layout.object_size or stop < layout.object_size:
            start = -(-start // granularity) * granularity
            stop -= stop % granularity
        for at, count in layout.image_extents(extent.objectno, start, max(stop - start, 0)):
            if at < size:
                found.append((at, min(at + count, size)))
    return found
