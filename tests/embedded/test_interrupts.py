"""An exception out of the handler of a signal, at whatever moment it comes, leaves a cluster that works."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rbd_native import embedded
from rbd_native.embedded import fork
from rbd_native.embedded.client import Io
from rbd_native.embedded.gate import Gate
from rbd_native.rados.port import GetXattr, OmapSet, Read, SetXattr, Write
from tests.embedded.forking import missing
from tests.embedded.interrupting import interrupted


@pytest.fixture(params=["in memory", "in a file"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[embedded.Cluster]:
    with embedded.Cluster(None if request.param == "in memory" else tmp_path / "cluster") as cluster:
        yield cluster


def look_after(cluster: embedded.Cluster) -> None:
    """Nothing is held any more by this thread: not against other threads, nor other processes, nor forks."""
    assert threading.get_ident() not in fork._inside
    with cluster.store.turn:
        assert not cluster.store.own_writer().in_transaction
    free: list[bool] = []

    def look() -> None:
        free.append(cluster.store.turn.acquire(timeout=30))
        cluster.store.turn.release()

    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert free == [True]
    if cluster.store.path is not None:
        gate = Gate(cluster.store.path)
        gate.enter(time.monotonic() + 30)
        gate.close()


def write(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    ioctx.write("object", b"y" * 70000)


def refused(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    with pytest.raises(embedded.ObjectNotFound):
        ioctx.rm_xattr("missing", "name")


def read(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    ioctx.read("object")


def aio(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    ioctx.aio_write("object", b"z").wait_for_complete_and_cb()


def watch(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    with ioctx.watch("object", lambda *_: None):
        ioctx.notify("object")


def connect(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    with embedded.Rados(cluster=client._given) as other, other.open_ioctx("rbd"):
        pass


def snapshot(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    ioctx.remove_self_managed_snap(ioctx.create_self_managed_snap())


def command(client: embedded.Rados, ioctx: embedded.Ioctx) -> None:
    client.mon_command('{"prefix": "config-key set", "key": "k", "val": "v"}', b"")


@pytest.mark.parametrize("work", [write, refused, read, aio, watch, connect, snapshot, command])
def test_at_any_moment(cluster: embedded.Cluster, work: Callable[[embedded.Rados, embedded.Ioctx], None]) -> None:
    with embedded.Rados(cluster=cluster) as client, client.open_ioctx("rbd") as ioctx:
        ioctx.write("object", b"x")
        work(client, ioctx)
        raised = at = 0
        while True:
            at += 1
            was, seen = interrupted(lambda: work(client, ioctx), at)
            raised += was
            look_after(cluster)
            work(client, ioctx)
            if seen < at:
                break
        assert raised > 10
        assert ioctx.complete_completions == []


def test_a_thousand_at_random(cluster: embedded.Cluster, full: bool) -> None:
    """Alarms in a loop of writes and reads: each write that has returned is there, whole, and so is none of the others
    in part."""
    io = cluster.connect().io(1)
    rng = random.Random(41)
    interrupts = told = 0

    class Alarm(Exception):
        pass

    def ring(number: int, frame: FrameType | None) -> None:
        raise Alarm

    def begin(number: int) -> None:
        value = b"%08d" % number
        steps: list[Any] = [OmapSet({b"%06d" % number: b"x"}), SetXattr("n", value), Write(0, value * 5000)]
        assert io.write("object", steps).block().rv == 0

    before = signal.signal(signal.SIGALRM, ring)
    try:
        while interrupts < (10_000 if full else 1_000):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.002))
                while True:
                    begin(told)
                    told += 1
                    data, xattr = io.read("object", [Read(0, 0), GetXattr("n")]).block().outs
                    assert data == xattr * 5000
            except Alarm:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert told > 0
    look_after(cluster)
    assert missing(io, "object", 0, told) == []
    final: Any = io.read("object", [Read(0, 0), GetXattr("n")]).block().outs
    assert final[0] == final[1] * 5000


def test_robust_without_deferral(cluster: embedded.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises inside a transaction, whatever it is, takes back what was done in it."""
    io: Io = cluster.connect().io(1)
    io.write("object", [Write(0, b"before")]).block()
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        with pytest.raises(error), cluster.store.write as db:
            db.execute("UPDATE object SET size = 0")
            raise error
        with pytest.raises(error), cluster.store.read as db:
            raise error
        look_after(cluster)
        assert io.read("object", [Read(0, 0)]).block().outs == (b"before",)
