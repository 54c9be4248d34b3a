"""The exclusive lock when answers do not come, when it is lost, and when its owner is fenced; requests of its owner."""

import contextlib
import errno
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.image.lock_states import State
from rbd_native.rados.faults import Faults, touching
from tests.backend import Backend
from tests.faults.held import Held, calling, data, running, wrapped

MIB = 1 << 20
WATCH_LOST = errno.ENOTCONN


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def mine(backend: Backend, faults: Faults) -> Any:
    return wrapped(backend.ioctx(cluster=backend.connect(rbd_cache="false")), faults)


@pytest.fixture
def theirs(backend: Backend) -> Any:
    return backend.ioctx(cluster=backend.connect(rbd_cache="false"))


@pytest.fixture
def image(mine: Any) -> Iterator[Any]:
    """It owns the lock."""
    rbd.RBD().create(mine, "image", 8 * MIB, 20, features=61, old_format=False)
    with rbd.Image(mine, "image") as image:
        image.write(b"mine", 0)
        yield image


def fenced_addresses(backend: Backend) -> set[str]:
    """Of all clients of the cluster, other tests' too."""
    request = '{"prefix": "osd blocklist ls", "format": "json"}'
    status, answer, _ = backend.cluster.mon_command(request, b"")
    assert status == 0
    entries, _ = json.JSONDecoder().raw_decode(answer.decode())  # the number of entries may follow
    return {entry["addr"] for entry in entries}


# --- without an answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("times", [1, 3, 4])
def test_a_new_watch_whose_cookie_the_lock_has_not_got(
    backend: Backend, faults: Faults, image: Any, theirs: Any, times: int, done: bool
) -> None:
    """A timeout is not the loss of the lock: nobody is fenced, and the lock goes over in peace."""
    before = fenced_addresses(backend)
    faults.fail(errno.ETIMEDOUT, when=calling("set_cookie"), times=times, sent=done)
    image._context.watch._on_error(WATCH_LOST)
    image.write(b"more", 4)
    assert image.is_exclusive_lock_owner()
    with rbd.Image(theirs, "image") as other:
        other.write(b"them", 8)
        assert other.is_exclusive_lock_owner()
        assert other.read(0, 12) == b"minemorethem"
    image.write(b"back", 0)
    assert image.is_exclusive_lock_owner()
    assert fenced_addresses(backend) <= before


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EBUSY])
def test_a_lock_that_is_somebody_elses_is_lost(faults: Faults, image: Any, code: int) -> None:
    """By the OSD's word. It is taken anew."""
    lock = image._context.lock
    term = lock.term
    faults.fail(code, when=calling("set_cookie"))
    _break(image)
    image._context.watch._on_error(WATCH_LOST)
    assert image.read(0, 4) == b"mine"
    image.write(b"anew", 0)
    assert lock.term == term + 1
    assert image.is_exclusive_lock_owner()


def _break(image: Any) -> None:
    """Behind its back."""
    from rbd_native import cls_lock, names
    from rbd_native.cls_client import mutate
    from rbd_native.engine import run

    context = image._context
    (who,) = run(context._own_lock.locker())[:1]
    run(mutate(context.io, context.header_oid, cls_lock.break_lock(names.LOCK_NAME, who.name, who.cookie)))


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_giving_back_without_an_answer(faults: Faults, image: Any, theirs: Any, times: int, done: bool) -> None:
    """Somebody else gets it all the same, without waiting for the handle to be closed."""
    faults.fail(errno.ETIMEDOUT, when=calling("unlock"), times=times, sent=done)
    with rbd.Image(theirs, "image") as other:
        other.write(b"them", 4)
        assert other.read(0, 8) == b"minethem"
    image.write(b"back", 0)
    assert image.is_exclusive_lock_owner()


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_taking_without_an_answer(faults: Faults, mine: Any, theirs: Any, done: bool) -> None:
    """What is not known to be held is not written under, nor left behind."""
    rbd.RBD().create(mine, "image", 8 * MIB, 20, features=61, old_format=False)
    image = rbd.Image(mine, "image")
    faults.fail(errno.ETIMEDOUT, when=calling("lock"), sent=done)
    with pytest.raises(rbd.Error):
        image.write(b"mine", 0)
    assert image._context._own_lock.state is not State.OWNED
    with rbd.Image(theirs, "image") as other:
        other.write(b"them", 0)
        assert other.is_exclusive_lock_owner()
    image.write(b"mine", 4)
    image.close()
    with rbd.Image(theirs, "image") as other:
        assert other.list_lockers() == []
        assert other.read(0, 8) == b"themmine"


def test_lost_while_it_is_given_back(backend: Backend, theirs: Any) -> None:
    """Who waits for an operation to end before it lets the lock go does not keep that operation from taking it anew."""
    with Held() as held:
        mine = held.ioctx(backend, rbd_cache="false")
        rbd.RBD().create(mine, "parent", 8 * MIB, 20, features=61, old_format=False)
        with rbd.Image(mine, "parent") as parent:
            parent.write(b"p" * (8 * MIB), 0)
            parent.create_snap("s")
            parent.protect_snap("s")
        rbd.RBD().clone(mine, "parent", "s", mine, "image", features=61)
        with rbd.Image(mine, "image") as image, rbd.Image(theirs, "image") as other:
            slow = held.hold(data(3))
            with running(image.flatten) as flatten:
                slow.arrived()
                with running(other.write, b"them", 0) as write:
                    assert write.waits()
                    image._context._own_lock.lost()
                    _break(image)
                    slow.let_go()
                    flatten.result()
                    write.result()
            assert image.read(0, 8) == b"thempppp"


# --- what is asked of its owner ----------------------------------------------------------------------------------------


def test_a_handle_that_is_opened_again_asks_anew(backend: Backend, image: Any, theirs: Any) -> None:
    """Its first request is another one, whatever its watch's cookie is."""
    for number in range(20):
        with rbd.Image(theirs, "image") as other:
            other.create_snap("s")
            with rbd.Image(backend.ioctx(), "image", "s", read_only=True) as look:
                assert look.read(0, 4) == b"mine"
            other.remove_snap("s")
            assert not other.snap_exists("s")
        assert image.is_exclusive_lock_owner(), number


def test_an_owner_takes_no_new_request_for_an_old_one(image: Any, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier librbd counts them, the first request of each handle has the same number."""
    import itertools

    from rbd_native.image import requests

    cookies = set()
    for _ in range(20):
        with rbd.Image(theirs, "image") as other:
            cookies.add(other._context.watch.cookie)
            monkeypatch.setattr(requests, "_numbers", itertools.count(1))
            other.create_snap("s")
            assert image.snap_exists("s")
            other.remove_snap("s")
            assert not image.snap_exists("s")


# --- fenced ------------------------------------------------------------------------------------------------------------


def fence(backend: Backend, image: Any) -> None:
    with rbd.Image(backend.ioctx(cluster=backend.connect()), "image") as other:
        (owner,) = other.lock_get_owners()
        other.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner["owner"])


@pytest.fixture
def fenced(backend: Backend) -> Iterator[Any]:
    client = backend.connect(rbd_cache="false")
    ioctx = backend.ioctx(cluster=client)
    rbd.RBD().create(ioctx, "image", 8 * MIB, 20, features=61, old_format=False)
    image = rbd.Image(ioctx, "image")
    image.write(b"mine", 0)
    fence(backend, image)
    yield image
    with contextlib.suppress(rbd.Error):
        image.close()


def test_a_fenced_owner_hears_of_it(fenced: Any) -> None:
    for _ in range(5):
        with pytest.raises(rbd.ConnectionShutdown):
            fenced.is_exclusive_lock_owner()
    with pytest.raises(rbd.ConnectionShutdown):
        fenced.write(b"more", 0)
    with pytest.raises(rbd.ConnectionShutdown):
        fenced.flush()
    assert fenced.size() == fenced.stat()["size"] == 8 * MIB
    assert fenced.features() == 61
    assert fenced.close() is None


def test_closing_does_not_hide_what_came_first(fenced: Any) -> None:
    with pytest.raises(ZeroDivisionError), fenced:
        raise ZeroDivisionError


def test_a_fenced_client_ends_in_peace(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of its handles is under way when their close is over, and nothing was logged."""
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            with Held() as held, backend.connected() as client, client.open_ioctx(backend.pool) as plain:
                ioctx = wrapped(plain, held)
                if "image" not in rbd.RBD().list(ioctx):
                    rbd.RBD().create(ioctx, "image", MIB, 20, features=5, old_format=False)
                image = rbd.Image(ioctx, "image")
                image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
                fence(backend, image)
                image.close()
                assert held.under_way == 0
    assert not caplog.records


@pytest.mark.parametrize("where", ["image that is not there", "watch that fails", "parent that is not there"])
def test_a_failed_open_leaves_nothing_under_way(backend: Backend, where: str) -> None:
    with Held() as held:
        faults = Faults()
        plain = backend.ioctx(cluster=backend.connect())
        ioctx = wrapped(plain, faults, held)
        rbd.RBD().create(plain, "image", MIB, 20, features=61, old_format=False)
        name = "image"
        if where == "image that is not there":
            name = "another"
        elif where == "watch that fails":
            faults.fail(errno.EIO, when=touching("*", "watch"))
        else:
            faults.fail(errno.EIO, when=touching("rbd_header.*", "read"))
        with pytest.raises(rbd.Error):
            rbd.Image(ioctx, name)
        assert held.under_way == 0
        with rbd.Image(plain, "image") as image:
            assert len(list(image.watchers_list())) == 1


ENDING: dict[str, Callable[[Any], None]] = {
    "close": lambda image: image.close(),
    "aio_close": lambda image: image.aio_close(None).wait_for_complete_and_cb(),
}


@pytest.mark.parametrize("end", ENDING)
def test_nothing_is_under_way_after_the_end(backend: Backend, end: str) -> None:
    """With the lock just taken, time stamps due, and reading ahead begun."""
    with Held() as held:
        ioctx = held.ioctx(backend, rbd_mtime_update_interval="1", rbd_readahead_trigger_requests="2")
        rbd.RBD().create(ioctx, "image", 8 * MIB, 20, features=61, old_format=False)
        for _ in range(5):
            image = rbd.Image(ioctx, "image")
            image.write(b"x" * 8192, 0)
            for place in range(6):
                image.read(place * 4096, 4096)
            ENDING[end](image)
            assert held.under_way == 0
