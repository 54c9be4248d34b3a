"""The object maps of two images, one driven by librbd and one by rbd_native through the same operations, byte for byte.

After every operation the map objects of the head and of all snapshots hold the same, and the headers the same flags.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rados
import rbd as real

import rbd_native as ours
from tests.cluster import CephCluster
from tests.sharing.model import GRANULARITY, MIB
from tests.stored import data_objects

SIZE = 6 * MIB + 12345
ORDER = 16
OBJECT = 1 << ORDER
FEATURES = 61

pytestmark = [pytest.mark.ceph, pytest.mark.timeout(300)]


class Side:
    """One of the two images, in a pool of its own."""

    def __init__(self, ceph: CephCluster, module: Any, pool: str) -> None:
        self.module = module
        ceph.create_pool(pool, pg_num=4)
        self.cluster = ceph.rados(rbd_cache="false", rbd_validate_pool="false")
        self.ioctx = self.cluster.open_ioctx(pool)
        self.image: Any = None

    def create(self, name: str, features: int = FEATURES, size: int = SIZE) -> None:
        self.name = name
        self.module.RBD().create(self.ioctx, name, size, order=ORDER, old_format=False, features=features)
        self.reopen()

    def reopen(self) -> None:
        self.close()
        self.image = self.module.Image(self.ioctx, self.name)

    def close(self) -> None:
        if self.image is not None:
            self.image.close()
            self.image = None

    @property
    def map_oid(self) -> str:
        return f"rbd_object_map.{self.image.id()}"

    def maps(self) -> list[bytes | None]:
        """The head's and the snapshots', oldest first; None for one that is not there."""
        snaps = [f".{snap['id']:016x}" for snap in self.image.list_snaps()]
        return [self.raw(self.map_oid + suffix) for suffix in ["", *snaps]]

    def raw(self, oid: str) -> bytes | None:
        try:
            return bytes(self.ioctx.read(oid, 1 << 26))
        except rados.ObjectNotFound:
            return None

    def state(self) -> tuple[Any, ...]:
        return (self.maps(), self.image.flags(), sum(map(self._is_there, data_objects(rados, self.ioctx))))

    def _is_there(self, name: str) -> bool:
        """Not only for the sake of snapshots, of which a removed one is listed until the OSD comes round to it."""
        try:
            self.ioctx.stat(name)
        except rados.ObjectNotFound:
            return False
        return True

    def shut(self) -> None:
        self.close()
        self.ioctx.close()
        self.cluster.shutdown()


class Twins:
    def __init__(self, ceph: CephCluster, name: str) -> None:
        self.theirs = Side(ceph, real, f"{name}-theirs")
        self.mine = Side(ceph, ours, f"{name}-mine")
        self.sides = (self.theirs, self.mine)

    def both(self, act: Callable[[Side], Any], what: Any = None) -> None:
        """The same to both; then they are the same."""
        results = []
        for side in self.sides:
            try:
                results.append(act(side))
            except (real.Error, ours.Error) as error:
                results.append((type(error).__name__, getattr(error, "errno", None)))
        assert results[0] == results[1], what
        deadline = time.monotonic() + 20
        mine, theirs = self.mine.state(), self.theirs.state()
        while mine[:2] == theirs[:2] and mine != theirs and time.monotonic() < deadline:
            # An object whose head is gone is listed until the OSD has got round to trimming its clones.
            time.sleep(0.02)
            mine, theirs = self.mine.state(), self.theirs.state()
        assert mine == theirs, what


@pytest.fixture
def twins(ceph: CephCluster, pool: str) -> Iterator[Twins]:
    twins = Twins(ceph, pool)
    yield twins
    for side in twins.sides:
        side.shut()
    for name in ("theirs", "mine"):
        ceph.remove_pool(f"{pool}-{name}")


def _on_image(method: str, *arguments: Any) -> Callable[[Side], Any]:
    return lambda side: getattr(side.image, method)(*arguments)


def _rolled_back(name: str) -> Callable[[Side], Any]:
    """And the map made anew: librbd's calls unchanged since the newest snapshot what has just been rolled back, which its
    own check finds wrong, and a fast diff misses. Ours is what it is made anew to be."""

    def act(side: Side) -> None:
        side.image.rollback_to_snap(name)
        before = side.maps()
        side.image.rebuild_object_map()
        assert side.module is real or side.maps() == before

    return act


def _extent(dice: random.Random, size: int) -> tuple[int, int]:
    length = min(dice.choice([1, 4096, OBJECT - 1, OBJECT, 5 * OBJECT]), size)
    offset = dice.randrange(size - length + 1)
    unit = dice.choice([1, 4096, GRANULARITY])
    return offset - offset % unit, length


def _operations(seed: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    dice = random.Random(seed)
    size, number = SIZE, 0
    snaps: list[str] = []
    while True:
        kind = dice.random()
        if kind < 0.3:
            offset, length = _extent(dice, size)
            yield "write", (b"%d" % number * (length // len(b"%d" % number) + 1), offset)
        elif kind < 0.5:
            yield "discard", _extent(dice, size)
        elif kind < 0.6:
            yield "write_zeroes", _extent(dice, size)
        elif kind < 0.7:
            size = dice.randrange(1, 2 * SIZE)
            yield "resize", (size,)
        elif kind < 0.82 and len(snaps) < 5:
            snaps.append(f"snap-{number}")
            yield "create_snap", (snaps[-1],)
        elif kind < 0.89 and snaps:
            yield "remove_snap", (snaps.pop(dice.randrange(len(snaps))),)
        elif kind < 0.92 and snaps:
            yield "rollback_to_snap", (dice.choice(snaps),)
        elif kind < 0.95:
            yield "sparsify", (4096,)
        elif kind < 0.97:
            yield "rebuild_object_map", ()
        else:
            yield "reopen", ()
        number += 1


@pytest.mark.parametrize("seed", range(3))
def test_same_maps_after_anything(twins: Twins, seed: int, full: bool) -> None:
    twins.both(lambda side: side.create("image"))
    for count, (method, arguments) in enumerate(_operations(seed)):
        if count > (600 if full else 80):
            break
        if method == "write":
            data, offset = arguments
            arguments = (data[: max(twins.theirs.image.size() - offset, 1)], offset)
        if method == "reopen":
            twins.both(Side.reopen)
        elif method == "rollback_to_snap":
            twins.both(_rolled_back(*arguments), (count, method))
            twins.both(_on_image("resize", twins.theirs.image.size() + 1), (count, "resize"))
        else:
            twins.both(_on_image(method, *arguments), (count, method, arguments[1:]))
    for side in twins.sides:
        assert side.image.read(0, side.image.size()) == twins.theirs.image.read(0, twins.theirs.image.size())


@pytest.mark.parametrize("seed", range(2))
def test_snapshots_of_librbd(twins: Twins, seed: int, full: bool) -> None:
    """On both images it is librbd that takes and removes snapshots: what exists is clean in our map then."""
    twins.both(lambda side: side.create("image"))
    with real.Image(twins.mine.ioctx, "image") as helper:
        for count, (method, arguments) in enumerate(_operations(seed + 50)):
            if count > (300 if full else 60):
                break
            if method == "write":
                data, offset = arguments
                arguments = (data[: max(twins.theirs.image.size() - offset, 1)], offset)
            elif method == "reopen":
                continue
            if method == "rollback_to_snap":  # librbd refuses it to who does not own the lock
                twins.both(_rolled_back(*arguments), (count, method))
            elif method.endswith("_snap"):
                twins.theirs.image.list_lockers()
                getattr(twins.theirs.image, method)(*arguments)
                helper.list_lockers()
                getattr(helper, method)(*arguments)
                assert twins.mine.state() == twins.theirs.state(), (count, method)
            else:
                twins.both(_on_image(method, *arguments), (count, method, arguments[1:]))


def _missing(raw: bytes) -> None:
    return None


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": _missing,
    "empty": lambda raw: b"",
    "header cut": lambda raw: raw[:10],
    "cut": lambda raw: raw[: len(raw) // 2],
    "footer cut": lambda raw: raw[:-1],
    "no footer": lambda raw: raw[: -int.from_bytes(raw[-12:-8], "little") - 4] if len(raw) > 60 else raw[:-12],
    "garbage": lambda raw: b"garbage" * 100,
    "bit flipped": lambda raw: raw[:20] + bytes([raw[20] ^ 0x40]) + raw[21:],
    "crc flipped": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "more behind": lambda raw: raw + b"more",
    "a version on": lambda raw: raw[:4] + b"\2" + raw[5:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(twins: Twins, damage: str) -> None:
    """The damage is found when the lock is taken; the flags tell of it, and the image goes on without its map."""
    twins.both(lambda side: side.create("image"))
    twins.both(_on_image("write", b"data", OBJECT))
    twins.both(_on_image("create_snap", "snap"))
    twins.both(_on_image("write", b"data", 0))

    def hurt(side: Side) -> None:
        oid, raw = side.map_oid, side.maps()[0]
        side.close()
        assert raw is not None
        hurt = DAMAGES[damage](raw)
        if hurt is None:
            side.ioctx.remove_object(oid)
        else:
            side.ioctx.write_full(oid, hurt)
        side.reopen()

    twins.both(hurt)
    _go_on(twins)
    twins.both(_on_image("rebuild_object_map"))
    _go_on(twins)


def _go_on(twins: Twins) -> None:
    twins.both(lambda side: side.image.read(0, 10))
    twins.both(_on_image("write", b"x", 5 * OBJECT))
    twins.both(_on_image("write", b"x", OBJECT + 1))
    twins.both(lambda side: side.image.read(OBJECT, 4))
    twins.both(_on_image("discard", OBJECT, OBJECT))
    twins.both(lambda side: side.image.read(OBJECT, 4))
    twins.both(_on_image("resize", SIZE + 40 * OBJECT))
    twins.both(_on_image("write", b"x", SIZE + 30 * OBJECT))
    twins.both(_on_image("resize", SIZE))
    twins.both(_on_image("create_snap", f"snap-{random.random()}"))
    twins.both(Side.reopen)
    twins.both(_on_image("write", b"x", 6 * OBJECT))
    twins.both(_on_image("discard", 0, 7 * OBJECT))
    twins.both(_on_image("write", b"x", 0))


def test_too_small(twins: Twins) -> None:
    """The header says a larger image than the map knows of: as when a grow was done by a client that keeps no maps."""
    from rbd_native import cls_rbd, names
    from rbd_native.cls_client import mutate
    from rbd_native.engine import run
    from rbd_native.rados.connect import port_for

    twins.both(lambda side: side.create("image"))
    twins.both(_on_image("write", b"data", OBJECT))

    def grow(side: Side) -> None:
        header = names.header(side.image.id())
        side.close()
        run(mutate(port_for(side.ioctx), header, cls_rbd.set_size(3 * SIZE)))
        side.reopen()

    twins.both(grow)
    _go_on(twins)


def test_switched_on_later(twins: Twins) -> None:
    """The maps of an image with snapshots that had none so far."""
    twins.both(lambda side: side.create("image", 33))
    twins.both(_on_image("write", b"data", OBJECT))
    twins.both(_on_image("create_snap", "one"))
    twins.both(_on_image("write", b"data", 2 * OBJECT))
    twins.both(_on_image("update_features", 4, True))
    twins.both(_on_image("update_features", 24, True))
    twins.both(_on_image("write", b"data", 3 * OBJECT))
    twins.both(_on_image("create_snap", "two"))
    twins.both(_on_image("discard", 2 * OBJECT, OBJECT))
    twins.both(_on_image("rebuild_object_map"))
    _go_on(twins)

    def rebuild_snapshot(side: Side) -> None:
        with side.module.Image(side.ioctx, "image", snapshot="one") as image:
            image.rebuild_object_map()

    twins.both(rebuild_snapshot)
    twins.both(_on_image("update_features", 8, False))
    _go_on(twins)
