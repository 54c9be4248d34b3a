"""Several steps as one operation: all or nothing, and which state each step sees."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rbd_native.rados.port import (
    Append,
    AssertExists,
    AssertVersion,
    CmpExt,
    Create,
    Exec,
    FailOk,
    GetXattr,
    Io,
    OmapCmp,
    OmapGet,
    OmapPage,
    OmapSet,
    Read,
    Remove,
    RmXattr,
    SetXattr,
    Stat,
    Truncate,
    Write,
    WriteFull,
)
from rbd_native.testing.contract.base import Contract, Do, blocking

_FAILURES: list[tuple[Any, int]] = [
    (Create(exclusive=True), errno.EEXIST),
    (AssertVersion(1 << 40), errno.EOVERFLOW),
    (CmpExt(0, b"other"), 4095),
    (OmapCmp(b"key", b"other"), errno.ECANCELED),
    (Exec("lock", "no such method"), errno.EOPNOTSUPP),
    (Exec("no such class", "lock"), errno.EOPNOTSUPP),
    (Exec("rbd", "get_size", bytes(8)), errno.ENOENT),
    (Write(1 << 50, b"x"), errno.EFBIG),
]


class CompoundContract(Contract):
    @pytest.mark.parametrize(("failing", "code"), _FAILURES, ids=lambda value: type(value).__name__)
    @pytest.mark.parametrize("place", [0, 2, 4])
    def test_a_failing_step_undoes_all(self, io: Io, do: Do, oid: str, failing: Any, code: int, place: int) -> None:
        before: list[Any] = [WriteFull(b"before"), SetXattr("name", b"before"), OmapSet({b"key": b"before"})]
        version = do(io.write(oid, before)).version
        changes: list[Any] = [Write(3, b"CHANGED"), SetXattr("name", b"after"), OmapSet({b"key": b"after"}), Truncate(2)]
        steps = [*changes[:place], failing, *changes[place:]]
        reply = do(io.write(oid, steps))
        assert (reply.rv, reply.outs) == (-code, ())
        after = do(io.read(oid, [Read(0, 99), GetXattr("name"), OmapGet()]))
        assert after.outs == (b"before", b"before", OmapPage({b"key": b"before"}, False))
        assert after.version == version

    def test_a_failing_step_leaves_no_new_object(self, io: Io, do: Do, oid: str) -> None:
        steps: list[Any] = [Create(), Write(0, b"x"), SetXattr("name", b"x"), Exec("lock", "no such method")]
        assert do(io.write(oid, steps)).rv == -errno.EOPNOTSUPP
        assert do(io.read(oid, [Stat()])).rv == -errno.ENOENT

    def test_a_step_that_may_fail(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"before")]))
        steps: list[Any] = [FailOk(Create(exclusive=True)), FailOk(Exec("rbd", "get_size", bytes(8))), Write(0, b"after!")]
        assert do(io.write(oid, steps)).rv == 0
        assert do(io.read(oid, [Read(0, 99)])).outs == (b"after!",)
        # The flag is of that step alone.
        assert do(io.write(oid, [FailOk(Create()), Create(), Write(0, b"never!")])).rv == -errno.EEXIST
        assert do(io.read(oid, [Read(0, 99)])).outs == (b"after!",)

    def test_omap_is_seen_as_it_was_before(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [OmapSet({b"key": b"old"})]))
        assert do(io.write(oid, [OmapSet({b"key": b"new"}), OmapCmp(b"key", b"new")])).rv == -errno.ECANCELED
        assert do(io.write(oid, [OmapSet({b"key": b"new"}), OmapCmp(b"key", b"old")])).rv == 0
        assert do(io.read(oid, [OmapGet()])).outs[0].values == {b"key": b"new"}

    def test_data_is_seen_as_it_was_before(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"the old one")]))
        # Never a write of the whole object before a step that reads its data: an OSD of release 16 then holds the old
        # data against the new checksum, takes the object for damaged, and does not answer any more.
        assert do(io.write(oid, [Write(4, b"new"), CmpExt(4, b"new")])).rv == -4095
        assert do(io.write(oid, [Write(4, b"new"), CmpExt(0, b"the old")])).rv == 0
        assert do(io.read(oid, [Read(0, 99)])).outs == (b"the new one",)

    def test_existence_and_size_are_seen_as_they_are(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [AssertExists(), Write(0, b"x")])).rv == -errno.ENOENT
        assert do(io.write(oid, [Create(), AssertExists(), Write(0, b"abc"), Append(b"def")])).rv == 0
        assert do(io.write(oid, [Truncate(2), Append(b"XY")])).rv == 0
        assert do(io.read(oid, [Read(0, 99)])).outs == (b"abXY",)
        assert do(io.write(oid, [Remove(), AssertExists()])).rv == -errno.ENOENT
        assert do(io.write(oid, [Remove(), Create(exclusive=True), Append(b"new")])).rv == 0
        assert do(io.read(oid, [Read(0, 99)])).outs == (b"new",)

    def test_what_is_made_anew_has_nothing_of_the_old(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"old"), SetXattr("name", b"old"), OmapSet({b"key": b"old"})]))
        assert do(io.write(oid, [Remove(), Create(exclusive=True), OmapSet({b"new": b""})])).rv == 0
        assert do(io.read(oid, [Read(0, 99), OmapGet()])).outs == (b"", OmapPage({b"new": b""}, False))
        assert do(io.read(oid, [GetXattr("name")])).rv == -errno.ENODATA

    def test_reading_has_an_output_for_every_step(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"abcdef"), SetXattr("name", b"value"), OmapSet({b"key": b"value"})]))
        steps: list[Any] = [Read(4, 9), AssertExists(), Stat(), GetXattr("name"), CmpExt(1, b"bc"), OmapGet(), Read(0, 2)]
        reply = do(io.read(oid, steps))
        assert reply.rv == 0
        data, nothing, stat, xattr, compared, omap, more = reply.outs
        assert (data, nothing, xattr, compared, more) == (b"ef", None, b"value", None, b"ab")
        assert stat.size == 6
        assert omap == OmapPage({b"key": b"value"}, False)

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_reading_fails_as_a_whole(self, io: Io, do: Do, oid: str, place: int) -> None:
        do(io.write(oid, [WriteFull(b"abc")]))
        do(io.write(oid, [Append(b"def")]))
        steps: list[Any] = [Read(0, 3), Stat()]
        failures: list[tuple[Any, int]] = [
            (GetXattr("none"), errno.ENODATA),
            (CmpExt(2, b"cx"), 4096),
            (Exec("rbd", "get_size", bytes(8)), errno.ENOENT),
            (AssertVersion(1), errno.ERANGE),
        ]
        for failing, code in failures:
            reply = do(io.read(oid, [*steps[:place], failing, *steps[place:]]))
            assert (reply.rv, reply.outs) == (-code, ())

    def test_the_first_step_that_fails_says_why(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"abc"), SetXattr("name", b"value")]))
        failures: list[tuple[Any, int]] = [
            (GetXattr("none"), errno.ENODATA),
            (AssertVersion(1 << 40), errno.EOVERFLOW),
            (CmpExt(0, b"x"), 4095),
            (Exec("rbd", "get_size", bytes(8)), errno.ENOENT),
        ]
        for first, code in failures:
            for second, _ in failures:
                assert do(io.read(oid, [GetXattr("name"), first, second])).rv == -code
                assert do(io.read(oid, [first, Stat(), second, GetXattr("name")])).rv == -code

    def test_versions_can_be_insisted_on(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"a")]))
        version = do(io.write(oid, [Append(b"b")])).version
        assert do(io.read(oid, [AssertVersion(version), Read(0, 9)])).outs == (None, b"ab")
        assert do(io.write(oid, [AssertVersion(version - 1), Append(b"c")])).rv == -errno.ERANGE
        assert do(io.write(oid, [AssertVersion(version + 1), Append(b"c")])).rv == -errno.EOVERFLOW
        assert do(io.write(oid, [AssertVersion(0), Append(b"c")])).rv == -errno.EINVAL
        assert do(io.read(oid, [AssertVersion(version + 1), Read(0, 9)])).rv == -errno.EOVERFLOW
        assert do(io.write(oid, [AssertVersion(version), Append(b"c")])).rv == 0
        assert do(io.write(oid, [AssertVersion(version), Append(b"d")])).rv == -errno.ERANGE
        assert do(io.read(oid, [Read(0, 9)])).outs == (b"abc",)

    def test_conditions_alone(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [AssertExists()])).rv == -errno.ENOENT
        assert do(io.read(oid, [AssertExists()])).rv == -errno.ENOENT
        version = do(io.write(oid, [Create()])).version
        assert do(io.write(oid, [AssertExists()])).rv == 0
        assert do(io.read(oid, [AssertExists()])).outs == (None,)
        assert do(io.read(oid, [Stat()])).version == version

    def test_a_step_of_the_other_kind_is_misuse(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Create()]))
        with pytest.raises(TypeError):
            do(io.write(oid, [Read(0, 1)]))  # type: ignore[list-item]
        with pytest.raises(TypeError):
            do(io.read(oid, [RmXattr("name")]))  # type: ignore[list-item]


class ComparisonContract(Contract):
    """CmpExt: what it compares, and how it says where the difference is."""

    @pytest.fixture
    def stored(self, io: Io, oid: str) -> str:
        blocking(io.write(oid, [WriteFull(b"abcdef")]))
        return oid

    @pytest.mark.parametrize(
        ("offset", "data", "rv"),
        [
            (0, b"abcdef", 0),
            (2, b"cde", 0),
            (0, b"Abcdef", -4095),
            (0, b"abcdeF", -4100),
            (3, b"dXX", -4096),
            (4, b"ef\0\0", 0),
            (4, b"ef\0x", -4098),
            (100, b"\0\0", 0),
            (100, b"\0x", -4096),
            (0, b"abcdef" + bytes(5000), 0),
            (0, b"abcdef" + bytes(5000) + b"x", -4095 - 5006),
        ],
    )
    def test_where_it_differs(self, io: Io, do: Do, stored: str, offset: int, data: bytes, rv: int) -> None:
        assert do(io.read(stored, [CmpExt(offset, data)])).rv == rv
        assert do(io.read(stored, [Stat(), CmpExt(offset, bytearray(data))])).rv == rv
        assert do(io.write(stored, [CmpExt(offset, data)])).rv == rv
        assert do(io.write(stored, [CmpExt(offset, memoryview(data)), Append(b"!")])).rv == rv
        assert do(io.read(stored, [Read(0, 99)])).outs == (b"abcdef" + (b"!" if rv == 0 else b""),)

    def test_of_a_missing_object(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.read(oid, [CmpExt(0, b"\0\0")])).rv == -errno.ENOENT
        assert do(io.write(oid, [CmpExt(0, b"\0\0")])).rv == -errno.ENOENT
        assert do(io.write(oid, [CmpExt(0, b"\0x"), Write(0, b"no")])).rv == -4096
        assert do(io.read(oid, [Stat()])).rv == -errno.ENOENT
        assert do(io.write(oid, [CmpExt(0, b"\0\0"), Write(0, b"new")])).rv == 0
        assert do(io.read(oid, [Read(0, 9)])).outs == (b"new",)
