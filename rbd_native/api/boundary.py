"""Where the binding's world meets ours: arguments come in, results go out, an errno becomes an exception.

Arguments are checked as the binding's compiled code checks them: names are str or bytes and end at the first NUL,
numbers must fit the C type that takes them. Below this boundary a name is a str that may hold surrogate escapes, and
failure is a RadosError.
"""

from __future__ import annotations

import ctypes
import datetime
import errno
import operator
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rbd_native.api import ending
from rbd_native.encoding import UTime
from rbd_native.engine import run
from rbd_native.errors import ExceptionMap, InvalidArgument, errno_to_exception, make_ex
from rbd_native.operations import create
from rbd_native.rados.port import Buffer, RadosError

T = TypeVar("T")

_UINT8 = 2**8
_UINT32 = 2**32
_UINT64 = 2**64
_INT64 = 2**63
_INT = 2**31


def drive(
    coroutine: Coroutine[Any, Any, T], message: str, *values: Any, table: ExceptionMap = errno_to_exception
) -> T:
    """Run it; what fails raises the binding's exception. `message % values` is put together only then."""
    try:
        return run(coroutine)
    except RadosError as error:
        ending.stop_daemon()
        raise make_ex(error.errno, message % values, table) from error


def drive_present(coroutine: Coroutine[Any, Any, T], absent: str, message: str, *values: Any) -> T:
    """The same, with KeyError(absent) for what is not there."""

    async def attempt() -> tuple[T] | None:
        try:
            return (await coroutine,)
        except RadosError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    found = drive(attempt(), message, *values)
    if found is None:
        raise KeyError(absent)
    return found[0]


def name_bytes(value: Any, what: str) -> bytes:
    """A name as the binding keeps it and shows it. InvalidArgument unless it is str or bytes."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise InvalidArgument(f"{what} must be a string")
    return value


def c_string(value: Any, what: str) -> bytes:
    """What of a name or value comes through to C: all before the first NUL."""
    return name_bytes(value, what).split(b"\0", 1)[0]


def name_text(value: Any, what: str) -> str:
    """A name as the layers below take it."""
    return c_string(value, what).decode("utf-8", "surrogateescape")


def optional_text(value: Any, what: str) -> str | None:
    return None if value is None else name_text(value, what)


def shown(text: str) -> str:
    """A name for the user. Bytes of it that are not UTF-8 are surrogate escapes, so that one such name does not hide all
    others in a list, and :func:`name_bytes` takes it back. (The binding raises UnicodeDecodeError, for good.)"""
    return text


def uint64(value: Any) -> int:
    """OverflowError where it does not fit; TypeError where it is not a number."""
    if type(value) is int and 0 <= value < _UINT64:
        return value
    number = _integer(value)
    if number < 0:
        raise OverflowError("can't convert negative value to uint64_t")
    if number >= _UINT64:
        raise OverflowError("Python int too large to convert to C unsigned long")
    return number


def int64(value: Any) -> int:
    """As :func:`uint64`, for what the binding takes for a signed number."""
    number = _integer(value)
    if not -_INT64 <= number < _INT64:
        raise OverflowError("Python int too large to convert to C long")
    return number


def uint32(value: Any) -> int:
    """As :func:`uint64`; an enumeration is one, too."""
    number = _integer(value)
    if number < 0:
        raise OverflowError("can't convert negative value to uint32_t")
    if number >= _UINT32:
        raise OverflowError("value too large to convert to uint32_t")
    return number


def uint8(value: Any) -> int:
    """As :func:`uint64`; a bool is one, too."""
    number = _integer(value)
    if not 0 <= number < _UINT8:
        raise OverflowError("value too large to convert to uint8_t")
    return number


def c_int(value: Any) -> int:
    number = _integer(value)
    if not -_INT <= number < _INT:
        raise OverflowError("value too large to convert to int")
    return number


def _integer(value: Any) -> int:
    # Compiled code takes whatever has __int__ for a C integer, a float too, and cuts it off.
    return int(value) if hasattr(type(value), "__int__") else operator.index(value)


def c_float(value: Any) -> float:
    """TypeError where it is not a number; what C's float makes of it otherwise."""
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"must be real number, not {type(value).__name__}")
    return ctypes.c_float(value).value


def shown_value(value: bytes) -> str:
    """A value as C shows it: what is before the first NUL. UnicodeDecodeError where that is not UTF-8."""
    return value.split(b"\0", 1)[0].decode("utf-8")


def room(buffer: Any) -> memoryview:
    """The bytes of a contiguous buffer that may be written to, flat. TypeError for what is none."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise TypeError("a buffer that is contiguous and may be written to is wanted")
    return view.cast("B")


def buffer(data: Any) -> Buffer:
    """The bytes of any contiguous buffer, flat. TypeError for what has none, str above all."""
    if isinstance(data, bytes | bytearray):
        return data
    try:
        return memoryview(data).cast("B")
    except TypeError as error:
        raise TypeError("data must be a byte string") from error


def wish(
    size: int,
    order: Any,
    features: Any,
    stripe_unit: Any,
    stripe_count: Any,
    data_pool: Any,
    order_type: Callable[[Any], int] = uint64,
) -> create.Wish:
    """What create, clone and copy are asked for, each number checked as its C type would."""
    return create.Wish(
        size,
        None if order is None else order_type(order),
        None if features is None else uint64(features),
        None if stripe_unit is None else uint64(stripe_unit),
        None if stripe_count is None else uint64(stripe_count),
        None if data_pool is None else name_text(data_pool, "data_pool"),
    )


def moment(stamp: UTime) -> datetime.datetime:
    """A time stamp of the cluster as the newest binding gives it: whole seconds, in UTC."""
    return datetime.datetime.fromtimestamp(stamp.sec, tz=datetime.UTC)
