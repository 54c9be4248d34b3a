"""Handlers of signals wait while a blocking call is under way, as they do while a compiled module is.

Python runs the handlers of signals in the main thread, between any two instructions, and a handler may raise: Ctrl-C
does, so does an alarm that a test runner sets. In the middle of a blocking call that would cut a coroutine in two: a write
that is on its way would no longer be counted, a gate stay shut, a mutex go to somebody who is gone. In the binding, whose
calls run in C, a handler runs once the call has ended. So it is here: for as long as a call of ours runs in the main
thread, each handler is replaced by one that only remembers the signal, and what came is raised again at the end.

Only handlers that are Python functions are replaced: what a signal does by default, or in C, it goes on doing. A user's
function that a diff calls, extent by extent, runs with the handlers back in place.

Entering and leaving takes two microseconds; inside another one, or in any other thread, next to nothing.
"""

from __future__ import annotations

import _signal
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Final

from rbd_native.native import threading

__all__ = ["DEFERRED", "allowed"]

Handler = Callable[[int, FrameType | None], Any]

_NUMBERS: Final = range(1, signal.NSIG)
_get: Final = _signal.getsignal
_set: Final = _signal.signal
_ident: Final = threading.get_ident


class _State:
    """What the main thread is at. Nobody else writes to it."""

    __slots__ = ("arrived", "depth", "found", "main", "replaced")

    def __init__(self) -> None:
        self.main = threading.main_thread().ident
        self.depth = 0
        self.arrived: dict[int, None] = {}
        self.found: tuple[Any, ...] = ()
        """The handler of every signal, at the last look."""
        self.replaced: tuple[tuple[int, Handler], ...] = ()
        """Those of them that are Python's."""


_state = _State()


def _remember(number: int, frame: FrameType | None) -> None:
    """The handler inside. Where one was left in place, since another raised just as it was to go, it makes way at once."""
    if _state.depth:
        _state.arrived[number] = None
        return
    handler = dict(_state.replaced)[number]
    _set(number, handler)
    handler(number, frame)


def _replace() -> None:
    """Put :func:`_remember` in the place of every handler."""
    state = _state
    found = tuple(map(_get, _NUMBERS))
    if found != state.found:
        before = dict(state.replaced)
        handlers = [before[n] if handler is _remember else handler for n, handler in zip(_NUMBERS, found, strict=True)]
        state.replaced = tuple((n, handler) for n, handler in zip(_NUMBERS, handlers, strict=True) if _may_raise(handler))
        state.found = tuple(handlers)
    for number, _ in state.replaced:
        _set(number, _remember)


def _may_raise(handler: Any) -> bool:
    # The one that asyncio sets does nothing: its loop reads the signals from a file descriptor.
    return callable(handler) and getattr(handler, "__name__", "") != "_sighandler_noop"


def _restore() -> None:
    """Put every handler back. One that is back may run at once, and raise: the others follow all the same."""
    left = list(_state.replaced)
    try:
        _put_back(left)  # a function of its own: from Python 3.13 on the end of a loop may be outside the `try` around it
    finally:
        if left:
            _restore()


def _put_back(left: list[tuple[int, Handler]]) -> None:
    while left:
        number, handler = left[-1]
        if _get(number) is _remember:  # else a user's function has set another meanwhile
            _set(number, handler)
        left.pop()


def _raise_again(numbers: list[int]) -> None:
    """As if they came now, one after the other, also where the handler of one raises."""
    if numbers:
        try:
            signal.raise_signal(numbers[0])
        finally:
            _raise_again(numbers[1:])


def _begin() -> None:
    _state.depth = 1  # first: who is replaced remembers, then
    try:
        _replace()
    except ValueError:  # the main thread of another interpreter: its signals are not ours to hold back
        return
    except BaseException:  # the handler of one that came before it was replaced
        _end()
        raise


def _end() -> None:
    state = _state
    try:
        _restore()
    finally:
        state.depth = 0
        if state.arrived:
            arrived = list(state.arrived)
            state.arrived.clear()
            _raise_again(arrived)


class _Deferred:
    """`with DEFERRED:` keeps handlers of signals from running inside. May be nested, and shared by all threads."""

    __slots__ = ()

    def __enter__(self) -> None:
        if _ident() == _state.main:
            if _state.depth:
                _state.depth += 1
            else:
                _begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _ident() == _state.main:
            if _state.depth == 1:
                _end()
            else:
                _state.depth -= 1


DEFERRED: Final = _Deferred()


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Handlers run inside again: around functions of the user's that are called from inside a blocking call. What came
    before is raised first."""
    state = _state
    depth = state.depth
    if not depth or _ident() != state.main:
        yield
        return
    try:
        _end()
        yield
    finally:
        _begin_again(depth)


def _begin_again(depth: int) -> None:
    """A handler that raises while the handlers are being replaced is heard once that is done."""
    raised: BaseException | None = None
    while True:
        try:
            _begin()
        except BaseException as error:
            raised = error
        else:
            break
    _state.depth = depth
    if raised is not None:
        raise raised


def _after_fork() -> None:
    """Only the thread that forked is left, and it is the main one now."""
    _state.main = _ident()
    _state.depth = 0


os.register_at_fork(after_in_child=_after_fork)
