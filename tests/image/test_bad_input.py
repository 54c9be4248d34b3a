"""Images whose stored metadata is bad: each value cut short at each length, garbage, missing and misnamed
keys. Whatever is done with them asks little of the cluster, ends well or with an error of this library, and changes
nothing that is stored.

A value that is not UTF-8 is a UnicodeDecodeError, as it is in the binding.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import embedded
from tests.backend import embedded_client
from tests.labour import Labour
from tests.stored import Stored, contents

MIB = 1 << 20
OPTIONS = {"rbd_default_format": "1", "rbd_atime_update_interval": "0"}  # a read would leave its time behind
IMAGES = ("parent", "first", "second", "old")
DATA = ("rbd_data.", "rb.")
MOST = 2_000
"""What nothing here may ask of the cluster more than."""


class Place:
    """A pool with an image of each kind, whose objects can be spoilt and mended."""

    def __init__(self, ioctx: Any) -> None:
        self.labour = Labour(MOST)
        self.ioctx = self.labour.watched(ioctx)
        self._images()
        self.ids = {row["name"]: row["id"] for row in rbd.RBD().list2(self.ioctx)}
        self.good = contents(embedded, self.ioctx)

    def _images(self) -> None:
        library, ioctx = rbd.RBD(), self.ioctx
        library.create(ioctx, "parent", MIB, 16, features=61, stripe_unit=16384, stripe_count=4)
        with rbd.Image(ioctx, "parent") as image:
            image.write(b"parent" * 10_000, 0)
            image.create_snap("s")
            image.protect_snap("s")
            image.create_snap("t")
            image.write(b"x", 70_000)
            image.metadata_set("key", "value")
            image.config_set("rbd_cache", "false")
            image.set_snap_limit(10)
            image.lock_release()
            image.lock_exclusive("cookie")
        library.clone(ioctx, "parent", "s", ioctx, "first", features=61, clone_format=1)
        library.clone(ioctx, "parent", "s", ioctx, "second", features=61, clone_format=2)
        with rbd.Image(ioctx, "second") as image:
            image.write(b"y", 200_000)
            image.create_snap("s")
        library.create(ioctx, "gone", MIB, 16, features=1)
        library.trash_move(ioctx, "gone", 1000)
        library.create(ioctx, "old", MIB, 16, old_format=True)
        with rbd.Image(ioctx, "old") as image:
            image.write(b"z", 0)
            image.create_snap("s")
            image.metadata_set("key", "value")
        library.group_create(ioctx, "group")
        rbd.Group(ioctx, "group").add_image(ioctx, "first")

    def mend(self) -> None:
        for found in list(self.ioctx.list_objects()):
            if not found.key.startswith(DATA):
                if found.key not in self.good:
                    self.ioctx.remove_object(found.key)
                    continue
                for key in contents(embedded, self.ioctx)[found.key].omap:
                    self.take(found.key, key)
        for oid in self.good:
            if not oid.startswith(DATA):
                self.restore(oid)

    def restore(self, oid: str) -> None:
        one = self.good[oid]
        self.ioctx.write_full(oid, one.data)
        for key, value in one.omap.items():
            self.put(oid, key, value)
        for key, value in one.xattrs.items():
            self.ioctx.set_xattr(oid, key, value)

    def put(self, oid: str, key: str, value: bytes) -> None:
        with embedded.WriteOpCtx() as operation:
            self.ioctx.set_omap(operation, (key,), (value,))
            self.ioctx.operate_write_op(operation, oid)

    def take(self, oid: str, key: str) -> None:
        with embedded.WriteOpCtx() as operation:
            self.ioctx.remove_omap_keys(operation, (key,))
            self.ioctx.operate_write_op(operation, oid)

    def verbs(self, oid: str) -> list[Callable[[], Any]]:
        """What looks at an object: all that reads, where it is none of a single image."""
        owners = [name for name in IMAGES if (f".{self.ids[name]}" in oid and self.ids[name]) or oid == f"{name}.rbd"]
        verbs: list[Callable[[], Any]] = []
        if not owners or oid.startswith("rbd_id."):
            verbs += [self.pool, self.group]
        for name in owners or IMAGES:
            verbs.append(partial(self.image, name))
        if owners:
            verbs.append(partial(self.image, owners[0], read_only=True))
        if owners and owners[0] == "parent":
            verbs.append(partial(self.image, "second", read_only=True))
        return verbs

    def try_all(self, oid: str, what: Any) -> None:
        """And compare what is stored afterwards."""
        before = contents(embedded, self.ioctx)
        for verb in self.verbs(oid):
            self.labour.rest()
            attempt(verb)
        assert contents(embedded, self.ioctx) == before, (oid, what)

    def pool(self) -> None:
        library, ioctx = rbd.RBD(), self.ioctx
        looks: list[Callable[[], Any]] = [
            lambda: library.list(ioctx), lambda: list(library.trash_list(ioctx)), lambda: library.pool_stats_get(ioctx),
            lambda: list(library.config_list(ioctx)), lambda: library.namespace_list(ioctx),
            lambda: library.trash_get(ioctx, self.gone),
        ]  # fmt: skip
        for look in looks:
            attempt(look)

    def group(self) -> None:
        attempt(lambda: rbd.RBD().group_list(self.ioctx))
        attempt(lambda: list(rbd.Group(self.ioctx, "group").list_images()))

    @property
    def gone(self) -> str:
        (key,) = self.good["rbd_trash"].omap
        return key.removeprefix("id_")

    def image(self, name: str, **how: Any) -> None:
        with rbd.Image(self.ioctx, name, **how) as image:
            for look in LOOKS:
                attempt(partial(look, image))


LOOKS: list[Callable[[rbd.Image], Any]] = [
    rbd.Image.stat, rbd.Image.features, rbd.Image.flags, rbd.Image.overlap, rbd.Image.group, rbd.Image.parent_info,
    rbd.Image.get_snap_limit, rbd.Image.list_lockers, rbd.Image.is_exclusive_lock_owner, rbd.Image.create_timestamp,
    rbd.Image.list_children, lambda image: list(image.list_snaps()), lambda image: list(image.metadata_list()),
    lambda image: list(image.config_list()), lambda image: list(image.list_descendants()),
    lambda image: image.read(0, 100_000),
    lambda image: image.diff_iterate(0, min(image.size(), MIB), None, lambda *extent: None, whole_object=True),
    lambda image: image.diff_iterate(0, min(image.size(), MIB), "s", lambda *extent: None, whole_object=True),
    lambda image: image.set_snap("s"), lambda image: image.read(0, 100),
]  # fmt: skip


def attempt(call: Callable[[], Any]) -> None:
    with contextlib.suppress(rbd.Error, UnicodeDecodeError):
        call()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with embedded_client(**OPTIONS) as client, client.open_ioctx("rbd") as ioctx:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RBD_FORCE_ALLOW_V1", "1")
            place = Place(ioctx)
        yield place


@pytest.fixture(autouse=True)
def mended(place: Place) -> Iterator[None]:
    """A test that fails leaves nothing to the next."""
    yield
    if contents(embedded, place.ioctx) != place.good:
        place.mend()


def spoilt(value: bytes, dice: random.Random) -> Iterator[bytes]:
    """Cut at each length (of long ones, at some), ones, zeros, more, and garbage."""
    cuts = range(len(value)) if len(value) <= 16 else [*range(8), *dice.sample(range(8, len(value)), 6), len(value) - 1]
    yield from (value[:cut] for cut in cuts)
    yield from (b"\xff" * len(value), bytes(len(value)), value + b"more", dice.randbytes(len(value)))
    for width in (1, 4, 8):
        place = dice.randrange(max(len(value) - width, 0) + 1)
        yield value[:place] + b"\xff" * width + value[place + width :]


def kinds() -> list[str]:
    return [
        "rbd_directory", "rbd_children", "rbd_trash", "rbd_info", "rbd_group_directory", "rbd_group_header.", "rbd_id.",
        "rbd_object_map.", "old.rbd",
    ]  # fmt: skip


def of_kind(place: Place, kind: str) -> list[tuple[str, Stored]]:
    found = [(oid, one) for oid, one in place.good.items() if oid.startswith(kind)]
    assert found
    return found


@pytest.mark.parametrize("kind", kinds())
def test_every_key(place: Place, kind: str) -> None:
    dice = random.Random(kind)
    for oid, one in of_kind(place, kind):
        for key, value in one.omap.items():
            for bad in spoilt(value, dice):
                place.put(oid, key, bad)
                place.try_all(oid, (key, bad))
            place.take(oid, key)
            place.try_all(oid, (key, "missing"))
            place.put(oid, key + "x", value)
            place.try_all(oid, (key, "misnamed"))
            place.take(oid, key + "x")
            place.put(oid, key, value)


@pytest.mark.parametrize("kind", ["rbd_directory", "rbd_info", "rbd_id.", "rbd_object_map.", "old.rbd"])
def test_all_data(place: Place, kind: str) -> None:
    dice = random.Random(kind)
    for oid, one in of_kind(place, kind):
        for bad in spoilt(one.data, dice):
            place.ioctx.write_full(oid, bad)
            place.try_all(oid, bad)
        place.ioctx.write_full(oid, one.data)


def test_missing_objects(place: Place) -> None:
    for oid in place.good:
        if not oid.startswith(DATA):
            place.ioctx.remove_object(oid)
            place.try_all(oid, "missing")
            place.restore(oid)
