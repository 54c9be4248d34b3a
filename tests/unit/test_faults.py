"""Faults: the client that crashes, the errno from nowhere, and schedules that can be had again."""

import errno

import pytest

from rbd_native import embedded
from rbd_native.engine import Mutex, Signal, Task, gather, run
from rbd_native.rados.faults import Crashed, Faults, touching
from rbd_native.rados.port import Create, Exec, FailOk, OmapSet, RadosError, Read, Remove, Stat, Write, WriteFull
from rbd_native.rados.schedule import Deadlock, Schedule
from rbd_native.rados.wrapper import wrap
from rbd_native.testing.contract import blocking, by_completion


@pytest.fixture
def io():
    with embedded.Cluster() as cluster:
        yield cluster.connect().io(1)


@pytest.fixture(params=[blocking, by_completion])
def do(request):
    return request.param


def content(io, oid):
    reply = blocking(io.read(oid, [Read(0, 99)]))
    return reply.rv or reply.outs[0]


async def steps_of(io):
    """Four requests, and one more to clean up whatever happens."""
    try:
        for name in ("a", "b", "c", "d"):
            await io.write(name, [WriteFull(b"x")])
    finally:
        await io.write("clean", [WriteFull(b"x")])


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("at", range(6))
def test_a_crash_at_each_request(io, do, at, sent):
    crashes = []
    faults = Faults(on_crash=lambda: crashes.append(1))
    faults.crash(at=at, sent=sent)
    faulty = wrap(io, faults)
    if at < 5:
        with pytest.raises(Crashed):
            do(steps_of(faulty))
    else:
        do(steps_of(faulty))
    assert crashes == [1] * (at < 5)
    done = [name for name in ("a", "b", "c", "d", "clean") if content(io, name) == b"x"]
    assert done == ["a", "b", "c", "d", "clean"][: at + sent]


def test_after_the_crash_nothing_reaches_anybody(io, do):
    faults = Faults()
    faulty = wrap(io, faults)
    do(io.write("a", [Create()]))
    heard = []

    def handler(client, notify_id, payload):
        heard.append(payload)
        return b"here"

    do(faulty.watch("a", handler, heard.append))
    assert [reply for _, _, reply in do(io.notify("a", b"first", 3000)).value.acks] == [b"here"]
    faults.cut_off()
    for what in (
        faulty.read("a", [Stat()]),
        faulty.write("a", [Remove()]),
        faulty.execute("a", Exec("no", "such")),
        faulty.notify("a", b"", 1000),
        faulty.snap_create(),
        faulty.cluster.pools(),
        faulty.in_namespace("x").read("a", [Stat()]),
        faulty.cluster.io(1).read("a", [Stat()]),
    ):
        with pytest.raises(Crashed):
            do(what)
    with pytest.raises(Crashed):
        faulty.cluster.sleep(1)
    assert [reply for _, _, reply in do(io.notify("a", b"second", 3000)).value.acks] == [b""]
    assert heard == [b"first"]
    assert content(io, "a") == b""


def test_an_errno_at_a_request(io, do):
    faults = Faults()
    faults.fail(errno.EIO, at=1)
    faulty = wrap(io, faults)
    replies = [do(faulty.write(name, [WriteFull(b"x")])).rv for name in ("a", "b", "c")]
    assert replies == [0, -errno.EIO, 0]
    assert [content(io, name) for name in ("a", "b", "c")] == [b"x", -errno.ENOENT, b"x"]
    assert faults.sent == 3
    faults.fail(errno.EBUSY, at=3)
    with pytest.raises(RadosError) as caught:
        run(steps_of(faulty))
    assert caught.value.errno == errno.EBUSY


def test_an_answer_that_is_lost(io, do):
    faults = Faults()
    faults.fail(errno.ETIMEDOUT, when=touching("a"), sent=True)
    faulty = wrap(io, faults)
    assert do(faulty.write("a", [WriteFull(b"x")])).rv == -errno.ETIMEDOUT
    assert content(io, "a") == b"x"
    assert do(faulty.write("a", [Remove()])).rv == 0


def test_calls_fail_too(io, do):
    faults = Faults()
    faults.fail(errno.EPERM, when=touching(kind="snap_create"))
    assert do(wrap(io, faults).snap_create()).rv == -errno.EPERM


def test_only_what_matches(io, do):
    faults = Faults()
    faults.fail(errno.EIO, when=touching("head*", "write", OmapSet), times=2)
    faulty = wrap(io, faults)
    assert do(faulty.write("other", [OmapSet({b"k": b""})])).rv == 0
    assert do(faulty.write("header", [Create()])).rv == 0
    assert do(faulty.read("header", [Stat()])).rv == 0
    for rv in (-errno.EIO, -errno.EIO, 0):
        assert do(faulty.write("header", [Write(0, b""), FailOk(OmapSet({b"k": b""}))])).rv == rv


def test_requests_that_are_not_counted_have_no_number(io, do):
    faults = Faults(counted=touching(kind="write"))
    faults.crash(at=1)
    faulty = wrap(io, faults)
    do(faulty.write("a", [Create()]))
    for _ in range(5):
        do(faulty.read("a", [Stat()]))
    with pytest.raises(Crashed):
        do(faulty.write("b", [Create()]))


# --- schedules -------------------------------------------------------------------------------------------------------


async def increments(io, name, count):
    """A lost update wherever somebody else writes between the read and the write."""
    for _ in range(count):
        value = int((await io.read(name, [Read(0, 9)])).outs[0])
        await io.write(name, [WriteFull(b"%d" % (value + 1))])


def scheduled(seed):
    """The final count of two clients that increment three times each, and the trace of who did what."""
    from rbd_native.rados.trace import Trace

    with embedded.Cluster() as cluster:
        trace, schedule = Trace(), Schedule(seed)
        ios = [wrap(wrap(cluster.connect().io(1), trace), schedule) for _ in range(2)]
        blocking(ios[0].write("n", [WriteFull(b"0")]))
        schedule.run(*(increments(io, "n", 3) for io in ios))
        return content(ios[0], "n"), [(record.kind, record.steps) for record in trace.records]


def test_a_seed_is_an_order():
    results = {seed: scheduled(seed) for seed in range(12)}
    assert {seed: scheduled(seed) for seed in range(12)} == results
    finals = {final for final, _ in results.values()}
    assert len(finals) > 1, "every order gives the same"
    assert finals <= {b"2", b"3", b"4", b"5", b"6"}


def test_answers_too_are_put_off(io):
    """Done in one order, heard of in another."""
    orders = set()
    for seed in range(40):
        schedule, heard = Schedule(seed), []
        later = wrap(io, schedule)

        async def one(number, later=later, heard=heard):
            await later.write(str(number), [WriteFull(b"")])
            heard.append(number)

        schedule.run(gather((one(number) for number in range(3)), 3))
        orders.add(tuple(heard))
    assert len(orders) == 6


def test_time_goes_on_only_when_there_is_nothing_else_to_do(io):
    schedule = Schedule(1)
    later = wrap(io, schedule)
    seen = []

    async def sleeper(seconds):
        await later.cluster.sleep(seconds)
        seen.append((seconds, schedule.now))

    async def busy():
        for _ in range(30):
            await later.write("a", [WriteFull(b"")])
        seen.append(("busy", schedule.now))

    schedule.run(sleeper(500), sleeper(7), busy(), sleeper(7))
    assert seen == [("busy", 0), (7, 7), (7, 7), (500, 500)]


def test_what_clients_return_and_raise(io):
    schedule = Schedule(1)
    faults = Faults()
    faults.crash(at=1)

    async def value():
        return (await wrap(io, schedule).write("a", [WriteFull(b"")])).rv

    crashed, zero = schedule.run(steps_of(wrap(wrap(io, faults), schedule)), value())
    assert isinstance(crashed, Crashed)
    assert zero == 0


def test_a_deadlock_is_found(io):
    schedule = Schedule(1, patience=0.05)
    later = wrap(io, schedule)

    async def grab(first, second):
        async with first:
            await later.write("a", [WriteFull(b"")])
            async with second:
                pass

    with pytest.raises(Deadlock):
        for _ in range(50):
            one, two = Mutex(), Mutex()
            schedule.run(grab(one, two), grab(two, one))


def test_somebody_elses_thread_may_wake_a_client(io):
    import threading

    schedule, signal = Schedule(1, patience=10), Signal()

    async def wait():
        return await signal.wait()

    timer = threading.Timer(0.1, signal.set, ("woken",))
    timer.start()
    assert schedule.run(wait()) == ["woken"]
    timer.join()


def test_notifications_under_a_schedule(io):
    schedule = Schedule(3)
    later = wrap(io, schedule)
    blocking(io.write("a", [Create()]))

    async def client():
        watch = await later.watch("a", lambda client, notify_id, payload: payload, lambda code: None)
        answer = await later.notify("a", b"x", 3000)
        await watch.close()
        return [payload for _, _, payload in answer.acks]

    assert schedule.run(client()) == [[b"x"]]


def test_a_blocking_call_passes(io):
    later = wrap(io, Schedule(1))
    assert blocking(later.write("a", [WriteFull(b"x")])).rv == 0
    assert Task(later.read("a", [Stat()]).bare()).launch().finished is False
