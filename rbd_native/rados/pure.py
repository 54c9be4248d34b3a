"""The port over python-rados alone: for where its C handle cannot be had. It works, with less, and slowly.

Everything blocks here, so the coroutine faces run in worker threads. What python-rados 16 cannot say is refused with
EOPNOTSUPP: listing clones, zeroing (its arguments arrive swapped, which can end an OSD), payloads and keys that are not
text. Watchers are found by a notification. Allocation hints are dropped. A compound read is sent step by step, and again
if the object's version changed in between. The seq of a snapshot context cannot be given either; it is the newest id.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

from rbd_native.engine import PENDING, Resume
from rbd_native.native import threading
from rbd_native.rados._pure_steps import ROOM, read, write
from rbd_native.rados.cluster import RadosCluster, outcome_of
from rbd_native.rados.composed import ComposedCall, submit
from rbd_native.rados.port import (
    HEAD,
    Call,
    Capability,
    Exec,
    Io,
    ListWatchers,
    NotifyReply,
    OnNotify,
    OnWatchError,
    Operation,
    Outcome,
    RadosError,
    ReadStep,
    Reply,
    SnapContext,
    Watch,
    WriteStep,
)
from rbd_native.rados.watchers import find_watchers

_log = logging.getLogger(__name__)
_WORKERS: Final = 8

_kept: Final[set[Any]] = set()
"""What the garbage collector must not find unreachable: notifies under way, since librados alone knows of them, and closed
watches, since a callback may still be on its way to one."""


def cluster(rados: Any) -> RadosCluster:
    """The Cluster of a connected `rados.Rados`."""
    workers = ThreadPoolExecutor(_WORKERS, "rbd-native-rados")

    def blocking(function: Callable[[], Outcome], what: str = "") -> Call:
        return _Blocking(rados, workers, function, what)

    return RadosCluster(
        rados,
        Capability(0),
        lambda cluster, pool_id, namespace: PureIo(cluster, pool_id, namespace, workers, blocking),
        blocking,
    )


class _Blocking(Call):
    __slots__ = ("_function", "_rados", "_workers", "what")

    def __init__(self, rados: Any, workers: ThreadPoolExecutor, function: Callable[[], Outcome], what: str) -> None:
        self._rados = rados
        self._workers = workers
        self._function = function
        self.what = what

    def block(self) -> Outcome:
        if self._rados.state != "connected":
            return Outcome(-errno.ESHUTDOWN)
        return outcome_of(self._function)

    def start(self, resume: Resume) -> Any:
        return submit(self._workers, self.block, resume)


class _Operation(Operation):
    __slots__ = ("_function", "_io")

    def __init__(self, io: PureIo, oid: str, function: Callable[[], Reply]) -> None:
        super().__init__(oid)
        self._io = io
        self._function = function

    def block(self) -> Reply:
        if self._io.cluster.rados.state != "connected":
            return Reply(-errno.ESHUTDOWN)
        try:
            outcome = outcome_of(self._function)
        except UnicodeError:  # names that are not text
            return Reply(-errno.EOPNOTSUPP)
        reply: Reply = outcome.value if outcome.rv >= 0 else Reply(outcome.rv)
        return reply

    def start(self, resume: Resume) -> Any:
        return submit(self._io.workers, self.block, resume)


class PureIo(Io):
    """One namespace of one pool. Each operation has an ioctx to itself, of the stock for its snapshot or context."""

    cluster: RadosCluster

    def __init__(
        self,
        cluster: RadosCluster,
        pool_id: int,
        namespace: str,
        workers: ThreadPoolExecutor,
        blocking: Callable[..., Call],
    ) -> None:
        """RadosError with ENOENT where there is no such pool."""
        self.cluster = cluster
        self.pool_id = pool_id
        self.namespace = namespace
        self.workers = workers
        self._blocking = blocking
        self._stock: dict[Hashable, list[Any]] = {}
        opened = outcome_of(lambda: self._give(None, self._take(None)))
        if opened.rv < 0:
            raise RadosError(-opened.rv, f"pool {pool_id}")

    def _take(self, key: SnapContext | int | None) -> Any:
        try:
            return self._stock.setdefault(key, []).pop()
        except IndexError:
            pass  # none idle
        ioctx = self.cluster.rados.open_ioctx2(self.pool_id)
        if self.namespace:
            ioctx.set_namespace(self.namespace)
        if isinstance(key, SnapContext):
            ioctx.set_self_managed_snap_write(list(key.ids))
        elif key is not None:
            ioctx.set_read(key)
        return ioctx

    def _give(self, key: SnapContext | int | None, ioctx: Any) -> None:
        self._stock[key].append(ioctx)

    def _with(self, key: SnapContext | int | None, use: Callable[[Any], Any]) -> Any:
        ioctx = self._take(key)
        try:
            return use(ioctx)
        finally:
            self._give(key, ioctx)

    # --- operations ---

    def read(self, oid: str, steps: Sequence[ReadStep], *, snap: int = HEAD) -> Operation:
        if len(steps) == 1 and type(steps[0]) is ListWatchers:
            return find_watchers(self, oid)
        key = None if snap == HEAD else snap
        return _Operation(self, oid, lambda: self._with(key, lambda ioctx: read(ioctx, oid, steps)))

    def write(self, oid: str, steps: Sequence[WriteStep], *, snapc: SnapContext | None = None) -> Operation:
        return _Operation(self, oid, lambda: self._with(snapc, lambda ioctx: write(ioctx, oid, steps)))

    def execute(self, oid: str, step: Exec) -> Operation:
        def run(ioctx: Any) -> Reply:
            # Once only: the method writes, and output that does not fit is refused after it has run.
            _, output = ioctx.execute(oid, step.cls, step.method, bytes(step.data), ROOM * 16)
            return Reply(0, (output,), ioctx.get_last_version())

        return _Operation(self, oid, lambda: self._with(None, run))

    # --- watches ---

    def watch(self, oid: str, on_notify: OnNotify, on_error: OnWatchError, timeout: int = 0) -> Call:
        return self._blocking(lambda: Outcome(0, PureWatch(self, oid, on_notify, on_error, timeout)), oid)

    def notify(self, oid: str, payload: bytes, timeout_ms: int) -> Call:
        return _Notify(self, oid, payload, timeout_ms)

    def watching(self, oid: str, *arguments: Any) -> Any:
        """A rados.Watch."""
        return self.using(lambda ioctx: ioctx.watch(oid, *arguments))

    def closing(self, watch: Any) -> Call:
        return self._blocking(lambda: outcome_of(watch.close), "unwatch")

    def using(self, use: Callable[[Any], Any]) -> Any:
        """What it returns for an ioctx of the head."""
        return self._with(None, use)

    # --- snapshots ---

    def snap_create(self) -> Call:
        def create(ioctx: Any) -> Outcome:
            return Outcome(0, ioctx.create_self_managed_snap())

        return self._blocking(lambda: self._with(None, create), "snapshot")

    def snap_remove(self, snap: int) -> Call:
        return self._blocking(
            lambda: self._with(None, lambda ioctx: outcome_of(lambda: ioctx.remove_self_managed_snap(snap))),
            f"snapshot {snap}",
        )

    def rollback(self, oid: str, snap: int, snapc: SnapContext) -> Call:
        return self._blocking(
            lambda: self._with(snapc, lambda ioctx: outcome_of(lambda: ioctx.rollback_self_managed_snap(oid, snap))),
            oid,
        )

    # --- the rest ---

    async def list_objects(self) -> AsyncIterator[str]:
        ioctx = self._take(None)
        names: Iterator[Any] = iter(ioctx.list_objects())
        while page := await self._blocking(lambda: outcome_of(lambda: list(islice(names, 1000))), "list"):
            for found in page:
                yield found.key
        self._give(None, ioctx)

    def in_namespace(self, namespace: str) -> Io:
        return PureIo(self.cluster, self.pool_id, namespace, self.workers, self._blocking)


# --- watches ---------------------------------------------------------------------------------------------------------


class PureWatch(Watch):
    def __init__(self, io: PureIo, oid: str, on_notify: OnNotify, on_error: OnWatchError, timeout: int) -> None:
        """Registers it; raises what python-rados raises."""
        self._io = io
        self._guard = threading.Lock()
        self._open = True

        def notified(notify_id: int, notifier: int, cookie: int, payload: bytes) -> bytes:
            try:
                return bytes(on_notify(notifier, notify_id, payload)) if self._open else b""
            except Exception:  # python-rados would not acknowledge
                _log.exception("the handler of a watch on %r failed", oid)
                return b""

        def lost(cookie: int, code: int) -> None:
            try:
                on_error(abs(code))
            except Exception:
                _log.exception("the handler of a lost watch on %r failed", oid)

        self._watch = io.watching(oid, notified, lost, timeout)
        self.cookie = self._watch.get_id()

    def check(self) -> Outcome:
        if not self._open:
            return Outcome(-errno.ENOTCONN)
        if self._io.cluster.rados.state != "connected":
            return Outcome(-errno.ESHUTDOWN)
        return outcome_of(lambda: self._watch.check().total_seconds())

    def close(self) -> Call:
        if not self._open:
            return ComposedCall("unwatch", _nothing)
        self._open = False
        _kept.add(self)
        return self._io.closing(self._watch)


async def _nothing() -> Outcome:
    return Outcome(0)


class _Notify(Call):
    __slots__ = ("_io", "_payload", "_timeout", "what")

    def __init__(self, io: PureIo, oid: str, payload: bytes, timeout_ms: int) -> None:
        self._io = io
        self.what = oid
        self._payload = payload
        self._timeout = -(-timeout_ms // 1000) * 1000

    def start(self, resume: Resume) -> Any:
        if not self._payload.isascii():  # it encodes text as UTF-8 and cuts that off at the number of characters
            return Outcome(-errno.EOPNOTSUPP)

        def notified(_: Any, rv: int, acks: Any, timeouts: Any) -> None:
            _kept.discard(self)
            if rv < 0:
                resume(Outcome(rv))
                return
            answered = [(client, cookie, payload or b"") for client, cookie, payload in acks or ()]
            resume(Outcome(0, NotifyReply(answered, list(timeouts or ()))))

        def notify(ioctx: Any) -> Any:
            return ioctx.aio_notify(self.what, notified, self._payload.decode(), self._timeout)

        _kept.add(self)
        sent = outcome_of(lambda: self._io.using(notify))
        if sent.rv < 0:
            _kept.discard(self)
            return sent
        return PENDING
