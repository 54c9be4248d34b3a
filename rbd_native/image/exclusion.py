"""Operations on the whole image, and which of them may be under way at the same time.

A snapshot is of one moment, a resize gives up objects one by one, a rebuild looks at each of them: two of these at once
would each see the image half done by the other. So whoever begins one waits until none is under way that it may not overlap
with. What may overlap is the table, nothing else. Those that wait are let in in the order in which they came.

This is among the operations of one handle: where the image has an exclusive lock, only its owner operates on the image at
all. Writes are kept out by the gate, not by this.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from rbd_native.engine import PENDING, Resume, Waiting
from rbd_native.native import threading


class Operation(enum.Enum):
    """What is done to an image as a whole."""

    RESIZE = enum.auto()
    ROLLBACK = enum.auto()
    SNAP_CREATE = enum.auto()
    SNAP_REMOVE = enum.auto()
    REBUILD_OBJECT_MAP = enum.auto()
    UPDATE_FEATURES = enum.auto()
    CHANGE_PRIMARY = enum.auto()
    """Demotion and promotion."""
    TRIM = enum.auto()
    """All data of an image that is being removed."""
    FLATTEN = enum.auto()
    """Copies objects, each as a write does."""
    DETACH_PARENT = enum.auto()
    """The end of a flatten."""
    SPARSIFY = enum.auto()


_PIECEMEAL: Final = frozenset({Operation.FLATTEN, Operation.SPARSIFY})
"""They change nothing that a reader sees, object by object."""

_BESIDE_SPARSIFY: Final = frozenset({Operation.FLATTEN, Operation.SNAP_REMOVE, Operation.DETACH_PARENT})

MAY_OVERLAP: Final[dict[Operation, frozenset[Operation]]] = {
    **dict.fromkeys(Operation, frozenset({Operation.FLATTEN})),
    Operation.FLATTEN: frozenset(Operation) - {Operation.FLATTEN},
    Operation.SPARSIFY: _BESIDE_SPARSIFY,
    Operation.SNAP_REMOVE: _PIECEMEAL,
    Operation.DETACH_PARENT: _PIECEMEAL,
}
"""For each operation, those that may be under way meanwhile. All others are waited for."""


class Exclusion:
    """Of one handle."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: list[Operation] = []
        self._waiting: list[tuple[Operation, Resume]] = []

    @contextlib.asynccontextmanager
    async def hold(self, operation: Operation) -> AsyncIterator[None]:
        """Wait until it may be under way, and have it be so for as long as the block takes."""
        await Waiting(lambda resume: self._enter(operation, resume))
        try:
            yield
        finally:
            self._leave(operation)

    def _enter(self, operation: Operation, resume: Resume) -> Any:
        with self._guard:
            if self._must_wait(operation, (waiting for waiting, _ in self._waiting)):
                self._waiting.append((operation, resume))
                return PENDING
            self._held.append(operation)
        return None

    def _must_wait(self, operation: Operation, before: Iterable[Operation]) -> bool:
        overlapping = MAY_OVERLAP[operation]
        return not (overlapping.issuperset(self._held) and overlapping.issuperset(before))

    def _leave(self, operation: Operation) -> None:
        admitted: list[Resume] = []
        with self._guard:
            self._held.remove(operation)
            waiting, self._waiting = self._waiting, []
            for wanted, resume in waiting:
                if self._must_wait(wanted, (other for other, _ in self._waiting)):
                    self._waiting.append((wanted, resume))
                else:
                    self._held.append(wanted)
                    admitted.append(resume)
        for resume in admitted:
            resume(None)
