"""A writer of numbered records over several images, and who judges from what is found which of them were written.

Records are numbered from 0, and each is acknowledged before the next is begun; they go round the images, and round each
image's slots when those are full. So whatever is one moment of all images holds a prefix of the sequence: of every slot the
last record of the prefix that went there. Several scribes have slots of their own, side by side.
"""

import itertools
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BLOCK = 4096
_WORDS = struct.Struct("<QQ")


class Desk(NamedTuple):
    """Where the records go. images: (pool, name); slots: of each image and scribe, a block each; scribes: how many."""

    images: list[tuple[str, str]]
    slots: int
    scribes: int

    @property
    def size(self) -> int:
        """Of each image, in bytes."""
        return self.slots * self.scribes * BLOCK

    def place(self, scribe: int, number: int) -> tuple[int, int]:
        """The image, and the offset in it, where a record goes."""
        turn, image = divmod(number, len(self.images))
        return image, (turn % self.slots * self.scribes + scribe) * BLOCK


def record(scribe: int, number: int) -> bytes:
    return _WORDS.pack(scribe + 1, number + 1) * (BLOCK // _WORDS.size)


def prefix(desk: Desk, scribe: int, contents: list[bytes]) -> int:
    """How many records of a scribe there are. AssertionError where they are not the first so many."""
    found = np.stack([_numbers(desk, scribe, content) for content in contents], axis=1).reshape(-1)
    count = int(found.max())
    capacity = len(desk.images) * desk.slots
    last = count - 1 - (count - 1 - np.arange(capacity)) % capacity  # the last record below count that went there
    wanted = np.where(last >= 0, last + 1, 0)
    wrong = np.flatnonzero(found != wanted)
    assert not len(wrong), f"scribe {scribe}, of {count}: {[(int(found[n]), int(wanted[n])) for n in wrong[:10]]}"
    return count


def _numbers(desk: Desk, scribe: int, content: bytes) -> Any:
    """What is in each slot of a scribe: one more than the record's number, 0 for nothing."""
    words = np.frombuffer(content, "<u8").reshape(desk.slots, desk.scribes, BLOCK // 8)[:, scribe]
    assert (words[:, 0::2] == words[:, :1]).all() and (words[:, 1::2] == words[:, 1:2]).all(), "a record is torn"
    assert np.isin(words[:, 0], (0, scribe + 1)).all(), "a record of somebody else"
    return words[:, 1]


class ScribeMethods:
    """What a client of its own process can do with several images and groups of them."""

    rbd: Any
    cluster: Any
    records: int

    def desk(self, images: list[tuple[str, str]], slots: int, scribes: int, cached: bool = True) -> None:
        """Sit down at it: the images stay open. cached: from here on writes may be acknowledged before they are written."""
        self._desk = Desk(images, slots, scribes)
        self._pools = {pool: self.cluster.open_ioctx(pool) for pool, _ in images}
        self._open = [self.rbd.Image(self._pools[pool], name) for pool, name in images]
        if cached:
            for image in self._open:
                image.flush()

    def leave_desk(self) -> None:
        for image in self._open:
            image.close()

    def write_records(self, scribe: int, first: int, until: str) -> int:
        """From number `first`, until there is a file of that name; the number of the next. One byte goes to the records
        when one is begun, and one when it is acknowledged."""
        stop = Path(until)
        for number in itertools.count(first):
            if stop.exists():
                return number
            image, offset = self._desk.place(scribe, number)
            os.write(self.records, b"b")
            self._open[image].write(record(scribe, number), offset)
            os.write(self.records, b"d")
        raise AssertionError

    def group(self, pool: str, name: str, method: str, *arguments: Any) -> Any:
        with self.cluster.open_ioctx(pool) as ioctx:
            found = getattr(self.rbd.Group(ioctx, name), method)(*arguments)
            return list(found) if method.startswith("list") else found

    def contents(self, images: list[tuple[str, str, int | None]]) -> list[bytes]:
        """Of images, each at the snapshot of this id."""
        found = []
        for pool, name, snap in images:
            with self.cluster.open_ioctx(pool) as ioctx, self.rbd.Image(ioctx, name, read_only=True) as image:
                if snap is not None:
                    image.set_snap_by_id(snap)  # to open it so is the death of the binding of 16
                found.append(image.read(0, image.size()))
        return found
