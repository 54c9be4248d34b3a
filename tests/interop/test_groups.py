"""Groups, judged by librbd: whatever the order of the calls, librbd, rbd_native on a real cluster, both in turn on the same
groups, and rbd_native on an embedded cluster answer alike and leave the same behind.

Known and meant differences: librbd 16 moves members of a group to the trash (releases since 20 do not, nor do we); rolling
back to an incomplete snapshot, which librbd 16 does as far as there is anything, is refused; an incomplete snapshot of an
image that is gone can be removed; where a member may have no more snapshots, librbd 16 only says that it does not find the
one it thinks it has taken.
"""

import errno
import itertools
from collections.abc import Iterator
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
from tests.interop.group_sides import MIB, Mixed, Side, Sides
from tests.interop.twins import Outcome

pytestmark = pytest.mark.ceph

_numbers = itertools.count(1)


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
    ("rollback_to_snap", ("other", "new"), "InvalidArgument"), ("drop_part", (0, "a"), None),
    ("rollback_to_snap", ("other", "new"), "InvalidArgument"), ("rename", (0, "b", "c"), None), ("members", ("h",), None),
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
