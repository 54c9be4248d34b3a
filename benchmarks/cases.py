"""The cases: each gives the rate of one subject, in operations per second."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks import measure
from benchmarks.subjects import SPARSE_OBJECTS, Disk, Subject

MANAGED = 20  # images created, then removed, in a round
EMPTY_SIZE = 64 << 20


@dataclass
class Bench:
    """A subject with its image of `size` bytes open and full; `seconds` is the time for one case in one round."""

    subject: Subject
    size: int
    seconds: float
    image: str = "bench"
    disk: Disk = field(init=False)

    def __post_init__(self) -> None:
        self.disk = measure.prepare(self.subject, self.image, self.size)

    def close(self) -> None:
        self.disk.close()
        self.subject.close()


Case = Callable[[Bench], float]


def open_and_close(bench: Bench) -> float:
    opened, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < bench.seconds:
        bench.subject.disk(bench.image).close()
        opened += 1
    return opened / passed


def _each(names: list[str], call: Callable[[str], None]) -> float:
    began = time.perf_counter()
    for name in names:
        call(name)
    return len(names) / (time.perf_counter() - began)


def _names() -> list[str]:
    return [f"new-{number}" for number in range(MANAGED)]


def create(bench: Bench) -> float:
    """The images stay for `remove`, the next case."""
    return _each(_names(), lambda name: bench.subject.create(name, EMPTY_SIZE))


def remove(bench: Bench) -> float:
    return _each(_names(), bench.subject.remove)


def whole_object_diffs(bench: Bench) -> float:
    if bench.subject.diff() != SPARSE_OBJECTS:  # the first one, which also makes the image, does not count
        raise measure.Failed("the diff does not tell what was written")
    told, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < bench.seconds:
        bench.subject.diff()
        told += 1
    return told / passed


def small_reads(bench: Bench) -> float:
    plan = measure.at_random(bench.disk, bench.size, seed=random.randrange(1 << 30))
    return measure.keep_under_way(bench.disk, plan, seconds=bench.seconds)


def small_writes(bench: Bench) -> float:
    plan = measure.at_random(bench.disk, bench.size, random.randbytes(measure.SMALL), random.randrange(1 << 30))
    return measure.keep_under_way(bench.disk, plan, seconds=bench.seconds)


def large_reads(bench: Bench) -> float:
    return measure.keep_under_way(bench.disk, measure.sequential(bench.disk, bench.size), seconds=bench.seconds)


def large_writes(bench: Bench) -> float:
    plan = measure.sequential(bench.disk, bench.size, random.randbytes(measure.LARGE))
    return measure.keep_under_way(bench.disk, plan, seconds=bench.seconds)


# In the order in which they are run; the first ones are about images, the others about their data.
IMAGE_CASES: dict[str, Case] = {
    "open + close": open_and_close,
    "create": create,
    "remove": remove,
    "diff of 1 TiB, by objects": whole_object_diffs,
}
DATA_CASES: dict[str, Case] = {
    "4 KiB random read": small_reads,
    "4 KiB random write": small_writes,
    "4 MiB sequential read": large_reads,
    "4 MiB sequential write": large_writes,
}
