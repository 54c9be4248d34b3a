"""What a test of images needs of a cluster, real or embedded, under the same names.

The two differ in one thing only: `rados_module` is python-rados, or the embedded module of the same shape.
"""

import contextlib
import datetime
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests import scheduling

POOL = "rbd"


def now(zone: datetime.tzinfo | None = datetime.UTC) -> datetime.datetime:
    """The time as the cluster has it: under a schedule it is not the machine's."""
    return datetime.datetime.fromtimestamp(time.time(), zone)


class Backend:
    """One pool of one cluster, and clients of it.

    kind: "ceph" or "embedded". rados_module: the module whose `Rados`, `Ioctx` and errors are in use.
    pool: name of a pool that is this test's own. cluster: a connected client (`Rados`).
    """

    def __init__(
        self,
        kind: str,
        rados_module: Any,
        pool: str,
        new_client: Callable[..., Any],
        create_pool: Callable[[str], None],
    ) -> None:
        self.kind = kind
        self.rados_module = rados_module
        self.pool = pool
        self._new_client = new_client
        self._create_pool = create_pool
        self.cli: Callable[..., str] | None = None
        """Runs a program of Ceph on the cluster, where it is a real one."""
        self._closing = contextlib.ExitStack()
        self._numbers = itertools.count(1)
        self.cluster = self.connect()

    def connect(self, **conf: str) -> Any:
        """One more client, another one for the cluster; shut down at the end of the test."""
        client = self._new_client(**conf)
        self._closing.callback(client.shutdown)
        return client

    @contextlib.contextmanager
    def connected(self, **conf: str) -> Iterator[Any]:
        """One more client, for a while: where many come and go, those that stay would be in each other's way."""
        client = self._new_client(**conf)
        try:
            yield client
        finally:
            client.shutdown()

    def ioctx(self, pool: str | None = None, namespace: str = "", cluster: Any = None) -> Any:
        """An open ioctx, of the test's own pool unless told otherwise; closed at the end of the test."""
        ioctx = (cluster or self.cluster).open_ioctx(pool or self.pool)
        self._closing.callback(ioctx.close)
        if namespace:
            ioctx.set_namespace(namespace)
        return ioctx

    def create_pool(self) -> str:
        """One more pool of the test's own; its name."""
        name = f"{self.pool}-{next(self._numbers)}"
        self._create_pool(name)
        self.cluster.wait_for_latest_osdmap()  # else this client may not list it yet
        return name

    def close(self) -> None:
        """Close what the test opened, youngest first."""
        self._closing.close()


@contextlib.contextmanager
def _embedded_cluster() -> Iterator[tuple[Any, Callable[..., Any]]]:
    """A new embedded cluster in memory, without pools, and how to make a client that is not yet connected."""
    from rbd_native import embedded

    if scheduling.current is not None:
        with scheduling.current.cluster() as made:
            yield made
    else:
        shared = embedded.Cluster(pools=())
        yield shared, lambda **conf: embedded.Rados(cluster=shared, conf=conf)


@contextlib.contextmanager
def embedded_backend() -> Iterator[Backend]:
    """A new embedded cluster in memory; under a schedule where the session has one."""
    with _embedded_cluster() as (shared, make_client), _backend_of(shared, make_client) as backend:
        yield backend


@contextlib.contextmanager
def embedded_client(**conf: str) -> Iterator[Any]:
    """A connected client of an embedded cluster of its own, with one pool: "rbd"."""
    with _embedded_cluster() as (_, make_client), make_client(**conf) as client:
        client.create_pool(POOL)
        yield client


@contextlib.contextmanager
def _backend_of(shared: Any, make_client: Callable[..., Any]) -> Iterator[Backend]:
    from rbd_native import embedded

    def new_client(**conf: str) -> Any:
        client = make_client(**conf)
        client.connect()
        return client

    def create_pool(name: str) -> None:
        admin = new_client()
        try:
            admin.create_pool(name)
        finally:
            admin.shutdown()

    create_pool(POOL)
    backend = Backend("embedded", embedded, POOL, new_client, create_pool)
    try:
        yield backend
    finally:
        backend.close()
        shared.close()


@contextlib.contextmanager
def ceph_backend(ceph: Any, pool: str) -> Iterator[Backend]:
    """A new pool of a running `tests.cluster.CephCluster`; its further pools are removed at the end."""
    import rados

    pools: list[str] = []

    def create_pool(name: str) -> None:
        ceph.create_pool(name)
        pools.append(name)

    create_pool(pool)
    backend = Backend("ceph", rados, pool, ceph.rados, create_pool)
    backend.cli = ceph.cli
    try:
        yield backend
    finally:
        backend.close()
        for name in pools:
            ceph.remove_pool(name)
