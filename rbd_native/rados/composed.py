"""Operations and calls of the port that consist of others, or of something that blocks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from rbd_native.engine import PENDING, Failure, Resume, Task, run
from rbd_native.rados.port import Call, Operation, Outcome, Reply


def submit(workers: Executor, block: Callable[[], Any], resume: Resume) -> Any:
    """Start something that has no form but a blocking one, in a worker thread: PENDING."""

    def work() -> None:
        try:
            result = block()
        except Exception as error:
            result = Failure(error)
        resume(result)

    workers.submit(work)
    return PENDING


class ComposedOperation(Operation):
    """Its reply is what the coroutine returns."""

    __slots__ = ("_make",)

    def __init__(self, oid: str, make: Callable[[], Coroutine[Any, Any, Reply]]) -> None:
        super().__init__(oid)
        self._make = make

    def start(self, resume: Resume) -> Any:
        return Task(self._make()).launch().start(resume)

    def block(self) -> Reply:
        return run(self._make())


class ComposedCall(Call):
    """Its outcome is what the coroutine returns."""

    __slots__ = ("_make", "what")

    def __init__(self, what: str, make: Callable[[], Coroutine[Any, Any, Outcome]]) -> None:
        self.what = what
        self._make = make

    def start(self, resume: Resume) -> Any:
        return Task(self._make()).launch().start(resume)

    def block(self) -> Outcome:
        return run(self._make())
