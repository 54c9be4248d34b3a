"""Key-value pairs of objects: omap, and xattrs."""

from __future__ import annotations

import errno

import pytest

from rbd_native.rados.port import (
    Capability,
    GetXattr,
    Io,
    OmapClear,
    OmapCmp,
    OmapGet,
    OmapGetByKeys,
    OmapPage,
    OmapRemove,
    OmapRemoveRange,
    OmapSet,
    Read,
    RmXattr,
    SetXattr,
    Stat,
    Truncate,
    Write,
)
from rbd_native.testing.contract.base import Contract, Do, able


class OmapContract(Contract):
    def omap(self, do: Do, io: Io, oid: str) -> dict[bytes, bytes]:
        page: OmapPage = do(io.read(oid, [OmapGet()])).outs[0]
        assert not page.more
        return page.values

    def test_set_and_get(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [OmapSet({b"b": b"2", b"a": b"1", b"empty": b""})])).rv == 0
        assert do(io.write(oid, [OmapSet({b"b": b"two", b"c": bytes(range(256))})])).rv == 0
        found = self.omap(do, io, oid)
        assert found == {b"a": b"1", b"b": b"two", b"c": bytes(range(256)), b"empty": b""}
        assert list(found) == sorted(found)
        assert do(io.read(oid, [Stat()])).outs[0].size == 0

    def test_set_nothing(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [OmapSet({})])).rv == 0
        assert self.omap(do, io, oid) == {}

    def test_get_by_keys(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [OmapSet({b"a": b"1", b"b": b"2", b"c": b""})]))
        assert do(io.read(oid, [OmapGetByKeys((b"c", b"none", b"a"))])).outs == ({b"a": b"1", b"c": b""},)
        assert do(io.read(oid, [OmapGetByKeys((b"none",))])).outs == ({},)
        assert do(io.read(oid, [OmapGetByKeys(())])).outs == ({},)

    def test_of_a_missing_object(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.read(oid, [OmapGet()])).rv == -errno.ENOENT
        assert do(io.read(oid, [OmapGetByKeys((b"a",))])).rv == -errno.ENOENT
        assert do(io.write(oid, [OmapRemove((b"a",))])).rv == -errno.ENOENT
        assert do(io.write(oid, [OmapRemoveRange(b"a", b"b")])).rv == -errno.ENOENT
        assert do(io.write(oid, [OmapClear()])).rv == -errno.ENOENT
        assert do(io.write(oid, [OmapCmp(b"a", b"")])).rv == -errno.ENOENT

    def test_pages(self, io: Io, do: Do, oid: str) -> None:
        keys = [b"key%05d" % number for number in range(2500)]
        assert do(io.write(oid, [OmapSet({key: key[3:] for key in keys})])).rv == 0
        seen: list[bytes] = []
        sizes, more = [], True
        while more:
            page = do(io.read(oid, [OmapGet(after=seen[-1] if seen else b"", limit=5000)])).outs[0]
            seen += page.values
            sizes.append(len(page.values))
            more = page.more
        assert seen == keys
        assert sizes == [1024, 1024, 452]

    @pytest.mark.parametrize(
        ("after", "limit", "prefix", "keys", "more"),
        [
            (b"", 3, b"", [b"a1", b"a2", b"b1"], True),
            (b"a2", 3, b"", [b"b1", b"b2", b"c"], False),
            (b"a15", 1, b"", [b"a2"], True),
            (b"c", 3, b"", [], False),
            (b"zzz", 3, b"", [], False),
            (b"", 9, b"b", [b"b1", b"b2"], False),
            (b"", 2, b"b", [b"b1", b"b2"], False),
            (b"", 1, b"b", [b"b1"], True),
            (b"b1", 9, b"b", [b"b2"], False),
            (b"a1", 9, b"b", [b"b1", b"b2"], False),
            (b"c", 9, b"b", [], False),
            (b"", 9, b"x", [], False),
        ],
    )
    def test_listing(
        self, io: Io, do: Do, oid: str, after: bytes, limit: int, prefix: bytes, keys: list[bytes], more: bool
    ) -> None:
        do(io.write(oid, [OmapSet(dict.fromkeys((b"a1", b"a2", b"b1", b"b2", b"c"), b"v"))]))
        page = do(io.read(oid, [OmapGet(after, limit, prefix)])).outs[0]
        assert (list(page.values), page.more) == (keys, more)

    def test_keys_that_are_not_text(self, io: Io, do: Do, oid: str) -> None:
        values = {b"\xff\xfe": b"high", b"\x01": b"low", b"a\0b": b"nul", "ü".encode(): b"text"}
        reply = do(io.write(oid, [OmapSet(values)]))
        if not able(io, Capability.BINARY_NOTIFY):  # an adapter for text only
            assert reply.rv == -errno.EOPNOTSUPP
            return
        assert list(self.omap(do, io, oid)) == [b"\x01", b"a\0b", "ü".encode(), b"\xff\xfe"]
        assert do(io.read(oid, [OmapGetByKeys((b"\xff\xfe", b"a\0b", b"a"))])).outs == (
            {b"a\0b": b"nul", b"\xff\xfe": b"high"},
        )
        assert do(io.write(oid, [OmapCmp(b"a\0b", b"nul"), OmapRemove((b"\xff\xfe",)), OmapRemove((b"a\0b",))])).rv == 0
        assert set(self.omap(do, io, oid)) == {b"\x01", "ü".encode()}

    def test_remove(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [OmapSet({b"a": b"1", b"b": b"2", b"c": b"3"})]))
        assert do(io.write(oid, [OmapRemove((b"a", b"none", b"c"))])).rv == 0
        assert self.omap(do, io, oid) == {b"b": b"2"}

    def test_remove_range(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [OmapSet(dict.fromkeys((b"a", b"b", b"b1", b"c", b"d"), b""))]))
        assert do(io.write(oid, [OmapRemoveRange(b"b", b"c")])).rv == 0
        assert list(self.omap(do, io, oid)) == [b"a", b"c", b"d"]
        # Back to front it is empty; some OSDs would end on that, so it must not reach them.
        assert do(io.write(oid, [OmapRemoveRange(b"d", b"a"), OmapRemoveRange(b"c", b"c")])).rv == 0
        assert list(self.omap(do, io, oid)) == [b"a", b"c", b"d"]

    def test_clear(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(0, b"data"), OmapSet({b"a": b"1"}), SetXattr("name", b"value")]))
        assert do(io.write(oid, [OmapClear()])).rv == 0
        assert self.omap(do, io, oid) == {}
        assert do(io.read(oid, [Read(0, 9), GetXattr("name")])).outs == (b"data", b"value")
        assert do(io.write(oid, [OmapClear(), OmapSet({b"b": b"2"})])).rv == 0
        assert self.omap(do, io, oid) == {b"b": b"2"}

    def test_compare(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [OmapSet({b"a": b"1", b"empty": b""})]))
        assert do(io.write(oid, [OmapCmp(b"a", b"1"), OmapSet({b"a": b"2"})])).rv == 0
        assert do(io.write(oid, [OmapCmp(b"a", b"1"), OmapSet({b"a": b"3"})])).rv == -errno.ECANCELED
        assert do(io.write(oid, [OmapCmp(b"a", b"22")])).rv == -errno.ECANCELED
        assert do(io.write(oid, [OmapCmp(b"none", b"1")])).rv == -errno.ECANCELED
        # What is not there compares as if it were empty.
        assert do(io.write(oid, [OmapCmp(b"none", b""), OmapCmp(b"empty", b"")])).rv == 0
        assert self.omap(do, io, oid) == {b"a": b"2", b"empty": b""}

    def test_a_large_value(self, io: Io, do: Do, oid: str) -> None:
        value = bytes(range(256)) * 1024
        assert do(io.write(oid, [OmapSet({b"a": value})])).rv == 0
        assert self.omap(do, io, oid) == {b"a": value}

    def test_data_and_omap_are_apart(self, io: Io, do: Do, oid: str) -> None:
        do(io.write(oid, [Write(0, b"data"), OmapSet({b"a": b"1"})]))
        do(io.write(oid, [Truncate(0)]))
        assert do(io.read(oid, [Read(0, 9), OmapGet()])).outs == (b"", OmapPage({b"a": b"1"}, False))


class XattrContract(Contract):
    def test_set_and_get(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [SetXattr("name", b"value"), SetXattr("empty", b"")])).rv == 0
        assert do(io.write(oid, [SetXattr("name", bytes(range(256)))])).rv == 0
        assert do(io.read(oid, [GetXattr("name")])).outs == (bytes(range(256)),)
        assert do(io.read(oid, [GetXattr("empty"), GetXattr("name")])).outs == (b"", bytes(range(256)))

    def test_absent(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.read(oid, [GetXattr("name")])).rv == -errno.ENOENT
        do(io.write(oid, [SetXattr("name", b"value")]))
        assert do(io.read(oid, [GetXattr("nam")])).rv == -errno.ENODATA
        assert do(io.read(oid, [GetXattr("name2")])).rv == -errno.ENODATA

    def test_remove(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.write(oid, [RmXattr("name")])).rv == -errno.ENOENT
        do(io.write(oid, [SetXattr("name", b"value"), SetXattr("other", b"")]))
        assert do(io.write(oid, [RmXattr("name")])).rv == 0
        assert do(io.read(oid, [GetXattr("name")])).rv == -errno.ENODATA
        assert do(io.read(oid, [GetXattr("other")])).outs == (b"",)
        assert do(io.write(oid, [RmXattr("name")])).rv == 0

    def test_odd_names(self, io: Io, do: Do, oid: str) -> None:
        for name in ("_", "a b", "ünï", "user.x"):
            assert do(io.write(oid, [SetXattr(name, name.encode())])).rv == 0
            assert do(io.read(oid, [GetXattr(name)])).outs == (name.encode(),)
