"""Reads into memory of the caller's show what reads show, whatever lies below: parents, caches, snapshots, the end."""

from __future__ import annotations

import array
import errno
import mmap
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rbd_native as rbd
from tests.image.room import Room

SIZE = 300_001
ORDER = 16
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"features": 1},
    "map": {"features": 61},
    "striped": {"features": 1, "stripe_unit": 4096, "stripe_count": 3},
}
CACHES = {
    "no cache": {"rbd_cache": "false"},
    "write-back": {
        "rbd_cache": "true",
        "rbd_cache_policy": "writeback",
        "rbd_cache_writethrough_until_flush": "false",
        "rbd_cache_max_dirty_age": "1000",
    },
}


def pattern(length: int, seed: int) -> bytes:
    return np.random.default_rng(seed).integers(1, 256, length, np.uint8).tobytes()


@pytest.fixture(params=[(kind, cache) for kind in KINDS for cache in CACHES], ids="-".join)
def image(request: pytest.FixtureRequest, room: Room) -> Iterator[rbd.Image]:
    """A clone, with data of its own, of its parent's, and in its cache; a snapshot, `s`, has some of it."""
    kind, cache = request.param
    cluster = room.connect(**CACHES[cache])
    ioctx = room.ioctx(cluster=cluster)
    rbd.RBD().create(ioctx, "parent", SIZE - 50_000, ORDER, **KINDS[kind])
    with rbd.Image(ioctx, "parent") as parent:
        parent.write(pattern(100_000, 1), 60_000)
        parent.create_snap("p")
        parent.protect_snap("p")
    rbd.RBD().clone(ioctx, "parent", "p", ioctx, "image", **KINDS[kind])
    with rbd.Image(ioctx, "image") as image:
        image.resize(SIZE)
        image.write(pattern(30_000, 2), 90_000)
        image.create_snap("s")
        image.flush()
        image.write(pattern(20_000, 3), 150_000)
        image.write(pattern(5, 4), SIZE - 5)
        image.discard(95_000, 10_000)
        image.write(pattern(100, 5), 50)
        yield image
    ioctx.close()
    cluster.shutdown()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, SIZE - 1), length=st.integers(0, SIZE), before=st.integers(0, 3))
def test_as_read(image: rbd.Image, offset: int, length: int, before: int) -> None:
    buffer = bytearray(b"\xee" * (length + before + 1))
    expected = image.read(offset, length)
    number = image.readinto(offset, memoryview(buffer)[before : before + length])
    assert number == len(expected) == min(length, SIZE - offset)
    assert bytes(buffer) == b"\xee" * before + expected + b"\xee" * (length + 1 - number)


def test_all_of_it(image: rbd.Image) -> None:
    for snap in (None, "s"):
        image.set_snap(snap)
        buffer = bytearray(b"\xee" * SIZE)
        assert image.readinto(0, buffer) == SIZE
        assert bytes(buffer) == image.read(0, SIZE)


def test_any_writable_buffer(image: rbd.Image) -> None:
    expected = image.read(60_000, 4096)
    with mmap.mmap(-1, 4096) as mapped:
        words = array.array("Q", bytes(4096))
        table = np.zeros((8, 64), np.uint64)
        buffers: tuple[Any, ...] = (bytearray(4096), memoryview(bytearray(4096)), words, table, mapped)
        for buffer in buffers:
            assert image.readinto(60_000, buffer) == 4096
            with memoryview(buffer).cast("B") as view:
                assert bytes(view) == expected


@pytest.mark.parametrize("buffer", [b"read-only", "text", None, memoryview(bytearray(64))[::2], np.zeros((8, 8))[:, 1]])
def test_no_other(image: rbd.Image, buffer: Any) -> None:
    with pytest.raises(TypeError):
        image.readinto(0, buffer)
    with pytest.raises(TypeError):
        image.aio_readinto(0, buffer, None)


def test_beyond_the_end(image: rbd.Image) -> None:
    assert image.readinto(SIZE - 3, bytearray(10)) == 3
    assert image.readinto(SIZE, bytearray()) == 0
    with pytest.raises(rbd.InvalidArgument) as caught:
        image.readinto(SIZE, bytearray(1))
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OverflowError):
        image.readinto(-1, bytearray(1))


def test_many_under_way(image: rbd.Image) -> None:
    expected = image.read(0, SIZE)
    places = [(offset, bytearray(7000)) for offset in range(0, SIZE, 6000)]
    done: list[int] = []

    def keep(completion: Any) -> None:
        done.append(completion.get_return_value())

    completions = [image.aio_readinto(offset, buffer, keep) for offset, buffer in places]
    for completion in completions:
        completion.wait_for_complete_and_cb()
    assert sorted(done) == sorted(min(7000, SIZE - offset) for offset, _ in places)
    for offset, buffer in places:
        assert bytes(buffer)[: SIZE - offset] == expected[offset : offset + 7000]


def test_an_error_comes_back(image: rbd.Image) -> None:
    completion = image.aio_readinto(SIZE, bytearray(1), None)
    completion.wait_for_complete_and_cb()
    assert completion.get_return_value() == -errno.EINVAL


def test_the_buffer_is_free_again(image: rbd.Image) -> None:
    """Nothing keeps it from being resized once it has been read into."""
    buffer = bytearray(SIZE)
    image.readinto(0, buffer)
    image.aio_readinto(0, buffer, None).wait_for_complete_and_cb()
    buffer.append(1)


# --- callbacks ----------------------------------------------------------------------------------------------------------


def test_a_callback_may_block(image: rbd.Image) -> None:
    """It may do anything, also what itself needs completions, and others, and their callbacks are not lost."""
    ended: list[bytes] = []
    all_ended = threading.Event()

    def again(completion: Any, data: bytes) -> None:
        buffer = bytearray(SIZE)
        assert image.readinto(0, buffer) == SIZE  # from many objects: completions have to come meanwhile
        image.write(b"!", 200_000)
        image.flush()
        ended.append(data)
        if len(ended) == 24:
            all_ended.set()

    completions = [image.aio_read(number * 1000, 1000, again) for number in range(24)]
    assert all_ended.wait(30)
    for completion in completions:
        completion.wait_for_complete_and_cb()
    assert sorted(ended) == sorted(image.read(number * 1000, 1000) for number in range(24))


def test_a_callback_may_wait_for_anything(image: rbd.Image) -> None:
    """Even for what somebody else is to do with the image."""
    heard, ended = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        assert heard.wait(30)
        ended.set()

    completion = image.aio_write(b"x", 0, slow)
    read = image.read(0, SIZE)  # from many objects
    assert len(read) == SIZE
    heard.set()
    assert ended.wait(30)
    completion.wait_for_complete_and_cb()


def test_what_a_callback_raises(image: rbd.Image) -> None:
    def fail(_: Any, data: bytes) -> None:
        raise KeyError(len(data))

    completion = image.aio_read(0, 10, fail)
    with pytest.raises(KeyError):
        completion.wait_for_complete_and_cb()
    after = image.aio_read(0, 10, lambda completion, data: None)
    after.wait_for_complete_and_cb()
    assert after.get_return_value() == 10
