"""The clusters the tests run on.

A test that asks for `backend` runs twice, on the embedded cluster and on a real one. The real one is started
once for the session, when the first test asks for it; if it cannot be had, those tests fail: none is skipped.
"""

import itertools
import sqlite3
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from rbd_native.embedded import snapshots
from tests import scheduling
from tests.backend import Backend, ceph_backend, embedded_backend
from tests.cluster import CephCluster
from tests.releases import REMOVAL_TAKES_AN_ID, told

# The same examples in every run: what fails here fails everywhere.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the long forms of tests that have one (tens of minutes)")
    parser.addoption("--schedule", metavar="SEED", help="embedded clusters answer later, in an order drawn from the seed")


def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("--schedule")
    if seed is not None:
        scheduling.current = scheduling.Scheduling(seed)


@pytest.fixture(autouse=True)
def _schedule(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test has a schedule of its own, by the seed and its name."""
    if scheduling.current is not None:
        scheduling.current.begin(request.node.nodeid)
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """What failed under a schedule tells its last steps."""
    report = (yield).get_result()
    if scheduling.current is not None and report.failed:
        report.sections.append(("the last steps of the schedule", scheduling.current.schedule.told()))


@pytest.fixture(scope="session", autouse=True)
def ids_of_snapshots() -> Iterator[None]:
    """The embedded cluster counts the ids of snapshots as the installed release does, so that they can be compared."""
    remove = snapshots.remove

    def remove_and_count(db: sqlite3.Connection, pool: int, snap: int) -> None:
        known = db.execute("SELECT 1 FROM removed_snap WHERE pool = ? AND snap = ?", (pool, snap)).fetchone()
        if not known:
            snapshots.create(db, pool)
        remove(db, pool, snap)

    with pytest.MonkeyPatch.context() as patch:
        if told(REMOVAL_TAKES_AN_ID):
            patch.setattr(snapshots, "remove", remove_and_count)
        yield


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is to be the long run."""
    return bool(request.config.getoption("--full"))


def _new_pool_name() -> str:
    return f"test-{next(_numbers)}"


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephCluster]:
    """The real cluster of this session."""
    with CephCluster() as cluster:
        yield cluster


@pytest.fixture
def pool(ceph: CephCluster) -> Iterator[str]:
    """A new pool of the real cluster (its name), removed after the test."""
    name = _new_pool_name()
    ceph.create_pool(name)
    yield name
    ceph.remove_pool(name)


@pytest.fixture
def ioctx(ceph: CephCluster, pool: str) -> Iterator[Any]:
    """A `rados.Ioctx` of the new pool, of a client of its own."""
    cluster = ceph.rados()
    ioctx = cluster.open_ioctx(pool)
    yield ioctx
    ioctx.close()
    cluster.shutdown()


@pytest.fixture(params=["embedded", pytest.param("ceph", marks=pytest.mark.ceph)])
def cluster_kind(request: pytest.FixtureRequest) -> str:
    """Makes a test run on both kinds of cluster."""
    return str(request.param)


@pytest.fixture
def backend(cluster_kind: str, request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A pool of the test's own on either kind of cluster, and clients of it."""
    if cluster_kind == "embedded":
        with embedded_backend() as embedded:
            yield embedded
    else:
        with ceph_backend(request.getfixturevalue("ceph"), _new_pool_name()) as real:
            yield real
