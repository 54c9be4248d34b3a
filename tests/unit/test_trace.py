"""Traces: what is asked is written down as it was, and can be done again."""

import errno
import io as streams
from typing import get_args

import pytest

from rbd_native import embedded
from rbd_native.engine import Task, run
from rbd_native.rados import port
from rbd_native.rados.port import (
    AllocHint,
    Append,
    AssertExists,
    AssertVersion,
    CmpExt,
    Create,
    Exec,
    FailOk,
    GetXattr,
    ListSnaps,
    OmapCmp,
    OmapGet,
    OmapGetByKeys,
    OmapRemove,
    OmapRemoveRange,
    OmapSet,
    Read,
    ReadInto,
    RmXattr,
    SetXattr,
    SnapContext,
    Stat,
    Truncate,
    Write,
    WriteFull,
    WriteSame,
)
from rbd_native.rados.trace import Record, Trace, pack, read_trace, replay
from rbd_native.rados.wrapper import wrap
from rbd_native.testing.contract import blocking, by_completion


@pytest.fixture
def io():
    with embedded.Cluster() as cluster:
        yield cluster.connect().io(1)


STEPS = [
    AllocHint(1 << 22, 1 << 16),
    Append(b"\xff\0"),
    AssertExists(),
    AssertVersion(1 << 63),
    CmpExt(1 << 40, b"x"),
    Create(False),
    Exec("rbd", "get_size", bytes(8)),
    FailOk(FailOk(Exec("lock", "lock", b"\x80"))),
    GetXattr("na\udcffme"),
    ListSnaps(),
    OmapCmp(b"k", b"v"),
    OmapGet(b"\xff", 7, b"p"),
    OmapGetByKeys((b"a", b"\0")),
    OmapRemove((b"a",)),
    OmapRemoveRange(b"a", b"b"),
    OmapSet({b"\xff": b"\0", b"": b""}),
    Read(0, 0),
    RmXattr(""),
    SetXattr("n", b""),
    Truncate(0),
    WriteSame(0, 4, b"ab"),
]


def test_every_step_survives_the_format():
    kinds = {*get_args(port.ReadStep), *get_args(port.WriteStep)}
    plain = [port.ListWatchers(), port.OmapClear(), port.Remove(), Stat(), Write(1, b""), WriteFull(b""), port.Zero(1, 2)]
    steps = (*STEPS, *plain)
    assert {type(step) for step in steps} == kinds - {port.ReadInto}  # a plain read, in a trace
    snapc = SnapContext(9, (9, 7))
    record = Record("write", 3, "ns", "o\udc80id", steps, port.HEAD, snapc, -4099, 5, 6)
    assert list(read_trace(streams.BytesIO(pack(record) * 2))) == [record, record]
    assert [type(step) for step in next(read_trace(streams.BytesIO(pack(record)))).steps] == [type(s) for s in steps]


def test_a_trace_cut_off_in_the_middle_is_read_up_to_there():
    record = Record("read", 1, "", "oid", (Read(0, 10),), port.HEAD, None, 0, 1, 2)
    assert list(read_trace(streams.BytesIO(pack(record) + pack(record)[:-3]))) == [record]


@pytest.mark.parametrize("do", [blocking, by_completion])
def test_what_is_written_down(io, do):
    trace = Trace()
    traced = wrap(io, trace)
    data = bytearray(b"abc")
    do(traced.write("a", [Write(0, data), OmapSet({b"k": b"v"})]))
    data[:] = b"XYZ"
    do(traced.read("a", [CmpExt(0, b"abX")]))
    snap = do(traced.snap_create()).value
    do(traced.in_namespace("ns").write("b", [WriteFull(b"x")], snapc=SnapContext(snap, (snap,))))
    do(traced.cluster.io(1).read("none", [Stat()], snap=snap))
    do(traced.execute("a", Exec("no", "such")))
    do(traced.notify("a", b"payload", 1000))
    do(traced.cluster.pool_lookup("rbd"))
    room = memoryview(bytearray(8))
    do(traced.read("a", [ReadInto(1, room)]))
    room.release()  # the trace does not need it
    assert [record[:8] for record in trace.records] == [
        ("write", 1, "", "a", (Write(0, b"abc"), OmapSet({b"k": b"v"})), port.HEAD, None, 0),
        ("read", 1, "", "a", (CmpExt(0, b"abX"),), port.HEAD, None, -4097),
        ("snap_create", 1, "", "", (), port.HEAD, None, 0),
        ("write", 1, "ns", "b", (WriteFull(b"x"),), port.HEAD, SnapContext(snap, (snap,)), 0),
        ("read", 1, "", "none", (Stat(),), snap, None, -errno.ENOENT),
        ("execute", 1, "", "a", (Exec("no", "such"),), port.HEAD, None, -errno.EOPNOTSUPP),
        ("notify", 1, "", "a", (b"payload",), port.HEAD, None, 0),
        ("pool_lookup", -1, "", "rbd", (), port.HEAD, None, 0),
        ("read", 1, "", "a", (Read(1, 8),), port.HEAD, None, 0),
    ]
    for earlier, later in zip(trace.records, trace.records[1:], strict=False):
        assert earlier.began <= later.began
        assert 0 <= earlier.took < 10**7


def test_watches_are_traced_from_end_to_end(io):
    trace = Trace()
    traced = wrap(io, trace)
    blocking(io.write("a", [Create()]))
    watch = blocking(traced.watch("a", lambda client, notify_id, payload: payload * 2, lambda code: None)).value
    acks = blocking(traced.notify("a", b"x", 3000)).value.acks
    assert acks == [(io.cluster.instance_id(), watch.cookie, b"xx")]
    assert watch.check().rv == 0
    assert by_completion(watch.close()).rv == 0
    assert [record.kind for record in trace.records] == ["watch", "notify", "unwatch"]


def test_a_trace_can_be_done_again(io):
    stream = streams.BytesIO()
    traced = wrap(io, Trace(stream))
    steps = [
        [WriteFull(b"abcdef")],
        [CmpExt(0, b"abc"), Write(3, b"xyz"), SetXattr("name", b"value")],
        [CmpExt(0, b"nope"), Write(0, b"never")],
        [FailOk(Create()), OmapSet({b"k1": b"1", b"k2": b"2"}), OmapRemove((b"k1",))],
    ]
    for write in steps:
        blocking(traced.write("a", write))
    blocking(traced.read("a", [Read(0, 99), OmapGet()]))
    blocking(traced.snap_create())
    stream.seek(0)
    records = list(read_trace(stream))
    with embedded.Cluster() as another:
        replies = run(replay(another.connect().io(1), records))
        assert [reply.rv for reply in replies] == [record.rv for record in records if record.kind != "snap_create"]
        assert replies[-1].outs == (b"abcxyz", port.OmapPage({b"k2": b"2"}, False))


def test_what_fails_without_an_answer_is_not_written_down(io):
    trace = Trace()
    traced = wrap(io, trace)
    blocking(io.write("a", [Create()]))
    for do in (blocking, by_completion):
        with pytest.raises(TypeError):
            do(traced.write("a", [Read(0, 1)]))
    assert not trace.records


def test_tracing_does_not_change_who_is_resumed_how(io):
    """Results at hand stay at hand."""
    traced = wrap(io, Trace())
    task = Task(traced.write("a", [Create()]).bare()).launch()
    assert task.finished
