"""Steps that librados offers to C++ only: an object's clones, its watchers, its exact modification time, and, of what C has
as a call that blocks, the rollback to a snapshot.

They are methods of a C++ operation that add one step to it. Such an operation is a pointer to its virtual table (which
these methods do not use) and one to the same structure that the C interface hands out, so a pair of pointers passes for
it, and the step then travels in a C operation: in a compound, by completion, at any snapshot. Where results lie in
memory is the layout of std::vector and std::list in GNU's library.

None of that is promised by anybody. :func:`probe` therefore tries it on an operation that is never sent: after one step
was added through C, C++ must count one. Where the symbols are missing or the count is wrong, the steps are not offered.

Source of the result types: rados_types.hpp and rados_types.h, public headers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_char, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Final, NamedTuple

from rbd_native.rados._libc import Library
from rbd_native.rados.port import HEAD, Clone, SnapSet, Watcher

_CLASS: Final = "_ZN8librados7v14_2_019ObjectReadOperation"
_SIZE: Final = "_ZN8librados7v14_2_015ObjectOperation4sizeEv"
_LIST_SNAPS: Final = _CLASS + "10list_snapsEPNS_10snap_set_tEPi"
_LIST_WATCHERS: Final = _CLASS + "13list_watchersEPNSt7__cxx114listI11obj_watch_tSaIS4_EEEPi"
_STAT: Final = _CLASS + "5stat2EPmP8timespecPi"
_ROLLBACK: Final = "_ZN8librados7v14_2_020ObjectWriteOperation25selfmanaged_snap_rollbackEm"
_DELETE: Final = "_ZdlPv"


class _Operation(ctypes.Structure):
    _fields_ = [("table", c_void_p), ("operation", c_void_p)]


class _Vector(ctypes.Structure):
    _fields_ = [("begin", c_void_p), ("end", c_void_p), ("capacity", c_void_p)]


class _Clone(ctypes.Structure):
    _fields_ = [("id", c_uint64), ("snaps", _Vector), ("overlap", _Vector), ("size", c_uint64)]


class _SnapSet(ctypes.Structure):
    _fields_ = [("clones", _Vector), ("seq", c_uint64)]


class _Node(ctypes.Structure):
    _fields_ = [("next", c_void_p), ("previous", c_void_p)]


class _List(_Node):
    _fields_ = [("count", c_size_t)]


class _Watcher(_Node):
    _fields_ = [("address", c_char * 256), ("client", c_int64), ("cookie", c_uint64), ("timeout", c_uint32)]


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", c_int64), ("nanoseconds", c_int64)]


class Extras(NamedTuple):
    """Functions that add a step to a read, each taking (operation, places of its results, place of its errno), or, which
    `rollback` does, to a write: (operation, snapshot id).

    Operations are in :func:`disguised` form. The results of the first two are C++ objects, whose memory `delete` frees.
    """

    list_snaps: Any
    list_watchers: Any
    stat: Any
    rollback: Any
    delete: Any


def disguised(operation: int) -> Any:
    """An operation of the C interface as an argument to a method of the C++ one."""
    return byref(_Operation(None, operation))


def probe(library: Library) -> Extras | None:
    """The extra steps, or None where this librados does not have them or lays its operations out differently."""
    try:
        size = library.handle[_SIZE]
        found = Extras(*(library.handle[name] for name in (_LIST_SNAPS, _LIST_WATCHERS, _STAT, _ROLLBACK, _DELETE)))
    except AttributeError:
        return None
    size.restype, size.argtypes = c_size_t, [c_void_p]
    for add, results in zip(found[:3], (1, 1, 2), strict=True):
        add.restype, add.argtypes = None, [c_void_p] * (results + 2)
    found.rollback.restype, found.rollback.argtypes = None, [c_void_p, c_uint64]
    found.delete.restype, found.delete.argtypes = None, [c_void_p]
    operation = library.create_read_op()
    before = size(disguised(operation))
    library.read_op_assert_exists(operation)
    after = size(disguised(operation))
    library.release_read_op(operation)
    return found if (before, after) == (0, 1) else None


class SnapsOutput:
    """Adds the step that lists clones, and holds its result until it is taken or freed."""

    def __init__(self, extras: Extras, operation: int) -> None:
        self._delete = extras.delete
        self._set = _SnapSet()
        self._rv = c_int()
        extras.list_snaps(disguised(operation), byref(self._set), byref(self._rv))

    def take(self) -> SnapSet:
        clones = tuple(_clone(clone) for clone in _items(self._set.clones, _Clone))
        return SnapSet(clones, self._set.seq)

    def free(self) -> None:
        for clone in _items(self._set.clones, _Clone):
            self._delete(clone.snaps.begin)
            self._delete(clone.overlap.begin)
        self._delete(self._set.clones.begin)


def _clone(clone: _Clone) -> Clone:
    numbers = [number.value for number in _items(clone.overlap, c_uint64)]
    pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    snaps = tuple(sorted(snap.value for snap in _items(clone.snaps, c_uint64)))
    identifier = clone.id
    return Clone(identifier, () if identifier == HEAD else snaps, pairs, clone.size)


def _items(vector: _Vector, kind: Any) -> Iterator[Any]:
    for address in range(vector.begin or 0, vector.end or 0, ctypes.sizeof(kind)):
        yield kind.from_address(address)


class WatchersOutput:
    """Adds the step that lists watchers, and holds its result until it is taken or freed."""

    def __init__(self, extras: Extras, operation: int) -> None:
        self._delete = extras.delete
        self._list = _List()
        self._list.next = self._list.previous = ctypes.addressof(self._list)
        self._rv = c_int()
        extras.list_watchers(disguised(operation), byref(self._list), byref(self._rv))

    def take(self) -> list[Watcher]:
        return [
            Watcher(node.address.decode("ascii", "replace"), node.client, node.cookie, node.timeout)
            for node in map(_Watcher.from_address, self._nodes())
        ]

    def free(self) -> None:
        for address in list(self._nodes()):
            self._delete(address)

    def _nodes(self) -> Iterator[int]:
        end = ctypes.addressof(self._list)
        address = self._list.next
        while address != end:
            yield address
            address = _Node.from_address(address).next
