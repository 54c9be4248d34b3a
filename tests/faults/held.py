"""Operations that are held back: sent, or answered, when a test says so.

    held = Held()
    ioctx = held.ioctx(backend)                         # of a client whose operations can be held
    slow = held.hold(touching("rbd_header.*", "read"))  # the next one that matches
    ...
    slow.arrived()                                      # it has been asked for
    slow.let_go()

On either kind of cluster. What is held at the end of a `with held:` block is let go.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from rbd_native.engine import PENDING, Failure, Resume
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import Call, Operation
from rbd_native.rados.wrapper import Interceptor, Request, wrap
from tests.backend import Backend

PATIENCE = 60.0
"""Seconds after which what a test waits for is not coming."""


class Hold:
    """One rule: which operations are held, how many, and whether only their answers are (`done`)."""

    def __init__(self, when: Callable[[Request], bool], times: int, done: bool) -> None:
        self.when = when
        self.left = times
        self.done = done
        self._arrived = threading.Event()
        self._free = threading.Event()

    def arrived(self) -> None:
        """Wait until one is held."""
        assert self._arrived.wait(PATIENCE), "nothing like it was asked for"

    def let_go(self) -> None:
        self.left = 0
        self._free.set()

    def pause(self) -> None:
        self._arrived.set()
        assert self._free.wait(PATIENCE), "never let go"


class Held(Interceptor):
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holds: list[Hold] = []
        self.under_way = 0
        """Operations that were asked for and have not been answered."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for hold in self._holds:
            hold.let_go()

    def hold(self, when: Callable[[Request], bool], *, times: int = 1, done: bool = False) -> Hold:
        """Hold back the next operations that match. `done`: they are done at once, and answered late."""
        hold = Hold(when, times, done)
        self._holds.append(hold)
        return hold

    def ioctx(self, backend: Backend, **conf: str) -> Any:
        """What Image and RBD take, of a client of its own."""
        return wrapped(backend.ioctx(cluster=backend.connect(**conf)), self)

    def count(self, change: int) -> None:
        with self._guard:
            self.under_way += change

    def pick(self, request: Request) -> Hold | None:
        with self._guard:
            for hold in self._holds:
                if hold.left and hold.when(request):
                    hold.left -= 1
                    return hold
        return None

    def operation(self, request: Request, inner: Operation) -> Operation:
        return _HeldOperation(self, request, inner)

    def call(self, request: Request, inner: Call) -> Call:
        return _HeldCall(self, request, inner)


class _Later:
    _held: Held
    _request: Request
    _inner: Any

    def start(self, resume: Resume) -> Any:
        self._held.count(1)

        def answered(value: Any) -> None:
            self._held.count(-1)
            resume(value)

        hold = self._held.pick(self._request)
        if hold is None:
            value = self._inner.start(answered)
            if value is not PENDING:
                self._held.count(-1)
            return value
        threading.Thread(target=self._hold, args=(hold, answered)).start()
        return PENDING

    def _hold(self, hold: Hold, answered: Resume) -> None:
        if not hold.done:
            hold.pause()
        box: list[Any] = []
        came = threading.Event()

        def land(value: Any) -> None:
            box.append(value)
            came.set()

        try:
            value = self._inner.start(land)
        except BaseException as error:
            value = Failure(error)
        if value is PENDING:
            came.wait()
            (value,) = box
        if hold.done:
            hold.pause()
        answered(value)


class _HeldOperation(_Later, Operation):
    def __init__(self, held: Held, request: Request, inner: Operation) -> None:
        Operation.__init__(self, request.oid)
        self._held, self._request, self._inner = held, request, inner

    def block(self) -> Any:
        return super(Operation, self).block()


class _HeldCall(_Later, Call):
    def __init__(self, held: Held, request: Request, inner: Call) -> None:
        self._held, self._request, self._inner = held, request, inner
        self.what = inner.what

    def block(self) -> Any:
        return super(Call, self).block()


class _Ioctx:
    def __init__(self, ioctx: Any, port: Any) -> None:
        self._ioctx = ioctx
        self.rbd_native_port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ioctx, name)


def wrapped(ioctx: Any, *interceptors: Interceptor) -> Any:
    """The same ioctx, with everything that is asked of it passing the interceptors, the first one last."""
    port = port_for(ioctx)
    for interceptor in interceptors:
        port = wrap(port, interceptor)
    return _Ioctx(ioctx, port)


class Running:
    """Something in a thread of its own: its result, or what it raised."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._outcome: list[Any] = []
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._outcome.append(function(*arguments))
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def waits(self) -> bool:
        """Whether it is not over by now, having had a while to be: a busy machine may hide a fault, never make one up."""
        self._thread.join(0.1)
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it hangs"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


@contextmanager
def running(function: Callable[..., Any], *arguments: Any) -> Iterator[Running]:
    """Its end is waited for."""
    thread = Running(function, *arguments)
    try:
        yield thread
    finally:
        thread._thread.join(PATIENCE)


def calling(method: str) -> Callable[[Request], bool]:
    """Operations that call a class method of this name."""
    return lambda request: any(getattr(step, "method", None) == method for step in request.steps)


def data(number: int, kind: str = "*") -> Callable[[Request], bool]:
    """Operations on the data object of this number."""
    end = f".{number:016x}"

    def matches(request: Request) -> bool:
        return request.oid.startswith("rbd_data.") and request.oid.endswith(end) and kind in ("*", request.kind)

    return matches
