"""What is under way at librados, and how its end is heard of.

librados ends an operation by a call in a thread of its own. If that were a function of Python, the thread would have to
get the interpreter's lock for each of them, in competition with those that submit. So it is a function of the C library:
putw(3), which has the same form, (int, FILE *) for (completion, argument), and here writes the low half of the
completion's address into a pipe, unbuffered. A thread of ours, the courier, reads the pipe, gets at once what has ended
meanwhile, and resumes who waits for it. So librados never enters Python to end an operation, not even when the interpreter
is being taken down.

Source: librados.h (rados_callback_t), putw(3).
"""

from __future__ import annotations

import ctypes
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from typing import Any, Final, Protocol

from rbd_native.callbacks import Courier
from rbd_native.native import threading
from rbd_native.rados._libc import Library

log = logging.getLogger(__name__)

_UNBUFFERED: Final = 2
_LOW: Final = (1 << 32) - 1
_ROOM: Final = 1 << 16
"""As much as a pipe holds."""


class Pending(Protocol):
    context: Any

    def landed(self, rv: int, version: int) -> None: ...


class Completions:
    """What is under way, by the low half of the address of its completion."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._release = library.aio_release
        self._flying: dict[int, tuple[Pending, c_void_p]] = {}
        self._landing: dict[int, Pending] = {}
        """What a courier is at, by its thread."""
        self._guard = threading.Lock()
        self._manned = False
        self._pipe, end = os.pipe()
        stream, putw = _stream(end)
        create, release, flying = library.aio_create_completion2, self._release, self._flying
        man = self._man

        def open(pending: Pending) -> tuple[int, c_void_p]:
            if not self._manned:
                man()
            completion = c_void_p()
            create(stream, putw, byref(completion))
            key = completion.value & _LOW  # type: ignore[operator]
            if flying.setdefault(key, flight := (pending, completion)) is flight:
                return key, completion
            try:  # the addresses of two are 4 GiB apart, or a multiple of that: another it is
                return open(pending)
            finally:
                release(completion)

        self.open: Callable[[Pending], tuple[int, c_void_p]] = open
        """A number and a completion for something that is about to be submitted."""

    def abandon(self, number: int) -> None:
        """It was not submitted after all."""
        _, completion = self._flying.pop(number)
        self._release(completion)

    def of(self, session: Any) -> list[tuple[Pending, c_void_p | None]]:
        """What is under way on a connection; without a completion where it has just ended."""
        landing = [(pending, None) for pending in list(self._landing.values())]
        both: Iterable[tuple[Pending, c_void_p | None]] = (*list(self._flying.values()), *landing)
        return [flight for flight in both if flight[0].context.session is session]

    def _man(self) -> None:
        with self._guard:
            if not self._manned:
                self._manned = True
                self._begin_courier(iter(()))

    def _begin_courier(self, batch: Iterator[int]) -> None:
        threading.Thread(target=self._run, args=(batch,), name="rbd_native completions", daemon=True).start()

    def _run(self, batch: Iterator[int]) -> None:
        library, flying, landing, release = self._library, self._flying, self._landing, self._release
        return_value, get_version = library.aio_get_return_value, library.aio_get_version
        pipe, me = self._pipe, threading.get_ident()
        courier = Courier(lambda: self._begin_courier(batch))
        while True:
            for key in batch:
                pending, completion = flying[key]
                landing[me] = pending  # before it is off the table: leaving waits until it is in neither
                del flying[key]  # before its address may be another's
                rv, version = return_value(completion), get_version(completion)
                release(completion)
                try:
                    pending.landed(rv, version)
                except Exception:
                    log.exception("the end of an operation")
                if courier.relieved:  # what is left of the batch is with the next one
                    break
            landing.pop(me, None)
            pending = completion = None  # type: ignore[assignment]  # and the buffers of the last one with it
            courier.rest()
            if courier.relieved:
                return
            batch = iter(array("I", os.read(pipe, _ROOM)))


def _stream(descriptor: int) -> tuple[int, int]:
    """A FILE that writes through to a descriptor, and the function that writes an int to it."""
    libc = ctypes.CDLL(None)
    fdopen, setvbuf = libc.fdopen, libc.setvbuf
    fdopen.restype, fdopen.argtypes = c_void_p, (c_int, c_char_p)
    setvbuf.argtypes = (c_void_p, c_void_p, c_int, c_size_t)
    stream = fdopen(descriptor, b"w")
    if not stream or setvbuf(stream, None, _UNBUFFERED, 0):
        raise OSError("no stream for completions")
    putw = ctypes.cast(libc.putw, c_void_p).value
    assert putw is not None
    return stream, putw
