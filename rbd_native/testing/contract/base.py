"""What the classes of the contract have in common: the hook, two ways of driving, and names of objects."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from rbd_native.engine import PENDING, Suspension, Task, run
from rbd_native.rados.port import Bare, Capability, Io

NewIo = Callable[[], Io]
Do = Callable[[Any], Any]
"""Awaits something of the port (or a coroutine over it): the Reply or Outcome as it is, or the coroutine's result."""

PATIENCE: Final = 60.0
"""Seconds after which something that has not completed is taken never to."""

_numbers: Final = itertools.count(1)


def _coroutine(what: Any) -> Coroutine[Any, Any, Any]:
    async def bare() -> Any:
        return await Bare(what)

    return bare() if isinstance(what, Suspension) else what


def blocking(what: Any) -> Any:
    """In this thread."""
    return run(_coroutine(what))


def by_completion(what: Any) -> Any:
    """By callbacks, in whatever thread they come."""
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    task = Task(_coroutine(what)).launch()
    if task.start(done.put) is PENDING:
        done.get(timeout=PATIENCE)
    return task.result()


class Contract:
    """Base of the test classes. A subclass provides `new_io`."""

    @pytest.fixture
    def new_io(self) -> NewIo:
        """A function that connects one more client to the same cluster, each time, and gives its Io of the same pool.

        The pool may hold objects of other tests.
        """
        raise NotImplementedError

    @pytest.fixture
    def io(self, new_io: NewIo) -> Io:
        """The Io most tests work with. May be overridden by one that tests share."""
        return new_io()

    @pytest.fixture(params=[blocking, by_completion], ids=["blocking", "by-completion"])
    def do(self, request: pytest.FixtureRequest) -> Do:
        drive: Do = request.param
        return drive

    @pytest.fixture
    def oid(self) -> str:
        """Name of an object that does not exist."""
        return f"contract.{next(_numbers)}"

    @pytest.fixture
    def namespace(self) -> str:
        """Name of a namespace in which nothing is."""
        return f"contract-{next(_numbers)}"


def able(io: Io, capability: Capability) -> bool:
    return bool(io.cluster.capabilities & capability)
