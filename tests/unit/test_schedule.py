"""Schedules that conduct: blocking calls, threads, users' callbacks and watches are steps, in a seed's order."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.engine import Mutex, Signal, run
from rbd_native.rados.schedule import Deadlock, Schedule
from tests.schedules.world import OBJECT, World, attempt, create, each_held, find, outcome, shorten, tell


def told(story: Callable[[World], Any], seed: int) -> str:
    telling = tell(story, seed)
    assert telling.error is None, telling.told
    return telling.told


def busy(world: World) -> None:
    """Two clients, three threads, callbacks that go on by themselves, a lock that moves, notifications and sleeps."""
    ioctx = world.ioctx(rbd_cache="true", rbd_cache_writethrough_until_flush="false", rbd_cache_policy="writeback")
    create(ioctx, 4, 61)
    image = rbd.Image(ioctx, "image")
    heard: list[int] = []

    def more(completion: Any) -> None:
        heard.append(completion.get_return_value())
        if len(heard) < 5:
            image.aio_write(b"B" * 4096, len(heard) % 4 * OBJECT, more)

    first = image.aio_write(b"A" * 4096, 0, more)
    other = rbd.Image(world.ioctx(), "image")
    jobs = [world.begin(other.write, b"C" * 4096, OBJECT), world.begin(image.create_snap, "s")]
    first.wait_for_complete_and_cb()
    world.schedule.pass_time(3)
    assert [outcome(job) for job in jobs] == [4096, None]
    world.schedule.wait(lambda: len(heard) == 5)
    other.close()
    image.close()


def test_a_seed_is_an_order_with_threads_too() -> None:
    stories = {seed: told(busy, seed) for seed in range(6)}
    assert len(set(stories.values())) == 6
    assert {seed: told(busy, seed) for seed in range(6)} == stories


def test_the_order_of_one_object() -> None:
    """Of one client, operations on an object are done in the order in which they were asked; of two clients, in any."""

    def story(world: World) -> None:
        ioctx, theirs = world.ioctx(), world.ioctx()
        create(ioctx, 1, 1)
        with rbd.Image(ioctx, "image") as image, rbd.Image(theirs, "image") as other:
            ended: list[int] = []
            done = [
                image.aio_write(bytes([number]) * 512, 0, lambda completion, n=number: ended.append(n))
                for number in range(1, 6)
            ]
            theirs_done = other.aio_write(b"\xff" * 512, 0, None)
            for completion in [*done, theirs_done]:
                completion.wait_for_complete_and_cb()
            assert ended == [1, 2, 3, 4, 5]
            last.add(image.read(0, 1))

    last: set[bytes] = set()
    for seed in range(30):
        told(story, seed)
    assert last == {b"\x05", b"\xff"}


def test_answers_of_several_objects_come_in_any_order() -> None:
    def story(world: World) -> None:
        ioctx = world.ioctx()
        create(ioctx, 3, 1)
        with rbd.Image(ioctx, "image") as image:
            ended: list[int] = []
            done = [
                image.aio_write(b"x" * 512, number * OBJECT, lambda completion, n=number: ended.append(n))
                for number in range(3)
            ]
            assert not any(completion.is_complete() for completion in done)
            for completion in done:
                completion.wait_for_complete_and_cb()
            orders.add(tuple(ended))

    orders: set[tuple[int, ...]] = set()
    for seed in range(40):
        told(story, seed)
    assert len(orders) == 6


def test_callbacks_may_block() -> None:
    def story(world: World) -> None:
        ioctx = world.ioctx()
        create(ioctx, 1, 61)
        with rbd.Image(ioctx, "image") as image:
            found: list[bytes] = []
            image.aio_write(b"x" * 512, 0, lambda completion: found.append(image.read(0, 1))).wait_for_complete_and_cb()
            assert found == [b"x"]

    told(story, 1)


def test_who_waits_for_an_event_of_his_own() -> None:
    """Somebody else does the steps then."""

    def story(world: World) -> None:
        ioctx = world.ioctx()
        create(ioctx, 1, 1)
        with rbd.Image(ioctx, "image") as image:
            event = threading.Event()
            image.aio_write(b"x" * 512, 0, lambda completion: event.set())
            assert event.wait(30)

    told(story, 1)


def test_everybody_waits() -> None:
    """A deadlock is one, in threads as in tasks."""

    def story(world: World) -> None:
        one, two = Mutex(), Mutex()
        io = world.ioctx().rbd_native_port

        async def grab(first: Mutex, second: Mutex) -> None:
            async with first:
                await io.cluster.sleep(1)
                async with second:
                    pass

        jobs = [world.begin(run, grab(one, two)), world.begin(run, grab(two, one))]
        for job in jobs:
            job.result()

    assert isinstance(tell(story, 1).error, Deadlock)


def test_who_waits_too_long() -> None:
    def story(world: World) -> None:
        io = world.ioctx().rbd_native_port

        async def forever() -> None:
            while True:
                await io.cluster.sleep(1)

        run(forever())

    assert isinstance(tell(story, 1).error, Deadlock)


def test_time_passes_for_watches_too() -> None:
    """Whoever lives keeps its watches, however much time passes at once."""

    def story(world: World) -> None:
        ioctx = world.ioctx()
        create(ioctx, 1, 61)
        with rbd.Image(ioctx, "image") as image, rbd.Image(world.ioctx(), "image") as other:
            world.schedule.pass_time(300)
            other.resize(2 * OBJECT)
            assert image.size() == 2 * OBJECT
            world.lose_watches(ioctx)
            world.schedule.settle()
            assert attempt(image.write, b"x" * 512, 0) == 512

    told(story, 1)


def test_what_is_found_is_shortened() -> None:
    """To a step that is held back, all else being in its order."""

    def story(world: World) -> None:
        io = world.ioctx().rbd_native_port
        seen: list[str] = []
        signal = Signal()

        async def one(name: str) -> None:
            await io.cluster.io(io.pool_id).read(name, []).bare()
            seen.append(name)
            if len(seen) == 5:
                signal.set()

        for name in "abcde":
            world.begin(run, one(name))
        run(_waited(signal))
        assert seen[-1] != "b"

    async def _waited(signal: Signal) -> None:
        await signal.wait()

    found, tried = find(story, 100)
    assert found is not None and tried < 50
    assert tell(story, 0, ()).error is None
    short = shorten(story, 0)
    assert short is not None and short.held is not None and len(short.held) == 1
    assert sum(telling.error is not None for telling in each_held(story, 0)) == 2  # the operation, or its answer


def test_unscheduled_calls_pass() -> None:
    """Where nobody conducts, blocking calls are done at once, and a schedule runs tasks alone."""
    schedule = Schedule(1, patience=0.05)
    with pytest.raises(Deadlock):
        schedule.wait(lambda: False)
