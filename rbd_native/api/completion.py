"""class Completion: the outcome of an aio_* call.

The user's callback runs where those of all images of the process do, one after the other, and never in a thread of
librados: so it may call anything of this module, blocking calls included (:mod:`rbd_native.callbacks`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from typing import Any

from rbd_native.callbacks import acquire, call
from rbd_native.engine import Driven, Failure
from rbd_native.interrupts import DEFERRED
from rbd_native.native import threading
from rbd_native.rados.port import RadosError

OnComplete = Callable[..., Any] | None


class Completion(Driven):
    """An operation under way. Its return value is 0 (for a read, the number of bytes) or a negative errno."""

    __slots__ = ("_completed", "_counts", "_data", "_error", "_oncomplete", "_reaped", "_value")

    def __init__(
        self, work: Coroutine[Any, Any, Any], oncomplete: OnComplete, *, data: bool = False, counts: bool = False
    ) -> None:
        """`oncomplete` is called with the completion, and, where it is about `data`, with the result or None. `counts`: the
        result is a number of bytes."""
        super().__init__(work)
        self._oncomplete = oncomplete
        self._data = data
        self._counts = counts
        self._error: BaseException | None = None
        self._value = 0
        self._completed = False
        self._reaped = threading.Lock()
        self._reaped.acquire()
        with DEFERRED:
            self._resume(None)

    def is_complete(self) -> bool:
        """Whether the operation has ended; its callback may still be running."""
        return self._completed

    def wait_for_complete_and_cb(self) -> None:
        """Wait for the operation and its callback, and raise what the callback raised."""
        acquire(self._reaped)
        self._reaped.release()
        if self._error is not None:
            raise self._error

    def get_return_value(self) -> int:
        """0 or the number of bytes read, or a negative errno; 0 while the operation is under way."""
        return self._value

    def _finish(self, outcome: Any) -> None:
        call(self._tell, outcome)

    def _tell(self, outcome: Any) -> None:
        result = None
        if type(outcome) is not Failure:
            result = outcome
            self._value = outcome if self._counts else len(outcome) if isinstance(outcome, bytes) else 0
        elif isinstance(outcome.error, RadosError):
            self._value = -outcome.error.errno
        else:
            self._value = -errno.EIO
            self._error = outcome.error
        self._completed = True
        try:
            if self._oncomplete is None:
                pass
            elif self._data:
                self._oncomplete(self, result)
            else:
                self._oncomplete(self)
        except BaseException as error:  # the one who waits is to have it
            self._error = error
        finally:
            self._reaped.release()
