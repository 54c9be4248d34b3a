"""What went wrong once, told anew under any schedule: each story asserts what must hold whatever the order.

The numbers are those of the faults of the data path, of which each story is one.
"""

import errno
from collections.abc import Callable, Mapping
from typing import Any

import rbd_native as rbd
from rbd_native.rados.faults import touching
from rbd_native.rados.schedule import Job
from tests.schedules.world import CACHED, OBJECT, PLAIN, World, attempt, create, outcome

BLOCK = 4096


def _write_all(image: rbd.Image, objects: int, byte: bytes) -> list[Any]:
    """One block of each object, all at once; the completions."""
    return [image.aio_write(byte * BLOCK, number * OBJECT, lambda completion: None) for number in range(objects)]


def _wait(completions: list[Any]) -> list[int]:
    for completion in completions:
        completion.wait_for_complete_and_cb()
    return [completion.get_return_value() for completion in completions]


def _first_bytes(image: rbd.Image, objects: int) -> bytes:
    return b"".join(image.read(number * OBJECT, 1) for number in range(objects))


# --- 30: nobody acts on a state that is behind ---


def snapshot_then_writes(world: World, features: int = 61, conf: Mapping[str, str] = PLAIN) -> None:
    """What is written after a snapshot was taken is not in it."""
    ioctx = world.ioctx(**conf)
    create(ioctx, 3, features)
    with rbd.Image(ioctx, "image") as image:
        assert _wait(_write_all(image, 3, b"A")) == [0] * 3
        image.flush()
        image.create_snap("s")
        assert _wait(_write_all(image, 3, b"B")) == [0] * 3
        image.flush()
    with rbd.Image(ioctx, "image", snapshot="s") as snapshot:
        assert _first_bytes(snapshot, 3) == b"AAA"


def snapshot_then_writes_without_lock(world: World) -> None:
    snapshot_then_writes(world, 1)


def snapshot_then_writes_cached(world: World) -> None:
    snapshot_then_writes(world, conf=CACHED)


def shrink_then_writes(world: World) -> None:
    """Nothing is written beyond the end after a shrink, and comes back after growth."""
    ioctx = world.ioctx()
    create(ioctx, 3, 61)
    with rbd.Image(ioctx, "image") as image:
        _wait(_write_all(image, 3, b"A"))
        image.resize(OBJECT)
        results = _wait([image.aio_write(b"B" * BLOCK, place * OBJECT, lambda completion: None) for place in (0, 2)])
        assert results == [0, -errno.EINVAL]
        image.resize(3 * OBJECT)
        assert image.read(2 * OBJECT, 1) == b"\0"


def growth_then_writes(world: World) -> None:
    """What lies within the new size is written."""
    ioctx = world.ioctx()
    create(ioctx, 1, 61)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"A" * BLOCK, 0)
        image.resize(3 * OBJECT)
        assert _wait(_write_all(image, 3, b"B")) == [0] * 3
        assert _first_bytes(image, 3) == b"BBB"


# --- 31: operations on the whole image exclude each other ---


def _snapshot_stays(world: World, begin: Callable[[rbd.Image], Job], image: rbd.Image, objects: int) -> None:
    """A snapshot that another client takes meanwhile never changes."""
    other = rbd.Image(world.ioctx(), "image")
    reader = world.ioctx()
    job = begin(image)
    taken = outcome(world.begin(other.create_snap, "during"))

    def look() -> list[bytes]:
        with rbd.Image(reader, "image", snapshot="during", read_only=True) as snapshot:
            size = snapshot.size()
            return [snapshot.read(n * OBJECT, 1) for n in range(objects) if n * OBJECT < size]

    before = look() if taken is None else None
    outcome(job)
    if before is not None:
        assert look() == before
    other.close()
    image.close()


def shrink_beside_snapshot(world: World) -> None:
    ioctx = world.ioctx()
    create(ioctx, 16, 61)
    image = rbd.Image(ioctx, "image")
    _wait(_write_all(image, 16, b"A"))
    _snapshot_stays(world, lambda image: world.begin(image.resize, OBJECT), image, 16)


def rollback_beside_snapshot(world: World) -> None:
    ioctx = world.ioctx()
    create(ioctx, 16, 61)
    image = rbd.Image(ioctx, "image")
    _wait(_write_all(image, 16, b"A"))
    image.create_snap("old")
    _wait(_write_all(image, 16, b"B"))
    _snapshot_stays(world, lambda image: world.begin(image.rollback_to_snap, "old"), image, 16)


def removal_beside_snapshot(world: World) -> None:
    """The newest snapshot is removed while another is taken: what the map tells of a change is what was changed."""
    ioctx = world.ioctx()
    create(ioctx, 2, 61)
    image = rbd.Image(ioctx, "image")
    image.write(b"0" * BLOCK, 0)
    image.create_snap("s1")
    image.write(b"1" * BLOCK, 0)
    image.create_snap("s2")
    jobs = [world.begin(image.remove_snap, "s2"), world.begin(image.create_snap, "s3")]
    assert [outcome(job) for job in jobs] == [None, None]
    image.close()
    with rbd.Image(ioctx, "image", snapshot="s3") as snapshot:
        found: list[int] = []
        snapshot.diff_iterate(
            0, snapshot.size(), "s1", lambda offset, length, exists: found.append(offset // OBJECT), whole_object=True
        )
        assert snapshot.flags() or found == [0]


def rebuild_beside_growth(world: World) -> None:
    """A map that was made anew is as long as the image, or is said to be invalid."""
    ioctx = world.ioctx()
    create(ioctx, 2, 61)
    image = rbd.Image(ioctx, "image")
    image.write(b"0" * BLOCK, 0)
    jobs = [world.begin(image.rebuild_object_map), world.begin(image.resize, 9 * OBJECT)]
    outcomes = [outcome(job) for job in jobs]
    flags = image.flags()
    image.close()
    with rbd.Image(ioctx, "image") as image:
        image.write(b"1" * BLOCK, 8 * OBJECT)
        assert outcomes == [None, None]
        assert flags == image.flags() == 0


# --- 33, 34, 35: what failed after it was sent is unknown ---


def watch_lost_and_no_answer(world: World) -> None:
    """A client that lives, and whose watch came back with one call that failed, is fenced by nobody."""
    ioctx, faults = world.troubled(touching("rbd_header*", "write"))
    create(ioctx, 2, 61)
    image = rbd.Image(ioctx, "image")
    image.write(b"A" * BLOCK, 0)
    world.lose_watches(ioctx)
    faults.fail(errno.ETIMEDOUT, at=faults.sent + world.dice.randrange(3), sent=world.dice.random() < 0.5)
    world.schedule.settle()
    with rbd.Image(world.ioctx(), "image") as other:
        other.write(b"B" * BLOCK, OBJECT)
    attempt(image.write, b"C" * BLOCK, 0)  # which that one failure may hit
    assert not world.fenced()
    assert attempt(image.write, b"C" * BLOCK, 0) == BLOCK
    assert attempt(image.read, OBJECT, 1) == b"B"
    image.close()


def release_fails_once(world: World) -> None:
    """Whoever asks for the lock gets it, however the release goes at first."""
    ioctx, faults = world.troubled()
    create(ioctx, 2, 61)
    image = rbd.Image(ioctx, "image")
    image.write(b"A" * BLOCK, 0)
    faults.fail(errno.ETIMEDOUT, at=faults.sent + world.dice.randrange(5), sent=world.dice.random() < 0.5)
    with rbd.Image(world.ioctx(), "image") as other:
        assert other.write(b"B" * BLOCK, OBJECT) == BLOCK
    attempt(image.close)


def shrink_without_answer(world: World) -> None:
    """A resize that was done, but not answered: what is written afterwards is refused, or there."""
    ioctx, faults = world.troubled(touching("rbd_header*", "write"))
    create(ioctx, 3, 61)
    with rbd.Image(ioctx, "image") as image:
        _wait(_write_all(image, 3, b"A"))
        faults.fail(errno.ETIMEDOUT, at=faults.sent + world.dice.randrange(4), sent=True)
        attempt(image.resize, OBJECT)
        written = attempt(image.write, b"B" * BLOCK, 2 * OBJECT)
        with rbd.Image(world.ioctx(), "image", read_only=True) as other:
            there = other.size() > 2 * OBJECT and other.read(2 * OBJECT, 1) == b"B"
        assert (written == BLOCK) == there, (written, there)


# --- 36: an error reaches those whose bytes were lost ---


def error_of_a_background_write(world: World) -> None:
    """Who flushes after a write that fails later hears of it, whoever else flushes or looks meanwhile."""
    ioctx, faults = world.troubled(touching("rbd_data*", "write"), **CACHED)
    create(ioctx, 2, 61)
    image = rbd.Image(ioctx, "image")
    image.write(b"A" * BLOCK, 0)
    image.flush()
    faults.fail(errno.EIO, at=faults.sent)
    image.write(b"B" * BLOCK, 0)
    others = [
        lambda: image.create_snap("s"),
        image.flush,
        lambda: image.diff_iterate(0, image.size(), None, lambda *extent: None),
    ]
    other = world.begin(world.dice.choice(others))
    flushed = attempt(image.flush)
    outcome(other)
    assert image.read(0, 1) == b"B" or flushed is not None
    attempt(image.close)


# --- 37: after a demotion nothing is written ---


def demotion_beside_writes(world: World) -> None:
    """What another handle was told is written is in the demotion's snapshot."""
    ioctx = world.ioctx()
    create(ioctx, 2, world.dice.choice((1, 61)))
    rbd.RBD().mirror_mode_set(ioctx, rbd.RBD_MIRROR_MODE_IMAGE)
    image = rbd.Image(ioctx, "image")
    image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT)
    writer = rbd.Image(world.ioctx(), "image") if world.dice.random() < 0.5 else image
    writer.write(b"A" * BLOCK, 0)
    told: list[int] = []

    def write() -> None:
        for number in range(4):
            if attempt(writer.write, bytes([48 + number]) * BLOCK, 0) == BLOCK:
                told.append(48 + number)

    job = world.begin(write)
    image.mirror_image_demote()
    outcome(job)
    newest = max(snapshot["id"] for snapshot in image.list_snaps())
    with rbd.Image(world.ioctx(), "image", snapshot=newest, read_only=True) as snapshot:
        assert not told or snapshot.read(0, 1)[0] == told[-1]
    if writer is not image:
        writer.close()
    image.close()


# --- 38: bytes are written under the lock under which they were accepted ---


def _steal(ioctx: object) -> None:
    """Take the lock's record away, fencing nobody."""
    with rbd.Image(ioctx, "image", read_only=True) as image:
        header = f"rbd_header.{image.id()}"
    ioctx.rm_xattr(header, "lock.rbd_lock")  # type: ignore[attr-defined]


def kept_bytes_and_a_lost_lock(world: World) -> None:
    """Bytes kept under a lock that was broken never cover what its next owner has flushed."""
    ioctx = world.ioctx(**CACHED, rbd_cache_policy="writeback", rbd_cache_max_dirty_age="1000")
    create(ioctx, 2, 5)
    image = rbd.Image(ioctx, "image")
    image.write(b"0" * BLOCK, 0)
    image.flush()
    image.write(b"A" * BLOCK, 0)
    world.schedule.settle()  # what is on its way then, nobody can call back
    _steal(world.ioctx())
    with rbd.Image(world.ioctx(), "image") as other:
        other.write(b"B" * BLOCK, 0)
        other.flush()
    world.lose_watches(ioctx)  # with the new one it learns that it has no lock
    world.schedule.settle()
    attempt(image.write, b"C" * BLOCK, OBJECT)
    attempt(image.flush)
    attempt(image.close)
    with rbd.Image(world.ioctx(), "image", read_only=True) as reader:
        assert reader.read(0, 1) == b"B"


# --- 39: nobody waits for what nobody will do ---


def release_of_a_lost_lock(world: World) -> None:
    """The lock is lost while it is being given back, and maintenance waits: all of it ends."""
    ioctx = world.ioctx()
    create(ioctx, 3, 61)
    image = rbd.Image(ioctx, "image")
    image.write(b"A" * BLOCK, 0)
    other = rbd.Image(world.ioctx(), "image")
    jobs = [world.begin(image.resize, 2 * OBJECT), world.begin(other.write, b"B" * BLOCK, 0)]
    world.lose_watches(ioctx)
    jobs += [world.begin(image.create_snap, "s"), world.begin(image.lock_release)]
    for job in jobs:
        outcome(job)
    attempt(other.close)
    attempt(image.close)


def release_beside_a_new_watch(world: World) -> None:
    """The owner's watch comes back, which changes the lock's cookie, while another asks for the lock: that one gets it."""
    ioctx = world.ioctx()
    create(ioctx, 2, 5)
    image, other = rbd.Image(ioctx, "image"), rbd.Image(world.ioctx(), "image")
    image.write(b"A" * BLOCK, 0)
    world.lose_watches(ioctx)
    world.schedule.go_on(world.dice.randrange(12))
    assert other.write(b"B" * BLOCK, 0) == BLOCK
    attempt(image.close)
    other.close()


STORIES = {
    "30": (snapshot_then_writes, snapshot_then_writes_without_lock, snapshot_then_writes_cached, shrink_then_writes,
           growth_then_writes),
    "31": (shrink_beside_snapshot, rollback_beside_snapshot, removal_beside_snapshot, rebuild_beside_growth),
    "33": (watch_lost_and_no_answer,),
    "34": (release_fails_once,),
    "35": (shrink_without_answer,),
    "36": (error_of_a_background_write,),
    "37": (demotion_beside_writes,),
    "38": (kept_bytes_and_a_lost_lock,),
    "39": (release_of_a_lost_lock, release_beside_a_new_watch),
}  # fmt: skip
"""By the numbers of the faults."""
