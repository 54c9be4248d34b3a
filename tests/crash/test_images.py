"""A client dies in the middle of making, renaming or resizing an image: after each change that it makes, in turn.

The image is as it was, or as it was to be, or can be brought there by the same call again; nobody finds half an image that
cannot be removed, and nothing of a removed one is left behind.
"""

from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.image.context import ImageContext
from rbd_native.operations import by_name, create, metadata, resize, snap_remove, snapshots
from rbd_native.operations.open import open_image
from rbd_native.rados.port import Io
from tests.backend import Backend
from tests.crash.scene import DATA, FEATURES, SIZE, Scene, everywhere, until_gone


@pytest.mark.parametrize("wish", [create.Wish(SIZE, 18, 1), create.Wish(SIZE, 18, 61), create.Wish(SIZE, 18, 61, 4096, 3)])
def test_create(backend: Backend, wish: create.Wish) -> None:
    """What a create left behind is removed by its name, as any image is."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        async def work(io: Io) -> None:
            await create.create(io, "new", wish)

        died = scene.cut_off(work, at)
        assert set(module.RBD().list(scene.ioctx)) <= {"image", "new"}
        scene.judge_content()
        until_gone(module.RBD().remove, scene.ioctx, "new")
        rbd.RBD().remove(scene.ioctx, "image")
        return died

    everywhere(backend, 1, scenario, orders=2)


@pytest.mark.parametrize("features", FEATURES)
def test_rename(backend: Backend, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(lambda io: by_name.rename(io, "image", "other"), at)
        (found,) = module.RBD().list(scene.ioctx)
        with module.Image(scene.ioctx, found) as image:
            assert image.id() == scene.id
            assert image.read(0, len(DATA)) == DATA
        module.RBD().remove(scene.ioctx, found)
        for name in ("image", "other"):  # a spare name that leads nowhere may be left: it can be taken again
            if f"rbd_id.{name}" in {entry.key for entry in scene.ioctx.list_objects()}:
                scene.ioctx.remove_object(f"rbd_id.{name}")
        return died

    everywhere(backend, features, scenario)


async def _resized(io: Io, size: int) -> None:
    image = await open_image(io, name="image")
    await resize.resize(image, size)
    await image.close()


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("size", [SIZE // 2 + 5000, SIZE * 2])
def test_resize(backend: Backend, features: int, size: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(lambda io: _resized(io, size), at)
        with module.Image(scene.ioctx, "image") as image:
            assert image.size() in (SIZE, size)
            image.resize(size)
            assert image.read(0, len(DATA)) == DATA
            image.resize(SIZE * 2)
            kept = min(size, SIZE)
            expected = (bytes(SIZE - len(DATA)) + DATA)[len(DATA) : kept]
            assert image.read(len(DATA), SIZE * 2 - len(DATA)) == expected.ljust(SIZE * 2 - len(DATA), bytes(1))
            assert image.flags() == 0
        judge_map(scene, features)
        module.RBD().remove(scene.ioctx, "image")
        return died

    everywhere(backend, features, scenario)


async def _touched(io: Io) -> None:
    image = await open_image(io, name="image")
    await metadata.put(image, "key", b"value")
    await snapshots.create(image, "snap")
    await _without(image, "snap")
    await image.close()


async def _without(image: ImageContext, name: str) -> None:
    await image.fresh()
    await snap_remove.remove(image, snapshots.named(image, name))


@pytest.mark.parametrize("features", FEATURES)
def test_metadata_and_snapshots(backend: Backend, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(_touched, at)
        with module.Image(scene.ioctx, "image") as image:
            assert dict(image.metadata_list()) in ({}, {"key": "value"})
            for snap in list(image.list_snaps()):
                image.remove_snap_by_id(snap["id"])
            image.write(DATA, SIZE // 2)
            assert image.read(0, len(DATA)) == image.read(SIZE // 2, len(DATA)) == DATA
        scene.judge_content()
        module.RBD().remove(scene.ioctx, "image")
        return died

    everywhere(backend, features, scenario, orders=2)


def judge_map(scene: Scene, features: int) -> None:
    """librbd finds the object map true."""
    if scene.backend.cli is not None and features & rbd.RBD_FEATURE_OBJECT_MAP:
        scene.backend.cli("rbd", "object-map", "check", "--no-progress", f"{scene.backend.pool}/image")
