"""Watches and notifies over librados.

librados calls from a thread of its own, one callback at a time a watch. What the callback owes is an acknowledgement: it is
sent whatever the handler does, since the notifier waits for it.
"""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Callable
from ctypes import Structure, byref, c_size_t, c_uint64, c_void_p, sizeof, string_at
from functools import cache
from typing import Any, Final

from rbd_native.native import threading
from rbd_native.rados._libc import NOTIFIED, WATCH_LOST
from rbd_native.rados._session import Context, Flight, library
from rbd_native.rados.composed import ComposedCall
from rbd_native.rados.port import Bare, Call, NotifyReply, OnNotify, OnWatchError, Outcome, Watch

_log = logging.getLogger(__name__)
_watches: Final[dict[int, LibradosWatch]] = {}
_numbers = itertools.count(1)


class AioCall(Flight, Call):
    """A call of the port that completes by callback."""

    __slots__ = ("_resume", "context", "what")

    def __init__(self, context: Context, what: str) -> None:
        self.context = context
        self.what = what


class LibradosWatch(Watch):
    def __init__(self, context: Context, name: bytes, on_notify: OnNotify, on_error: OnWatchError) -> None:
        self.cookie = 0
        self.number = next(_numbers)
        self.context = context
        self.name = name
        self._on_notify = on_notify
        self._on_error = on_error
        self._calling: int | None = None

    def check(self) -> Outcome:
        session = self.context.session
        if not session.alive:
            return Outcome(-errno.ESHUTDOWN)
        if self.number not in _watches:
            return Outcome(-errno.ENOTCONN)
        age = session.library.watch_check(self.context.pointer, self.cookie)
        return Outcome(age) if age < 0 else Outcome(0, age / 1000)

    def close(self) -> Call:
        return ComposedCall("unwatch", lambda: _close(self))

    def opened(self) -> None:
        _watches[self.number] = self
        self.context.session.closers[self.number] = lambda: self.close().start(_forget)

    def closed(self) -> bool:
        """Take it off the books; whether it was on them."""
        self.context.session.closers.pop(self.number, None)
        return _watches.pop(self.number, None) is not None

    @property
    def in_callback(self) -> bool:
        """Whether this very thread is in a callback of this watch."""
        return self._calling == threading.get_ident()

    def notified(self, notifier: int, notify_id: int, cookie: int, payload: bytes) -> None:
        reply = self._guarded(lambda: bytes(self._on_notify(notifier, notify_id, payload))) or b""
        session = self.context.session
        if session.connected:
            session.library.notify_ack(self.context.pointer, self.name, notify_id, cookie, reply, len(reply))

    def lost(self, code: int) -> None:
        self._guarded(lambda: self._on_error(code))

    def _guarded(self, handler: Callable[[], Any]) -> Any:
        self._calling = threading.get_ident()
        try:
            return handler()
        except Exception:
            _log.exception("the handler of a watch on %r failed", self.name)
            return None
        finally:
            self._calling = None


def _forget(_: Any) -> None:
    """Nobody waits for it."""


def _notified(number: int, notify_id: int, cookie: int, notifier: int, data: int | None, length: int) -> None:
    watch = _watches.get(number)
    if watch is not None:  # closed in the meantime: then nobody waits for an answer either
        watch.notified(notifier, notify_id, cookie, string_at(data, length) if data and length else b"")


def _lost(number: int, _cookie: int, code: int) -> None:
    watch = _watches.get(number)
    if watch is not None:
        watch.lost(abs(code))


@cache
def _callbacks() -> tuple[Any, Any]:
    return NOTIFIED(_notified), WATCH_LOST(_lost)  # never freed: librados may be inside one at any time


class Register(AioCall):
    """Value: the watch."""

    __slots__ = ("_cookie", "_timeout", "_watch")

    def __init__(self, watch: LibradosWatch, timeout: int, what: str) -> None:
        super().__init__(watch.context, what)
        self._watch = watch
        self._timeout = timeout

    def submit(self, pointer: int, completion: c_void_p) -> int:
        watch = self._watch
        watch.opened()
        self._cookie = c_uint64()
        rv: int = self.context.session.library.aio_watch2(
            pointer, watch.name, completion, byref(self._cookie), *_callbacks(), self._timeout, watch.number
        )
        return rv

    def result(self, rv: int, version: int) -> Outcome:
        if rv < 0:
            self._watch.closed()
            return Outcome(rv)
        self._watch.cookie = self._cookie.value
        return Outcome(0, self._watch)


class _Unregister(AioCall):
    __slots__ = ("_cookie",)
    winds_up = True

    def __init__(self, watch: LibradosWatch) -> None:
        super().__init__(watch.context, "unwatch")
        self._cookie = watch.cookie

    def submit(self, pointer: int, completion: c_void_p) -> int:
        rv: int = self.context.session.library.aio_unwatch(pointer, self._cookie, completion)
        return rv

    def result(self, rv: int, version: int) -> Outcome:
        return Outcome(min(rv, 0))


class _Flush(AioCall):
    """Over when no callback of this connection is running that began before."""

    __slots__ = ()
    winds_up = True

    def submit(self, pointer: int, completion: c_void_p) -> int:
        session = self.context.session
        rv: int = session.library.aio_watch_flush(session.pointer, completion)
        return rv

    def result(self, rv: int, version: int) -> Outcome:
        return Outcome(min(rv, 0))


async def _close(watch: LibradosWatch) -> Outcome:
    if not watch.closed():
        return Outcome(0)
    outcome: Outcome = await Bare(_Unregister(watch))
    if not watch.in_callback:  # there it would wait for itself
        await Bare(_Flush(watch.context, "unwatch"))
    return outcome


class _Ack(Structure):
    _fields_ = [("client", c_uint64), ("cookie", c_uint64), ("payload", c_void_p), ("length", c_uint64)]


class _Timeout(Structure):
    _fields_ = [("client", c_uint64), ("cookie", c_uint64)]


class Notify(AioCall):
    """Value: NotifyReply."""

    __slots__ = ("_length", "_name", "_payload", "_reply", "_timeout")

    def __init__(self, context: Context, oid: str, name: bytes, payload: bytes, timeout_ms: int) -> None:
        super().__init__(context, oid)
        self._name = name
        self._payload = payload
        # The protocol counts in seconds, and librados drops the rest: half a second would become none, the default.
        self._timeout = -(-timeout_ms // 1000) * 1000

    def submit(self, pointer: int, completion: c_void_p) -> int:
        self._reply, self._length = c_void_p(), c_size_t()
        rv: int = self.context.session.library.aio_notify(
            pointer,
            self._name,
            completion,
            self._payload,
            len(self._payload),
            self._timeout,
            byref(self._reply),
            byref(self._length),
        )
        return rv

    def result(self, rv: int, version: int) -> Outcome:
        reply = getattr(self, "_reply", None)
        if reply is None or not reply.value:
            return Outcome(rv) if rv < 0 else Outcome(0, NotifyReply([], []))
        try:
            return Outcome(rv) if rv not in (0, -errno.ETIMEDOUT) else _decoded(reply, self._length)
        finally:
            self.context.session.library.buffer_free(reply)


def _decoded(reply: c_void_p, length: c_size_t) -> Outcome:
    acks, timeouts, many_acks, many_timeouts = c_void_p(), c_void_p(), c_size_t(), c_size_t()
    rv = library().decode_notify_response(
        reply, length, byref(acks), byref(many_acks), byref(timeouts), byref(many_timeouts)
    )
    if rv < 0:
        return Outcome(rv)
    try:
        answered = [
            (ack.client, ack.cookie, string_at(ack.payload, ack.length) if ack.length else b"")
            for ack in _array(acks, many_acks, _Ack)
        ]
        missed = [(missing.client, missing.cookie) for missing in _array(timeouts, many_timeouts, _Timeout)]
        return Outcome(0, NotifyReply(answered, missed))
    finally:
        library().free_notify_response(acks, many_acks, timeouts)


def _array(start: c_void_p, count: c_size_t, kind: Any) -> list[Any]:
    return [kind.from_address((start.value or 0) + sizeof(kind) * place) for place in range(count.value)]
