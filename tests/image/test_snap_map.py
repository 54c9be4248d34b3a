"""Objects that a snapshot does not have are not asked for, once one was found missing."""

import time
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import names
from rbd_native.engine import run
from rbd_native.image.context import ImageContext
from rbd_native.image.reading import read
from rbd_native.operations.flatten import flatten
from rbd_native.operations.open import open_image
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import Operation
from rbd_native.rados.wrapper import Interceptor, Request, wrap
from tests.image.room import Room

OBJECT = 1 << 14
COUNT = 8
MAPPED = 61


class Reads(Interceptor):
    """Counts what is asked of data objects."""

    def __init__(self) -> None:
        self.count = 0

    def operation(self, request: Request, inner: Operation) -> Operation:
        self.count += request.oid.startswith("rbd_data")
        return inner

    def during(self, image: ImageContext, objectno: int) -> tuple[int, bytes]:
        """How many a read of one object needs, and what it gives."""
        before = self.count
        data = run(read(image, objectno * OBJECT, OBJECT))
        return self.count - before, data[:1]


def made(room: Room, name: str, features: int = MAPPED) -> rbd.Image:
    rbd.RBD().create(room.ioctx(), name, COUNT * OBJECT, order=14, features=features)
    return rbd.Image(room.ioctx(), name)


def opened(room: Room, name: str, snapshot: str | None = None) -> tuple[ImageContext, Reads]:
    reads = Reads()
    io = wrap(port_for(room.ioctx()), reads)
    return run(open_image(io, name=name, snapshot=snapshot, read_only=snapshot is not None)), reads


def fetched(image: ImageContext, within: float = 5) -> bool:
    """Whether the map of the snapshot has come."""
    assert image.snap is not None
    deadline = time.monotonic() + within
    while image.snap_map._known[0] != image.snap.info.id and time.monotonic() < deadline:
        time.sleep(0.001)
    return image.snap_map._known[0] == image.snap.info.id


def test_a_snapshot_and_the_next_one(room: Room) -> None:
    with made(room, "image") as image:
        image.write(b"a" * OBJECT, 0)
        image.create_snap("one")
        image.write(b"b" * OBJECT, 5 * OBJECT)
        image.create_snap("two")
    handle, reads = opened(room, "image", "one")
    assert reads.during(handle, 0) == (1, b"a")
    assert reads.during(handle, 1) == (1, b"\0")
    assert fetched(handle)
    assert [reads.during(handle, objectno) for objectno in (0, 1, 5)] == [(1, b"a"), (0, b"\0"), (0, b"\0")]
    run(handle.set_snap("two"))
    assert [reads.during(handle, objectno) for objectno in (0, 5, 1)] == [(1, b"a"), (1, b"b"), (1, b"\0")]
    assert fetched(handle)
    assert [reads.during(handle, objectno) for objectno in (0, 5, 1)] == [(1, b"a"), (1, b"b"), (0, b"\0")]
    run(handle.close())


def clone(room: Room, parent: str, child: str, features: int = MAPPED) -> None:
    ioctx = room.ioctx()
    with rbd.Image(ioctx, parent) as image:
        image.create_snap("base")
        image.protect_snap("base")
    rbd.RBD().clone(ioctx, parent, "base", ioctx, child, features=features)


def test_a_parent(room: Room) -> None:
    with made(room, "parent") as image:
        image.write(b"a" * OBJECT, 0)
    clone(room, "parent", "child")
    child, reads = opened(room, "child")
    assert child.parent is not None
    assert reads.during(child, 1) == (2, b"\0")
    assert fetched(child.parent)
    assert [reads.during(child, objectno) for objectno in (0, 1, 2)] == [(2, b"a"), (1, b"\0"), (1, b"\0")]
    run(child.close())


def test_what_shares_data_may_get_more(room: Room) -> None:
    """The parent's snapshot has no object of its own, and then gets all of them: its own parent is flattened away."""
    ioctx = room.ioctx()
    with made(room, "first") as image:
        image.write(b"a" * OBJECT, 0)
    clone(room, "first", "second")
    clone(room, "second", "third")
    third, reads = opened(room, "third")
    assert third.parent is not None
    assert reads.during(third, 1) == (3, b"\0")
    assert not fetched(third.parent, 0.2)
    with rbd.Image(ioctx, "second") as image:
        image.flatten()
    assert reads.during(third, 0) == (2, b"a")
    run(third.close())


@pytest.mark.parametrize("damage", ["absent", "short", "flagged", "garbage"])
def test_a_map_that_is_no_good(room: Room, damage: str) -> None:
    with made(room, "image") as image:
        image.write(b"a" * OBJECT, 0)
        image.create_snap("s")
        identifier, snap = image.id(), next(iter(image.list_snaps()))["id"]
    ioctx = room.ioctx()
    oid = names.object_map(identifier, snap)
    if damage == "absent":
        ioctx.remove_object(oid)
    elif damage == "garbage":
        ioctx.write_full(oid, b"?" * 40)
    elif damage == "short":
        other = names.object_map(identifier)
        with rbd.Image(ioctx, "image") as image:
            image.resize(OBJECT)
        ioctx.write_full(oid, ioctx.read(other))
    else:
        flags: Any = (1).to_bytes(8, "little")
        ioctx.execute(names.header(identifier), "rbd", "set_flags", flags + flags + snap.to_bytes(8, "little"))
    handle, reads = opened(room, "image", "s")
    for _ in range(2):
        assert [reads.during(handle, objectno) for objectno in (0, 1)] == [(1, b"a"), (1, b"\0")]
        assert not fetched(handle, 0.2)
    run(handle.close())


def test_without_a_map(room: Room) -> None:
    with made(room, "image", 1) as image:
        image.create_snap("s")
    handle, reads = opened(room, "image", "s")
    assert [reads.during(handle, 1) for _ in range(2)] == [(1, b"\0")] * 2
    run(handle.close())


@pytest.mark.parametrize("features", [1, MAPPED])
def test_flatten_asks_for_what_is_there(room: Room, features: int) -> None:
    with made(room, "parent") as image:
        image.write(b"a" * OBJECT, 3 * OBJECT)
    clone(room, "parent", "child", features)
    child, reads = opened(room, "child")
    run(flatten(child))
    assert reads.count == 2 + (features == 1), "to look whether the clone has it, where no map tells; to read, to write"
    assert [reads.during(child, objectno)[1] for objectno in (2, 3, 4)] == [b"\0", b"a", b"\0"]
    run(child.close())
