"""What the synchronous and the asynchronous half of the `rados`-shaped Ioctx share: its state, and the way to the port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rbd_native.embedded.client import Io
from rbd_native.embedded.rados_errors import IoctxStateError, make_ex
from rbd_native.native import threading
from rbd_native.rados import port
from rbd_native.rados.port import HEAD, Reply, SnapContext

if TYPE_CHECKING:
    from rbd_native.embedded.rados_module import Rados
    from rbd_native.embedded.rados_ops import Completion

LIBRADOS_OPERATION_NOFLAG: Final = 0

NO_SNAPS: Final = SnapContext(0, ())
_READ_ONLY: Final = port.failure(30)  # EROFS: a snapshot is being read


class IoctxBase:
    """A pool and a namespace, with the snapshots to write under and the one to read."""

    def __init__(self, rados: Rados, name: str, io: Io) -> None:
        self.rados = rados
        self.name = name
        self.state = "open"
        self.lock = threading.Lock()
        self.complete_completions: list[Completion] = []
        self.safe_completions: list[Completion] = []
        self._io = io
        self._snapc = NO_SNAPS
        self._snap = HEAD
        self._last_version = 0

    @property
    def rbd_native_port(self) -> port.Io:
        """This pool and namespace as the port that rbd_native works on."""
        self.require_ioctx_open()
        return self._io

    @property
    def nspace(self) -> str:
        return self._io.namespace

    @property
    def locator_key(self) -> str:
        return ""

    def require_ioctx_open(self) -> None:
        if self.state != "open":
            raise IoctxStateError("The pool is closed")

    def _read(self, oid: str, steps: Sequence[Any]) -> Reply:
        return self._done(self._io.read(oid, steps, snap=self._snap).block())

    def _write(self, oid: str, steps: Sequence[Any], mtime: int | None = None) -> Reply:
        if self._snap != HEAD:
            return _READ_ONLY
        return self._done(self._io.write(oid, steps, snapc=self._snapc, mtime=mtime).block())

    def _done(self, reply: Reply) -> Reply:
        self._last_version = reply.version
        return reply

    def _ask(self, oid: str, step: Any, failure: str) -> Any:
        """The output of one step; `failure` says what failed."""
        self.require_ioctx_open()
        reply = self._read(oid, (step,))
        if reply.rv < 0:
            raise make_ex(reply.rv, failure)
        return reply.outs[0]

    def _tell(self, oid: str, step: Any, failure: str) -> None:
        self.require_ioctx_open()
        reply = self._write(oid, (step,))
        if reply.rv < 0:
            raise make_ex(reply.rv, failure)

    def _mon(self, call: port.Call, failure: str) -> Any:
        """The value of another call."""
        self.require_ioctx_open()
        outcome = call.block()
        if outcome.rv < 0:
            raise make_ex(outcome.rv, failure)
        return outcome.value
