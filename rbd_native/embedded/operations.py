"""What the port of an embedded cluster returns to be started: each is done then, in the caller's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rbd_native.engine import Resume
from rbd_native.rados import port
from rbd_native.rados.port import Outcome, Reply, SnapContext

if TYPE_CHECKING:
    from rbd_native.embedded.client import Io


class Reading(port.Operation):
    """A read, done when it is started."""

    __slots__ = ("_io", "_snap", "_steps")

    def __init__(self, io: Io, oid: str, steps: Sequence[Any], snap: int) -> None:
        self.oid = oid
        self._io = io
        self._steps = steps
        self._snap = snap

    def block(self) -> Reply:
        io = self._io
        if io.cluster.closed:
            return io.cluster.gone()
        return io.osd.read(io.entity, io.pool_id, io.namespace, self.oid, self._steps, self._snap)

    def start(self, resume: Resume) -> Reply:
        return self.block()


class Writing(port.Operation):
    """A write, done when it is started."""

    __slots__ = ("_io", "_mtime", "_snapc", "_steps")

    def __init__(self, io: Io, oid: str, steps: Sequence[Any], snapc: SnapContext, mtime: int | None) -> None:
        self.oid = oid
        self._io = io
        self._steps = steps
        self._snapc = snapc
        self._mtime = mtime

    def block(self) -> Reply:
        io = self._io
        if io.cluster.closed:
            return io.cluster.gone()
        return io.osd.write(io.entity, io.pool_id, io.namespace, self.oid, self._steps, self._snapc, self._mtime)

    def start(self, resume: Resume) -> Reply:
        return self.block()


class Asking(port.Call):
    """Another call, done when it is started."""

    __slots__ = ("_do", "what")

    def __init__(self, what: str, do: Callable[[], Outcome]) -> None:
        self.what = what
        self._do = do

    def start(self, resume: Resume) -> Outcome:
        return self._do()

    def block(self) -> Outcome:
        return self._do()
