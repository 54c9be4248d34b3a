"""A process that holds the file and does not go on: others give up after the time that their options say."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import embedded
from rbd_native.embedded.bell import POLL
from rbd_native.rados.port import Write
from tests.embedded.forking import Child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cluster"
    with embedded.Rados(conf={"embedded_path": str(path)}) as client, client.open_ioctx("rbd") as ioctx:
        ioctx.write_full("object", b"first")
        rbd.RBD().create(ioctx, "image", 1 << 22)
    return path


@pytest.fixture
def holder(path: Path) -> Iterator[Callable[[], None]]:
    """Stops, in the middle of a write, a process that has the file open."""
    children: list[Child] = []

    def stopped() -> None:
        def work() -> None:
            with embedded.Cluster(path) as cluster, cluster.store.write as db:
                db.execute("UPDATE meta SET value = value")
                os.kill(os.getpid(), signal.SIGSTOP)

        children.append(Child(work))
        os.waitpid(children[-1].pid, os.WUNTRACED)

    yield stopped
    for child in children:
        os.kill(child.pid, signal.SIGCONT)
        child.result_or_nothing()


OPTIONS = {"rados_osd_op_timeout": "1", "rados_mon_op_timeout": "1", "client_mount_timeout": "1"}


def client(path: Path, **options: str) -> embedded.Rados:
    return embedded.Rados(conf={"embedded_path": str(path), **options})


def test_each_option_counts(path: Path, holder: Callable[[], None]) -> None:
    with client(path, **OPTIONS) as one, one.open_ioctx("rbd") as ioctx:
        holder()
        operations: dict[str, Callable[[], Any]] = {
            "write": lambda: ioctx.write("object", b"x"),
            "a method": lambda: ioctx.lock_exclusive("object", "lock", "cookie"),
            "rollback": lambda: ioctx.rollback_self_managed_snap("object", 1),
            "watch": lambda: ioctx.watch("object", lambda *_: None),
            "notify": lambda: ioctx.notify("object"),
            "snapshot": lambda: ioctx.create_self_managed_snap(),
            "pool": lambda: one.create_pool("another"),
            "blocklist": lambda: one.blocklist_add("1.2.3.4:0/5", 60),
        }
        for what, operation in operations.items():
            with pytest.raises(embedded.TimedOut):
                operation()
                pytest.fail(f"{what} went on")
        assert one.mon_command('{"prefix": "osd pool create", "pool": "another"}', b"")[0] == -110
        completion = ioctx.aio_write("object", b"x")
        completion.wait_for_complete()
        assert completion.get_return_value() == -110
        late = client(path, **OPTIONS)
        with pytest.raises(embedded.TimedOut):
            late.connect()
        late.shutdown()
        assert ioctx.read("object") == b"first"  # readers wait for nobody
    # and leaving ends, too


def test_an_image_of_a_stopped_cluster(path: Path, holder: Callable[[], None]) -> None:
    with client(path, **OPTIONS) as one, one.open_ioctx("rbd") as ioctx:
        with rbd.Image(ioctx, "image", read_only=True) as image:
            assert image.size() == 1 << 22
        holder()
        with pytest.raises(rbd.OSError) as caught:
            rbd.RBD().create(ioctx, "another", 1 << 22)
        assert caught.value.errno == 110


def test_a_watch_does_not_keep_its_client(path: Path, holder: Callable[[], None]) -> None:
    """Threads that look after a watch wait for the same process."""
    one = client(path, **OPTIONS)
    one.connect()
    ioctx = one.open_ioctx("rbd")
    ioctx.watch("object", lambda *_: None, timeout=1)
    holder()
    one.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embedded")]


def test_one_that_goes_on_in_time_is_waited_for(path: Path) -> None:
    with client(path, **{**OPTIONS, "rados_osd_op_timeout": "60"}) as one, one.open_ioctx("rbd") as ioctx:
        with Path(f"{path}-lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            ending = threading.Timer(10 * POLL, lambda: fcntl.flock(handle, fcntl.LOCK_UN))
            ending.start()
            ioctx.write("object", b"after")
            ending.join()
        assert ioctx.read("object") == b"after"


def test_the_time_may_be_set_later(path: Path, holder: Callable[[], None]) -> None:
    with client(path) as one, one.open_ioctx("rbd") as ioctx:
        one.conf_set("rados_osd_op_timeout", "1")
        one.conf_set("rados mon op timeout", "1")
        holder()
        with pytest.raises(embedded.TimedOut):
            ioctx.write("object", b"x")


def test_another_thread_that_waits(path: Path) -> None:
    """Whose time is not limited: it has this process' turn meanwhile, and who has a limit keeps to it."""
    with embedded.Cluster(path) as cluster:
        patient, hasty = cluster.connect(), embedded.Rados(cluster=cluster, conf=OPTIONS)
        hasty.connect()
        ioctx = hasty.open_ioctx("rbd")
        with Path(f"{path}-lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            waiting = threading.Thread(target=lambda: patient.io(1).write("object", [Write(0, b"late")]).block())
            waiting.start()
            while cluster.store.turn.acquire(blocking=False):
                cluster.store.turn.release()
            with pytest.raises(embedded.TimedOut):
                ioctx.write("object", b"x")
            fcntl.flock(handle, fcntl.LOCK_UN)
            waiting.join()
        hasty.shutdown()
