"""The throw-away cluster itself: it does what the other tests rely on, and leaves nothing behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import rbd as real

from tests.backend import Backend, ceph_backend
from tests.cluster import CephCluster, ClusterError
from tests.watchdog import daemons

pytestmark = pytest.mark.ceph


def test_librbd_works_on_it(ceph: CephCluster, pool: str, ioctx: Any) -> None:
    real.RBD().create(ioctx, "image", 1 << 20)
    with real.Image(ioctx, "image") as image:
        image.write(b"x" * 4096, 0)
        image.create_snap("snap")
    assert ceph.cli("rbd", "ls", pool) == "image\n"
    snapshots = json.loads(ceph.cli("rbd", "snap", "ls", f"{pool}/image", "--format", "json"))
    assert [snapshot["name"] for snapshot in snapshots] == ["snap"]


def test_failures_are_told(ceph: CephCluster) -> None:
    with pytest.raises(ClusterError, match="no-such-pool"):
        ceph.cli("rbd", "ls", "no-such-pool")
    with pytest.raises(ClusterError, match="-22"):
        ceph.command("no such command")


def test_pools_of_a_backend_are_removed(ceph: CephCluster) -> None:
    with ceph_backend(ceph, "backend-test") as backend:
        backend.create_pool()
        assert len([name for name in backend.cluster.list_pools() if name.startswith("backend-test")]) == 2
    admin = ceph.rados()
    assert not [name for name in admin.list_pools() if name.startswith("backend-test")]
    admin.shutdown()


def test_backend(backend: Backend) -> None:
    second = backend.connect()
    assert second.get_instance_id() != backend.cluster.get_instance_id()
    backend.ioctx().write_full("object", b"here")
    backend.ioctx(namespace="other").write_full("object", b"there")
    backend.ioctx(pool=backend.create_pool()).write_full("object", b"elsewhere")
    assert backend.ioctx(cluster=second).read("object") == b"here"


OWNER = """
import sys, time
from tests.cluster import CephCluster
cluster = CephCluster()
print(cluster.root, flush=True)
cluster.start()
print("up", flush=True)
time.sleep(600)
"""


@contextmanager
def owner_of_a_cluster() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that starts a cluster and is killed in the end, and the directory of its cluster."""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=root) as owner:
        assert owner.stdout is not None
        yield owner, Path(owner.stdout.readline().strip())
        owner.kill()


def comes_to_nothing(directory: Path) -> bool:
    """Whether the directory and every process that names it are gone soon, and stay so."""
    deadline = time.monotonic() + 20
    while directory.exists() or processes(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    time.sleep(0.2)
    return not directory.exists() and not processes(directory)


def processes(directory: Path) -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return [line for line in found if os.fsencode(directory) in line]


def test_killed_owner_leaves_nothing_behind() -> None:
    with owner_of_a_cluster() as (owner, directory):
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert len(daemons(directory)) == 3
    assert comes_to_nothing(directory)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35])
def test_owner_killed_while_it_starts_the_cluster(seconds: float) -> None:
    """At any moment: a daemon that has only just been started has told nobody its pid yet."""
    with owner_of_a_cluster() as (_, directory):
        time.sleep(seconds)
    assert comes_to_nothing(directory)


def test_a_cluster_that_was_not_started_leaves_no_trace() -> None:
    assert not CephCluster().root.exists()


def test_cluster_that_cannot_start_is_an_error_and_cleans_up(tmp_path: Path) -> None:
    cluster = CephCluster(tmp_path / "c", options={"erasure code dir": "/no/such/directory"})
    with pytest.raises(ClusterError, match="ceph-mon"):
        cluster.start()
    assert not cluster.root.exists()
