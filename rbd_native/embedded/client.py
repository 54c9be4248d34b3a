"""The port (:mod:`rbd_native.rados.port`) over an embedded cluster: one client, its pools and namespaces.

Operations are done where they are started, in the caller's thread: their replies are at hand at once. Only watches
and notifications are waited for (see :mod:`rbd_native.embedded.events`).
"""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from rbd_native.embedded import commands, mon, objects, snapshots, watches
from rbd_native.embedded.change import NO_SNAPS, Refusal
from rbd_native.embedded.cluster import Cluster, known_as
from rbd_native.embedded.conf import Conf, canonical
from rbd_native.embedded.events import Notify
from rbd_native.embedded.mon import Denied
from rbd_native.embedded.objclass import Entity
from rbd_native.embedded.operations import Asking, Reading, Writing
from rbd_native.embedded.osd import Osd, admit, check_name, refuse_blocked
from rbd_native.embedded.store import FAULTS, ForkedError, Transaction, errno_of, told_as_rados_does
from rbd_native.interrupts import DEFERRED
from rbd_native.rados import port
from rbd_native.rados.port import HEAD, Exec, Outcome, RadosError, Reply, SnapContext

_log = logging.getLogger(__name__)

_PAGE = 1000  # names of objects that one listing step takes


_GONE: Final = port.failure(errno.ESHUTDOWN)
_MANAGEMENT: Final = "rados_mon_op_timeout"
_OBJECTS: Final = "rados_osd_op_timeout"


class Connection(port.Cluster):
    """One client. `conf`: its configuration, which follows the cluster's from now on."""

    capabilities = port.Capability.ALL

    def __init__(self, cluster: Cluster, conf: Conf | None = None) -> None:
        self.cluster = cluster
        self.conf = Conf() if conf is None else conf
        self.closed = False
        self.osd = Osd(cluster.store, cluster.ring_all)
        self._forked = False
        self._opened: Cluster | None = None
        self._store = cluster.store
        with told_as_rados_does(self._store.path), self._store.writing(self.limit("client_mount_timeout")) as db:
            gid, address = mon.register(db)
        self.entity = Entity(gid, address)
        self.events = cluster.events_of(self)
        self.conf.central = self._central
        self._heed_timeouts()

    def _heed_timeouts(self) -> None:
        self.osd.patience = self.limit(_OBJECTS)
        self._management = self.limit(_MANAGEMENT)

    def limit(self, option: str) -> float | None:
        """An option that limits the time that something takes, in seconds; None for no limit."""
        return float(self.conf.get(option) or 0) or None

    def in_child(self) -> None:
        """This is the child of a fork: the client is its parent's."""
        if not self.closed:
            self.closed = self._forked = True
            self.conf.central = _nothing
            self.events.abandon()

    def gone(self) -> Reply:
        """What every operation ends with from now on. ForkedError in a child of the process that the client is of."""
        self._refuse_forked()
        return _GONE

    def _refuse_forked(self) -> None:
        if self._forked:
            raise ForkedError("this client is of the process that was forked: connect to the cluster again in the child")

    def shutdown(self) -> None:
        """Give up all watches and leave; operations are refused from now on. Does nothing the second time."""
        if self.closed:
            return
        with DEFERRED:
            self.die()
            try:
                with self._store.writing(self._management) as db:
                    mon.unregister(db, self.entity.client)
            except FAULTS:  # it is not told, then: that is how killed clients leave
                _log.warning("client %d leaves without its cluster knowing", self.entity.client, exc_info=True)
            self.cluster.ring_all()

    def die(self) -> None:
        """Be gone like a process that was killed: nothing is given up, and watches end when their time is over."""
        if self.closed:
            return
        self.closed = True
        self.conf.central = _nothing
        self.events.stop()
        self.cluster.left(self.entity.client)

    # --- who this is ---

    def instance_id(self) -> int:
        return self.entity.client

    def address(self) -> str:
        return self.entity.address

    def fsid(self) -> str:
        with told_as_rados_does(self._store.path), self._store.read as db:
            return mon.fact(db, "fsid")

    def conf_get(self, name: str) -> str | None:
        return self.conf.get(name)

    def conf_set(self, name: str, value: str) -> None:
        self.conf.set(name, value)
        if canonical(name) in (_OBJECTS, _MANAGEMENT):
            self._heed_timeouts()

    def seconds(self, option: str) -> int:
        """An option that is a number of seconds."""
        return int(self.conf.get(option) or 0)

    def _central(self, name: str) -> str | None:
        with told_as_rados_does(self._store.path), self._store.read as db:
            return mon.config(db, self.conf.name, name)

    # --- pools ---

    def ask(self, what: str, question: Callable[[sqlite3.Connection], Any]) -> port.Call:
        """A call that reads the monitor's tables."""
        return Asking(what, lambda: self._outcome(self._store.read, question))

    def tell(self, what: str, change: Callable[[sqlite3.Connection], Any]) -> port.Call:
        """A call that changes them, or the watches."""

        def do() -> Outcome:
            with DEFERRED:
                outcome = self._outcome(self._store.writing(self._management), change)
            self.cluster.ring_all()
            return outcome

        return Asking(what, do)

    def _outcome(self, transaction: Transaction, do: Callable[[sqlite3.Connection], Any]) -> Outcome:
        if self.closed:
            self._refuse_forked()
            return Outcome(-errno.ESHUTDOWN)
        try:
            with transaction as db:
                return Outcome(0, do(db))
        except Denied as denied:
            return Outcome(-denied.errno)
        except Refusal as refusal:
            return Outcome(refusal.rv)
        except FAULTS as error:
            return Outcome(-errno_of(error))

    def forget_watch(self, cookie: int) -> Outcome:
        """Unwatch. -ESHUTDOWN for a client on the blocklist."""

        def change(db: sqlite3.Connection) -> None:
            refuse_blocked(db, self.entity)
            watches.remove(db, self.entity.client, cookie)

        outcome: Outcome = self.tell("unwatch", change).block()
        return outcome

    def pools(self) -> port.Call:
        return self.ask("pools", mon.pools)

    def pool_lookup(self, name: str) -> port.Call:
        return self.ask(f"pool {name}", lambda db: mon.pool_id(db, name))

    def pool_name(self, pool_id: int) -> port.Call:
        return self.ask(f"pool {pool_id}", lambda db: mon.pool_name(db, pool_id))

    def pool_stats(self, pool_id: int) -> port.Call:
        return self.ask(f"pool {pool_id}", lambda db: mon.pool_stats(db, pool_id))

    def application_enable(self, pool_id: int, app: str, force: bool = False) -> port.Call:
        return self.tell(f"application {app}", lambda db: mon.enable_application(db, pool_id, app, force))

    def application_metadata(self, pool_id: int, app: str) -> port.Call:
        return self.ask(f"application {app}", lambda db: mon.application_metadata(db, pool_id, app))

    def io(self, pool_id: int, namespace: str = "", owner: object = None) -> Io:
        """RadosError(ENOENT) where there is no such pool."""
        outcome = self.pool_name(pool_id).block()
        if outcome.rv < 0:
            raise RadosError(-outcome.rv, f"pool {pool_id}")
        return Io(self, pool_id, namespace, owner)

    # --- the monitor ---

    def mon_command(self, command: Mapping[str, Any], data: bytes = b"") -> port.Call:
        return self.tell(json.dumps(dict(command)), lambda db: commands.run(db, command, data)[0])

    def run_command(self, command: Mapping[str, Any], data: bytes) -> tuple[int, bytes, str]:
        """Beyond the port: return value, output and status line, which a refused command has, too."""
        status = ""

        def run(db: sqlite3.Connection) -> tuple[bytes, str]:
            nonlocal status
            try:
                return commands.run(db, command, data)
            except Denied as denied:
                status = denied.status
                raise

        outcome = self.tell("command", run).block()
        return (outcome.rv, b"", status) if outcome.rv < 0 else (0, *outcome.value)

    def blocklist_add(self, address: str, seconds: int) -> port.Call:
        return self.tell(f"blocklist {address}", lambda db: mon.block(db, address, seconds))

    def wait_for_latest_map(self) -> port.Call:
        return Asking("map", lambda: Outcome(0))

    def connect(self, client: str, conf: Mapping[str, str]) -> port.Call:
        """To another embedded cluster: one in a file, or one in the memory of this process."""

        def connect() -> Outcome:
            found = known_as(conf.get("mon_host", ""))
            if found is None:
                return Outcome(-errno.ENOENT)
            cluster, own = found
            connection = cluster.connect(Conf(f"client.{client}"))
            connection._opened = cluster if own else None
            return Outcome(0, connection)

        return Asking(f"connect {client}", connect)

    def disconnect(self) -> port.Call:
        def disconnect() -> Outcome:
            self.shutdown()
            if self._opened is not None:
                self._opened.close()
            return Outcome(0)

        return Asking("disconnect", disconnect)


def _nothing(name: str) -> None:
    """No configuration of a cluster: there is none any more."""


class Io(port.Io):
    """One namespace of one pool, of one client.

    owner: who shuts the client down when nobody holds it any more, and therefore is to be held by whoever uses this.
    """

    def __init__(self, cluster: Connection, pool_id: int, namespace: str, owner: object = None) -> None:
        self._owner = owner
        self.cluster: Connection = cluster
        self.pool_id = pool_id
        self.namespace = namespace
        self.osd = cluster.osd
        self.entity = cluster.entity

    def read(self, oid: str, steps: Sequence[port.ReadStep], *, snap: int = HEAD) -> port.Operation:
        return Reading(self, oid, steps, snap)

    def write(
        self,
        oid: str,
        steps: Sequence[port.WriteStep],
        *,
        snapc: SnapContext | None = None,
        mtime: int | None = None,
    ) -> port.Operation:
        """`mtime`, beyond the port: the modification time to set, in nanoseconds since 1970."""
        return Writing(self, oid, steps, snapc or NO_SNAPS, mtime)

    def execute(self, oid: str, step: Exec) -> port.Operation:
        return Reading(self, oid, (step,), HEAD)

    def xattrs(self, oid: str, snap: int = HEAD) -> port.Call:
        """Beyond the port. Value: all xattrs of an object, as a dict; those without a name are left out, as in Ceph."""

        def look(db: sqlite3.Connection) -> dict[str, bytes]:
            admit(db, self.entity, self.pool_id)
            row = objects.find(db, self.pool_id, self.namespace, check_name(self.namespace, oid))
            state = objects.head(row) if snap == HEAD else snapshots.state_at(db, self.pool_id, row, snap)
            if state is None:
                raise Refusal(-errno.ENOENT)
            return {name: value for name, value in objects.xattrs(db, state).items() if name}

        return self.cluster.ask(oid, look)

    def watch(
        self,
        oid: str,
        on_notify: Callable[[int, int, bytes], bytes | None],
        on_error: port.OnWatchError,
        timeout: int = 0,
    ) -> port.Call:
        """Beyond the port, `on_notify` may return None: no answer, so that the notifier waits for its time."""

        def insert(cookie: int, seconds: int) -> Outcome:
            def change(db: sqlite3.Connection) -> None:
                watches.add(db, self._find(db, oid).id, self.entity, cookie, seconds)

            outcome: Outcome = self.cluster.tell(oid, change).block()
            return outcome

        def do() -> Outcome:
            seconds = timeout if timeout > 0 else self.cluster.seconds("osd_client_watch_timeout")
            with DEFERRED:
                return self.cluster.events.watch(on_notify, on_error, seconds, insert)

        return Asking(oid, do)

    def notify(self, oid: str, payload: bytes, timeout_ms: int) -> port.Call:
        """Zero milliseconds: what `client_notify_timeout` says."""

        def begin() -> Outcome:
            seconds = timeout_ms / 1000 or self.cluster.seconds("client_notify_timeout")
            change = lambda db: watches.start(db, self._find(db, oid).id, self.entity.client, payload, seconds)  # noqa: E731
            outcome: Outcome = self.cluster.tell(oid, change).block()
            return outcome

        return Notify(self.cluster.events, oid, begin)

    def _find(self, db: sqlite3.Connection, oid: str) -> objects.Row:
        """Of an object that exists; -ENOENT."""
        name = check_name(self.namespace, oid)
        admit(db, self.entity, self.pool_id)
        row = objects.find(db, self.pool_id, self.namespace, name)
        if row is None or not row.alive:
            raise Refusal(-errno.ENOENT)
        return row

    # A client on the blocklist is refused by OSDs. Snapshot ids are the monitors', and listing is let pass.

    def snap_create(self) -> port.Call:
        return self.cluster.tell("snapshot", lambda db: mon.create_snap(db, self.pool_id))

    def snap_remove(self, snap: int) -> port.Call:
        return self.cluster.tell(f"snapshot {snap}", lambda db: mon.remove_snap(db, self.pool_id, snap))

    def rollback(self, oid: str, snap: int, snapc: SnapContext) -> port.Call:
        def do() -> Outcome:
            if self.cluster.closed:
                return Outcome(self.cluster.gone().rv)
            return Outcome(self.osd.roll_back(self.entity, self.pool_id, self.namespace, oid, snap, snapc).rv)

        return Asking(oid, do)

    async def list_objects(self) -> AsyncIterator[str]:
        for _, oid in self.names(self.namespace):
            yield oid

    def names(self, namespace: str | None) -> Iterator[tuple[str, str]]:
        """(namespace, name) of all objects of a namespace, or, for None, of all of the pool's; RadosError.

        As on a real OSD, with those that are deleted and only have clones.
        """
        last = (namespace or "", b"")
        while True:
            question = partial(self._names, last=last, namespace=namespace)
            outcome = self.cluster.ask("list", question).block()
            if outcome.rv < 0:
                raise RadosError(-outcome.rv, "list")
            for place, name in outcome.value:
                yield place, objects.name_of(name)
            if len(outcome.value) < _PAGE:
                return
            last = outcome.value[-1]

    def _names(self, db: sqlite3.Connection, last: tuple[str, bytes], namespace: str | None) -> list[tuple[str, bytes]]:
        mon.pool_name(db, self.pool_id)
        within = "(ns, oid) > (?, ?)" if namespace is None else "ns = ? AND oid > ?"
        return db.execute(
            f"SELECT ns, oid FROM object WHERE pool = ? AND {within} ORDER BY ns, oid LIMIT ?",
            (self.pool_id, *last, _PAGE),
        ).fetchall()

    def in_namespace(self, namespace: str) -> Io:
        return Io(self.cluster, self.pool_id, namespace, self._owner)
