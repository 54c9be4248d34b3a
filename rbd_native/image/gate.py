"""The gate every write passes: it can be closed while something happens that no write may overlap.

Writes that are under way are counted by epoch. A flush begins a new epoch and waits for the older ones: writes that
come after it do not hold it up. Closing keeps new writes out, and ends when those inside have left.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from rbd_native.engine import PENDING, Resume, Suspension


class WriteGate:
    """Open at first. Closings nest: the gate opens when each has been undone."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._epoch = 0
        self._inside: dict[int, int] = {}
        self._closings = 0
        self._outside: deque[Resume] = deque()
        self._flushes: list[tuple[int, Resume]] = []

    async def enter(self) -> int:
        """The epoch to :meth:`leave` with. Waits while the gate is closed."""
        epoch = self._try_enter()
        while epoch is None:
            await _Opening(self)
            epoch = self._try_enter()
        return epoch

    def _try_enter(self) -> int | None:
        with self._guard:
            if self._closings:
                return None
            epoch = self._epoch
            self._inside[epoch] = self._inside.get(epoch, 0) + 1
            return epoch

    def leave(self, epoch: int) -> None:
        with self._guard:
            left = self._inside[epoch] - 1
            if left:
                self._inside[epoch] = left
                return
            del self._inside[epoch]
            done = self._settled()
        for resume in done:
            resume(None)

    def _settled(self) -> list[Resume]:
        oldest = min(self._inside, default=self._epoch)
        done = [resume for epoch, resume in self._flushes if epoch < oldest]
        self._flushes = [item for item in self._flushes if item[0] >= oldest]
        return done

    async def flush(self) -> None:
        """Wait for every write that has entered by now."""
        await _Flush(self)

    async def close(self) -> None:
        """Keep new writes out, and wait for those inside."""
        with self._guard:
            self._closings += 1
        await _Flush(self)

    def open(self) -> None:
        """Undo one :meth:`close`."""
        with self._guard:
            self._closings -= 1
            if self._closings:
                return
            waiting, self._outside = self._outside, deque()
        for resume in waiting:
            resume(None)

    def _begin_flush(self, resume: Resume) -> Any:
        with self._guard:
            if not self._inside:
                return None
            self._flushes.append((self._epoch, resume))
            self._epoch += 1
        return PENDING

    def _wait_outside(self, resume: Resume) -> Any:
        with self._guard:
            if not self._closings:
                return None
            self._outside.append(resume)
        return PENDING


class _Flush(Suspension):
    __slots__ = ("_gate",)

    def __init__(self, gate: WriteGate) -> None:
        self._gate = gate

    def start(self, resume: Resume) -> Any:
        return self._gate._begin_flush(resume)


class _Opening(_Flush):
    __slots__ = ()

    def start(self, resume: Resume) -> Any:
        return self._gate._wait_outside(resume)
