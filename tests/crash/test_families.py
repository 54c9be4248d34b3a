"""A client dies in the middle of what it does to a clone, its parent or their snapshots: after each change, in turn.

Both libraries can open everything then, and read what was there; whoever comes next ends it or undoes it, and when all
images are removed nothing is left.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.image.context import ImageContext
from rbd_native.operations import clone, create, flatten, rollback, snap_remove, snapshots
from rbd_native.operations.open import open_image
from rbd_native.rados.port import Io
from tests.backend import Backend
from tests.crash.scene import DATA, SIZE, Scene
from tests.family.left import nothing_left, trim_at_once

NOW = b"now" * 1000
THEN = DATA + bytes(SIZE - 2 * len(DATA)) + DATA
FEATURES = [1, 61]
DEEP_OR_NOT = [1, 29, 61]
"""Deep flattening makes a difference where a clone has snapshots that bind it to its parent, and goes or they go: what is
else done to a clone takes the same steps."""

Act = Callable[[ImageContext], Any]


def at_each_change(
    backend: Backend,
    request: pytest.FixtureRequest,
    features: int,
    scenario: Callable[[Scene, Any, int], bool],
    kind: type[Scene] = Scene,
    orders: int = 1,
) -> None:
    """As tests.crash.scene.everywhere, for images whose snapshots leave something to be trimmed."""
    if backend.kind == "ceph":
        trim_at_once(request.getfixturevalue("ceph"))
    for order in range(orders):
        at, alive = 0, False
        while not alive:
            scene = kind(backend, features)
            scene.order = order
            modules = list(scene.finishers())
            module = modules[(at + order) % len(modules)]
            alive = not scenario(scene, module, at)
            clear(scene, module)
            assert rbd.RBD().list(scene.ioctx) == []
            at += 1 if backend.kind == "embedded" else 5 if orders == 1 else 3
        assert at > 1
    nothing_left(backend, backend.pool)


def clear(scene: Scene, module: Any) -> None:
    """Remove all images, clones first, as far as they are there."""
    for name in ("child", "image"):
        if name not in module.RBD().list(scene.ioctx):
            continue
        # What is half made or half removed has nothing to be opened: its removal is all that is needed.
        with contextlib.suppress(module.ImageNotFound), module.Image(scene.ioctx, name) as image:
            for snap in list(image.list_snaps()):
                if snap["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER and image.is_protected_snap(snap["name"]):
                    image.unprotect_snap(snap["name"])
                image.remove_snap_by_id(snap["id"])
        module.RBD().remove(scene.ioctx, name)


def acting(act: Act, name: str = "image") -> Callable[[Io], Any]:
    async def work(io: Io) -> None:
        image = await open_image(io, name=name)
        try:
            await act(image)
        finally:
            await image.close()

    return work


def prepare(scene: Scene, clone_format: int = 2) -> None:
    """image@s, protected where that is wanted, of which child is a clone."""
    with rbd.Image(scene.ioctx, "image") as image:
        image.create_snap("s")
        if clone_format == 1:
            image.protect_snap("s")
    rbd.RBD().clone(scene.ioctx, "image", "s", scene.ioctx, "child", clone_format=clone_format)


def must_be(scene: Scene, name: str, content: bytes, snap: str | None = None) -> None:
    for module in scene.finishers():
        with module.Image(scene.ioctx, name, snapshot=snap, read_only=True) as image:
            assert image.read(0, SIZE) == content, module.__name__


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("clone_format", [1, 2])
def test_clone(backend: Backend, request: pytest.FixtureRequest, features: int, clone_format: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        with rbd.Image(scene.ioctx, "image") as image:
            image.create_snap("s")
            image.protect_snap("s")
        wish = create.Wish(0, features=features)
        died = scene.cut_off(lambda io: clone.clone(io, "image", "s", io, "child", wish, clone_format), at)
        must_be(scene, "image", THEN)
        if not died:
            must_be(scene, "child", THEN)
        return died

    at_each_change(backend, request, features, scenario)


@pytest.mark.parametrize(
    ("snapped", "features"), [*((False, mask) for mask in FEATURES), *((True, mask) for mask in DEEP_OR_NOT)]
)
@pytest.mark.parametrize("clone_format", [1, 2])
def test_flatten(backend: Backend, request: pytest.FixtureRequest, features: int, clone_format: int, snapped: bool) -> None:
    """Where the parent's snapshot waits in the trash for it, too."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        prepare(scene, clone_format)
        if snapped:
            with rbd.Image(scene.ioctx, "child") as child:
                child.create_snap("c")
                child.write(NOW, 0)
        if clone_format == 2:
            with rbd.Image(scene.ioctx, "image") as image:
                image.remove_snap("s")
        died = scene.cut_off(acting(flatten.flatten, "child"), at)
        content = NOW + THEN[len(NOW) :] if snapped else THEN
        must_be(scene, "child", content)
        with module.Image(scene.ioctx, "child") as child:
            with contextlib.suppress(module.InvalidArgument):  # done before
                child.flatten()
            assert child.overlap() == 0
        must_be(scene, "child", content)
        if snapped:
            must_be(scene, "child", THEN, "c")
        return died

    at_each_change(backend, request, features, scenario)


@pytest.mark.parametrize("features", FEATURES)
def test_rollback(backend: Backend, request: pytest.FixtureRequest, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        prepare(scene)
        with rbd.Image(scene.ioctx, "child") as child:
            child.write(NOW, 1000)
            child.create_snap("c")
            snap = child.read(0, SIZE)
            child.write(b"later" * 10000, SIZE // 2)
            child.resize(SIZE * 3 // 4)
        died = scene.cut_off(acting(lambda image: rollback.rollback(image, "c"), "child"), at)
        must_be(scene, "child", snap, "c")
        with module.Image(scene.ioctx, "child") as child:
            child.rollback_to_snap("c")
        must_be(scene, "child", snap)
        return died

    at_each_change(backend, request, features, scenario)


@pytest.mark.parametrize("features", FEATURES)
def test_create_snapshot(backend: Backend, request: pytest.FixtureRequest, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        prepare(scene)
        died = scene.cut_off(acting(lambda image: snapshots.create(image, "c"), "child"), at)
        with module.Image(scene.ioctx, "child") as child:
            taken = [snap["name"] for snap in child.list_snaps()]
            child.write(NOW, 0)
            child.discard(SIZE // 2, SIZE // 2)
        assert taken in (["c"], []) and (died or taken)
        if taken:
            must_be(scene, "child", THEN, "c")
        must_be(scene, "child", NOW + THEN[len(NOW) : SIZE // 2] + bytes(SIZE // 2))
        return died

    at_each_change(backend, request, features, scenario)


@pytest.mark.parametrize("features", DEEP_OR_NOT)
@pytest.mark.parametrize("cloned", [False, True])
def test_remove_snapshot(backend: Backend, request: pytest.FixtureRequest, features: int, cloned: bool) -> None:
    """Of a clone that was flattened, which may be bound to its parent by it; or one that has a clone."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        prepare(scene)
        name, snap = ("image", "s") if cloned else ("child", "c")
        if not cloned:
            with rbd.Image(scene.ioctx, "child") as child:
                child.create_snap("c")
                child.write(NOW, 0)
                child.flatten()

        async def remove(image: ImageContext) -> None:
            await snap_remove.remove(image, snapshots.named(image, snap))

        died = scene.cut_off(acting(remove, name), at)
        must_be(scene, "child", THEN if cloned else NOW + THEN[len(NOW) :])
        must_be(scene, "image", THEN)
        return died

    at_each_change(backend, request, features, scenario)


@pytest.mark.parametrize("verb", ["protect", "unprotect"])
def test_protection(backend: Backend, request: pytest.FixtureRequest, verb: str) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        with rbd.Image(scene.ioctx, "image") as image:
            image.create_snap("s")
            if verb == "unprotect":
                image.protect_snap("s")
        died = scene.cut_off(acting(lambda image: getattr(snapshots, verb)(image, "s")), at)
        with module.Image(scene.ioctx, "image") as image:
            wanted = verb == "protect"
            with contextlib.suppress(module.ImageBusy, module.InvalidArgument):  # it is so already
                getattr(image, f"{verb}_snap")("s")
            assert image.is_protected_snap("s") == wanted
        return died

    at_each_change(backend, request, 61, scenario)
