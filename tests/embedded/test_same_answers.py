"""A program's calls of the `rados` module get the same answers from an embedded cluster as from a real one.

Each case runs on both, on objects and pools of its own; what comes back must be equal: values, types, the classes of
exceptions, their errnos and their words.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.backend import ceph_backend, embedded_backend
from tests.cluster import CephCluster

MIB = 1 << 20
POOL = "same-answers"


class Side(NamedTuple):
    """One of the two: the module, a client, an ioctx of an empty namespace of POOL, and what makes another client."""

    rados: Any
    client: Any
    io: Any
    connect: Callable[..., Any]


@pytest.fixture(scope="module")
def both(ceph: CephCluster) -> Iterator[tuple[Any, Any]]:
    with embedded_backend() as mine, ceph_backend(ceph, POOL) as theirs:
        mine.cluster.create_pool(POOL)
        yield mine, theirs


def told(call: Callable[[], Any]) -> Any:
    """What a call gave: its value, or the exception's class, errno and words."""
    try:
        return plain(call())
    except Exception as error:
        return type(error).__name__, getattr(error, "errno", None), str(error)


def plain(value: Any) -> Any:
    """Comparable: no moments, no objects of either module."""
    if isinstance(value, time.struct_time):
        return "a moment"
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    return value


CASES: dict[str, Callable[[Side], Any]] = {}


def case(function: Callable[[Side], Any]) -> Callable[[Side], Any]:
    CASES[function.__name__] = function
    return function


@pytest.mark.ceph
@pytest.mark.parametrize("name", CASES)
def test_the_same(name: str, both: tuple[Any, Any]) -> None:
    answers = []
    for backend in both:
        io = backend.ioctx(POOL)
        io.set_namespace(name)
        side = Side(backend.rados_module, backend.cluster, io, backend.connect)
        answers.append(list(CASES[name](side)))
        io.close()
    mine, theirs = answers
    assert len(mine) == len(theirs) > 0
    assert {n: (a, b) for n, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b} == {}


def write(side: Side, oid: str, *steps: Callable[[Any], Any], **keywords: Any) -> Any:
    with side.rados.WriteOpCtx() as op:
        for step in steps:
            step(op)
        return told(lambda: side.io.operate_write_op(op, oid, **keywords))


def omap(side: Side, oid: str, ask: Callable[[Any], Any]) -> Any:
    with side.rados.ReadOpCtx() as op:
        iterator, rv = ask(op)
        done = told(lambda: side.io.operate_read_op(op, oid))
        return rv, done, told(lambda: list(iterator)) if done is None else None


# --- data ------------------------------------------------------------------------------------------------------------


@case
def data(side: Side) -> Any:
    io = side.io
    return [
        told(lambda: io.write("a", b"hello")),
        told(lambda: io.write("a", b"HELLO", 3)),
        told(lambda: io.read("a")),
        told(lambda: io.read("a", 2, 1)),
        told(lambda: io.read("a", 10, 100)),
        told(lambda: io.read("a", 0)),
        told(lambda: io.read("missing", 0)),
        told(lambda: io.read("missing")),
        told(lambda: io.append("a", b"!")),
        told(lambda: io.stat("a")),
        told(lambda: io.stat("missing")),
        told(lambda: io.trunc("a", 3)),
        told(lambda: io.trunc("missing", 3)),
        told(lambda: io.trunc("a", 10)),
        told(lambda: io.read("a")),
        told(lambda: io.write_full("a", b"")),
        told(lambda: io.stat("a")),
        told(lambda: io.writesame("a", b"ab", 6, 1)),
        told(lambda: io.writesame("a", b"ab", 5, 1)),
        told(lambda: io.read("a")),
        told(lambda: io.cmpext("a", b"\0aba", 0)),
        told(lambda: io.cmpext("a", b"\0abx", 0)),
        told(lambda: io.cmpext("missing", b"x", 0)),
        told(lambda: io.remove_object("a")),
        told(lambda: io.remove_object("a")),
    ]


@case
def arguments(side: Side) -> Any:
    io = side.io
    return [
        told(lambda: io.write("a", "text")),
        told(lambda: io.write("a", bytearray(2))),
        told(lambda: io.write(5, b"")),
        told(lambda: io.write("a", b"", -1)),
        told(lambda: io.stat(None)),
        told(lambda: side.client.open_ioctx(5)),
        told(lambda: side.client.open_ioctx(None)),
        told(lambda: io.set_xattr("a", "n", "v")),
        told(lambda: io.write("", b"")),
        told(lambda: io.write("x" * 2048, b"")),
        told(lambda: io.write("x" * 2049, b"")),
        told(lambda: io.read("é" * 1025)),
    ]


@case
def limits(side: Side) -> Any:
    io = side.io
    return [
        told(lambda: io.write("a", b"a", 128 * MIB - 1)),
        told(lambda: io.write("a", b"ab", 128 * MIB - 1)),
        told(lambda: io.write("a", b"", 128 * MIB)),
        told(lambda: io.write("a", b"a", 2**64 - 1)),
        told(lambda: io.trunc("a", 128 * MIB)),
        told(lambda: io.append("a", b"a")),
        told(lambda: io.read("a", 10, 2**63)),
        told(lambda: io.write("a", bytes(90 * MIB + 1))),
        told(lambda: io.set_xattr("a", "n" * 100, b"v")),
        told(lambda: io.set_xattr("a", "n" * 101, b"v")),
        told(lambda: io.get_xattr("a", "n" * 101)),
        write(side, "a", lambda op: op.cmpext(b"\0", 2**40)),
        write(side, "a", lambda op: op.writesame(b"a" * 4096, 256 * MIB, 0)),
        told(lambda: io.set_namespace("n" * 257)),
        told(lambda: io.write("a", b"")),
    ]


@case
def xattrs(side: Side) -> Any:
    io = side.io
    return [
        told(lambda: io.set_xattr("a", "b", b"1")),
        told(lambda: io.set_xattr("a", "a", b"")),
        told(lambda: io.set_xattr("a", "", b"nameless")),
        told(lambda: io.get_xattr("a", "b")),
        told(lambda: io.get_xattr("a", "a")),
        told(lambda: io.get_xattr("a", "c")),
        told(lambda: io.get_xattr("missing", "c")),
        told(lambda: io.rm_xattr("a", "c")),
        told(lambda: io.rm_xattr("missing", "c")),
        told(lambda: sorted(io.get_xattrs("a"))),
        told(lambda: list(io.get_xattrs("missing"))),
        told(lambda: io.rm_xattr("a", "a")),
        told(lambda: sorted(io.get_xattrs("a"))),
    ]


@case
def objects(side: Side) -> Any:
    io = side.io
    io.write("a", b"0123456789")
    (found,) = list(io.list_objects())
    return [
        (found.key, found.nspace, found.offset, found.state),
        found.read(3),
        found.read(3),
        told(lambda: found.seek(8)),
        found.read(),
        told(lambda: found.write(b"xyz")),
        io.read("a"),
        told(found.stat),
        told(lambda: found.set_xattr("n", b"v")),
        told(lambda: found.get_xattr("n")),
        told(lambda: sorted(found.get_xattrs())),
        told(lambda: found.rm_xattr("n")),
        told(found.remove),
        told(found.read),
        told(lambda: list(io.list_objects())),
    ]


@case
def listings(side: Side) -> Any:
    io = side.io
    for name in ("a", "b", "c"):
        io.write(name, b"")
    mine = sorted((o.key, o.nspace) for o in io.list_objects())
    io.set_namespace("listings-other")
    io.write("d", b"")
    other = sorted((o.key, o.nspace) for o in io.list_objects())
    io.set_namespace("\x01")
    everywhere = [(o.key, o.nspace) for o in io.list_objects()]
    return mine, other, sorted(pair for pair in everywhere if pair[1].startswith("listings"))


# --- operations ------------------------------------------------------------------------------------------------------


@case
def compound(side: Side) -> Any:
    io = side.io
    steps: list[tuple[Callable[[Any], Any], ...]] = [
        (),
        (lambda op: op.new(1), lambda op: op.write(b"abc"), lambda op: op.append(b"def")),
        (lambda op: op.new(1),),
        (lambda op: op.write(b"X"), lambda op: op.new(1)),
        (lambda op: op.new(0), lambda op: op.truncate(4)),
        (lambda op: op.write(b"AB"), lambda op: op.cmpext(b"abc")),
        (lambda op: op.write(b"??"), lambda op: op.cmpext(b"??")),
        (lambda op: op.cmpext(b"ABx"),),
        (lambda op: op.remove(), lambda op: op.write(b"new", 2)),
        (lambda op: op.write_full(b"full"), lambda op: op.set_xattr("n", b"v"), lambda op: op.rm_xattr("m")),
        (lambda op: op.writesame(b"ab", 4, 1),),
        (lambda op: op.execute("lock", "no such method", b""),),
        (lambda op: op.execute("no such class", "method", b""),),
        (lambda op: op.assert_version(0),),
    ]
    done = []
    for each in steps:
        done.append((write(side, "a", *each), told(lambda: io.read("a"))))
    done.append(write(side, "missing", lambda op: (op.remove(), op.set_flags(2)), lambda op: op.write(b"x")))
    done.append(told(lambda: io.read("missing")))
    done.append(write(side, "b", lambda op: op.omap_cmp("key", "")))
    done.append(write(side, "b", lambda op: op.new(0), lambda op: op.omap_cmp("key", "")))
    done.append(write(side, "b", lambda op: op.omap_cmp("key", "value")))
    return done


@case
def versions(side: Side) -> Any:
    io = side.io
    io.write("a", b"1")
    first = io.get_last_version()
    io.write("a", b"2")
    second = io.get_last_version()
    io.read("a")
    return [
        second > first,
        io.get_last_version() == second,
        write(side, "a", lambda op: op.assert_version(second)),
        write(side, "a", lambda op: op.assert_version(first)),
        write(side, "a", lambda op: op.assert_version(second + 1)),
        write(side, "missing", lambda op: op.assert_version(1), lambda op: op.write(b"")),
        told(lambda: io.remove_object("a")),
        told(lambda: io.write("a", b"3")),
        io.get_last_version() > second,
        write(side, "a", lambda op: op.write(b"4"), mtime=1234567890),
        time.mktime(io.stat("a")[1]) == 1234567890,
    ]


@case
def omaps(side: Side) -> Any:
    io = side.io
    keys = tuple(f"k{n:04}" for n in range(1100))
    return [
        write(side, "a", lambda op: io.set_omap(op, keys, tuple(key.encode() for key in keys))),
        write(side, "a", lambda op: io.set_omap(op, ("", "other", "é"), (b"no key", b"", b"\xff"))),
        told(lambda: write(side, "a", lambda op: io.set_omap(op, ("a",), ()))),
        omap(side, "a", lambda op: io.get_omap_vals(op, "", "", 3)),
        omap(side, "a", lambda op: io.get_omap_vals(op, "k1097", "", 10)),
        omap(side, "a", lambda op: io.get_omap_vals(op, "", "o", 10)),
        omap(side, "a", lambda op: io.get_omap_vals(op, "", "", 0)),
        omap(side, "a", lambda op: io.get_omap_vals(op, "", "", 5000)),
        omap(side, "a", lambda op: io.get_omap_keys(op, "k1096", 10)),
        omap(side, "a", lambda op: io.get_omap_vals_by_keys(op, ("k0001", "nope", "other"))),
        omap(side, "missing", lambda op: io.get_omap_vals(op, "", "", 10)),
        write(side, "a", lambda op: io.remove_omap_keys(op, ("k0001", "nope"))),
        write(side, "a", lambda op: io.remove_omap_range2(op, "k0002", "k1098")),
        omap(side, "a", lambda op: io.get_omap_vals(op, "", "", 10)),
        write(side, "a", lambda op: op.omap_cmp("k0000", "k0000")),
        write(side, "a", lambda op: op.omap_cmp("k0000", "other")),
        write(side, "a", lambda op: io.clear_omap(op)),
        omap(side, "a", lambda op: io.get_omap_keys(op, "", 10)),
        write(side, "missing", lambda op: io.clear_omap(op)),
        write(side, "missing", lambda op: io.remove_omap_keys(op, ("k",))),
        write(side, "empty", lambda op: io.set_omap(op, (), ())),
        told(lambda: io.stat("empty")),
    ]


@case
def class_methods(side: Side) -> Any:
    io = side.io
    return [
        told(lambda: io.execute("missing", "lock", "list_locks", b"")),
        told(lambda: io.write("a", b"")),
        told(lambda: io.lock_exclusive("a", "name", "cookie", "words")),
        told(lambda: io.lock_exclusive("a", "name", "cookie")),
        told(lambda: io.lock_exclusive("a", "name", "other")),
        told(lambda: io.lock_shared("a", "name", "other", "tag")),
        told(lambda: io.execute("a", "lock", "list_locks", b"")),
        told(lambda: io.execute("a", "lock", "list_locks", b"", 15)),
        told(lambda: io.execute("a", "lock", "list_locks", b"", 14)),
        told(lambda: io.unlock("a", "name", "other")),
        told(lambda: io.unlock("a", "name", "cookie")),
        told(lambda: io.lock_shared("a", "name", "one", "tag")),
        told(lambda: io.lock_shared("a", "name", "two", "tag")),
        told(lambda: io.lock_shared("a", "name", "three", "another tag")),
        told(lambda: io.execute("a", "no class", "m", b"")),
        told(lambda: io.execute("missing", "no class", "m", b"")),
        told(lambda: io.execute("a", "lock", "lock", b"nonsense")),
    ]


@case
def aio(side: Side) -> Any:
    io = side.io
    main = threading.current_thread()
    seen: list[Any] = []

    def run(start: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        called: list[Any] = []

        def done(completion: Any, *outputs: Any) -> None:
            called.append((completion.get_return_value(), threading.current_thread() is main, plain(outputs)))

        completion = start(*arguments, oncomplete=done, **keywords)
        completion.wait_for_complete_and_cb()
        return called, completion.is_complete(), completion.is_safe(), completion.get_return_value()

    with side.rados.WriteOpCtx() as op:
        op.write(b"by op", 20)
        seen.append(run(io.operate_aio_write_op, op, "a"))
    with side.rados.ReadOpCtx() as reading:
        iterator, _ = io.get_omap_keys(reading, "", 10)
        seen.append(run(io.operate_aio_read_op, reading, "a"))
        seen.append(list(iterator))
    return [
        *seen,
        run(io.aio_write, "a", b"hello", 2),
        run(io.aio_append, "a", b"!"),
        run(io.aio_read, "a", 100, 0),
        run(io.aio_read, "a", 2, 0),
        run(io.aio_read, "missing", 2, 0),
        run(io.aio_stat, "a"),
        run(io.aio_stat, "missing"),
        run(io.aio_write_full, "a", b"full"),
        run(io.aio_cmpext, "a", b"fuXX"),
        run(io.aio_cmpext, "a", b"full"),
        run(io.aio_writesame, "a", b"ab", 4),
        run(io.aio_setxattr, "a", "n", b"v"),
        run(io.aio_rmxattr, "a", "n"),
        run(io.aio_execute, "a", "lock", "list_locks", b""),
        run(io.aio_execute, "missing", "lock", "list_locks", b""),
        run(io.aio_remove, "a"),
        run(io.aio_remove, "a"),
        told(io.aio_flush),
    ]


# --- snapshots -------------------------------------------------------------------------------------------------------


@case
def snapshots(side: Side) -> Any:
    io = side.io
    io.write("a", b"before")
    first = io.create_self_managed_snap()
    answers = [
        told(lambda: io.set_self_managed_snap_write([first])),
        told(lambda: io.write("a", b"AFTER!!")),
        told(lambda: io.write("new", b"new")),
        told(lambda: io.set_read(first)),
        told(lambda: io.read("a")),
        told(lambda: io.stat("new")),
        told(lambda: io.write("a", b"x")),
        told(lambda: io.set_read(2**64 - 2)),
        told(lambda: io.read("a")),
        told(lambda: io.dup().read("a")),
        told(lambda: io.set_self_managed_snap_write([first, first])),
        told(lambda: io.rollback_self_managed_snap("a", first)),
        told(lambda: io.rollback_self_managed_snap("new", first)),
        told(lambda: io.read("a")),
        told(lambda: io.read("new")),
        told(lambda: io.remove_self_managed_snap(first)),
        told(lambda: io.remove_self_managed_snap(first)),
        told(lambda: io.remove_self_managed_snap(10**9)),
        told(lambda: io.set_self_managed_snap_write([])),
        told(lambda: io.write("a", b"x")),
    ]
    return [*answers, io.create_self_managed_snap() > first]


# --- watch, notify ---------------------------------------------------------------------------------------------------


class Notified:
    """Asks for a notification and keeps what came of it."""

    def __init__(self, io: Any, oid: str, message: str = "message", timeout_ms: int = 5000) -> None:
        self.answers: list[Any] = []
        completion = io.aio_notify(oid, self._done, message, timeout_ms)
        completion.wait_for_complete_and_cb()
        self.rv = completion.get_return_value()

    def _done(self, completion: Any, *outputs: Any) -> None:
        self.answers.append(outputs)


@case
def notifications(side: Side) -> Any:
    io = side.io
    io.write("a", b"")
    heard: list[tuple[int, int, int, bytes]] = []

    def answer(notify: int, client: int, cookie: int, payload: bytes) -> bytes:
        heard.append((notify, client, cookie, payload))
        return b"answer " + payload

    alone = Notified(io, "a")
    watch = io.watch("a", answer)
    silent = io.watch("a", lambda *_: None)
    age = watch.check()
    both = Notified(io, "a")
    me = side.client.get_instance_id()
    names = {(me, watch.get_id()): "watch", (me, silent.get_id()): "silent"}
    ((_, acks, timeouts),) = both.answers
    named = sorted((names[client, cookie], reply) for client, cookie, reply in acks)
    results = [
        (alone.rv, alone.answers),
        (both.rv, named, timeouts),
        [(client == me, cookie == watch.get_id(), payload) for _, client, cookie, payload in heard],
        type(age).__name__,
        told(lambda: io.notify("a", "again")),
        told(lambda: io.notify("missing")),
        told(lambda: io.watch("missing", answer)),
        told(watch.close),
        told(watch.close),
        told(lambda: io.notify("a")),
        len(heard),
    ]
    silent.close()
    return results


@case
def an_answer_that_comes_too_late(side: Side) -> Any:
    io = side.io
    io.write("a", b"")
    gate = threading.Event()
    watch = io.watch("a", lambda *_: gate.wait(60) and b"")
    late = Notified(io, "a", timeout_ms=1000)
    gate.set()
    watch.close()
    return late.rv, late.answers


@case
def a_watched_object_that_is_deleted(side: Side) -> Any:
    io = side.io
    io.write("a", b"")
    lost = threading.Event()
    errors: list[tuple[bool, int]] = []

    def on_error(cookie: int, code: int) -> None:
        errors.append((cookie == watch.get_id(), code))
        lost.set()

    watch = io.watch("a", lambda *_: b"", on_error)
    io.remove_object("a")
    return lost.wait(10), errors, told(watch.check), told(watch.close)


# --- the cluster -----------------------------------------------------------------------------------------------------


def command(side: Side, data: bytes = b"", **parts: Any) -> Any:
    return told(lambda: side.client.mon_command(json.dumps(parts), data))


@case
def commands(side: Side) -> Any:
    return [
        told(lambda: side.client.mon_command("no JSON", b"")),
        told(lambda: side.client.mon_command("{}", b"")),
        command(side, prefix="no such command"),
        command(side, prefix="osd get-require-min-compat-client"),
        command(side, prefix="config-key set", key="rbd/test", val="value"),
        command(side, prefix="config-key get", key="rbd/test"),
        command(side, prefix="config-key exists", key="rbd/test"),
        command(side, prefix="config-key rm", key="rbd/test"),
        command(side, prefix="config-key rm", key="rbd/test"),
        command(side, prefix="config-key get", key="rbd/test"),
        command(side, prefix="config-key exists", key="rbd/test"),
        command(side, b"\0binary", prefix="config-key set", key="rbd/test"),
        command(side, prefix="config-key get", key="rbd/test"),
        command(side, prefix="config-key rm", key="rbd/test"),
        command(side, prefix="config set", who="client", name="rbd_cache_size", value="64M"),
        command(side, prefix="config get", who="client", key="rbd_cache_size"),
        command(side, prefix="config rm", who="client", name="rbd_cache_size"),
        command(side, prefix="config set", who="client", name="no_such_option", value="1"),
        command(side, prefix="osd blocklist", blocklistop="add", addr="no address"),
        command(side, prefix="osd blocklist", blocklistop="rm", addr="10.0.0.1:0/1"),
        command(side, prefix="osd pool application enable", pool="no such pool", app="rbd"),
        command(side, prefix="osd pool application set", pool=POOL, app="nope", key="k", value="v"),
    ]


@case
def blocklists(side: Side) -> Any:
    added = command(side, prefix="osd blocklist", blocklistop="add", addr="10.0.0.1:0/77", expire=60.0)
    told(lambda: side.client.blocklist_add("10.0.0.2:0/78", 60))
    _, listed, _ = side.client.mon_command(json.dumps({"prefix": "osd blocklist ls"}), b"")
    addresses = sorted(line.split()[0] for line in listed.decode().splitlines())
    removed = [command(side, prefix="osd blocklist", blocklistop="rm", addr=address) for address in addresses]
    return added[0], added[1], [a for a in addresses if a.startswith("10.0.0.")], removed[:2]


@case
def pools(side: Side) -> Any:
    client = side.client
    return [
        told(lambda: client.create_pool(POOL)),
        told(lambda: client.create_pool("")),
        told(lambda: client.delete_pool("no such pool")),
        client.pool_exists(POOL),
        client.pool_exists("no such pool"),
        client.pool_lookup("no such pool"),
        told(lambda: client.pool_reverse_lookup(10**6)),
        client.pool_reverse_lookup(client.pool_lookup(POOL)) == POOL,
        POOL in client.list_pools(),
        told(lambda: client.open_ioctx("no such pool")),
        told(lambda: client.open_ioctx2(10**6)),
        sorted(side.io.get_stats()),
        sorted(client.get_cluster_stats()),
        (side.io.get_pool_name() == POOL, side.io.name == POOL, side.io.nspace, side.io.locator_key),
        told(lambda: client.open_ioctx2(side.io.get_pool_id()).get_pool_name() == POOL),
        told(side.io.alignment),
        str(client.version()),
        told(client.wait_for_latest_osdmap),
    ]


@case
def applications(side: Side) -> Any:
    io = side.io
    return [
        told(lambda: io.application_enable("rbd", True)),
        io.application_list(),
        told(lambda: io.application_metadata_set("rbd", "key", "value")),
        told(lambda: io.application_metadata_get("rbd", "key")),
        told(lambda: io.application_metadata_list("rbd")),
        told(lambda: io.application_metadata_remove("rbd", "nope")),
        told(lambda: io.application_metadata_remove("rbd", "key")),
        told(lambda: io.application_metadata_list("rbd")),
        told(lambda: io.application_metadata_list("nope")),
        told(lambda: io.application_metadata_set("nope", "key", "value")),
        told(lambda: io.application_enable("another", False)),
    ]


@case
def configuration(side: Side) -> Any:
    client = side.connect()
    names = ("rbd_default_features", "rbd_cache", "rbd_cache_max_dirty_age", "client_mount_timeout", "nope",
             "rados_osd_op_timeout", "client_notify_timeout", "rbd cache size", "rbd-cache-size")  # fmt: skip
    return [
        {name: client.conf_get(name) for name in names},
        told(lambda: client.conf_set("nope", "x")),
        told(lambda: client.conf_set("rbd_cache", "perhaps")),
        told(lambda: client.conf_set("rbd_cache", "0")),
        told(lambda: client.conf_set("rbd cache size", "32M")),
        told(lambda: client.conf_set("rbd_cache_max_dirty_age", "2")),
        [client.conf_get(name) for name in ("rbd_cache", "rbd_cache_size", "rbd_cache_max_dirty_age")],
    ]


@case
def states(side: Side) -> Any:
    client = side.connect()
    io = client.open_ioctx(POOL)
    return [
        (client.state, io.state),
        told(client.connect),
        told(io.close),
        io.state,
        told(lambda: io.read("a")),
        told(io.require_ioctx_open),
        told(io.close),
        told(client.shutdown),
        client.state,
        told(client.get_fsid),
        told(client.connect),
        told(client.shutdown),
        told(lambda: side.rados.Rados(rados_id="a", name="client.b")),
        told(lambda: side.rados.Rados(conffile="/no such file")),
        told(lambda: side.rados.Rados(conf={"no_such_option": "x"})),
        told(lambda: side.rados.Rados().open_ioctx("rbd")),
        side.rados.Rados(name="client.me").rados_id,
        side.rados.Rados(rados_id="me").rados_id,
        side.rados.Rados().rados_id,
    ]


@case
def a_client_on_the_blocklist(side: Side) -> Any:
    victim = side.connect()
    io = victim.open_ioctx(POOL)
    io.set_namespace(side.io.nspace)
    io.write("a", b"before")
    lost = threading.Event()
    errors: list[int] = []
    watch = io.watch("a", lambda *_: b"", lambda _cookie, code: (errors.append(code), lost.set()))  # type: ignore[func-returns-value]
    side.client.blocklist_add(victim.get_addrs(), 60)
    side.client.wait_for_latest_osdmap()
    side.io.write("a", b"BEFORE")
    answers = [
        told(lambda: io.write("a", b"after")),
        told(lambda: io.read("a")),
        told(lambda: io.notify("a")),
        told(lambda: io.watch("a", lambda *_: b"")),
        told(lambda: io.execute("a", "lock", "list_locks", b"")),
        lost.wait(30),
        errors,
        told(watch.check),
        isinstance(told(io.create_self_managed_snap), int),
        told(lambda: victim.pool_exists(POOL)),
        side.io.read("a"),
    ]
    side.client.mon_command(json.dumps({"prefix": "osd blocklist", "blocklistop": "rm", "addr": victim.get_addrs()}), b"")
    return answers
