"""The throw-away cluster itself: it does what the other tests rely on, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
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


def test_killed_owner_leaves_nothing_behind() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().strip())
        assert owner.stdout.readline() == "up\n"
        pids = daemons(directory)
        assert len(pids) == 3
        os.kill(owner.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (directory.exists() or daemons(directory)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not directory.exists()
    assert not [pid for pid in pids if os.fsencode(directory) in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_cluster_that_cannot_start_is_an_error_and_cleans_up(tmp_path: Path) -> None:
    cluster = CephCluster(tmp_path / "c", options={"erasure code dir": "/no/such/directory"})
    with pytest.raises(ClusterError, match="ceph-mon"):
        cluster.start()
    assert not cluster.root.exists()
