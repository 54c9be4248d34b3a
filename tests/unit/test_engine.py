"""The engine: every way of driving a coroutine, over completions that come at once, later, elsewhere, and out of order."""

import asyncio
import gc
import itertools
import logging
import queue
import random
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from rbd_native import engine
from rbd_native.engine import (
    PENDING,
    Driven,
    Failure,
    First,
    KeyedMutex,
    Mutex,
    Semaphore,
    Signal,
    Suspension,
    Task,
    as_future,
    for_each,
    gather,
    run,
    spawn,
)

MANY = 100_000


class Now(Suspension):
    """A result at hand."""

    def __init__(self, value=None):
        self.value = value

    def start(self, resume):
        return self.value


class Later(Suspension):
    """A result that comes when the test says so."""

    def __init__(self):
        self.resume = None
        self.started = threading.Event()

    def start(self, resume):
        assert self.resume is None, "started twice"
        self.resume = resume
        self.started.set()
        return PENDING

    def arrive(self, value=None):
        self.resume(value)


class Broken(Suspension):
    """Cannot begin."""

    def start(self, resume):
        raise ZeroDivisionError


class Threads:
    """Completes suspensions from a few threads, in random order."""

    def __init__(self, seed=1, count=4):
        self.random = random.Random(seed)
        self.work = queue.Queue()  # not a SimpleQueue: in Python 3.11 its timeouts are not for several readers
        self.threads = [threading.Thread(target=self.loop) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def loop(self):
        held = []
        while True:
            try:
                item = self.work.get(timeout=0.0005 if held else None)
            except queue.Empty:
                item = PENDING
            if item is None:
                break
            if item is not PENDING:
                held.append(item)
            if held and (item is PENDING or len(held) > 3):
                resume, value = held.pop(self.random.randrange(len(held)))
                resume(value)
        for resume, value in held:
            resume(value)

    def later(self, value=None):
        return _Elsewhere(self, value)

    def close(self):
        for _ in self.threads:
            self.work.put(None)
        for thread in self.threads:
            thread.join(30)


class _Elsewhere(Suspension):
    def __init__(self, threads, value):
        self.threads = threads
        self.value = value

    def start(self, resume):
        self.threads.work.put((resume, self.value))
        return PENDING


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads()
    yield pool
    pool.close()


async def returning(value):
    return value


async def waiting(suspension):
    return await suspension


async def failing(suspension=None):
    if suspension is not None:
        await suspension
    raise KeyError("wanted")


def by_task(coroutine):
    """Drive by completions, and wait for the end."""
    done = queue.SimpleQueue()
    task = Task(coroutine).launch()
    if task.start(done.put) is PENDING:
        done.get(timeout=30)
    return task.result()


def by_asyncio(coroutine):
    async def main():
        return await as_future(coroutine)

    return asyncio.run(main())


@pytest.fixture(params=[run, by_task, by_asyncio], ids=["run", "task", "asyncio"])
def drive(request):
    return request.param


# --- any driver ------------------------------------------------------------------------------------------------------


def test_a_coroutine_that_never_waits(drive):
    assert drive(returning(5)) == 5


def test_results_at_hand(drive):
    async def add():
        return await Now(2) + await Now(3)

    assert drive(add()) == 5


def test_results_from_other_threads(drive, threads):
    async def add():
        return await threads.later(2) + await Now(3) + await threads.later(4)

    assert drive(add()) == 9


def test_none_is_a_result(drive, threads):
    async def both():
        return await Now(), await threads.later()

    assert drive(both()) == (None, None)


def test_an_error_is_raised(drive, threads):
    for coroutine in (failing(), failing(Now()), failing(threads.later())):
        with pytest.raises(KeyError, match="wanted"):
            drive(coroutine)


def test_what_cannot_begin_fails_where_it_is_awaited(drive, threads):
    seen = []

    async def careful():
        try:
            await Broken()
        except ZeroDivisionError:
            seen.append("caught")
        finally:
            seen.append(await threads.later("cleaned up"))
        await Broken()

    with pytest.raises(ZeroDivisionError):
        drive(careful())
    assert seen == ["caught", "cleaned up"]


@pytest.mark.parametrize("later", [False, True])
def test_a_result_that_is_a_failure_is_raised_where_it_is_awaited(drive, threads, later):
    async def careful():
        failure = Failure(ZeroDivisionError())
        try:
            await (threads.later(failure) if later else Now(failure))
        except ZeroDivisionError:
            return "caught"

    assert drive(careful()) == "caught"


def test_many_results_at_hand_do_not_recurse(drive):
    async def count():
        total = 0
        for _ in range(MANY):
            total += await Now(1)
        return total

    assert drive(count()) == MANY


def test_at_hand_and_later_mixed(drive, threads):
    async def mix(seed):
        choice = random.Random(seed)
        return [await (Now(n) if choice.random() < 0.5 else threads.later(n)) for n in range(200)]

    assert drive(mix(3)) == list(range(200))


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_blocks_in_the_calling_thread():
    class Blocking(Suspension):
        def start(self, resume):
            raise AssertionError("not to be started")

        def block(self):
            return threading.get_ident()

    assert run(waiting(Blocking())) == threading.get_ident()


def test_run_lets_an_interrupted_coroutine_clean_up():
    class Interrupted(Suspension):
        def block(self):
            raise KeyboardInterrupt

    seen = []

    async def careful():
        try:
            await Interrupted()
        finally:
            seen.append(await Now("cleaned up"))

    with pytest.raises(KeyboardInterrupt):
        run(careful())
    assert seen == ["cleaned up"]


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_runs_up_to_its_first_wait():
    later, seen = Later(), []

    async def work():
        seen.append("begun")
        seen.append(await later)

    task = Task(work())
    assert not seen
    task.launch()
    assert (seen, task.finished) == (["begun"], False)
    later.arrive("over")
    assert (seen, task.finished, task.result()) == (["begun", "over"], True, None)


def test_a_task_goes_on_in_the_thread_of_its_completion():
    later = Later()

    async def where():
        await later
        return threading.get_ident()

    task = Task(where()).launch()
    thread = threading.Thread(target=later.arrive)
    thread.start()
    identity = thread.ident
    thread.join()
    assert task.result() == identity


class Told(Driven):
    def __init__(self, coroutine, done):
        super().__init__(coroutine)
        self._finish = done
        self._resume(None)


def test_the_outcome_is_told_once_whenever_it_comes():
    outcomes = []
    Told(returning(1), outcomes.append)
    later = Later()
    Told(waiting(later), outcomes.append)
    later.arrive(2)
    Told(failing(), outcomes.append)
    assert outcomes[:2] == [1, 2]
    assert isinstance(outcomes[2], Failure)
    assert isinstance(outcomes[2].error, KeyError)


def test_a_task_may_be_awaited_by_many_before_and_after_its_end(drive):
    later = Later()
    task = Task(waiting(later)).launch()
    first = Task(waiting(task)).launch()
    second = Task(waiting(task)).launch()
    assert not first.finished
    later.arrive(7)
    assert (first.result(), second.result(), drive(waiting(task))) == (7, 7, 7)


def test_awaiting_a_task_that_failed_raises(drive):
    task = Task(failing()).launch()
    for _ in range(2):
        with pytest.raises(KeyError, match="wanted"):
            drive(waiting(task))


def test_the_outcome_of_a_task_is_delivered_once():
    """However its end and the beginning of somebody's wait for it fall together."""
    for _ in range(300):
        later = Later()
        task = Task(waiting(later)).launch()
        heard = []
        barrier = threading.Barrier(2)

        def end(later=later, barrier=barrier):
            barrier.wait()
            later.arrive("once")

        thread = threading.Thread(target=end)
        thread.start()
        barrier.wait()
        value = task.start(heard.append)
        thread.join()
        assert [value] == ["once"] or (value is PENDING and heard == ["once"])
        assert value is PENDING or not heard


def test_spawn_logs_what_nobody_waits_for(caplog):
    later = Later()
    spawn(failing(), "the first")
    spawn(failing(later), "the second")
    spawn(returning(1), "the third")
    assert "the first failed" in caplog.text
    assert "the second" not in caplog.text
    with caplog.at_level(logging.ERROR):
        later.arrive()
    assert "the second failed" in caplog.text
    assert "the third" not in caplog.text


# --- many at once ----------------------------------------------------------------------------------------------------


def test_gather_keeps_the_order(drive, threads):
    async def one(number):
        if number % 3:
            await threads.later()
        return number * number

    assert drive(gather((one(number) for number in range(100)), 8)) == [n * n for n in range(100)]


def test_gather_of_none(drive):
    assert drive(gather([], 3)) == []


def test_no_more_than_the_limit_are_under_way(drive, threads):
    guard, inside, most = threading.Lock(), 0, 0

    async def one():
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        await threads.later()
        with guard:
            inside -= 1

    drive(for_each((one() for _ in range(60)), 5))
    assert inside == 0
    assert most == 5


def test_coroutines_are_made_only_as_places_come_free():
    made, laters = [], []

    def source():
        for number in range(10):
            made.append(number)
            laters.append(Later())
            yield waiting(laters[-1])

    task = Task(for_each(source(), 3)).launch()
    assert made == [0, 1, 2]
    laters[1].arrive()
    assert made == [0, 1, 2, 3]
    for number in (0, 2, 3, 4, 5, 6, 7, 8, 9):
        assert not task.finished
        laters[number].arrive()
    assert task.finished


@pytest.mark.parametrize("limit", [1, 7, MANY])
def test_many_at_hand_at_once_do_not_recurse(drive, limit):
    total = itertools.count()

    async def one():
        await Now(next(total))

    drive(for_each((one() for _ in range(MANY)), limit))
    assert next(total) == MANY


def test_many_that_each_complete_the_next_do_not_recurse():
    """A place that comes free is filled in the same thread, in a loop."""
    total = 20_000
    assert total > sys.getrecursionlimit()
    laters = queue.SimpleQueue()

    async def one():
        later = Later()
        laters.put(later)
        await later

    task = Task(for_each((one() for _ in range(total)), 1)).launch()
    for _ in range(total):
        laters.get_nowait().arrive()
    assert task.finished


def test_after_a_failure_no_more_begin_and_those_under_way_end():
    begun, laters = [], {}

    def source():
        for number in range(10):
            begun.append(number)
            laters[number] = Later()
            yield failing(laters[number]) if number == 1 else waiting(laters[number])

    task = Task(gather(source(), 3)).launch()
    laters[1].arrive()
    assert not task.finished
    laters[2].arrive()
    assert not task.finished
    laters[0].arrive()
    assert task.finished
    assert begun == [0, 1, 2]
    with pytest.raises(KeyError, match="wanted"):
        task.result()


def test_the_first_failure_counts(drive, threads):
    laters = [Later(), Later()]

    async def fail(number):
        await laters[number]
        raise ValueError(number)

    task = Task(for_each((fail(number) for number in range(2)), 2)).launch()
    laters[1].arrive()
    laters[0].arrive()
    with pytest.raises(ValueError, match="1"):
        task.result()


def test_a_source_that_fails(drive, threads):
    async def one():
        await threads.later()

    def source():
        yield one()
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        drive(for_each(source(), 2))


def test_a_completion_that_has_not_drawn_the_next_yet_is_not_the_end(monkeypatch):
    """A thread that is between the two when the first wait begins."""
    pump, first, second = engine._FanOut._pump, Later(), Later()
    inside, go_on = threading.Event(), threading.Event()
    threads = []

    def slow(fan_out, *ended):
        if threading.current_thread() in threads:
            inside.set()
            go_on.wait(30)
        pump(fan_out, *ended)
        if not threads:  # the first round is over, and `start` has not looked yet
            threads.append(threading.Thread(target=first.arrive))
            threads[0].start()
            inside.wait(30)

    monkeypatch.setattr(engine._FanOut, "_pump", slow)
    task = Task(for_each((waiting(later) for later in (first, second)), 1)).launch()
    assert not task.finished
    go_on.set()
    threads[0].join()
    assert not task.finished
    second.arrive()
    assert task.finished


@pytest.mark.parametrize("fan_out", [gather, for_each])
def test_what_was_never_begun_is_closed(fan_out):
    """A coroutine of a list that is not run is not one that somebody forgot."""
    coroutines = [failing(), *(returning(number) for number in range(5))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(KeyError):
            run(fan_out(coroutines, 1))
        del coroutines
        gc.collect()
    assert not caught


@pytest.mark.parametrize("fan_out", [gather, for_each])
def test_a_limit_of_nothing_is_misuse(fan_out):
    with pytest.raises(ValueError, match="limit"):
        run(fan_out((returning(1) for _ in range(2)), 0))


def test_nested(drive, threads):
    async def inner(number):
        return sum(await gather((waiting(threads.later(number)) for _ in range(5)), 2))

    assert drive(gather((inner(number) for number in range(20)), 6)) == [5 * number for number in range(20)]


def test_under_load(threads):
    """Fan-outs of all sizes, failures among them, with completions from several threads: every one ends as it must."""

    async def one(choice, number):
        for _ in range(choice.randrange(3)):
            await (threads.later() if choice.random() < 0.7 else Now())
        if choice.random() < 0.02:
            raise KeyError(number)
        return number

    for seed in range(60):
        choice = random.Random(seed)
        size = choice.randrange(30)
        source = (one(random.Random(seed * 1000 + number), number) for number in range(size))
        try:
            assert by_task(gather(source, 1 + choice.randrange(8))) == list(range(size))
        except KeyError as error:
            assert 0 <= error.args[0] < size


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [1, 3])
def test_a_semaphore_lets_in_so_many(drive, threads, places):
    semaphore = Semaphore(places)
    guard, inside, most = threading.Lock(), 0, 0

    async def one():
        nonlocal inside, most
        async with semaphore:
            with guard:
                inside += 1
                most = max(most, inside)
            await threads.later()
            with guard:
                inside -= 1

    drive(for_each((one() for _ in range(40)), 20))
    assert most == places


def test_a_mutex_is_given_in_the_order_of_asking():
    mutex, seen, laters = Mutex(), [], [Later() for _ in range(5)]

    async def one(number):
        async with mutex:
            seen.append(number)
            await laters[number]

    tasks = [Task(one(number)).launch() for number in range(5)]
    for number in range(5):
        assert seen == list(range(number + 1))
        laters[number].arrive()
    assert all(task.finished for task in tasks)


def test_a_mutex_is_given_back_by_whoever_fails(drive):
    mutex = Mutex()

    async def fail():
        async with mutex:
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            drive(fail())


def test_a_mutex_between_blocked_threads():
    mutex, inside, order = Mutex(), [], []

    async def one(number):
        async with mutex:
            assert not inside
            inside.append(number)
            await Now()
            time.sleep(0.001)
            inside.pop()
            order.append(number)

    threads = [threading.Thread(target=lambda number=number: run(one(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(order) == list(range(8))


@pytest.mark.parametrize("kind", ["mutex", "keyed"])
def test_a_long_queue_does_not_recurse(kind):
    mutex, keyed, first, count = Mutex(), KeyedMutex(), Later(), []

    async def one(wait):
        if kind == "mutex":
            async with mutex:
                await wait
                count.append(1)
        else:
            await keyed.enter("key")
            await wait
            count.append(1)
            keyed.leave("key")

    tasks = [Task(one(first)).launch(), *(Task(one(Now())).launch() for _ in range(20_000))]
    first.arrive()
    assert len(count) == 20_001
    assert all(task.finished for task in tasks)


def test_keys_do_not_hold_up_each_other():
    keyed, laters, seen = KeyedMutex(), {}, []

    async def one(name, key):
        await keyed.enter(key)
        seen.append(name)
        laters[name] = Later()
        await laters[name]
        keyed.leave(key)

    tasks = [Task(one(*what)).launch() for what in (("a1", "a"), ("b1", "b"), ("a2", "a"))]
    assert seen == ["a1", "b1"]
    laters["a1"].arrive()
    assert seen == ["a1", "b1", "a2"]
    laters["a2"].arrive()
    laters["b1"].arrive()
    assert all(task.finished for task in tasks)
    assert not keyed._queues


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_wakes_all_who_wait_and_those_who_come_later(drive):
    signal = Signal()
    early = [Task(waiting(signal.wait())).launch() for _ in range(3)]
    signal.set("value")
    signal.set("another")
    assert [task.result() for task in early] == ["value"] * 3
    assert drive(waiting(signal.wait())) == "value"
    signal.clear()
    again = Task(waiting(signal.wait())).launch()
    assert not again.finished
    signal.set("another")
    assert again.result() == "another"


def test_the_first_of_several():
    one, two = Later(), Later()
    task = Task(waiting(First(one, two))).launch()
    two.arrive("two")
    assert task.result() == (1, "two")
    one.arrive("too late")
    assert run(waiting(First(Later(), Now("at hand")))) == (1, "at hand")


def test_a_failure_that_comes_first_is_raised():
    task = Task(failing()).launch()
    late = Later()
    also = Task(failing(late)).launch()
    for failed in (First(task, Later()), First(Later(), also)):
        waiter = Task(waiting(failed)).launch()
        if not waiter.finished:
            late.arrive()
        with pytest.raises(KeyError, match="wanted"):
            waiter.result()


def test_only_one_comes_first(threads):
    for number in range(200):
        place, value = by_task(waiting(First(threads.later(("a", number)), threads.later(("b", number)))))
        assert value == ("ab"[place], number)


# --- asyncio ---------------------------------------------------------------------------------------------------------


def test_a_future_is_settled_in_the_loops_thread(threads):
    async def main():
        here = threading.get_ident()
        seen = []
        future = as_future(waiting(threads.later(5)))
        future.add_done_callback(lambda _: seen.append(threading.get_ident()))
        assert await future == 5
        await asyncio.sleep(0)
        assert seen == [here]

    asyncio.run(main())


def test_a_cancelled_future_is_not_settled():
    later, ended = Later(), []

    async def work():
        ended.append(await later)

    async def main():
        future = as_future(work())
        future.cancel()
        later.arrive("all the same")
        await asyncio.sleep(0)
        assert future.cancelled()

    asyncio.run(main())
    assert ended == ["all the same"]


def test_a_completion_after_the_loop_is_closed_does_no_harm():
    later = Later()

    async def main():
        as_future(waiting(later))

    asyncio.run(main())
    later.arrive()


def test_many_futures_at_once(threads):
    async def main():
        return await asyncio.gather(*(as_future(waiting(threads.later(number))) for number in range(300)))

    assert asyncio.run(main()) == list(range(300))


def test_pending_has_a_name():
    assert repr(engine.PENDING) == "PENDING"
