"""Cases of reading and writing: of images that are open, and, as their floor, of the objects themselves."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Begin, Clock, Figure, again, keep_under_way
from benchmarks.subjects import NO_COMPRESSION, Disk, Images, Subject

KIB, MIB = 1 << 10, 1 << 20


class Bench:
    """A subject with an image of `size` bytes, open and full; `seconds` is the time for one case in one round."""

    def __init__(self, subject: Subject, size: int, seconds: float, scratch: Path) -> None:
        self.subject, self.size, self.seconds, self.scratch = subject, size, seconds, scratch
        self._numbers = itertools.count(1)
        self.disk = self.new_disk()
        everything = _sequential(self.disk, size, 4 * MIB, write=True)
        keep_under_way(self.disk, itertools.islice(everything, size // (4 * MIB)), 16, float("inf"))

    def name(self) -> str:
        """A new one."""
        return f"bench-{next(self._numbers)}"

    def new_disk(self) -> Disk:
        """Empty, and flushed once: before that, a cache keeps nothing."""
        disk = self.subject.disk(self.name(), self.size)
        disk.flush()
        return disk

    @property
    def images(self) -> Images:
        assert isinstance(self.subject, Images)
        return self.subject

    def close(self) -> None:
        self.disk.close()
        self.subject.close()


Case = Callable[[Bench], Figure]


def _operation(disk: Disk, offset: int, length: int, write: bool) -> Begin:
    if write:
        return partial(disk.submit_write, NO_COMPRESSION[:length], offset)
    return partial(disk.submit_read, offset, length)


def _at_random(disk: Disk, size: int, length: int, write: bool) -> Iterator[Begin]:
    dice = random.Random()
    while True:
        yield _operation(disk, dice.randrange(size // length) * length, length, write)


def _sequential(disk: Disk, size: int, length: int, write: bool) -> Iterator[Begin]:
    for offset in itertools.cycle(range(0, size, length)):
        yield _operation(disk, offset, length, write)


def at_random(bench: Bench, *, length: int, depth: int, write: bool) -> Figure:
    return keep_under_way(bench.disk, _at_random(bench.disk, bench.size, length, write), depth, bench.seconds)


def in_sequence(bench: Bench, *, length: int, depth: int, write: bool) -> Figure:
    return keep_under_way(bench.disk, _sequential(bench.disk, bench.size, length, write), depth, bench.seconds)


def into_buffers(bench: Bench, *, length: int, depth: int) -> Figure:
    """Reads into the same few buffers, again and again; librbd's binding and python-rados have but reads into new ones."""
    rooms = [bytearray(length) for _ in range(depth)]

    def begin(offset: int, done: Callable[[int], None]) -> None:
        room = rooms.pop()

        def ended(result: int) -> None:
            rooms.append(room)
            done(result)

        bench.disk.submit_read_into(offset, room, ended)

    offsets = itertools.cycle(range(0, bench.size, length))
    return keep_under_way(bench.disk, (partial(begin, offset) for offset in offsets), depth, bench.seconds)


def into_new(bench: Bench, *, length: int, depth: int) -> Figure:
    """Every object is written for the first time; the plan ends with the image."""
    disk = bench.new_disk()
    try:
        plan = itertools.islice(_sequential(disk, bench.size, length, write=True), bench.size // length)
        return keep_under_way(disk, plan, depth, bench.seconds)
    finally:
        disk.close()


def one_after_the_other(bench: Bench) -> Figure:
    """4 KiB behind 4 KiB, by calls that block."""
    return _blocking(bench, itertools.cycle(range(0, bench.size, 4 * KIB)), write=True)


def one_at_a_time(bench: Bench, *, write: bool) -> Figure:
    """4 KiB anywhere, by calls that block: how most programs read and write when they do one thing at a time."""
    dice = random.Random()
    return _blocking(bench, (dice.randrange(bench.size // (4 * KIB)) * 4 * KIB for _ in itertools.count()), write=write)


def _blocking(bench: Bench, offsets: Iterator[int], *, write: bool) -> Figure:
    disk, data = bench.disk, NO_COMPRESSION[: 4 * KIB]
    clock, number = Clock(bench.seconds), 0
    with clock:
        until = time.perf_counter() + bench.seconds
        while time.perf_counter() < until:
            if write:
                disk.write(data, next(offsets))
            else:
                disk.read(next(offsets), len(data))
            number += 1
        disk.flush()
    return clock.figure(number)


def _clone(bench: Bench, write: bool) -> Figure:
    """Of an image of objects that all exist; every operation meets another object that the clone does not have."""
    images, parent, child = bench.images, bench.name(), bench.name()
    size = 64 * 4 * MIB
    images.create(parent, size)
    with images.open(parent) as image:
        for offset in range(0, size, 4 * MIB):
            image.write(NO_COMPRESSION[: 64 * KIB], offset)
        image.create_snap("snap")
        image.protect_snap("snap")
    images.rbd.RBD().clone(images.ioctx, parent, "snap", images.ioctx, child)
    with images.open(child) as image:
        image.flush()
        offsets = itertools.cycle(range(0, size, 4 * MIB))

        def step() -> None:
            if write:
                image.write(NO_COMPRESSION[:4096], next(offsets))
            else:
                image.read(next(offsets), 4096)

        figure = again(bench.seconds, step, most=size // (4 * MIB) if write else 1 << 30)
    images.remove(child)
    with images.open(parent) as image:
        image.unprotect_snap("snap")
        image.remove_snap("snap")
    images.remove(parent)
    return figure


def clone_reads(bench: Bench) -> Figure:
    return _clone(bench, write=False)


def clone_first_writes(bench: Bench) -> Figure:
    return _clone(bench, write=True)


BLOCKING: dict[str, Case] = {
    f"4 KiB random {'write' if write else 'read'}, blocking": partial(one_at_a_time, write=write)
    for write in (False, True)
}
RANDOM: dict[str, Case] = {
    f"4 KiB random {'write' if write else 'read'}, depth {depth}": partial(
        at_random, length=4 * KIB, depth=depth, write=write
    )
    for write in (False, True)
    for depth in (1, 16, 64)
}
SEQUENTIAL: dict[str, Case] = {
    f"{name} sequential {'write' if write else 'read'}, depth 16": partial(
        in_sequence, length=length, depth=16, write=write
    )
    for write in (False, True)
    for name, length in (("64 KiB", 64 * KIB), ("4 MiB", 4 * MIB))
}
INTO: dict[str, Case] = {
    "4 MiB sequential read into buffers, depth 16": partial(into_buffers, length=4 * MIB, depth=16)
}
NEW: dict[str, Case] = {
    f"{name} write into new objects, depth 16": partial(into_new, length=length, depth=16)
    for name, length in (("64 KiB", 64 * KIB), ("4 MiB", 4 * MIB))
}
ALSO_ON_RADOS: dict[str, Case] = {**BLOCKING, **RANDOM, **SEQUENTIAL, **INTO, **NEW}
DATA: dict[str, Case] = {**ALSO_ON_RADOS, "4 KiB sequential writes, blocking": one_after_the_other}
CLONES: dict[str, Case] = {"4 KiB read through a clone": clone_reads, "4 KiB first write to a clone": clone_first_writes}
