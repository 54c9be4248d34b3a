"""The formats of exported images, the files they are read from and written to, and the merging of differences."""

import gzip
import io
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbd_native import streams
from rbd_native.errors import InvalidArgument
from rbd_native.streams.codec import (
    DIFF_BANNERS,
    DIFFS_BANNER,
    IMAGE_BANNER,
    MAX_METADATA,
    DiffHeader,
    DiffReader,
    Extent,
    ImageHeader,
    StreamError,
    encode_diff_end,
    encode_diff_header,
    encode_extent,
    encode_image_header,
    read_image_header,
)
from rbd_native.streams.files import Sink, Source

names = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
u64 = st.integers(0, 2**64 - 1)


def u64s(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def reader(raw: bytes, version: int | None = None) -> DiffReader:
    return DiffReader(Source(io.BytesIO(raw)).take, version)


# --- formats ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(names, names, u64, st.none() | st.booleans(), st.sampled_from([1, 2]))
def test_headers_come_back(start: str | None, end: str | None, size: int, protected: bool | None, version: int) -> None:
    header = DiffHeader(start, end, size, protected if version == 2 else None)
    found = reader(encode_diff_header(header, version) + encode_diff_end())
    assert (found.header, found.version, list(found)) == (header, version, [])


def test_a_difference_byte_for_byte() -> None:
    header = DiffHeader("a", "bc", 9, True)
    extents = [Extent(1, 2, True), Extent(5, 3, False)]
    one = [encode_extent(extent, 1) for extent in extents]
    two = [encode_extent(extent, 2) for extent in extents]
    assert encode_diff_header(header, 1) == b"rbd diff v1\nf\1\0\0\0at\2\0\0\0bcs" + u64s(9)
    assert one == [b"w" + u64s(1, 2), b"z" + u64s(5, 3)]
    assert encode_diff_header(header, 2) == (
        b"rbd diff v2\nf" + u64s(5) + b"\1\0\0\0at" + u64s(6) + b"\2\0\0\0bcp" + u64s(1) + b"\1s" + u64s(8, 9)
    )
    assert two == [b"w" + u64s(18, 1, 2), b"z" + u64s(16, 5, 3)]


def test_an_image_header_byte_for_byte() -> None:
    header = ImageHeader(22, 61, 1 << 22, 1, {b"k": b"val"})
    raw = encode_image_header(header, 3)
    assert raw == (
        b"rbd image v2\nO" + u64s(8, 22) + b"T" + u64s(8, 61) + b"U" + u64s(8, 1 << 22) + b"C" + u64s(8, 1)
        + b"M" + u64s(12) + b"\1\0\0\0k\3\0\0\0valErbd image diffs v2\n" + u64s(3)
    )  # fmt: skip
    assert read_image_header(Source(io.BytesIO(raw)).take) == (header, 3)


@pytest.mark.parametrize("length", [1, 8])
def test_protection_as_old_releases_write_it(length: int) -> None:
    """16.2.15 says that the byte has a length of 8."""
    assert reader(DIFF_BANNERS[2] + b"p" + u64s(length) + b"\1s" + u64s(8, 4) + b"e").header.protected


def test_what_version_2_does_not_know_is_skipped() -> None:
    unknown = b"X" + u64s(100_000) + bytes(100_000)
    raw = DIFF_BANNERS[2] + unknown + b"s" + u64s(8, 9) + b"z" + u64s(16, 1, 2) + unknown + b"z" + u64s(16, 4, 1) + b"e"
    assert list(reader(raw)) == [Extent(1, 2, False), Extent(4, 1, False)]
    image = IMAGE_BANNER + unknown + b"E" + DIFFS_BANNER + u64s(0)
    assert read_image_header(Source(io.BytesIO(image)).take) == (ImageHeader(), 0)


V1, V2 = DIFF_BANNERS[1], DIFF_BANNERS[2]
HOSTILE = {
    "nothing": b"",
    "no banner": b"rbd diff v3\n" + b"e",
    "cut in the banner": V1[:5],
    "no end": V1,
    "an unknown record": V1 + b"X",
    "a protection status in version 1": V1 + b"p\1",
    "a huge name": V1 + b"f" + b"\xff" * 4,
    "a name longer than allowed": V1 + b"f" + struct.pack("<I", 4097) + b"a" * 4097 + b"e",
    "a name with a zero byte": V1 + b"t\3\0\0\0a\0be",
    "a name of another length than its record": V2 + b"f" + u64s(9) + b"\1\0\0\0ae",
    "a size of another length": V2 + b"s" + u64s(4) + b"\0\0\0\0e",
    "two sizes": V1 + b"s" + u64s(1) + b"s" + u64s(2) + b"e",
    "two ends": V1 + b"t\1\0\0\0at\1\0\0\0be",
    "a size among the data": V1 + b"s" + u64s(9) + b"z" + u64s(1, 1) + b"s" + u64s(9) + b"e",
    "data beyond the size": V1 + b"s" + u64s(9) + b"w" + u64s(5, 5),
    "an end that does not fit": V1 + b"z" + u64s(2**64 - 1, 2**64 - 1) + b"e",
    "data of another length than their record": V2 + b"s" + u64s(8, 9) + b"w" + u64s(17, 0, 2) + b"abe",
    "an unknown record without end": V2 + b"X" + u64s(2**63),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_hostile_differences_are_refused(raw: bytes) -> None:
    with pytest.raises(StreamError) as raised:
        list(reader(raw))
    assert isinstance(raised.value, InvalidArgument)
    assert raised.value.errno == 22


HOSTILE_IMAGES = {
    "a difference": V2,
    "no differences": IMAGE_BANNER + b"E",
    "an order of another length": IMAGE_BANNER + b"O" + u64s(2**40),
    "two orders": IMAGE_BANNER + (b"O" + u64s(8, 22)) * 2,
    "too much metadata": IMAGE_BANNER + b"M" + u64s(MAX_METADATA + 1),
    "a pair longer than its record": IMAGE_BANNER + b"M" + u64s(8) + b"\xff\0\0\0\0\0\0\0" + b"E",
    "a pair shorter than its record": IMAGE_BANNER + b"M" + u64s(9) + bytes(9) + b"E",
}


@pytest.mark.parametrize("raw", HOSTILE_IMAGES.values(), ids=HOSTILE_IMAGES)
def test_hostile_images_are_refused(raw: bytes) -> None:
    with pytest.raises(StreamError):
        read_image_header(Source(io.BytesIO(raw)).take)


@settings(deadline=None)
@given(st.sampled_from([V1, V2, IMAGE_BANNER]), st.binary(max_size=200))
def test_noise_is_refused_or_read_and_nothing_else(banner: bytes, noise: bytes) -> None:
    source = Source(io.BytesIO(banner + noise))
    try:
        if banner == IMAGE_BANNER:
            read_image_header(source.take)
        else:
            for extent in DiffReader(source.take):
                source.take(min(extent.length, 1 << 10) if extent.data else 0)
    except StreamError:
        pass


# --- merging ---------------------------------------------------------------------------------------------------------

LIMIT = 40
sizes = st.integers(0, LIMIT)
cuts = st.lists(st.tuples(st.integers(0, LIMIT), st.integers(1, 9), st.booleans()), max_size=6)


def difference(start: str | None, end: str | None, size: int, extents: Any, value: int, version: int) -> bytes:
    """Ascending extents within the size; those of data are full of `value`."""
    out = encode_diff_header(DiffHeader(start, end, size), version)
    at = 0
    for offset, length, data in sorted(extents):
        offset = max(offset, at)
        extent = Extent(offset, min(length, size - offset), data)
        if extent.length > 0:
            out += encode_extent(extent, version) + bytes([value]) * (extent.length if data else 0)
            at = extent.end
    return out + encode_diff_end()


def applied(image: bytes, raw: bytes) -> bytes:
    source = Source(io.BytesIO(raw))
    diff = DiffReader(source.take)
    size = diff.header.size or 0
    out = bytearray(image[:size].ljust(size, b"\0"))
    for extent in diff:
        out[extent.offset : extent.end] = source.take(extent.length) if extent.data else bytes(extent.length)
    return bytes(out)


@settings(deadline=None)
@given(sizes, sizes, sizes, cuts, cuts, st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_merged_is_one_after_the_other(
    start: int, middle: int, end: int, first: Any, second: Any, version: int, other: int
) -> None:
    one = difference("a", "b", middle, first, 1, version)
    two = difference("b", "c", end, second, 2, other)
    out = io.BytesIO()
    streams.merge_diff(io.BytesIO(one), io.BytesIO(two), out)
    merged = out.getvalue()
    found = reader(merged)
    assert (found.header.from_snap, found.header.to_snap, found.version) == ("a", "c", other)
    image = b"\7" * start
    assert applied(image, merged) == applied(applied(image, one), two)


def test_only_what_follows_can_be_merged() -> None:
    one = difference("a", "b", 9, [], 1, 1)
    with pytest.raises(StreamError, match="starts at 'a'"):
        streams.merge_diff(io.BytesIO(one), io.BytesIO(one), io.BytesIO())
    backwards = encode_diff_header(DiffHeader("b", None, 9), 1) + b"z" + u64s(4, 2) + b"z" + u64s(1, 2) + b"e"
    with pytest.raises(StreamError, match="out of order"):
        streams.merge_diff(io.BytesIO(one), io.BytesIO(backwards), io.BytesIO())


# --- files -----------------------------------------------------------------------------------------------------------

parts = st.lists(st.tuples(st.sampled_from(["data", "hole", "empty"]), st.integers(1, 200_000)), max_size=8)


class Pipe(io.RawIOBase):
    """Takes and gives a little at a time, and cannot seek."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        taken = bytes(self.data[: min(len(buffer), 1000)])
        del self.data[: len(taken)]
        buffer[: len(taken)] = taken
        return len(taken)

    def write(self, data: Any) -> int:
        self.data += bytes(data[:1000])
        return min(len(data), 1000)


def fill(file: Any, plan: list[tuple[str, int]]) -> bytes:
    sink = Sink(file)
    expected = b""
    for what, length in plan:
        if what == "data":
            sink.write(b"x" * length)
            expected += b"x" * length
        elif what == "hole":
            sink.hole(length)
            expected += bytes(length)
        else:
            sink.write(b"")
    sink.finish()
    return expected


@settings(max_examples=50, deadline=None)
@given(plan=parts, old=st.integers(0, 300_000))
def test_a_sink_writes_the_same_everywhere(tmp_path_factory: pytest.TempPathFactory, plan: Any, old: int) -> None:
    path = tmp_path_factory.getbasetemp() / "sink"
    pipe = Pipe()
    expected = fill(pipe, plan)
    assert bytes(pipe.data) == expected
    with path.open("wb") as file:
        assert fill(file, plan) == expected
        assert file.tell() == len(expected)
    assert path.read_bytes() == expected
    path.write_bytes(b"o" * old)  # over what is there, holes are zeros; what lies behind stays
    with path.open("r+b") as file:
        fill(file, plan)
    assert path.read_bytes() == expected + b"o" * (old - len(expected))
    path.write_bytes(b"o" * old)
    with path.open("ab") as file:
        fill(file, plan)
    assert path.read_bytes() == b"o" * old + expected


def test_a_plain_file_gets_holes_and_a_compressed_one_does_not(tmp_path: Path) -> None:
    plan = [("data", 4096), ("hole", 8 << 20), ("data", 4096), ("hole", 8 << 20)]
    with (tmp_path / "plain").open("wb") as file:
        expected = fill(file, plan)
    found = (tmp_path / "plain").stat()
    assert found.st_size == len(expected)
    assert found.st_blocks * 512 < 1 << 20
    with gzip.open(tmp_path / "packed", "wb", compresslevel=1) as packed:
        fill(packed, plan)
    with gzip.open(tmp_path / "packed") as packed:
        assert packed.read() == expected


@settings(max_examples=50, deadline=None)
@given(plan=parts, skipped=st.integers(0, 1000))
def test_a_source_gives_all_but_holes(tmp_path_factory: pytest.TempPathFactory, plan: Any, skipped: int) -> None:
    path = tmp_path_factory.getbasetemp() / "source"
    with path.open("wb") as file:
        expected = fill(file, plan)[skipped:]
    with path.open("rb") as file:
        file.read(skipped)
        source = Source(file)
        assert source.left() == max(len(expected), 0)
        assert together(source, len(expected)) == expected
        assert file.read() == b""
    pipe = Source(Pipe(expected))
    assert pipe.left() is None
    assert together(pipe, len(expected)) == expected


def together(source: Source, length: int) -> bytes:
    out = bytearray(length)
    end = 0
    for offset, data in source.pieces():
        assert data and offset >= end
        end = offset + len(data)
        out[offset:end] = data
    return bytes(out)


def test_holes_of_a_plain_file_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        sink = Sink(file)
        sink.hole(1 << 40)
        sink.write(b"x" * 4096)
        sink.hole(1 << 40)
        sink.finish()
    assert (tmp_path / "sparse").stat().st_size == (2 << 40) + 4096
    with (tmp_path / "sparse").open("rb") as file:
        assert sum(len(data) for _, data in Source(file).pieces()) <= 1 << 20
