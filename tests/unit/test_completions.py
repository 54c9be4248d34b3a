"""How the end of operations is heard of, with a librados that is none: addresses as wanted, ends when wanted."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from ctypes import c_void_p
from types import SimpleNamespace
from typing import Any

import pytest

from rbd_native.callbacks import about_to_block
from rbd_native.rados._completions import Completions

PATIENCE = 20.0
STEP = 64
HIGH = 1 << 32


class Library:
    """Completions at addresses in order, or at those that `addresses` are. `end` is what a thread of librados does."""

    def __init__(self) -> None:
        self.addresses = itertools.count(0x7F00_0000_1000, STEP)
        self.released: list[int] = []
        self._call: Callable[[int], None] | None = None

    def aio_create_completion2(self, argument: int, callback: int, place: Any) -> int:
        function = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)(callback)
        self._call = lambda address: function(address, argument)
        place._obj.value = next(self.addresses)
        return 0

    def aio_release(self, completion: c_void_p) -> None:
        assert completion.value is not None
        self.released.append(completion.value)

    def aio_get_return_value(self, completion: c_void_p) -> int:
        assert completion.value is not None
        return completion.value % 1000

    def aio_get_version(self, completion: c_void_p) -> int:
        return 7

    def end(self, completion: c_void_p) -> None:
        assert self._call is not None and completion.value is not None
        self._call(completion.value)


class Operation:
    def __init__(self, session: Any = None, then: Callable[[], None] = lambda: None) -> None:
        self.context = SimpleNamespace(session=session)
        self.outcome: tuple[int, int] | None = None
        self.landed_in = 0
        self._then = then
        self._ended = threading.Event()

    def landed(self, rv: int, version: int) -> None:
        self.outcome = rv, version
        self.landed_in = threading.get_ident()
        self._ended.set()
        self._then()

    def wait(self) -> None:
        assert self._ended.wait(PATIENCE)


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def completions(library: Library) -> Completions:
    return Completions(library)  # type: ignore[arg-type]


def test_each_gets_its_own(library: Library, completions: Completions) -> None:
    flights = [(operation := Operation(), completions.open(operation)[1]) for _ in range(100)]
    for _, completion in reversed(flights):
        library.end(completion)
    for operation, completion in flights:
        operation.wait()
        assert completion.value is not None
        assert operation.outcome == (completion.value % 1000, 7)
    assert sorted(library.released) == [completion.value for _, completion in flights]
    assert completions.of(None) == []


def test_addresses_with_the_same_low_half(library: Library, completions: Completions) -> None:
    library.addresses = iter([0x1000, 0x1000 + HIGH, 0x1000 + 7 * HIGH, 0x2000])  # type: ignore[assignment]
    one, other = Operation(), Operation()
    first, second = completions.open(one)[1], completions.open(other)[1]
    assert (first.value, second.value) == (0x1000, 0x2000)
    assert sorted(library.released) == [0x1000 + HIGH, 0x1000 + 7 * HIGH]
    library.end(second)
    other.wait()
    assert one.outcome is None
    library.end(first)
    one.wait()


def test_an_address_may_come_again_at_once(library: Library, completions: Completions) -> None:
    library.addresses = itertools.repeat(0x1000)  # type: ignore[assignment]
    for _ in range(100):
        operation = Operation()
        library.end(completions.open(operation)[1])
        operation.wait()
        while completions.of(None):
            """It is still being landed."""


def test_what_was_not_submitted(library: Library, completions: Completions) -> None:
    number, completion = completions.open(Operation())
    completions.abandon(number)
    assert completions.of(None) == []
    assert library.released == [completion.value]


def test_one_that_fails_harms_no_other(
    library: Library, completions: Completions, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("oops")

    flights = [(operation := Operation(then=then), completions.open(operation)[1]) for then in (fail, lambda: None, fail)]
    after = Operation()
    for _, completion in flights:
        library.end(completion)
    library.end(completions.open(after)[1])
    for operation, _ in flights:
        operation.wait()
    after.wait()
    assert caplog.text.count("the end of an operation") == 2


def test_what_is_under_way_on_a_connection(library: Library, completions: Completions) -> None:
    """As long as it is, and while its end is told."""
    mine, theirs = object(), object()
    seen: list[Any] = []
    go = threading.Event()

    def look() -> None:
        seen.extend(completions.of(mine))
        go.wait(PATIENCE)

    operation = Operation(mine, look)
    _, completion = completions.open(operation)
    other = Operation(theirs)
    _, last = completions.open(other)
    assert completions.of(mine) == [(operation, completion)]
    library.end(completion)
    operation.wait()
    library.end(last)
    assert completions.of(mine) == [(operation, None)]
    go.set()
    other.wait()
    while completions.of(mine):
        """Until the courier has gone on."""
    assert seen == [(operation, None)]


def test_the_rest_of_a_batch_goes_on_with_the_next(library: Library, completions: Completions) -> None:
    """Who resumes somebody that blocks, for what came with it."""
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait(PATIENCE)

    last = Operation()

    def block() -> None:
        about_to_block()
        last.wait()

    first, second = Operation(then=hold), Operation(then=block)
    flights = [completions.open(operation)[1] for operation in (first, second, last)]
    library.end(flights[0])
    assert held.wait(PATIENCE)
    library.end(flights[1])  # these two come in one batch
    library.end(flights[2])
    go.set()
    last.wait()
    assert first.landed_in == second.landed_in != last.landed_in
    operation = Operation()
    library.end(completions.open(operation)[1])
    operation.wait()
    assert operation.landed_in == last.landed_in
