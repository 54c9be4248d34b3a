"""Bytes of objects: written, read, cut, zeroed, removed."""

from __future__ import annotations

import array
import errno
import time
from typing import Any

import pytest

from rbd_native.rados.port import (
    AllocHint,
    Append,
    Capability,
    Create,
    Io,
    Read,
    ReadInto,
    Remove,
    Stat,
    Truncate,
    Write,
    WriteFull,
    WriteSame,
    Zero,
)
from rbd_native.testing.contract.base import Contract, Do, able

_NAMES = [
    "with spaces and\ttabs",
    "slashes/and\\backslashes",
    "ümläute/日本語/🐍",
    ".hidden",
    "new\nline",
    "%41%00",
    "-rf *",
    "n" * 1000,
]


class DataContract(Contract):
    def content(self, do: Do, io: Io, oid: str) -> bytes:
        data: bytes = do(io.read(oid, [Read(0, 1 << 20)])).outs[0]
        return data

    def test_write_and_read(self, io: Io, do: Do, oid: str) -> None:
        written = do(io.write(oid, [Write(0, b"hello world")]))
        assert (written.rv, written.outs) == (0, (None,))
        read = do(io.read(oid, [Read(6, 3)]))
        assert (read.rv, read.outs) == (0, (b"wor",))

    def test_read_ends_where_the_object_ends(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(0, b"hello world")]))
        assert do(io.read(oid, [Read(6, 4096)])).outs == (b"world",)
        assert do(io.read(oid, [Read(11, 5)])).outs == (b"",)
        assert do(io.read(oid, [Read(1 << 30, 5)])).outs == (b"",)

    def test_read_of_a_missing_object(self, io: Io, do: Do, oid: str) -> None:
        reply = do(io.read(oid, [Read(0, 10)]))
        assert (reply.rv, reply.outs) == (-errno.ENOENT, ())
        assert do(io.read(oid, [Stat()])).rv == -errno.ENOENT

    def test_read_of_no_length_is_read_to_the_end(self, io: Io, do: Do, oid: str) -> None:
        data = bytes(range(256)) * 1200  # more than fits a first guess
        do(io.write(oid, [WriteFull(data)]))
        assert do(io.read(oid, [Read(0, 0)])).outs == (data,)
        assert do(io.read(oid, [Read(307000, 0)])).outs == (data[307000:],)
        assert do(io.read(oid, [Read(400000, 0)])).outs == (b"",)
        assert do(io.read(oid, [Read(0, 3), Read(1, 0), Stat()])).outs[:2] == (data[:3], data[1:])
        assert do(io.read(oid + ".no", [Read(0, 0)])).rv == -errno.ENOENT

    def test_read_into(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"0123456789")]))
        for length, found in ((3, 3), (8, 8), (20, 8)):
            room = bytearray(b"." * length)
            with memoryview(room) as view:
                reply = do(io.read(oid, [ReadInto(2, view)]))
            assert (reply.rv, reply.outs) == (0, (found,))
            assert bytes(room[:found]) == b"23456789"[:found]
            room.append(1)  # nothing holds on to it
        reply = do(io.read(oid, [ReadInto(99, memoryview(bytearray(5)))]))
        assert (reply.rv, reply.outs) == (0, (0,))
        assert do(io.read(oid + ".no", [ReadInto(0, memoryview(bytearray(5)))])).rv == -errno.ENOENT

    def test_read_into_among_others(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"0123456789")]))
        room = bytearray(20)
        with memoryview(room)[1:4] as one, memoryview(room)[5:] as two:
            reply = do(io.read(oid, [Read(0, 2), ReadInto(4, one), ReadInto(8, two)]))
        assert reply.outs == (b"01", 3, 2)
        assert bytes(room[:7]) == b"\x00456\x0089"
        room.append(1)

    def test_gaps_are_zeros(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(5, b"x")]))
        assert self.content(do, io, oid) == b"\0\0\0\0\0x"

    def test_overwrite(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(0, b"aaaaaaaa")]))
        do(io.write(oid, [Write(2, b"bb")]))
        assert self.content(do, io, oid) == b"aabbaaaa"

    def test_write_full_replaces(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [WriteFull(b"longer than that")]))
        do(io.write(oid, [WriteFull(b"short")]))
        assert self.content(do, io, oid) == b"short"

    def test_append(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Append(b"one")]))
        do(io.write(oid, [Append(b"two")]))
        assert self.content(do, io, oid) == b"onetwo"

    def test_writes_of_nothing(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [Write(0, b"")])).rv == 0
        assert do(io.read(oid, [Stat()])).outs[0].size == 0
        assert do(io.write(oid + ".full", [WriteFull(b"")])).rv == 0
        assert do(io.read(oid + ".full", [Stat()])).outs[0].size == 0

    def test_write_same(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [WriteSame(2, 9, b"abc")])).rv == 0
        assert self.content(do, io, oid) == b"\0\0abcabcabc"
        assert do(io.write(oid, [WriteSame(0, 8, b"abc")])).rv == -errno.EINVAL

    def test_zero(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(0, b"abcdefgh")]))
        reply = do(io.write(oid, [Zero(2, 3)]))
        if not able(io, Capability.ZERO):
            assert reply.rv == -errno.EOPNOTSUPP
            return
        assert reply.rv == 0
        assert self.content(do, io, oid) == b"ab\0\0\0fgh"

    @pytest.mark.parametrize(("offset", "length"), [(6, 2), (6, 100), (0, 8)])
    def test_zero_up_to_the_end_cuts_off(self, io: Io, do: Do, oid: str, offset: int, length: int) -> None:
        if not able(io, Capability.ZERO):
            return
        do(io.write(oid, [Write(0, b"abcdefgh")]))
        assert do(io.write(oid, [Zero(offset, length)])).rv == 0
        assert do(io.read(oid, [Read(0, 99), Stat()])).outs[0] == b"abcdefgh"[:offset]

    def test_zero_beyond_the_end(self, io: Io, do: Do, oid: str) -> None:
        if not able(io, Capability.ZERO):
            return
        do(io.write(oid, [Write(0, b"abc")]))
        assert do(io.write(oid, [Zero(10, 100)])).rv == 0
        assert self.content(do, io, oid) == b"abc"
        assert do(io.write(oid + ".no", [Zero(0, 100)])).rv == 0
        assert do(io.read(oid + ".no", [Stat()])).rv == -errno.ENOENT

    def test_zero_of_nothing_does_nothing(self, io: Io, do: Do, oid: str) -> None:
        """On the wire it would end the OSD."""
        do(io.write(oid, [Write(0, b"abc")]))
        assert do(io.write(oid, [Zero(0, 0)])).rv == 0
        assert do(io.write(oid, [Zero(1, 0), Append(b"d")])).rv == 0
        assert self.content(do, io, oid) == b"abcd"

    def test_truncate(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(0, b"abcdefgh")]))
        assert do(io.write(oid, [Truncate(3)])).rv == 0
        assert self.content(do, io, oid) == b"abc"
        assert do(io.write(oid, [Truncate(5)])).rv == 0
        assert self.content(do, io, oid) == b"abc\0\0"

    def test_truncate_of_a_missing_object(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [Truncate(3)])).rv == 0
        assert do(io.read(oid, [Stat()])).rv == -errno.ENOENT

    def test_remove(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(0, b"abc")]))
        assert do(io.write(oid, [Remove()])).rv == 0
        assert do(io.read(oid, [Stat()])).rv == -errno.ENOENT
        assert do(io.write(oid, [Remove()])).rv == -errno.ENOENT

    def test_create(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [Create(exclusive=False)])).rv == 0
        assert do(io.write(oid, [Create(exclusive=False)])).rv == 0
        assert do(io.write(oid, [Create(exclusive=True)])).rv == -errno.EEXIST
        assert do(io.read(oid, [Stat()])).outs[0].size == 0

    def test_stat(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(10, b"abc")]))
        stat = do(io.read(oid, [Stat()])).outs[0]
        assert stat.size == 13
        assert abs(stat.mtime - time.time()) < 60

    def test_alloc_hint_changes_nothing(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [AllocHint(1 << 22, 1 << 16), Write(0, b"abc")])).rv == 0
        assert self.content(do, io, oid) == b"abc"

    def test_beyond_the_largest_object(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [Write(1 << 40, b"abc")])).rv == -errno.EFBIG

    def test_eight_mebibytes(self, io: Io, do: Do, oid: str) -> None:
        data = bytes(range(251)) * 33420
        assert do(io.write(oid, [Write(3, data)])).rv == 0
        assert do(io.read(oid, [Read(3, len(data))])).outs == (data,)
        assert do(io.read(oid, [Read(0, 2 * len(data)), Stat()])).outs[0] == b"\0\0\0" + data

    @pytest.mark.parametrize(
        "data",
        [
            bytearray(b"0123456789" * 10),
            memoryview(b"0123456789" * 12)[10:110],
            memoryview(bytearray(b"0123456789" * 12))[10:110],
            array.array("i", range(100)),
            memoryview(array.array("d", range(100))).cast("B").cast("d", (10, 10)),
            bytearray(),
        ],
        ids=["bytearray", "slice", "slice-of-bytearray", "integers", "matrix", "empty"],
    )
    def test_buffers_of_any_kind(self, io: Io, do: Do, oid: str, data: Any) -> None:
        plain = bytes(data)
        assert do(io.write(oid, [Write(0, data)])).rv == 0
        assert self.content(do, io, oid) == plain
        assert do(io.write(oid, [WriteFull(data), Append(data)])).rv == 0
        assert self.content(do, io, oid) == plain * 2

    @pytest.mark.parametrize("name", _NAMES)
    def test_names(self, io: Io, do: Do, oid: str, name: str) -> None:
        assert do(io.write(oid + name, [Write(0, b"abc")])).rv == 0
        assert do(io.read(oid + name, [Read(0, 10)])).outs == (b"abc",)
        assert do(io.read(oid + name[:-1], [Read(0, 10)])).rv == -errno.ENOENT

    def test_a_name_too_long(self, io: Io, do: Do) -> None:
        assert do(io.write("n" * 5000, [Write(0, b"abc")])).rv == -errno.ENAMETOOLONG

    def test_nothing_at_all(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, []))[:2] == (0, ())
        assert do(io.read(oid, [])).rv == 0
        assert do(io.read(oid, [Stat()])).rv == -errno.ENOENT

    def test_versions_go_up_and_are_those_of_the_object(self, io: Io, do: Do, oid: str) -> None:
        first = do(io.write(oid, [Write(0, b"a")])).version
        second = do(io.write(oid, [Append(b"b"), Truncate(1)])).version
        assert 0 < first < second
        assert do(io.read(oid, [Read(0, 1)])).version == second
        assert do(io.read(oid, [Stat(), Read(0, 1)])).version == second
