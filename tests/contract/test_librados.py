"""What is true of the librados adapter beyond the contract: lifetimes, the way in, the way out, and speed-ups that must
not cost correctness."""

import contextlib
import errno
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rbd_native.engine import Task, for_each, gather, run
from rbd_native.rados import _handle, _session, _steps, connect, librados
from rbd_native.rados.cluster import legacy_address
from rbd_native.rados.librados import LibradosIo, adapt
from rbd_native.rados.port import (
    HEAD,
    Bare,
    Capability,
    Create,
    Io,
    ListSnaps,
    ListWatchers,
    RadosError,
    Read,
    SnapContext,
    Stat,
    Watch,
    Write,
    WriteFull,
)
from rbd_native.rados.pure import PureIo
from rbd_native.testing.contract import blocking, by_completion
from tests.cluster import CephCluster

pytestmark = pytest.mark.ceph


do = blocking
"""The Reply or Outcome as it is."""


@pytest.fixture
def connected(ceph: CephCluster) -> Iterator[Any]:
    client = ceph.rados()
    yield client
    client.shutdown()


@pytest.fixture(scope="module")
def module_pool(ceph: CephCluster) -> Iterator[str]:
    ceph.create_pool("librados")
    yield "librados"
    ceph.remove_pool("librados")


@pytest.fixture
def opened(connected: Any, module_pool: str) -> Any:
    return connected.open_ioctx(module_pool)


@pytest.fixture
def io(opened: Any) -> Io:
    return adapt(opened)


# --- the way in ------------------------------------------------------------------------------------------------------


def test_images_of_one_connection_share_a_cluster(connected: Any, module_pool: str, opened: Any) -> None:
    one, two = adapt(opened), adapt(connected.open_ioctx(module_pool))
    assert one.cluster is two.cluster
    assert one.cluster is one.in_namespace("x").cluster
    pure = adapt(opened, pure_python=True)
    assert pure.cluster is not one.cluster
    assert adapt(opened, pure_python=True).cluster is pure.cluster
    gone = id(one.cluster)
    del one, two
    gc.collect()
    assert gone not in map(id, librados._clusters.values())


def test_pool_and_namespace_are_those_of_the_ioctx(opened: Any) -> None:
    opened.set_namespace("spaced out")
    io = adapt(opened)
    assert (io.pool_id, io.namespace) == (opened.get_pool_id(), "spaced out")
    do(io.write("name", [WriteFull(b"there")]))
    assert opened.read("name") == b"there"


def test_full_capabilities_here(io: Io, opened: Any) -> None:
    assert io.cluster.capabilities == Capability.ALL
    assert adapt(opened, pure_python=True).cluster.capabilities == Capability(0)


@pytest.mark.parametrize("name", ["_RADOS_SIZE", "_IOCTX_SIZE", "_HEADER", "_IOCTX_RADOS"])
def test_another_layout_of_python_rados_falls_back(
    opened: Any, connected: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert _handle.find(opened, connected, _session.library()) is not None
    monkeypatch.setattr(_handle, name, getattr(_handle, name) + 8)
    assert _handle.find(opened, connected, _session.library()) is None
    assert type(adapt(opened)) is PureIo


@pytest.mark.parametrize("name", ["_RADOS_POINTER", "_IOCTX_POINTER"])
@pytest.mark.parametrize("step", [-16, -8, 8, 16])
def test_a_word_that_is_no_handle_is_not_used(
    opened: Any, connected: Any, monkeypatch: pytest.MonkeyPatch, name: str, step: int
) -> None:
    """As far as that can be told: what is there is looked at without risk, and compared with what it should be."""
    monkeypatch.setattr(_handle, name, getattr(_handle, name) + step)
    if name == "_IOCTX_POINTER":  # what lies there may be an address, and would be called with: only the first checks
        monkeypatch.setattr(_session.library(), "ioctx_get_cluster", lambda pointer: None)
    assert _handle.find(opened, connected, _session.library()) is None


def test_memory_that_is_not_there_can_be_asked_for() -> None:
    assert _handle._word(8) is None
    assert _handle._word(1 << 46) is None
    assert _handle._word(id(None)) is not None


def test_a_librados_without_a_function_falls_back(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking() -> Any:
        raise AttributeError("rados_something_new")

    monkeypatch.setattr(librados, "library", lacking)
    assert type(adapt(opened)) is PureIo


def test_without_the_extra_steps(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(librados, "extras", lambda: None)
    monkeypatch.setattr(_session, "extras", lambda: None)
    io = adapt(opened)
    assert io.cluster.capabilities == Capability.ALL & ~(Capability.LIST_SNAPS | Capability.LIST_WATCHERS)
    do(io.write("plain", [Create(exclusive=False)]))
    assert do(io.read("plain", [ListSnaps()])).rv == -errno.EOPNOTSUPP
    assert Task(io.read("plain", [ListSnaps()]).bare()).launch().result().rv == -errno.EOPNOTSUPP
    watch = do(io.watch("plain", lambda *_: b"", lambda _: None)).value
    found = do(io.read("plain", [ListWatchers()])).outs[0]
    assert [(watcher.client, watcher.cookie) for watcher in found] == [(io.cluster.instance_id(), watch.cookie)]
    do(watch.close())
    stat = do(io.read("plain", [Stat()])).outs[0]
    assert stat.mtime == int(stat.mtime) > 1_600_000_000
    snap = do(io.snap_create()).value
    do(io.write("plain", [WriteFull(b"new")], snapc=SnapContext(snap, (snap,))))
    for way in (blocking, by_completion):
        do(io.write("plain", [WriteFull(b"newer")], snapc=SnapContext(snap, (snap,))))
        assert way(io.rollback("plain", snap, SnapContext(snap, (snap,)))).rv == 0
        assert do(io.read("plain", [Read(0, 9)])).outs[0] == b""


def test_only_an_ioctx_will_do(opened: Any, connected: Any) -> None:
    assert type(connect.port_for(opened)) is LibradosIo
    for other in (None, "rbd", connected, object()):
        with pytest.raises(TypeError, match="Ioctx"):
            connect.port_for(other)


def python(script: str, **paths: str) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own."""
    text = textwrap.dedent(script).format(**paths)
    return subprocess.run([sys.executable, "-X", "faulthandler", "-c", text], capture_output=True, text=True, timeout=100)


def test_importing_does_not_need_python_rados() -> None:
    done = python("""
        import sys
        sys.modules["rados"] = sys.modules["rbd"] = None
        import rbd_native, rbd_native.embedded
        from rbd_native.rados import connect
        try:
            connect.port_for(object())
        except TypeError as error:
            print(error)
        try:
            connect.import_rados()
        except ImportError as error:
            print(error)
    """)
    assert done.returncode == 0, done.stderr
    assert "Ioctx of rados" in done.stdout
    assert "apt install python3-rados" in done.stdout
    assert "--system-site-packages" in done.stdout


@pytest.mark.parametrize(
    ("addresses", "address"),
    [
        ("127.0.0.1:0/1430931849", "127.0.0.1:0/1430931849"),
        ("[v2:10.1.2.3:0/77,v1:10.1.2.3:0/77]", "10.1.2.3:0/77"),
        ("v2:10.1.2.3:0/77", "10.1.2.3:0/77"),
        ("[v2:[fe80::1]:0/77,v1:[fe80::1]:0/77]", "[fe80::1]:0/77"),
        ("[fe80::1]:0/77", "[fe80::1]:0/77"),
        ("any:0.0.0.0:0/5", "0.0.0.0:0/5"),
    ],
)
def test_addresses_in_every_notation(addresses: str, address: str) -> None:
    assert legacy_address(addresses) == address


# --- the way out -----------------------------------------------------------------------------------------------------


def test_the_users_ioctx_may_be_closed(opened: Any) -> None:
    io = adapt(opened)
    opened.close()
    assert do(io.write("closed", [WriteFull(b"x")])).rv == 0


def test_after_shutdown_everything_is_refused(ceph: CephCluster, module_pool: str) -> None:
    client = ceph.rados()
    io = adapt(client.open_ioctx(module_pool))
    do(io.write("shut", [WriteFull(b"x")]))
    watch = do(io.watch("shut", lambda *_: b"", lambda _: None)).value
    client.shutdown()
    for drive in (blocking, by_completion):
        for what in _of_every_kind(io, watch):
            assert drive(what).rv == -errno.ESHUTDOWN
    assert watch.check().rv == -errno.ESHUTDOWN
    with pytest.raises(RadosError) as caught:
        io.in_namespace("other")
    assert caught.value.errno == errno.ESHUTDOWN
    del io, watch, what  # nor may freeing it touch what is gone
    gc.collect()


def _of_every_kind(io: Io, watch: Watch) -> Iterator[Any]:
    yield io.read("shut", [Read(0, 1)])
    yield io.read("shut", [Read(0, 0)])
    yield io.read("shut", [Stat(), Read(0, 1)])
    yield io.read("shut", [Read(0, 1)], snap=12345)
    yield io.write("shut", [Write(0, b"x")])
    yield io.write("shut", [Write(0, b"x"), Create()])
    yield io.write("shut", [Write(0, b"x")], snapc=SnapContext(5, (5,)))
    yield io.notify("shut", b"", 1000)
    yield io.watch("shut", lambda *_: b"", lambda _: None)
    yield io.snap_create()
    yield io.rollback("shut", 1, SnapContext(1, (1,)))
    yield io.cluster.pools()
    yield io.cluster.mon_command({"prefix": "status"})


_CLIENT = """
    import sys, threading, time
    from rbd_native.engine import Task, run
    from rbd_native.rados import _session, connect
    from rbd_native.rados.port import *

    rados = connect.import_rados()
    cluster = rados.Rados(conffile="{conf}")
    cluster.connect()
    io = connect.port_for(cluster.open_ioctx("{pool}"))

    async def watch(name):
        await io.write(name, [WriteFull(bytes(65536))])
        await io.watch(name, lambda *_: b"", lambda _: None)

    run(watch("{name}"))
"""


def test_leaving_in_the_middle(ceph: CephCluster, module_pool: str) -> None:
    """Reads under way for ever, a watch, a connection that nobody shuts down: the interpreter ends in order."""
    done = python(
        _CLIENT
        + """
    async def read():
        while True:
            await io.read("{name}", [Read(0, 65536)])

    for _ in range(32):
        Task(read()).launch()
    time.sleep(0.2)
    print("leaving")
    """,
        conf=str(ceph.conf),
        pool=module_pool,
        name="middle",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_leaving_while_nothing_completes(ceph: CephCluster, module_pool: str) -> None:
    """What never lands is cancelled; it must not come back into an interpreter that is gone."""
    script = (
        _CLIENT
        + """
    _session._PATIENCE = 0.3
    async def stuck(number):
        reply = await io.write("stuck", [WriteFull(b"x")]).bare()
        print(number, reply.rv)

    async def pause():
        await io.cluster.mon_command(dict(prefix="osd pause"))
        await io.cluster.wait_for_latest_map()

    run(pause())
    for number in range(3):
        Task(stuck(number)).launch()
    """
    )
    try:
        done = python(script, conf=str(ceph.conf), pool=module_pool, name="stuck")
    finally:
        ceph.command("osd unpause")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split("\n")) == ["", *(f"{number} {-errno.ECANCELED}" for number in range(3))]


def test_interrupted_waits_leave_nothing_dangling(io: Io) -> None:
    """A wait that is broken off does not take with it what librados will still write to."""

    async def interrupted() -> None:
        class Interrupt(Bare):
            def block(self) -> Any:
                self._inner.start(landed.append)
                raise KeyboardInterrupt

        for _ in range(50):
            with contextlib.suppress(KeyboardInterrupt):
                await Interrupt(io.read("interrupted", [Read(0, 1 << 16), Stat()]))

    landed: list[Any] = []
    data = b"x" * (1 << 16)
    do(io.write("interrupted", [WriteFull(data)]))
    run(interrupted())
    gc.collect()
    do(io.read("interrupted", [Read(0, 1)]))
    deadline = threading.Event()
    while len(landed) < 50 and not deadline.wait(0.01):
        pass
    assert {reply.outs[0] for reply in landed} == {data}


def test_contexts_in_use_outlive_their_place(io: Io, monkeypatch: pytest.MonkeyPatch) -> None:
    """More snapshot contexts than are kept, all under way at once."""
    monkeypatch.setattr(librados, "_CONTEXTS", 2)

    async def one(number: int) -> bytes:
        name = f"many.{number}"
        snapc = SnapContext(1000 + number, (1000 + number,))
        await io.write(name, [WriteFull(b"old %d" % number)], snapc=SnapContext(1, (1,)))
        await io.write(name, [WriteFull(b"new %d" % number)], snapc=snapc)
        old: bytes = (await io.read(name, [Read(0, 99)], snap=1000 + number)).outs[0]
        return old

    async def all_of_them() -> list[bytes]:
        return await gather((one(number) for number in range(60)), 60)

    assert by_completion(all_of_them()) == [b"old %d" % number for number in range(60)]
    assert len(io._contexts) <= 2  # type: ignore[attr-defined]


def test_freed_contexts_are_given_back(io: Io) -> None:
    library = _session.library()
    freed: list[int] = []
    destroy = library.ioctx_destroy
    library.ioctx_destroy = lambda pointer: (freed.append(pointer), destroy(pointer))  # type: ignore[attr-defined, func-returns-value]
    try:
        other = io.in_namespace("short-lived")
        do(other.read("none", [Stat()]))
        do(other.read("none", [Stat()], snap=5))
        do(other.write("none", [Create()], snapc=SnapContext(5, (5,))))
        del other
        gc.collect()
    finally:
        library.ioctx_destroy = destroy  # type: ignore[attr-defined]
    # For head, snapshot and context: one to submit on, and one that a blocking call used.
    assert len(freed) == len(set(freed)) == 6


# --- under load ------------------------------------------------------------------------------------------------------


def test_versions_are_exact_whoever_else_is_at_it(io: Io) -> None:
    """librados keeps the last version per ioctx: calls that block in many threads must not see each other's."""
    wrong: list[Any] = []

    def work(number: int) -> None:
        name = f"versions.{number}"
        for _ in range(30):
            written = do(io.write(name, [Write(0, b"x")])).version
            found = do(io.read(name, [Read(0, 1), Stat()])).version
            if not written or written != found:
                wrong.append((number, written, found))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_does_not_grow(io: Io) -> None:
    """Buffers, operations, iterators and results that librados allocates are all given back."""
    from rbd_native import cls_rbd
    from rbd_native.rados.port import CmpExt, GetXattr, OmapGet, OmapGetByKeys, OmapSet, SetXattr

    do(io.write("leak", [cls_rbd.metadata_set({"key": b"v" * 60000}).step, SetXattr("x", b"v" * 4000)]))
    do(io.write("leak", [WriteFull(b"d" * 20000), OmapSet({b"k%d" % n: b"v" * 2000 for n in range(10)})]))
    snap = do(io.snap_create()).value
    do(io.write("leak", [Write(5, b"x")], snapc=SnapContext(snap, (snap,))))
    steps = [
        Read(0, 20000),
        cls_rbd.metadata_list("", 0).step,
        GetXattr("x"),
        OmapGet(),
        OmapGetByKeys((b"k1", b"k2")),
        CmpExt(0, b"d"),
    ]

    async def one() -> None:
        await io.read("leak", steps)  # type: ignore[arg-type]
        await io.read("leak", [*steps, GetXattr("none")]).bare()  # type: ignore[list-item]
        await io.read("leak", [*steps, CmpExt(0, b"other")]).bare()  # type: ignore[list-item]
        await io.read("leak", [ListSnaps()])
        await io.read("leak", [ListWatchers()])
        await io.write("leak", [Write(5, b"x" * 10000), CmpExt(0, b"other")]).bare()

    def rounds(count: int) -> None:
        run(for_each((one() for _ in range(count)), 8))

    def resident() -> int:
        with open("/proc/self/statm") as stream:  # noqa: PTH123
            return int(stream.read().split()[1]) * 4096

    rounds(150)
    before = resident()
    rounds(300)
    # Each round moves some 200 KiB: had any of its results been kept, this would be tens of MiB.
    assert resident() - before < 8 << 20


def test_reads_at_the_head_do_not_look_up_contexts(io: Io) -> None:
    assert io.read("x", [Read(0, 1)]).context is io.read("x", [Stat()], snap=HEAD).context  # type: ignore[attr-defined]


def test_every_step_of_the_port_can_be_sent() -> None:
    from typing import get_args

    from rbd_native.rados import _pure_steps, port

    reads, writes = set(get_args(port.ReadStep)), set(get_args(port.WriteStep))
    assert set(_steps.READERS) == reads
    assert set(_steps.WRITERS) == writes
    assert set(_pure_steps._READERS) == reads - {ListSnaps, ListWatchers}
    assert set(_pure_steps._WRITERS) == writes
