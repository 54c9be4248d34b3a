"""Clones against a model that keeps a whole copy of the object for every snapshot."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbd_native import embedded
from rbd_native.embedded import extents
from rbd_native.embedded.client import Io
from rbd_native.embedded.store import CHUNK
from rbd_native.rados.port import (
    HEAD,
    GetXattr,
    ListSnaps,
    OmapGet,
    OmapRemove,
    OmapSet,
    Read,
    Remove,
    SetXattr,
    SnapContext,
    SnapSet,
    Truncate,
    Write,
    WriteFull,
    Zero,
)

# --- sets of bytes ---------------------------------------------------------------------------------------------------

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=6)


def bytes_of(some: Any) -> set[int]:
    return {byte for offset, length in some for byte in range(offset, offset + length)}


@given(ranges)
def test_a_union_is_disjoint_and_ascending(some: list[tuple[int, int]]) -> None:
    merged = extents.of(some)
    assert bytes_of(extents.ranges(merged)) == bytes_of(some)
    assert all(before < after for before, after in itertools.pairwise(merged))
    assert extents.unpack(extents.pack(merged)) == merged


@given(ranges, ranges)
def test_difference_and_intersection(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    left, right = extents.of(some), extents.of(others)
    common = extents.intersection(left, right)
    assert bytes_of(extents.ranges(common)) == bytes_of(some) & bytes_of(others)
    for offset, length in others:
        extents.cut(left, offset, length)
    assert bytes_of(extents.ranges(left)) == bytes_of(some) - bytes_of(others)
    for result in (left, common):
        assert all(before < after for before, after in itertools.pairwise(result))


# --- clones ----------------------------------------------------------------------------------------------------------


class Content:
    """What an object holds; None for data: it does not exist."""

    def __init__(self) -> None:
        self.data: bytearray | None = None
        self.xattrs: dict[str, bytes] = {}
        self.omap: dict[bytes, bytes] = {}

    def copy(self) -> "Content":
        other = Content()
        other.data = None if self.data is None else bytearray(self.data)
        other.xattrs, other.omap = dict(self.xattrs), dict(self.omap)
        return other

    def apply(self, step: Any) -> None:
        match step:
            case Write(offset, data):
                self._reach(offset + len(data))
                self.data[offset : offset + len(data)] = data  # type: ignore[index]
            case WriteFull(data):
                self.data = bytearray(data)
            case Truncate(size) if self.data is not None:
                self._reach(size)
                del self.data[size:]
            case Zero(offset, length) if self.data is not None and offset < len(self.data):
                if offset + length >= len(self.data):
                    del self.data[offset:]
                else:
                    self.data[offset : offset + length] = bytes(length)
            case SetXattr(name, value):
                self._reach(0)
                self.xattrs[name] = value
            case OmapSet(values):
                self._reach(0)
                self.omap.update(values)
            case OmapRemove(keys) if self.data is not None:
                for key in keys:
                    self.omap.pop(key, None)
            case Remove() if self.data is not None:
                self.__init__()  # type: ignore[misc]

    def _reach(self, size: int) -> None:
        self.data = bytearray() if self.data is None else self.data
        self.data.extend(bytes(max(size - len(self.data), 0)))


def places(rng: random.Random) -> int:
    return rng.choice([0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 5, 5 * CHUNK])


def step(rng: random.Random) -> Any:
    value = bytes([rng.randrange(1, 256)])
    length = rng.choice([1, 5, 1000, CHUNK, 2 * CHUNK + 7])
    return rng.choice(
        [
            Write(places(rng), value * length),
            Write(places(rng), value * length),
            WriteFull(value * length),
            Truncate(places(rng)),
            Zero(places(rng), length),
            SetXattr(rng.choice("xy"), value),
            OmapSet({value[:1]: value, b"key": value}),
            OmapRemove((b"key", value)),
            Remove(),
        ]
    )


class Twin:
    """An object and its model, under the same snapshots."""

    def __init__(self, io: Io) -> None:
        self.io = io
        self.head = Content()
        self.kept: dict[int, Content] = {}

    def snapshot(self) -> None:
        self.kept[self.io.snap_create().block().value] = self.head.copy()

    @property
    def context(self) -> SnapContext:
        ids = tuple(sorted(self.kept, reverse=True))
        return SnapContext(max(ids, default=0), ids)

    def write(self, *steps: Any) -> None:
        if self.io.write("object", steps, snapc=self.context).block().rv == 0:
            for each in steps:
                self.head.apply(each)

    def roll_back(self, snap: int) -> None:
        assert self.io.rollback("object", snap, self.context).block().rv == 0
        self.head = self.kept[snap].copy()

    def forget(self, snap: int) -> None:
        assert self.io.snap_remove(snap).block().rv == 0
        del self.kept[snap]

    def check(self) -> None:
        self.expect(HEAD, self.head)
        for snap, content in self.kept.items():
            self.expect(snap, content)
        self.check_overlaps()

    def expect(self, snap: int, content: Content) -> None:
        reply = self.io.read("object", [Read(0, 0), OmapGet()], snap=snap).block()
        if content.data is None:
            assert reply.rv == -2
            return
        data, omap = reply.outs
        assert data == bytes(content.data)
        assert omap.values == content.omap
        for name in "xy":
            found = self.io.read("object", [GetXattr(name)], snap=snap).block()
            assert (found.outs[0] if found.rv == 0 else None) == content.xattrs.get(name)

    def check_overlaps(self) -> None:
        """What a clone is said to share with the next newer state is the same in both."""
        reply = self.io.read("object", [ListSnaps()]).block()
        if reply.rv < 0:
            return
        found: SnapSet = reply.outs[0]
        for clone, newer in zip(found.clones, found.clones[1:], strict=False):
            mine = self.kept[clone.snaps[0]].data
            theirs = self.head.data if newer.id == HEAD else self.kept[newer.snaps[0]].data
            assert mine is not None
            assert clone.size == len(mine)
            for offset, length in clone.overlap:
                assert mine[offset : offset + length] == (theirs or b"")[offset : offset + length]


@pytest.mark.parametrize("path", [None, "cluster"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_snapshot_reads_as_it_was(path: str | None, seed: int, tmp_path_factory: Any) -> None:
    rng = random.Random(seed)
    where = None if path is None else tmp_path_factory.mktemp("snapshots") / path
    with embedded.Cluster(where) as cluster:
        twin = Twin(cluster.connect().io(1))
        for _ in range(rng.randrange(5, 25)):
            fate = rng.random()
            if fate < 0.2:
                twin.snapshot()
            elif fate < 0.3 and twin.kept:
                twin.roll_back(rng.choice(list(twin.kept)))
            elif fate < 0.4 and twin.kept:
                twin.forget(rng.choice(list(twin.kept)))
            else:
                twin.write(*(step(rng) for _ in range(rng.choice([1, 1, 2]))))
            twin.check()
        clean_up(twin)
        assert left_over(cluster) == {}


def clean_up(twin: Twin) -> None:
    for snap in list(twin.kept):
        twin.forget(snap)
    # Twice: what is left of an object that was made and deleted under a snapshot goes the second time.
    for _ in range(2):
        twin.io.write("object", [Remove()]).block()


def left_over(cluster: embedded.Cluster) -> dict[str, int]:
    with cluster.store.read as db:
        tables = ("object", "chunk", "clone", "clone_snap", "xattr", "omap")
        counts = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    return {table: count for table, count in counts.items() if count}


def test_a_clone_shares_what_was_not_overwritten() -> None:
    with embedded.Cluster() as cluster:
        io = cluster.connect().io(1)
        io.write("object", [Write(0, b"x" * (64 * CHUNK))]).block()
        for snap in range(1, 11):
            assert io.snap_create().block().value == snap
            io.write("object", [Write(0, bytes([snap]))], snapc=SnapContext(snap, tuple(range(snap, 0, -1)))).block()
        with cluster.store.read as db:
            assert db.execute("SELECT count(*) FROM chunk").fetchone()[0] == 64 + 10
        for snap in range(1, 11):
            assert io.read("object", [Read(0, 2)], snap=snap).block().outs == (
                bytes([snap - 1]) + b"x" if snap > 1 else b"xx",
            )


def test_a_context_that_is_none_is_refused() -> None:
    with embedded.Cluster() as cluster:
        io = cluster.connect().io(1)
        for snapc in (SnapContext(1, (2,)), SnapContext(3, (1, 2)), SnapContext(3, (2, 2)), SnapContext(3, (0,))):
            assert io.write("object", [Write(0, b"x")], snapc=snapc).block().rv == -22
            assert io.rollback("object", 1, snapc).block().rv == -22
        assert io.write("object", [Write(0, b"x")], snapc=SnapContext(9, (2, 1))).block().rv == 0


def test_a_hole_stays_one_for_an_older_clone_that_is_larger() -> None:
    with embedded.Cluster() as cluster:
        twin = Twin(cluster.connect().io(1))
        twin.write(Truncate(5 * CHUNK), Write(0, b"x"), Truncate(5 * CHUNK))
        twin.snapshot()
        twin.write(Truncate(1))
        twin.snapshot()
        twin.write(Write(3 * CHUNK, b"later"))
        twin.check()


def test_what_the_head_had_beyond_a_clone_does_not_come_back() -> None:
    with embedded.Cluster() as cluster:
        twin = Twin(cluster.connect().io(1))
        twin.write(Write(0, b"small"))
        twin.snapshot()
        (snap,) = twin.kept
        twin.write(Write(3 * CHUNK, b"far away"))
        twin.roll_back(snap)
        twin.write(Truncate(5 * CHUNK))
        twin.check()
