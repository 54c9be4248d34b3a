"""How it is measured: what is done again and again for a given time; its rate, and the processor time each took.

The time ends when the last operation, and a flush, have ended: nobody gains by deferring work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.subjects import Disk

Begin = Callable[[Callable[[int], None]], None]
"""Begins an operation, and calls back with its return value."""


class Failed(Exception):
    """An operation gave an error; measuring on would be meaningless."""


class Figure(NamedTuple):
    """`rate`: operations per second. `cpu`: microseconds of processor time of this process, all threads, for each."""

    rate: float
    cpu: float


class Clock:
    """Counts what is done within its `with` blocks."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._passed = self._cpu = 0.0

    def __enter__(self) -> None:
        self._began, self._began_cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *exc: object) -> None:
        self._passed += time.perf_counter() - self._began
        self._cpu += time.process_time() - self._began_cpu

    @property
    def over(self) -> bool:
        return self._passed >= self._seconds

    def figure(self, number: int) -> Figure:
        return Figure(number / self._passed, self._cpu / number * 1e6)


def again(seconds: float, step: Callable[[], None], most: int = 1 << 30) -> Figure:
    """One after the other, but not more than so many."""
    clock, number = Clock(seconds), 0
    while not clock.over and number < most:
        with clock:
            step()
        number += 1
    return clock.figure(number)


def keep_under_way(disk: Disk, plan: Iterator[Begin], depth: int, seconds: float) -> Figure:
    """`depth` operations always under way, for a time or until the plan ends."""
    places = threading.Semaphore(depth)
    errors: list[int] = []

    def done(result: int) -> None:
        if result < 0:
            errors.append(result)
        places.release()

    clock, number = Clock(seconds), 0
    with clock:
        until = time.perf_counter() + seconds
        for begin in plan:
            places.acquire()
            begin(done)
            number += 1
            if errors or time.perf_counter() >= until:
                break
        for _ in range(depth):
            places.acquire()
        disk.flush()
    if errors:
        raise Failed(f"errno {-errors[0]}")
    return clock.figure(number)
