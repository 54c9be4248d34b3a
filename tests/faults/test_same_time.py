"""Several clients do the same thing at the same time: each hears what librbd's would.

Which of them is first is chance, and so is whether the others come before it has ended: what must hold holds for every
order. The rounds make most orders likely.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from rbd_native.cls_client import mutate
from tests.faults.conftest import OURS, Side

ROUNDS = 6
MIB = 1 << 20


# librbd itself may answer ImageBusy to all who remove an image, or hang: it is not asked.
pytestmark = pytest.mark.parametrize("side", OURS, indirect=True)


def at_once(side: Side, calls: Sequence[Callable[[], Any]]) -> list[str]:
    """What each hears; sorted."""
    barrier = threading.Barrier(len(calls))
    answers: list[str] = []

    def work(call: Callable[[], Any]) -> None:
        barrier.wait()
        answers.append(side.answer(call))

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(answers)


def clone_of(side: Side, name: str, features: int) -> bytes:
    """A clone that shares data with its parent; what it holds."""
    parent = f"{name}-parent"
    side.create(parent, features, size=8 * MIB)
    with side.image(parent) as image:
        image.write(b"p" * 100_000, 0)
        image.write(b"q" * 1000, 3 * MIB)
        image.create_snap("s")
        content: bytes = image.read(0, 8 * MIB)
    side.rbd.RBD().clone(side.ioctx, parent, "s", side.ioctx, name, features=features)
    return content


@pytest.mark.parametrize("features", [1, 29, 61])
def test_all_who_flatten_are_told_that_it_is_done(side: Side, features: int) -> None:
    clients = [side.other_ioctx() for _ in range(4)]
    for number in range(ROUNDS):
        name = f"clone-{number}"
        content = clone_of(side, name, features)
        handles = [side.rbd.Image(ioctx, name) for ioctx in clients]
        try:
            assert at_once(side, [handle.flatten for handle in handles]) == ["None"] * len(handles)
            for handle in handles:
                assert side.answer(handle.flatten) == "InvalidArgument", "there is nothing left to do"
                assert handle.read(0, 8 * MIB) == content
        finally:
            for handle in handles:
                handle.close()
        with side.image(f"{name}-parent") as parent:
            assert list(parent.list_children()) == []
            parent.remove_snap("s")
            assert list(parent.list_snaps()) == []


def test_a_flatten_that_was_not_done_is_not_told_as_done(side: Side) -> None:
    """Only because somebody else was sooner it may be."""
    clone_of(side, "clone", 61)
    with side.image("clone") as image:
        image.create_snap("s")
        image.set_snap("s")
        assert side.answer(image.flatten) == "ReadOnlyImage"
        image.set_snap(None)
        with side.rbd.Image(side.other_ioctx(), "clone") as other:
            other.lock_acquire(0)
            image.flatten()  # the owner does it
            assert side.answer(other.flatten) == "InvalidArgument"
            assert image.overlap() == 0


@pytest.mark.parametrize("features", [1, 61])
@pytest.mark.parametrize("how", ["by name", "from the trash", "by a purge"])
def test_one_of_all_who_remove_an_image_does(side: Side, features: int, how: str) -> None:
    clients = [side.other_ioctx() for _ in range(5)]
    rbd = side.rbd.RBD()
    for number in range(ROUNDS):
        name = f"image-{number}"
        side.create(name, features)
        with side.image(name) as image:
            image.write(b"x" * 5000, 0)
            identifier = image.id()
        if how != "by name":
            rbd.trash_move(side.ioctx, name)
        calls: dict[str, list[partial[None]]] = {
            "by name": [partial(rbd.remove, ioctx, name) for ioctx in clients],
            "from the trash": [partial(rbd.trash_remove, ioctx, identifier) for ioctx in clients],
            "by a purge": [partial(rbd.trash_purge, ioctx) for ioctx in clients],
        }
        answers = at_once(side, calls[how])
        assert set(answers) <= {"None", "ImageBusy", "ImageNotFound"}, answers
        assert "None" in answers, answers
        assert rbd.list(side.ioctx) == [] and list(rbd.trash_list(side.ioctx)) == []
        assert not [found.key for found in side.ioctx.list_objects() if identifier in found.key], "nothing is left"


@pytest.mark.parametrize("features", [1, 61])
def test_who_has_it_open_keeps_an_image_from_being_removed(side: Side, features: int) -> None:
    """Whether that client came before or after the one that would remove it."""
    early, late = side.other_ioctx(), side.other_ioctx()
    side.create("image", features)
    for user, remover in ((early, late), (late, early)):
        with side.rbd.Image(user, "image") as image:
            image.write(b"x", 0)
            assert side.answer(side.rbd.RBD().remove, remover, "image") == "ImageBusy"
            image.write(b"y", 0)
        assert side.rbd.RBD().list(side.ioctx) == ["image"]
    side.rbd.RBD().remove(early, "image")


@pytest.mark.parametrize("features", [1, 61])
def test_all_who_rename_to_names_of_their_own(side: Side, features: int) -> None:
    """One after the other, in some order: it ends up with one of the names, and with nothing else."""
    clients = [side.other_ioctx() for _ in range(3)]
    rbd = side.rbd.RBD()
    for number in range(ROUNDS):
        name = f"image-{number}"
        side.create(name, features)
        names = [f"{name}-{place}" for place in range(len(clients))]
        renaming = zip(clients, names, strict=True)
        answers = at_once(side, [partial(rbd.rename, ioctx, name, new) for ioctx, new in renaming])
        # Who comes when it has another name already does not find it.
        assert "None" in answers and set(answers) <= {"None", "ImageNotFound"}, answers
        (left,) = rbd.list(side.ioctx)
        assert left in names
        ids = [found.key for found in side.ioctx.list_objects() if found.key.startswith("rbd_id.")]
        assert ids == [f"rbd_id.{left}"]
        rbd.remove(side.ioctx, left)


def test_a_rename_that_another_overtakes(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has seen the old name when the other one changes it: the name that is then is the one it takes away."""
    side.create("image", 1)
    other, overtaken = side.other_ioctx(), False

    async def late(*arguments: Any) -> Any:
        nonlocal overtaken
        if not overtaken:
            overtaken = True
            thread = threading.Thread(target=side.rbd.RBD().rename, args=(other, "image", "first"))
            thread.start()
            thread.join()
        return await mutate(*arguments)

    monkeypatch.setattr("rbd_native.operations.rename.mutate", late)
    side.rbd.RBD().rename(side.ioctx, "image", "second")
    assert side.rbd.RBD().list(side.ioctx) == ["second"]
    ids = [found.key for found in side.ioctx.list_objects() if found.key.startswith("rbd_id.")]
    assert ids == ["rbd_id.second"]


@pytest.mark.parametrize("features", [1, 61])
def test_all_who_set_what_may_be_set_twice(side: Side, features: int) -> None:
    """Sizes, metadata, limits, memberships: all are told that it is so."""
    clients = [side.other_ioctx() for _ in range(3)]
    side.create("image", features)
    side.rbd.RBD().group_create(side.ioctx, "group")
    handles = [side.rbd.Image(ioctx, "image") for ioctx in clients]
    groups = [side.rbd.Group(ioctx, "group") for ioctx in clients]
    try:
        for size in (8 * MIB, 2 * MIB):
            assert set(at_once(side, [partial(handle.resize, size) for handle in handles])) == {"None"}
            assert {handle.size() for handle in handles} == {size}
        assert set(at_once(side, [partial(handle.metadata_set, "key", "value") for handle in handles])) == {"None"}
        assert set(at_once(side, [partial(handle.set_snap_limit, 5) for handle in handles])) == {"0"}
        for verb in ("add_image", "remove_image"):
            changing = zip(groups, clients, strict=True)
            calls = [partial(getattr(group, verb), ioctx, "image") for group, ioctx in changing]
            assert set(at_once(side, calls)) == {"None"}
            assert len(list(groups[0].list_images())) == (verb == "add_image")
    finally:
        for handle in handles:
            handle.close()


@pytest.mark.parametrize("features", [1, 5, 61])
def test_all_who_turn_features_on_and_off(side: Side, features: int) -> None:
    """None, or InvalidArgument for who comes when it is so already; and it is so."""
    clients = [side.other_ioctx() for _ in range(3)]
    side.create("image", features)
    handles = [side.rbd.Image(ioctx, "image") for ioctx in clients]
    wanted = {1: (28, True), 5: (24, True), 61: (24, False)}[features]
    try:
        for change, on in (wanted, (wanted[0], not wanted[1])):
            answers = at_once(side, [partial(handle.update_features, change, on) for handle in handles])
            assert "None" in answers and set(answers) <= {"None", "InvalidArgument"}, answers
            assert {handle.features() & change for handle in handles} == {change if on else 0}
    finally:
        for handle in handles:
            handle.close()


@pytest.mark.parametrize("features", [1, 61])
def test_all_who_protect_a_snapshot(side: Side, features: int) -> None:
    clients = [side.other_ioctx() for _ in range(3)]
    side.create("image", features)
    handles = [side.rbd.Image(ioctx, "image") for ioctx in clients]
    try:
        handles[0].create_snap("s")
        for verb, refusal, so in (("protect_snap", "ImageBusy", True), ("unprotect_snap", "InvalidArgument", False)):
            answers = at_once(side, [partial(getattr(handle, verb), "s") for handle in handles])
            assert "None" in answers and set(answers) <= {"None", refusal}, answers
            assert {handle.is_protected_snap("s") for handle in handles} == {so}
    finally:
        for handle in handles:
            handle.close()


@pytest.mark.parametrize("features", [1, 61])
def test_all_who_move_an_image_to_the_trash(side: Side, features: int) -> None:
    clients = [side.other_ioctx() for _ in range(3)]
    side.create("image", features)
    rbd = side.rbd.RBD()
    answers = at_once(side, [partial(rbd.trash_move, ioctx, "image") for ioctx in clients])
    assert "None" in answers and set(answers) <= {"None", "ImageNotFound"}, answers
    (entry,) = rbd.trash_list(side.ioctx)
    answers = at_once(side, [partial(rbd.trash_restore, ioctx, entry["id"], "image") for ioctx in clients])
    assert "None" in answers and set(answers) <= {"None", "ImageExists", "ImageNotFound"}, answers
    assert rbd.list(side.ioctx) == ["image"] and list(rbd.trash_list(side.ioctx)) == []
    with side.image("image") as image:
        assert image.size() == 1 << 22
