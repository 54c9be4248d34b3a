"""A real cluster on which the death of a client is noticed within seconds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rbd_native import embedded
from tests.cluster import CephCluster
from tests.sharing.maps import check_by_librbd

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


@dataclass
class Arena:
    """A cluster that processes meet on: the kinds of clients there are, where it is, an ioctx for the test itself, and,
    where librbd is there, its check of an image's object map."""

    kinds: tuple[str, str]
    where: dict[str, str]
    options: dict[str, str]
    onlooker: Any
    check_map: Callable[[str], None]


@pytest.fixture(params=[pytest.param("ceph", marks=pytest.mark.ceph), "file"])
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    """A real cluster, with librbd; or the file of an embedded one, with rbd_native alone."""
    if request.param == "ceph":
        ceph, onlooker = request.getfixturevalue("hasty"), request.getfixturevalue("onlooker")
        where = {"conf": str(ceph.conf), "pool": "rbd"}
        yield Arena(("ours", "librbd"), where, {}, onlooker, lambda name: check_by_librbd(ceph, "rbd", name))
        return
    file = str(tmp_path / "cluster")
    options = {"osd_client_watch_timeout": str(WATCH_TIMEOUT)}
    with embedded.Rados(conf={"embedded_path": file}) as cluster, cluster.open_ioctx("rbd") as ioctx:
        yield Arena(("ours", "ours"), {"file": file, "pool": "rbd"}, options, ioctx, lambda name: None)
