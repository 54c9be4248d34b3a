"""Steps of the port as steps of a C operation.

`WRITERS` and `READERS` say per type how a step is added. What a reading step returns is an output: it owns the places
where librados will store the result, yields it once with `take`, and gives memory back with `free`; both are for after
the operation, and `free` also serves operations that failed or were never sent.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from ctypes import byref, c_char_p, c_int, c_size_t, c_ubyte, c_uint64, c_void_p, string_at
from functools import partial
from typing import Any, Final, Protocol

from rbd_native.rados import port
from rbd_native.rados._buffers import Pin, blank, pinned
from rbd_native.rados._cxx import Extras, SnapsOutput, Timespec, WatchersOutput, disguised
from rbd_native.rados._libc import Library
from rbd_native.rados.port import ObjectStat, OmapPage

_EXCLUSIVE: Final = 1
_EQUAL: Final = 1
_FAIL_OK: Final = 2


class Unsupported(Exception):
    """This librados cannot send the step."""


class _Table(dict[type, Callable[["Toolbox", int, Any], Any]]):
    """What adds a step, by its type. TypeError for a step of another kind of operation."""

    def __missing__(self, kind: type) -> Any:
        raise TypeError(f"{kind.__name__} is not a step of this kind of operation")


class Output(Protocol):
    def take(self) -> Any: ...

    def free(self) -> None: ...


class Toolbox:
    """What steps are added with."""

    def __init__(self, library: Library, extras: Extras | None) -> None:
        self.library = library
        self.extras = extras


# --- writes ----------------------------------------------------------------------------------------------------------


def _copying(name: str, library: Library, operation: int, data: port.Buffer, *rest: Any) -> None:
    if type(data) is bytes:
        length = len(data)
        library.copying(name, length)(operation, data, length, *rest)
    else:
        pinned(data, lambda place, length: library.copying(name, length)(operation, place, length, *rest))


def _cmp_ext(tools: Toolbox, operation: int, step: port.CmpExt) -> None:
    _copying("write_op_cmpext", tools.library, operation, step.data, step.offset, None)


def _create(tools: Toolbox, operation: int, step: port.Create) -> None:
    tools.library.write_op_create(operation, _EXCLUSIVE if step.exclusive else 0, None)


def _write(tools: Toolbox, operation: int, step: port.Write) -> None:
    _copying("write_op_write", tools.library, operation, step.data, step.offset)


def _write_full(tools: Toolbox, operation: int, step: port.WriteFull) -> None:
    _copying("write_op_write_full", tools.library, operation, step.data)


def _append(tools: Toolbox, operation: int, step: port.Append) -> None:
    _copying("write_op_append", tools.library, operation, step.data)


def _write_same(tools: Toolbox, operation: int, step: port.WriteSame) -> None:
    _copying("write_op_writesame", tools.library, operation, step.data, step.length, step.offset)


def effective(step: Any) -> bool:
    """Whether a step of a write may be sent. Zeroing nothing may not: it fails an assertion in the OSD and ends it."""
    if type(step) is port.FailOk:
        return effective(step.step)
    return type(step) is not port.Zero or bool(step.length)


def _zero(tools: Toolbox, operation: int, step: port.Zero) -> None:
    if effective(step):
        tools.library.write_op_zero(operation, step.offset, step.length)


def _truncate(tools: Toolbox, operation: int, step: port.Truncate) -> None:
    tools.library.write_op_truncate(operation, step.size)


def _remove(tools: Toolbox, operation: int, step: port.Remove) -> None:
    tools.library.write_op_remove(operation)


def _write_exec(tools: Toolbox, operation: int, step: port.Exec) -> None:
    data = bytes(step.data)
    tools.library.write_op_exec(operation, text(step.cls), text(step.method), data, len(data), None)


def _set_xattr(tools: Toolbox, operation: int, step: port.SetXattr) -> None:
    tools.library.write_op_setxattr(operation, text(step.name), step.value, len(step.value))


def _rm_xattr(tools: Toolbox, operation: int, step: port.RmXattr) -> None:
    tools.library.write_op_rmxattr(operation, text(step.name))


def _omap_set(tools: Toolbox, operation: int, step: port.OmapSet) -> None:
    keys, key_lengths = _strings(list(step.values))
    values, value_lengths = _strings(list(step.values.values()))
    tools.library.write_op_omap_set2(operation, keys, values, key_lengths, value_lengths, len(step.values))


def _omap_remove(tools: Toolbox, operation: int, step: port.OmapRemove) -> None:
    tools.library.write_op_omap_rm_keys2(operation, *_strings(step.keys), len(step.keys))


def _omap_remove_range(tools: Toolbox, operation: int, step: port.OmapRemoveRange) -> None:
    # A range that ends before it begins is empty; an OSD in memory would run on, past the end.
    first, last = step.first, max(step.first, step.last)
    tools.library.write_op_omap_rm_range2(operation, first, len(first), last, len(last))


def _omap_clear(tools: Toolbox, operation: int, step: port.OmapClear) -> None:
    tools.library.write_op_omap_clear(operation)


def _omap_cmp(tools: Toolbox, operation: int, step: port.OmapCmp) -> None:
    key, value = step.key, step.value
    tools.library.write_op_omap_cmp2(operation, key, _EQUAL, value, len(key), len(value), None)


def _write_assert_exists(tools: Toolbox, operation: int, step: port.AssertExists) -> None:
    tools.library.write_op_assert_exists(operation)


def _write_assert_version(tools: Toolbox, operation: int, step: port.AssertVersion) -> None:
    tools.library.write_op_assert_version(operation, step.version)


def _alloc_hint(tools: Toolbox, operation: int, step: port.AllocHint) -> None:
    tools.library.write_op_set_alloc_hint2(operation, *step)


def _fail_ok(tools: Toolbox, operation: int, step: port.FailOk) -> None:
    inner = step.step
    if effective(inner):  # the flag is for the step added last
        WRITERS[type(inner)](tools, operation, inner)
        tools.library.write_op_set_flags(operation, _FAIL_OK)


WRITERS: Final = _Table(
    {
        port.AllocHint: _alloc_hint,
        port.Append: _append,
        port.AssertExists: _write_assert_exists,
        port.AssertVersion: _write_assert_version,
        port.CmpExt: _cmp_ext,
        port.Create: _create,
        port.Exec: _write_exec,
        port.FailOk: _fail_ok,
        port.OmapClear: _omap_clear,
        port.OmapCmp: _omap_cmp,
        port.OmapRemove: _omap_remove,
        port.OmapRemoveRange: _omap_remove_range,
        port.OmapSet: _omap_set,
        port.Remove: _remove,
        port.RmXattr: _rm_xattr,
        port.SetXattr: _set_xattr,
        port.Truncate: _truncate,
        port.Write: _write,
        port.WriteFull: _write_full,
        port.WriteSame: _write_same,
        port.Zero: _zero,
    }
)


def text(name: str) -> bytes:
    """A name as a C string. ValueError where it holds a NUL, which would silently make it another name."""
    raw = name.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError(f"NUL in a name: {name!r}")
    return raw


def _strings(items: Any) -> tuple[Any, Any]:
    """Arrays of the addresses and of the lengths of byte strings."""
    count = len(items)
    return (c_char_p * count)(*items), (c_size_t * count)(*map(len, items))


# --- reads -----------------------------------------------------------------------------------------------------------


class _Place(ctypes.Structure):
    """Where librados stores the result of a step."""

    _fields_ = [("pointer", c_void_p), ("length", c_size_t), ("rv", c_int), ("more", c_ubyte)]


_LENGTH: Final = _Place.length.offset
_RV: Final = _Place.rv.offset
_MORE: Final = _Place.more.offset


def _bytes(place: c_void_p, length: c_size_t) -> bytes:
    return string_at(place.value, length.value) if place.value else b""


class _Data:
    def __init__(self, tools: Toolbox, operation: int, step: port.Read) -> None:
        self._buffer = blank(step.length)
        self._place = place = _Place()
        tools.library.read_op_read(
            operation, step.offset, step.length, self._buffer, byref(place, _LENGTH), byref(place, _RV)
        )

    def take(self) -> bytes:
        length = self._place.length
        return self._buffer if length == len(self._buffer) else self._buffer[:length]

    def free(self) -> None:
        """The buffer is ours."""


class _Into:
    def __init__(self, tools: Toolbox, operation: int, step: port.ReadInto) -> None:
        self._pin = Pin(step.room, writable=True)
        self._place = place = _Place()
        tools.library.read_op_read(
            operation, step.offset, self._pin.length, self._pin.address, byref(place, _LENGTH), byref(place, _RV)
        )

    def take(self) -> int:
        length: int = self._place.length
        return length

    def free(self) -> None:
        self._pin.release()


class _Stat:
    def __init__(self, tools: Toolbox, operation: int, step: port.Stat) -> None:
        self._size = c_uint64()
        self._rv = c_int()
        self._time = Timespec()
        if tools.extras is not None:
            add = partial(tools.extras.stat, disguised(operation))
        else:  # a time_t: the nanoseconds stay zero
            add = partial(tools.library.read_op_stat, operation)
        add(byref(self._size), byref(self._time), byref(self._rv))

    def take(self) -> ObjectStat:
        return ObjectStat(self._size.value, self._time.seconds + self._time.nanoseconds / 1e9)

    def free(self) -> None:
        """All places are ours."""


class _Exec:
    def __init__(self, tools: Toolbox, operation: int, step: port.Exec) -> None:
        self._free = tools.library.buffer_free
        self._place = place = _Place()
        data = bytes(step.data)
        tools.library.read_op_exec(
            operation,
            text(step.cls),
            text(step.method),
            data,
            len(data),
            byref(place),
            byref(place, _LENGTH),
            byref(place, _RV),
        )

    def take(self) -> bytes:
        place = self._place
        return string_at(place.pointer, place.length) if place.pointer else b""

    def free(self) -> None:
        if self._place.pointer:
            self._free(self._place.pointer)


class Xattr:
    """One out of all: librados has no step for a single one, and so none that would fail where it is absent."""

    def __init__(self, tools: Toolbox, operation: int, step: port.GetXattr) -> None:
        self._library = tools.library
        self._name = text(step.name)
        self._place = place = _Place()
        self._found: dict[bytes, bytes] | None = None
        tools.library.read_op_getxattrs(operation, byref(place), byref(place, _RV))

    @property
    def absent(self) -> bool:
        """Whether the step was done, and should have failed."""
        return bool(self._place.pointer) and not self._place.rv and self._name not in self._xattrs()

    def take(self) -> bytes:
        return self._xattrs()[self._name]

    def _xattrs(self) -> dict[bytes, bytes]:
        if self._found is None:
            self._found = dict(self._all())
        return self._found

    def _all(self) -> Iterator[tuple[bytes, bytes]]:
        name, value, length = c_void_p(), c_void_p(), c_size_t()
        while not self._library.getxattrs_next(self._place.pointer, byref(name), byref(value), byref(length)):
            if not name.value:
                return
            yield string_at(name.value), _bytes(value, length)

    def free(self) -> None:
        if self._place.pointer:
            self._library.getxattrs_end(self._place.pointer)


class _Omap:
    """What both omap reads have in common: an iterator."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._place = _Place()

    def entries(self) -> dict[bytes, bytes]:
        return dict(self._all())

    def _all(self) -> Iterator[tuple[bytes, bytes]]:
        key, value, key_length, length = c_void_p(), c_void_p(), c_size_t(), c_size_t()
        places = byref(key), byref(value), byref(key_length), byref(length)
        while not self._library.omap_get_next2(self._place.pointer, *places):
            if not key.value:
                return
            yield _bytes(key, key_length), _bytes(value, length)

    def free(self) -> None:
        if self._place.pointer:
            self._library.omap_get_end(self._place.pointer)


class _OmapPage(_Omap):
    def __init__(self, tools: Toolbox, operation: int, step: port.OmapGet) -> None:
        super().__init__(tools.library)
        if b"\0" in step.after or b"\0" in step.prefix:
            raise Unsupported("librados takes the start and prefix of an omap listing as C strings")
        place = self._place
        tools.library.read_op_omap_get_vals2(
            operation, step.after, step.prefix, step.limit, byref(place), byref(place, _MORE), byref(place, _RV)
        )

    def take(self) -> OmapPage:
        return OmapPage(self.entries(), bool(self._place.more))


class _OmapByKeys(_Omap):
    def __init__(self, tools: Toolbox, operation: int, step: port.OmapGetByKeys) -> None:
        super().__init__(tools.library)
        place = self._place
        keys, lengths = _strings(step.keys)
        tools.library.read_op_omap_get_vals_by_keys2(
            operation, keys, len(step.keys), lengths, byref(place), byref(place, _RV)
        )

    def take(self) -> dict[bytes, bytes]:
        return self.entries()


def _snaps(tools: Toolbox, operation: int, step: port.ListSnaps) -> Output:
    if tools.extras is None:
        raise Unsupported("this librados does not list snapshots of an object")
    return SnapsOutput(tools.extras, operation)


def _watchers(tools: Toolbox, operation: int, step: port.ListWatchers) -> Output:
    if tools.extras is None:
        raise Unsupported("this librados does not list watchers")
    return WatchersOutput(tools.extras, operation)


def _read_assert_exists(tools: Toolbox, operation: int, step: port.AssertExists) -> None:
    tools.library.read_op_assert_exists(operation)


def _read_assert_version(tools: Toolbox, operation: int, step: port.AssertVersion) -> None:
    tools.library.read_op_assert_version(operation, step.version)


def _read_cmp_ext(tools: Toolbox, operation: int, step: port.CmpExt) -> None:
    _copying("read_op_cmpext", tools.library, operation, step.data, step.offset, None)


READERS: Final = _Table(
    {
        port.AssertExists: _read_assert_exists,
        port.AssertVersion: _read_assert_version,
        port.CmpExt: _read_cmp_ext,
        port.Exec: _Exec,
        port.GetXattr: Xattr,
        port.ListSnaps: _snaps,
        port.ListWatchers: _watchers,
        port.OmapGet: _OmapPage,
        port.OmapGetByKeys: _OmapByKeys,
        port.Read: _Data,
        port.ReadInto: _Into,
        port.Stat: _Stat,
    }
)
