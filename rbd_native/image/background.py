"""What a handle does by itself, with nobody waiting for it: notices to other clients, recovery of the watch, time stamps.

All of it is counted, so that a handle that is closed has nothing under way.
"""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from typing import Any

from rbd_native.engine import First, Signal, Suspension, Task, spawn
from rbd_native.image.gate import UnderWay
from rbd_native.rados.port import RadosError


class Background:
    """Of one open image."""

    def __init__(self) -> None:
        self._under_way = UnderWay()
        self._closing = Signal()
        self.closing = False
        """Whether the handle is being closed."""

    def spawn(self, coroutine: Coroutine[Any, Any, Any], what: str) -> None:
        """Run it by itself. What it raises is logged, as `what`, but for what a client meets that was fenced: it hears of
        that from every call."""
        spawn(self._quietly(coroutine), what)

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> Task[Any]:
        """Run it by itself; who wants to waits for the task."""
        return Task(self._counted(coroutine)).launch()

    async def _quietly(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await self._counted(coroutine)
        except RadosError as error:
            if error.errno != errno.ESHUTDOWN:
                raise

    async def _counted(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        epoch = self._under_way.count()
        try:
            return await coroutine
        finally:
            self._under_way.leave(epoch)

    async def sleep(self, timer: Suspension) -> None:
        """Wait for a timer, but not while the handle is being closed."""
        await First(self._closing.wait(), timer)

    def hurry(self) -> None:
        """The handle is being closed: nothing sleeps any more."""
        self.closing = True
        self._closing.set()

    async def end(self) -> None:
        """Wait until nothing is under way, also what was begun meanwhile."""
        self.hurry()
        while self._under_way.busy:
            await self._under_way.flush()
