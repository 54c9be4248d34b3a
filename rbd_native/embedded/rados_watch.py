"""`rados.Watch` over an embedded cluster."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from rbd_native.embedded.events import Watch as Watched
from rbd_native.embedded.rados_errors import make_ex
from rbd_native.embedded.rados_ops import report, run_callback
from rbd_native.interrupts import DEFERRED
from rbd_native.rados import port

if TYPE_CHECKING:
    from rbd_native.embedded.rados_base import IoctxBase


class Watch:
    """watch object"""

    def __init__(
        self,
        ioctx: IoctxBase,
        oid: str,
        callback: Callable[[int, str, int, bytes], Any],
        error_callback: Callable[..., Any] | None,
        timeout: int | None,
    ) -> None:
        self._ioctx = ioctx
        self._cookie = 0
        self._watch: Watched | None = None
        with DEFERRED:
            outcome = _register(ioctx, oid, weakref.ref(self), callback, error_callback, timeout or 0)
            if outcome.rv < 0:
                raise make_ex(outcome.rv, "watch error")
            self._watch = outcome.value
            self._cookie = outcome.value.cookie

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, type_: Any, value: Any, traceback: Any) -> Literal[False]:
        self.close()
        return False

    def __del__(self) -> None:
        watch = getattr(self, "_watch", None)
        if watch is not None:
            watch.drop()

    def get_id(self) -> int:
        return self._cookie

    def check(self) -> timedelta:
        """Since when it is known to be in place. NotConnected where it is lost."""
        outcome = self._watch.check() if self._watch is not None else port.Outcome(-errno.ENOTCONN)
        if outcome.rv < 0:
            raise make_ex(outcome.rv, "check error")
        return timedelta(seconds=outcome.value)

    def close(self) -> None:
        """Does nothing the second time."""
        with DEFERRED:
            watch, self._watch = self._watch, None
            if watch is None or self._ioctx.rados.state != "connected":
                return
            outcome = watch.close().block()
        if outcome.rv < 0 and outcome.rv != -errno.ENOENT:
            raise make_ex(outcome.rv, "unwatch error")


def _register(
    ioctx: IoctxBase,
    oid: str,
    watch: weakref.ref[Watch],
    callback: Callable[..., Any],
    error_callback: Callable[..., Any] | None,
    timeout: int,
) -> port.Outcome:
    def cookie() -> int:
        known = watch()
        return known.get_id() if known is not None else 0

    def on_notify(client: int, notify: int, payload: bytes) -> bytes | None:
        try:
            return _reply(callback(notify, client, cookie(), payload))
        except Exception as error:
            report(error)
            return None  # no answer: as with python-rados, whoever notified waits for its time

    def on_error(code: int) -> None:
        if error_callback is not None:
            run_callback(lambda: error_callback(cookie(), -code))

    outcome: port.Outcome = ioctx._io.watch(oid, on_notify, on_error, timeout).block()
    return outcome


def _reply(value: Any) -> bytes:
    """What a callback returned, as the acknowledgement; TypeError for what is none, and then there is none."""
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise TypeError(f"a watch callback must return bytes, a str or None, not {type(value).__name__}")
