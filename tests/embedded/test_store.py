"""The store: what is kept, what is refused, threads, faults, and input that makes no sense."""

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rbd_native import embedded
from rbd_native.embedded.client import Connection, Io
from rbd_native.embedded.conf import Conf
from rbd_native.embedded.store import CHUNK
from rbd_native.engine import collect, run
from rbd_native.rados.port import (
    Append,
    AssertVersion,
    CmpExt,
    Create,
    Exec,
    GetXattr,
    ListSnaps,
    ListWatchers,
    OmapGet,
    OmapGetByKeys,
    OmapSet,
    RadosError,
    Read,
    Remove,
    SetXattr,
    SnapContext,
    Stat,
    Truncate,
    Write,
    WriteFull,
    WriteSame,
    Zero,
)


@pytest.fixture(params=["memory", "file"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with embedded.Cluster(None if request.param == "memory" else tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def io(cluster: embedded.Cluster) -> Io:
    return cluster.connect().io(1)


def rv(operation: Any) -> int:
    return int(operation.block().rv)


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_file_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "cluster"
    with embedded.Cluster(path, pools=("one", "two")) as cluster:
        fsid = cluster.connect().fsid()
        io = cluster.connect().io(2, "space")
        io.write("object", [Write(CHUNK - 1, b"data"), SetXattr("n", b"x"), OmapSet({b"\xff": b"o"})]).block()
        version = io.read("object", [Stat()]).block().version
    with embedded.Cluster(path, pools=("ignored",)) as cluster:
        connection = cluster.connect()
        assert connection.fsid() == fsid
        assert connection.pools().block().value == {1: "one", 2: "two"}
        assert connection.instance_id() == 3
        reply = connection.io(2, "space").read("object", [Read(0, 0), GetXattr("n"), OmapGet()]).block()
        assert reply.outs == (b"\0" * (CHUNK - 1) + b"data", b"x", ({b"\xff": b"o"}, False))
        assert reply.version == version


def test_clusters_in_memory_are_apart() -> None:
    with embedded.Cluster() as one, embedded.Cluster() as two:
        assert rv(one.connect().io(1).write("object", [Write(0, b"x")])) == 0
        assert rv(two.connect().io(1).read("object", [Stat()])) == -2


def test_the_rados_face_finds_its_cluster(tmp_path: Path) -> None:
    path = tmp_path / "cluster"
    conffile = tmp_path / "ceph.conf"
    conffile.write_text(f"[global]\nfsid = ignored\n[client]\nembedded path = {path} ; a comment\nrbd_cache = false\n")
    with embedded.Rados(conffile=str(conffile)) as client, client.open_ioctx("rbd") as ioctx:
        assert client.conf_get("rbd_cache") == "false"
        ioctx.write_full("object", b"in the file")
        fsid = client.get_fsid()
        assert client.conf_get("fsid") == fsid
    with embedded.Rados(conf={"embedded_path": str(path)}) as client:
        assert client.get_fsid() == fsid
        assert client.open_ioctx("rbd").read("object") == b"in the file"
    with embedded.Rados(conffile="") as client, pytest.raises(embedded.ObjectNotFound):
        client.open_ioctx("rbd").read("object")
    with embedded.Cluster(path) as cluster, embedded.Rados(cluster=cluster) as client:
        assert client.open_ioctx("rbd").read("object") == b"in the file"
        client.shutdown()
        assert rv(cluster.connect().io(1).read("object", [Stat()])) == 0  # the given cluster stays open


def test_what_was_synced_is_told_to_the_database(tmp_path: Path) -> None:
    for sync, level in ((False, 1), (True, 2)):
        with embedded.Cluster(tmp_path / f"cluster-{sync}", sync=sync) as cluster, cluster.store.write as db:
            assert db.execute("PRAGMA synchronous").fetchone() == (level,)
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_only_whole_chunks_that_have_data_are_stored(io: Io, cluster: embedded.Cluster) -> None:
    def chunks() -> list[tuple[int, int]]:
        with cluster.store.read as db:
            return db.execute("SELECT idx, length(data) FROM chunk ORDER BY idx").fetchall()

    io.write("object", [Write(5 * CHUNK + 3, b"abc")]).block()
    assert chunks() == [(5, 6)]
    io.write("object", [Write(0, bytes(7 * CHUNK + 1))]).block()
    assert chunks() == [*((index, CHUNK) for index in range(7)), (7, 1)]
    io.write("object", [Zero(CHUNK + 1, 3 * CHUNK)]).block()
    assert [index for index, _ in chunks()] == [0, 1, 4, 5, 6, 7]
    io.write("object", [Truncate(CHUNK + 1)]).block()
    assert chunks() == [(0, CHUNK), (1, 1)]
    io.write("object", [Remove()]).block()
    assert chunks() == []


# --- what is refused -------------------------------------------------------------------------------------------------


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    garbage, other, future = tmp_path / "garbage", tmp_path / "other", tmp_path / "future"
    garbage.write_bytes(b"no database at all" * 1000)
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    embedded.Cluster(future).close()
    with sqlite3.connect(future) as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    for path in (garbage, other, future):
        before = path.read_bytes()
        with pytest.raises(ValueError, match="not an embedded cluster"):
            embedded.Cluster(path)
        assert path.read_bytes() == before
    with pytest.raises(embedded.ObjectNotFound):
        embedded.Cluster(tmp_path / "no such directory" / "cluster")


def test_nothing_goes_on_after_the_end(cluster: embedded.Cluster) -> None:
    connection = cluster.connect()
    io = connection.io(1)
    io.write("object", [Write(0, b"x")]).block()
    watch = io.watch("object", lambda *_: b"", lambda _: None).block().value
    connection.shutdown()
    connection.shutdown()
    assert rv(io.read("object", [Stat()])) == -108
    assert rv(io.write("object", [Write(0, b"y")])) == -108
    assert rv(io.notify("object", b"", 1000)) == -108
    assert rv(io.snap_create()) == -108
    assert watch.check().rv == -107
    with pytest.raises(RadosError):
        run(collect(io.list_objects()))
    cluster.close()
    cluster.close()
    with pytest.raises(ValueError, match="closed"):
        cluster.connect()


def test_a_full_disk_is_an_error_and_not_a_change(cluster: embedded.Cluster, io: Io) -> None:
    io.write("object", [Write(0, b"x" * CHUNK), SetXattr("n", b"old")]).block()
    with cluster.store.write as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    cluster.store.own_writer().execute(f"PRAGMA max_page_count = {pages + 2}")
    assert rv(io.write("object", [SetXattr("n", b"new"), Write(0, b"y" * 10 * CHUNK)])) == -28
    assert io.read("object", [Read(0, 0), GetXattr("n")]).block().outs == (b"x" * CHUNK, b"old")
    cluster.store.own_writer().execute("PRAGMA max_page_count = 1000000")
    assert rv(io.write("object", [Write(0, b"y" * 10 * CHUNK)])) == 0


ABSURD = 2**64 - 1
HUGE = 2**200


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([Write(ABSURD, b"x")], -27),
        ([Write(-1, b"x")], -22),
        ([WriteSame(0, ABSURD - 1, b"ab")], -27),
        ([WriteSame(0, 3, b"ab")], -22),
        ([WriteSame(0, 3, b"")], -22),
        ([Zero(0, ABSURD)], -27),
        ([Zero(HUGE, HUGE)], -27),
        ([Truncate(ABSURD)], -27),
        ([Truncate(-1)], -22),
        ([Write(0, bytes((90 << 20) + 1))], -90),
        ([WriteFull(bytes(50 << 20)), Append(bytes(50 << 20))], -90),
        ([SetXattr("n", bytes(50 << 20)), OmapSet({b"k": bytes(50 << 20)})], -90),
        ([SetXattr("n" * 101, b"")], -36),
        ([AssertVersion(HUGE)], -75),
        ([CmpExt(HUGE, b"x")], -4095),
        ([Exec("rbd", "no such method", b"")], -95),
        ([Exec("rbd", "create", b"\xff")], -22),
        ([Exec("lock", "lock", b"\x01\x01\xff\xff\xff\xff")], -22),
        ([Exec("rbd", "set_features", b"\xff" * 15)], -22),
    ],
)
def test_writes_that_make_no_sense(io: Io, steps: list[Any], expected: int) -> None:
    io.write("object", [Create()]).block()
    assert rv(io.write("object", steps)) == expected
    assert rv(io.read("object", [Stat()])) == 0


@pytest.mark.parametrize(
    ("steps", "outs"),
    [
        ([Read(HUGE, HUGE)], (b"",)),
        ([Read(1, HUGE)], (b"ata",)),
        ([OmapGet(b"", HUGE, b"")], (({b"k": b"v"}, False),)),
        ([OmapGet(b"", -HUGE, b"")], (({}, True),)),
        ([OmapGet(b"\xff" * 10_000, 5, b"\xff")], (({}, False),)),
        ([OmapGetByKeys((b"",))], ({},)),
    ],
)
def test_reads_that_make_no_sense(io: Io, steps: list[Any], outs: tuple[Any, ...]) -> None:
    io.write("object", [Write(0, b"data"), OmapSet({b"k": b"v"})]).block()
    assert io.read("object", steps).block().outs == outs
    assert rv(io.read("object", steps, snap=HUGE)) == 0  # newer than the object, so the head
    assert rv(io.read("object", [Read(-1, 5)])) == -22


def test_numbers_beyond_the_database(io: Io) -> None:
    io.write("object", [Write(0, b"data")]).block()
    assert rv(io.snap_remove(HUGE)) == -2
    assert rv(io.write("object", [Write(0, b"x")], snapc=SnapContext(HUGE, ()))) == -22
    assert rv(io.write("object", [Write(0, b"x")], snapc=SnapContext(HUGE, (HUGE,)))) == -22
    assert rv(io.rollback("object", HUGE, SnapContext(0, ()))) == 0
    assert io.read("object", [Read(0, 0)]).block().outs == (b"data",)


def test_names(io: Io) -> None:
    odd = ["é", "a/b", " ", "\udcff\udcfe", "n" * 2048, "%", "'; DROP TABLE object"]
    for name in odd:
        assert rv(io.write(name, [Write(0, name.encode("utf-8", "surrogateescape")), SetXattr(name[:50], b"x")])) == 0
    assert sorted(run(collect(io.list_objects()))) == sorted(odd)
    for name in odd:
        reply = io.read(name, [Read(0, 0), GetXattr(name[:50])]).block()
        assert reply.outs == (name.encode("utf-8", "surrogateescape"), b"x")
    assert rv(io.write("n" * 2049, [])) == -36
    assert rv(io.read("", [Stat()])) == -22
    assert rv(io.in_namespace("n" * 257).read("a", [Stat()])) == -36
    with pytest.raises(ValueError, match="NUL"):
        io.read("a\0b", [Stat()]).block()


def test_steps_that_do_not_belong(io: Io) -> None:
    with pytest.raises(TypeError):
        io.write("object", [Read(0, 1)]).block()  # type: ignore[list-item]
    io.write("object", [Create()]).block()
    for steps in ([Write(0, b"x")], [Stat(), ListSnaps()]):
        with pytest.raises(TypeError):
            io.read("object", steps).block()  # type: ignore[arg-type]


# --- threads ---------------------------------------------------------------------------------------------------------


def test_threads_see_whole_operations(cluster: embedded.Cluster, io: Io) -> None:
    """Writers keep data, xattr and omap equal; readers must never find them different."""
    stop = threading.Event()
    torn: list[Any] = []
    reads = 0

    def write(mine: Io, fill: int) -> None:
        while not stop.is_set():
            value = bytes([fill]) * (CHUNK + 100)
            mine.write("object", [Write(0, value), SetXattr("n", value[:9]), OmapSet({b"n": value[:9]})]).block()
            fill = (fill + 2) % 256

    def read(mine: Io) -> None:
        nonlocal reads
        while not stop.is_set():
            reply = mine.read("object", [Read(0, 0), GetXattr("n"), OmapGetByKeys((b"n",))]).block()
            if reply.rv == 0:
                data, xattr, omap = reply.outs
                reads += 1
                if data[:9] != xattr or data[-9:] != xattr or omap != {b"n": xattr}:
                    torn.append(reply)

    other = cluster.connect().io(1)
    threads = [threading.Thread(target=write, args=(io, 0)), threading.Thread(target=write, args=(other, 1))]
    threads += [threading.Thread(target=read, args=(each,)) for each in (io, other)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []
    assert reads > 20


def test_readers_of_a_file_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    with embedded.Cluster(tmp_path / "cluster") as cluster:
        io = cluster.connect().io(1)
        io.write("object", [Write(0, b"before")]).block()
        found: list[bytes] = []
        with cluster.store.write as db:
            db.execute("UPDATE object SET size = 0")
            reader = threading.Thread(target=lambda: found.append(io.read("object", [Read(0, 0)]).block().outs[0]))
            reader.start()
            reader.join(5)
            assert found == [b"before"]


# --- the life of a client --------------------------------------------------------------------------------------------


def test_one_who_dies_is_missed_only_when_its_time_is_over(cluster: embedded.Cluster) -> None:
    conf = Conf()
    conf.set("osd_client_watch_timeout", "1")
    victim, witness = cluster.connect(conf), cluster.connect()
    witness.io(1).write("object", [Create()]).block()
    lost: list[int] = []
    assert rv(victim.io(1).watch("object", lambda *_: b"", lost.append)) == 0
    victim.die()
    outcome = witness.io(1).notify("object", b"", 200).block()
    assert [client for client, _ in outcome.value.timeouts] == [victim.instance_id()]
    started = time.monotonic()
    outcome = witness.io(1).notify("object", b"", 10_000).block()
    assert outcome.value == ([], [])
    assert time.monotonic() - started < 3
    assert lost == []


def test_central_configuration_reaches_every_client(cluster: embedded.Cluster) -> None:
    one, two = cluster.connect(), cluster.connect()
    two.conf_set("rbd_cache", "true")

    def configure(**command: str) -> None:
        assert rv(one.mon_command(command)) == 0

    configure(prefix="config set", who="global", name="rbd_cache", value="false")
    configure(prefix="config set", who="client", name="rbd_default_order", value="20")
    assert [c.conf_get("rbd_cache") for c in (one, two)] == ["false", "true"]
    assert [c.conf_get("rbd_default_order") for c in (one, two)] == ["20", "20"]
    configure(prefix="config rm", who="client", name="rbd_default_order")
    assert one.conf_get("rbd_default_order") == "22"


def test_blocklist_entries_end(cluster: embedded.Cluster, io: Io) -> None:
    io.write("object", [Create()]).block()
    admin: Connection = cluster.connect()
    assert rv(admin.blocklist_add(io.cluster.address(), 1)) == 0
    assert rv(io.read("object", [Stat()])) == -108
    time.sleep(1.1)
    assert rv(io.read("object", [Stat()])) == 0


def test_a_whole_host_on_the_blocklist(cluster: embedded.Cluster, io: Io) -> None:
    io.write("object", [Create()]).block()
    assert rv(io.cluster.blocklist_add("127.0.0.1", 60)) == 0
    assert rv(io.read("object", [Stat()])) == -108
    assert rv(io.cluster.mon_command({"prefix": "osd blocklist", "blocklistop": "rm", "addr": "127.0.0.1"})) == 0
    assert rv(io.read("object", [Stat()])) == 0


def test_a_pool_that_is_deleted_takes_all_with_it(cluster: embedded.Cluster) -> None:
    connection = cluster.connect()
    command = {"prefix": "osd pool create", "pool": "second"}
    assert rv(connection.mon_command(command)) == 0
    io = connection.io(connection.pool_lookup("second").block().value)
    snap = io.snap_create().block().value
    io.write("object", [Write(0, b"x"), SetXattr("n", b""), OmapSet({b"k": b""})]).block()
    io.write("object", [Write(0, b"y")], snapc=SnapContext(snap, (snap,))).block()
    sure = {"pool": "second", "pool2": "second", "yes_i_really_really_mean_it": True}
    assert rv(connection.mon_command({"prefix": "osd pool delete", **sure})) == 0
    assert rv(io.read("object", [Stat()])) == -2
    assert rv(io.write("object", [Write(0, b"x")])) == -2
    with cluster.store.read as db:
        for table in ("object", "chunk", "clone", "clone_snap", "xattr", "omap"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    with pytest.raises(RadosError):
        connection.io(io.pool_id)


def test_a_watch_that_nobody_holds_is_given_up(cluster: embedded.Cluster) -> None:
    with embedded.Rados(cluster=cluster, conf={"osd_client_watch_timeout": "1"}) as client:
        ioctx = client.open_ioctx("rbd")
        ioctx.write_full("object", b"")
        kept = ioctx.watch("object", lambda *_: b"")  # type: ignore[arg-type]
        ioctx.watch("object", lambda *_: b"")  # type: ignore[arg-type]  # nobody holds this one
        end = time.monotonic() + 5
        io = cluster.connect().io(1)
        while (found := io.read("object", [ListWatchers()]).block().outs[0]) and len(found) > 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert [watcher.cookie for watcher in found] == [kept.get_id()]
