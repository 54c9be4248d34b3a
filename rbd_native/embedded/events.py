"""What a client of an embedded cluster waits for: notifications of its watches, answers to its own, the loss of a watch.

Two threads, which exist only once there is something to wait for. One looks at the store whenever it is woken (see
:mod:`rbd_native.embedded.bell`) or something is due, and proves in the store that the client lives. The other runs the
callbacks of watches, one at a time. Whoever waits for the answers to a notification is resumed in a thread of its own,
since what it does next may take long.
"""

from __future__ import annotations

import errno
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from rbd_native.callbacks import acquire
from rbd_native.embedded import bell, watches
from rbd_native.embedded.store import FAULTS
from rbd_native.engine import PENDING, Resume
from rbd_native.interrupts import DEFERRED
from rbd_native.native import queue, threading
from rbd_native.rados.port import Call, NotifyReply, OnWatchError, Outcome
from rbd_native.rados.port import Watch as PortWatch

if TYPE_CHECKING:
    from rbd_native.embedded.client import Connection

_log = logging.getLogger(__name__)

_PINGS: Final = 6  # proofs of life within the shortest timeout of a watch
_IDLE: Final = 3600.0
_RETRY: Final = 1.0
_WAIT: Final = 2.0
"""Seconds that these threads wait for a process that holds the file, before they see whether they are to end."""


class Watch(PortWatch):
    """A watch of this client. `on_notify` may return None for no answer at all, beyond the port."""

    def __init__(
        self, events: Events, cookie: int, timeout: int, on_notify: Callable[..., bytes | None], on_error: OnWatchError
    ) -> None:
        self.cookie = cookie
        self.timeout = timeout
        self.on_notify = on_notify
        self.on_error = on_error
        self.closed = False
        self.placed = False  # whether the store has been told of it: only then can it be missing there
        self._events = events

    def check(self) -> Outcome:
        age = self._events.age(self.cookie)
        return Outcome(-errno.ENOTCONN) if age is None else Outcome(0, age)

    def close(self) -> Call:
        return _Unwatch(self._events, self)

    def drop(self) -> None:
        """Beyond the port: see to it that it is closed, some time soon."""
        self._events.drop(self)


class _Unwatch(Call):
    """Over when the watch is gone and no callback of it is running; in such a callback, at once."""

    __slots__ = ("_events", "_watch")
    what = "unwatch"

    def __init__(self, events: Events, watch: Watch) -> None:
        self._events = events
        self._watch = watch

    def start(self, resume: Resume) -> Any:
        with DEFERRED:
            outcome = self._events.unwatch(self._watch)
        if self._events.callbacks.idle_for(self._watch):
            return outcome
        self._events.callbacks.post(None, lambda: self._events.resume(resume, outcome))
        return PENDING


class Notify(Call):
    """Value: NotifyReply."""

    __slots__ = ("_begin", "_events", "what")

    def __init__(self, events: Events, what: str, begin: Callable[[], Outcome]) -> None:
        """`begin` starts it in the store. Its value: the notification's id, and the clients that are to answer."""
        self.what = what
        self._events = events
        self._begin = begin

    def start(self, resume: Resume) -> Any:
        return self._go(lambda outcome: self._events.resume(resume, outcome))

    def block(self) -> Outcome:
        gate = threading.Lock()
        gate.acquire()
        box: list[Outcome] = []

        def keep(outcome: Outcome) -> None:
            box.append(outcome)
            gate.release()

        with DEFERRED:  # it is told or not, and the answers are awaited or not
            outcome = self._go(keep)
            if outcome is PENDING:
                acquire(gate)
                outcome = box[0]
        found: Outcome = outcome
        return found

    def _go(self, resume: Callable[[Outcome], None]) -> Any:
        outcome = self._begin()
        if outcome.rv < 0:
            return outcome
        notify, clients = outcome.value
        if not clients:
            return Outcome(0, NotifyReply([], []))
        self._events.await_answers(notify, resume, clients)
        return PENDING


class Events:
    """Of one client. Everything here may be called from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._store = connection.cluster.store
        self._gid = connection.entity.client
        self._guard = threading.Lock()
        self._cookies = itertools.count((self._gid << 20) + 1)
        self._watches: dict[int, Watch] = {}
        self._told: set[tuple[int, int]] = set()  # what callbacks were called for and the store still shows as due
        self._answers: dict[int, Callable[[Outcome], None]] = {}
        self._bell: bell.Bell | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._last_ping = 0.0
        self._dropped: deque[Watch] = deque()
        self.callbacks = self._new_callbacks()

    def _new_callbacks(self) -> Callbacks:
        return Callbacks()

    def resume(self, resume: Callable[[Any], None], value: Any) -> None:
        """Let whoever waited for something go on with it."""
        threading.Thread(target=resume, args=(value,), name="embedded-resumed", daemon=True).start()

    # --- what the client asks for ---

    def watch(
        self,
        on_notify: Callable[..., bytes | None],
        on_error: OnWatchError,
        timeout: int,
        insert: Callable[[int, int], Outcome],
    ) -> Outcome:
        """`insert(cookie, timeout)` puts it into the store. Value: the watch."""
        cookie = next(self._cookies)
        watch = Watch(self, cookie, timeout, on_notify, on_error)
        with self._guard:
            self._watches[cookie] = watch
        outcome = insert(cookie, timeout)
        if outcome.rv < 0:
            with self._guard:
                del self._watches[cookie]
            return outcome
        watch.placed = True
        self._wake()
        return Outcome(0, watch)

    def unwatch(self, watch: Watch) -> Outcome:
        watch.closed = True
        with self._guard:
            known = self._watches.pop(watch.cookie, None)
        if known is None:
            return Outcome(0)
        return self._connection.forget_watch(watch.cookie)

    def drop(self, watch: Watch) -> None:
        """Unwatch some time soon. For finalizers, which may come at any point of any thread: it takes no lock."""
        watch.closed = True
        self._dropped.append(watch)

    def age(self, cookie: int) -> float | None:
        """Seconds since a watch was confirmed; None where it is lost or closed."""
        if cookie not in self._watches:
            return None
        with self._store.read as db:
            return watches.confirmed(db, self._gid, cookie)

    def await_answers(self, notify: int, resume: Callable[[Outcome], None], clients: set[int]) -> None:
        with self._guard:
            self._answers[notify] = resume
        self._wake()
        self._connection.cluster.wake(clients)

    def ring(self) -> None:
        """Something in the store has changed. No effect where nothing is waited for."""
        if self._bell is not None:
            self._bell.ring()

    def stop(self) -> None:
        """End both threads; no callback comes any more, and no answer."""
        with self._guard:
            self._stopping = True
            watched, self._watches = self._watches, {}
            waiting, self._answers = self._answers, {}
        for watch in watched.values():
            watch.closed = True
        self.ring()
        if self._thread is not None and self._thread.ident != threading.get_ident():
            self._thread.join()
        self.callbacks.stop()
        for resume in waiting.values():
            resume(Outcome(-errno.ESHUTDOWN))

    def abandon(self) -> None:
        """This is the child of a fork: threads and watches are its parent's, the bell's descriptor is to be closed."""
        self._guard = threading.Lock()
        self._stopping = True
        for watch in self._watches.values():
            watch.closed = True
        self._watches, self._answers = {}, {}
        self.callbacks = self._new_callbacks()
        if self._bell is not None:
            self._bell.close()

    # --- the thread that looks ---

    def _wake(self) -> None:
        with self._guard:
            if self._bell is None and not self._stopping:
                self._bell = bell.make(self._connection.cluster.shared_id, self._gid)
                self._thread = threading.Thread(target=self._run, args=(self._bell,), name="embedded-events", daemon=True)
                self._thread.start()
        self.ring()

    def _run(self, awaited: bell.Bell) -> None:
        shared = self._store.path is not None
        version = seen = -1
        rang = True
        until = 0.0
        try:
            while not self._stopping:
                if shared:  # asked before the look: what changes during it is seen in the next round
                    version = self._store.data_version()
                if rang or version != seen or time.time() >= until:
                    until = self._look()
                seen = version
                pause = max(until - time.time(), 0.0)
                rang = awaited.wait(min(pause, bell.POLL) if shared and self._busy() else pause)
        finally:
            awaited.close()

    def _busy(self) -> bool:
        return bool(self._watches or self._answers)

    def _look(self) -> float:
        """See to everything that is due; the time of the next look, in seconds since 1970."""
        try:
            return self._see_to_all() if self._busy() else time.time() + _IDLE
        except TimeoutError:  # another process holds the file
            return time.time() + _RETRY
        except FAULTS:
            # A full disk, say. Until it works again nothing is proven: at worst our watches are lost, as they should be.
            _log.exception("an embedded cluster's store failed")
            return time.time() + _RETRY

    def _see_to_all(self) -> float:
        while self._dropped:
            self.unwatch(self._dropped.popleft())
        with self._guard:
            mine = {cookie: watch for cookie, watch in self._watches.items() if watch.placed}
            waiting = list(self._answers)
        next_ping = self._prove_life(mine)
        with self._store.read as db:
            there = watches.cookies(db, self._gid)
            due = watches.due(db, self._gid)
            states = {notify: watches.progress(db, notify) for notify in waiting}
        for cookie in mine.keys() - there:
            self._lost(mine[cookie])
        self._deliver(due)
        return min([next_ping, *(self._settle(notify, state) for notify, state in states.items())])

    def _prove_life(self, mine: dict[int, Watch]) -> float:
        if not mine:
            return time.time() + _IDLE
        interval = min(watch.timeout for watch in mine.values()) / _PINGS
        now = time.time()
        if not 0 <= now - self._last_ping < interval:
            with self._store.writing(_WAIT) as db:
                watches.expire(db)  # first: a client that slept too long has lost its watches
                watches.confirm(db, self._gid)
            self._last_ping = now
        return self._last_ping + interval

    def _lost(self, watch: Watch) -> None:
        with self._guard:
            known = self._watches.pop(watch.cookie, None)
        if known is not None:
            self.callbacks.post(watch, lambda: _tell_lost(watch))

    def _deliver(self, due: list[watches.Notification]) -> None:
        self._told &= {(one.id, one.cookie) for one in due}
        for one in due:
            watch = self._watches.get(one.cookie)
            if watch is not None and (one.id, one.cookie) not in self._told:
                self._told.add((one.id, one.cookie))
                self.callbacks.post(watch, lambda watch=watch, one=one: self._answer(watch, one))  # type: ignore[misc]

    def _answer(self, watch: Watch, one: watches.Notification) -> None:
        if watch.closed or watch.cookie not in self._watches:
            return
        try:
            reply = watch.on_notify(one.notifier, one.id, one.payload)
        except Exception:
            # Whoever notified waits for an answer, not for this handler's success.
            _log.exception("the handler of a watch failed")
            reply = b""
        if reply is not None:
            self._acknowledge(one, reply)

    def _acknowledge(self, one: watches.Notification, reply: bytes) -> None:
        while not self._stopping:
            try:
                with self._store.writing(_WAIT) as db:
                    watches.acknowledge(db, one.id, self._gid, one.cookie, reply)
            except TimeoutError:
                continue
            self._connection.cluster.wake({one.notifier})
            return

    def _settle(self, notify: int, state: watches.Progress) -> float:
        """End a notification that all have answered, or whose time is over; when to look again."""
        now = time.time()
        if state.missing and now < state.next_look:
            return state.next_look
        with self._store.writing(_WAIT) as db:
            watches.expire(db)
            state = watches.progress(db, notify)
            if state.missing and now < state.next_look:
                return state.next_look
            reply = watches.finish(db, notify)
        with self._guard:
            resume = self._answers.pop(notify, None)
        if resume is not None:
            resume(Outcome(0, reply))
        return now + _IDLE


def _tell_lost(watch: Watch) -> None:
    if not watch.closed:
        watch.on_error(errno.ENOTCONN)


class Callbacks:
    """The thread that runs the callbacks of watches."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Watch | None, Callable[[], None]] | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: Watch | None = None
        self._stopped = False

    def post(self, watch: Watch | None, callback: Callable[[], None]) -> None:
        with self._guard:
            if self._stopped:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="embedded-callbacks", daemon=True)
                self._thread.start()
        self._queue.put((watch, callback))

    def idle_for(self, watch: Watch) -> bool:
        """Whether no callback of this watch is running, but perhaps the one that asks."""
        mine = self._thread is not None and self._thread.ident == threading.get_ident()
        return self._running is not watch or mine or self._stopped

    def _run(self) -> None:
        while (posted := self._queue.get()) is not None:
            self._running, callback = posted
            try:
                callback()
            except Exception:
                _log.exception("the handler of a watch failed")
            finally:
                self._running = None
                del posted, callback  # what they hold must not live until the next one comes

    def stop(self) -> None:
        """After those that have been posted."""
        with self._guard:
            self._stopped = True
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread.ident != threading.get_ident():
                thread.join()
