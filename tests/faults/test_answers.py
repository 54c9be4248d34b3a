"""Single answers that were not librbd's."""

from typing import Any

import pytest

from tests import releases as rules
from tests.faults.conftest import Side

MIRROR_BY_SNAPSHOTS = 1
BY_IMAGE, INIT_ONLY = 1, 3


# --- snapshots in the trash ------------------------------------------------------------------------------------------


def test_a_snapshot_in_the_trash_that_a_clone_needs_is_busy(side: Side) -> None:
    side.create("parent")
    with side.image("parent") as parent:
        parent.create_snap("s")
        number = parent.snap_get_id("s")
        side.rbd.RBD().clone(side.ioctx, "parent", "s", side.ioctx, "child", features=61)
        parent.remove_snap("s")
        for _ in range(2):
            assert side.answer(parent.remove_snap_by_id, number) == "ImageBusy"
        assert [snapshot["namespace"] for snapshot in parent.list_snaps()] == [2]
    with side.image("parent", read_only=True) as parent:
        assert side.answer(parent.remove_snap_by_id, number) == "ReadOnlyImage"
    side.rbd.RBD().remove(side.ioctx, "child")
    with side.image("parent") as parent:
        assert list(parent.list_snaps()) == [], "it goes with its last clone"


# --- an image that is primary elsewhere ------------------------------------------------------------------------------


def test_a_demoted_image_is_not_renamed(side: Side) -> None:
    side.create("image")
    side.create("other")
    side.rbd.RBD().mirror_mode_set(side.ioctx, BY_IMAGE)
    with side.image("image") as image:
        image.mirror_image_enable(MIRROR_BY_SNAPSHOTS)
        image.mirror_image_demote()
    rename = side.rbd.RBD().rename
    assert side.answer(rename, side.ioctx, "image", "new") == "ReadOnlyImage"
    assert side.answer(rename, side.ioctx, "image", "other") == "ImageExists"
    assert side.answer(rename, side.ioctx, "image", "image") == "ImageExists"
    assert side.answer(rename, side.ioctx, "image", "") == "ReadOnlyImage"
    assert sorted(side.rbd.RBD().list(side.ioctx)) == ["image", "other"]
    with side.image("image") as image:
        image.mirror_image_promote(False)
    rename(side.ioctx, "image", "new")
    assert sorted(side.rbd.RBD().list(side.ioctx)) == ["new", "other"]


# --- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [8, 16, 24], ids=["object-map", "fast-diff", "both"])
def test_maps_need_the_lock(side: Side, features: int) -> None:
    side.create("image", 1)
    with side.image("image") as image:
        assert side.answer(image.update_features, features, True) == "InvalidArgument"
        assert image.features() == 1
        image.update_features(features | 4, True)
        assert image.features() == 29
        assert side.answer(image.update_features, 4, False) == "InvalidArgument"
        assert image.features() == 29


# --- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_is_rolled_back_with_the_same_members_only(side: Side) -> None:
    for name in ("a", "b", "c"):
        side.create(name)
    side.rbd.RBD().group_create(side.ioctx, "group")
    group = side.rbd.Group(side.ioctx, "group")
    other = side.told(rules.OTHER_MEMBERS)

    def roll_back(name: str, expected: str) -> None:
        with side.image("a") as image:
            image.write(b"new", 0)
            assert side.answer(group.rollback_to_snap, name) == expected
            rolled = expected == "None" and name == "two"
            assert image.read(0, 3) == (b"old" if rolled else b"new")

    group.create_snap("none")
    roll_back("none", "None")
    group.add_image(side.ioctx, "a")
    group.add_image(side.ioctx, "b")
    roll_back("none", other)
    with side.image("a") as image:
        image.write(b"old", 0)
    group.create_snap("two")
    roll_back("two", "None")
    group.add_image(side.ioctx, "c")
    roll_back("two", other)
    group.remove_image(side.ioctx, "b")
    roll_back("two", other)
    group.remove_image(side.ioctx, "c")
    roll_back("two", other)
    group.add_image(side.ioctx, "b")
    roll_back("two", "None")


def test_a_group_snapshot_of_nothing_has_no_name_for_its_parts(side: Side) -> None:
    side.rbd.RBD().group_create(side.ioctx, "group")
    group = side.rbd.Group(side.ioctx, "group")
    group.create_snap("none")
    (row,) = group.list_snaps()
    if side.told(rules.NAMELESS_PARTS) is None:
        assert "image_snap_name" not in row
        return
    assert (row["image_snap_name"], row["image_snaps"]) == ("", [])
    assert group.get_snap_info("none")["image_snap_name"] == ""
    with pytest.raises(side.rbd.ObjectNotFound, match=r"\(error showing a group snapshot\)"):
        group.get_snap_info("nothing")
    side.create("a")
    group.add_image(side.ioctx, "a")
    group.create_snap("one")
    assert group.get_snap_info("one")["image_snap_name"].startswith(".group.")


# --- clones ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def family(side: Side) -> dict[str, int]:
    """A parent with a protected snapshot and one that is not, by name; their ids."""
    side.create("parent")
    with side.image("parent") as parent:
        for name in ("kept", "free"):
            parent.create_snap(name)
        parent.protect_snap("kept")
        return {name: parent.snap_get_id(name) for name in ("kept", "free")}


def test_the_parents_snapshot_by_its_id(side: Side, family: dict[str, int]) -> None:
    if not side.told(rules.PARENT_BY_ID):
        return

    def answer(snapshot: Any) -> str:
        return side.answer(side.rbd.RBD().clone, side.ioctx, "parent", snapshot, side.ioctx, "child", features=61)

    odd: tuple[Any, ...] = (None, b"kept", 1.5, float(family["kept"]), bytearray(b"kept"), [])
    for snapshot in odd:
        assert answer(snapshot) == "TypeError", snapshot
    for number in (-1, -2, 2**64, 2**70):
        assert answer(number) == "OverflowError", number
    for number in (0, True, family["free"] + 100, 2**63, 2**64 - 1):
        assert answer(number) == "ImageNotFound", number
    assert answer(2**64 - 2) == "InvalidArgument", "the head is no snapshot"
    assert side.rbd.RBD().list(side.ioctx) == ["parent"]
    assert answer(family["free"]) == "None"


def test_the_format_of_a_clone(side: Side, family: dict[str, int]) -> None:
    zero = side.told(rules.FORMAT_ZERO)
    if zero is None:
        return
    bad = ["InvalidArgument"] if zero == "InvalidArgument" else ["InvalidArgument", "None"]

    def clone(wanted: Any, name: str, snapshot: str = "kept", parent: str = "parent") -> str:
        call = side.rbd.RBD().clone
        return side.answer(call, side.ioctx, parent, snapshot, side.ioctx, name, features=61, clone_format=wanted)

    assert clone(0, "zero") == zero
    assert clone(3, "three") in bad
    assert clone(0, "zero", parent="nobody") == "ImageNotFound"
    assert clone(-1, "x") == clone(2**64, "x") == "OverflowError"
    assert clone("1", "x") == "TypeError"
    assert clone(1, "x", "free") == "InvalidArgument"
    for number, wanted in enumerate((None, 1, 2, 1.5, True)):
        assert clone(wanted, f"good-{number}") == "None"
    with side.image("good-0") as image, side.image("parent") as parent:
        for source in (image, parent):
            for wanted in (0, 3):
                copied = side.answer(source.deep_copy, side.ioctx, "copy", clone_format=wanted)
                assert copied == "InvalidArgument" or zero != "InvalidArgument"
                assert ("copy" in side.rbd.RBD().list(side.ioctx)) == (copied == "None")
                if copied == "None":
                    side.rbd.RBD().remove(side.ioctx, "copy")
        assert side.answer(image.deep_copy, side.ioctx, "copy", flatten="x") == "TypeError"
        assert side.answer(image.deep_copy, side.ioctx, "copy", flatten=None) == "TypeError"


def test_what_copying_is_called(side: Side, family: dict[str, int]) -> None:
    with side.image("parent") as image:
        for copy, words in ((image.deep_copy, side.told(rules.DEEP_COPYING)), (image.copy, "error copying")):
            with pytest.raises(side.rbd.ImageExists, match=rf"\({words} image b'parent' to b'parent'\)"):
                copy(side.ioctx, "parent")


# --- the lock by hand ------------------------------------------------------------------------------------------------


def test_a_transient_lock_goes_to_who_asks(side: Side) -> None:
    side.create("image")
    with side.image("image") as image, side.rbd.Image(side.other_ioctx(), "image") as other:
        if not side.told(rules.TRANSIENT):
            assert side.answer(image.lock_acquire, 2) == "OperationNotSupported"
            return
        image.lock_acquire(2)
        image.write(b"one", 0)
        assert image.is_exclusive_lock_owner()
        if not side.ours:  # 20.2.4 promises it to the other client, and was not seen to give it up
            image.lock_release()
            assert side.answer(image.write, b"two", 0) == "ReadOnlyImage"
            return
        other.write(b"two", 0)  # which takes it
        assert other.is_exclusive_lock_owner() and not image.is_exclusive_lock_owner()
        assert side.answer(image.write, b"three", 0) == "ReadOnlyImage", "it is not taken again automatically"
        assert side.answer(image.lock_release) == "InvalidArgument"
        image.lock_acquire(0)  # and this one stays
        image.write(b"four", 0)
        assert side.answer(other.lock_acquire, 0) == "ReadOnlyImage"
        for mode in (1, 3):
            assert side.answer(image.lock_acquire, mode) == "OperationNotSupported"
        assert side.answer(image.lock_break, 2, "nobody") == "OperationNotSupported"


# --- mirroring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True], ids=["pool not mirrored", "pool mirrored"])
def test_mirroring_of_an_image_that_has_none(side: Side, mirrored: bool) -> None:
    side.create("image")
    if mirrored:
        side.rbd.RBD().mirror_mode_set(side.ioctx, BY_IMAGE)
    mode, refused = side.told(rules.MODE_OF_NONE), side.told(rules.NOT_MIRRORED)
    with side.image("image") as image:
        assert side.answer(image.mirror_image_get_mode) == str(mode)
        assert side.answer(image.mirror_image_promote, False) == refused
        assert side.answer(image.mirror_image_promote, True) == refused
        assert side.answer(image.mirror_image_resync) == refused
        for call, arguments in ((image.mirror_image_demote, ()), (image.mirror_image_create_snapshot, ())):
            assert side.answer(call, *arguments) == "InvalidArgument"
        assert image.mirror_image_get_info() == {"global_id": "", "state": 2, "primary": False}
        heard: list[Any] = []
        completion = image.aio_mirror_image_get_mode(lambda _, found: heard.append(found))
        completion.wait_for_complete_and_cb()
        expected = (-22, None) if isinstance(mode, str) else (0, mode)
        assert (completion.get_return_value(), *heard) == expected


def test_a_pool_that_is_initialized_only(side: Side) -> None:
    rbd = side.rbd.RBD()
    if side.cluster_release < 20:
        assert side.answer(rbd.mirror_mode_set, side.ioctx, INIT_ONLY) == "InvalidArgument"
        assert rbd.mirror_mode_get(side.ioctx) == 0
        assert side.answer(rbd.mirror_uuid_get, side.ioctx) == "ImageNotFound", "nothing is left of it"
        return
    side.create("image")
    rbd.namespace_create(side.ioctx, "space")
    space = side.backend.ioctx(namespace="space", cluster=side.client)
    assert side.answer(rbd.mirror_mode_set, space, INIT_ONLY) == "InvalidArgument"
    rbd.mirror_mode_set(side.ioctx, INIT_ONLY)
    assert rbd.mirror_mode_get(side.ioctx) == INIT_ONLY
    known = rbd.mirror_uuid_get(side.ioctx)
    with side.image("image") as image:
        assert side.answer(image.mirror_image_enable, MIRROR_BY_SNAPSHOTS) == "InvalidArgument"
        rbd.mirror_mode_set(side.ioctx, BY_IMAGE)
        image.mirror_image_enable(MIRROR_BY_SNAPSHOTS)
        assert side.answer(rbd.mirror_mode_set, side.ioctx, INIT_ONLY) == "InvalidArgument"
        image.mirror_image_disable(False)
    rbd.mirror_mode_set(side.ioctx, INIT_ONLY)
    assert rbd.mirror_uuid_get(side.ioctx) == known
    rbd.mirror_mode_set(side.ioctx, 0)
    assert side.answer(rbd.mirror_uuid_get, side.ioctx) == "ImageNotFound"


def test_the_namespace_of_the_other_site(side: Side) -> None:
    rbd = side.rbd.RBD()
    if side.cluster_release < 20:
        return
    rbd.namespace_create(side.ioctx, "space")
    space = side.backend.ioctx(namespace="space", cluster=side.client)
    for ioctx, own in ((side.ioctx, ""), (space, "space")):
        assert rbd.mirror_remote_namespace_get(ioctx) == own
        for wanted in ("other", "", "space"):
            rbd.mirror_remote_namespace_set(ioctx, wanted)
            assert rbd.mirror_remote_namespace_get(ioctx) == wanted
        rbd.mirror_mode_set(ioctx, BY_IMAGE)
        assert side.answer(rbd.mirror_remote_namespace_set, ioctx, "third") == "InvalidArgument"
        assert rbd.mirror_remote_namespace_get(ioctx) == "space"
        rbd.mirror_mode_set(ioctx, 0)
        assert rbd.mirror_remote_namespace_get(ioctx) == own, "it goes with the mirroring"


# --- options ---------------------------------------------------------------------------------------------------------


def test_operations_without_limits(side: Side) -> None:
    side.create("image")
    known = side.told(rules.EXCLUDE_OPS)
    with side.image("image") as image:
        listed = {row["name"]: row["value"] for row in image.config_list()}
        assert listed.get("rbd_qos_exclude_ops") == ("0" if known else None)
        for text in ("", "read", "read,write", "read, write", " read", "write_same,discard", "0", "31"):
            assert side.answer(image.config_set, "rbd_qos_exclude_ops", text) == ("None" if known else "InvalidArgument")
            if known:
                assert image.config_get("rbd_qos_exclude_ops") == text
        for text in ("32", "bogus", "read,bogus", "0x1", "READ"):
            assert side.answer(image.config_set, "rbd_qos_exclude_ops", text) == "InvalidArgument"


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf8_hides_no_others(side: Side) -> None:
    side.create("image")
    with side.image("image") as image:
        for name in (b"a", b"b\xff", b"c"):
            image.create_snap(name)
        if not side.ours:  # the binding shows none of them any more
            assert side.answer(lambda: [row["name"] for row in image.list_snaps()]) == "UnicodeDecodeError"
            return
        listed = [row["name"] for row in image.list_snaps()]
        assert listed == ["a", "b\udcff", "c"]
        assert [image.snap_get_name(image.snap_get_id(name)) for name in listed] == listed
        for name in listed:
            assert image.snap_exists(name)
            image.rename_snap(name, name + "!")
            image.remove_snap(name + "!")
        assert list(image.list_snaps()) == []
