"""Handlers of signals wait until a blocking call has ended, at whatever instruction they come."""

import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rbd_native import interrupts
from rbd_native.engine import Waiting, run
from rbd_native.interrupts import DEFERRED, allowed

_USED = (signal.SIGALRM, signal.SIGUSR1)


class Came(Exception):
    """Raised by a handler."""


class Handler:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.calls.append(number)
        raise Came


@pytest.fixture
def handler() -> Iterator[Handler]:
    ours = Handler()
    before = {number: signal.signal(number, ours) for number in _USED}
    yield ours
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, old in before.items():
        signal.signal(number, old)


def test_a_handler_runs_at_the_end(handler: Handler) -> None:
    inside = []
    with pytest.raises(Came), DEFERRED, DEFERRED:
        signal.raise_signal(signal.SIGUSR1)
        inside.append(list(handler.calls))
    assert inside == [[]]
    assert handler.calls == [signal.SIGUSR1]
    assert all(signal.getsignal(number) is handler for number in _USED)


def test_each_signal_is_heard_once(handler: Handler) -> None:
    with pytest.raises(Came), DEFERRED:
        for number in (signal.SIGUSR1, signal.SIGALRM, signal.SIGUSR1):
            signal.raise_signal(number)
    assert sorted(handler.calls) == sorted(_USED)


def test_what_was_begun_goes_on_to_its_end(handler: Handler) -> None:
    """A coroutine whose thread waits is not cut off, and its result is not lost to what it leaves behind."""
    done = []

    def begin(resume: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    async def work() -> None:
        await Waiting(begin)
        done.append(True)

    with pytest.raises(Came):
        run(work())
    assert done == [True]


def test_a_users_function_may_be_interrupted(handler: Handler) -> None:
    with DEFERRED:
        with pytest.raises(Came), allowed():
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGALRM)
        assert handler.calls == [signal.SIGUSR1]
        with pytest.raises(Came), allowed():
            raise AssertionError("what came before is raised first")
    assert handler.calls == [signal.SIGUSR1, signal.SIGALRM]


def test_a_handler_set_inside_stays(handler: Handler) -> None:
    with DEFERRED:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


def test_other_threads_are_left_alone(handler: Handler) -> None:
    seen: list[Any] = []

    def look() -> None:
        with DEFERRED:
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [handler]


def _wait(handler: Handler, count: int) -> None:
    # A function of its own: from 3.13 on the end of a loop is outside the `try` that it is the last of.
    while len(handler.calls) < count:
        pass


def test_any_moment(handler: Handler) -> None:
    """20,000 alarms at random moments: none is heard inside, none is lost, every handler is back."""
    moments, heard = random.Random(1), 0
    for number in range(1, 20_001):
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, 3e-5))
            for _ in range(2):
                with DEFERRED:
                    try:
                        for _ in range(20):
                            pass
                    except Came:
                        heard += 1
            _wait(handler, number)
        except Came:
            pass
        assert all(signal.getsignal(used) is handler for used in _USED)
    assert heard == 0
    assert interrupts._state.depth == 0
