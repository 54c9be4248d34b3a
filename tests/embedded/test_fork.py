"""What a forked child may do with a cluster: everything where it is in a file, but with clients of its own; the rest is
refused."""

import ctypes
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import embedded
from rbd_native.embedded.client import Io
from rbd_native.rados.port import OmapSet, Read, Write
from tests.embedded.forking import Child, descriptors, in_child, missing, put

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from 3.12 on, where there are threads

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster"


@pytest.fixture
def cluster(path: Path) -> Iterator[embedded.Cluster]:
    with embedded.Cluster(path) as cluster:
        yield cluster


@pytest.fixture
def io(cluster: embedded.Cluster) -> Io:
    """Of the process that forks; it has read and written."""
    io = cluster.connect().io(1)
    io.write("object", [Write(0, b"first")]).block()
    io.read("object", [Read(0, 0)]).block()
    return io


# --- nothing is lost -------------------------------------------------------------------------------------------------


def outsider(path: Path) -> None:
    """Another program opens the file, and is the last to close it where the others' locks do not count."""
    program = "import sys; from rbd_native import embedded; embedded.Cluster(sys.argv[1]).connect().shutdown()"
    subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=True)


@pytest.mark.parametrize("how", ["the file itself", "the same object"])
def test_what_a_child_is_told_is_kept(path: Path, how: str) -> None:
    """Its parent closes the file, others open and close it, and all the while the child has it open and writes."""
    rounds, count = 3, 40
    told = 0
    for number in range(rounds):
        with embedded.Cluster(path) as cluster:
            io = cluster.connect().io(1)
            assert put(io, "parent", number * count, count) == count

            def work(cluster: embedded.Cluster = cluster, number: int = number) -> int:
                own = cluster if how == "the same object" else embedded.Cluster(path)
                there = own.connect().io(1)
                told = put(there, "child", 2 * number * count, count)
                os.kill(os.getpid(), signal.SIGSTOP)
                return told + put(there, "child", (2 * number + 1) * count, count)

            child = Child(work)
            os.waitpid(child.pid, os.WUNTRACED)
            assert put(io, "parent again", number * count, count) == count
        outsider(path)
        os.kill(child.pid, signal.SIGCONT)
        told += child.result()
    assert told == 2 * rounds * count
    with embedded.Cluster(path) as anew:
        there = anew.connect().io(1)
        assert missing(there, "child", 0, told) == []
        assert missing(there, "parent", 0, rounds * count) == []
        assert missing(there, "parent again", 0, rounds * count) == []


def test_forks_while_other_threads_write_and_read(cluster: embedded.Cluster, io: Io, path: Path) -> None:
    forks, threads = 60, 3
    stop = threading.Event()
    told = [0] * threads
    wrong: list[Any] = []

    def write(place: int) -> None:
        own = cluster.connect().io(1)
        while not stop.is_set():
            told[place] += put(own, f"thread {place}", told[place], 1)
            if (reply := own.read("object", [Read(0, 0)]).block()).outs != (b"first",):
                wrong.append(reply)

    writers = [threading.Thread(target=write, args=(place,)) for place in range(threads)]
    for writer in writers:
        writer.start()
    try:
        for number in range(forks):
            opened = (lambda: embedded.Cluster(path)) if number % 2 else (lambda: cluster)
            work = partial(put, oid="children", first=number, count=1)
            assert in_child(lambda work=work, opened=opened: work(opened().connect().io(1))) == 1  # type: ignore[misc]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert wrong == []
    assert missing(io, "children", 0, forks) == []
    for place in range(threads):
        assert told[place] > 0
        assert missing(io, f"thread {place}", 0, told[place]) == []


def test_children_of_children(cluster: embedded.Cluster, io: Io) -> None:
    def descend(depth: int) -> int:
        told = put(cluster.connect().io(1), "family", depth, 1)
        return told + (in_child(lambda: descend(depth - 1)) if depth else 0)

    assert in_child(lambda: descend(4)) == 5
    assert missing(io, "family", 0, 5) == []


def test_the_usual_ways(cluster: embedded.Cluster, io: Io, path: Path) -> None:
    """A pool of workers that are forked from a process with an open cluster, and a daemon."""
    context = multiprocessing.get_context("fork")
    with context.Pool(3, initializer=_open_in_worker, initargs=(cluster,)) as pool:
        assert pool.map(_work, range(30)) == [1] * 30
    assert missing(io, "worker", 0, 30) == []

    def daemonize() -> Any:
        os.setsid()
        return in_child(lambda: put(embedded.Cluster(path).connect().io(1), "daemon", 0, 5))

    assert in_child(daemonize) == 5
    assert missing(io, "daemon", 0, 5) == []


_worker: dict[str, Io] = {}


def _open_in_worker(cluster: embedded.Cluster) -> None:
    _worker["io"] = cluster.connect().io(1)


def _work(number: int) -> int:
    return put(_worker["io"], "worker", number, 1)


def test_images_on_both_sides(cluster: embedded.Cluster) -> None:
    with embedded.Rados(cluster=cluster) as client, client.open_ioctx("rbd") as ioctx:
        rbd.RBD().create(ioctx, "disk", 1 << 24)
        with rbd.Image(ioctx, "disk") as image:
            image.write(b"parent", 0)
            image.flush()

            def work() -> str:
                own = embedded.Rados(cluster=cluster)
                with own, own.open_ioctx("rbd") as there, rbd.Image(there, "disk") as same:
                    same.write(b"child", 4096)  # takes the lock from the parent
                    return same.read(0, 6).decode()

            assert in_child(work) == "parent"
            assert in_child(lambda: _refused(lambda: image.read(0, 1)) + _refused(image.close)) == ["ForkedError", "None"]
            assert image.read(4096, 5) == b"child"
            image.write(b"again", 0)
            assert image.read(0, 5) == b"again"


def _refused(action: Callable[[], Any]) -> list[str]:
    try:
        return [str(action())]
    except embedded.ForkedError as error:
        return [type(error).__name__]


# --- whose clients are whose -----------------------------------------------------------------------------------------


def test_a_client_is_its_process_own(cluster: embedded.Cluster, io: Io) -> None:
    client = embedded.Rados(cluster=cluster)
    client.connect()
    ioctx = client.open_ioctx("rbd")
    watch = ioctx.watch("object", lambda *_: None)
    actions = [
        lambda: io.read("object", [Read(0, 0)]).block(),
        lambda: io.write("object", [Write(0, b"x")]).block(),
        lambda: io.snap_create().block(),
        lambda: io.notify("object", b"", 100).block(),
        lambda: io.watch("object", lambda *_: b"", lambda _: None).block(),
        lambda: ioctx.read("object"),
        lambda: ioctx.aio_read("object", 1, 0),
        lambda: ioctx.list_objects().__next__(),
        lambda: client.mon_command('{"prefix": "df", "format": "json"}', b""),
        lambda: client.list_pools(),
        lambda: client.open_ioctx("rbd"),
    ]

    def work() -> list[str]:
        told = []
        for action in actions:
            try:
                told.append(str(action()))
            except embedded.Error as error:
                told.append(type(error).__name__)
        for close in (watch.close, ioctx.close, client.shutdown, io.cluster.shutdown):
            close()
        return told

    assert in_child(work) == ["ForkedError"] * len(actions)
    assert ioctx.read("object") == b"first"
    assert ioctx.notify("object", "still there?")
    client.shutdown()


def test_the_child_wakes_its_parent(cluster: embedded.Cluster, io: Io) -> None:
    heard: list[bytes] = []

    def answer(client: int, notify: int, payload: bytes) -> bytes:
        heard.append(payload)
        return b"yes"

    watch = io.watch("object", answer, lambda _: None).block()

    def work() -> list[str]:
        outcome = cluster.connect().io(1).notify("object", b"hello", 20_000).block()
        return [reply.decode() for _, _, reply in outcome.value.acks]

    assert in_child(work) == ["yes"]
    assert heard == [b"hello"]
    assert watch.value.close().block().rv == 0


def test_leaving_a_block_in_the_child_is_silent(cluster: embedded.Cluster, io: Io) -> None:
    program = """
import os, sys
from rbd_native import embedded
import rbd_native as rbd
for path in (sys.argv[1], None):
    with embedded.Cluster(path) as cluster, embedded.Rados(cluster=cluster) as client, client.open_ioctx("rbd") as ioctx:
        ioctx.write_full("object", b"")
        with ioctx.watch("object", lambda *_: None), embedded.Rados(conf={"embedded_path": path or ""}):
            pid = os.fork()
    if not pid:
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", program]
    done = subprocess.run([*command, str(cluster.store.path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_cluster_in_memory_is_its_process_own() -> None:
    with embedded.Cluster() as cluster:
        io = cluster.connect().io(1)
        io.write("object", [Write(0, b"first")]).block()

        def work() -> list[str]:
            told = []
            for action in (lambda: io.read("object", [Read(0, 0)]).block(), cluster.connect, cluster.close):
                try:
                    told.append(str(action()))
                except embedded.ForkedError as error:
                    told.append(type(error).__name__)
            with embedded.Cluster() as own:
                told.append(str(put(own.connect().io(1), "object", 0, 3)))
            return told

        assert in_child(work) == ["ForkedError", "ForkedError", "None", "3"]
        assert io.read("object", [Read(0, 0)]).block().outs == (b"first",)


def test_a_child_has_no_descriptor_of_its_parents(cluster: embedded.Cluster, io: Io, path: Path) -> None:
    watch = io.watch("object", lambda *_: b"", lambda _: None).block().value
    assert any(str(path) in what for what in descriptors().values())
    before = {what for what in descriptors().values() if "socket" in what}
    there = in_child(lambda: list(descriptors().values()))
    assert [what for what in there if str(path) in what] == []
    assert len(before & set(there)) < len(before)  # the bell of the client that watches
    watch.close().block()


# --- what cannot be prepared -----------------------------------------------------------------------------------------


def test_a_fork_that_python_is_not_told_of(cluster: embedded.Cluster, io: Io, path: Path) -> None:
    """Whatever the child did would look like working: it is refused."""

    def work() -> list[str]:
        told = []
        actions = (
            lambda: io.write("object", [Write(0, b"x")]).block(),
            lambda: cluster.connect(),
            lambda: embedded.Cluster(path),
            lambda: embedded.Rados(conf={"embedded_path": str(path)}).connect(),
        )
        for action in actions:
            try:
                told.append(str(action()))
            except embedded.ForkedError as error:
                told.append(type(error).__name__)
        with embedded.Cluster(path.with_name("another")) as own:
            told.append(str(put(own.connect().io(1), "object", 0, 3)))
        cluster.close()
        return told

    assert Child(work, ctypes.PyDLL(None).fork).result() == ["ForkedError"] * 4 + ["3"]
    assert put(io, "object", 0, 5) == 5


# --- the lock --------------------------------------------------------------------------------------------------------


def test_nobody_waits_for_the_children_of_the_dead(path: Path) -> None:
    """A process is killed while it writes, and its child lives on."""
    with embedded.Cluster(path, pools=("rbd",)):
        pass
    for number in range(8):
        parent = subprocess.Popen(
            [sys.executable, "-m", "tests.embedded.orphaning", str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.stdout.readline()  # it writes
        parent.kill()
        parent.wait()
        parent.stdout.close()
        try:
            os.kill(child, 0)
            with embedded.Cluster(path, patience=20) as cluster:
                with cluster.store.writing(20):
                    pass
                assert put(cluster.connect().io(1), "object", number, 1) == 1
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_fork_does_not_wait_for_other_processes(cluster: embedded.Cluster, io: Io, path: Path) -> None:
    """A thread waits for the lock, which somebody holds and does not give up: that must not keep forks waiting."""
    with Path(f"{path}-lock").open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        writer = threading.Thread(target=lambda: io.write("object", [OmapSet({b"k": b"v"})]).block())
        writer.start()
        while "FLOCK" not in _locks_waited_for():
            os.sched_yield()
        assert in_child(lambda: cluster.store.data_version() >= 0) is True
        fcntl.flock(holder, fcntl.LOCK_UN)
        writer.join()
    assert put(io, "object", 0, 1) == 1


def _locks_waited_for() -> str:
    return "".join(line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "->" in line)
