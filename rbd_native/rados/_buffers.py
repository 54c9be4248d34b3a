"""Bytes in and out of C without copies of ours.

Going in, `bytes` are an argument as they are, and anything else with the buffer protocol lends its address for the time of
the call. Coming out, the result is a `bytes` object that C filled before anybody else could see it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_ssize_t, c_void_p
from typing import Any, Final

_WRITABLE: Final = 1
_LARGE: Final = 16384
"""Up to here, zeroing new memory costs less than the call that avoids it."""


class _Lent(ctypes.Structure):
    # Py_buffer, as in the stable interface of Python since 3.11.
    _fields_ = [
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", c_ssize_t),
        ("itemsize", c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_void_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    ]


_lend = ctypes.PYFUNCTYPE(c_int, ctypes.py_object, c_void_p, c_int)(("PyObject_GetBuffer", ctypes.pythonapi))
_return = ctypes.PYFUNCTYPE(None, c_void_p)(("PyBuffer_Release", ctypes.pythonapi))
_raw = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, c_ssize_t)(("PyBytes_FromStringAndSize", ctypes.pythonapi))


class Pin:
    """Keeps the bytes of a buffer in place, from when it is made until `release`."""

    __slots__ = ("_lent", "address", "length")

    def __init__(self, data: Any, *, writable: bool) -> None:
        """BufferError where they are not contiguous, or not to be written to and that is wanted."""
        self._lent = _Lent()
        _lend(data, byref(self._lent), _WRITABLE if writable else 0)
        self.address: int = self._lent.buf
        self.length: int = self._lent.len

    def release(self) -> None:
        _return(byref(self._lent))


def pinned(data: Any, use: Callable[[Any, int], Any]) -> Any:
    """`use(address, length)`, with `data` in place meanwhile. BufferError where its bytes are not contiguous."""
    if type(data) is bytes:
        return use(data, len(data))
    pin = Pin(data, writable=False)
    try:
        return use(pin.address, pin.length)
    finally:
        pin.release()


def blank(length: int) -> bytes:
    """A new `bytes` of unspecified content, for C to fill. Not to be shown to anybody before that."""
    return bytes(length) if length <= _LARGE else _raw(None, length)
