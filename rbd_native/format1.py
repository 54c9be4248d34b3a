"""What an image of format 1 stores beside its data: the header, and its line in the table of the directory.

The header is the data of the object `<name>.rbd`, little endian:

    0 text (40)   40 prefix of the data objects (24)   64 "RBD\\0"   68 version (8)   76 order, 3 bytes   80 size (u64)
    88 newest snapshot id (u64)   96 number of snapshots (u32)   100 reserved (u32)   104 length of their names (u64)
    112 snapshots, newest first, each id and image size (u64, u64), then their names, each ended by NUL

The directory is the data of `rbd_directory`, whose omap is that of format 2: a blob without a use, a count, and for each
image its name and an empty value, ascending by name.

What is malformed is a DecodeError. Nothing here does I/O: clients and the embedded OSD share it.

Source: Ceph's public header rbd_types.h, checked against images of librbd 16.2.15.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from rbd_native.encoding import DecodeError, Reader, blob, codec_of, encode, text

TEXT: Final = b"<<< Rados Block Device Image >>>\n\0"
MIGRATING: Final = b"<<< Migrating RBD Image      >>>\n\0"
SIZE_AT: Final = 80
HEAD_SIZE: Final = 112

_TEXT_SIZE: Final = 40
_PREFIX_SIZE: Final = 24
_REST: Final = b"RBD\0" + b"001.005\0"
_TABLE: Final = struct.Struct("<QIIQ")
_TABLE_AT: Final = 88
_ORDER_AT: Final = 76
_U64: Final = struct.Struct("<Q")
_SNAP: Final = struct.Struct("<QQ")


class Snap(NamedTuple):
    """One snapshot: the size is that of the image at it, in bytes."""

    id: int
    size: int
    name: bytes


class Header(NamedTuple):
    """`fixed`: the bytes before the table. `seq`: the newest id that ever was. `snaps`: newest first."""

    fixed: bytes
    reserved: int
    seq: int
    snaps: tuple[Snap, ...]

    @property
    def text(self) -> bytes:
        """TEXT, or MIGRATING where the image is the source of a migration."""
        return self.fixed[: len(TEXT)]

    @property
    def prefix(self) -> str:
        """What the names of the data objects start with."""
        raw = self.fixed[_TEXT_SIZE : _TEXT_SIZE + _PREFIX_SIZE].partition(b"\0")[0]
        return raw.decode("utf-8", "surrogateescape")

    @property
    def order(self) -> int:
        """Data objects have 2**order bytes."""
        return self.fixed[_ORDER_AT]

    @property
    def size(self) -> int:
        """Of the image, in bytes."""
        size: int = _U64.unpack_from(self.fixed, SIZE_AT)[0]
        return size


def parse_header(data: bytes) -> Header:
    """The header in an object's data; what is behind the names does not matter."""
    if len(data) < HEAD_SIZE:
        raise DecodeError(f"a header has {HEAD_SIZE} bytes at least, here are {len(data)}")
    seq, count, reserved, names_length = _TABLE.unpack_from(data, _TABLE_AT)
    names_at = HEAD_SIZE + count * _SNAP.size
    if names_at + names_length > len(data):
        raise DecodeError(f"{count} snapshots with {names_length} bytes of names announced, {len(data)} bytes there")
    names = data[names_at : names_at + names_length].split(b"\0")[:-1]
    if len(names) != count:
        raise DecodeError(f"{count} snapshots announced, {len(names)} names there")
    ids = _SNAP.iter_unpack(data[HEAD_SIZE:names_at])
    snaps = tuple(Snap(snap, size, name) for (snap, size), name in zip(ids, names, strict=True))
    return Header(data[:_TABLE_AT], reserved, seq, snaps)


def encode_header(header: Header) -> bytes:
    names = b"".join(snap.name + b"\0" for snap in header.snaps)
    table = _TABLE.pack(header.seq, len(header.snaps), header.reserved, len(names))
    return header.fixed + table + b"".join(_SNAP.pack(snap.id, snap.size) for snap in header.snaps) + names


def new_header(prefix: str, order: int, size: int) -> bytes:
    """The header of a new image. `prefix`: ASCII, 23 characters at most."""
    name = prefix.encode("ascii").ljust(_PREFIX_SIZE, b"\0")
    fixed = TEXT.ljust(_TEXT_SIZE, b"\0") + name + _REST + bytes((order, 0, 0, 0)) + size_field(size)
    return encode_header(Header(fixed, 0, 0, ()))


def size_field(size: int) -> bytes:
    """What stands at SIZE_AT."""
    return _U64.pack(size)


# --- the directory ---------------------------------------------------------------------------------------------------


_DIRECTORY: Final = tuple[blob, dict[text, blob]]


def parse_directory(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """What is in front of the table, and the table: names, and values without a use. Empty where there is no data."""
    if not data:
        return b"", {}
    head, names = codec_of(_DIRECTORY).read(Reader(data))
    return head, names


def encode_directory(head: bytes, names: dict[str, bytes]) -> bytes:
    return encode((head, names), _DIRECTORY)
