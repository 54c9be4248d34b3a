"""Coroutines driven by completions: one `async def` of a verb serves the blocking, the callback and the asyncio face.

What a coroutine awaits at the bottom is a :class:`Suspension`: something that can be started with a callback, or waited
for in this thread. Three drivers exist:

- :func:`run` drives a coroutine in the calling thread and blocks it (the blocking face). A lone operation is waited for
  in this thread, which saves the hop through the completion thread.
- :class:`Task` resumes a coroutine straight from the completion callback, in whichever thread that comes (the callback
  face, and every branch of a :func:`gather`).
- :func:`as_future` hands a Task's outcome to asyncio.

The engine owns no thread and no clock. Coroutines must never block: between two awaits they may run in the completion
thread of librados. Locks that are held across an await are those of this module, never `threading`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Hashable,
    Iterable,
    Iterator,
)
from functools import partial
from typing import Any, Final, Generic, TypeVar

from rbd_native.callbacks import acquire
from rbd_native.interrupts import DEFERRED
from rbd_native.native import threading

__all__ = [
    "PENDING",
    "Driven",
    "Failure",
    "First",
    "KeyedMutex",
    "Mutex",
    "Semaphore",
    "Signal",
    "Suspension",
    "Task",
    "Waiting",
    "as_future",
    "for_each",
    "gather",
    "may_block",
    "run",
    "spawn",
]

log = logging.getLogger(__name__)

T = TypeVar("T")
Resume = Callable[[Any], None]


class _Pending:
    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()
"""What :meth:`Suspension.start` returns when the result will come through the callback."""


class Suspension:
    """Something a coroutine waits for. Awaiting it gives the value that the driver sends back."""

    __slots__ = ()

    def start(self, resume: Resume) -> Any:
        """Begin. Return the result, or return PENDING and call `resume(result)` once, later, in any thread.

        A result that is at hand is returned, never passed to `resume` from inside `start`: so drivers loop, not recurse.
        A result that is a :class:`Failure` is raised where it is awaited; so is what `start` itself raises.
        """
        raise NotImplementedError

    def block(self) -> Any:
        """Begin, wait in this thread, and return the result."""
        gate = threading.Lock()
        gate.acquire()
        box: list[Any] = []

        def resume(value: Any) -> None:
            box.append(value)
            gate.release()

        value = self.start(resume)
        if value is not PENDING:
            return value
        acquire(gate)
        return box[0]

    def __await__(self) -> Generator[Suspension, Any, Any]:
        return (yield self)


class Waiting(Suspension):
    """A wait that `begin` begins: it is called with what resumes the waiter, and gives the value that there is already, or
    PENDING."""

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[Resume], Any]) -> None:
        self._begin = begin

    def start(self, resume: Resume) -> Any:
        return self._begin(resume)


class Failure:
    """An outcome that is an exception: whoever drives the awaiting coroutine raises it there."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive `coroutine` to its end in this thread, and return its result or raise its exception.

    What a handler of a signal raises meanwhile is raised at the end, in place of either: what was begun is never abandoned.
    """
    try:
        with DEFERRED:
            return _driven(coroutine)
    finally:
        coroutine.close()  # one that an interrupt kept from beginning is not one that somebody forgot


def _driven(coroutine: Coroutine[Any, Any, T]) -> T:
    send, throw = coroutine.send, coroutine.throw
    try:
        waiting = send(None)
        while True:
            try:
                value = waiting.block()
            except BaseException as error:  # what cannot begin fails where it is awaited
                waiting = throw(error)
            else:
                waiting = throw(value.error) if type(value) is Failure else send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


class Driven:
    """A coroutine that runs by itself, resumed by its completions. A subclass says what becomes of its outcome."""

    __slots__ = ("_coroutine", "_step")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._step = self._resume  # bound once: this is the callback of every operation

    def _finish(self, outcome: Any) -> None:
        """Called once, in the thread in which the end comes: from :meth:`_resume` itself, maybe."""
        raise NotImplementedError

    def _end(self, outcome: Any) -> None:
        # Out of the cycle with its own bound method: the outcome, maybe megabytes, goes with the last who holds it, not
        # with the next run of the collector.
        del self._step
        self._finish(outcome)

    def _resume(self, value: Any) -> None:
        send, throw, step = self._coroutine.send, self._coroutine.throw, self._step
        try:
            while value is not PENDING:
                waiting = throw(value.error) if type(value) is Failure else send(value)
                try:
                    value = waiting.start(step)
                except BaseException as error:  # what cannot begin fails where it is awaited, like what fails later
                    value = Failure(error)
            return
        except StopIteration as stop:
            outcome = stop.value
        except BaseException as error:
            outcome = Failure(error)
        self._end(outcome)  # out here: what it leads to raises nothing "during handling of" the end


class Task(Driven, Suspension, Generic[T]):
    """A coroutine that runs by itself. Awaiting the task gives its outcome."""

    __slots__ = ("_guard", "_outcome", "_waiters")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__(coroutine)
        self._guard = threading.Lock()
        self._outcome: Any = PENDING
        self._waiters: list[Resume] = []

    def launch(self) -> Task[T]:
        """Run up to the first wait that is not over at once."""
        self._resume(None)
        return self

    @property
    def finished(self) -> bool:
        return self._outcome is not PENDING

    def result(self) -> T:
        """The outcome of a finished task; raises what the coroutine raised."""
        outcome: T = _unwrap(self._outcome)
        return outcome

    def _finish(self, outcome: Any) -> None:
        with self._guard:
            self._outcome = outcome
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter(outcome)

    def start(self, resume: Resume) -> Any:
        with self._guard:  # one look: an outcome that came between two would be delivered twice
            if self._outcome is PENDING:
                self._waiters.append(resume)
            return self._outcome

    def __await__(self) -> Generator[Suspension, Any, T]:
        outcome: T = yield self
        return outcome


def spawn(coroutine: Coroutine[Any, Any, Any], what: str) -> None:
    """Run it by itself; nobody waits for it, so what it raises is logged, as `what`."""

    def report(outcome: Any) -> None:
        if type(outcome) is Failure:
            log.error("%s failed", what, exc_info=outcome.error)

    task = Task(coroutine).launch()
    outcome = task.start(report)
    if outcome is not PENDING:
        report(outcome)


def _unwrap(outcome: Any) -> Any:
    if type(outcome) is Failure:
        raise outcome.error
    return outcome


def as_future(coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Drive `coroutine` by completions and hand its outcome to the running asyncio loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Any) -> None:
        if future.cancelled():
            return
        if type(outcome) is Failure:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome)

    task = Task(coroutine).launch()
    outcome = task.start(lambda outcome: _post(loop, settle, outcome))
    if outcome is not PENDING:
        settle(outcome)
    return future


def _post(loop: asyncio.AbstractEventLoop, settle: Resume, outcome: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle, outcome)


class _Branch(Driven):
    """One of many: begins at once, and hands its outcome over."""

    __slots__ = ("_ended",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any], ended: Resume) -> None:
        super().__init__(coroutine)
        self._ended = ended
        self._resume(None)

    def _finish(self, outcome: Any) -> None:
        self._ended(outcome)


class _FanOut(Suspension):
    """Runs many coroutines with at most `limit` under way; ends after all, or after those under way when one fails."""

    __slots__ = ("_busy", "_error", "_guard", "_limit", "_pumping", "_resume", "_source")

    def __init__(self, source: Iterator[Coroutine[Any, Any, Any]], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._guard = threading.Lock()
        self._busy = 0
        self._error: BaseException | None = None
        self._pumping = False
        self._resume: Resume | None = None

    def start(self, resume: Resume) -> Any:
        self._pump()
        with self._guard:
            if self._busy or self._pumping:
                self._resume = resume
                return PENDING
        return self._error

    def _pump(self, ended: Any = PENDING) -> None:
        # One thread at a time draws from the source: a completion that comes meanwhile only lowers the count,
        # and the pumping thread sees it in its next round. Lowering the count and taking over the pump are one
        # step: in between, `start` would find nothing under way and take that for the end.
        with self._guard:
            self._account(ended)
            if self._pumping:
                return
            self._pumping = True
            ended = PENDING
        while True:
            with self._guard:
                self._account(ended)
                if self._busy >= self._limit or (coroutine := self._draw()) is None:
                    self._pumping = False
                    over = not self._busy
                    resume, self._resume = (self._resume, None) if over else (None, self._resume)
                    break
                self._busy += 1
            ended = PENDING
            _Branch(coroutine, self._pump)
        if resume is not None:
            resume(self._error)

    def _draw(self) -> Coroutine[Any, Any, Any] | None:
        if self._error is not None:
            return None
        try:
            return next(self._source, None)
        except BaseException as error:
            self._error = error
            return None

    def _account(self, ended: Any) -> None:
        if ended is PENDING:
            return
        self._busy -= 1
        if type(ended) is Failure and self._error is None:
            self._error = ended.error


async def for_each(coroutines: Iterable[Coroutine[Any, Any, Any]], limit: int) -> None:
    """Run them all, `limit` (> 0) at a time, drawing from the iterable only as places come free.

    After the first failure no more are started; once those under way have ended, that failure is raised.
    """
    if limit < 1:
        raise ValueError(f"a limit of {limit}")
    error = await _FanOut(iter(coroutines), limit)
    if error is not None:
        _close(coroutines)
        raise error


def _close(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Those of a collection that never began are not ones that somebody forgot to await."""
    if isinstance(coroutines, Collection):
        for coroutine in coroutines:
            coroutine.close()


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]], limit: int) -> list[T]:
    """The results of all, in order; otherwise like :func:`for_each`."""
    results: list[Any] = []

    async def keep(place: int, coroutine: Coroutine[Any, Any, T]) -> None:
        results[place] = await coroutine

    def numbered() -> Iterator[Coroutine[Any, Any, None]]:
        for place, coroutine in enumerate(coroutines):
            results.append(None)
            yield keep(place, coroutine)

    try:
        await for_each(numbered(), limit)
    except BaseException:
        _close(coroutines)
        raise
    return results


class Semaphore:
    """`async with semaphore:` lets at most `places` coroutines in, in the order in which they came."""

    def __init__(self, places: int) -> None:
        self._guard = threading.Lock()
        self._free = places
        self._queue: deque[Resume] = deque()

    async def __aenter__(self) -> None:
        await Waiting(self._enter)

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    def _enter(self, resume: Resume) -> Any:
        with self._guard:
            if not self._free:
                self._queue.append(resume)
                return PENDING
            self._free -= 1
        return None

    def _leave(self) -> None:
        with self._guard:
            if not self._queue:
                self._free += 1
                return
            resume = self._queue.popleft()
        _hand_over(resume, None)


class _Handover(threading.local):
    """Who is to be resumed next in this thread: a chain of holders is a loop here, not a recursion."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Resume, Any]] = deque()
        self.running = False


_handover = _Handover()


def _hand_over(resume: Resume, value: Any) -> None:
    _handover.queue.append((resume, value))
    if _handover.running:
        return
    _handover.running = True
    try:
        while _handover.queue:
            resume, value = _handover.queue.popleft()
            resume(value)
    finally:
        _handover.running = False


def may_block() -> bool:
    """Whether this thread may wait: it is no thread that completions come in, and not in the middle of waking somebody."""
    return not threading.current_thread().daemon and not _handover.running


class Mutex(Semaphore):
    """A lock that may be held across awaits."""

    def __init__(self) -> None:
        super().__init__(1)


class KeyedMutex:
    """A lock for each of many keys; one takes room only while it is held."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[Resume]] = {}

    def enter(self, key: Hashable) -> Suspension:
        """Awaiting it takes the key's lock: to be given back with :meth:`leave`."""
        return Waiting(partial(self._enter, key))

    def leave(self, key: Hashable) -> None:
        with self._guard:
            queue = self._queues[key]
            if not queue:
                del self._queues[key]
                return
            resume = queue.popleft()
        _hand_over(resume, None)

    def _enter(self, key: Hashable, resume: Resume) -> Any:
        with self._guard:
            queue = self._queues.get(key)
            if queue is not None:
                queue.append(resume)
                return PENDING
            self._queues[key] = deque()
        return None


class Signal:
    """Something that happens once, or again after :meth:`clear`: many may wait for it, and learn its value."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._value: Any = PENDING
        self._waiters: list[Resume] = []

    def set(self, value: Any = None) -> None:
        """Wake everybody who waits. The first value stands until it is cleared."""
        with self._guard:
            if self._value is not PENDING:
                return
            self._value = value
            waiters, self._waiters = self._waiters, []
        for resume in waiters:
            _hand_over(resume, value)

    def clear(self) -> None:
        with self._guard:
            self._value = PENDING

    def wait(self) -> Suspension:
        """Awaiting it gives the value."""
        return Waiting(self._begin)

    def _begin(self, resume: Resume) -> Any:
        with self._guard:
            if self._value is PENDING:
                self._waiters.append(resume)
            return self._value


class First(Suspension):
    """Whichever of several comes first: awaiting it gives its place and value, or raises its failure.

    The others go on, unheard.
    """

    __slots__ = ("_candidates",)

    def __init__(self, *candidates: Suspension) -> None:
        self._candidates = candidates

    def start(self, resume: Resume) -> Any:
        guard = threading.Lock()  # held by whoever comes first, for ever

        def contender(place: int) -> Resume:
            def arrive(value: Any) -> None:
                if guard.acquire(blocking=False):
                    resume(value if type(value) is Failure else (place, value))

            return arrive

        for place, candidate in enumerate(self._candidates):
            value = candidate.start(contender(place))
            if value is not PENDING and guard.acquire(blocking=False):
                return value if type(value) is Failure else (place, value)
        return PENDING


async def collect(source: AsyncIterator[T]) -> list[T]:
    """All items of a paged listing."""
    return [item async for item in source]


def awaited(value: Awaitable[T]) -> Coroutine[Any, Any, T]:
    """A coroutine around anything awaitable, for the drivers, which take coroutines."""

    async def wait() -> T:
        return await value

    return wait()
