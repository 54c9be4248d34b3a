"""What an image must hold: a bytearray, and random operations on it."""

import random
from typing import Any

GRANULARITY = 64 << 10
MIB = 1 << 20


class Model:
    """An image without striping. Discards are rounded inward, as the default options have it."""

    def __init__(self, size: int, order: int) -> None:
        self.data = bytearray(size)
        self.object_size = 1 << order

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes, offset: int) -> int:
        self.data[offset : offset + len(data)] = data
        return len(data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write_zeroes(self, offset: int, length: int) -> None:
        length = min(length, self.size - offset)
        self.data[offset : offset + length] = bytes(length)

    def discard(self, offset: int, length: int) -> None:
        end = min(offset + length, self.size)
        while offset < end:
            base = offset - offset % self.object_size
            stop = min(end, base + self.object_size)
            self._discard_in_object(base, offset - base, stop - base)
            offset = stop

    def _discard_in_object(self, base: int, start: int, stop: int) -> None:
        granularity = min(GRANULARITY, self.object_size)
        if granularity < self.object_size or stop < self.object_size:
            start = -(-start // granularity) * granularity
            stop -= stop % granularity
        if start < stop:
            # An object that the image ends within has nothing beyond the end.
            stop = min(base + stop, self.size)
            self.data[base + start : stop] = bytes(stop - base - start)

    def resize(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))


class Dice:
    """Random operations: (method of an image, arguments)."""

    def __init__(self, seed: int, largest: int, order: int) -> None:
        self.random = random.Random(seed)
        self._largest = largest
        self._object_size = 1 << order

    def operation(self, size: int) -> tuple[Any, ...]:
        """One on an image of that size; its first argument tells what for a resize."""
        kind = self.random.random()
        if kind < 0.05:
            return ("resize", self._new_size(size))
        offset, length = self.extent(0, size)
        if kind < 0.45:
            return ("write", self.random.randbytes(length), offset)
        if kind < 0.6:
            return ("discard", offset, length)
        if kind < 0.7:
            return ("write_zeroes", offset, length)
        return ("read", offset, length)

    def extent(self, start: int, end: int) -> tuple[int, int]:
        """Short or some objects long, aligned or not."""
        few = self.random.choice([4096, self._object_size // 2, self._object_size, 3 * self._object_size])
        few = min(few, 256 << 10, end - start)
        length = self.random.randint(1, few)
        offset = self.random.randint(start, end - length)
        unit = self.random.choice([1, 512, 4096, GRANULARITY, self._object_size])
        aligned = offset - offset % unit
        if aligned < start or unit == 1:
            return offset, length
        if self.random.random() < 0.5:
            length = min(-(-length // unit) * unit, end - aligned)
        return aligned, min(length, end - aligned)

    def _new_size(self, size: int) -> int:
        new = self.random.randint(self._largest // 4, self._largest)
        unit = self.random.choice([1, 4096, self._object_size])
        new -= new % unit
        return new if new != size else new + 1
