"""Programs that end with images open, dropped, busy in daemon threads, or fenced: nothing is said, and nothing is lost."""

import os
import subprocess
import sys
from typing import Any

import pytest

import rbd_native as rbd
from tests.cluster import CephCluster

PROGRAM = """
import sys, threading
import rbd_native as rbd
how, conf, pool, path = sys.argv[1:]
KEEP = {
    "rbd_cache_writethrough_until_flush": "false", "rbd_cache_policy": "writeback", "rbd_cache_max_dirty_age": "600"
}
if how == "fenced":
    KEEP = {"rbd_cache": "false"}
if conf:
    import rados
    connect = lambda: rados.Rados(conffile=conf, conf=KEEP)
else:
    from rbd_native import embedded as rados
    connect = lambda: rados.Rados(conf=KEEP | {"embedded_path": path})
client = connect()
client.connect()
ioctx = client.open_ioctx(pool)
rbd.RBD().create(ioctx, how, 1 << 24, 20, features=61, old_format=False)
image = rbd.Image(ioctx, how)
image.write(b"kept", 0)
if how == "dropped":
    del image
elif how == "daemons":
    began = threading.Semaphore(0)
    def work(number):
        while True:
            image.write(b"y" * 4096, number << 20)
            image.read(0, 4096)
            began.release()
    for number in range(1, 4):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    for _ in range(20):
        began.acquire()
elif how == "under way":
    for number in range(1, 200):
        image.aio_write(b"z" * 4096, number * 4096, lambda completion: None)
elif how == "fenced":
    other = connect()
    other.connect()
    there = other.open_ioctx(pool)
    with rbd.Image(there, how) as breaker:
        (owner,) = breaker.lock_get_owners()
        breaker.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner["owner"])
    there.close()
    other.shutdown()
"""
HOW = ("open", "dropped", "daemons", "under way", "fenced")


def ends_quietly(how: str, *where: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, how, *where]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("how", HOW)
def test_embedded(tmp_path: Any, how: str) -> None:
    from rbd_native import embedded

    path = str(tmp_path / "cluster")
    ends_quietly(how, "", "rbd", path)
    with (
        embedded.Rados(conf={"embedded_path": path}) as client,
        client.open_ioctx("rbd") as ioctx,
        rbd.Image(ioctx, how) as image,
    ):
        assert image.read(0, 4) == b"kept"


@pytest.mark.ceph
@pytest.mark.parametrize("how", HOW)
def test_ceph(ceph: CephCluster, pool: str, ioctx: Any, how: str) -> None:
    ends_quietly(how, str(ceph.conf), pool, "")
    with rbd.Image(ioctx, how) as image:
        assert image.read(0, 4) == b"kept"
