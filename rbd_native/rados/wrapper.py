"""A port around a port: everything a client asks for passes an :class:`Interceptor` on its way.

    io = wrap(io, Trace())
    io = wrap(wrap(io, Faults()), Schedule(seed=7))

The wrapped Io's cluster is wrapped with it, so what is reached from there (another pool, another namespace) is too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from rbd_native.engine import Suspension
from rbd_native.rados.port import (
    HEAD,
    Call,
    Cluster,
    Exec,
    Io,
    OnNotify,
    OnWatchError,
    Operation,
    Outcome,
    ReadStep,
    SnapContext,
    Watch,
    WriteStep,
)


class Request(NamedTuple):
    """What a client (by its id) asks for. `kind` is the name of the port's method, `unwatch` for closing a watch."""

    kind: str
    oid: str = ""
    steps: tuple[Any, ...] = ()
    snap: int = HEAD
    snapc: SnapContext | None = None
    pool_id: int = -1
    namespace: str = ""
    client: int = 0


class Interceptor:
    """By default, lets everything pass."""

    def operation(self, request: Request, inner: Operation) -> Operation:
        """What is used in place of an operation on an object."""
        return inner

    def call(self, request: Request, inner: Call) -> Call:
        """What is used in place of any other call."""
        return inner

    def hears(self) -> bool:
        """Whether notifications reach the client."""
        return True

    def sleep(self, seconds: float, inner: Suspension) -> Suspension:
        """What is used in place of waiting."""
        return inner


def wrap(io: Io, interceptor: Interceptor) -> Io:
    """The same Io, with everything asked of it or of its cluster passing the interceptor."""
    return WrappedIo(WrappedCluster(io.cluster, interceptor), io, interceptor)


class WrappedIo(Io):
    def __init__(self, cluster: WrappedCluster, inner: Io, interceptor: Interceptor) -> None:
        self.cluster: WrappedCluster = cluster
        self.pool_id = inner.pool_id
        self.namespace = inner.namespace
        self._inner = inner
        self._interceptor = interceptor

    def _request(self, kind: str, oid: str = "", steps: Sequence[Any] = (), **rest: Any) -> Request:
        client = self.cluster.client
        return Request(kind, oid, tuple(steps), pool_id=self.pool_id, namespace=self.namespace, client=client, **rest)

    def _call(self, inner: Call, kind: str, oid: str = "", steps: Sequence[Any] = (), **rest: Any) -> Call:
        return self._interceptor.call(self._request(kind, oid, steps, **rest), inner)

    def read(self, oid: str, steps: Sequence[ReadStep], *, snap: int = HEAD) -> Operation:
        request = self._request("read", oid, steps, snap=snap)
        return self._interceptor.operation(request, self._inner.read(oid, steps, snap=snap))

    def write(self, oid: str, steps: Sequence[WriteStep], *, snapc: SnapContext | None = None) -> Operation:
        request = self._request("write", oid, steps, snapc=snapc)
        return self._interceptor.operation(request, self._inner.write(oid, steps, snapc=snapc))

    def execute(self, oid: str, step: Exec) -> Operation:
        return self._interceptor.operation(self._request("execute", oid, (step,)), self._inner.execute(oid, step))

    def watch(self, oid: str, on_notify: OnNotify, on_error: OnWatchError, timeout: int = 0) -> Call:
        hears = self._interceptor.hears

        def notified(client: int, notify_id: int, payload: bytes) -> bytes:
            return on_notify(client, notify_id, payload) if hears() else b""

        def lost(code: int) -> None:
            if hears():
                on_error(code)

        inner = _Watching(self._inner.watch(oid, notified, lost, timeout), self._interceptor, self._request("unwatch", oid))
        return self._call(inner, "watch", oid)

    def notify(self, oid: str, payload: bytes, timeout_ms: int) -> Call:
        return self._call(self._inner.notify(oid, payload, timeout_ms), "notify", oid, (payload,))

    def snap_create(self) -> Call:
        return self._call(self._inner.snap_create(), "snap_create")

    def snap_remove(self, snap: int) -> Call:
        return self._call(self._inner.snap_remove(snap), "snap_remove", snap=snap)

    def rollback(self, oid: str, snap: int, snapc: SnapContext) -> Call:
        return self._call(self._inner.rollback(oid, snap, snapc), "rollback", oid, snap=snap, snapc=snapc)

    def list_objects(self) -> AsyncIterator[str]:
        return self._inner.list_objects()

    def in_namespace(self, namespace: str) -> Io:
        return WrappedIo(self.cluster, self._inner.in_namespace(namespace), self._interceptor)


class _Watching(Call):
    """Registers a watch, and wraps it."""

    __slots__ = ("_inner", "_interceptor", "_unwatch", "what")

    def __init__(self, inner: Call, interceptor: Interceptor, unwatch: Request) -> None:
        self._inner = inner
        self._interceptor = interceptor
        self._unwatch = unwatch
        self.what = inner.what

    def _wrapped(self, outcome: Any) -> Any:
        if not isinstance(outcome, Outcome) or outcome.rv < 0:
            return outcome
        return Outcome(outcome.rv, WrappedWatch(outcome.value, self._interceptor, self._unwatch))

    def start(self, resume: Any) -> Any:
        return self._wrapped(self._inner.start(lambda outcome: resume(self._wrapped(outcome))))

    def block(self) -> Any:
        return self._wrapped(self._inner.block())


class WrappedWatch(Watch):
    def __init__(self, inner: Watch, interceptor: Interceptor, unwatch: Request) -> None:
        self.cookie = inner.cookie
        self._inner = inner
        self._interceptor = interceptor
        self._unwatch = unwatch

    def check(self) -> Outcome:
        return self._inner.check()

    def close(self) -> Call:
        return self._interceptor.call(self._unwatch, self._inner.close())


class WrappedCluster(Cluster):
    def __init__(self, inner: Cluster, interceptor: Interceptor) -> None:
        self.capabilities = inner.capabilities
        self.client = inner.instance_id()
        self._inner = inner
        self._interceptor = interceptor

    def _call(self, inner: Call, kind: str, what: str = "") -> Call:
        return self._interceptor.call(Request(kind, what, client=self.client), inner)

    def instance_id(self) -> int:
        return self._inner.instance_id()

    def address(self) -> str:
        return self._inner.address()

    def fsid(self) -> str:
        return self._inner.fsid()

    def conf_get(self, name: str) -> str | None:
        return self._inner.conf_get(name)

    def conf_set(self, name: str, value: str) -> None:
        self._inner.conf_set(name, value)

    def pools(self) -> Call:
        return self._call(self._inner.pools(), "pools")

    def pool_lookup(self, name: str) -> Call:
        return self._call(self._inner.pool_lookup(name), "pool_lookup", name)

    def pool_name(self, pool_id: int) -> Call:
        return self._call(self._inner.pool_name(pool_id), "pool_name")

    def pool_stats(self, pool_id: int) -> Call:
        return self._call(self._inner.pool_stats(pool_id), "pool_stats")

    def application_enable(self, pool_id: int, app: str, force: bool = False) -> Call:
        return self._call(self._inner.application_enable(pool_id, app, force), "application_enable", app)

    def application_metadata(self, pool_id: int, app: str) -> Call:
        return self._call(self._inner.application_metadata(pool_id, app), "application_metadata", app)

    def io(self, pool_id: int, namespace: str = "") -> Io:
        return WrappedIo(self, self._inner.io(pool_id, namespace), self._interceptor)

    def mon_command(self, command: Mapping[str, Any], data: bytes = b"") -> Call:
        return self._call(self._inner.mon_command(command, data), "mon_command", str(command.get("prefix", "")))

    def blocklist_add(self, address: str, seconds: int) -> Call:
        return self._call(self._inner.blocklist_add(address, seconds), "blocklist_add", address)

    def wait_for_latest_map(self) -> Call:
        return self._call(self._inner.wait_for_latest_map(), "wait_for_latest_map")

    def connect(self, client: str, conf: Mapping[str, str]) -> Call:
        """What is done through the other connection is not intercepted."""
        return self._call(self._inner.connect(client, conf), "connect", client)

    def disconnect(self) -> Call:
        return self._call(self._inner.disconnect(), "disconnect")

    def sleep(self, seconds: float) -> Suspension:
        return self._interceptor.sleep(seconds, self._inner.sleep(seconds))
