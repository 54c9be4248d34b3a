"""Self-managed snapshot ids: made and given up by the monitor."""

from __future__ import annotations

from ctypes import byref, c_uint64, c_void_p

from rbd_native.rados._session import Context
from rbd_native.rados._watches import AioCall
from rbd_native.rados.port import Outcome


class CreateSnap(AioCall):
    """Value: the id."""

    __slots__ = ("_snap",)

    def submit(self, pointer: int, completion: c_void_p) -> int:
        self._snap = c_uint64()
        self.context.session.library.aio_ioctx_selfmanaged_snap_create(pointer, byref(self._snap), completion)
        return 0

    def result(self, rv: int, version: int) -> Outcome:
        return Outcome(rv) if rv < 0 else Outcome(0, self._snap.value)


class RemoveSnap(AioCall):
    __slots__ = ("_snap",)

    def __init__(self, context: Context, snap: int) -> None:
        super().__init__(context, f"snapshot {snap}")
        self._snap = snap

    def submit(self, pointer: int, completion: c_void_p) -> int:
        self.context.session.library.aio_ioctx_selfmanaged_snap_remove(pointer, self._snap, completion)
        return 0

    def result(self, rv: int, version: int) -> Outcome:
        return Outcome(min(rv, 0))
