"""Writes that are acknowledged before the cluster has them: seen by whoever must see them, and never lost once flushed."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import embedded
from rbd_native.engine import run
from rbd_native.image import io as writing
from rbd_native.image.reading import read
from rbd_native.operations import create
from rbd_native.operations.open import open_image
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import Call, Operation, RadosError, Write, WriteFull
from rbd_native.rados.wrapper import Interceptor, Request, wrap
from rbd_native.striping import Layout
from tests.family.content import Content
from tests.image.room import Room
from tests.sharing.model import MIB, Dice

AT_ONCE = {"rbd_cache_writethrough_until_flush": "false"}
LATER = AT_ONCE | {"rbd_cache_policy": "writeback", "rbd_cache_max_dirty_age": "600"}
TIGHT = LATER | {"rbd_cache_max_dirty": "150000", "rbd_cache_target_dirty": "60000"}
SIZE = 4 * MIB

LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"order": 16, "features": 1},
    "map": {"order": 17, "features": 61},
    "striped": {"order": 16, "features": 61, "stripe_unit": 4096, "stripe_count": 3},
}


@contextlib.contextmanager
def new_image(room: Room, options: dict[str, str], name: str = "image", **layout: Any) -> Iterator[rbd.Image]:
    ioctx = room.ioctx(cluster=room.connect(**options))
    rbd.RBD().create(ioctx, name, SIZE, **layout or LAYOUTS["map"])
    with rbd.Image(ioctx, name) as image:
        yield image


def elsewhere(room: Room, offset: int, length: int, name: str = "image", snapshot: str | None = None) -> bytes:
    """What a client that only reads finds."""
    with rbd.Image(room.ioctx(), name, snapshot, read_only=True) as image:
        return image.read(offset, length)


@pytest.mark.parametrize("options", [AT_ONCE, LATER, TIGHT], ids=["writearound", "writeback", "tight"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_like_a_bytearray(room: Room, options: dict[str, str], layout: str) -> None:
    given = LAYOUTS[layout]
    unit, count = given.get("stripe_unit", 1 << given["order"]), given.get("stripe_count", 1)
    model = Content(bytes(SIZE), Layout(given["order"], unit, count))
    dice = Dice(len(layout), SIZE, given["order"])
    with new_image(room, options, **given) as image:
        for number in range(250):
            operation = dice.operation(model.size)
            wanted = getattr(model, operation[0])(*operation[1:])
            found = getattr(image, operation[0])(*operation[1:])
            if operation[0] == "read":
                assert found == wanted, (number, operation[1:])
            if number % 50 == 49:
                image.flush()
                assert elsewhere(room, 0, model.size) == model.data
    assert elsewhere(room, 0, model.size) == model.data


@pytest.mark.parametrize("options", [AT_ONCE, LATER, TIGHT], ids=["writearound", "writeback", "tight"])
def test_many_at_once(room: Room, options: dict[str, str]) -> None:
    """Small writes side by side, several to each object, and what is no write in between."""
    rng = random.Random(5)
    model = Content(bytes(SIZE), Layout(17, 1 << 17, 1))
    with new_image(room, options) as image:
        for _ in range(12):
            places = rng.sample(range(0, SIZE, 4096), 120)
            waiting = []
            for number, offset in enumerate(places):
                if number % 9 == 0:
                    model.write_zeroes(offset, 4096)
                    waiting.append(image.aio_write_zeroes(offset, 4096, lambda completion: None))
                else:
                    data = rng.randbytes(4096)
                    model.write(data, offset)
                    waiting.append(image.aio_write(data, offset, lambda completion: None))
            for completion in waiting:
                completion.wait_for_complete_and_cb()
                assert completion.get_return_value() == 0
            assert image.read(0, SIZE) == model.data
    assert elsewhere(room, 0, SIZE) == model.data


def test_only_what_was_flushed_is_there(room: Room) -> None:
    with new_image(room, LATER) as image:
        image.write(b"first", 0)
        assert image.read(0, 7) == b"first\0\0"
        assert elsewhere(room, 0, 5) == bytes(5)
        image.flush()
        assert elsewhere(room, 0, 5) == b"first"
        image.write(b"other", 0)
        assert elsewhere(room, 0, 5) == b"first"
    assert elsewhere(room, 0, 5) == b"other", "the close writes it out"


def test_through_until_the_first_flush(room: Room) -> None:
    with new_image(room, {"rbd_cache_policy": "writeback", "rbd_cache_max_dirty_age": "600"}) as image:
        image.write(b"first", 0)
        assert elsewhere(room, 0, 5) == b"first"
        image.flush()
        image.write(b"later", 0)
        assert elsewhere(room, 0, 5) == b"first"
        image.aio_flush(lambda completion: None).wait_for_complete_and_cb()
        assert elsewhere(room, 0, 5) == b"later"


@pytest.mark.parametrize(
    "options",
    [{"rbd_cache": "false"}, {"rbd_cache_policy": "writethrough"}, {"rbd_cache_max_dirty": "0"}],
    ids=lambda options: "-".join(*options.items()),
)
def test_none(room: Room, options: dict[str, str]) -> None:
    with new_image(room, LATER | options) as image:
        image.flush()
        image.write(b"data", 0)
        assert elsewhere(room, 0, 4) == b"data"


def test_grows_old(room: Room) -> None:
    with new_image(room, LATER | {"rbd_cache_max_dirty_age": "0.2"}) as image:
        image.write(b"data", 0)
        until = time.monotonic() + 20
        while elsewhere(room, 0, 4) != b"data":
            assert time.monotonic() < until, "it was not written out"
            time.sleep(0.02)


def test_buffer_may_change_afterwards(room: Room) -> None:
    with new_image(room, LATER) as image:
        data = bytearray(b"data")
        image.write(data, 0)
        view = memoryview(data)
        image.write(view[1:3], 100)
        data[:] = b"junk"
        assert image.read(0, 4) == b"data"
        assert image.read(100, 2) == b"at"


# --- what makes everything come out ------------------------------------------------------------------------------------


def test_snapshot(room: Room) -> None:
    with new_image(room, LATER) as image:
        image.write(b"before", 0)
        image.create_snap("snap")
        image.write(b"after!", 0)
        assert elsewhere(room, 0, 6, snapshot="snap") == b"before"
        image.rollback_to_snap("snap")
        assert image.read(0, 6) == elsewhere(room, 0, 6) == b"before"
        image.write(b"latest", 0)
        image.set_snap("snap")
        assert image.read(0, 6) == b"before"
        image.set_snap(None)
        assert image.read(0, 6) == b"latest"


def test_resize(room: Room) -> None:
    with new_image(room, LATER) as image:
        image.write(b"x" * 200_000, 0)
        image.resize(100_000)
        image.resize(200_000)
        assert image.read(0, 200_000) == b"x" * 100_000 + bytes(100_000)
    assert elsewhere(room, 0, 200_000) == b"x" * 100_000 + bytes(100_000)


def test_diff(room: Room) -> None:
    with new_image(room, LATER) as image:
        image.write(b"x" * 4096, 8192)
        found: list[tuple[int, int, bool]] = []
        image.diff_iterate(0, SIZE, None, lambda *extent: found.append(extent))
        assert found == [(0, 12288, True)]


@pytest.mark.parametrize("features", [61, 1])
def test_clone(room: Room, features: int) -> None:
    """What the parent has comes along with the bytes that were kept."""
    with new_image(room, AT_ONCE) as image:
        image.write(b"p" * SIZE, 0)
        image.create_snap("snap")
    ioctx = room.ioctx(cluster=room.connect(**LATER))
    rbd.RBD().clone(ioctx, "image", "snap", ioctx, "clone", features=features, clone_format=2)
    with rbd.Image(ioctx, "clone") as clone:
        clone.write(b"c" * 10, 5)
        assert clone.read(0, 20) == b"p" * 5 + b"c" * 10 + b"p" * 5
        clone.discard(0, 1 << 17)
        clone.write(b"d" * 10, 100)
        clone.flatten()
        assert clone.read(0, SIZE) == bytes(100) + b"d" * 10 + bytes((1 << 17) - 110) + b"p" * (SIZE - (1 << 17))
    assert elsewhere(room, 0, 110, "clone") == bytes(100) + b"d" * 10


def test_lock_goes_elsewhere(room: Room) -> None:
    """Whoever owns the lock next finds all that was written before."""
    others: list[Any] = [rbd]
    if room.kind == "ceph":
        import rbd as librbd

        others.append(librbd)
    with new_image(room, LATER) as image:
        for number, module in enumerate(others):
            image.write(b"kept%d" % number, 0)
            with module.Image(room.ioctx(cluster=room.connect()), "image") as second:
                second.write(b"mine", 5)
                assert second.read(0, 9) == b"kept%dmine" % number
                assert not image.is_exclusive_lock_owner()
            image.write(b"back", 9)
            assert image.read(0, 13) == b"kept%dmineback" % number


def test_features(room: Room) -> None:
    with new_image(room, LATER) as image:
        image.write(b"kept", 0)
        image.update_features(4 | 8 | 16, False)
        image.write(b"more", 4)
        assert image.read(0, 8) == b"keptmore"
    assert elsewhere(room, 0, 8) == b"keptmore"


# --- what goes wrong ---------------------------------------------------------------------------------------------------


def test_fenced(room: Room) -> None:
    """The flush says that what was acknowledged did not come through; after it, nothing does either."""
    with contextlib.suppress(rbd.ConnectionShutdown), new_image(room, LATER) as image:
        image.write(b"safe", 0)
        image.flush()
        image.write(b"lost", 0)
        (owner,) = image.lock_get_owners()
        port = port_for(room.ioctx())
        run(_fence(port, owner["owner"]))
        with pytest.raises(rbd.ConnectionShutdown):
            image.flush()
    assert elsewhere(room, 0, 4) == b"safe"


async def _fence(port: Any, address: str) -> None:
    await port.cluster.blocklist_add(address, 3600)
    await port.cluster.wait_for_latest_map()


class Refusing(Interceptor):
    """Refuses data, while it is told to, and counts the writes of data."""

    def __init__(self) -> None:
        self.refuses = False
        self.writes = 0

    def operation(self, request: Request, inner: Operation) -> Operation:
        if any(type(step) in (Write, WriteFull) for step in request.steps) and request.oid.startswith("rbd_data"):
            self.writes += 1
            if self.refuses:
                raise RadosError(28, request.oid)
        return inner

    def call(self, request: Request, inner: Call) -> Call:
        return inner


async def _open(port: Any, interceptor: Refusing) -> Any:
    await create.create(port, "image", create.Wish(SIZE, order=20))
    return await open_image(wrap(port, interceptor), name="image")


def test_refused_later(room: Room) -> None:
    """Every flush of a user's tells of its own: what is refused is not tried again."""
    refusing = Refusing()
    image = run(_open(port_for(room.ioctx(cluster=room.connect(**AT_ONCE))), refusing))

    async def go() -> None:
        await writing.write(image, 0, b"good")
        await writing.flush_of_user(image)
        refusing.refuses = True
        await writing.write(image, 0, b"bad!")
        with pytest.raises(RadosError) as caught:
            await writing.flush_of_user(image)
        assert caught.value.errno == 28
        refusing.refuses = False
        await writing.flush_of_user(image)
        assert await read(image, 0, 4) == b"good"
        await writing.write(image, 0, b"more")
        refusing.refuses = True
        await writing.write(image, 100, b"lost")
        with pytest.raises(RadosError):
            await image.close()

    run(go())
    assert elsewhere(room, 0, 4) == b"more"


def test_small_writes_become_large_ones(room: Room) -> None:
    refusing = Refusing()
    image = run(_open(port_for(room.ioctx(cluster=room.connect(**LATER))), refusing))

    async def go() -> None:
        for offset in range(0, 2 * MIB, 4096):
            await writing.write(image, offset, b"%4d" % (offset >> 12) * 1024)
        await writing.flush(image)
        await image.close()

    run(go())
    assert refusing.writes == 2
    assert elsewhere(room, 2 * MIB - 4096, 4) == b" 511"


# --- killed ------------------------------------------------------------------------------------------------------------

WRITER = """
import sys
import rbd_native as rbd
from rbd_native import embedded as rados
options = {"embedded_path": sys.argv[1], "rbd_cache_writethrough_until_flush": "false", "rbd_cache_policy": sys.argv[2]}
with rados.Rados(conf=options) as cluster, cluster.open_ioctx("rbd") as ioctx, rbd.Image(ioctx, "image") as image:
    number = int(sys.argv[3])
    while True:
        for place in range(4):
            image.write(b"%08d" % number * 512, (number * 4 + place) * 4096 % (4 << 20))
        image.flush()
        print(number, flush=True)
        number += 1
"""


@pytest.mark.parametrize("policy", ["writearound", "writeback"])
def test_killed(tmp_path: Path, policy: str) -> None:
    """Whatever was flushed is there, however the writer ends."""
    path = str(tmp_path / "cluster")
    with embedded.Rados(conf={"embedded_path": path}) as cluster, cluster.open_ioctx("rbd") as ioctx:
        rbd.RBD().create(ioctx, "image", SIZE, order=16, features=1)  # no lock of the dead to wait for
        number = 0
        for seconds in (0.01, 0.03, 0.1):
            command = [sys.executable, "-c", WRITER, path, policy, str(number)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent.parent) as writer:
                assert writer.stdout is not None
                flushed = [int(writer.stdout.readline())]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    writer.wait(seconds)
                writer.send_signal(signal.SIGKILL)
                flushed += map(int, writer.stdout.read().split())
            with rbd.Image(ioctx, "image", read_only=True) as image:
                for done in flushed[-250:]:
                    for place in range(4):
                        assert image.read((done * 4 + place) * 4096 % SIZE, 8) in (b"%08d" % done, b"%08d" % (done + 256))
            number = flushed[-1] + 1


ENDS = {
    "end of the program": "image = rbd.Image(ioctx, 'image'); image.write(b'kept', 0)",
    "nobody refers to it": "rbd.Image(ioctx, 'image').write(b'kept', 0); cluster.shutdown()",
    "another process ends": (
        "import os; image = rbd.Image(ioctx, 'image'); image.write(b'kept', 0)\n"
        "if not os.fork(): sys.exit()\n"
        "os.wait(); image.close()"
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_not_closed(tmp_path: Path, how: str) -> None:
    """Whoever forgets to close an image has it closed for him."""
    path = str(tmp_path / "cluster")
    options = LATER | {"embedded_path": path}
    program = f"""
import sys
import rbd_native as rbd
from rbd_native import embedded as rados
cluster = rados.Rados(conf={options!r})
cluster.connect()
ioctx = cluster.open_ioctx("rbd")
{ENDS[how]}
"""
    with embedded.Rados(conf={"embedded_path": path}) as cluster, cluster.open_ioctx("rbd") as ioctx:
        rbd.RBD().create(ioctx, "image", SIZE)
        home = Path(__file__).parent.parent.parent
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=home, timeout=60, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        with rbd.Image(ioctx, "image") as image:
            assert image.read(0, 4) == b"kept"
            assert image.list_lockers() == []
