"""A script that fails, made shorter: parts of it are left out as long as it fails in the same way."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz.world import Step

Fails = Callable[[list[Step]], bool]


class Shortener:
    """fails: whether a script fails as the first one did. tries: how often one that does not is run again. seconds: for all
    of it."""

    def __init__(self, fails: Fails, *, tries: int = 1, seconds: float = 120.0) -> None:
        self._fails = fails
        self.tries = tries
        self.deadline = time.monotonic() + seconds
        self.runs = 0

    def fails(self, steps: list[Step]) -> bool:
        for _ in range(self.tries):
            if time.monotonic() > self.deadline:
                return False
            self.runs += 1
            if self._fails(steps):
                return True
        return False

    def shorten(self, steps: list[Step]) -> list[Step]:
        steps = self._chunks(steps)
        return self._inside(steps)

    def _chunks(self, steps: list[Step]) -> list[Step]:
        """By halves, quarters and so on; later steps first, since what fails is at the end."""
        size = max(len(steps) // 2, 1)
        while True:
            stop = len(steps)
            while stop > 0:
                start = max(stop - size, 0)
                less = steps[:start] + steps[stop:]
                if less and self.fails(less):
                    steps = less
                stop = start
            if size == 1:
                return steps
            size = max(size // 2, 1)

    def _inside(self, steps: list[Step]) -> list[Step]:
        """Single calls and lanes of what is done at the same time."""
        again = True
        while again and time.monotonic() < self.deadline:
            again = False
            for less in self._smaller(steps):
                if self.fails(less):
                    steps, again = less, True
                    break
        return steps

    @staticmethod
    def _smaller(steps: list[Step]) -> Iterator[list[Step]]:
        for place, step in enumerate(steps):
            lanes: list[list[Any]] = step.get("lanes", [])
            if sum(map(len, lanes)) < 2:
                continue
            for one in range(len(lanes)):
                for many in {len(lanes[one]), (len(lanes[one]) + 1) // 2, 1}:
                    for start in range(0, len(lanes[one]), many):
                        less = copy.deepcopy(step)
                        del less["lanes"][one][start : start + many]
                        less["lanes"] = [lane for lane in less["lanes"] if lane]
                        if less["lanes"]:
                            yield [*steps[:place], less, *steps[place + 1 :]]
