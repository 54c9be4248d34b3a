"""Acknowledged bytes that did not go out: who hears of it, and that they neither overwrite nor hide what others wrote."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.rados.faults import Faults
from rbd_native.rados.port import Call, Operation
from rbd_native.rados.wrapper import Interceptor, Request
from tests.backend import Backend
from tests.faults.held import Held, Running, data, running, wrapped

MIB = 1 << 20
KEPT = {
    "rbd_cache": "true",
    "rbd_cache_writethrough_until_flush": "false",
    "rbd_cache_policy": "writeback",
    "rbd_cache_max_dirty_age": "600",
}
"""What is written stays in the cache until something wants it out."""


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def image(backend: Backend, faults: Faults) -> Iterator[Any]:
    ioctx = wrapped(backend.ioctx(cluster=backend.connect(**KEPT)), faults)
    rbd.RBD().create(ioctx, "image", 8 * MIB, 20, features=61, old_format=False)
    image = rbd.Image(ioctx, "image")
    image.write(b"0" * 8, 0)
    image.flush()
    yield image
    with contextlib.suppress(rbd.Error):
        image.close()


def lose(image: Any, faults: Faults) -> None:
    """Acknowledged, and refused by the cluster when it goes out."""
    faults.fail(28, when=data(0, "write"))
    image.write(b"lost", 0)


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Its result, or the class of what it raised."""
    try:
        return Running(function).result()
    except rbd.Error as error:
        return type(error)


def test_once(image: Any, faults: Faults) -> None:
    lose(image, faults)
    with pytest.raises(rbd.Error):
        image.flush()
    image.flush()
    image.close()


def look_for_changes(image: Any) -> None:
    image.diff_iterate(0, MIB, None, lambda *extent: None)


@pytest.mark.parametrize(
    "act", [lambda image: image.create_snap("s"), look_for_changes, lambda image: image.invalidate_cache()]
)
def test_nobody_takes_it_from_the_writer(image: Any, faults: Faults, act: Callable[[Any], None]) -> None:
    """What waits for writes on its way to something else."""
    lose(image, faults)
    with contextlib.suppress(rbd.Error):
        act(image)
    with pytest.raises(rbd.Error):
        image.flush()
    image.flush()


def test_another_threads_flush_does_not_take_it(image: Any, faults: Faults) -> None:
    lose(image, faults)
    assert issubclass(in_a_thread(image.flush), rbd.Error)
    with pytest.raises(rbd.Error):
        image.flush()
    image.flush()
    assert in_a_thread(image.flush) is None


def test_two_flushes_at_once(backend: Backend) -> None:
    """Both began before it was lost, and both wait for it."""
    with Held() as held:
        faults = Faults()
        ioctx = wrapped(held.ioctx(backend, **KEPT), faults)
        rbd.RBD().create(ioctx, "image", 8 * MIB, 20, features=61, old_format=False)
        image = rbd.Image(ioctx, "image")
        image.write(b"0" * 8, 0)
        image.flush()
        slow = held.hold(data(0, "write"), done=True)
        faults.fail(28, when=data(0, "write"), sent=True)
        image.write(b"lost", 0)
        with running(image.flush) as one, running(image.flush) as other:
            slow.arrived()
            slow.let_go()
            for flush in (one, other):
                with pytest.raises(rbd.Error):
                    flush.result()
        with pytest.raises(rbd.Error):
            image.flush()  # in the thread that wrote
        image.close()


def test_close_tells_who_has_not_flushed(image: Any, faults: Faults) -> None:
    lose(image, faults)
    with pytest.raises(rbd.Error):
        image.close()


class Bursting(Interceptor):
    """Raises what no cluster does, once."""

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]
        self.armed = False

    def operation(self, request: Request, inner: Operation) -> Operation:
        if self.armed and data(0, "write")(request) and self._errors:
            raise self._errors.pop()
        return inner

    def call(self, request: Request, inner: Call) -> Call:
        return inner


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError(), ZeroDivisionError()])
def test_whatever_it_is(backend: Backend, error: BaseException) -> None:
    bursting = Bursting(error)
    ioctx = wrapped(backend.ioctx(cluster=backend.connect(**KEPT)), bursting)
    rbd.RBD().create(ioctx, "image", 8 * MIB, 20, features=61, old_format=False)
    image = rbd.Image(ioctx, "image")
    image.write(b"0" * 8, 0)
    image.flush()
    bursting.armed = True
    image.write(b"lost", 0)
    with pytest.raises(rbd.IOError):
        image.flush()
    image.write(b"more", 0)
    image.close()
    with rbd.Image(backend.ioctx(), "image", read_only=True) as look:
        assert look.read(0, 4) == b"more"


# --- terms of the lock -------------------------------------------------------------------------------------------------


def steal(backend: Backend, ioctx: Any) -> Any:
    """The lock, broken without the owner being fenced; a handle that then has it."""
    other = rbd.Image(ioctx, "image")
    lockers: Any = other.list_lockers()
    (client, cookie, _), *_ = lockers["lockers"]
    other.break_lock(client, cookie)
    return other


def test_what_was_kept_in_another_term_is_neither_written_nor_shown(backend: Backend) -> None:
    mine = backend.ioctx(cluster=backend.connect(**KEPT))
    theirs = backend.ioctx(cluster=backend.connect(rbd_cache="false", rbd_blocklist_on_break_lock="false"))
    rbd.RBD().create(mine, "image", 8 * MIB, 20, features=61, old_format=False)
    image = rbd.Image(mine, "image")
    image.write(b"0" * 8, 0)
    image.flush()
    image.write(b"old!", 0)  # kept
    with steal(backend, theirs) as other:
        other.write(b"new!", 0)
        other.flush()
        image._context._own_lock.lost()  # as the next change of the object map would find
        assert image.read(0, 4) == b"new!"
        image.write(b"mine", 4)
        assert image.read(0, 8) == b"new!mine"
        with pytest.raises(rbd.Error):
            image.flush()
        image.flush()
        assert other.read(0, 8) == b"new!mine"
    image.close()


def test_a_lock_that_comes_to_be_is_taken_for_what_is_kept(backend: Backend) -> None:
    """Another client turns exclusive-lock on: bytes that were accepted without it go out under it."""
    mine = backend.ioctx(cluster=backend.connect(**KEPT))
    theirs = backend.ioctx(cluster=backend.connect())
    rbd.RBD().create(mine, "image", 8 * MIB, 20, features=1, old_format=False)
    with rbd.Image(mine, "image") as image, rbd.Image(theirs, "image") as other:
        image.write(b"0" * 8, 0)
        image.flush()
        image.write(b"kept", 0)
        other.update_features(rbd.RBD_FEATURE_EXCLUSIVE_LOCK, True)
        other.write(b"more", 4)
        image.flush()
        assert image.read(0, 8) == b"keptmore"
    with rbd.Image(theirs, "image", read_only=True) as look:
        assert look.read(0, 8) == b"keptmore"


# --- handles that end -------------------------------------------------------------------------------------------------


def test_reads_that_are_under_way_end_before_the_handle_does(backend: Backend) -> None:
    with Held() as held:
        ioctx = held.ioctx(backend)
        rbd.RBD().create(ioctx, "image", 8 * MIB, 20, features=61, old_format=False)
        image = rbd.Image(ioctx, "image")
        image.write(b"data", 0)
        slow = held.hold(data(0, "read"))
        got: list[Any] = []
        done = threading.Event()

        def came(completion: Any, read: Any) -> None:
            got.append(read)
            done.set()

        image.aio_read(0, 4, came)
        slow.arrived()
        with running(image.close) as close:
            assert close.waits()
            slow.let_go()
            close.result()
            assert held.under_way == 0
        assert done.wait(60)
        assert got == [b"data"]
