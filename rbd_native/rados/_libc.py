"""The C interface of librados through ctypes: one table of prototypes, bound to the library that python-rados loaded.

Two ways of calling it. A function of `_QUICK` only touches memory of this process, so it is called with the interpreter
lock held (`ctypes.PyDLL`), which saves giving the lock away and getting it back. Everything that may wait, or that copies
more than a little, gives the lock away (`ctypes.CDLL`): a completion that needs the lock must never find it held by
somebody who waits for that completion.

Source of the prototypes: librados.h, the public header.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_ubyte, c_uint32, c_uint64, c_void_p
from typing import Any, Final

SONAME: Final = "librados.so.2"
"""Unchanged from Ceph 0.2x to 20."""

_HANDLE = c_void_p
_OP = c_void_p
_OUT = c_void_p  # where a result is stored: byref of something, or None
_DATA = c_void_p  # `bytes` or an address

NOTIFIED: Final = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_uint64, c_uint64, c_void_p, c_size_t)
WATCH_LOST: Final = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_int)

_Prototypes = dict[str, tuple[Any, ...]]  # name without "rados_" -> (result, *arguments)

_QUICK: Final[_Prototypes] = {
    # completions
    "aio_create_completion2": (c_int, c_void_p, c_void_p, _OUT),
    "aio_get_return_value": (c_int, _HANDLE),
    "aio_get_version": (c_uint64, _HANDLE),
    "aio_release": (None, _HANDLE),
    # ioctxs
    "get_last_version": (c_uint64, _HANDLE),
    "ioctx_get_cluster": (c_void_p, _HANDLE),
    "ioctx_get_id": (c_int64, _HANDLE),
    "ioctx_set_namespace": (None, _HANDLE, c_char_p),
    "ioctx_snap_set_read": (None, _HANDLE, c_uint64),
    "ioctx_selfmanaged_snap_set_write_ctx": (c_int, _HANDLE, c_uint64, c_void_p, c_int),
    # building a read
    "create_read_op": (_OP,),
    "release_read_op": (None, _OP),
    "read_op_assert_exists": (None, _OP),
    "read_op_assert_version": (None, _OP, c_uint64),
    "read_op_read": (None, _OP, c_uint64, c_size_t, _DATA, _OUT, _OUT),
    "read_op_stat": (None, _OP, _OUT, _OUT, _OUT),
    "read_op_exec": (None, _OP, c_char_p, c_char_p, _DATA, c_size_t, _OUT, _OUT, _OUT),
    "read_op_getxattrs": (None, _OP, _OUT, _OUT),
    "read_op_omap_get_vals2": (None, _OP, c_char_p, c_char_p, c_uint64, _OUT, _OUT, _OUT),
    "read_op_omap_get_vals_by_keys2": (None, _OP, c_void_p, c_size_t, c_void_p, _OUT, _OUT),
    # building a write
    "create_write_op": (_OP,),
    "release_write_op": (None, _OP),
    "write_op_set_flags": (None, _OP, c_int),
    "write_op_set_alloc_hint2": (None, _OP, c_uint64, c_uint64, c_uint32),
    "write_op_assert_exists": (None, _OP),
    "write_op_assert_version": (None, _OP, c_uint64),
    "write_op_create": (None, _OP, c_int, c_char_p),
    "write_op_remove": (None, _OP),
    "write_op_truncate": (None, _OP, c_uint64),
    "write_op_zero": (None, _OP, c_uint64, c_uint64),
    "write_op_exec": (None, _OP, c_char_p, c_char_p, _DATA, c_size_t, _OUT),
    "write_op_setxattr": (None, _OP, c_char_p, _DATA, c_size_t),
    "write_op_rmxattr": (None, _OP, c_char_p),
    "write_op_omap_cmp2": (None, _OP, _DATA, c_ubyte, _DATA, c_size_t, c_size_t, _OUT),
    "write_op_omap_set2": (None, _OP, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t),
    "write_op_omap_rm_keys2": (None, _OP, c_void_p, c_void_p, c_size_t),
    "write_op_omap_rm_range2": (None, _OP, _DATA, c_size_t, _DATA, c_size_t),
    "write_op_omap_clear": (None, _OP),
    # results
    "buffer_free": (None, c_void_p),
    "omap_get_next2": (c_int, _HANDLE, _OUT, _OUT, _OUT, _OUT),
    "omap_get_end": (None, _HANDLE),
    "getxattrs_next": (c_int, _HANDLE, _OUT, _OUT, _OUT),
    "getxattrs_end": (None, _HANDLE),
    "decode_notify_response": (c_int, c_void_p, c_size_t, _OUT, _OUT, _OUT, _OUT),
    "free_notify_response": (None, c_void_p, c_size_t, c_void_p),
    "object_list_free": (None, c_size_t, c_void_p),
    "object_list_cursor_free": (None, _HANDLE, c_void_p),
    "object_list_is_end": (c_int, _HANDLE, c_void_p),
}

_COPYING: Final[_Prototypes] = {
    # The data is copied here, before they return. Bound both ways: see Library.writer.
    "read_op_cmpext": (None, _OP, _DATA, c_size_t, c_uint64, _OUT),
    "write_op_cmpext": (None, _OP, _DATA, c_size_t, c_uint64, _OUT),
    "write_op_write": (None, _OP, _DATA, c_size_t, c_uint64),
    "write_op_write_full": (None, _OP, _DATA, c_size_t),
    "write_op_append": (None, _OP, _DATA, c_size_t),
    "write_op_writesame": (None, _OP, _DATA, c_size_t, c_size_t, c_uint64),
}

_WAITING: Final[_Prototypes] = {
    "ioctx_create2": (c_int, _HANDLE, c_int64, _OUT),
    "ioctx_destroy": (None, _HANDLE),
    # in this thread
    "read": (c_int, _HANDLE, c_char_p, _DATA, c_size_t, c_uint64),
    "write": (c_int, _HANDLE, c_char_p, _DATA, c_size_t, c_uint64),
    "write_full": (c_int, _HANDLE, c_char_p, _DATA, c_size_t),
    "remove": (c_int, _HANDLE, c_char_p),
    "read_op_operate": (c_int, _OP, _HANDLE, c_char_p, c_int),
    "write_op_operate2": (c_int, _OP, _HANDLE, c_char_p, c_void_p, c_int),
    "ioctx_selfmanaged_snap_rollback": (c_int, _HANDLE, c_char_p, c_uint64),
    "object_list_begin": (_HANDLE, _HANDLE),
    "object_list_end": (_HANDLE, _HANDLE),
    "object_list": (c_int, _HANDLE, _HANDLE, _HANDLE, c_size_t, c_void_p, c_size_t, c_void_p, _OUT),
    # by completion; these too may wait, for their share of what may be under way
    "aio_read": (c_int, _HANDLE, c_char_p, _HANDLE, _DATA, c_size_t, c_uint64),
    "aio_write": (c_int, _HANDLE, c_char_p, _HANDLE, _DATA, c_size_t, c_uint64),
    "aio_write_full": (c_int, _HANDLE, c_char_p, _HANDLE, _DATA, c_size_t),
    "aio_remove": (c_int, _HANDLE, c_char_p, _HANDLE),
    "aio_read_op_operate": (c_int, _OP, _HANDLE, _HANDLE, c_char_p, c_int),
    "aio_write_op_operate": (c_int, _OP, _HANDLE, _HANDLE, c_char_p, c_void_p, c_int),
    "aio_cancel": (c_int, _HANDLE, _HANDLE),
    "aio_ioctx_selfmanaged_snap_create": (None, _HANDLE, _OUT, _HANDLE),
    "aio_ioctx_selfmanaged_snap_remove": (None, _HANDLE, c_uint64, _HANDLE),
    # watch and notify
    "aio_watch2": (c_int, _HANDLE, c_char_p, _HANDLE, _OUT, NOTIFIED, WATCH_LOST, c_uint32, c_void_p),
    "aio_unwatch": (c_int, _HANDLE, c_uint64, _HANDLE),
    "watch_check": (c_int, _HANDLE, c_uint64),
    "aio_watch_flush": (c_int, _HANDLE, _HANDLE),
    "notify_ack": (c_int, _HANDLE, c_char_p, c_uint64, c_uint64, _DATA, c_int),
    "aio_notify": (c_int, _HANDLE, c_char_p, _HANDLE, _DATA, c_int, c_uint64, _OUT, _OUT),
}

_LARGE: Final = 32768
"""From this size on a copy is long enough to let other threads run meanwhile."""


class Library:
    """The functions of librados, named without their prefix.

    OSError where no librados is loaded in this process, AttributeError where it lacks a function.
    """

    def __init__(self) -> None:
        mode = ctypes.DEFAULT_MODE | os.RTLD_NOLOAD
        quick, waiting = ctypes.PyDLL(SONAME, mode), ctypes.CDLL(SONAME, mode)
        self._bind(quick, _QUICK)
        self._bind(waiting, _WAITING)
        self._bind(quick, _COPYING)
        self._bind(waiting, _COPYING, suffix="_large")
        self._copying = {name: (getattr(self, name), getattr(self, name + "_large")) for name in _COPYING}
        self.handle = quick

    def _bind(self, source: ctypes.CDLL, prototypes: _Prototypes, suffix: str = "") -> None:
        for name, (result, *arguments) in prototypes.items():
            function = source[f"rados_{name}"]  # a function object of its own, unlike the attribute
            function.restype, function.argtypes = result, arguments
            setattr(self, name + suffix, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"librados function {name} is not declared")

    def copying(self, name: str, length: int) -> Any:
        """The function that copies `length` bytes: with the interpreter lock held unless they are many."""
        return self._copying[name][length >= _LARGE]
