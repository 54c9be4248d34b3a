"""A client dies in the middle of what mirroring does to an image: after each change, in turn.

Whatever it was, both libraries can open the image then and read what was there, and the same call again, or the one that
undoes it, ends it; when mirroring is ended and the image removed nothing is left.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.operations import mirror_image, mirror_peers, mirror_pool, remove, trash
from rbd_native.rados.port import Io
from tests.backend import Backend
from tests.crash.scene import DATA, KEPT, Scene, until_gone
from tests.crash.test_families import acting
from tests.interop.mirror_sides import Side, come_from_elsewhere
from tests.stored import contents

LEFT = KEPT | {"rbd_mirroring"}
RBD = rbd.RBD()

Scenario = Callable[[Scene, Any, int], bool]


def at_each_change(
    backend: Backend, features: int, scenario: Scenario, start: Callable[[Scene], None], step: int = 1
) -> None:
    """The libraries come next in turn; then mirroring is ended, and nothing is left of the image. It dies at every `step`th
    change; on a real cluster at some."""
    at, alive = 0, False
    while not alive:
        scene = Scene(backend, features)
        RBD.mirror_mode_set(scene.ioctx, rbd.RBD_MIRROR_MODE_IMAGE)
        if not list(RBD.mirror_peer_list(scene.ioctx)):
            RBD.mirror_peer_add(scene.ioctx, "site", "client.x")
        start(scene)
        modules = list(scene.finishers())
        module = modules[at % len(modules)]
        alive = not scenario(scene, module, at)
        clear(scene, module)
        at += step if backend.kind == "embedded" else 9  # odd, so that both libraries get their turn
    assert at > 3


def judge(scene: Scene) -> None:
    """It is there, with its data, for both libraries."""
    for module in scene.finishers():
        with module.Image(scene.ioctx, "image", read_only=True) as image:
            assert image.read(0, len(DATA)) == DATA
            image.mirror_image_get_info()


def clear(scene: Scene, module: Any) -> None:
    """End its mirroring, remove it, and turn mirroring off."""
    with contextlib.suppress(module.ImageNotFound), module.Image(scene.ioctx, image_id=scene.id) as image:
        image.mirror_image_disable(True)
        assert image.mirror_image_get_info()["state"] == rbd.RBD_MIRROR_IMAGE_DISABLED
    assert list(module.RBD().mirror_image_info_list(scene.ioctx)) == []
    for entry in list(RBD.trash_list(scene.ioctx)):
        RBD.trash_remove(scene.ioctx, entry["id"], True)
    if "image" in RBD.list(scene.ioctx):
        RBD.remove(scene.ioctx, "image")
    left = set(contents(scene.backend.rados_module, scene.ioctx)) - LEFT
    if module is not rbd:  # librbd forgets the state of a snapshot whose removal was cut off
        for name in [name for name in left if name.startswith("rbd_mirror_snapshot.")]:
            scene.ioctx.remove_object(name)
            left.remove(name)
    assert not left


def enabled(scene: Scene) -> None:
    with rbd.Image(scene.ioctx, "image") as image:
        image.mirror_image_enable(1)


def demoted(scene: Scene) -> None:
    with rbd.Image(scene.ioctx, "image") as image:
        image.mirror_image_enable(1)
        image.mirror_image_demote()


def from_elsewhere(scene: Scene) -> None:
    """It was copied whole, and then in part."""
    demoted(scene)
    side = Side(rbd, scene.backend.rados_module, scene.backend.cluster, scene.ioctx)
    for complete in (True, False):
        come_from_elsewhere(side, "image", complete=complete)


def nothing(scene: Scene) -> None:
    pass


def full(scene: Scene) -> None:
    """The next mirror snapshot is one too many."""
    enabled(scene)
    with rbd.Image(scene.ioctx, "image") as image:
        image.config_set("rbd_mirroring_max_mirroring_snapshots", "3")
        for _ in range(2):
            image.mirror_image_create_snapshot()


VERBS: dict[str, tuple[Callable[[Scene], None], str, dict[str, Any]]] = {
    "enable": (nothing, "enable", {"wanted": 1}),
    "disable": (enabled, "disable", {"force": False}),
    "create_snapshot": (full, "create_snapshot", {"flags": 0}),
    "demote": (enabled, "demote", {}),
    "promote": (demoted, "promote", {"force": False}),
    "promote_by_force": (from_elsewhere, "promote", {"force": True}),
    "resync": (demoted, "resync", {}),
    "disable_by_force": (from_elsewhere, "disable", {"force": True}),
}
PRIMARY_AFTER = {"enable": True, "create_snapshot": True, "demote": False, "promote": True, "promote_by_force": True}


@pytest.mark.parametrize(("verb", "features"), [*((verb, 61) for verb in VERBS), ("demote", 1)])
def test_verbs(backend: Backend, verb: str, features: int) -> None:
    start, method, arguments = VERBS[verb]

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(acting(lambda image: getattr(mirror_image, method)(image, **arguments)), at)
        done = (module.InvalidArgument, module.ImageNotFound)  # or it cannot be begun anew
        with module.Image(scene.ioctx, "image") as image, contextlib.suppress(*done):
            getattr(image, f"mirror_image_{method}")(*arguments.values())
        if verb in PRIMARY_AFTER:
            with module.Image(scene.ioctx, "image") as image:
                assert image.mirror_image_get_info()["primary"] == PRIMARY_AFTER[verb]
                if PRIMARY_AFTER[verb] and image.features() & rbd.RBD_FEATURE_NON_PRIMARY:
                    # Cut off right before the last step of a promotion: librbd takes it for done, and nobody may write.
                    assert module is not rbd
                    image.mirror_image_demote()
                    image.mirror_image_promote(False)
                if PRIMARY_AFTER[verb]:
                    assert image.write(DATA, 0) == len(DATA)
        judge(scene)
        return died

    at_each_change(backend, features, scenario, start, 4 if verb.endswith("by_force") else 2)


@pytest.mark.parametrize("verb", ["remove", "trash_move"])
def test_remove(backend: Backend, verb: str) -> None:
    def work(io: Io) -> Any:
        return remove.remove(io, "image") if verb == "remove" else trash.move(io, "image", 0)

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        died = scene.cut_off(work, at)
        until_gone(getattr(module.RBD(), verb), scene.ioctx, "image")
        return died

    at_each_change(backend, 61, scenario, enabled, 3)


@pytest.mark.parametrize("mode", [0, 2])
def test_mode(backend: Backend, mode: int) -> None:
    """Off and on again: mode IMAGE in between is where it may end."""
    at, alive = 0, False
    ioctx = backend.ioctx()
    while not alive:
        RBD.mirror_mode_set(ioctx, 2 - mode)
        scene = Scene(backend, 1)
        alive = not scene.cut_off(lambda io: mirror_pool.set_mode(io, mode), at)
        module = list(scene.finishers())[at % len(list(scene.finishers()))]
        assert module.RBD().mirror_mode_get(ioctx) in (0, 1, 2)
        module.RBD().mirror_mode_set(ioctx, mode)
        assert RBD.mirror_mode_get(ioctx) == mode
        RBD.remove(ioctx, "image")
        at += 1
    assert at > 1


def test_remove_a_peer(backend: Backend) -> None:
    """Done again, it leaves no snapshot that waits for the peer."""

    def scenario(scene: Scene, module: Any, at: int) -> bool:
        (peer,) = RBD.mirror_peer_list(scene.ioctx)
        died = scene.cut_off(lambda io: mirror_peers.remove(io, peer["uuid"]), at)
        module.RBD().mirror_peer_remove(scene.ioctx, peer["uuid"])
        with module.Image(scene.ioctx, "image") as image:
            waiting = [snap["mirror"]["mirror_peer_uuids"] for snap in image.list_snaps() if "mirror" in snap]
            assert waiting == [[]]
        return died

    at_each_change(backend, 61, scenario, full, 3)
