"""What python-rados takes, gives and raises, on either cluster: operations that are sent, odd arguments, bad commands."""

import contextlib
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbd_native import embedded
from tests.backend import Backend

# --- operations are empty once they are sent -------------------------------------------------------------------------


def read(ioctx: Any, oid: str) -> bytes | None:
    try:
        return bytes(ioctx.read(oid))
    except Exception as error:
        assert type(error).__name__ == "ObjectNotFound"
        return None


def test_a_write_op_sent_twice(backend: Backend) -> None:
    ioctx = backend.ioctx()
    op = ioctx.create_write_op()
    op.write_full(b"one")
    op.append(b"+")
    ioctx.operate_write_op(op, "first")
    ioctx.operate_write_op(op, "second")
    assert (read(ioctx, "first"), read(ioctx, "second")) == (b"one+", None)
    op.append(b"more")
    ioctx.operate_write_op(op, "first")
    assert read(ioctx, "first") == b"one+more"
    ioctx.release_write_op(op)


def test_an_asynchronous_write_op_sent_twice(backend: Backend) -> None:
    ioctx = backend.ioctx()
    op = ioctx.create_write_op()
    op.append(b"A")
    for _ in range(2):
        ioctx.operate_aio_write_op(op, "object").wait_for_complete()
    assert read(ioctx, "object") == b"A"
    ioctx.release_write_op(op)


def test_an_op_that_failed_is_empty_too(backend: Backend) -> None:
    ioctx = backend.ioctx()
    ioctx.write_full("object", b"A")
    op = ioctx.create_write_op()
    op.append(b"B")
    op.assert_version(2**40)
    with pytest.raises(backend.rados_module.OSError):
        ioctx.operate_write_op(op, "object")
    ioctx.operate_write_op(op, "object")
    assert read(ioctx, "object") == b"A"
    ioctx.release_write_op(op)


def test_a_read_op_sent_twice(backend: Backend) -> None:
    ioctx = backend.ioctx()
    ioctx.write_full("object", b"A")
    op = ioctx.create_read_op()
    op.cmpext(b"B", 0)
    with pytest.raises(backend.rados_module.OSError):
        ioctx.operate_read_op(op, "object")
    ioctx.operate_read_op(op, "object")
    op.cmpext(b"A", 0)
    ioctx.operate_read_op(op, "object")
    ioctx.release_read_op(op)


# --- odd arguments ---------------------------------------------------------------------------------------------------


def outcome(call: Callable[[], Any]) -> str:
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__}{getattr(error, 'errno', '')}"


LOCKS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"duration": None}, "None"),
    "zero": ({"duration": 0}, "None"),
    "negative": ({"duration": -1}, "None"),
    "with a fraction": ({"duration": 1.5}, "None"),
    "beyond 32 bits": ({"duration": 2**32 + 60}, "None"),
    "beyond 64 bits": ({"duration": 2**63}, "OverflowError"),
    "a word": ({"duration": "a"}, "TypeError"),
    "negative flags": ({"flags": -1}, "OverflowError"),
    "flags beyond a byte": ({"flags": 256}, "OverflowError"),
    "flags with a fraction": ({"flags": 1.5}, "None"),
    "flags as a word": ({"flags": "x"}, "TypeError"),
}


@pytest.mark.parametrize("what", LOCKS)
def test_lock_arguments(backend: Backend, what: str) -> None:
    arguments, expected = LOCKS[what]
    ioctx = backend.ioctx()
    assert outcome(lambda: ioctx.lock_exclusive("object", "lock", "cookie", **arguments)) == expected


def test_other_arguments(backend: Backend) -> None:
    client, ioctx = backend.cluster, backend.ioctx()
    ioctx.write_full("object", b"x")
    calls: dict[str, tuple[Callable[[], Any], str]] = {
        "NUL in a name": (lambda: ioctx.write_full("a\0b", b"zz"), "0"),
        "which ends there": (lambda: ioctx.read("a"), "b'zz'"),
        "a snapshot of 64 bits": (lambda: ioctx.set_read(2**63), "None"),
        "reads the head": (lambda: ioctx.read("object"), "b'x'"),
        "back": (lambda: ioctx.set_read(2**64 - 2), "None"),
        "negative snapshots": (lambda: ioctx.set_self_managed_snap_write([-1]), "OverflowError"),
        "snapshots as words": (lambda: ioctx.set_self_managed_snap_write(["x"]), "ValueError"),
        "an unknown pool": (lambda: client.open_ioctx2(2**62), "ObjectNotFound2"),
        "a negative pool": (lambda: client.open_ioctx2(-1), "ObjectNotFound2"),
        "a pool beyond 64 bits": (lambda: client.open_ioctx2(2**63), "OverflowError"),
        "its name": (lambda: client.pool_reverse_lookup(2**62), "None"),
        "blocklisting nothing": (lambda: client.blocklist_add("", 5), "InvalidArgumentError22"),
        "blocklisting a word": (lambda: client.blocklist_add("nonsense", 5), "InvalidArgumentError22"),
        "for a negative time": (lambda: client.blocklist_add("1.2.3.4:0/5", -1), "OverflowError"),
        "for a fraction": (lambda: client.blocklist_add("1.2.3.4:0/5", 1.5), "None"),
        "for more than 32 bits": (lambda: client.blocklist_add("1.2.3.4:0/5", 2**32), "OverflowError"),
        "for a word": (lambda: client.blocklist_add("1.2.3.4:0/5", "x"), "TypeError"),
        "an input that is no bytes": (lambda: client.mon_command('{"prefix": "fsid"}', "x"), "TypeError"),
        "a command that is no str": (lambda: client.mon_command(b"{}", b""), "TypeError"),
    }
    assert {what: outcome(call) for what, (call, _) in calls.items()} == {what: told for what, (_, told) in calls.items()}


BAD_COMMANDS = {
    "": "unparseable JSON ",
    "x": "unparseable JSON x",
    "[]": "not JSON object []",
    '"a"': 'not JSON object "a"',
    "{}": "command prefix not found",
    '{"prefix": "nonsense"}': "command not known",
    '{"prefix": "osd blocklist", "blocklistop": "add", "addr": "1.2.3.4", "expire": "abc"}': None,
    '{"prefix": "osd blocklist", "blocklistop": "add", "addr": "1.2.3.4", "expire": -5}': None,
    '{"prefix": "osd blocklist", "blocklistop": "add"}': None,
    '{"prefix": "osd pool create", "pool": ""}': None,
    '{"prefix": "auth get-or-create", "entity": "client.x", "caps": "mon", "format": "json"}': None,
}


@pytest.mark.parametrize("command", BAD_COMMANDS)
def test_bad_commands(backend: Backend, command: str) -> None:
    rv, output, status = backend.cluster.mon_command(command, b"")
    assert (rv, output) == (-22, b"")
    assert BAD_COMMANDS[command] in (status, None)


@pytest.mark.parametrize("value", [1e300, -1e300, float("inf"), 10**400, [], {}, None, "\0"], ids=repr)
def test_parameters_beyond_all_bounds(value: Any) -> None:
    """Of the embedded cluster only: a real monitor may die of them."""
    import json

    with embedded.Rados() as client:
        for name in ("prefix", "expire", "addr", "pool", "key", "val", "who", "entity", "caps"):
            for prefix in ("osd blocklist", "osd pool create", "config-key set", "config set", "auth get-or-create"):
                command = {"prefix": prefix, "blocklistop": "add", "addr": "1.2.3.4", "pool": "p", "key": "k", name: value}
                rv, _, _ = client.mon_command(json.dumps(command), b"")
                assert rv <= 0
        assert client.list_pools()[0] == "rbd"


def test_conf_files_that_cannot_be_read(backend: Backend, tmp_path: Path) -> None:
    kind = backend.rados_module
    for path in (tmp_path / "missing", tmp_path / "missing" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(kind.Error):
            kind.Rados(conffile=str(path))
    with pytest.raises(kind.Error):
        kind.Rados(conffile=str(tmp_path))  # a directory


# --- handles that nobody holds ---------------------------------------------------------------------------------------


def test_handles_that_nobody_holds_leave_nothing() -> None:
    """No thread, no client in the cluster, no watch."""
    with embedded.Cluster() as cluster:
        before = threading.active_count()
        for _ in range(60):
            client = embedded.Rados(cluster=cluster)
            client.connect()
            ioctx = client.open_ioctx("rbd")
            ioctx.write_full("object", b"")
            watch = ioctx.watch("object", lambda *_: None)
            ioctx.aio_read("object", 1, 0).wait_for_complete_and_cb()
            del client, ioctx, watch
        gc.collect()
        _until(lambda: _left_in(cluster) == (0, 0) and threading.active_count() <= before)


def _left_in(cluster: embedded.Cluster) -> Any:
    """Clients and watches."""
    with cluster.store.read as db:
        return db.execute("SELECT (SELECT count(*) FROM client), (SELECT count(*) FROM watch)").fetchone()


def test_an_ioctx_holds_its_client() -> None:
    with embedded.Cluster() as cluster:

        def open_ioctx() -> embedded.Ioctx:
            client = embedded.Rados(cluster=cluster)
            client.connect()
            return client.open_ioctx("rbd")

        ioctx = open_ioctx()
        port = ioctx.rbd_native_port.in_namespace("other")
        gc.collect()
        ioctx.write_full("object", b"x")
        del ioctx
        gc.collect()
        assert port.notify("object", b"", 100).block().rv == -2  # of the port, too
        del port
        gc.collect()
        _until(lambda: not cluster._connections)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_shutting_down_twice_and_dropping(backend: Backend) -> None:
    with backend.connected() as client:
        client.open_ioctx(backend.pool)
        client.shutdown()
    with contextlib.suppress(backend.rados_module.Error):
        client.get_fsid()
