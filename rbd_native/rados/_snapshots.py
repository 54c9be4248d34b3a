"""Self-managed snapshots: ids, made and given up by the monitor, and the way back to one."""

from __future__ import annotations

from ctypes import byref, c_uint64, c_void_p

from rbd_native.rados._cxx import Extras, disguised
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


class RollBack(AioCall):
    """Make an object's head what it was at a snapshot."""

    __slots__ = ("_extras", "_name", "_operation", "_snap")

    def __init__(self, context: Context, oid: str, name: bytes, snap: int, extras: Extras) -> None:
        super().__init__(context, oid)
        self._extras = extras
        self._name = name
        self._snap = snap
        self._operation = 0

    def submit(self, pointer: int, completion: c_void_p) -> int:
        library = self.context.session.library
        self._operation = library.create_write_op()
        self._extras.rollback(disguised(self._operation), self._snap)
        rv: int = library.aio_write_op_operate(self._operation, pointer, completion, self._name, None, 0)
        return rv

    def result(self, rv: int, version: int) -> Outcome:
        if self._operation:
            self.context.session.library.release_write_op(self._operation)
            self._operation = 0
        return Outcome(min(rv, 0))
