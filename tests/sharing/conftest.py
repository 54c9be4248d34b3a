"""A real cluster on which the death of a client is noticed within seconds."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import CephCluster

WATCH_TIMEOUT = 4
"""Seconds after which an OSD gives up a watcher that is silent."""


@pytest.fixture(scope="package")
def hasty() -> Iterator[CephCluster]:
    """Its clients prove more often that they live, too: else they would lose their watches."""
    options = {"osd client watch timeout": str(WATCH_TIMEOUT), "objecter tick interval": "0.5"}
    with CephCluster(options=options) as cluster:
        cluster.create_pool("rbd")
        yield cluster


@pytest.fixture(scope="package")
def onlooker(hasty: CephCluster) -> Iterator[Any]:
    """An ioctx of its pool, of a client that opens no image."""
    cluster = hasty.rados()
    ioctx = cluster.open_ioctx("rbd")
    yield ioctx
    ioctx.close()
    cluster.shutdown()


@pytest.fixture
def where(hasty: CephCluster) -> dict[str, str]:
    """For players: where the cluster is."""
    return {"conf": str(hasty.conf), "pool": "rbd"}


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is to be the long run."""
    return bool(request.config.getoption("--full"))
