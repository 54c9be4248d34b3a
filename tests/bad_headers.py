"""Headers of format 2 images that say what cannot be: how to make them, on any cluster and with either library."""

import dataclasses
from collections.abc import Callable
from typing import Any

from rbd_native.encoding import decode, encode, i64, text, u8, u64
from rbd_native.types import StoredParent, StoredSnapshot
from tests.stored import stored

MIB = 1 << 20
U64 = 2**64 - 1


class Header:
    """The omap of one image's header."""

    def __init__(self, rados_module: Any, ioctx: Any, identifier: str) -> None:
        self.id = identifier
        self._module = rados_module
        self._ioctx = ioctx
        self._oid = f"rbd_header.{identifier}"

    def put(self, key: str, value: bytes) -> None:
        with self._module.WriteOpCtx() as operation:
            self._ioctx.set_omap(operation, (key,), (value,))
            self._ioctx.operate_write_op(operation, self._oid)

    def take(self, key: str) -> None:
        with self._module.WriteOpCtx() as operation:
            self._ioctx.remove_omap_keys(operation, (key,))
            self._ioctx.operate_write_op(operation, self._oid)

    def omap(self) -> dict[str, bytes]:
        return stored(self._module, self._ioctx, self._oid).omap

    def parent(self, **changes: Any) -> None:
        record: StoredParent = decode(StoredParent, self.omap()["parent"])
        self.put("parent", encode(dataclasses.replace(record, **changes), StoredParent))

    def snapshots(self, **changes: Any) -> None:
        """The same change in each."""
        for key, value in self.omap().items():
            if key.startswith("snapshot_"):
                record: StoredSnapshot = decode(StoredSnapshot, value)
                self.put(key, encode(dataclasses.replace(record, **changes), StoredSnapshot))


Spoil = Callable[[Header], None]


def number(key: str, value: int, width: Any = u64) -> Spoil:
    return lambda header: header.put(key, encode(value, width))


def both(*spoils: Spoil) -> Spoil:
    def do(header: Header) -> None:
        for spoil in spoils:
            spoil(header)

    return do


def name(key: str, value: str) -> Spoil:
    return lambda header: header.put(key, encode(value, text))


def overlap(value: int) -> Spoil:
    return lambda header: header.parent(head_overlap=value)


def plain(size: int, features: int = 1, **more: int) -> Spoil:
    """Of that size, without a map."""
    return both(number("size", size), number("features", features), *(number(key, value) for key, value in more.items()))


REFUSED: dict[str, tuple[int, Spoil]] = {
    **{f"order {order}": (22, number("order", order, u8)) for order in (0, 3, 11, 26, 63, 64, 255)},
    **{f"stripe unit {unit}": (22, striped) for unit in (3, 2**17, 2**63, U64)
       for striped in [both(number("features", 63), number("stripe_unit", unit), number("stripe_count", 4))]},
    **{f"stripe count {count}": (22, striped) for count in (2**32, 2**63, U64)
       for striped in [both(number("features", 63), number("stripe_unit", 4096), number("stripe_count", count))]},
    "snap_seq below the ids": (74, number("snap_seq", 0)),
    "snap_seq of the head": (74, number("snap_seq", U64 - 1)),
    "greatest snap_seq": (74, number("snap_seq", U64)),
    "parent of itself": (40, lambda header: header.parent(image_id=header.id)),
    "parent in no pool": (2, lambda header: header.parent(pool_id=999)),
    "parent that is not": (2, lambda header: header.parent(image_id="nonesuch")),
    "parent at no snapshot": (2, lambda header: header.parent(snap_id=999)),
    "data pool that is not": (2, number("data_pool_id", 999, i64)),
    "NUL in the prefix": (22, name("object_prefix", "a\0b")),
    "prefix that ends too soon": (5, lambda header: header.put("object_prefix", b"\xff\xff\xff\x7fab")),
    "features that are all": (38, number("features", U64)),
}  # fmt: skip
"""What cannot be opened, and the errno."""

BORNE: dict[str, Spoil] = {
    "size 0": number("size", 0),
    "greatest size": number("size", U64),
    "size 2**63": number("size", 2**63),
    "size 2**44": number("size", 2**44),
    "greatest size, no map": plain(U64),
    "size 2**63, lock": plain(2**63, 5),
    "greatest size, striped": plain(U64, 3, stripe_unit=4096, stripe_count=5),
    "size 2**60, wide stripes": plain(2**60, 3, stripe_unit=4096, stripe_count=2**32 - 1),
    "size 2**44, map invalid": both(number("size", 2**44), number("flags", 3)),
    "size of snapshots": lambda header: header.snapshots(image_size=U64),
    "size of all": both(number("size", U64), lambda header: header.snapshots(image_size=U64)),
    "no stripe unit": both(number("features", 63), number("stripe_unit", 0), number("stripe_count", 4)),
    "no stripe count": both(number("features", 63), number("stripe_unit", 4096), number("stripe_count", 0)),
    "small stripe unit": both(number("features", 3), number("stripe_unit", 512), number("stripe_count", 4)),
    "unknown feature": number("features", 61 | 1 << 40),
    "unknown flags": number("flags", U64),
    "unknown operations": number("op_features", 1 << 30),
    "snap_seq far ahead": number("snap_seq", 10**12),
    "overlap": overlap(U64),
    "overlap and size": both(plain(U64), overlap(U64)),
    "empty prefix": name("object_prefix", ""),
    "long prefix": name("object_prefix", "x" * 100_000),
    "ids of snapshots": lambda header: header.snapshots(id=77777),
}
"""What can be opened."""


def lacking(key: str) -> Spoil:
    return lambda header: header.take(key)


def garbled(key: str) -> Spoil:
    return lambda header: header.put(key, b"\1")


_NEEDED = ("size", "order", "features", "object_prefix", "snap_seq")
BROKEN: dict[str, Spoil] = {
    **{f"no {key}": lacking(key) for key in _NEEDED},
    **{f"garbled {key}": garbled(key) for key in (*_NEEDED, "parent", "flags", "create_timestamp")},
}
"""What is not whole."""
