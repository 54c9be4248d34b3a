"""Groups, judged by librbd: whatever the order of the calls, librbd, rbd_native on a real cluster, both in turn on the same
groups, and rbd_native on an embedded cluster answer alike and leave the same behind.

Known and meant differences: librbd 16 moves members of a group to the trash (releases since 20 do not, nor do we); rolling
back to an incomplete snapshot, which librbd 16 does as far as there is anything, is refused; an incomplete snapshot of an
image that is gone can be removed; where a member may have no more snapshots, librbd 16 only says that it does not find the
one it thinks it has taken.
"""

import contextlib
import errno
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rados
import rbd as real
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import rbd_native as ours
from rbd_native import embedded
from tests.backend import embedded_backend
from tests.cluster import CephCluster
from tests.interop.group_store import comparable
from tests.interop.twins import Outcome, outcome

pytestmark = pytest.mark.ceph

MIB = 1 << 20
OVER_LIMIT = ("ObjectNotFound", "DiskQuotaExceeded")
_numbers = itertools.count(1)


class Side:
    """One library on one cluster, with two pools."""

    def __init__(self, module: Any, rados_module: Any, cluster: Any, pools: list[str]) -> None:
        self.module = module
        self.rados_module = rados_module
        self.cluster = cluster
        self.pools = pools
        self.ioctxs = [cluster.open_ioctx(pool) for pool in pools]

    def role(self, pool_id: int) -> int:
        ids = [ioctx.get_pool_id() for ioctx in self.ioctxs]
        return ids.index(pool_id) if pool_id in ids else pool_id

    @contextlib.contextmanager
    def image(self, pool: int, name: str) -> Iterator[Any]:
        with self.module.Image(self.ioctxs[pool], name) as image:
            yield image

    def group(self, name: Any) -> Any:
        return self.module.Group(self.ioctxs[0], name)

    def forget(self) -> None:
        for ioctx in self.ioctxs:
            for found in list(ioctx.list_objects()):
                with contextlib.suppress(self.rados_module.ObjectNotFound):  # listed still, for its snapshots' sake
                    ioctx.remove_object(found.key)
            ioctx.execute("rbd_directory", "rbd", "dir_state_set", bytes(4))  # images may be made here


class Mixed(Side):
    """Both libraries in turn: what one has made the other goes on with."""

    def __init__(self, cluster: Any, pools: list[str]) -> None:
        super().__init__(None, rados, cluster, pools)
        self._turns = itertools.cycle((real, ours, ours, real, ours, real, real))

    @property
    def module(self) -> Any:
        return next(self._turns)

    @module.setter
    def module(self, module: Any) -> None:
        pass


Call = Callable[[Side], Any]


def _as_in_16(result: Outcome) -> Outcome:
    """An exception that release 16 has no class of its own for."""
    if result.raised != "ImageMemberOfGroup":
        return result
    assert result.value == errno.EMLINK
    return Outcome("OSError", result.value, result.words.replace("RBD image is member of group (", "").rstrip(")"))


class Sides:
    """The same calls on every side: they must come out the same. Sides: librbd, both in turn, ours, ours on the embedded
    cluster."""

    def __init__(self, sides: list[Side]) -> None:
        self.sides = sides

    def all(self, call: Call) -> Outcome:
        results = [outcome(lambda side=side: call(side)) for side in self.sides]  # type: ignore[misc]
        theirs, mixed, mine, inside = map(_as_in_16, results)
        assert mixed in (theirs, mine), f"librbd: {theirs}, in turn: {mixed}"
        if (theirs.raised, mine.raised) == OVER_LIMIT:
            theirs = mine
        assert mine == theirs, f"librbd: {theirs}, ours: {mine}"
        assert inside == theirs, f"librbd: {theirs}, on the embedded cluster: {inside}"
        return theirs

    def compare(self) -> list[dict[str, Any]]:
        """All pools hold the same; what that is."""
        theirs, *others = [comparable(side.rados_module, side.ioctxs) for side in self.sides]
        for found in others:
            for pool, wanted in zip(found, theirs, strict=True):
                different = {
                    name: (wanted.get(name), pool.get(name))
                    for name in wanted | pool
                    if wanted.get(name) != pool.get(name)
                }
                assert not different, f"object: (librbd's, ours): {different}"
        return theirs

    # --- what a script is made of ---

    def rbd(self, method: str, *arguments: Any) -> Outcome:
        return self.all(lambda side: getattr(side.module.RBD(), method)(side.ioctxs[0], *arguments))

    def on(self, group: Any, method: str, *arguments: Any) -> Outcome:
        return self.all(lambda side: getattr(side.group(group), method)(*arguments))

    def member(self, group: Any, method: str, pool: int, image: Any) -> Outcome:
        return self.all(lambda side: getattr(side.group(group), method)(side.ioctxs[pool], image))

    def members(self, group: Any) -> Outcome:
        def listed(side: Side) -> Any:
            found = [(side.role(m["pool"]), m["name"], m["state"], sorted(m)) for m in side.group(group).list_images()]
            assert [place for place, *_ in found] == sorted(place for place, *_ in found)
            return sorted(found)

        return self.all(listed)

    def may_leave(self, group: str, pool: int, name: str) -> bool:
        """Whether it is in no other group. Else a link is left, over which removing the group fails: with some members
        removed before and some not, as their ids are."""
        try:
            with real.Image(self.sides[0].ioctxs[pool], name) as image:
                return image.group()["name"] in ("", group)
        except real.ImageNotFound:
            return True

    def snaps(self, group: Any) -> Outcome:
        return self.all(lambda side: sorted((s["name"], s["state"]) for s in side.group(group).list_snaps()))

    def create(self, pool: int, name: str, features: int) -> Outcome:
        return self.all(lambda side: side.module.RBD().create(side.ioctxs[pool], name, MIB, 18, features=features))

    def remove(self, pool: int, name: str) -> Outcome:
        return self.all(lambda side: side.module.RBD().remove(side.ioctxs[pool], name))

    def rename(self, pool: int, name: str, new_name: str) -> Outcome:
        return self.all(lambda side: side.module.RBD().rename(side.ioctxs[pool], name, new_name))

    def write(self, pool: int, name: str, place: int) -> Outcome:
        def write(side: Side) -> Any:
            with side.image(pool, name) as image:
                return image.write(bytes([place + 1]) * 5000, place * 100_000)

        return self.all(write)

    def resize(self, pool: int, name: str, size: int) -> Outcome:
        def resize(side: Side) -> Any:
            with side.image(pool, name) as image:
                image.resize(size)

        return self.all(resize)

    def limit(self, pool: int, name: str, number: int) -> Outcome:
        def limit(side: Side) -> Any:
            with side.image(pool, name) as image:
                image.set_snap_limit(number)

        return self.all(limit)

    def snap(self, pool: int, name: str) -> Outcome:
        """One of the image's own."""

        def snap(side: Side) -> Any:
            with side.image(pool, name) as image:
                image.create_snap("own")

        return self.all(snap)

    def drop_part(self, pool: int, name: str) -> Outcome:
        """The image's first snapshot, whosever it is."""

        def drop(side: Side) -> Any:
            with side.image(pool, name) as image:
                for found in sorted(image.list_snaps(), key=lambda found: int(found["id"]))[:1]:
                    image.remove_snap_by_id(found["id"])

        return self.all(drop)

    def look(self, pool: int, name: str) -> Outcome:
        """All that an image says about its group, its snapshots, and itself."""

        def look(side: Side) -> Any:
            with side.image(pool, name) as image:
                group = image.group()
                content = image.read(0, image.size())
                found = [self._part(side, image, snap) for snap in image.list_snaps()]
                return side.role(group["pool"]), group["name"], image.size(), image.op_features(), content, found

        return self.all(look)

    @staticmethod
    def _part(side: Side, image: Any, snap: dict[str, Any]) -> Any:
        told = outcome(lambda: image.snap_get_group_namespace(snap["id"]))
        if snap.get("group"):
            assert told.value == snap["group"]
        kind = image.snap_get_namespace_type(snap["id"])
        image.set_snap_by_id(snap["id"])
        content = image.read(0, image.size())
        image.set_snap_by_id(None)
        value = told.value if told.raised else (side.role(told.value["pool"]), sorted(told.value.items())[0])
        return snap["size"], snap["namespace"], kind, told.raised, value, content, sorted(snap)


@pytest.fixture(scope="module")
def sides(ceph: CephCluster) -> Iterator[Sides]:
    pools = [[f"groups-{who}-{place}" for place in range(2)] for who in ("theirs", "mixed", "mine")]
    for pool in itertools.chain(*pools):
        ceph.create_pool(pool, pg_num=4)
    clusters = [ceph.rados() for _ in pools]
    with embedded_backend() as backend:
        sides = [
            Side(real, rados, clusters[0], pools[0]),
            Mixed(clusters[1], pools[1]),
            Side(ours, rados, clusters[2], pools[2]),
            Side(ours, embedded, backend.cluster, [backend.create_pool() for _ in range(2)]),
        ]
        yield Sides(sides)
        for side in sides:
            for ioctx in side.ioctxs:
                ioctx.close()
    for cluster in clusters:
        cluster.shutdown()
    for pool in itertools.chain(*pools):
        ceph.remove_pool(pool)


@pytest.fixture
def place(sides: Sides) -> Iterator[Sides]:
    """A namespace of the test's own, on every side: quickly made and left behind."""
    name = f"place-{next(_numbers)}"
    for side in sides.sides:
        for ioctx in side.ioctxs:
            ioctx.set_namespace("")
            side.module.RBD().namespace_create(ioctx, name)
            ioctx.set_namespace(name)
    yield sides
    for side in sides.sides:
        side.forget()
        for ioctx in side.ioctxs:
            ioctx.set_namespace("")


LOOKS = ("look", "snaps", "members", "write")
IMAGES = [(0, "a"), (0, "b"), (1, "a")]
groups = st.sampled_from(["g", "g", "g", "g", "h"])
snaps = st.sampled_from(["s", "s", "t"])
images = st.sampled_from(IMAGES)
STEPS: dict[str, Any] = {
    "group_create": st.tuples(groups),
    "group_remove": st.tuples(groups),
    "group_rename": st.tuples(groups, groups),
    "group_list": st.just(()),
    "add_image": st.tuples(groups, images),
    "remove_image": st.tuples(groups, images),
    "members": st.tuples(groups),
    "create_snap": st.tuples(groups, snaps) | st.tuples(groups, snaps, st.sampled_from([0, 1, 2, 3])),
    "remove_snap": st.tuples(groups, snaps),
    "rename_snap": st.tuples(groups, snaps, snaps),
    "rollback_to_snap": st.tuples(groups, snaps),
    "snaps": st.tuples(groups),
    "create": st.tuples(images, st.sampled_from([1, 5, 61])),
    "remove": st.tuples(images),
    "rename": st.tuples(images, st.sampled_from(["a", "b"])),
    "write": st.tuples(images, st.integers(0, 9)),
    "resize": st.tuples(images, st.sampled_from([MIB, MIB // 2 + 1, 3 * MIB // 2])),
    "limit": st.tuples(images, st.sampled_from([1, 2, 2, 2**64 - 1])),
    "snap": st.tuples(images),
    "drop_part": st.tuples(images),
    "look": st.tuples(images),
}
OFTEN = ["create_snap", "create_snap", "rollback_to_snap", "write", "write", "add_image", "remove_snap"]
steps = st.sampled_from([*OFTEN, *OFTEN, *STEPS]).flatmap(lambda name: st.tuples(st.just(name), STEPS[name]))


def play(sides: Sides, name: str, arguments: tuple[Any, ...]) -> Outcome:
    flat = [part for argument in arguments for part in (argument if isinstance(argument, tuple) else (argument,))]
    if name.startswith("group_"):
        return sides.rbd(name, *flat)
    if name in ("add_image", "remove_image"):
        group, pool, image = flat
        return sides.member(group, name, pool, image)
    if hasattr(sides, name):
        found: Outcome = getattr(sides, name)(*flat)
        return found
    group, *rest = flat
    return sides.on(group, name, *rest)


# Shrinking on a real cluster takes longer than a test may; a script is short enough to be read as it is.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def begin(sides: Sides) -> None:
    """Three images in a group."""
    assert sides.rbd("group_create", "g").raised is None
    for (pool, name), features in zip(IMAGES, (61, 1, 5), strict=True):
        assert sides.create(pool, name, features).raised is None
        assert sides.member("g", "add_image", pool, name).raised is None


@settings(max_examples=8, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(script=st.lists(steps, min_size=10, max_size=25))
def test_sequences(place: Sides, script: list[tuple[str, tuple[Any, ...]]]) -> None:
    try:
        begin(place)
        for name, arguments in script:
            if name != "remove_image" or place.may_leave(arguments[0], *arguments[1]):
                play(place, name, arguments)
        for group in ("g", "h"):
            place.members(group)
            place.snaps(group)
        for image in IMAGES:
            place.look(*image)
        place.compare()
    finally:
        for side in place.sides:
            side.forget()


SCRIPT: list[tuple[str, tuple[Any, ...], str | None]] = [
    ("write", (0, "a", 0), None), ("write", (1, "a", 1), None), ("create_snap", ("g", "s"), None),
    ("look", (0, "a"), None), ("write", (0, "a", 0), None), ("write", (0, "b", 5), None),
    ("resize", (0, "b", 2 * MIB), None), ("rename_snap", ("g", "s", "new"), None), ("group_rename", ("g", "other"), None),
    ("look", (1, "a"), None), ("rollback_to_snap", ("other", "s"), "ObjectNotFound"),
    ("rollback_to_snap", ("other", "new"), None), ("look", (0, "b"), None), ("limit", (1, "a", 1), None),
    ("create_snap", ("other", "over"), "DiskQuotaExceeded"), ("snaps", ("other",), None), ("look", (0, "a"), None),
    ("limit", (1, "a", 2), None), ("create_snap", ("other", "second", 1), None),
    ("create_snap", ("other", "over"), "DiskQuotaExceeded"), ("remove_image", ("other", 0, "b"), None),
    ("look", (0, "b"), None), ("remove", (0, "b"), "ImageHasSnapshots"),
    ("create_snap", ("other", "over"), "DiskQuotaExceeded"), ("remove_snap", ("other", "second"), None),
    ("create_snap", ("other", "third", 2), None), ("group_create", ("h",), None), ("add_image", ("h", 0, "b"), None),
    ("add_image", ("h", 0, "a"), "ObjectExists"), ("members", ("h",), None), ("remove_image", ("h", 0, "a"), "OSError"),
    ("members", ("h",), None), ("create_snap", ("h", "s"), None), ("look", (0, "a"), None),
    ("rollback_to_snap", ("other", "new"), None), ("drop_part", (0, "a"), None),
    ("rollback_to_snap", ("other", "new"), None), ("rename", (0, "b", "c"), None), ("members", ("h",), None),
    ("remove", (0, "c"), "ImageHasSnapshots"), ("remove_image", ("h", 0, "c"), None), ("group_remove", ("h",), "OSError"),
    ("group_remove", ("other",), None), ("group_remove", ("h",), None), ("group_list", (), None),
    ("remove", (0, "a"), None), ("remove", (0, "c"), None), ("remove", (1, "a"), None),
]  # fmt: skip


def test_script(place: Sides) -> None:
    """One of each, and what it comes to."""
    begin(place)
    for name, arguments, raised in SCRIPT:
        assert play(place, name, arguments).raised == raised, (name, arguments)
        if name not in LOOKS:
            place.compare()


FAULTY: list[tuple[Any, ...]] = [
    ("rbd", "group_create", ""), ("rbd", "group_create", None), ("rbd", "group_create", 5), ("rbd", "group_create", "g"),
    ("rbd", "group_create", b"h\0i"), ("rbd", "group_create", "n" * 3000), ("rbd", "group_remove", "none"),
    ("rbd", "group_remove", ""), ("rbd", "group_remove", None), ("rbd", "group_rename", "g", "g"),
    ("rbd", "group_rename", "g", ""), ("rbd", "group_rename", "none", "x"), ("rbd", "group_rename", None, "x"),
    ("rbd", "group_rename", "g", None), ("on", None, "list_snaps"), ("on", 5, "list_snaps"), ("on", "none", "list_snaps"),
    ("on", "none", "create_snap", "s"), ("on", "none", "remove_snap", "s"), ("on", "none", "rollback_to_snap", "s"),
    ("on", "none", "rename_snap", "s", "t"), ("on", "none", "rename_snap", "s", "s"), ("on", "g", "create_snap", ""),
    ("on", "g", "create_snap", None), ("on", "g", "create_snap", "s", 4), ("on", "g", "create_snap", "s", 3),
    ("on", "g", "create_snap", "s", -1), ("on", "g", "create_snap", "s", 2**32), ("on", "g", "create_snap", "s", "1"),
    ("on", "g", "create_snap", "s", None), ("on", "g", "remove_snap", ""), ("on", "g", "remove_snap", None),
    ("on", "g", "remove_snap", "none"), ("on", "g", "rename_snap", "none", "x"), ("on", "g", "rename_snap", None, "x"),
    ("on", "g", "rename_snap", "x", None), ("on", "g", "rollback_to_snap", "none"), ("on", "g", "rollback_to_snap", None),
    ("member", "g", "add_image", 0, "none"), ("member", "g", "add_image", 0, ""), ("member", "g", "add_image", 0, None),
    ("member", "g", "remove_image", 0, "none"), ("member", "g", "remove_image", 0, None),
    ("member", "none", "add_image", 0, "a"), ("member", "none", "remove_image", 0, "a"), ("members", "none"),
]  # fmt: skip


def test_faulty_arguments(place: Sides) -> None:
    begin(place)
    for method, *arguments in FAULTY:
        getattr(place, method)(*arguments)
    place.compare()


@pytest.mark.parametrize("name", [b"\xff\xfe", "é" * 20])
def test_names_of_any_bytes(place: Sides, name: Any) -> None:
    begin(place)
    place.rbd("group_rename", "g", name)
    place.rbd("group_list")
    place.on(name, "create_snap", name)
    place.snaps(name)
    place.look(0, "a") if isinstance(name, str) else None
    place.rbd("group_rename", name, "g")
    place.on("g", "rename_snap", name, "s")
    place.compare()


@pytest.mark.parametrize("method", ["add_image", "remove_image"])
def test_of_another_namespace(place: Sides, method: str) -> None:
    begin(place)

    def call(side: Side) -> Any:
        with side.cluster.open_ioctx(side.pools[0]) as elsewhere:
            return getattr(side.group("g"), method)(elsewhere, "a")

    assert place.all(call).value == errno.EINVAL
    place.compare()


@pytest.mark.parametrize("whose", [real, ours], ids=["librbd", "ours"])
def test_who_keeps_a_lock_by_hand_keeps_it(ceph: CephCluster, place: Sides, whose: Any) -> None:
    """Then no snapshot is taken, and none rolled back to; but one can be removed."""
    begin(place)
    place.on("g", "create_snap", "before")
    mine = place.sides[2]
    others = ceph.rados()
    try:
        with others.open_ioctx(mine.pools[1]) as ioctx:
            ioctx.set_namespace(mine.ioctxs[1].get_namespace())
            with whose.Image(ioctx, "a") as image:
                image.lock_acquire(ours.RBD_LOCK_MODE_EXCLUSIVE)
                for method, name in (("create_snap", "s"), ("rollback_to_snap", "before")):
                    with pytest.raises(ours.ReadOnlyImage):
                        getattr(mine.group("g"), method)(name)
                assert [snap["name"] for snap in mine.group("g").list_snaps()] == ["before"]
                mine.group("g").remove_snap("before")
    finally:
        others.shutdown()
    for side in (*place.sides[:2], place.sides[3]):
        side.group("g").remove_snap("before")
    place.compare()
