"""Reads and writes of an image on either cluster: what the bytes are, and which objects hold them."""

import array
import errno
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rbd_native as rbd
from tests.image.room import Room

KIB = 1 << 10
MIB = 1 << 20
SIZE = 300_001
ORDER = 16

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"features": 1},
    "map": {"features": 61},
    "striped": {"features": 1, "stripe_unit": 4096, "stripe_count": 3},
    "striped with map": {"features": 61, "stripe_unit": 16384, "stripe_count": 5},
}


@pytest.fixture
def ioctx(room: Room) -> Any:
    return room.ioctx()


@pytest.fixture(params=SHAPES)
def image(request: pytest.FixtureRequest, ioctx: Any) -> Iterator[rbd.Image]:
    rbd.RBD().create(ioctx, "image", SIZE, ORDER, **SHAPES[request.param])
    with rbd.Image(ioctx, "image") as image:
        yield image


@pytest.fixture
def plain(ioctx: Any) -> Iterator[rbd.Image]:
    rbd.RBD().create(ioctx, "image", SIZE, ORDER, features=61)
    with rbd.Image(ioctx, "image") as image:
        yield image


def sizes_of_objects(room: Room, ioctx: Any) -> dict[int, int]:
    found = room.data_objects()
    return {int(name.rpartition(".")[2], 16): ioctx.stat(name)[0] for name in found}


def pattern(length: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(1, 256, length, np.uint8).tobytes()


# --- read and write ---------------------------------------------------------------------------------------------------


def test_unwritten_is_zeros(image: rbd.Image) -> None:
    assert image.read(0, SIZE) == bytes(SIZE)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (0, SIZE), (SIZE - 1, 1), (65535, 2), (65536, 65536), (4095, 4098), (1, SIZE - 2), (131_000, 70_000)],
)
def test_written_is_read(image: rbd.Image, offset: int, length: int) -> None:
    data = pattern(length)
    assert image.write(data, offset) == length
    expected = bytes(offset) + data + bytes(SIZE - offset - length)
    assert image.read(0, SIZE) == expected
    for start, size in ((offset, length), (offset - 10, 20), (offset + length - 5, 10), (offset + length, 5000)):
        if 0 <= start < SIZE:
            assert image.read(start, size) == expected[start : start + size]


def test_overwritten(image: rbd.Image) -> None:
    expected = bytearray(SIZE)
    for seed, (offset, length) in enumerate([(0, 200_000), (50_000, 30_000), (65_536, 65_536), (299_000, 1001), (7, 1)]):
        data = pattern(length, seed)
        image.write(data, offset)
        expected[offset : offset + length] = data
    assert image.read(0, SIZE) == bytes(expected)


def test_at_the_end(image: rbd.Image) -> None:
    image.write(b"end", SIZE - 3)
    assert image.read(SIZE - 3, 100) == b"end"
    assert image.read(0, 10 * SIZE) == bytes(SIZE - 3) + b"end"
    assert image.read(SIZE, 0) == b""
    assert image.read(2**63, 0) == b""
    for offset in (SIZE, SIZE + 1, 2**63, 2**64 - 1):
        with pytest.raises(rbd.InvalidArgument) as caught:
            image.read(offset, 1)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(rbd.InvalidArgument):
            image.write(b"x", offset)


def test_write_across_the_end_is_incomplete(image: rbd.Image) -> None:
    with pytest.raises(rbd.IncompleteWriteError, match="Wrote only 3 out of 5 bytes"):
        image.write(b"hello", SIZE - 3)
    assert image.read(SIZE - 3, 3) == b"hel"
    image.resize(SIZE + 100)
    assert image.read(SIZE - 3, 103) == b"hel" + bytes(100)


def test_nothing_is_written_anywhere(room: Room, ioctx: Any, image: rbd.Image) -> None:
    for offset in (0, SIZE, 2**63):
        assert image.write(b"", offset) == 0
    assert not room.data_objects()


@pytest.mark.parametrize("length", [5, 100_000])
def test_all_kinds_of_buffers(plain: rbd.Image, length: int) -> None:
    data = pattern(length)
    with mmap.mmap(-1, length) as mapped:
        mapped[:] = data
        numbers = np.frombuffer(data, np.uint8)
        kinds: list[Any] = [
            bytearray(data), memoryview(data), memoryview(b"xx" + data + b"yy")[2:-2], numbers, array.array("B", data),
            mapped, np.frombuffer(data * 4, "<u4"), numbers.reshape(5, -1), np.asfortranarray(numbers.reshape(1, -1)),
        ]  # fmt: skip
        for kind in kinds:
            plain.discard(0, SIZE)
            raw = bytes(kind)
            room = SIZE - 1000
            if len(raw) > room:
                with pytest.raises(rbd.IncompleteWriteError):
                    plain.write(kind, 1000)
            else:
                assert plain.write(kind, 1000) == len(raw)
            assert plain.read(1000, min(len(raw), room)) == raw[:room]


@pytest.mark.parametrize("wrong", ["text", None, 5, ["x"], object(), 1.5])
def test_no_buffer(plain: rbd.Image, wrong: Any) -> None:
    with pytest.raises(TypeError):
        plain.write(wrong, 0)


def test_a_buffer_with_gaps(plain: rbd.Image) -> None:
    with pytest.raises((TypeError, ValueError)):
        plain.write(memoryview(b"abcdefgh")[::2], 0)
    assert plain.read(0, 8) == bytes(8)


def test_the_buffer_may_change_afterwards(plain: rbd.Image) -> None:
    data = bytearray(b"before")
    plain.write(data, 0)
    data[:] = b"after!"
    assert plain.read(0, 6) == b"before"


@pytest.mark.parametrize("call", ["read", "write", "discard", "write_zeroes"])
@pytest.mark.parametrize(
    ("value", "error"), [(-1, OverflowError), (2**64, OverflowError), ("1", TypeError), (None, TypeError)]
)
def test_numbers_that_are_none(plain: rbd.Image, call: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        getattr(plain, call)(b"x" if call == "write" else value, value)


def test_many_megabytes(ioctx: Any) -> None:
    rbd.RBD().create(ioctx, "image", 40 * MIB, 22, features=61)
    data = pattern(33 * MIB + 5)
    with rbd.Image(ioctx, "image") as image:
        assert image.write(data, 3 * MIB - 1) == len(data)
        assert image.read(3 * MIB - 1, len(data)) == data
        assert image.read(0, 40 * MIB) == bytes(3 * MIB - 1) + data + bytes(4 * MIB - 4)


def test_only_touched_objects_exist(room: Room, ioctx: Any, plain: rbd.Image) -> None:
    plain.write(b"x", 70_000)
    plain.write(b"yy", 196_607)
    assert sizes_of_objects(room, ioctx) == {1: 70_001 - 65_536, 2: 65_536, 3: 1}


# --- discard and zeroes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length", "left"),
    [
        (0, SIZE, {4: SIZE - 262_144}),
        (0, 65536, {1: 65536, 2: 65536, 3: 65536, 4: SIZE - 262_144}),
        (65536, 131072, {0: 65536, 3: 65536, 4: SIZE - 262_144}),
        (1, SIZE, {0: 1, 4: SIZE - 262_144}),
        (0, 65535, {0: 65536, 1: 65536, 2: 65536, 3: 65536, 4: SIZE - 262_144}),
        (262_144, 10**9, {0: 65536, 1: 65536, 2: 65536, 3: 65536, 4: SIZE - 262_144}),
        (196_608, 70_000, {0: 65536, 1: 65536, 2: 65536, 4: SIZE - 262_144}),
    ],
)
def test_discard_by_whole_objects(
    room: Room, ioctx: Any, plain: rbd.Image, offset: int, length: int, left: dict[int, int]
) -> None:
    """With granularity 64 KiB and objects of 64 KiB whole objects go, and tails of such; the last one is shorter."""
    data = pattern(SIZE)
    plain.write(data, 0)
    plain.discard(offset, length)
    assert sizes_of_objects(room, ioctx) == left
    shown = b"".join(
        data[n * 65536 : n * 65536 + left.get(n, 0)].ljust(min(65536, SIZE - n * 65536), b"\0") for n in range(5)
    )
    assert plain.read(0, SIZE) == shown


@pytest.mark.parametrize("granularity", [4096, 65536, 1 << 22])
def test_discard_rounds_inward(ioctx: Any, granularity: int) -> None:
    rbd.RBD().create(ioctx, "large", 8 * MIB, 22, features=1)
    with rbd.Image(ioctx, "large") as image:
        image.config_set("rbd_discard_granularity_bytes", str(granularity))
        data = pattern(8 * MIB)
        image.write(data, 0)
        image.discard(100_000, 1_000_000)
        first, last = -(-100_000 // granularity) * granularity, 1_100_000 // granularity * granularity
        hole = bytes(max(last - first, 0))
        expected = data[:first] + hole + data[first + len(hole) :]
        assert image.read(0, 8 * MIB) == expected


def test_discard_takes_no_more_than_two_gigabytes(plain: rbd.Image) -> None:
    plain.discard(0, 2**31 - 1)
    with pytest.raises(rbd.InvalidArgument):
        plain.discard(0, 2**31)


@pytest.mark.parametrize("call", ["discard", "write_zeroes"])
def test_discarding_what_is_not_there_makes_nothing(room: Room, ioctx: Any, image: rbd.Image, call: str) -> None:
    getattr(image, call)(0, SIZE)
    getattr(image, call)(100, 50_000)
    getattr(image, call)(5, 0)
    getattr(image, call)(SIZE, 0)
    assert not room.data_objects()
    with pytest.raises(rbd.InvalidArgument):
        getattr(image, call)(SIZE, 1)


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (100, 3), (65_530, 12), (0, SIZE), (4095, 200_000), (SIZE - 1, 50)])
@pytest.mark.parametrize("flags", [0, rbd.RBD_WRITE_ZEROES_FLAG_THICK_PROVISION])
def test_write_zeroes_is_exact(image: rbd.Image, offset: int, length: int, flags: int) -> None:
    data = pattern(SIZE)
    image.write(data, 0)
    image.write_zeroes(offset, length, flags)
    end = min(offset + length, SIZE)
    assert image.read(0, SIZE) == data[:offset] + bytes(end - offset) + data[end:]


def test_thick_zeroes_take_space(room: Room, ioctx: Any, plain: rbd.Image) -> None:
    plain.write_zeroes(0, SIZE, rbd.RBD_WRITE_ZEROES_FLAG_THICK_PROVISION)
    assert sizes_of_objects(room, ioctx) == {0: 65536, 1: 65536, 2: 65536, 3: 65536, 4: SIZE - 262_144}
    plain.write_zeroes(0, SIZE)
    assert sizes_of_objects(room, ioctx) in ({}, {4: 0})
    with pytest.raises(rbd.InvalidArgument):
        plain.write_zeroes(0, 10, 2)


# --- resize -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 65537, 131_072, 200_000, SIZE - 1])
def test_what_was_cut_off_is_zeros_when_it_grows_again(image: rbd.Image, size: int) -> None:
    data = pattern(SIZE)
    image.write(data, 0)
    image.resize(size)
    assert image.size() == size
    assert image.read(0, SIZE) == data[:size] if size else image.read(0, 0) == b""
    image.resize(SIZE + 5000)
    assert image.read(0, SIZE + 5000) == data[:size].ljust(SIZE + 5000, b"\0")


def test_shrinking_gives_up_objects(room: Room, ioctx: Any, image: rbd.Image) -> None:
    image.write(pattern(SIZE), 0)
    before = sum(sizes_of_objects(room, ioctx).values())
    assert before == SIZE
    image.resize(70_000)
    assert 70_000 <= sum(sizes_of_objects(room, ioctx).values()) < 70_000 + 5 * 65536
    image.resize(0)
    assert not room.data_objects()


def test_growing_and_the_same_size(room: Room, ioctx: Any, image: rbd.Image) -> None:
    image.write(b"x", SIZE - 1)
    image.resize(SIZE)
    image.resize(10 * MIB, allow_shrink=False)
    assert image.size() == 10 * MIB
    assert image.read(SIZE - 1, 2) == b"x\0"
    image.write(b"y", 10 * MIB - 1)
    with pytest.raises(rbd.InvalidArgument, match="allow_shrink is False"):
        image.resize(SIZE, allow_shrink=False)
    assert image.size() == 10 * MIB
    assert image.read(10 * MIB - 1, 1) == b"y"


def test_resize_too_far(plain: rbd.Image) -> None:
    """An object map has at most 256 million entries."""
    with pytest.raises(rbd.InvalidArgument):
        plain.resize(2**62)
    assert plain.size() == SIZE


def test_resize_tells_its_progress(plain: rbd.Image) -> None:
    heard: list[tuple[int, int]] = []
    plain.resize(65536, on_progress=lambda done, total: heard.append((done, total)))
    assert {total for _, total in heard} == {4}
    assert heard == sorted(set(heard))


def test_an_image_of_no_size(ioctx: Any) -> None:
    rbd.RBD().create(ioctx, "empty", 0)
    with rbd.Image(ioctx, "empty") as image:
        assert (image.size(), image.stat()["num_objs"], image.read(0, 0)) == (0, 0, b"")
        with pytest.raises(rbd.InvalidArgument):
            image.write(b"x", 0)
        image.resize(10)
        image.write(b"0123456789", 0)
        assert image.read(0, 99) == b"0123456789"


def test_a_huge_image_takes_no_space(room: Room, ioctx: Any) -> None:
    rbd.RBD().create(ioctx, "huge", 2**63, features=1)
    with rbd.Image(ioctx, "huge") as image:
        image.write(b"far", 2**63 - 3)
        image.write(b"near", 2**62)
        assert image.read(2**63 - 5, 100) == b"\0\0far"
        assert image.read(2**62 - 1, 6) == b"\0near\0"
        assert image.read(2**61, 10_000_000) == bytes(10_000_000)
    assert len(room.data_objects()) == 2


# --- durable ----------------------------------------------------------------------------------------------------------


def test_closing_and_opening_again(image: rbd.Image, ioctx: Any) -> None:
    data = pattern(SIZE)
    image.write(data, 0)
    image.flush()
    image.close()
    for read_only in (False, True):
        with rbd.Image(ioctx, "image", read_only=read_only) as again:
            assert again.read(0, SIZE) == data


def test_the_map_is_that_of_the_objects(room: Room, ioctx: Any, plain: rbd.Image) -> None:
    """Two bits an object, object 0 in the upper ones of the first byte: 1 where there is an object."""
    plain.write(b"x", 0)
    plain.write(b"x", 200_000)
    plain.write(b"x", 131_072)
    plain.discard(131_072, 65536)
    plain.close()
    (name,) = (name for name in room.contents() if name.startswith("rbd_object_map."))
    header = 4 + 14
    assert ioctx.read(name)[header : header + 2] == bytes([0b01_00_00_01, 0b00_000000])
