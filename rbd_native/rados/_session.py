"""One connection as the adapter sees it: its C handle, its ioctxs, what is under way, and how it ends.

- A :class:`Context` is a C ioctx that never changes after it was set up, so many threads may submit on it. Blocking calls
  take one each out of a small stock of equals, because librados keeps the version of the last object per ioctx.
- A :class:`Flight` is anything that completes by callback. From before it is handed to librados until its callback has
  run, it is in the table of :class:`Completions`: so what librados writes to stays alive, whoever loses interest.
- A context is freed when nothing refers to it any more, a flight included; never after the user's `Rados.shutdown`.
- At interpreter exit, watches are removed and what is under way is waited for, then cancelled: librados writes what it
  has read into memory of ours, which must be there.
"""

from __future__ import annotations

import atexit
import errno
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import byref, c_void_p
from functools import cache, cached_property
from typing import Any, Final

from rbd_native.engine import PENDING, Resume, Suspension
from rbd_native.native import time
from rbd_native.rados import _cxx
from rbd_native.rados._completions import Completions
from rbd_native.rados._libc import Library
from rbd_native.rados._steps import Toolbox, Unsupported
from rbd_native.rados.composed import submit
from rbd_native.rados.port import Call, Outcome, RadosError

_WORKERS: Final = 4
_PATIENCE: Final = 10.0
"""Seconds that the interpreter's exit waits for what is under way, and again for what it then cancels."""


class Session:
    """The connection of one `rados.Rados`. `pointer` is its rados_t."""

    def __init__(self, rados: Any, pointer: int) -> None:
        self.rados = rados
        self.pointer = pointer
        self.library = library()
        self.completions = completions()
        self.tools = Toolbox(self.library, extras())
        self.leaving = False
        self.pid = os.getpid()
        self.closers: dict[int, Callable[[], None]] = {}
        """What must still be done before the interpreter ends, by token."""
        _sessions.add(self)

    @property
    def connected(self) -> bool:
        """Whether librados may be called at all: not after the user has shut his connection down."""
        connected: bool = self.rados.state == "connected"
        return connected

    @property
    def alive(self) -> bool:
        """Whether anything new may begin: not when the interpreter is about to exit either."""
        return self.rados.state == "connected" and not self.leaving

    @cached_property
    def workers(self) -> ThreadPoolExecutor:
        """For the few calls that librados has in no other form than blocking."""
        return ThreadPoolExecutor(_WORKERS, "rbd-native-rados")

    def open_ioctx(self, pool_id: int, namespace: str) -> int:
        """A new C ioctx. RadosError: ENOENT without such a pool, ESHUTDOWN after shutdown."""
        if not self.alive:
            raise RadosError(errno.ESHUTDOWN, "the connection is shut down")
        place = c_void_p()
        rv = self.library.ioctx_create2(self.pointer, pool_id, byref(place))
        if rv < 0 or place.value is None:
            raise RadosError(-rv, f"pool {pool_id}")
        if namespace:
            self.library.ioctx_set_namespace(place, namespace.encode())
        return place.value


_sessions: Final[weakref.WeakSet[Session]] = weakref.WeakSet()


@cache
def library() -> Library:
    """The librados of this process: there is one. OSError or AttributeError where it is not usable."""
    return Library()


@cache
def extras() -> _cxx.Extras | None:
    return _cxx.probe(library())


@cache
def completions() -> Completions:
    atexit.register(_leave)
    return Completions(library())


os.register_at_fork(after_in_child=completions.cache_clear)  # the child has no courier, and must not read its parent's pipe


class Context:
    """A C ioctx of one pool, namespace and snapshot context or snapshot, as `setup` makes it."""

    __slots__ = ("__weakref__", "_idle", "_namespace", "_setup", "pointer", "pool_id", "session")

    def __init__(self, session: Session, pool_id: int, namespace: str, setup: Callable[[int], int]) -> None:
        self._idle: list[int] = []
        self._namespace = namespace
        self._setup = setup
        self.session = session
        self.pool_id = pool_id
        self.pointer: int = self._open()

    def _open(self) -> int:
        pointer = self.session.open_ioctx(self.pool_id, self._namespace)
        rv = self._setup(pointer)
        if rv < 0:
            self.session.library.ioctx_destroy(pointer)
            raise RadosError(-rv, "snapshot context")
        return pointer

    def take(self) -> int:
        """An ioctx for the caller alone, until `give`."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def give(self, pointer: int) -> None:
        self._idle.append(pointer)

    def __del__(self) -> None:
        if not hasattr(self, "pointer") or not self.session.connected:
            return
        for pointer in (self.pointer, *self._idle):
            self.session.library.ioctx_destroy(pointer)


class Flight(Suspension):
    """Something submitted with a completion. A subclass submits it and makes the result; see :meth:`start`."""

    __slots__ = ()

    context: Context
    _resume: Resume
    winds_up = False
    """Whether it may still begin when the interpreter is about to exit."""

    def submit(self, pointer: int, completion: c_void_p) -> int:
        """Hand it to librados on the ioctx `pointer`; its errno if it refuses at once."""
        raise NotImplementedError

    def result(self, rv: int, version: int) -> Any:
        """The Reply or Outcome; gives back what librados allocated. Called once a submission, whatever became of it."""
        raise NotImplementedError

    def start(self, resume: Resume) -> Any:
        context = self.context
        session = context.session
        if not (session.alive or (self.winds_up and session.connected)):
            return self.result(-errno.ESHUTDOWN, 0)
        self._resume = resume
        number, completion = session.completions.open(self)
        try:
            rv = self.submit(context.pointer, completion)
        except Exception as error:  # an interrupt may come when librados has it already: then it stays on the table
            session.completions.abandon(number)
            refused = self.result(-errno.EOPNOTSUPP, 0)
            if isinstance(error, Unsupported):
                return refused
            raise
        if rv < 0:
            session.completions.abandon(number)
            return self.result(rv, 0)
        return PENDING

    def landed(self, rv: int, version: int) -> None:
        self._resume(self.result(rv, version))


class Blocking(Call):
    """A call that has no form but a blocking one: done in this thread by `block`, in a worker by `start`."""

    __slots__ = ("_function", "_session", "what")

    def __init__(self, session: Session, function: Callable[[], Outcome], what: str = "") -> None:
        self._session = session
        self._function = function
        self.what = what

    def block(self) -> Outcome:
        if not self._session.alive:
            return Outcome(-errno.ESHUTDOWN)
        try:
            return self._function()
        except RadosError as error:
            return Outcome(-error.errno)

    def start(self, resume: Resume) -> Any:
        return submit(self._session.workers, self.block, resume)


def _leave() -> None:
    """Leave no callback to come. Runs before the interpreter is taken down."""
    # A forked child has the table of its parent, but none of librados' threads: nothing there will ever land.
    sessions = [session for session in _sessions if session.connected and session.pid == os.getpid()]
    for session in sessions:
        session.leaving = True
        for close in list(session.closers.values()):
            close()
    for session in sessions:
        _settle(session, _PATIENCE)
        for pending, completion in session.completions.of(session):
            if completion is not None:
                session.library.aio_cancel(pending.context.pointer, completion)
        _settle(session, _PATIENCE)


def _settle(session: Session, patience: float) -> None:
    deadline = time.monotonic() + patience
    while session.completions.of(session) and time.monotonic() < deadline:
        time.sleep(0.001)
