"""A real cluster and an embedded one do the same.

Random sequences of compound writes and reads on a few objects, under random snapshot contexts and at random snapshots,
run on both, side by side: every errno and every output must be equal, and so must be the whole state in the end. The
sequences are the same in every run.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rbd_native import cls_lock, embedded
from rbd_native.engine import gather, run
from rbd_native.rados import connect
from rbd_native.rados.port import (
    HEAD,
    AllocHint,
    Append,
    AssertExists,
    AssertVersion,
    CmpExt,
    Create,
    FailOk,
    GetXattr,
    Io,
    ListSnaps,
    ObjectStat,
    OmapClear,
    OmapCmp,
    OmapGet,
    OmapGetByKeys,
    OmapRemove,
    OmapRemoveRange,
    OmapSet,
    Read,
    Remove,
    Reply,
    RmXattr,
    SetXattr,
    SnapContext,
    SnapSet,
    Stat,
    Truncate,
    Write,
    WriteFull,
    WriteSame,
    Zero,
)
from rbd_native.testing.contract import blocking
from rbd_native.types import LockType
from tests.cluster import CephCluster

pytestmark = pytest.mark.ceph

SNAPS = 4
EXAMPLES = 250

_numbers = itertools.count(1)


# --- what is done ----------------------------------------------------------------------------------------------------


class Version(NamedTuple):
    """AssertVersion of the last version known, or of one near it: the numbers of two clusters are not the same."""

    difference: int


class Context(NamedTuple):
    """A snapshot context of the first so many snapshots, without some, and with a seq that may be newer than all."""

    count: int  # type: ignore[assignment]
    without: int
    ahead: int


class WriteAction(NamedTuple):
    oid: str
    steps: list[Any]
    context: Context | None


class ReadAction(NamedTuple):
    oid: str
    steps: list[Any]
    at: int | None


class RollBack(NamedTuple):
    oid: str
    to: int
    context: Context


oids = st.sampled_from("ab")
offsets = st.integers(0, 40)
data = st.text("\0ab", max_size=12).map(str.encode)
keys = st.sampled_from([b"k", b"k1", b"k2", b"l"])
xattrs = st.sampled_from(["x", "y"])
locks = st.builds(
    cls_lock.lock,
    st.just("name"),
    st.sampled_from([LockType.EXCLUSIVE, LockType.SHARED]),
    st.sampled_from("cd"),
    st.just(""),
).map(lambda call: call.step)
unlocks = st.sampled_from("cd").map(lambda cookie: cls_lock.unlock("name", cookie).step)
held = st.sampled_from("cd").map(lambda cookie: cls_lock.assert_locked("name", LockType.EXCLUSIVE, cookie, "").step)

conditions = st.one_of(
    st.just(AssertExists()),
    st.builds(Version, st.integers(-1, 1)),
    st.builds(CmpExt, offsets, data),
    held,
)
# Of no data, and where the object would grow, a write too leaves an OSD of release 16 with a wrong checksum.
changes_of_data = st.one_of(
    st.builds(Write, offsets, data.filter(bool)),
    st.just(Write(0, b"")),
    st.builds(WriteFull, data),
    st.builds(Append, data),
    st.builds(WriteSame, offsets, st.integers(0, 12), data),
    st.builds(Zero, offsets, st.integers(0, 60)),
    st.builds(Truncate, st.integers(0, 60)),
)
changes: SearchStrategy[Any] = st.one_of(
    changes_of_data,
    st.builds(Create, st.booleans()),
    st.just(Remove()),
    st.builds(SetXattr, xattrs, data),
    st.builds(RmXattr, xattrs),
    st.builds(OmapSet, st.dictionaries(keys, data, max_size=3)),
    st.builds(OmapRemove, st.lists(keys, max_size=2).map(tuple)),
    st.builds(OmapRemoveRange, keys, keys),
    st.just(OmapClear()),
    st.just(AllocHint(1 << 22, 1 << 12)),
    locks,
    unlocks,
)
write_steps = st.one_of(
    changes_of_data,
    changes,
    conditions,
    st.builds(OmapCmp, keys, data),
    st.builds(FailOk, st.one_of(changes, conditions)),
)
read_steps = st.one_of(
    st.builds(Read, offsets, st.integers(0, 60)),
    st.just(Stat()),
    st.builds(GetXattr, xattrs),
    st.builds(OmapGet, st.one_of(st.just(b""), keys), st.integers(1, 4), st.sampled_from([b"", b"k", b"k1"])),
    st.builds(OmapGetByKeys, st.lists(keys, max_size=3).map(tuple)),
    conditions,
)


def harmless(steps: list[Any]) -> bool:
    """Whether an OSD of release 16 survives it.

    It does not survive a step that reads the data behind one that writes all of it: it then holds the old data against
    the new checksum, and takes the object for damaged. One that was removed, written and removed again is still there.
    """
    written = removed = False
    for step in steps:
        inner = step.step if isinstance(step, FailOk) else step
        if (isinstance(inner, CmpExt) and written) or (isinstance(inner, Remove) and removed):
            return False
        removed |= isinstance(inner, Remove)
        written |= isinstance(inner, (Write, WriteFull, Append, WriteSame, Zero, Truncate, Remove, Create))
    return True


contexts = st.builds(Context, st.integers(0, SNAPS), st.integers(0, 2 * SNAPS), st.integers(0, 1))
actions = st.one_of(
    st.builds(
        WriteAction, oids, st.lists(write_steps, min_size=1, max_size=4).filter(harmless), st.one_of(st.none(), contexts)
    ),
    st.builds(WriteAction, oids, st.lists(changes_of_data, min_size=1, max_size=2), contexts),
    st.builds(
        ReadAction, oids, st.lists(read_steps, min_size=1, max_size=4), st.one_of(st.none(), st.integers(0, SNAPS - 1))
    ),
    st.builds(RollBack, oids, st.integers(0, SNAPS - 1), contexts),
)


# --- doing it --------------------------------------------------------------------------------------------------------


class Side:
    """One of the two clusters."""

    def __init__(self, io: Io, stock: Iterator[int]) -> None:
        self.io = io
        self.stock = stock
        self.snaps: list[int] = []
        self.versions: dict[str, int] = {}
        self.prefix = ""

    def begin(self, prefix: str) -> None:
        self.prefix = prefix
        self.snaps = list(itertools.islice(self.stock, SNAPS))
        self.versions = {}

    def context(self, context: Context | None) -> SnapContext | None:
        if context is None:
            return None
        taken = self.snaps[: context.count]
        kept = [snap for place, snap in enumerate(taken) if place != context.without]
        newest = max(taken, default=0)
        if context.ahead and context.count < SNAPS:
            newest = self.snaps[context.count]
        return SnapContext(newest, tuple(reversed(kept)))

    def step(self, oid: str, step: Any, at: int | None = None) -> Any:
        if isinstance(step, FailOk):
            return FailOk(self.step(oid, step.step))
        if not isinstance(step, Version):
            return step
        # How far the versions of two states of an object are apart is each cluster's own affair.
        difference = step.difference if at is None else 0
        return AssertVersion(max(0, self.versions.get(oid, 0) + difference))

    def do(self, action: Any) -> Any:
        """The rv and the outputs, as they can be compared."""
        name = self.prefix + action.oid
        if isinstance(action, RollBack):
            context = self.context(action.context)
            assert context is not None
            rv = blocking(self.io.rollback(name, self.snaps[action.to], context)).rv
            self.look_up_version(action.oid)
            return rv
        steps = [self.step(action.oid, step, getattr(action, "at", None)) for step in action.steps]
        if isinstance(action, WriteAction):
            reply = blocking(self.io.write(name, steps, snapc=self.context(action.context)))
        else:
            at = HEAD if action.at is None else self.snaps[action.at]
            reply = blocking(self.io.read(name, steps, snap=at))
        if reply.rv == 0 and reply.version and getattr(action, "at", None) is None:
            self.versions[action.oid] = reply.version
        if isinstance(action, WriteAction) and any(_removal(step) for step in steps):
            self.look_up_version(action.oid)
        return reply.rv, self.comparable(reply)

    def look_up_version(self, oid: str) -> None:
        """0 of what is not there."""
        self.versions[oid] = blocking(self.io.read(self.prefix + oid, [Stat()])).version

    def comparable(self, reply: Reply) -> list[Any]:
        return [self.output(output) for output in reply.outs]

    def output(self, output: Any) -> Any:
        if isinstance(output, ObjectStat):
            return output.size
        if not isinstance(output, SnapSet):
            return output
        clones = [
            (self.place(clone.id), [self.place(snap) for snap in clone.snaps], clone.overlap, clone.size)
            for clone in output.clones
        ]
        return self.place(output.seq), clones

    def place(self, snap: int) -> int | str:
        """A snapshot id as its place among those of this run."""
        return {0: "none", HEAD: "head"}.get(snap) or self.snaps.index(snap)

    def state(self, oid: str) -> list[Any]:
        """All there is to see of an object, now and at every snapshot."""
        name, io = self.prefix + oid, self.io
        found: list[Any] = [self.seen(io.read(name, [ListSnaps()]))]
        for snap in (*self.snaps, HEAD):
            found.append(self.seen(io.read(name, [Read(0, 1 << 16), Stat(), OmapGet()], snap=snap)))
            found += [self.seen(io.read(name, [GetXattr(xattr)], snap=snap)) for xattr in ("x", "y")]
        return found

    def seen(self, operation: Any) -> Any:
        reply = blocking(operation)
        return reply.rv, self.comparable(reply)


def _removal(step: Any) -> bool:
    return isinstance(step.step if isinstance(step, FailOk) else step, Remove)


def stock(io: Io) -> Iterator[int]:
    """Ever newer snapshot ids, made in lots: each alone waits for a commit of the monitor."""

    async def create() -> int:
        snap: int = await io.snap_create()
        return snap

    while True:
        yield from sorted(run(gather((create() for _ in range(64)), 64)))


def age(io: Io) -> None:
    """Take every placement group past its first versions: none lies just above 0, which no operation may insist on. The
    embedded cluster numbers those of an object, beginning with what objects that are gone have had."""
    for number in range(64):
        for step in (WriteFull(b""), WriteFull(b""), Remove()):
            blocking(io.write(f"age.{number}", [step]))


@pytest.fixture(scope="module")
def sides(ceph: CephCluster) -> Iterator[tuple[Side, Side]]:
    ceph.create_pool("differential")
    client = ceph.rados(rados_osd_op_timeout="20")  # an OSD that gives up on an object says nothing any more
    real = connect.port_for(client.open_ioctx("differential"))
    with embedded.Cluster() as cluster:
        mine = cluster.connect().io(1)
        for io in (real, mine):
            age(io)
        yield Side(real, stock(real)), Side(mine, stock(mine))
    client.shutdown()
    ceph.remove_pool("differential")


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(actions, min_size=3, max_size=14))
@example(
    [
        WriteAction("a", [Write(0, b"ab")], None),
        WriteAction("a", [Remove()], Context(1, 9, 0)),
        RollBack("a", 0, Context(2, 9, 0)),
    ]
)
def test_both_do_the_same(sides: tuple[Side, Side], sequence: list[Any]) -> None:
    prefix = f"{next(_numbers)}."
    for side in sides:
        side.begin(prefix)
    for action in sequence:
        real, mine = (side.do(action) for side in sides)
        note(f"{action}\n    -> {real}")
        assert mine == real, action
    for oid in "ab":
        real, mine = (side.state(oid) for side in sides)
        assert mine == real, oid
