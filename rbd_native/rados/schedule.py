"""A schedule of one's own: any interleaving of several clients, and the same one again.

    schedule = Schedule(seed=7)
    results = schedule.run(first(wrap(io, schedule)), second(wrap(other, schedule)))

    with schedule.conducting():                      # blocking calls and users' callbacks, too
        image = rbd_native.Image(scheduled_ioctx, "image")
        image.aio_write(b"x", 0, None)
        image.create_snap("s")

Everything that happens is a step: an operation reaches its OSD, an answer reaches its client, a watch hears of a
notification, a user's callback is called, a sleeper wakes. Which step is next is drawn from a seeded generator among those
that may be next. What one client asks of one object is done, and answered, in the order in which it was asked, as RADOS
does it; else there is no order.

There is no thread for this. Whoever waits does the next step himself, until it was what he waited for: in a test with one
thread the seed alone decides. So it does with several, of :meth:`Schedule.begin`: one of them runs at a time, the first of
those that wait does the steps for all, and only when none runs. A thread that waits for something else (an event of its
own, say; seen after `patience_away`) is not waited for. Where nobody waits in a call of ours, a thread in the background
does the steps.

Time is virtual: it moves on to the next sleeper when there is nothing else to do.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

from rbd_native import callbacks
from rbd_native.engine import PENDING, Failure, Resume, Suspension, Task
from rbd_native.native import threading
from rbd_native.rados.port import Call, Operation
from rbd_native.rados.wrapper import Interceptor, Request

_OF_OBJECTS: Final = ("watch", "unwatch", "notify", "rollback")
"""The calls that are operations on an object, and take their turn among those."""
_UNORDERED_ANSWERS: Final = ("notify",)
"""What is answered when others have answered it."""
_LOOK: Final = 0.005
"""Seconds of real time between two looks for what somebody else's thread may have done, where there is nothing to do."""
_GOES_ON: Final = 0.03
"""How probable it is that a step goes on that is held back, while there are others."""
_CALLBACKS: Final = ("callbacks",)


_HELD: Final = 200
"""Steps after which one goes on that is held back by number."""
_OUTLASTED: Final = 1.0
"""Seconds of virtual time for which a step may be held back. What takes three steps, as a notification does, is answered
within the 5 seconds after which a client gives up."""


class Deadlock(Exception):
    """Everybody waits, and nothing is under way that could wake one. The steps before it are the message."""


class Step:
    """What may happen next. Of a lane's steps, only the first may."""

    __slots__ = ("action", "at", "born", "label", "lane", "number", "slow")

    def __init__(self, number: int, lane: Hashable, label: tuple[Any, ...], action: Callable[[], None]) -> None:
        self.number = number
        self.lane = lane
        self.label = label
        self.action = action
        self.born = self.at = 0.0
        self.slow: bool | None = None


class _Waiter:
    """A thread that waits until `check` is true. It is asked again after every step, and not again once it was true."""

    def __init__(self, check: Callable[[], bool], nested: bool) -> None:
        self.check = check
        self.nested = nested
        self.thread = threading.current_thread()
        self.over = False


class _Here(threading.local):
    depth = 0  # of steps that this thread is in the middle of


class Schedule(Interceptor):
    """Any number of clients may share a schedule. `now` is the time, in seconds.

    choices: which of the steps that may be next is taken, the oldest being number 0; the oldest once they are used up. They
    are drawn where none are given; `chosen` is what was drawn.
    held: instead of a seed, the oldest step is always next, but for those of these numbers (`Step.number`): they are held
    back while anything else can happen, sleepers of up to a second included, but not for ever.
    patience: how many seconds of real time there are for somebody else's thread to wake a client, before it is a
    Deadlock. patience_away: after how many a thread that was let go is taken to be busy elsewhere.
    latest: the virtual time after which all waits are a Deadlock.
    """

    def __init__(
        self,
        seed: int | str,
        patience: float = 1.0,
        patience_away: float = 0.02,
        latest: float = 1e6,
        choices: Sequence[int] | None = None,
        held: Collection[int] | None = None,
    ) -> None:
        self.now = 0.0
        self.steps = 0
        self.story: deque[tuple[Any, ...]] = deque(maxlen=1000)
        """What has happened, the last of it."""
        self.numbers: list[int] = []
        """The same, as numbers of steps, from the beginning."""
        self.conducts = False
        """Whether blocking calls do steps. Else they pass, unscheduled."""
        self.before_time_passes: list[Callable[[float], None]] = []
        """Called with the time that is about to come."""
        self.chosen: list[int] = []
        self.patience = patience
        self.latest = latest
        self._away = patience_away
        self._choices = None if choices is None else iter(choices)
        self._held = held
        self._seed(seed)
        self._changed = threading.Condition(threading.Lock())
        self._ready: list[Step] = []
        self._lanes: dict[Hashable, deque[Step]] = {}
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self._under_way = 0
        self._waiters: list[_Waiter] = []
        self._baton: threading.Thread | None = None
        self._beginning = False
        self._running: dict[threading.Thread, float] = {}
        self._here = _Here()
        self._worker: _Worker | None = None
        self._pumper: threading.Thread | None = None

    # --- what clients ask for ---

    def operation(self, request: Request, inner: Operation) -> Operation:
        return _ScheduledOperation(self, request, inner)

    def call(self, request: Request, inner: Call) -> Call:
        return _ScheduledCall(self, request, inner)

    def sleep(self, seconds: float, inner: Suspension) -> Suspension:
        return _ScheduledSleep(self, seconds)

    def put_off(self, request: Request, inner: Suspension, resume: Resume) -> None:
        """Begin `inner` later, and `resume` with its result later still."""
        lane = _lane(request)
        answers = None if lane is None or request.kind in _UNORDERED_ANSWERS else ("answers", *lane)

        def landed(result: Any) -> None:
            with self._changed:
                self._under_way -= 1
            self.later(answers, ("answer", *_label(request)), lambda: resume(result))

        def begin() -> None:
            with self._changed:
                self._under_way += 1
            try:
                result = inner.start(landed)
            except Exception as error:
                result = Failure(error)
            if result is not PENDING:
                landed(result)

        self.later(lane, ("do", *_label(request)), begin)

    # --- what is to happen ---

    def later(self, lane: Hashable, label: tuple[Any, ...], action: Callable[[], None]) -> None:
        """Some time soon, and after what was put into the same lane before; None for no order at all."""
        with self._changed:
            step = Step(next(self._numbers), lane, label, action)
            step.born, step.at = self.steps, self.now
            if lane is None:
                self._ready.append(step)
            elif lane in self._lanes:
                self._lanes[lane].append(step)
            else:
                self._lanes[lane] = deque()
                self._ready.append(step)
            self._touch()
            self._changed.notify_all()

    def at(self, moment: float, label: tuple[Any, ...], action: Callable[[], None]) -> Timer:
        """When it is that time, and there is nothing else to do."""
        timer = Timer(moment, next(self._numbers), label, action)
        if moment <= self.now:
            self.later(None, label, lambda: self._ring(timer))
            return timer
        with self._changed:
            heapq.heappush(self._timers, timer)
            self._touch()
            self._changed.notify_all()
        return timer

    def reseed(self, seed: int | str) -> None:
        """As if it began here, but for what is under way and the time."""
        with self._changed:
            self._seed(seed)
            self.story.clear()
            self.chosen.clear()
            self.numbers.clear()
            self.steps = 0

    def _seed(self, seed: int | str) -> None:
        """Some schedules hold few steps back for long, some many, and some none."""
        self._random = random.Random(seed)
        self._slowness = self._random.choice((0.0, 0.05, 0.2))

    # --- who waits ---

    def run(self, *clients: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run all to their ends: what each returned, or the exception it raised. Deadlock if they cannot get there."""
        tasks = [Task(client).launch() for client in clients]
        self.wait(lambda: all(task.finished for task in tasks))
        return [_outcome(task) for task in tasks]

    def settle(self) -> None:
        """Do all that can happen without time going on."""
        self.wait(lambda: not self._ready and not self._under_way and self._baton is None)

    def go_on(self, steps: int) -> None:
        """Do so many steps, or those that there are."""
        last = self.steps + steps
        self.wait(lambda: self.steps >= last or not (self._ready or self._under_way))

    def pass_time(self, seconds: float) -> None:
        """What time.sleep is, in virtual time."""
        over: list[bool] = []
        self.at(self.now + seconds, ("sleep is over",), lambda: over.append(True))
        self.wait(lambda: bool(over))

    def acquire(self, lock: callbacks.Lockable, timeout: float | None = None) -> bool:
        """Take a lock that a step gives back; False where `timeout` seconds, of virtual time, have not been enough."""
        if timeout is None:
            self.wait(lambda: lock.acquire(blocking=False))
            return True
        found: list[bool] = []

        def check() -> bool:
            if not found and lock.acquire(blocking=False):
                found.append(True)
            return bool(found)

        timer = self.at(self.now + timeout, ("timeout",), lambda: found.append(False))
        self.wait(check)
        timer.cancel()
        return found[0]

    @contextlib.contextmanager
    def conducting(self) -> Iterator[None]:
        """Meanwhile, blocking calls do steps, and users' callbacks are steps."""
        before, callbacks.conductor = callbacks.conductor, _Conductor(self)
        self.conducts = True
        try:
            yield
        finally:
            callbacks.conductor = before
            with self._changed:
                self.conducts = False
                self._worker = None
                self._changed.notify_all()

    def wait(self, check: Callable[[], bool]) -> None:
        """Do steps until `check` is true; it is called between two, in any thread."""
        waiter = _Waiter(check, self._here.depth > 0)
        with self._changed:
            lent = self._baton is waiter.thread
            if lent:
                self._baton = None
            self._running.pop(waiter.thread, None)
            self._waiters.append(waiter)
            if waiter.nested:  # in the middle of a step: others do what comes meanwhile, as librados' threads would
                self._need_pumper()
            self._changed.notify_all()
        try:
            while (step := self._turn(waiter)) is not None:
                self._do(step)
        finally:
            with self._changed:
                self._waiters.remove(waiter)
                if lent:
                    while self._baton is not None:
                        self._changed.wait()
                    self._baton = waiter.thread
                else:
                    self._running[waiter.thread] = monotonic()
                self._changed.notify_all()

    def begin(self, function: Callable[[], Any]) -> Job:
        """Run it in a thread of its own, up to its first wait."""
        job = Job(self, function)
        here = threading.current_thread()
        with self._changed:
            self._beginning = True  # until it waits, nobody does a step
            self._running[job.thread] = monotonic()
            job.thread.start()
            while self._others_run() and self._running.keys() - {here}:
                self._changed.wait(_LOOK)
            self._beginning = False
            self._running[here] = monotonic()
        return job

    # --- whose turn it is ---

    def _turn(self, waiter: _Waiter) -> Step | None:
        """The step that this thread is to do; None where its wait is over, and it is its turn to go on."""
        idle_since = None
        with self._changed:
            while True:
                if self._baton is not None:
                    idle_since = None
                    self._changed.wait(_LOOK)
                    continue
                waiter.over = waiter.over or waiter.check()
                if self.now > self.latest and not waiter.over:
                    raise Deadlock(self.told())
                pause = self._others_run()
                if not pause and waiter is self._next():
                    if waiter.over:
                        return None
                    step = self._draw()
                    if step is not None:
                        return self._taken(step)
                    idle_since = idle_since or monotonic()
                    if monotonic() - idle_since >= self.patience and not self._under_way:
                        raise Deadlock(self.told())
                self._changed.wait(pause or _LOOK)

    def _next(self) -> _Waiter | None:
        """Who goes on: the first of those whose wait is over, else the first of those who may do a step."""
        over = next((each for each in self._waiters if each.over), None)
        return over or next((each for each in self._waiters if not each.nested), None)

    def _others_run(self) -> float:
        """How long, in seconds, to wait for threads that have been let go; 0 where there are none."""
        now = monotonic()
        for thread, since in list(self._running.items()):
            if not thread.is_alive() or (now - since >= self._away and _sleeps(thread)):
                del self._running[thread]
        return 0.001 if self._running or self._beginning else 0.0

    def _touch(self) -> None:
        """This thread is up to something: wait for it."""
        thread = threading.current_thread()
        if not self._here.depth and thread is not self._pumper:
            self._running[thread] = monotonic()
            if not self._waiters:
                self._need_pumper()

    def _draw(self) -> Step | None:
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)
        if self._ready:
            choice = self._choose(len(self._ready))
            self.chosen.append(choice)
            if choice < len(self._ready) or not self._timers:
                return self._ready.pop(min(choice, len(self._ready) - 1))
        if not self._timers:
            return None
        timer = heapq.heappop(self._timers)
        return Step(timer.number, None, timer.label, partial(self._ring, timer))

    def _choose(self, count: int) -> int:
        """The place in the list of those that may be next; behind them all, for the next sleeper instead."""
        if self._choices is not None:
            return next(self._choices, 0)
        if self._held is not None:
            free = next((place for place, step in enumerate(self._ready) if not self._is_held(step)), None)
            return free if free is not None else count if self._time_may_pass() else 0
        if self._slowness and self._random.random() >= _GOES_ON:
            fast = [place for place, step in enumerate(self._ready) if not self._is_slow(step)]
            if fast:
                return self._random.choice(fast)
            if self._time_may_pass():
                return self._random.choice((count, self._random.randrange(count)))
        return self._random.randrange(count) if count > 1 else 0

    def _time_may_pass(self) -> bool:
        """Though there are steps to do: none is kept waiting for too long."""
        return bool(self._timers) and self._timers[0].moment <= min(step.at for step in self._ready) + _OUTLASTED

    def _is_held(self, step: Step) -> bool:
        return step.number in (self._held or ()) and self.steps - step.born < _HELD

    def _is_slow(self, step: Step) -> bool:
        """Decided once for each."""
        if step.slow is None:
            step.slow = self._random.random() < self._slowness
        return step.slow

    def _ring(self, timer: Timer) -> None:
        if timer.moment > self.now:
            for listener in self.before_time_passes:
                listener(timer.moment)
            self.now = timer.moment
        if timer.action is not None:
            timer.action()

    def _taken(self, step: Step) -> Step:
        self._baton = threading.current_thread()
        self.steps += 1
        self.story.append(step.label)
        self.numbers.append(step.number)
        return step

    def _do(self, step: Step) -> None:
        self._here.depth += 1
        try:
            step.action()
        finally:
            self._here.depth -= 1
            with self._changed:
                self._baton = None
                if step.lane is not None and step.lane != _CALLBACKS:
                    self._pass(step.lane)
                for waiter in self._waiters:
                    waiter.over = waiter.over or waiter.check()
                self._changed.notify_all()

    def _pass(self, lane: Hashable) -> None:
        """The first of a lane is over: the next one may come."""
        queue = self._lanes[lane]
        if queue:
            self._ready.append(queue.popleft())
        else:
            del self._lanes[lane]

    # --- threads of its own ---

    def callback(self, function: Callable[[Any], None], argument: Any) -> None:
        """Have a user's callback called, after those that came before: they have a thread to themselves."""
        self.later(_CALLBACKS, ("callback",), lambda: self._hand_to_worker(function, argument))

    def _hand_to_worker(self, function: Callable[[Any], None], argument: Any) -> None:
        worker = self._worker
        if worker is None:
            worker = self._worker = _Worker(self)
            worker.thread.start()
        with self._changed:
            self._running[worker.thread] = monotonic()
            worker.item = (function, argument)
            self._changed.notify_all()

    def called(self, thread: threading.Thread) -> None:
        """A callback is over."""
        with self._changed:
            self._running.pop(thread, None)
            self._pass(_CALLBACKS)
            self._changed.notify_all()

    def ended(self, thread: threading.Thread) -> None:
        with self._changed:
            self._running.pop(thread, None)
            self._changed.notify_all()

    def _need_pumper(self) -> None:
        if self._pumper is None and self.conducts:
            self._pumper = threading.Thread(target=self._pump, name="schedule", daemon=True)
            self._pumper.start()

    def _pump(self) -> None:
        while (step := self._turn_of_pumper()) is not None:
            self._do(step)

    def _turn_of_pumper(self) -> Step | None:
        rested = False
        with self._changed:
            while self.conducts:
                led = any(not waiter.nested or waiter.over for waiter in self._waiters)
                if self._baton is not None or led or not (self._ready or self._timers):
                    rested = False
                    self._changed.wait()
                elif pause := self._others_run():
                    self._changed.wait(pause)
                elif not self._ready and not self._waiters and not rested:
                    rested = True  # nobody waits for time to pass: it does so at leisure
                    self._changed.wait(self._away)
                else:
                    step = self._draw()
                    if step is not None:
                        return self._taken(step)
            self._pumper = None
        return None

    # --- afterwards ---

    def told(self) -> str:
        """The last steps, one a line."""
        return "\n".join(" ".join(map(str, label)) for label in self.story)


class Timer:
    """`action` None: cancelled."""

    __slots__ = ("action", "label", "moment", "number")

    def __init__(self, moment: float, number: int, label: tuple[Any, ...], action: Callable[[], None]) -> None:
        self.moment = moment
        self.number = number
        self.label = label
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None

    def __lt__(self, other: Timer) -> bool:
        return (self.moment, self.number) < (other.moment, other.number)


class _Conductor:
    """A schedule as what blocking calls and users' callbacks turn to."""

    def __init__(self, schedule: Schedule) -> None:
        self.acquire = schedule.acquire
        self.call = schedule.callback


class Job:
    """What a thread of a schedule's does."""

    def __init__(self, schedule: Schedule, function: Callable[[], Any]) -> None:
        self.over = False
        self._schedule = schedule
        self._function = function
        self._value: Any = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="scheduled", daemon=True)

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        self.over = True
        self._schedule.ended(self.thread)

    def result(self) -> Any:
        """Wait for its end. Raises what it raised."""
        self._schedule.wait(lambda: self.over)
        if self._error is not None:
            raise self._error
        return self._value


class _Worker:
    """The thread in which users' callbacks are called, one at a time."""

    def __init__(self, schedule: Schedule) -> None:
        self.item: callbacks.Item | None = None
        self._schedule = schedule
        self.thread = threading.Thread(target=self._run, name="schedule callbacks", daemon=True)

    def _run(self) -> None:
        changed = self._schedule._changed
        while True:
            with changed:
                while self.item is None:
                    if self._schedule._worker is not self:
                        return
                    changed.wait()
                (function, argument), self.item = self.item, None
            try:
                function(argument)
            finally:
                function = argument = None  # type: ignore[assignment]  # and what they hold on to
                self._schedule.called(self.thread)


def _sleeps(thread: threading.Thread) -> bool:
    """Whether it waits for something, rather than for its turn on a busy machine, as far as can be known."""
    try:
        state = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state != "R"


def _lane(request: Request) -> tuple[Any, ...] | None:
    """What is asked in the same lane is done in the order in which it was asked."""
    if request.kind in ("read", "write", "execute", *_OF_OBJECTS):
        return (request.client, request.pool_id, request.namespace, request.oid)
    if request.kind in ("snap_create", "snap_remove", "mon_command", "blocklist_add"):
        return (request.client, "mon")
    return None


def _label(request: Request) -> tuple[Any, ...]:
    return (request.client, request.kind, request.oid, *(_step_name(step) for step in request.steps))


def _step_name(step: Any) -> str:
    return str(getattr(step, "method", type(step).__name__))


def _outcome(task: Task[Any]) -> Any:
    try:
        return task.result()
    except Exception as error:
        return error


class _ScheduledOperation(Operation):
    __slots__ = ("_inner", "_request", "_schedule")

    def __init__(self, schedule: Schedule, request: Request, inner: Operation) -> None:
        super().__init__(request.oid)
        self._schedule = schedule
        self._request = request
        self._inner = inner

    def start(self, resume: Resume) -> Any:
        self._schedule.put_off(self._request, self._inner, resume)
        return PENDING

    def block(self) -> Any:
        return super().block() if self._schedule.conducts else self._inner.block()


class _ScheduledCall(Call):
    __slots__ = ("_inner", "_request", "_schedule", "what")

    def __init__(self, schedule: Schedule, request: Request, inner: Call) -> None:
        self._schedule = schedule
        self._request = request
        self._inner = inner
        self.what = inner.what

    def start(self, resume: Resume) -> Any:
        self._schedule.put_off(self._request, self._inner, resume)
        return PENDING

    def block(self) -> Any:
        return super().block() if self._schedule.conducts else self._inner.block()


class _ScheduledSleep(Suspension):
    __slots__ = ("_schedule", "_seconds")

    def __init__(self, schedule: Schedule, seconds: float) -> None:
        self._schedule = schedule
        self._seconds = seconds

    def start(self, resume: Resume) -> Any:
        self._schedule.at(self._schedule.now + self._seconds, ("awake after", self._seconds), lambda: resume(None))
        return PENDING

    def block(self) -> Any:
        if self._schedule.conducts:
            super().block()
        else:
            self._schedule.now += self._seconds
