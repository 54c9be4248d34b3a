"""Operations and calls of the port that consist of others."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from rbd_native.engine import Resume, Task, run
from rbd_native.rados.port import Call, Operation, Outcome, Reply


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
