"""Who is under way, and the gate that keeps writes out while something happens that none may overlap.

Those under way are counted by epoch. A flush begins a new epoch and waits for the older ones: who comes after it does not
hold it up. Closing a gate keeps newcomers out, and ends when those inside have left.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from rbd_native.engine import PENDING, Resume, Suspension, Waiting
from rbd_native.native import threading


class UnderWay:
    """Counts what has begun and not ended."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._epoch = 0
        self._inside = 0
        """In this epoch."""
        self._before: dict[int, int] = {}
        """In older ones, where anybody is left."""
        self._flushes: list[tuple[int, Resume]] = []

    def count(self) -> int:
        """One more; the epoch to :meth:`leave` with."""
        with self._guard:
            self._inside += 1
            return self._epoch

    def leave(self, epoch: int) -> None:
        with self._guard:
            if epoch == self._epoch:  # which no flush waits for
                self._inside -= 1
                return
            done = self._left(epoch)
        for resume in done:
            resume(None)

    def _left(self, epoch: int) -> list[Resume]:
        """Those who need wait no longer."""
        self._before[epoch] -= 1
        if self._before[epoch]:
            return []
        del self._before[epoch]
        oldest = min(self._before, default=self._epoch)
        done = [resume for epoch, resume in self._flushes if epoch < oldest]
        self._flushes = [item for item in self._flushes if item[0] >= oldest]
        return done

    def share(self, epoch: int) -> int:
        """One more in the epoch of somebody who is inside; that epoch."""
        with self._guard:
            if epoch == self._epoch:
                self._inside += 1
            else:
                self._before[epoch] += 1
        return epoch

    @property
    def epoch(self) -> int:
        """That in which what begins now is counted; a flush that begins now waits for it, and for all before."""
        return self._epoch

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._inside or self._before)

    async def flush(self) -> None:
        """Wait for all that has begun by now."""
        await Waiting(self._begin_flush)

    def _begin_flush(self, resume: Resume) -> Any:
        with self._guard:
            if self._inside:
                self._before[self._epoch] = self._inside
                self._inside = 0
            elif not self._before:
                return None
            self._flushes.append((self._epoch, resume))
            self._epoch += 1
        return PENDING


class WriteGate(UnderWay):
    """Open at first. Closings nest: the gate opens when each has been undone."""

    def __init__(self) -> None:
        super().__init__()
        self._closings = 0
        self._outside: deque[Resume] = deque()
        self._told: list[Callable[[], None]] = []

    async def enter(self) -> int:
        """The epoch to :meth:`leave` with. Waits while the gate is closed."""
        while (epoch := self.try_enter()) is None:
            await Waiting(self._wait_outside)
        return epoch

    def try_enter(self) -> int | None:
        """The same at once; None while it is closed."""
        with self._guard:
            if self._closings:
                return None
            self._inside += 1
            return self._epoch

    @contextlib.asynccontextmanager
    async def shut(self) -> AsyncIterator[None]:
        """Keep newcomers out, wait for those inside, and open it again at the end of the block."""
        closing = self.close()
        try:
            await closing
            yield
        finally:
            self.open()

    def close(self) -> Suspension:
        """Keep newcomers out, from now on. Awaiting what it gives waits for those inside."""
        with self._guard:
            self._closings += 1
        self._tell()
        return Waiting(self._begin_flush)

    @property
    def closing(self) -> bool:
        """It is closed, or somebody waits until all inside have left."""
        return self._closings > 0

    def tell(self, told: Callable[[], None]) -> None:
        """What is to be called whenever it closes, before those inside are waited for, and when it opens."""
        self._told.append(told)

    def _tell(self) -> None:
        for told in self._told:
            told()

    def open(self) -> None:
        """Undo one :meth:`close`."""
        self._tell()
        with self._guard:
            self._closings -= 1
            if self._closings:
                return
            waiting, self._outside = self._outside, deque()
        for resume in waiting:
            resume(None)

    def _wait_outside(self, resume: Resume) -> Any:
        with self._guard:
            if not self._closings:
                return None
            self._outside.append(resume)
        return PENDING
