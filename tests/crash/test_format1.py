"""A client dies in the middle of what it does to an image of format 1: after each change that it makes, in turn.

Whoever comes next, be it us or librbd, opens the image under the name that the directory has, with its data and snapshots;
the same call again brings it to its end; and once it is removed nothing is left.
"""

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pytest

import rbd_native as rbd
from rbd_native.image.context import ImageContext
from rbd_native.operations import by_name, create, metadata, old_format, remove, resize, rollback, snap_remove, snapshots
from rbd_native.operations.open import open_image
from rbd_native.rados.port import Io
from tests.backend import Backend
from tests.crash.scene import DATA, SIZE, Scene, until_gone

ORDER = 18
NOW = b"now" * 1000
THEN = DATA + bytes(SIZE - 2 * len(DATA)) + DATA


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBD_FORCE_ALLOW_V1", "1")


class OldScene(Scene):
    """With an image of format 1."""

    conf: ClassVar[dict[str, str]] = {"rbd_default_format": "1"}

    def lay_out(self, features: int) -> None:
        rbd.RBD().create(self.ioctx, "image", SIZE, ORDER, old_format=True)

    def judge(self, module: Any, content: bytes = THEN) -> None:
        """Under the one name that is listed."""
        (name,) = module.RBD().list(self.ioctx)
        with module.Image(self.ioctx, name) as image:
            assert image.read(0, image.size()) == content

    def clear(self, module: Any) -> None:
        for name in list(module.RBD().list(self.ioctx)):
            with contextlib.suppress(module.ImageNotFound), module.Image(self.ioctx, name) as image:
                for snap in list(image.list_snaps()):
                    image.remove_snap(snap["name"])
            module.RBD().remove(self.ioctx, name)
        self.judge_empty()


def at_each_change(backend: Backend, scenario: Callable[[OldScene, Any, int], bool]) -> None:
    """With a death at each place; the libraries come next in turn."""
    at, alive = 0, False
    while not alive:
        scene = OldScene(backend, 0)
        modules = list(scene.finishers())
        module = modules[at % len(modules)]
        alive = not scenario(scene, module, at)
        scene.clear(module)
        at += 1
    assert at > 1


def acting(act: Callable[[ImageContext], Coroutine[Any, Any, None]]) -> Callable[[Io], Coroutine[Any, Any, None]]:
    async def work(io: Io) -> None:
        image = await open_image(io, name="image")
        try:
            await act(image)
        finally:
            await image.close()

    return work


def test_create(backend: Backend) -> None:
    def scenario(scene: OldScene, module: Any, at: int) -> bool:
        async def work(io: Io) -> None:
            await old_format.create(io, "new", create.Wish(SIZE, ORDER), allowed=True)

        died = scene.cut_off(work, at)
        assert set(module.RBD().list(scene.ioctx)) <= {"image", "new"}
        if died and at % 4 < 2:
            with contextlib.suppress(module.ImageExists):
                module.RBD().create(scene.ioctx, "new", SIZE, ORDER, True)
            with module.Image(scene.ioctx, "new") as image:
                assert image.size() == SIZE
        until_gone(module.RBD().remove, scene.ioctx, "new")
        scene.judge(module)
        return died

    at_each_change(backend, scenario)


def test_remove(backend: Backend) -> None:
    def scenario(scene: OldScene, module: Any, at: int) -> bool:
        died = scene.cut_off(lambda io: remove.remove(io, "image"), at)
        until_gone(module.RBD().remove, scene.ioctx, "image")
        return died

    at_each_change(backend, scenario)


def test_rename(backend: Backend) -> None:
    """librbd says that the new name is taken, where we go on; it opens the image under the name that is listed, though."""

    def scenario(scene: OldScene, module: Any, at: int) -> bool:
        with rbd.Image(scene.ioctx, "image") as image:
            image.create_snap("snap")
            image.metadata_set("key", "value")
        died = scene.cut_off(lambda io: by_name.rename(io, "image", "other"), at)
        scene.judge(module)
        with contextlib.suppress(rbd.ImageNotFound):  # it was done before that
            rbd.RBD().rename(scene.ioctx, "image", "other")
        assert module.RBD().list(scene.ioctx) == ["other"]
        scene.judge(module)
        with module.Image(scene.ioctx, "other") as image:
            assert list(image.metadata_list()) == [("key", "value")]
            assert [snap["name"] for snap in image.list_snaps()] == ["snap"]
        return died

    at_each_change(backend, scenario)


@pytest.mark.parametrize("snapped", [False, True])
@pytest.mark.parametrize("size", [SIZE // 2 + 5000, SIZE * 2])
def test_resize(backend: Backend, size: int, snapped: bool) -> None:
    def scenario(scene: OldScene, module: Any, at: int) -> bool:
        if snapped:
            with rbd.Image(scene.ioctx, "image") as image:
                image.create_snap("snap")
        died = scene.cut_off(acting(lambda image: resize.resize(image, size)), at)
        with module.Image(scene.ioctx, "image") as image:
            assert image.size() in (SIZE, size)
            image.resize(size)
            image.resize(SIZE * 2)
        scene.judge(module, THEN[:size].ljust(SIZE * 2, b"\0"))
        if snapped:
            with module.Image(scene.ioctx, "image", snapshot="snap") as image:
                assert image.read(0, SIZE) == THEN
        return died

    at_each_change(backend, scenario)


async def _snapshot_verbs(image: ImageContext) -> None:
    await metadata.put(image, "key", b"value")
    await snapshots.create(image, "new")
    await image.fresh()
    await snapshots.rename(image, "new", "newer")
    await image.fresh()
    await snap_remove.remove(image, snapshots.named(image, "newer"))


def test_snapshots(backend: Backend) -> None:
    def scenario(scene: OldScene, module: Any, at: int) -> bool:
        with rbd.Image(scene.ioctx, "image") as image:
            image.create_snap("snap")
            image.write(NOW, 0)
        died = scene.cut_off(acting(_snapshot_verbs), at)
        content = NOW + THEN[len(NOW) :]
        with module.Image(scene.ioctx, "image") as image:
            taken = [snap["name"] for snap in image.list_snaps()]
            assert taken in (["snap"], ["snap", "new"], ["snap", "newer"])
            image.write(DATA, SIZE // 2)
        for name, then in zip(taken, (THEN, content), strict=False):
            if name != "newer":  # it may be half removed: it has its name still, the cluster has given up its data
                with module.Image(scene.ioctx, "image", snapshot=name) as image:
                    assert image.read(0, SIZE) == then
        scene.judge(module, content[: SIZE // 2] + DATA + content[SIZE // 2 + len(DATA) :])
        return died

    at_each_change(backend, scenario)


def test_rollback(backend: Backend) -> None:
    def scenario(scene: OldScene, module: Any, at: int) -> bool:
        with rbd.Image(scene.ioctx, "image") as image:
            image.create_snap("snap")
            image.write(NOW, 0)
            image.resize(SIZE // 2)
        died = scene.cut_off(acting(lambda image: rollback.rollback(image, "snap")), at)
        with module.Image(scene.ioctx, "image", snapshot="snap") as image:
            assert image.read(0, SIZE) == THEN
        with module.Image(scene.ioctx, "image") as image:
            image.rollback_to_snap("snap")
        scene.judge(module)
        return died

    at_each_change(backend, scenario)
