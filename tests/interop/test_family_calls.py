"""Calls about snapshots, clones and parents, judged by librbd: the same results, exception classes, errnos and words."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rados
import rbd as librbd

import rbd_native as rbd
from tests.cluster import CephCluster
from tests.interop.twins import Outcome, Twins
from tests.releases import HANGS_IN_CLONE, told

pytestmark = pytest.mark.ceph

SIZE = 1 << 18
NAMES = ["s", "protected", "kept", "none", "", b"s", "é", "a@b", "a/b", "s\0x", None, 7, "l" * 3000]
IDS: list[Any] = [0, 2**64 - 2, 2**64, -1, "s", None, 1.5]


@pytest.fixture(scope="module")
def pools(ceph: CephCluster) -> Iterator[Twins]:
    """For all tests: nothing of what they do is kept for a whole pool."""
    twins = Twins(ceph, "family-calls")
    yield twins
    twins.close()


@pytest.fixture
def twins(pools: Twins) -> Twins:
    """On either side image@s, @protected, @kept (with a clone of format 2), @old (with one of format 1), and an orphan."""
    twins = pools
    for place, ioctx in enumerate(twins.ioctxs):
        for found in list(ioctx.list_objects()):  # of the test before
            with contextlib.suppress(rados.ObjectNotFound):  # but for data that is there in a snapshot only
                ioctx.remove_object(found.key)
        twins.client_of(ioctx).conf_set("rbd_default_clone_format", "2")
        twins.ioctxs[place].set_namespace("")
        rbd.RBD().create(ioctx, "image", SIZE, 16, features=61)
        with rbd.Image(ioctx, "image") as image:
            image.write(b"p" * SIZE, 0)
            for name in ("s", "protected", "kept", "old"):
                image.create_snap(name)
            image.protect_snap("protected")
            image.protect_snap("old")
        for name, form in (("kept", 2), ("old", 1)):
            rbd.RBD().clone(ioctx, "image", name, ioctx, f"clone-{name}", clone_format=form)
        with rbd.Image(ioctx, "clone-kept") as image:
            image.create_snap("c")
        rbd.RBD().clone(ioctx, "clone-kept", "c", ioctx, "grandchild", clone_format=2)
        rbd.RBD().create(ioctx, "bare", SIZE, 16, features=4)
    return twins


def on(twins: Twins, method: str, *arguments: Any, name: str = "image", **how: Any) -> Outcome:
    snap = how.pop("at", None)

    def call(module: Any, ioctx: Any, side: int) -> Any:
        with module.Image(ioctx, name, **how) as image:
            if snap is not None:
                image.set_snap(snap)
            value = getattr(image, method)(*arguments)
            if method == "get_parent_image_spec":  # of later releases it has more
                value = {key: value[key] for key in ("pool_name", "pool_namespace", "image_name", "snap_name")}
            return neutral(value, twins, side)

    return twins.both(call)


def neutral(value: Any, twins: Twins, side: int) -> Any:
    """Without what differs from pool to pool, or from one release of the binding to the next."""
    if value == twins.pools[side]:
        return "<pool>"
    if isinstance(value, dict):
        return {
            key: "<id>" if key in ("id", "image_id", "pool_id", "snap_id") else neutral(item, twins, side)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str | bytes)):
        return [neutral(item, twins, side) for item in value]
    return value


CHANGING = ["create_snap", "remove_snap", "protect_snap", "unprotect_snap", "rollback_to_snap"]
LOOKING = ["is_protected_snap", "set_snap", "snap_get_id", "snap_exists"]


@pytest.mark.parametrize("how", [{}, {"at": "s"}])
@pytest.mark.parametrize("method", CHANGING)
def test_by_name(twins: Twins, method: str, how: dict[str, Any]) -> None:
    for name in NAMES:
        on(twins, method, name, **how)
    on(twins, "list_children", **how)
    names(twins)


def test_by_name_without_a_change(twins: Twins) -> None:
    for name in NAMES:
        for method in CHANGING + LOOKING:
            on(twins, method, name, read_only=True)
        for method in LOOKING:
            on(twins, method, name)
            on(twins, method, name, at="s")
    names(twins)


def names(twins: Twins) -> None:
    """The snapshots are the same on either side."""

    def call(module: Any, ioctx: Any, side: int) -> Any:
        with module.Image(ioctx, "image", read_only=True) as image:
            return [
                (snap["namespace"], snap["trash"]["original_name"] if "trash" in snap else snap["name"], snap["size"])
                for snap in image.list_snaps()
            ]

    twins.both(call)


@pytest.mark.parametrize("how", [{"read_only": True}, {}])
def test_rename(twins: Twins, how: dict[str, Any]) -> None:
    for target in ("s", "kept", "", None, 3, "new", b"other", "s"):
        for source in ("s", "protected", "kept", "new", "none", None):
            on(twins, "rename_snap", source, target, **how)
        names(twins)


def test_by_id(twins: Twins) -> None:
    for method in ("remove_snap_by_id", "set_snap_by_id", "snap_get_name", "snap_get_namespace_type"):
        for number in IDS:
            on(twins, method, number)
    names(twins)


@pytest.mark.parametrize("flags", [0, 1])
def test_remove_with_flags(twins: Twins, flags: int) -> None:
    for name in ("s", "protected", "kept", "none", None):
        for bad in (-1, 2**64, "1", None):
            on(twins, "remove_snap2", name, bad)
        on(twins, "remove_snap2", name, flags)
    names(twins)


def test_limits(twins: Twins) -> None:
    for limit in (3, 4, 0, -1, 2**64 - 1, 2**64, "4", None, 4):
        on(twins, "set_snap_limit", limit)
        on(twins, "get_snap_limit")
    on(twins, "create_snap", "over")
    on(twins, "set_snap_limit", 9, read_only=True)
    on(twins, "remove_snap_limit", read_only=True)
    on(twins, "remove_snap_limit")
    on(twins, "create_snap", "over")
    names(twins)


IMAGES = ["image", "clone-kept", "clone-old", "grandchild", "bare"]
CHILDREN = ["list_children", "list_children2", "list_descendants"]


def test_relations(twins: Twins) -> None:
    for method in ["parent_info", "get_parent_image_spec", "overlap", *CHILDREN]:
        for name in IMAGES:
            result = on(twins, method, name=name, read_only=True)
            on(twins, method, name=name)
            if method in CHILDREN and name == "image":
                assert result.value
                for snap in ("s", "kept", "old"):
                    on(twins, method, name=name, at=snap, read_only=True)


@pytest.mark.parametrize("names", [IMAGES, IMAGES[::-1]])
def test_flatten(twins: Twins, names: list[str]) -> None:
    for name in names:
        on(twins, "flatten", name=name, read_only=True)
        on(twins, "flatten", name=name)
        on(twins, "flatten", name=name)
    for name in names:
        on(twins, "list_descendants", name=name)


def test_without_layering(twins: Twins) -> None:
    on(twins, "create_snap", "b", name="bare")
    for method in ("protect_snap", "unprotect_snap", "is_protected_snap"):
        for snap in ("b", "none"):
            on(twins, method, snap, name="bare")
            on(twins, method, snap, name="bare", read_only=True)
    twins.both(lambda module, ioctx, side: module.RBD().clone(ioctx, "bare", "b", ioctx, "new"))


def test_parents_that_shrank_away(twins: Twins) -> None:
    on(twins, "resize", 0, name="clone-kept")
    on(twins, "resize", SIZE, name="clone-kept")
    for method in ("parent_info", "get_parent_image_spec", "overlap", "flatten"):
        on(twins, method, name="clone-kept")


def test_removal(twins: Twins) -> None:
    """Of images with snapshots, with nothing but snapshots in the trash, and with none."""
    for name in ("image", "clone-kept", "none"):
        twins.both(lambda module, ioctx, side, name=name: module.RBD().remove(ioctx, name))
    for name in ("s", "kept", "old", "protected"):
        on(twins, "unprotect_snap", name)
        on(twins, "remove_snap", name)
    twins.both(lambda module, ioctx, side: module.RBD().remove(ioctx, "image"))
    names(twins)
    for name in ("clone-old", "grandchild"):
        twins.both(lambda module, ioctx, side, name=name: module.RBD().remove(ioctx, name))
    on(twins, "remove_snap", "c", name="clone-kept")
    on(twins, "unprotect_snap", "old")
    on(twins, "remove_snap", "old")
    for name in ("clone-kept", "image"):
        twins.both(lambda module, ioctx, side, name=name: module.RBD().remove(ioctx, name))
    assert twins.both(lambda module, ioctx, side: list(module.RBD().list(ioctx))).value == ["bare"]


CLONES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("image", "s", "new"), {}),
    (("image", "s", ""), {}),
    (("image", "s", "bare"), {}),
    (("image", "none", "new"), {}),
    (("none", "s", "new"), {}),
    (("bare", "s", "new"), {}),
    (("image", "s", None), {}),
    (("image", None, "new"), {}),
    ((None, "s", "new"), {}),
    *((("image", "s", "new"), {"features": mask}) for mask in (0, 1, 4, 8, 9, 13, 61, 63, 1 << 12, 1 << 40, -1)),
    *((("image", "s", "new"), {"order": order}) for order in (0, 11, 12, 22, 25, 26, 64, 272, -1, 2**31, 2**64)),
    *(
        (("image", "s", "new"), {"stripe_unit": unit, "stripe_count": count})
        for unit in (0, 4096, 65536, 3)
        for count in (0, 1, 3)
    ),
    (("image", "s", "new"), {"stripe_unit": 4096}),
    (("image", "s", "new"), {"data_pool": "no-such-pool"}),
    (("image", "s", "new"), {"order": 99, "features": 4}),
]  # fmt: skip


def test_clone_of_no_snapshot(twins: Twins) -> None:
    """librbd 16 ends the process there."""
    ioctx = twins.ioctxs[1]
    with pytest.raises(rbd.ImageNotFound):
        rbd.RBD().clone(ioctx, "image", "", ioctx, "new")
    assert "new" not in rbd.RBD().list(ioctx)


@pytest.mark.parametrize("form", ["1", "2", "auto"])
def test_clone(twins: Twins, form: str) -> None:
    if told(HANGS_IN_CLONE):  # seen with 18.2.7 in two of some ten runs; it is judged by the releases before and after it
        pytest.skip("librbd itself hangs here")
    for ioctx in twins.ioctxs:
        twins.client_of(ioctx).conf_set("rbd_default_clone_format", form)
    for (parent, snap, name), options in CLONES:
        for which in [snap, "protected"] if snap == "s" else [snap]:

            def clone(module: Any, ioctx: Any, side: int, which: Any = which, parent: Any = parent, name: Any = name,
                      options: dict[str, Any] = options) -> Any:  # fmt: skip
                module.RBD().clone(ioctx, parent, which, ioctx, name, **options)
                with module.Image(ioctx, name) as image:
                    shape: list[Callable[[], Any]] = [image.features, image.size, image.stripe_unit, image.stripe_count,
                                                      image.overlap, image.op_features]  # fmt: skip
                    found = [one() for one in shape] + [image.stat()["order"], image.read(0, 3)]
                module.RBD().remove(ioctx, name)
                return found

            twins.both(clone)


LAYOUTS: list[dict[str, Any]] = [
    {},
    *({"features": mask} for mask in (0, 1, 3, 4, 8, 61, 63, 1 << 12, -1)),
    *({"order": order} for order in (0, 11, 12, 22, 26, 256, 272, 2**31)),
    *({"stripe_unit": unit, "stripe_count": count} for unit in (0, 4096, 65536, 3) for count in (0, 1, 3)),
    {"stripe_unit": 4096},
    {"stripe_count": 2},
    {"data_pool": "no-such-pool"},
]


@pytest.mark.parametrize("name", ["image", "clone-kept"])
@pytest.mark.parametrize("method", ["copy", "deep_copy"])
def test_copy(twins: Twins, method: str, name: str) -> None:
    """Where it fails halfway librbd leaves what there is so far. Ours leaves nothing."""
    for options in LAYOUTS:

        def copy(module: Any, ioctx: Any, side: int, options: dict[str, Any] = options) -> Any:
            with module.Image(ioctx, name, read_only=True) as image:
                getattr(image, method)(ioctx, "new", **options)
            with module.Image(ioctx, "new") as image:
                shape: list[Callable[[], Any]] = [image.features, image.size, image.stripe_unit, image.stripe_count,
                                                  image.op_features]  # fmt: skip
                snapshots = [neutral(snap, twins, side) for snap in image.list_snaps()]
                return snapshots + [one() for one in shape] + [image.stat()["order"], image.read(0, 3)]

        def clear(module: Any, ioctx: Any, side: int) -> Any:
            listed = module.RBD().list(ioctx)
            snapshots = []
            if "new" in listed:
                with module.Image(ioctx, "new") as image:
                    for snap in list(image.list_snaps()):
                        snapshots.append(snap["name"])
                        if image.is_protected_snap(snap["name"]):
                            image.unprotect_snap(snap["name"])
                        image.remove_snap(snap["name"])
                module.RBD().remove(ioctx, "new")
            return listed, snapshots

        if twins.both(copy).raised is None:
            twins.both(clear)
        else:
            clear(librbd, twins.ioctxs[0], 0)
            assert "new" not in clear(rbd, twins.ioctxs[1], 1)[0]


def test_snapshots_that_lost_their_parent(twins: Twins) -> None:
    """librbd has flattened a head that shared nothing with the parent any more, while a snapshot did: it takes the parent
    away from under that. Neither can be set to it; the head both can read, and ours can write and flatten."""
    ioctx = twins.ioctxs[0]
    with librbd.Image(ioctx, "clone-kept") as image:
        image.resize(0)
        image.resize(SIZE)
        librbd.RBD().remove(ioctx, "grandchild")
    with librbd.Image(ioctx, "image") as image:
        image.remove_snap("kept")
    with librbd.Image(ioctx, "clone-kept") as image:
        image.flatten()
    with librbd.Image(ioctx, "image") as image:
        assert "kept" not in {snap["name"] for snap in image.list_snaps()}
        assert len(list(image.list_snaps())) == 3
    for module in (librbd, rbd):
        with module.Image(ioctx, "clone-kept") as image:
            assert image.read(0, SIZE) == bytes(SIZE)
            with pytest.raises(module.ImageNotFound):
                image.set_snap("c")
        with pytest.raises(module.ImageNotFound):
            module.Image(ioctx, "clone-kept", "c", read_only=True)
    with rbd.Image(ioctx, "clone-kept") as image:
        image.write(b"data", 5)
        assert image.read(4, 6) == b"\0data\0"
