"""The contract of the port, on every adapter there is."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rbd_native import embedded
from rbd_native.rados import connect, librados
from rbd_native.rados.faults import Faults
from rbd_native.rados.librados import LibradosIo
from rbd_native.rados.port import Io
from rbd_native.rados.pure import PureIo
from rbd_native.rados.trace import Trace
from rbd_native.rados.wrapper import Interceptor, wrap
from rbd_native.testing import contract
from tests.cluster import CephCluster

NewIo = Callable[[], Io]

_CLIENTS = {
    "librados": lambda ioctx: connect.port_for(ioctx),
    "python-rados": lambda ioctx: librados.adapt(ioctx, pure_python=True),
}


@pytest.fixture(scope="module")
def shared_pool(ceph: CephCluster) -> Iterator[str]:
    name = "contract"
    ceph.create_pool(name)
    yield name
    ceph.remove_pool(name)


@contextlib.contextmanager
def _real(ceph: CephCluster, pool: str, adapter: str) -> Iterator[NewIo]:
    with contextlib.ExitStack() as closing:

        def new_io() -> Io:
            client = ceph.rados()
            closing.callback(client.shutdown)
            ioctx = client.open_ioctx(pool)
            io = _CLIENTS[adapter](ioctx)
            ioctx.close()
            return io

        yield new_io


def _wrapped(io: Io) -> Io:
    """With every wrapper there is around it, none of which does anything of its own."""
    return wrap(wrap(wrap(io, Interceptor()), Trace()), Faults())


_DRESSES: dict[str, Callable[[Io], Io]] = {"embedded": lambda io: io, "wrapped": _wrapped}


@contextlib.contextmanager
def _embedded(dress: Callable[[Io], Io]) -> Iterator[NewIo]:
    with contextlib.ExitStack() as closing:
        cluster = embedded.Cluster()
        closing.callback(cluster.close)

        def new_io() -> Io:
            client = embedded.Rados(cluster=cluster)
            client.connect()
            closing.callback(client.shutdown)
            ioctx = client.open_ioctx("rbd")
            return dress(connect.port_for(ioctx))

        yield new_io


@pytest.fixture(
    scope="module",
    params=[
        "embedded",
        "wrapped",
        pytest.param("librados", marks=pytest.mark.ceph),
        pytest.param("python-rados", marks=pytest.mark.ceph),
    ],
)
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared(adapter: str, request: pytest.FixtureRequest) -> Iterator[tuple[NewIo, Io]]:
    """Connecting takes a while: most tests of an adapter share a client."""
    if adapter in _DRESSES:
        opened: Any = _embedded(_DRESSES[adapter])
    else:
        opened = _real(request.getfixturevalue("ceph"), request.getfixturevalue("shared_pool"), adapter)
    with opened as new_io:
        yield new_io, new_io()


class _Adapter:
    @pytest.fixture
    def new_io(self, shared: tuple[NewIo, Io]) -> NewIo:
        return shared[0]

    @pytest.fixture
    def io(self, shared: tuple[NewIo, Io]) -> Io:
        return shared[1]


class TestClasses(_Adapter, contract.ClassContract):
    pass


class TestCluster(_Adapter, contract.ClusterContract):
    pass


class TestComparison(_Adapter, contract.ComparisonContract):
    pass


class TestCompound(_Adapter, contract.CompoundContract):
    pass


class TestData(_Adapter, contract.DataContract):
    pass


class TestListing(_Adapter, contract.ListingContract):
    pass


class TestOmap(_Adapter, contract.OmapContract):
    pass


class TestSnapshots(_Adapter, contract.SnapshotContract):
    pass


class TestWatches(_Adapter, contract.WatchContract):
    pass


class TestXattrs(_Adapter, contract.XattrContract):
    pass


def test_no_part_of_the_contract_is_left_out() -> None:
    here = {base for name, kind in globals().items() if name.startswith("Test") for base in kind.__mro__}
    assert set(contract.ALL) <= here


@pytest.mark.ceph
def test_each_adapter_is_the_one_it_is_named_for(ceph: CephCluster, shared_pool: str) -> None:
    for name, kind in (("librados", LibradosIo), ("python-rados", PureIo)):
        with _real(ceph, shared_pool, name) as new_io:
            assert type(new_io()) is kind
