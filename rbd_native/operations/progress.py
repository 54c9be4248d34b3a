"""How a long operation tells the caller how far it is, and how the caller ends it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from rbd_native.native import threading
from rbd_native.rados.port import RadosError

Callback = Callable[[int, int], Any]


class Progress:
    """Calls `callback(done, total)`, never backwards and never from two threads at once.

    A negative number that it returns is the errno the operation ends with. An exception that it raises is reported as
    one that nobody can catch, and the operation goes on: so it is in the binding.
    """

    def __init__(self, callback: Callback | None = None) -> None:
        self._callback = callback
        self._guard = threading.Lock()
        self._done = -1

    def update(self, done: int, total: int) -> None:
        if self._callback is None:
            return
        with self._guard:
            if done <= self._done:
                return
            self._done = done
            wanted = self._call(self._callback, done, total)
        if isinstance(wanted, int) and wanted < 0:
            raise RadosError(-wanted, "ended by the progress callback")

    @staticmethod
    def _call(callback: Callback, done: int, total: int) -> Any:
        try:
            return callback(done, total)
        except Exception as error:
            _Ignored(callback, error).report()
            return 0


class _Ignored:
    """An exception that goes to Python's own report of those that nobody can catch.

    :func:`sys.unraisablehook` takes what only Python can make. So it is raised where Python makes it: in the callback of a
    weak reference, which is what the report then shows.
    """

    def __init__(self, where: Callback, error: Exception) -> None:
        self._where = where
        self._error = error

    def report(self) -> None:
        passing = _Ignored(self._where, self._error)
        reference = weakref.ref(passing, self)
        del passing, reference

    def __call__(self, reference: object) -> None:
        raise self._error

    def __repr__(self) -> str:
        return repr(self._where)


class Joint:
    """The progress of several operations at once as that of one."""

    def __init__(self, whole: Progress, count: int) -> None:
        self._whole = whole
        self._parts = [(0, 0)] * count

    def part(self, place: int, total: int) -> Progress:
        """For one of them, which will take `total` steps. All are to be had before any begins."""
        self._parts[place] = (0, total)
        return _Part(self, place)

    def update(self, place: int, done: int, total: int) -> None:
        self._parts[place] = (done, total)
        self._whole.update(sum(done for done, _ in self._parts), sum(total for _, total in self._parts))


class _Part(Progress):
    def __init__(self, joint: Joint, place: int) -> None:
        super().__init__()
        self._joint = joint
        self._place = place

    def update(self, done: int, total: int) -> None:
        self._joint.update(self._place, done, total)
