"""Reading ahead: fewer reads for who reads one piece behind the other, and never anything but what is there."""

import random
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.engine import run
from rbd_native.image import io as writing
from rbd_native.image.reading import read
from rbd_native.operations import create, snapshots
from rbd_native.operations.open import open_image
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import Operation, Read
from rbd_native.rados.wrapper import Interceptor, Request, wrap
from tests.image.room import Room
from tests.sharing.model import MIB

SOON = {
    "rbd_readahead_trigger_requests": "3",
    "rbd_readahead_max_bytes": "65536",
    "rbd_cache_writethrough_until_flush": "false",
}
SIZE = 2 * MIB
PIECE = 4096


class Counting(Interceptor):
    def __init__(self) -> None:
        self.reads = 0

    def operation(self, request: Request, inner: Operation) -> Operation:
        self.reads += request.oid.startswith("rbd_data") and any(type(step) is Read for step in request.steps)
        return inner


CASES: dict[str, tuple[dict[str, str], int, bool]] = {
    # options, reads of 256 pieces that reach the cluster, through a handle that is set to a snapshot
    "under the lock": ({}, 3 + MIB // 65536 + 1, False),
    "at a snapshot": ({}, 3 + MIB // 65536 + 1, True),
    "no cache": ({"rbd_cache": "false"}, 256, True),
    "not wanted": ({"rbd_readahead_max_bytes": "0"}, 256, True),
    "no more after 128 KiB": ({"rbd_readahead_disable_after_bytes": "131072"}, 300, True),
}


@pytest.mark.parametrize("case", CASES)
def test_fewer_reads(room: Room, case: str) -> None:
    options, most, at_snapshot = CASES[case]
    counting = Counting()
    port = wrap(port_for(room.ioctx(cluster=room.connect(**SOON | options))), counting)
    content = random.Random(1).randbytes(SIZE)

    async def go() -> None:
        await create.create(port, "image", create.Wish(SIZE, order=17))
        image = await open_image(port, name="image")
        await writing.write(image, 0, content)
        await writing.flush(image)
        await snapshots.create(image, "snap")
        if at_snapshot:
            await image.set_snap("snap")
        else:
            await writing.write(image, SIZE - 1, content[-1:])  # it has the lock
            await writing.flush(image)
        counting.reads = 0
        for offset in range(0, MIB, PIECE):
            assert await read(image, offset, PIECE) == content[offset : offset + PIECE], offset
        await image.close()

    run(go())
    assert most * 0.6 < counting.reads <= most


def test_to_the_end(room: Room) -> None:
    """Reads of any length, up to the last byte."""
    content = random.Random(2).randbytes(300_001)
    ioctx = room.ioctx(cluster=room.connect(**SOON))
    rbd.RBD().create(ioctx, "image", len(content), order=16)
    with rbd.Image(ioctx, "image") as image:
        image.write(content, 0)
        for length in (100, 3000, 4096, 40_000, 70_000):
            found = b"".join(image.read(offset, length) for offset in range(0, len(content), length))
            assert found == content


def _write(image: rbd.Image, other: rbd.Image, at: int) -> bytes:
    image.write(b"w" * PIECE, at)
    return b"w" * PIECE


def _write_later(image: rbd.Image, other: rbd.Image, at: int) -> bytes:
    image.aio_write(b"w" * PIECE, at, lambda completion: None).wait_for_complete_and_cb()
    return b"w" * PIECE


def _zero(image: rbd.Image, other: rbd.Image, at: int) -> bytes:
    image.write_zeroes(at, PIECE)
    return bytes(PIECE)


def _elsewhere(image: rbd.Image, other: rbd.Image, at: int) -> bytes:
    """By a client that has to have the lock; then this one takes it back."""
    other.write(b"e" * PIECE, at)
    image.write(b"x", SIZE - 1)
    return b"e" * PIECE


def _cut(image: rbd.Image, other: rbd.Image, at: int) -> bytes:
    image.resize(at)
    image.resize(SIZE)
    return bytes(PIECE)


def _roll_back(image: rbd.Image, other: rbd.Image, at: int) -> bytes:
    image.rollback_to_snap("snap")
    return bytes(PIECE)


def _set_to_snapshot(image: rbd.Image, other: rbd.Image, at: int) -> bytes:
    image.set_snap("snap")
    return bytes(PIECE)


@pytest.mark.parametrize(
    "change",
    [_write, _write_later, _zero, _elsewhere, _cut, _roll_back, _set_to_snapshot],
    ids=lambda change: change.__name__,
)
@pytest.mark.parametrize(
    "layout", [{"order": 17}, {"order": 16, "stripe_unit": 4096, "stripe_count": 3}], ids=["plain", "striped"]
)
def test_what_changes_meanwhile(room: Room, change: Any, layout: dict[str, Any]) -> None:
    """After any number of reads that made more be fetched, what is read next is what there is now."""
    ioctx, elsewhere = room.ioctx(cluster=room.connect(**SOON)), room.ioctx(cluster=room.connect())
    rbd.RBD().create(ioctx, "image", SIZE, **layout)
    with rbd.Image(ioctx, "image") as image, rbd.Image(elsewhere, "image") as other:
        image.create_snap("snap")
        for number in (3, 4, 9, 16, 17):
            image.set_snap(None)
            image.write(b"o" * SIZE, 0)
            for offset in range(0, number * PIECE, PIECE):
                assert image.read(offset, PIECE) == b"o" * PIECE
            wanted = change(image, other, number * PIECE)
            assert image.read(number * PIECE, PIECE) == wanted, number


def test_many_at_once(room: Room) -> None:
    content = random.Random(4).randbytes(SIZE)
    ioctx = room.ioctx(cluster=room.connect(**SOON))
    rbd.RBD().create(ioctx, "image", SIZE, order=17)
    with rbd.Image(ioctx, "image") as image:
        image.write(content, 0)
        found: dict[int, Any] = {}
        waiting = []
        for offset in range(0, SIZE, PIECE):

            def done(completion: Any, data: Any, offset: int = offset) -> None:
                found[offset] = data

            waiting.append(image.aio_read(offset, PIECE, done))
        for completion in waiting:
            completion.wait_for_complete_and_cb()
        assert b"".join(found[offset] for offset in sorted(found)) == content
