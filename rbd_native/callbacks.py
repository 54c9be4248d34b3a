"""Where users' callbacks run: one at a time, in a thread of this module's own, in which they may do anything, blocking
calls included.

A thread that brings completions (:class:`Courier`) calls them itself, once it has brought what there was: that saves a
change of thread, which costs as much as all else that an operation needs of Python. But a callback may take long, or wait
for something that only the courier would bring. So a courier that is about to block in a call of ours, or that was seen in
one callback for too long, is relieved: another takes its place, and callbacks have a thread to themselves for a while.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from rbd_native.native import queue, threading

Item = tuple[Callable[[Any], None], Any]


class Lockable(Protocol):
    """A lock or a semaphore of `threading`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...


class Conductor(Protocol):
    """What decides in whose thread, and when, all goes on that blocking calls and users' callbacks wait for."""

    def acquire(self, lock: Lockable, timeout: float | None) -> bool: ...

    def call(self, function: Callable[[Any], None], argument: Any) -> None: ...


conductor: Conductor | None = None
"""Set by tests that choose the order of all that happens (:mod:`rbd_native.rados.schedule`)."""

_LONG: Final = 0.005
"""Seconds that callbacks may keep a courier; after more they are called apart."""
_LOOK: Final = 0.05
"""Seconds between two looks at a courier that calls."""
_APART: Final = 5.0
"""Seconds after which couriers are trusted with callbacks again."""


class Courier:
    """What a thread that brings completions is. It calls `rest` whenever it has brought what there was; `relieve` gets it a
    replacement, and is called once at most, from any thread."""

    def __init__(self, replace: Callable[[], None]) -> None:
        self._replace = replace
        self._guard = threading.Lock()
        self.relieved = False
        self.waiting: deque[Item] = deque()
        _here.courier = self

    def relieve(self) -> None:
        """Have another thread bring what comes from now on. This one may do what it is at, and end."""
        with self._guard:
            if self.relieved:
                return
            self.relieved = True
        self._replace()

    def rest(self) -> None:
        """Call what was left to be called since the last time."""
        if self.waiting:
            _callbacks.run(self)


class _Here(threading.local):
    courier: Courier | None = None


_here = _Here()


def call(function: Callable[[Any], None], argument: Any) -> None:
    """Have it called where users' callbacks run, after those that came before; it must not raise."""
    courier = _here.courier
    if conductor is not None:
        conductor.call(function, argument)
    elif courier is None or courier.relieved:
        _callbacks.put((function, argument))
    else:
        courier.waiting.append((function, argument))


def about_to_block() -> None:
    """This thread will wait for something that a courier may have to bring."""
    courier = _here.courier
    if courier is not None:
        courier.relieve()


def acquire(lock: Lockable, timeout: float | None = None) -> bool:
    """Take a lock that something under way gives back; False where `timeout` seconds have not been enough."""
    if lock.acquire(blocking=False):
        return True
    if conductor is not None:
        return conductor.acquire(lock, timeout)
    about_to_block()
    return lock.acquire(timeout=-1 if timeout is None else timeout)


class _Callbacks:
    """The thread that calls what couriers do not, and looks after one that does."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._begun = False
        self._calling: Courier | None = None
        self._called = self._seen = 0
        self._watched = False
        self._apart_until = 0.0

    def put(self, item: Item | None) -> None:
        self._queue.put(item)
        if not self._begun:
            self._begin()

    def _begin(self) -> None:
        with self._guard:
            if not self._begun:
                self._begun = True
                threading.Thread(target=self._run, name="rbd_native callbacks", daemon=True).start()

    # --- in the courier's thread ---

    def run(self, courier: Courier) -> None:
        """What waits in a courier, here and now, unless another thread is at it or it has to be apart."""
        waiting = courier.waiting
        began = time.monotonic()
        if began < self._apart_until or not self._queue.empty() or not self._turn.acquire(blocking=False):
            self._leave_to_thread(waiting)
            return
        try:
            self._calling = courier
            if not self._watched:
                self._watched = True
                self.put(None)
            while waiting and not courier.relieved:
                function, argument = waiting.popleft()
                function(argument)
                del function, argument  # and what they hold on to, while the courier waits
                self._called += 1
        finally:
            self._calling = None
            self._leave_to_thread(waiting)
            self._turn.release()
        now = time.monotonic()
        if now - began > _LONG:
            self._apart_until = now + _APART

    def _leave_to_thread(self, waiting: deque[Item]) -> None:
        while waiting:
            self.put(waiting.popleft())

    # --- in the thread of its own ---

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=_LOOK if self._watched else None)
            except queue.Empty:
                self._look()
                continue
            if item is None:
                continue
            while not self._turn.acquire(timeout=_LOOK):
                self._look()
            try:
                function, argument = item
                function(argument)
            finally:
                self._turn.release()
                function = argument = item = None  # type: ignore[assignment]  # and what they hold on to, while it waits

    def _look(self) -> None:
        """Relieve a courier that has been in one callback since the last look."""
        calling, seen = self._calling, self._called
        if seen == self._seen:
            if calling is not None:
                self._apart_until = time.monotonic() + _APART
                calling.relieve()
            else:
                self._watched = False
                self._watched = self._calling is not None  # it may have begun just before that
        self._seen = seen


_callbacks = _Callbacks()


def _anew() -> None:
    """A forked child has none of its parent's threads."""
    global _callbacks
    _callbacks = _Callbacks()
    _here.courier = None


os.register_at_fork(after_in_child=_anew)
