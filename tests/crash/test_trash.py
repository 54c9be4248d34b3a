"""A client dies in the middle of what it does with the trash: after each change that it makes, in turn.

Whoever comes next, be it us or librbd, can bring it to its end: the same call again, or the next one. And what was not to
be lost is not: image and data are there, under their name or in the trash; what was to be removed
goes, with all its objects.
"""

from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.operations import remove, trash
from tests.backend import Backend
from tests.crash.scene import FEATURES, Scene, everywhere, until_gone
from tests.stored import contents


@pytest.mark.parametrize("features", FEATURES)
def test_move(backend: Backend, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(lambda io: trash.move(io, "image", 1000), at)
        if died:
            again(scene, module)
        (entry,) = rbd.RBD().trash_list(scene.ioctx)
        assert (entry["id"], entry["name"], entry["source"]) == (scene.id, "image", "USER")
        assert rbd.RBD().list(scene.ioctx) == []
        module.RBD().trash_restore(scene.ioctx, scene.id, "")
        scene.judge_content()
        module.RBD().remove(scene.ioctx, "image")
        return died

    def again(scene: Scene, module: Any) -> None:
        until_gone(module.RBD().trash_move, scene.ioctx, "image", 1000)

    everywhere(backend, features, scenario, orders=2)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", ["", "other"])
def test_restore(backend: Backend, features: int, name: str) -> None:
    """It is restored under its own name then, whatever name it was to have before."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        rbd.RBD().trash_move(scene.ioctx, "image")
        died = scene.cut_off(lambda io: trash.restore(io, scene.id, name), at)
        if died and name:
            until_gone(rbd.RBD().trash_restore, scene.ioctx, scene.id, "")  # librbd keeps to the name begun with
        elif died:
            until_gone(module.RBD().trash_restore, scene.ioctx, scene.id, "")
        (found,) = module.RBD().list(scene.ioctx)
        if found != "image":
            module.RBD().rename(scene.ioctx, found, "image")
        scene.judge_content()
        assert list(rbd.RBD().trash_list(scene.ioctx)) == []
        module.RBD().remove(scene.ioctx, "image")
        if died and name and "rbd_id.other" in contents(backend.rados_module, scene.ioctx):
            # It died right after it had made this: nothing else leads there, and the name cannot be had until it goes.
            scene.ioctx.remove_object("rbd_id.other")
        return died

    everywhere(backend, features, scenario)


@pytest.mark.parametrize("features", FEATURES)
def test_remove_from_the_trash(backend: Backend, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        rbd.RBD().trash_move(scene.ioctx, "image", 1000)
        died = scene.cut_off(lambda io: trash.remove(io, scene.id, force=True), at)
        until_gone(module.RBD().trash_remove, scene.ioctx, scene.id, True)
        return died

    everywhere(backend, features, scenario, orders=3)


@pytest.mark.parametrize("features", FEATURES)
def test_remove(backend: Backend, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(lambda io: remove.remove(io, "image"), at)
        until_gone(module.RBD().remove, scene.ioctx, "image")
        return died

    everywhere(backend, features, scenario, orders=3)
