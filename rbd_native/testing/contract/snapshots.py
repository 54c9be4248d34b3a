"""Self-managed snapshots: clones made on write, read, listed, rolled back to and trimmed."""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest

from rbd_native.rados.port import (
    HEAD,
    Append,
    Capability,
    Clone,
    GetXattr,
    Io,
    ListSnaps,
    OmapGet,
    OmapSet,
    Read,
    Remove,
    SetXattr,
    SnapContext,
    SnapSet,
    Stat,
    Truncate,
    Write,
    WriteFull,
    Zero,
)
from rbd_native.testing.contract.base import Contract, Do, able, blocking

_NONE = SnapContext(0, ())


def after(*snaps: int) -> SnapContext:
    """The context of an image with these snapshots, oldest first."""
    return SnapContext(max(snaps, default=0), tuple(sorted(snaps, reverse=True)))


class SnapshotContract(Contract):
    @pytest.fixture
    def snaps(self, io: Io) -> list[int]:
        """Three new snapshot ids."""
        return [blocking(io.snap_create()).value for _ in range(3)]

    def at(self, do: Do, io: Io, oid: str, snap: int) -> Any:
        """The content at a snapshot, or the errno."""
        reply = do(io.read(oid, [Read(0, 1 << 20)], snap=snap))
        return reply.rv if reply.rv < 0 else reply.outs[0]

    def clones(self, do: Do, io: Io, oid: str) -> SnapSet | None:
        reply = do(io.read(oid, [ListSnaps()]))
        if not able(io, Capability.LIST_SNAPS):
            assert reply.rv == -errno.EOPNOTSUPP
            return None
        assert reply.rv == 0, reply
        found: SnapSet = reply.outs[0]
        return found

    def test_ids_go_up(self, io: Io, do: Do) -> None:
        first, second = do(io.snap_create()).value, do(io.snap_create()).value
        assert 0 < first < second
        assert do(io.snap_remove(first)).rv == 0
        assert do(io.snap_remove(first)).rv == 0
        assert do(io.snap_create()).value > second

    def test_a_write_keeps_what_the_snapshot_saw(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, _ = snaps
        do(io.write(oid, [Write(0, b"first")]))
        do(io.write(oid, [Write(0, b"SECOND")], snapc=after(one)))
        do(io.write(oid, [Append(b"!")], snapc=after(one)))
        do(io.write(oid, [Remove()], snapc=after(one, two)))
        assert self.at(do, io, oid, one) == b"first"
        assert self.at(do, io, oid, two) == b"SECOND!"
        assert self.at(do, io, oid, HEAD) == -errno.ENOENT
        assert do(io.read(oid, [Stat()], snap=two)).outs[0].size == 7

    def test_without_a_context_nothing_is_kept(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        do(io.write(oid, [Write(0, b"first")]))
        do(io.write(oid, [Write(0, b"SECOND")]))
        assert self.at(do, io, oid, snaps[0]) == b"SECOND"
        found = self.clones(do, io, oid)
        assert found is None or found == SnapSet((Clone(HEAD, (), (), 6),), 0)

    def test_what_came_later_is_not_there_at_the_snapshot(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, _ = snaps
        do(io.write(oid, [Write(0, b"new")], snapc=after(one)))
        assert self.at(do, io, oid, one) == -errno.ENOENT
        assert self.at(do, io, oid, two) == b"new"
        assert do(io.read(oid, [Stat()], snap=one)).rv == -errno.ENOENT

    def test_attributes_are_kept_too(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        do(io.write(oid, [SetXattr("name", b"old"), OmapSet({b"key": b"old"})]))
        do(io.write(oid, [SetXattr("name", b"new"), OmapSet({b"key": b"new", b"more": b""})], snapc=after(snaps[0])))
        old = do(io.read(oid, [GetXattr("name"), OmapGet()], snap=snaps[0])).outs
        assert (old[0], old[1].values) == (b"old", {b"key": b"old"})

    def test_made_again_after_removal(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, three = snaps
        do(io.write(oid, [WriteFull(b"one")]))
        do(io.write(oid, [Remove()], snapc=after(one)))
        do(io.write(oid, [WriteFull(b"three")], snapc=after(one, two)))
        assert self.at(do, io, oid, one) == b"one"
        assert self.at(do, io, oid, two) == -errno.ENOENT
        assert self.at(do, io, oid, three) == b"three"
        found = self.clones(do, io, oid)
        assert found is None or [(clone.id, clone.snaps, clone.size) for clone in found.clones] == [
            (one, (one,), 3),
            (HEAD, (), 5),
        ]

    def test_clones_and_what_they_share(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, three = snaps
        do(io.write(oid, [Write(0, bytes(100))]))
        do(io.write(oid, [Write(10, b"x" * 5)], snapc=after(one)))
        do(io.write(oid, [Write(90, b"x" * 20), Write(50, b"")], snapc=after(one)))
        do(io.write(oid, [Truncate(60)], snapc=after(one, two, three)))
        found = self.clones(do, io, oid)
        if found is None:
            return
        assert found.seq == three
        assert found.clones == (
            Clone(one, (one,), ((0, 10), (15, 75)), 100),
            Clone(three, (two, three), ((0, 60),), 110),
            Clone(HEAD, (), (), 60),
        )
        do(io.write(oid, [Remove()], snapc=after(one, two, three)))
        found = self.clones(do, io, oid)
        assert found is not None
        assert [(clone.id, clone.overlap) for clone in found.clones] == [(one, ((0, 10), (15, 75))), (three, ())]

    @pytest.mark.parametrize(
        ("change", "overlap"),
        [
            ([Zero(10, 20)], ((0, 10), (30, 70))),
            ([WriteFull(b"new")], ()),
            ([Append(b"more")], ((0, 100),)),
            ([Truncate(40)], ((0, 40),)),
            ([Truncate(400)], ((0, 100),)),
            ([SetXattr("name", b"value")], ((0, 100),)),
            ([OmapSet({b"key": b"value"})], ((0, 100),)),
            ([Write(40, b"x" * 100)], ((0, 40),)),
        ],
        ids=lambda value: type(value[0]).__name__ if isinstance(value, list) else "",
    )
    def test_what_a_change_leaves_shared(
        self, io: Io, do: Do, oid: str, snaps: list[int], change: list[Any], overlap: tuple[tuple[int, int], ...]
    ) -> None:
        if not able(io, Capability.LIST_SNAPS | Capability.ZERO):
            return
        do(io.write(oid, [Write(0, b"y" * 100)]))
        assert do(io.write(oid, change, snapc=after(snaps[0]))).rv == 0
        found = self.clones(do, io, oid)
        assert found is not None
        assert found.clones[0] == Clone(snaps[0], (snaps[0],), overlap, 100)

    def test_clones_of_a_missing_object(self, io: Io, do: Do, oid: str) -> None:
        if able(io, Capability.LIST_SNAPS):
            assert do(io.read(oid, [ListSnaps()])).rv == -errno.ENOENT

    def test_an_older_context_makes_no_clone(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, _ = snaps
        do(io.write(oid, [WriteFull(b"a")]))
        do(io.write(oid, [WriteFull(b"b")], snapc=after(one, two)))
        do(io.write(oid, [WriteFull(b"c")], snapc=after(one)))
        do(io.write(oid, [WriteFull(b"d")], snapc=_NONE))
        do(io.write(oid, [WriteFull(b"e")]))
        assert self.at(do, io, oid, one) == b"a"
        assert self.at(do, io, oid, two) == b"a"
        assert self.at(do, io, oid, HEAD) == b"e"
        found = self.clones(do, io, oid)
        assert found is None or (found.seq, [clone.id for clone in found.clones]) == (two, [two, HEAD])

    def test_a_snapshot_that_is_gone_is_not_kept(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        two = snaps[1]
        do(io.write(oid, [WriteFull(b"a")]))
        do(io.write(oid, [WriteFull(b"b")], snapc=SnapContext(two, (two,))))
        found = self.clones(do, io, oid)
        assert found is None or found.clones[0].snaps == (two,)
        assert self.at(do, io, oid, two) == b"a"

    @pytest.mark.parametrize("snapc", [SnapContext(1, (2,)), SnapContext(5, (2, 3)), SnapContext(5, (3, 3))])
    def test_an_impossible_context(self, io: Io, do: Do, oid: str, snapc: SnapContext) -> None:
        if able(io, Capability.LIST_SNAPS):  # the fallback orders them, and cannot give a seq
            assert do(io.write(oid, [Write(0, b"a")], snapc=snapc)).rv == -errno.EINVAL
            assert do(io.read(oid, [Stat()])).rv == -errno.ENOENT

    def test_many_contexts_at_once(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        """Each operation has its own, whatever is under way beside it."""
        from rbd_native.engine import gather

        contexts = [_NONE, after(snaps[0]), after(*snaps[:2]), after(*snaps)]
        names = [f"{oid}.{number}" for number in range(80)]

        async def one(number: int) -> Any:
            name, snapc = names[number], contexts[number % 4]
            await io.write(name, [WriteFull(b"old")])
            await io.write(name, [WriteFull(b"new")], snapc=snapc)
            seen = [await io.read(name, [Read(0, 9)], snap=snap).bare() for snap in (*snaps, HEAD)]
            return [reply.outs[0] for reply in seen]

        found = do(gather((one(number) for number in range(80)), 16))
        for number, seen in enumerate(found):
            assert seen == [b"old"] * (number % 4) + [b"new"] * (4 - number % 4)

    def test_rollback(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, _ = snaps
        do(io.write(oid, [WriteFull(b"first"), OmapSet({b"key": b"old"})]))
        do(io.write(oid, [WriteFull(b"second!"), OmapSet({b"key": b"new"})], snapc=after(one)))
        assert do(io.rollback(oid, one, after(one, two))).rv == 0
        assert do(io.read(oid, [Read(0, 99), OmapGet()])).outs[0] == b"first"
        assert do(io.read(oid, [OmapGet()])).outs[0].values == {b"key": b"old"}
        assert self.at(do, io, oid, one) == b"first"
        assert self.at(do, io, oid, two) == b"second!"

    def test_rollback_to_the_state_it_is_in(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        do(io.write(oid, [WriteFull(b"first")]))
        assert do(io.rollback(oid, snaps[0], after(snaps[0]))).rv == 0
        assert self.at(do, io, oid, HEAD) == b"first"

    def test_rollback_to_absence(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, _ = snaps
        do(io.write(oid, [WriteFull(b"new")], snapc=after(one)))
        assert do(io.rollback(oid, one, after(one, two))).rv == 0
        assert self.at(do, io, oid, HEAD) == -errno.ENOENT
        assert self.at(do, io, oid, two) == b"new"

    def test_rollback_of_a_removed_object(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        do(io.write(oid, [WriteFull(b"first")]))
        do(io.write(oid, [Remove()], snapc=after(snaps[0])))
        assert do(io.rollback(oid, snaps[0], after(snaps[0]))).rv == 0
        assert self.at(do, io, oid, HEAD) == b"first"

    def test_removed_snapshots_are_trimmed(self, io: Io, do: Do, oid: str, snaps: list[int]) -> None:
        one, two, _ = snaps
        do(io.write(oid, [WriteFull(b"one")]))
        do(io.write(oid, [WriteFull(b"two")], snapc=after(one)))
        do(io.write(oid, [WriteFull(b"three")], snapc=after(one, two)))
        if not able(io, Capability.LIST_SNAPS):
            return
        assert do(io.snap_remove(one)).rv == 0
        deadline = time.monotonic() + 30
        while True:
            found = self.clones(do, io, oid)
            assert found is not None
            left = [clone.id for clone in found.clones]
            if left == [two, HEAD]:
                break
            assert left == [one, two, HEAD]
            assert time.monotonic() < deadline, "never trimmed"
            time.sleep(0.1)
        assert self.at(do, io, oid, two) == b"two"
