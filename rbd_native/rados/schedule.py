"""A schedule of one's own: any interleaving of several clients, and the same one again.

    schedule = Schedule(seed=7)
    results = schedule.run(first(wrap(io, schedule)), second(wrap(other, schedule)))

Over an embedded cluster, where operations are done as they are started, the seed alone decides what happens in which order.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any

from rbd_native.engine import PENDING, Failure, Resume, Suspension, Task
from rbd_native.native import threading
from rbd_native.rados.port import Call, Operation
from rbd_native.rados.wrapper import Interceptor, Request


class Deadlock(Exception):
    """Every client of a schedule waits, and nothing is under way that could wake one."""


class Schedule(Interceptor):
    """Whose request is done next, and whose answer is delivered next, is drawn from a seeded generator.

    Any number of clients may share a schedule. Only what they await in tasks is scheduled; a blocking call passes. `now`
    is the time, in seconds: it moves on to the next sleeper when there is nothing else to do. Where nobody sleeps either,
    `patience` is how many seconds of real time there are for somebody else's thread to wake a client.
    """

    def __init__(self, seed: int, patience: float = 1.0) -> None:
        self.now = 0.0
        self._patience = patience
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._ready: list[Callable[[], None]] = []
        self._under_way = 0
        self._unfinished = 0
        self._sleepers: list[tuple[float, int, Resume]] = []
        self._numbers = itertools.count()

    def operation(self, request: Request, inner: Operation) -> Operation:
        return _ScheduledOperation(self, request, inner)

    def call(self, request: Request, inner: Call) -> Call:
        return _ScheduledCall(self, inner)

    def sleep(self, seconds: float, inner: Suspension) -> Suspension:
        return _ScheduledSleep(self, seconds)

    def run(self, *clients: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run all to their ends: what each returned, or the exception it raised. Deadlock if they cannot get there."""
        with self._changed:
            self._unfinished += len(clients)
        tasks = [self._launched(client) for client in clients]
        while not all(task.finished for task in tasks):
            happen = self._next()
            if happen is not None:
                happen()
        return [_outcome(task) for task in tasks]

    def _launched(self, client: Coroutine[Any, Any, Any]) -> Task[Any]:
        async def counted() -> Any:
            try:
                return await client
            finally:
                with self._changed:
                    self._unfinished -= 1
                    self._changed.notify()

        return Task(counted()).launch()

    def _next(self) -> Callable[[], None] | None:
        """What is to happen next; None where it has happened elsewhere."""
        with self._changed:
            while not self._ready and self._under_way:
                self._changed.wait()
            if self._ready:
                return self._ready.pop(self._random.randrange(len(self._ready)))
            if self._sleepers:
                self.now, _, resume = heapq.heappop(self._sleepers)
                return _delivery(resume, None)
            if self._unfinished and not self._changed.wait(self._patience):
                raise Deadlock
            return None

    def put_off(self, inner: Suspension, resume: Resume) -> None:
        """Begin `inner` later, and `resume` with its result later still."""

        def landed(result: Any) -> None:
            with self._changed:
                self._under_way -= 1
                self._ready.append(_delivery(resume, result))
                self._changed.notify()

        def begin() -> None:
            with self._changed:
                self._under_way += 1
            try:
                result = inner.start(landed)
            except Exception as error:
                result = Failure(error)
            if result is not PENDING:
                landed(result)

        with self._changed:
            self._ready.append(begin)
            self._changed.notify()

    def wake(self, seconds: float, resume: Resume) -> None:
        with self._changed:
            heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), resume))
            self._changed.notify()


def _delivery(resume: Resume, result: Any) -> Callable[[], None]:
    return lambda: resume(result)


def _outcome(task: Task[Any]) -> Any:
    try:
        return task.result()
    except Exception as error:
        return error


class _ScheduledOperation(Operation):
    __slots__ = ("_inner", "_schedule")

    def __init__(self, schedule: Schedule, request: Request, inner: Operation) -> None:
        super().__init__(request.oid)
        self._schedule = schedule
        self._inner = inner

    def start(self, resume: Resume) -> Any:
        self._schedule.put_off(self._inner, resume)
        return PENDING

    def block(self) -> Any:
        return self._inner.block()


class _ScheduledCall(Call):
    __slots__ = ("_inner", "_schedule", "what")

    def __init__(self, schedule: Schedule, inner: Call) -> None:
        self._schedule = schedule
        self._inner = inner
        self.what = inner.what

    def start(self, resume: Resume) -> Any:
        self._schedule.put_off(self._inner, resume)
        return PENDING

    def block(self) -> Any:
        return self._inner.block()


class _ScheduledSleep(Suspension):
    __slots__ = ("_schedule", "_seconds")

    def __init__(self, schedule: Schedule, seconds: float) -> None:
        self._schedule = schedule
        self._seconds = seconds

    def start(self, resume: Resume) -> Any:
        self._schedule.wake(self._seconds, resume)
        return PENDING

    def block(self) -> Any:
        self._schedule.now += self._seconds
