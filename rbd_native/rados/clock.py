"""The passing of time, as something a coroutine can wait for: one thread serves every sleeper of the process."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

from rbd_native.engine import PENDING, Resume, Suspension
from rbd_native.native import threading, time


class Sleep(Suspension):
    """Awaiting it takes `seconds`. Whoever is woken runs in the clock's thread, and may not block it."""

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def block(self) -> Any:
        time.sleep(self._seconds)

    def start(self, resume: Resume) -> Any:
        _clock.wake(time.monotonic() + self._seconds, resume)
        return PENDING


class _Clock:
    """Sleepers by the moment at which they wake. The thread ends when nobody sleeps, and is started again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sleepers: list[tuple[float, int, Resume]] = []
        self._number = itertools.count()
        self._running = False

    def wake(self, moment: float, resume: Resume) -> None:
        with self._changed:
            heapq.heappush(self._sleepers, (moment, next(self._number), resume))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="rbd_native clock", daemon=True).start()
            self._changed.notify()

    def _run(self) -> None:
        while (resume := self._next()) is not None:
            resume(None)

    def _next(self) -> Resume | None:
        with self._changed:
            while self._sleepers:
                wait = self._sleepers[0][0] - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._sleepers)[2]
                self._changed.wait(wait)
            self._running = False
            return None


_clock = _Clock()
