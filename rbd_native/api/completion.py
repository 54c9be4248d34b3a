"""class Completion: the outcome of an aio_* call.

The user's callback runs in a thread of its own, one for all images of the process, never in that of librados: so it may
call anything of this module, blocking calls included.
"""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from rbd_native.engine import Failure, Task
from rbd_native.rados.port import RadosError

OnComplete = Callable[..., Any] | None


class Completion:
    """An operation under way. Its return value is 0 (for a read, the number of bytes) or a negative errno."""

    def __init__(self, work: Coroutine[Any, Any, Any], oncomplete: Callable[[Completion, Any], Any]) -> None:
        self._oncomplete = oncomplete
        self._error: BaseException | None = None
        self._value = 0
        self._completed = False
        self._reaped = threading.Lock()
        self._reaped.acquire()
        task = Task(work, self._arrived)
        task.launch()

    def is_complete(self) -> bool:
        """Whether the operation has ended; its callback may still be running."""
        return self._completed

    def wait_for_complete_and_cb(self) -> None:
        """Wait for the operation and its callback, and raise what the callback raised."""
        with self._reaped:
            pass
        if self._error is not None:
            raise self._error

    def get_return_value(self) -> int:
        """0 or the number of bytes read, or a negative errno; 0 while the operation is under way."""
        return self._value

    def _arrived(self, outcome: Any) -> None:
        _callbacks.put((self, outcome))

    def _finish(self, outcome: Any) -> None:
        result = None
        if type(outcome) is not Failure:
            result = outcome
            self._value = len(outcome) if isinstance(outcome, bytes) else 0
        elif isinstance(outcome.error, RadosError):
            self._value = -outcome.error.errno
        else:
            self._value = -errno.EIO
            self._error = outcome.error
        self._completed = True
        try:
            self._oncomplete(self, result)
        except BaseException as error:  # the one who waits is to have it
            self._error = error
        finally:
            self._reaped.release()


class _Callbacks:
    """The thread that runs the users' callbacks; it begins with the first of them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Completion, Any]] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, item: tuple[Completion, Any]) -> None:
        self._queue.put(item)
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rbd_native callbacks", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            completion, outcome = self._queue.get()
            completion._finish(outcome)


_callbacks = _Callbacks()
