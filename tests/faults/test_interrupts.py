"""Ctrl-C at random moments of blocking calls: no call is cut in two, no flushed byte is lost, the next call works.

A signal's handler that raises runs once the call has ended, or before it has begun: so what it was to do is done whole or
not at all, and the caller, who hears only of the interrupt, finds either.
"""

import contextlib
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rbd_native as rbd
from tests.backend import Backend
from tests.faults.held import Held, data, running, wrapped

MIB = 1 << 20
BLOCK = 4096
BLOCKS = 64
KEPT = {"rbd_cache": "true", "rbd_cache_writethrough_until_flush": "false"}


class Interrupted(Exception):
    """What the handler raises."""


class Alarms:
    """One at a random moment of each call."""

    def __init__(self, moments: random.Random) -> None:
        self._moments = moments
        self.came = 0
        self.heard = 0

    def _ring(self, number: int, frame: Any) -> None:
        self.came += 1
        raise Interrupted

    def _wait(self, count: int) -> None:
        # A function of its own: from 3.13 on the end of a loop is outside the `try` that it is the last of.
        while self.came < count:
            pass

    @contextlib.contextmanager
    def set(self) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, self._ring)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def during(self, call: Callable[[], Any]) -> bool:
        """Whether it was interrupted, in which case it was done or not. What it raises of its own is raised."""
        awaited, ended = self.came + 1, False
        own: BaseException | None = None
        try:
            signal.setitimer(signal.ITIMER_REAL, self._moments.choice((1e-5, 2e-4, 2e-3)) * self._moments.random() + 1e-6)
            try:
                call()
            except rbd.Error as error:
                own = error
            ended = True
            self._wait(awaited)
        except Interrupted:
            if not ended:
                self.heard += 1
        if own is not None:
            raise own
        return not ended


class Scene:
    """Two handles of two clients on one image, one of which keeps writes in its cache, and what each block may be."""

    def __init__(self, backend: Backend, features: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.alarms = Alarms(self.random)
        self.backend = backend
        cached = backend.ioctx(cluster=backend.connect(**KEPT))
        direct = backend.ioctx(cluster=backend.connect(rbd_cache="false"))
        rbd.RBD().create(cached, "image", BLOCKS * BLOCK, 16, features=features, old_format=False)
        self.images = [rbd.Image(cached, "image"), rbd.Image(direct, "image")]
        self.locks = bool(features & 4)
        self.may_be: list[set[int]] = [{0} for _ in range(BLOCKS)]
        self.number = 0
        self.snapshots = 0

    def write(self, image: Any) -> None:
        self.number += 1
        block, value = self.random.randrange(BLOCKS), self.number % 251 + 1
        if self.alarms.during(lambda: image.write(bytes([value]) * BLOCK, block * BLOCK)):
            self.may_be[block] = self.may_be[block] | {value}
        else:
            self.may_be[block] = {value}

    def read(self, image: Any) -> None:
        block = self.random.randrange(BLOCKS)
        got: list[bytes] = []
        if not self.alarms.during(lambda: got.append(image.read(block * BLOCK, BLOCK))):
            assert got[0] == got[0][:1] * BLOCK
            assert got[0][0] in self.may_be[block]
            self.may_be[block] = {got[0][0]}

    def flush(self, image: Any) -> None:
        self.alarms.during(image.flush)

    def snapshot(self, image: Any) -> None:
        self.snapshots += 1
        name = f"s{self.snapshots}"
        image.flush()
        expected = [set(values) for values in self.may_be]
        interrupted = self.alarms.during(lambda: image.create_snap(name))
        there = image.snap_exists(name)
        assert there or interrupted
        if there:
            self._check(name, expected)
            self.alarms.during(lambda: image.remove_snap(name))
            if image.snap_exists(name):
                image.remove_snap(name)

    def resize(self, image: Any) -> None:
        size = self.random.choice((BLOCKS, BLOCKS + 8, BLOCKS + 16)) * BLOCK
        if not self.alarms.during(lambda: image.resize(size)):
            assert image.size() == size
        assert image.size() >= BLOCKS * BLOCK

    def lock(self, image: Any) -> None:
        if self.locks:
            with contextlib.suppress(rbd.InvalidArgument):  # it is not held
                self.alarms.during(image.lock_release)
            self.alarms.during(image.is_exclusive_lock_owner)

    def go(self, count: int) -> None:
        acts = [*[self.write] * 6, *[self.read] * 3, self.flush, self.flush, self.snapshot, self.resize, self.lock]
        with self.alarms.set():
            for _ in range(count):
                image = self.random.choice(self.images)
                if not self.locks:  # then only what was flushed is seen by the other
                    for other in self.images:
                        other.flush()
                self.random.choice(acts)(image)
        for image in self.images:
            image.flush()
            image.close()
        self._check(None, self.may_be)

    def _check(self, snapshot: str | None, expected: list[set[int]]) -> None:
        with rbd.Image(self.backend.ioctx(), "image", snapshot, read_only=True) as look:
            content = look.read(0, BLOCKS * BLOCK)
        for block, values in enumerate(expected):
            part = content[block * BLOCK : (block + 1) * BLOCK]
            assert part == part[:1] * BLOCK, (snapshot, block)
            assert part[0] in values, (snapshot, block, part[0], values)


@pytest.mark.filterwarnings("ignore:.*was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("features", [1, 5, 61])
def test_any_moment_of_any_call(backend: Backend, full: bool, features: int) -> None:
    """250 interrupts in the short form, 10,000 in the long one."""
    scene = Scene(backend, features, seed=features)
    scene.go(10_000 if full else 250)
    assert scene.alarms.heard > 0


def test_a_write_that_is_under_way_is_waited_for(backend: Backend) -> None:
    """Nobody else gets the lock before it has ended."""
    with Held() as held:
        mine = held.ioctx(backend, rbd_cache="false")
        theirs = backend.ioctx(cluster=backend.connect(rbd_cache="false"))
        rbd.RBD().create(mine, "image", 8 * MIB, 20, features=61, old_format=False)
        with rbd.Image(mine, "image") as image, rbd.Image(theirs, "image") as other:
            image.write(b"0" * BLOCK, 0)
            slow = held.hold(data(0, "write"))

            def interrupt() -> None:
                slow.arrived()
                signal.raise_signal(signal.SIGUSR1)
                with running(other.write, b"B" * BLOCK, 0) as write:
                    assert write.waits()
                    slow.let_go()
                    write.result()
                    other.flush()

            def ring(number: int, frame: Any) -> None:
                raise Interrupted

            before = signal.signal(signal.SIGUSR1, ring)
            try:
                with running(interrupt) as interrupting:
                    with pytest.raises(Interrupted):
                        image.write(b"A" * BLOCK, 0)
                    interrupting.result()
            finally:
                signal.signal(signal.SIGUSR1, before)
            assert other.read(0, 1) == image.read(0, 1) == b"B"


@pytest.mark.parametrize(
    "call", [lambda image: image.create_snap("s"), lambda image: image.resize(MIB), lambda image: image.lock_release()]
)
def test_a_gate_opens_again(backend: Backend, call: Callable[[Any], Any]) -> None:
    """An interrupt while something waits for writes to end."""
    with Held() as held:
        ioctx = wrapped(held.ioctx(backend, rbd_cache="false"))
        rbd.RBD().create(ioctx, "image", 8 * MIB, 20, features=61, old_format=False)
        with rbd.Image(ioctx, "image") as image:
            image.write(b"A", 0)
            slow = held.hold(data(4, "write"))

            def ring(number: int, frame: Any) -> None:
                raise Interrupted

            now = threading.Event()

            def interrupt() -> None:
                now.wait()
                signal.raise_signal(signal.SIGUSR1)
                slow.let_go()

            before = signal.signal(signal.SIGUSR1, ring)
            try:
                with running(image.write, b"B", 4 * MIB) as write, running(interrupt):
                    slow.arrived()
                    with pytest.raises(Interrupted):
                        now.set()
                        call(image)
                    write.result()
            finally:
                signal.signal(signal.SIGUSR1, before)
            assert image.write(b"C", 0) == 1


def test_a_diff_can_be_stopped(backend: Backend) -> None:
    """Between two extents, by a signal; the image goes on."""
    ioctx = backend.ioctx(cluster=backend.connect())
    rbd.RBD().create(ioctx, "image", 64 * MIB, 20, features=61, old_format=False)
    seen: list[int] = []

    def ring(number: int, frame: Any) -> None:
        raise Interrupted

    def tell(offset: int, length: int, exists: bool) -> None:
        seen.append(offset)
        signal.raise_signal(signal.SIGUSR1)

    with rbd.Image(ioctx, "image") as image:
        for number in range(0, 64, 2):
            image.write(b"x", number * MIB)
        before = signal.signal(signal.SIGUSR1, ring)
        try:
            with pytest.raises(Interrupted):
                image.diff_iterate(0, image.size(), None, tell)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert seen == [0]
        assert image.read(0, 1) == b"x"
