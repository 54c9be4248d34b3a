"""A snapshot is what it was, and nobody acts on what was replaced: with operations held back, and on a burst of writes."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.rados.faults import Faults, touching
from tests.backend import Backend
from tests.faults.held import PATIENCE, Held, calling, data, running, wrapped

MIB = 1 << 20
FEATURES = (1, 5, 13, 61)
HEADER_READ = touching("rbd_header.*", "read")


@pytest.fixture
def held() -> Iterator[Held]:
    with Held() as held:
        yield held


@pytest.fixture(params=["cached", "uncached"])
def conf(request: pytest.FixtureRequest) -> dict[str, str]:
    """Of a client that keeps writes from the first one on, or none."""
    if request.param == "uncached":
        return {"rbd_cache": "false"}
    return {"rbd_cache": "true", "rbd_cache_writethrough_until_flush": "false"}


def make(ioctx: Any, features: int, name: str = "image", objects: int = 8) -> None:
    rbd.RBD().create(ioctx, name, objects * MIB, 20, features=features, old_format=False)


def bytes_at(backend: Backend, snapshot: str | None, objects: int, name: str = "image") -> list[bytes]:
    """The first byte of each object, as another client sees it."""
    with rbd.Image(backend.ioctx(), name, snapshot, read_only=True) as image:
        return [image.read(number * MIB, 1) for number in range(objects) if number * MIB < image.size()]


# --- what is known is replaced whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("features", FEATURES)
def test_writes_after_a_snapshot_are_not_in_it(backend: Backend, conf: dict[str, str], features: int) -> None:
    """A burst at once after create_snap, twenty times over."""
    ioctx = backend.ioctx(cluster=backend.connect(**conf))
    make(ioctx, features)
    with rbd.Image(ioctx, "image") as image:
        for number in range(8):
            image.write(b"\0", number * MIB)
        for round_ in range(1, 21):
            image.create_snap(f"s{round_}")
            burst = [image.aio_write(bytes([round_]), number * MIB, lambda _: None) for number in range(8)]
            for completion in burst:
                completion.wait_for_complete_and_cb()
                assert completion.get_return_value() == 0
    for round_ in range(1, 21):
        assert bytes_at(backend, f"s{round_}", 8) == [bytes([round_ - 1])] * 8


@pytest.mark.parametrize("features", FEATURES)
def test_the_size_that_was_told_holds_at_once(backend: Backend, conf: dict[str, str], features: int) -> None:
    """After a shrink nothing is written beyond the new end; after growth all of the new range is."""
    ioctx = backend.ioctx(cluster=backend.connect(**conf))
    make(ioctx, features)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"x", 0)
        for _ in range(20):
            image.resize(2 * MIB)
            inside, beyond = (image.aio_write(b"S", number * MIB, lambda _: None) for number in (0, 6))
            inside.wait_for_complete_and_cb()
            beyond.wait_for_complete_and_cb()
            assert (inside.get_return_value(), beyond.get_return_value()) == (0, -22)
            image.resize(8 * MIB)
            inside, beyond = (image.aio_write(b"G", number * MIB, lambda _: None) for number in (0, 5))
            inside.wait_for_complete_and_cb()
            beyond.wait_for_complete_and_cb()
            assert (inside.get_return_value(), beyond.get_return_value()) == (0, 0)
            assert image.read(6 * MIB, 1) == b"\0"


@pytest.mark.parametrize("features", FEATURES)
def test_who_comes_while_the_header_is_read_waits_for_it(backend: Backend, held: Held, features: int) -> None:
    """A snapshot of this handle's, or of another client's: of two writes after it, the second passes no more than the
    first does."""
    ioctx = held.ioctx(backend, rbd_cache="false")
    make(ioctx, features)
    with rbd.Image(ioctx, "image") as image:
        for number in range(2):
            image.write(b"A", number * MIB)
        if features & 4:
            image.create_snap("s")
        else:
            with rbd.Image(backend.ioctx(cluster=backend.connect()), "image") as other:
                other.create_snap("s")
        slow = held.hold(HEADER_READ)
        with running(image.write, b"B", 0) as first:
            slow.arrived()
            with running(image.write, b"B", MIB) as second:
                assert second.waits()
                slow.let_go()
                assert first.result() == second.result() == 1
    assert bytes_at(backend, "s", 2) == [b"A", b"A"]
    assert bytes_at(backend, None, 2) == [b"B", b"B"]


def test_an_update_that_comes_while_the_header_is_read_is_not_missed(backend: Backend, held: Held) -> None:
    """The answer is of before a second snapshot, which is announced before the answer comes."""
    ioctx = held.ioctx(backend, rbd_cache="false")
    make(ioctx, 1)
    with rbd.Image(ioctx, "image") as image, rbd.Image(backend.ioctx(cluster=backend.connect()), "image") as other:
        image.write(b"A", 0)
        other.create_snap("s1")
        slow = held.hold(HEADER_READ, done=True)
        with running(image.write, b"B", 0) as write:
            slow.arrived()
            other.create_snap("s2")
            slow.let_go()
            write.result()
    assert bytes_at(backend, "s1", 1) == bytes_at(backend, "s2", 1) == [b"A"]


def test_a_long_write_goes_into_no_snapshot_that_was_announced(backend: Backend, held: Held) -> None:
    """More objects than are written at once: those that begin after another client's snapshot, on an image without a
    lock, do so under its context."""
    ioctx = held.ioctx(backend, rbd_cache="false")
    make(ioctx, 1, objects=64)
    with rbd.Image(ioctx, "image") as image, rbd.Image(backend.ioctx(cluster=backend.connect()), "image") as other:
        image.write(b"A" * (64 * MIB), 0)
        slow = held.hold(lambda request: request.oid.startswith("rbd_data.") and request.kind == "write", times=32)
        with running(image.write, b"B" * (64 * MIB), 0) as write:
            slow.arrived()
            other.create_snap("s")
            slow.let_go()
            write.result()
    assert bytes_at(backend, "s", 64)[32:] == [b"A"] * 32


# --- what is done to the whole image ---------------------------------------------------------------------------------

WHOLE: dict[str, tuple[Callable[[Any], None], Callable[..., bool]]] = {
    "resize": (lambda image: image.resize(2 * MIB), data(5, "write")),
    "rollback": (lambda image: image.rollback_to_snap("old"), data(5, "rollback")),
}


@pytest.mark.parametrize("what", WHOLE)
def test_no_snapshot_is_taken_in_the_middle(backend: Backend, held: Held, what: str) -> None:
    """Neither by the one at work nor by another client, which asks it to."""
    act, where = WHOLE[what]
    ioctx = held.ioctx(backend, rbd_cache="false")
    make(ioctx, 61)
    with rbd.Image(ioctx, "image") as image, rbd.Image(backend.ioctx(cluster=backend.connect()), "image") as other:
        for number in range(8):
            image.write(b"A", number * MIB)
        image.create_snap("old")
        for number in range(8):
            image.write(b"B", number * MIB)
        slow = held.hold(where)
        with running(act, image) as work:
            slow.arrived()
            with running(image.create_snap, "mine") as mine, running(other.create_snap, "theirs") as theirs:
                assert mine.waits()
                assert theirs.waits()
                slow.let_go()
                work.result()
                mine.result()
                theirs.result()
        after = bytes_at(backend, None, 8)
        assert bytes_at(backend, "mine", 8) == bytes_at(backend, "theirs", 8) == after
        assert after == ([b"B"] * 2 if what == "resize" else [b"A"] * 8)


def test_a_snapshot_goes_before_the_next_is_taken(backend: Backend, held: Held) -> None:
    """Else the map of the one that is taken calls unchanged what changed while the other was there."""
    ioctx = held.ioctx(backend, rbd_cache="false")
    make(ioctx, 61)
    with rbd.Image(ioctx, "image") as image, rbd.Image(backend.ioctx(cluster=backend.connect()), "image") as other:
        image.write(b"0", 0)
        image.create_snap("s1")
        image.write(b"1", 0)
        image.create_snap("s2")
        slow = held.hold(calling("snapshot_trash_add"), done=True)
        with running(image.remove_snap, "s2") as removal:
            slow.arrived()
            with running(other.create_snap, "s3") as taking:
                assert taking.waits()
                slow.let_go()
                removal.result()
                taking.result()
    with rbd.Image(backend.ioctx(), "image", "s3", read_only=True) as image:
        for whole in (False, True):
            found: list[tuple[Any, ...]] = []
            image.diff_iterate(0, image.size(), "s1", partial(_keep, found), whole_object=whole)
            assert [extent[0] for extent in found] == [0]
        assert image.flags() == 0


def _keep(found: list[tuple[Any, ...]], *extent: Any) -> None:
    found.append(extent)


def test_a_map_is_not_rebuilt_while_the_image_grows(backend: Backend, held: Held) -> None:
    ioctx = held.ioctx(backend, rbd_cache="false")
    make(ioctx, 61)
    with rbd.Image(ioctx, "image") as image:
        for number in range(8):
            image.write(b"A", number * MIB)
        slow = held.hold(data(5, "read"))
        with running(image.rebuild_object_map) as rebuild:
            slow.arrived()
            with running(image.resize, 16 * MIB) as growth:
                assert growth.waits()
                slow.let_go()
                rebuild.result()
                growth.result()
        image.write(b"B", 15 * MIB)
        assert image.flags() == 0
    with rbd.Image(backend.ioctx(cluster=backend.connect()), "image") as image:
        image.write(b"C", 14 * MIB)  # takes the lock, and so looks at the map
        assert image.flags() == 0
        assert image.read(15 * MIB, 1) == b"B"


class Writer:
    """Writes one number after the other to the first byte, each once the one before it is acknowledged, until that is
    refused because the image is not to be written to."""

    def __init__(self, image: Any) -> None:
        self._image = image
        self._ended = threading.Event()
        self.last = 0
        self._begin(1)

    def _begin(self, number: int) -> None:
        self._image.aio_write(bytes([number % 250]), 0, partial(self._completed, number))

    def _completed(self, number: int, completion: Any) -> None:
        self.result = completion.get_return_value()
        if self.result == 0:
            self.last = number
            self._begin(number + 1)
        else:
            self._ended.set()

    def end(self) -> None:
        assert self._ended.wait(PATIENCE)
        assert self.result == -30


def test_nothing_is_written_after_a_demotion(backend: Backend) -> None:
    """What was acknowledged through the very handle is in the demotion's snapshot."""
    ioctx = backend.ioctx(cluster=backend.connect(rbd_cache="false"))
    rbd.RBD().mirror_mode_set(ioctx, rbd.RBD_MIRROR_MODE_IMAGE)
    for number in range(4):
        name = f"image{number}"
        make(ioctx, 61, name, objects=4)
        with rbd.Image(ioctx, name) as image:
            image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT)
            writer = Writer(image)
            image.mirror_image_demote()
            writer.end()
            last = max(snapshot["id"] for snapshot in image.list_snaps())
        with rbd.Image(ioctx, name, read_only=True) as look:
            look.set_snap_by_id(last)
            assert look.read(0, 1) == bytes([writer.last % 250])


# --- what was sent, and whose answer did not come ---------------------------------------------------------------------


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("features", [1, 61])
def test_a_shrink_without_an_answer(backend: Backend, features: int, done: bool) -> None:
    """Whether or not it was done, what is written afterwards is where the image says that it is."""
    faults = Faults()
    ioctx = wrapped(backend.ioctx(cluster=backend.connect(rbd_cache="false")), faults)
    make(ioctx, features)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"A", 0)
        faults.fail(110, when=calling("set_size"), sent=done)
        with pytest.raises(rbd.Error):
            image.resize(2 * MIB)
        assert image.size() == (2 if done else 8) * MIB
        if done:
            with pytest.raises(rbd.InvalidArgument):
                image.write(b"B", 6 * MIB)
        else:
            image.write(b"B", 6 * MIB)
        image.resize(8 * MIB)
        assert image.read(6 * MIB, 1) == (b"\0" if done else b"B")


@pytest.mark.parametrize("features", [1, 61])
def test_a_snapshot_without_an_answer(backend: Backend, features: int) -> None:
    """It is there, so what is written afterwards is not in it."""
    faults = Faults()
    ioctx = wrapped(backend.ioctx(cluster=backend.connect(rbd_cache="false")), faults)
    make(ioctx, features)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"A", 0)
        faults.fail(110, when=calling("snapshot_add"), sent=True)
        with contextlib.suppress(rbd.Error):
            image.create_snap("s")
        image.write(b"B", 0)
        assert image.snap_exists("s")
    assert bytes_at(backend, "s", 1) == [b"A"]
