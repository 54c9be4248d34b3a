"""Users' callbacks: one at a time, by who brings completions or apart, and never in the way of what they wait for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from rbd_native import callbacks
from rbd_native.callbacks import Courier, about_to_block, call

PATIENCE = 20.0


class Post:
    """A queue of things to bring, with couriers that resume by calling what is in it."""

    def __init__(self) -> None:
        self.parcels: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.couriers: list[threading.Thread] = []
        self._begin()

    def _begin(self) -> None:
        self.couriers.append(threading.Thread(target=self._run, daemon=True))
        self.couriers[-1].start()

    def _run(self) -> None:
        courier = Courier(self._begin)
        while (parcel := self.parcels.get()) is not None:
            parcel()
            courier.rest()
            if courier.relieved:
                return

    def bring(self, function: Callable[[Any], None], argument: Any = None) -> None:
        """Have a courier leave it to be called."""
        self.parcels.put(lambda: call(function, argument))


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(callbacks._callbacks, "_apart_until", 0.0)  # whatever was slow before
    post = Post()
    yield post
    post.parcels.put(None)
    post.couriers[-1].join(PATIENCE)
    assert not post.couriers[-1].is_alive()


def test_the_courier_calls_itself(post: Post) -> None:
    called: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for _ in range(3):
        time.sleep(0.01)
        post.bring(lambda _: called.put(threading.get_ident()))
    # A machine that is busy may have made one of them seem slow; the first is always called by the courier.
    assert called.get(timeout=PATIENCE) == post.couriers[0].ident


def test_one_at_a_time_and_all(post: Post) -> None:
    inside, most = 0, 0
    called: list[int] = []
    ended = threading.Event()

    def work(number: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if number % 97 == 0:
            time.sleep(0.02)
        elif number % 7 == 0:
            time.sleep(0)
        called.append(number)
        inside -= 1
        if len(called) == 1000:
            ended.set()

    for number in range(1000):
        if number % 3:
            post.bring(work, number)
        else:
            call(work, number)
    assert ended.wait(PATIENCE)
    assert most == 1
    assert sorted(called) == list(range(1000))


def test_who_blocks_is_relieved(post: Post) -> None:
    """A callback may wait for something that only a courier brings."""
    brought, ended = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        post.parcels.put(brought.set)
        about_to_block()
        assert brought.wait(PATIENCE)
        ended.set()

    post.bring(wait)
    assert ended.wait(PATIENCE)
    assert len(post.couriers) == 2


def test_who_is_stuck_is_relieved(post: Post) -> None:
    """Where nothing of ours knows that it blocks: it is seen."""
    brought, ended = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        post.parcels.put(brought.set)
        assert brought.wait(PATIENCE)
        ended.set()

    post.bring(wait)
    assert ended.wait(PATIENCE)
    assert len(post.couriers) == 2
    called: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    post.bring(lambda _: called.put(threading.get_ident()))
    assert called.get(timeout=PATIENCE) not in {courier.ident for courier in post.couriers}  # for a while


def test_what_else_waits_is_called_all_the_same(post: Post) -> None:
    """By somebody else, once the one who blocked has ended."""
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    brought = threading.Event()

    def wait(_: Any) -> None:
        about_to_block()
        assert brought.wait(PATIENCE)
        ended.put("first")

    def both() -> None:
        call(wait, None)
        call(ended.put, "second")

    post.parcels.put(both)
    post.parcels.put(brought.set)
    assert [ended.get(timeout=PATIENCE) for _ in range(2)] == ["first", "second"]
