"""The formats of exported images: differences, and images with their snapshots.  No I/O: bytes are taken from, or made for,
whoever has a stream.

All numbers are little-endian. A **difference** leads from one version of an image to a later one:

    "rbd diff v1\\n" or "rbd diff v2\\n"
    any of, in any order, each once:
        'f'  u32 length · name         the snapshot it starts from; without it, from nothing at all
        't'  u32 length · name         the snapshot it ends at; without it, at what the image was then
        's'  u64                       the size of the image at the end
        'p'  u8                        whether that snapshot is protected (version 2 only)
    then any number of, ascending where we write them:
        'w'  u64 offset · u64 length · data
        'z'  u64 offset · u64 length   zeros from here on
    'e'

In version 2 each tag but 'e' is followed by a u64: the length of what belongs to it, so that readers skip what they do not
know. (For 'p', releases up to 16 write 8 there, and one byte all the same.)

An **image** with its snapshots ("export format 2") is

    "rbd image v2\\n"
    any of, each as tag · u64 length · content:
        'O'  u64                       order              'T'  u64    features
        'U'  u64                       stripe unit        'C'  u64    stripe count
        'M'  u32 length · key · u32 length · value        one pair of metadata
    'E'
    "rbd image diffs v2\\n" · u64 number of differences
    differences of version 2: from nothing to the first snapshot, to the next one, ..., to the image itself

Export format 1 is the image's bytes and nothing else.

What is read comes from anywhere: a record that is too long, twice there, or in the wrong place is refused before anything
is done about it, and nothing is ever held in memory because a stream says so.

Source: Ceph's documentation (rbd-diff, rbd-export), and the streams of the `rbd` tool 16.2.15.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rbd_native.errors import InvalidArgument

DIFF_BANNERS: Final = {1: b"rbd diff v1\n", 2: b"rbd diff v2\n"}
IMAGE_BANNER: Final = b"rbd image v2\n"
DIFFS_BANNER: Final = b"rbd image diffs v2\n"

MAX_NAME: Final = 4096
MAX_METADATA: Final = 16 << 20
"""Bytes of all keys and values of one image."""
_SKIPPED: Final = 64 << 10

_U8, _U32, _U64, _EXTENT = (struct.Struct(code) for code in ("<B", "<I", "<Q", "<QQ"))

Take = Callable[[int], bytes]
"""Gives exactly so many bytes, at least 0, or raises StreamError where there are no more."""


class StreamError(InvalidArgument):
    """The stream is not of the format, or ends too early."""

    def __init__(self, message: str, errno: int | None = 22) -> None:
        super().__init__(message, errno)


@dataclass(frozen=True, slots=True)
class DiffHeader:
    """What a difference says before its data."""

    from_snap: str | None = None
    to_snap: str | None = None
    size: int | None = None
    protected: bool | None = None


class Extent(NamedTuple):
    """A record of data (`length` bytes follow), or of zeros."""

    offset: int
    length: int
    data: bool

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an exported image says of itself. Metadata in the order of the stream."""

    order: int | None = None
    features: int | None = None
    stripe_unit: int | None = None
    stripe_count: int | None = None
    metadata: dict[bytes, bytes] = field(default_factory=dict)


# --- writing ---------------------------------------------------------------------------------------------------------


def _record(tag: bytes, content: bytes, version: int, following: int = 0) -> bytes:
    return tag + (_U64.pack(len(content) + following) if version == 2 else b"") + content


def _text(text: bytes) -> bytes:
    return _U32.pack(len(text)) + text


def encode_diff_header(header: DiffHeader, version: int) -> bytes:
    out = [DIFF_BANNERS[version]]
    for tag, name in ((b"f", header.from_snap), (b"t", header.to_snap)):
        if name is not None:
            out.append(_record(tag, _text(name.encode("utf-8", "surrogateescape")), version))
    if header.protected is not None and version == 2:
        out.append(_record(b"p", _U8.pack(header.protected), version))
    if header.size is not None:
        out.append(_record(b"s", _U64.pack(header.size), version))
    return b"".join(out)


def encode_extent(extent: Extent, version: int) -> bytes:
    """The data, if it has any, comes after it."""
    tag, following = (b"w", extent.length) if extent.data else (b"z", 0)
    return _record(tag, _EXTENT.pack(extent.offset, extent.length), version, following)


def encode_diff_end() -> bytes:
    return b"e"


def encode_image_header(header: ImageHeader, diffs: int) -> bytes:
    """`diffs`: how many differences follow."""
    numbers = (
        (b"O", header.order), (b"T", header.features), (b"U", header.stripe_unit), (b"C", header.stripe_count)
    )  # fmt: skip
    out = [IMAGE_BANNER]
    out += [_record(tag, _U64.pack(value), 2) for tag, value in numbers if value is not None]
    out += [_record(b"M", _text(key) + _text(value), 2) for key, value in header.metadata.items()]
    return b"".join([*out, b"E", DIFFS_BANNER, _U64.pack(diffs)])


# --- reading ---------------------------------------------------------------------------------------------------------


def _expect(take: Take, banner: bytes) -> None:
    found = take(len(banner))
    if found != banner:
        raise StreamError(f"the stream begins with {found!r}, not {banner!r}")


def _u64(take: Take) -> int:
    value: int = _U64.unpack(take(8))[0]
    return value


def _name(take: Take, length: int | None) -> str:
    size: int = _U32.unpack(take(4))[0]
    if size > MAX_NAME or (length is not None and length != 4 + size):
        raise StreamError(f"the name of a snapshot has {size} bytes")
    raw = take(size)
    if b"\0" in raw:
        raise StreamError("the name of a snapshot has a zero byte")
    return raw.decode("utf-8", "surrogateescape")


def _size(take: Take, length: int | None) -> int:
    _check_length("size", length, 8)
    return _u64(take)


def _protected(take: Take, length: int | None) -> bool:
    _check_length("protection status", length, 1, 8)
    return take(1) != b"\0"


def _check_length(what: str, length: int | None, *allowed: int) -> None:
    if length is not None and length not in allowed:
        raise StreamError(f"the {what} has {length} bytes")


_HEADER_RECORDS: Final[dict[bytes, tuple[str, Callable[[Take, int | None], object]]]] = {
    b"f": ("from_snap", _name),
    b"t": ("to_snap", _name),
    b"s": ("size", _size),
    b"p": ("protected", _protected),
}
_EXTENTS: Final = {b"w": True, b"z": False}


class DiffReader:
    """Reads one difference: its header at once, then its extents. Whoever gets one with data takes its bytes from the
    stream before asking for the next.

    version: 1, 2 or None for whichever it is. StreamError.
    """

    def __init__(self, take: Take, version: int | None = None) -> None:
        self._take = take
        self.version = self._banner(version)
        self._tag = b""
        found: dict[str, object] = {}
        while (tag := self._next_tag()) not in _EXTENTS and tag != b"e":
            if tag in _HEADER_RECORDS and (tag != b"p" or self.version == 2):
                name, read = _HEADER_RECORDS[tag]
                if name in found:
                    raise StreamError(f"two records {tag!r}")
                found[name] = read(take, self._length)
            else:
                self._skip(tag)
        self._tag = tag
        self.header = DiffHeader(**found)  # type: ignore[arg-type]

    def _banner(self, version: int | None) -> int:
        if version is not None:
            _expect(self._take, DIFF_BANNERS[version])
            return version
        found = self._take(len(DIFF_BANNERS[1]))
        for number, banner in DIFF_BANNERS.items():
            if found == banner:
                return number
        raise StreamError(f"the stream begins with {found!r}: it is no difference")

    def _next_tag(self) -> bytes:
        tag, self._tag = self._tag or self._take(1), b""
        if tag != b"e":
            self._length = _u64(self._take) if self.version == 2 else None
        return tag

    def _skip(self, tag: bytes) -> None:
        if self._length is None:
            raise StreamError(f"a record {tag!r}")
        _discard(self._take, self._length)

    def __iter__(self) -> Iterator[Extent]:
        """The extents up to the end of the difference; empty ones, which say nothing, are left out."""
        tag, self._tag = self._tag, b""
        while tag != b"e":
            if tag in _EXTENTS:
                extent = self._extent(_EXTENTS[tag])
                if extent.length:
                    yield extent
            elif tag in _HEADER_RECORDS:
                raise StreamError(f"a record {tag!r} among the data")
            else:
                self._skip(tag)
            tag = self._next_tag()

    def _extent(self, data: bool) -> Extent:
        offset, length = _EXTENT.unpack(self._take(_EXTENT.size))
        extent = Extent(offset, length, data)
        _check_length("extent", self._length, _EXTENT.size + (extent.length if data else 0))
        limit = 1 << 63 if self.header.size is None else self.header.size
        if extent.end > limit:
            raise StreamError(f"{extent.offset}~{extent.length} is beyond the size {self.header.size}")
        return extent


_IMAGE_NUMBERS: Final = {b"O": "order", b"T": "features", b"U": "stripe_unit", b"C": "stripe_count"}


def read_image_header(take: Take) -> tuple[ImageHeader, int]:
    """The header of an exported image, and how many differences follow."""
    _expect(take, IMAGE_BANNER)
    numbers: dict[str, int] = {}
    metadata: dict[bytes, bytes] = {}
    room = MAX_METADATA
    while (tag := take(1)) != b"E":
        length = _u64(take)
        if tag in _IMAGE_NUMBERS:
            name = _IMAGE_NUMBERS[tag]
            if name in numbers:
                raise StreamError(f"two records {tag!r}")
            numbers[name] = _size(take, length)
        elif tag == b"M":
            room -= length
            if room < 0:
                raise StreamError(f"more than {MAX_METADATA} bytes of metadata")
            key, value = _pair(take(length))
            metadata[key] = value
        else:
            _discard(take, length)
    _expect(take, DIFFS_BANNER)
    return ImageHeader(**numbers, metadata=metadata), _u64(take)


def _pair(content: bytes) -> tuple[bytes, bytes]:
    parts: list[bytes] = []
    at = 0
    for _ in range(2):
        size = int.from_bytes(content[at : at + 4], "little")
        parts.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(content):
        raise StreamError("a pair of metadata is not as long as it says")
    return parts[0], parts[1]


def _discard(take: Take, length: int) -> None:
    while length:
        length -= len(take(min(length, _SKIPPED)))
