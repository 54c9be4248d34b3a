"""A client dies in the middle of removing a clone, or a parent of one: after each change that it makes, in turn.

The same call again brings it to its end; the rest of the family is as it was all the while. When the
last clone goes its parent's snapshot, or its parent, goes with it that has waited for that, or can be removed then.
"""

from typing import Any, ClassVar

import pytest

import rbd_native as rbd
from rbd_native.operations import remove
from tests.backend import Backend
from tests.crash.scene import Scene, until_gone
from tests.crash.test_families import FEATURES, THEN, at_each_change, must_be, prepare


class Keeping(Scene):
    """Parents that still have clones wait for them in the trash."""

    conf: ClassVar[dict[str, str]] = {"rbd_move_parent_to_trash_on_remove": "true"}


class Careful(Scene):
    """What is removed goes into the trash."""

    conf: ClassVar[dict[str, str]] = {"rbd_move_to_trash_on_remove": "true"}


def without_its_snapshot(scene: Scene) -> None:
    """It waits in the trash, for the clone."""
    with rbd.Image(scene.ioctx, "image") as image:
        image.remove_snap("s")


def end(scene: Scene, module: Any) -> None:
    """By librbd if it can: what has no name any more, but is not in the trash yet, it does not find."""
    until_gone(module.RBD().remove, scene.ioctx, "image")
    until_gone(rbd.RBD().remove, scene.ioctx, "image")


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize(("clone_format", "waiting"), [(1, False), (2, False), (2, True)])
def test_a_clone(
    backend: Backend, request: pytest.FixtureRequest, features: int, clone_format: int, waiting: bool
) -> None:
    """Of a snapshot that may wait in the trash for it."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        prepare(scene, clone_format)
        if waiting:
            without_its_snapshot(scene)
        died = scene.cut_off(lambda io: remove.remove(io, "child"), at)
        until_gone(module.RBD().remove, scene.ioctx, "child")
        assert list(module.RBD().list(scene.ioctx)) == ["image"]
        assert list(rbd.RBD().trash_list(scene.ioctx)) == []
        must_be(scene, "image", THEN)
        with rbd.Image(scene.ioctx, "image") as image:
            assert list(image.list_children2()) == []
            assert died or not waiting or list(image.list_snaps()) == []
        return died

    at_each_change(backend, request, features, scenario)


@pytest.mark.parametrize("features", FEATURES)
def test_a_parent(backend: Backend, request: pytest.FixtureRequest, features: int) -> None:
    """It waits in the trash, and then goes."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        prepare(scene)
        without_its_snapshot(scene)
        died = scene.cut_off(lambda io: remove.remove(io, "image"), at)
        must_be(scene, "child", THEN)
        end(scene, module)
        must_be(scene, "child", THEN)
        assert list(module.RBD().list(scene.ioctx)) == ["child"]
        (entry,) = rbd.RBD().trash_list(scene.ioctx)
        assert (entry["id"], entry["name"], entry["source"]) == (scene.id, "image", "USER_PARENT")
        module.RBD().remove(scene.ioctx, "child")
        assert list(rbd.RBD().trash_list(scene.ioctx)) == []
        return died

    at_each_change(backend, request, features, scenario, Keeping, orders=2)


@pytest.mark.parametrize("features", FEATURES)
def test_the_last_clone_of_a_parent(backend: Backend, request: pytest.FixtureRequest, features: int) -> None:
    """That waits in the trash for it."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        prepare(scene)
        without_its_snapshot(scene)
        rbd.RBD().remove(scene.ioctx, "image")
        died = scene.cut_off(lambda io: remove.remove(io, "child"), at)
        until_gone(module.RBD().remove, scene.ioctx, "child")
        for entry in list(rbd.RBD().trash_list(scene.ioctx)):
            assert died
            module.RBD().trash_remove(scene.ioctx, entry["id"], True)
        return died

    at_each_change(backend, request, features, scenario, Keeping)


@pytest.mark.parametrize("features", FEATURES)
def test_into_the_trash(backend: Backend, request: pytest.FixtureRequest, features: int) -> None:
    """Where an option says that nothing is removed at once."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(lambda io: remove.remove(io, "image"), at)
        end(scene, module)
        (entry,) = rbd.RBD().trash_list(scene.ioctx)
        assert (entry["id"], entry["name"], entry["source"]) == (scene.id, "image", "USER")
        module.RBD().trash_remove(scene.ioctx, entry["id"], True)
        return died

    at_each_change(backend, request, features, scenario, Careful, orders=2)
