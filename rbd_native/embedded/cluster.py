"""An embedded cluster: an object somebody made, over a store in memory or in a file, and its clients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rbd_native.embedded.osd import Osd
from rbd_native.embedded.store import Store

if TYPE_CHECKING:
    from rbd_native.embedded.client import Connection
    from rbd_native.embedded.conf import Conf


class Cluster:
    """A RADOS in this process.

    path: its file, made where it is missing; several processes may have it open at once. None: in memory.
    pools: those that a new cluster starts with. sync: what was acknowledged also survives the machine's death, not only
    that of the process.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, pools: Sequence[str] = ("rbd",), sync: bool = False
    ) -> None:
        self.store = Store(path, pools, sync)
        self.osd = Osd(self.store)
        self._connections: set[Connection] = set()

    def connect(self, conf: Conf | None = None) -> Connection:
        """A new client of this cluster, as the port's Cluster."""
        from rbd_native.embedded.client import Connection

        connection = Connection(self, conf)
        self._connections.add(connection)
        return connection

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def close(self) -> None:
        """Disconnect its clients and close the store. What was in memory is gone."""
        for connection in list(self._connections):
            connection.shutdown()
        self.store.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
