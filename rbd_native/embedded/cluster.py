"""An embedded cluster: an object somebody made, over a store in memory or in a file, and its clients."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from rbd_native.embedded import bell, fork, mon
from rbd_native.embedded.events import Events
from rbd_native.embedded.store import Store
from rbd_native.interrupts import DEFERRED

if TYPE_CHECKING:
    from rbd_native.embedded.client import Connection
    from rbd_native.embedded.conf import Conf


_in_memory: weakref.WeakValueDictionary[str, Cluster] = weakref.WeakValueDictionary()
"""Those of this process that are not in a file, by their id."""

_MON_HOST: Final = re.compile(rf"\[{mon.ADDRESS_TYPE}:(.+)/0\]")


def known_as(mon_host: str) -> tuple[Cluster, bool] | None:
    """The cluster that calls itself so, and whether it was opened for this, to be closed again. None: there is none."""
    found = _MON_HOST.fullmatch(mon_host)
    if found is None:
        return None
    known = _in_memory.get(found[1])
    if known is not None:
        return known, False
    return (Cluster(found[1]), True) if Path(found[1]).exists() else None


class Cluster:
    """A RADOS in this process.

    path: its file, made where it is missing; several processes may have it open at once. None or ":memory:": in memory.
    pools: those that a new cluster starts with; a str is the name of one. sync: what was acknowledged also survives the
    machine's death, not only that of the process. patience: seconds that a process which keeps the file locked is waited
    for at most, None for without end.

    A child that this process forks may go on with a cluster in a file, with clients of its own; see
    :mod:`rbd_native.embedded.fork`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        pools: Sequence[str] = ("rbd",),
        sync: bool = False,
        patience: float | None = None,
    ) -> None:
        """NotACluster, a ValueError, for a file that is something else; rados.Error for one that cannot be had."""
        if path == ":memory:":
            path = None
        with DEFERRED:
            self.store = Store(path, (pools,) if isinstance(pools, str) else pools, sync, patience)
            self.shared_id = self._fsid() if path is not None else None
            self._connections: dict[int, Connection] = {}
            if path is None:
                _in_memory[self._fsid()] = self
            fork.watch_over(self)

    def _fsid(self) -> str:
        with self.store.read as db:
            return mon.fact(db, "fsid")

    def connect(self, conf: Conf | None = None) -> Connection:
        """A new client of this cluster, as the port's Cluster."""
        from rbd_native.embedded.client import Connection

        with DEFERRED:
            connection = Connection(self, conf)
            self._connections[connection.instance_id()] = connection
        return connection

    def events_of(self, connection: Connection) -> Events:
        """How a new client waits for what happens."""
        return Events(connection)

    def left(self, client: int) -> None:
        self._connections.pop(client, None)

    def wake(self, clients: Iterable[int]) -> None:
        """Let these clients, here or in other processes, look at the store."""
        for client in clients:
            connection = self._connections.get(client)
            if connection is not None:
                connection.events.ring()
            elif self.shared_id is not None:
                bell.ring_elsewhere(self.shared_id, client)

    def ring_all(self) -> None:
        """Let all clients of this process look at the store."""
        for connection in list(self._connections.values()):
            connection.events.ring()

    def before_fork(self) -> None:
        """Clients stay as they are: they are this process'."""

    def in_child(self, prepared: bool) -> None:
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.in_child()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the cluster, as it is at one moment, into a file that is not there yet; others may go on meanwhile.

        The copy is a cluster of the same id without clients. rados.Error where it cannot be made, and then it is not there.
        """
        self.store.backup(Path(path))

    def close(self) -> None:
        """Disconnect its clients and close the store. What was in memory is gone."""
        with DEFERRED:
            for connection in list(self._connections.values()):
                connection.shutdown()
            self.store.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
