"""The C handle inside a user's `rados.Rados`.

python-rados offers no way to it, so it is read from where the compiled extension type keeps it. Every assumption is
checked before its consequence is used, and memory is looked at in a way that cannot fault: through the kernel, which
answers EFAULT where there is none.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Any, Final

from rbd_native.rados._libc import Library

# Measured with python-rados 16.2.15: __basicsize__ of the types, and offsets in their instances.
_HEADER: Final = 16
_RADOS_SIZE: Final = 80
_RADOS_POINTER: Final = 16
_IOCTX_SIZE: Final = 88
_IOCTX_RADOS: Final = 16
_IOCTX_POINTER: Final = 24


def connection_of(ioctx: Any) -> Any:
    """The `rados.Rados` that a `rados.Ioctx` belongs to. TypeError where it has none."""
    import rados

    for referent in gc.get_referents(ioctx):  # it keeps it, but not as an attribute
        if isinstance(referent, rados.Rados):
            return referent
    raise TypeError(f"{type(ioctx).__name__} without a connection")


def find(ioctx: Any, connection: Any, library: Library) -> int | None:
    """The rados_t of the connection of an open ioctx, or None unless everything about it is as expected."""
    import rados

    sizes = object.__basicsize__, rados.Rados.__basicsize__, rados.Ioctx.__basicsize__
    if sizes != (_HEADER, _RADOS_SIZE, _IOCTX_SIZE):
        return None
    if _word(id(ioctx) + _IOCTX_RADOS) != id(connection):
        return None
    cluster, pointer = _word(id(connection) + _RADOS_POINTER), _word(id(ioctx) + _IOCTX_POINTER)
    if not (cluster and pointer and _word(cluster) and _word(pointer)):
        return None
    if library.ioctx_get_cluster(pointer) != cluster or library.ioctx_get_id(pointer) != ioctx.get_pool_id():
        return None
    return cluster


def _word(address: int) -> int | None:
    """The eight bytes at an address as a number; None where nothing can be read."""
    out, into = os.pipe()
    try:
        written = ctypes.CDLL(None).write(into, ctypes.c_void_p(address), ctypes.c_size_t(8))
        return int.from_bytes(os.read(out, 8), "little") if written == 8 else None
    finally:
        os.close(out)
        os.close(into)
