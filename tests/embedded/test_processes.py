"""Several processes on one file: they see, wake, outlive and shut out each other."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rbd_native import embedded
from rbd_native.embedded.client import Io
from rbd_native.rados.port import ListWatchers, OmapGetByKeys, Read, Remove, Write

ROOT = Path(__file__).parents[2]


class Worker:
    """A `tests.embedded.worker`, as an object with its verbs."""

    def __init__(self, path: Path, *flags: str) -> None:
        self._path = path
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.embedded.worker", str(path), *flags],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.client, self.address = self.who()

    def begin(self, verb: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.begin(verb, *arguments)
            return self.end()

        return call

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)
        while number == signal.SIGSTOP and self._holds_the_file():
            # Stopped in the middle of an operation it would keep everybody out, as whoever holds a file's lock does.
            os.kill(self.process.pid, signal.SIGCONT)
            time.sleep(0.01)
            os.kill(self.process.pid, signal.SIGSTOP)

    def _holds_the_file(self) -> bool:
        time.sleep(0.02)  # a signal takes its time
        with Path(f"{self._path}-lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def close(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster"


@pytest.fixture
def io(path: Path) -> Iterator[Io]:
    """This process' own client, with an object."""
    with embedded.Cluster(path) as cluster:
        io = cluster.connect().io(1)
        io.write("object", [Write(0, b"first")]).block()
        yield io


@pytest.fixture
def start(path: Path, io: Io) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def run(*flags: str) -> Worker:
        workers.append(Worker(path, *flags))
        return workers[-1]

    yield run
    for worker in workers:
        worker.close()


def notify(io: Io, text: str, timeout_ms: int = 5000) -> tuple[int, list[tuple[int, str]], list[int], float]:
    begin = time.monotonic()
    outcome = io.notify("object", text.encode(), timeout_ms).block()
    took = time.monotonic() - begin
    acks = [(client, payload.decode()) for client, _, payload in outcome.value.acks]
    return outcome.rv, acks, [client for client, _ in outcome.value.timeouts], took


def test_what_one_writes_the_other_reads(io: Io, start: Callable[..., Worker]) -> None:
    one, two = start(), start()
    assert one.read("object") == "first"
    assert two.write("object", "second") == 0
    assert one.read("object") == "second"
    assert io.read("object", [Read(0, 0)]).block().outs == (b"second",)


def test_clients_are_told_apart(io: Io, start: Callable[..., Worker]) -> None:
    one, two = start(), start()
    assert io.cluster.instance_id() < one.client < two.client
    assert len({io.cluster.address(), one.address, two.address}) == 3


def test_nobody_loses_an_update(io: Io, start: Callable[..., Worker]) -> None:
    workers = [start() for _ in range(3)]
    for worker in workers:
        worker.begin("add", "object", 100)
    failed = sum(worker.end() for worker in workers)
    assert io.read("object", [OmapGetByKeys((b"n",))]).block().outs == ({b"n": b"300"},)
    assert failed > 0  # or else they have not been in each other's way, and nothing is proven


@pytest.mark.parametrize(("flags", "patience"), [((), 0.03), (("deaf",), 0.3)])
def test_notifications_reach_other_processes(
    io: Io, start: Callable[..., Worker], flags: tuple[str, ...], patience: float
) -> None:
    worker = start(*flags)
    assert worker.watch("object", 30) == 0
    (watcher,) = io.read("object", [ListWatchers()]).block().outs[0]
    assert (watcher.client, watcher.address, watcher.timeout) == (worker.client, worker.address, 30)
    took = []
    for number in range(9):
        rv, acks, late, seconds = notify(io, f"word {number}")
        assert (rv, acks, late) == (0, [(worker.client, f"WORD {number}")], [])
        took.append(seconds)
    assert worker.heard(9, 1) == [[io.cluster.instance_id(), f"word {number}"] for number in range(9)]
    assert sorted(took)[4] < patience
    assert worker.unwatch() == 0
    assert io.read("object", [ListWatchers()]).block().outs[0] == []


def test_both_watch_and_both_notify(io: Io, start: Callable[..., Worker]) -> None:
    worker = start()
    watch = io.watch("object", lambda *_: b"mine", lambda _: None).block().value
    worker.watch("object", 30)
    everyone = {(io.cluster.instance_id(), "mine"), (worker.client, "X")}
    rv, acks, late, _ = notify(io, "x")
    assert (rv, set(acks), late) == (0, everyone, [])
    rv, acks, late, _ = worker.notify("object", "x", 5000)
    assert (rv, {tuple(ack) for ack in acks}, late) == (0, everyone, [])
    assert watch.close().block().rv == 0


def test_one_who_is_killed_is_not_waited_for(io: Io, start: Callable[..., Worker]) -> None:
    """Not longer than its watch lasts, that is."""
    worker = start()
    worker.watch("object", 1)
    worker.signal(signal.SIGKILL)
    rv, acks, late, took = notify(io, "anybody?", 10_000)
    assert (rv, acks, late) == (0, [], [])
    assert took < 3
    assert io.read("object", [ListWatchers()]).block().outs[0] == []


def test_one_who_does_not_answer_is_told(io: Io, start: Callable[..., Worker]) -> None:
    worker = start()
    worker.watch("object", 30)
    worker.signal(signal.SIGSTOP)
    rv, acks, late, took = notify(io, "anybody?", 1000)
    assert (rv, acks, late) == (0, [], [worker.client])
    assert 0.9 < took < 3


def test_one_who_slept_too_long_has_lost_its_watch(io: Io, start: Callable[..., Worker]) -> None:
    worker = start()
    worker.watch("object", 1)
    assert notify(io, "here", 5000)[1] == [(worker.client, "HERE")]
    worker.signal(signal.SIGSTOP)
    time.sleep(1.3)
    assert io.read("object", [ListWatchers()]).block().outs[0] == []
    worker.signal(signal.SIGCONT)
    assert worker.heard(2, 5)[1:] == [["lost", errno.ENOTCONN]]
    assert worker.watch("object", 30) == 0
    assert notify(io, "again")[1] == [(worker.client, "AGAIN")]


def test_a_living_client_keeps_its_watch(io: Io, start: Callable[..., Worker]) -> None:
    worker = start()
    worker.watch("object", 1)
    time.sleep(2.5)
    assert notify(io, "still there?")[1] == [(worker.client, "STILL THERE?")]
    assert len(worker.heard(1, 0)) == 1


def test_a_watched_object_is_deleted(io: Io, start: Callable[..., Worker]) -> None:
    worker = start()
    worker.watch("object", 30)
    assert worker.write("other", "") == 0
    assert io.write("object", [Remove()]).block().rv == 0
    assert worker.heard(1, 5) == [["lost", errno.ENOTCONN]]


def test_one_on_the_blocklist_is_shut_out_at_once(io: Io, start: Callable[..., Worker]) -> None:
    worker = start()
    worker.watch("object", 30)
    assert io.cluster.blocklist_add(worker.address, 60).block().rv == 0
    assert worker.write("object", "too late") == -errno.ESHUTDOWN
    assert worker.read("object") == -errno.ESHUTDOWN
    assert worker.watch("object", 30) == -errno.ESHUTDOWN
    assert worker.heard(1, 5) == [["lost", errno.ENOTCONN]]
    assert io.read("object", [Read(0, 0)]).block().outs == (b"first",)
    assert start().write("object", "another client") == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from 3.12 on, where there are threads
def test_a_forked_child_is_told_to_connect_itself(io: Io) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answers = []
        for action in (lambda: io.read("object", [Read(0, 0)]), lambda: io.write("object", [Write(0, b"x")])):
            try:
                answers.append(str(action().block()))
            except embedded.ForkedError as error:
                answers.append(str(error))
        os.write(writer, json.dumps(answers).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as pipe:
        answers = json.loads(pipe.read())
    assert all("connect to the cluster again in the child" in answer for answer in answers), answers
    assert io.read("object", [Read(0, 0)]).block().outs == (b"first",)
