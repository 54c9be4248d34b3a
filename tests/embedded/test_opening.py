"""Opening a cluster: what is refused leaves nothing behind, and says so as python-rados would; older files are upgraded."""

import contextlib
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rbd_native import embedded
from rbd_native.embedded import tables
from rbd_native.rados.port import ListWatchers, OmapGet, Read, Write
from tests.embedded.forking import descriptors, in_child

HERE = Path(__file__).parent


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE mine (x)")


def other_meta(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE meta (name, value)")


def from_the_future(path: Path) -> None:
    embedded.Cluster(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    path.with_name(path.name + "-lock").unlink()


def directory(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere") / "cluster")


def too_long(path: Path) -> Path:
    return path.with_name("x" * 300)


def no_directory(path: Path) -> Path:
    return path / "below" / "cluster"


def nul(path: Path) -> Path:
    return path.with_name("a\0b")


REFUSED = [garbage, other_database, other_meta, from_the_future, directory, dangling, too_long, no_directory, nul]


@pytest.mark.parametrize("make", REFUSED)
def test_what_is_no_cluster_is_left_alone(tmp_path: Path, make: Callable[[Path], Path | None]) -> None:
    path = make(tmp_path / "file") or tmp_path / "file"

    def everything() -> dict[str, bytes]:
        return {str(one): one.read_bytes() if one.is_file() else b"" for one in tmp_path.rglob("*")}

    def attempts() -> None:
        for _ in range(20):
            with pytest.raises(embedded.Error):
                embedded.Cluster(path)
            if "\0" not in str(path):
                client = embedded.Rados(conf={"embedded_path": str(path)})
                with pytest.raises(embedded.Error):
                    client.connect()
                client.shutdown()

    before, opened = everything(), descriptors()
    attempts()
    assert everything() == before
    assert descriptors().keys() == opened.keys()


def test_what_is_no_cluster_is_a_value_error(tmp_path: Path) -> None:
    garbage(tmp_path / "file")
    with pytest.raises(ValueError, match="not an embedded cluster") as caught:
        embedded.Cluster(tmp_path / "file")
    assert isinstance(caught.value, embedded.InvalidArgumentError)
    assert caught.value.errno == 22


def test_no_room_to_make_one(tmp_path: Path) -> None:
    """Nothing is left of it, and the next one finds no half of a cluster."""

    def work() -> list[str]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        told = []
        for _ in range(3):
            try:
                embedded.Cluster(tmp_path / "cluster")
            except embedded.Error as error:
                told.append(type(error).__name__)
        return told

    told = in_child(work)
    assert len(told) == 3
    assert list(tmp_path.iterdir()) == []
    embedded.Cluster(tmp_path / "cluster").close()


def test_many_make_the_same_one_while_some_fail(tmp_path: Path) -> None:
    """Who fails takes its lock file away: who has waited for it meanwhile must not take that for the lock."""
    path = tmp_path / "cluster"
    program = """
import json, resource, signal, sys
from rbd_native import embedded
if sys.argv[2] == "fail":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.stdin.readline()
try:
    with embedded.Cluster(sys.argv[1]) as cluster:
        print(json.dumps(cluster.connect().fsid()))
except embedded.Error:
    print("null")
"""
    command = [sys.executable, "-c", program, str(path)]
    started = [
        subprocess.Popen(
            [*command, how], cwd=HERE.parents[1], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for how in ("fail", "make", "fail", "make")
    ]
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    told = [json.loads(one.communicate(timeout=60)[0]) for one in started]
    made = [fsid for fsid, how in zip(told, ("fail", "make") * 2, strict=True) if how == "make"]
    assert made[0] is not None
    assert len(set(made)) == 1


def test_descriptors_and_files_after_closing(tmp_path: Path) -> None:
    opened = descriptors()
    for _ in range(5):
        with embedded.Cluster(tmp_path / "cluster") as cluster:
            io = cluster.connect().io(1)
            io.write("object", [Write(0, b"x")]).block()
            watch = io.watch("object", lambda *_: b"", lambda _: None).block().value
            assert watch.check().rv == 0
    assert descriptors().keys() == opened.keys()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cluster", "cluster-lock"]


def test_a_file_of_format_1(tmp_path: Path) -> None:
    """Made when that was the format: from its dump. It is upgraded, and what is in it stays."""
    path = tmp_path / "cluster"
    db = sqlite3.connect(path)
    db.execute("PRAGMA page_size = 8192")
    db.executescript((HERE / "format_1.sql").read_text())
    db.close()
    with embedded.Cluster(path) as cluster:
        client = cluster.connect()
        io = client.io(1)
        data, omap = io.read("object", [Read(0, 0), OmapGet()]).block().outs
        assert (data, omap.values) == (b"kept since format 1", {b"key": b"value"})
        command = {"prefix": "auth get-or-create", "entity": "client.x", "caps": [], "format": "json"}
        assert client.mon_command(command).block().rv == 0
        with cluster.store.read as db:
            assert db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone() == (str(tables.FORMAT),)
    embedded.Cluster(path).close()


def test_an_upgraded_file_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    def schema(path: Path) -> set[tuple[str, str]]:
        with embedded.Cluster(path) as cluster, cluster.store.read as db:
            return set(db.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall())

    db = sqlite3.connect(tmp_path / "old")
    db.executescript((HERE / "format_1.sql").read_text())
    db.close()
    assert schema(tmp_path / "old") == schema(tmp_path / "new")


# --- how it is named -------------------------------------------------------------------------------------------------


def test_memory_by_its_usual_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with embedded.Cluster(":memory:") as cluster:
        assert cluster.store.path is None
    with embedded.Rados(conf={"embedded_path": ":memory:"}) as client:
        assert client.list_pools() == ["rbd"]
    assert list(tmp_path.iterdir()) == []


def test_one_pool_by_its_name() -> None:
    with embedded.Cluster(pools="volumes") as cluster:
        assert list(cluster.connect().pools().block().value.values()) == ["volumes"]


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in memory", "in a file"])
def test_a_copy_of_one_that_is_in_use(tmp_path: Path, where: str) -> None:
    with embedded.Cluster(None if where == "in memory" else tmp_path / "original") as cluster:
        client = cluster.connect()
        io = client.io(1)
        io.write("object", [Write(0, b"before")]).block()
        watch = io.watch("object", lambda *_: b"", lambda _: None).block().value
        cluster.backup(tmp_path / "copy")
        io.write("object", [Write(0, b"after!")]).block()
        with pytest.raises(embedded.ObjectExists):
            cluster.backup(tmp_path / "copy")
        with pytest.raises(embedded.ObjectNotFound):
            cluster.backup(tmp_path / "missing" / "copy")
        with embedded.Cluster(tmp_path / "copy") as copy:
            there = copy.connect()
            assert there.fsid() == client.fsid()
            assert there.io(1).read("object", [Read(0, 0)]).block().outs == (b"before",)
            assert there.io(1).read("object", [ListWatchers()]).block().outs == ([],)
        assert watch.close().block().rv == 0
    assert not (tmp_path / "missing").exists()
