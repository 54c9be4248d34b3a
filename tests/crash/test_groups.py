"""A client dies in the middle of what it does with a group: after each change that it makes, in turn.

A snapshot of the group is there and whole, or it is incomplete and can be removed, by either library, and then nothing is
left of it on any member. What a rollback or a removal has begun the same call again brings to its end.
"""

from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.header import INVALID_MAPS
from rbd_native.operations import group, group_members, group_snapshots
from rbd_native.rados.port import Io
from tests.backend import Backend
from tests.crash.scene import DATA, KEPT, SIZE, Scene, everywhere
from tests.stored import contents

FEATURES = 61
LATER = bytes(reversed(DATA))
MEMBERS = ("image", "second")


class Grouped:
    """The scene's image and a second one in a group, and a client that may die."""

    def __init__(self, scene: Scene, features: int, *, snapshot: bool = False) -> None:
        self.scene = scene
        self.ioctx = scene.ioctx
        rbd.RBD().create(self.ioctx, "second", SIZE, 18, features=features)
        rbd.RBD().group_create(self.ioctx, "group")
        self.write("second", DATA)
        for name in MEMBERS:
            self.of(rbd).add_image(self.ioctx, name)
        if snapshot:
            self.of(rbd).create_snap("snap")
            for name in MEMBERS:
                self.write(name, LATER)

    def of(self, module: Any) -> Any:
        return module.Group(self.ioctx, "group")

    def write(self, name: str, data: bytes) -> None:
        with rbd.Image(self.ioctx, name) as image:
            image.write(data, 0)
            image.write(data, SIZE - len(data))

    def judge(self, *allowed: bytes) -> None:
        """All of each member is one of these."""
        for name in MEMBERS:
            with rbd.Image(self.ioctx, name) as image:
                assert image.read(0, len(DATA)) in allowed
                assert image.read(SIZE - len(DATA), len(DATA)) in allowed
                # A snapshot's map goes before the snapshot: who finds it gone flags the next one as not to be believed.
                assert image.flags() in (0, INVALID_MAPS)

    def states(self) -> list[int]:
        return [snap["state"] for snap in self.of(rbd).list_snaps()]

    def parts(self, by: Any = rbd) -> list[int]:
        """How many snapshots each member has. `by`: who has removed what was begun to be: librbd leaves what is left of a
        member's in the trash, where it goes with the image."""
        found = []
        for name in MEMBERS:
            with rbd.Image(self.ioctx, name) as image:
                kinds = [snap["namespace"] for snap in image.list_snaps()]
                found.append(len([kind for kind in kinds if by is rbd or kind != rbd.RBD_SNAP_NAMESPACE_TYPE_TRASH]))
        return found

    def end(self, module: Any) -> None:
        """All is removed, without a trace."""
        module.RBD().group_remove(self.ioctx, "group")
        assert rbd.RBD().group_list(self.ioctx) == []
        assert self.parts(module) == [0, 0]
        for name in MEMBERS:
            module.RBD().remove(self.ioctx, name)
        left = set(contents(self.scene.backend.rados_module, self.ioctx)) - KEPT
        assert left <= {"rbd_group_directory"} | {oid for oid in left if oid.startswith("rbd_group_header.")}
        for oid in left:
            if oid != "rbd_group_directory":
                assert contents(self.scene.backend.rados_module, self.ioctx)[oid].omap == {}
            self.ioctx.remove_object(oid)


def test_create_and_add(backend: Backend) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        async def work(io: Io) -> None:
            await group.create(io, "group")
            await group_members.add(io, "group", io, "image")
            await group_members.remove(io, "group", io, "image")
            await group_members.add(io, "group", io, "image")
            await group.rename(io, "group", "other")

        died = scene.cut_off(work, at)
        names = module.RBD().group_list(scene.ioctx)
        assert names in ([], ["group"], ["other"])
        if not names:
            names = ["group"]
            module.RBD().group_create(scene.ioctx, "group")
        found = module.Group(scene.ioctx, names[0])
        assert [member["name"] for member in found.list_images()] in ([], ["image"])
        found.add_image(scene.ioctx, "image")
        (member,) = found.list_images()
        assert (member["name"], member["state"]) == ("image", rbd.RBD_GROUP_IMAGE_STATE_ATTACHED)
        found.create_snap("snap")
        module.RBD().group_remove(scene.ioctx, names[0])
        scene.judge_content()
        rbd.RBD().remove(scene.ioctx, "image")
        _forget_groups(scene)
        return died

    everywhere(backend, FEATURES, scenario)


def _forget_groups(scene: Scene) -> None:
    """The directory of groups stays; a header may, of a group that never got its name."""
    for oid, one in contents(scene.backend.rados_module, scene.ioctx).items():
        if oid.startswith("rbd_group"):
            assert one.omap == {}
            scene.ioctx.remove_object(oid)


@pytest.mark.parametrize("features", [1, FEATURES])
def test_create_snap(backend: Backend, features: int) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        grouped = Grouped(scene, features)
        died = scene.cut_off(lambda io: group_snapshots.create(io, "group", "snap"), at)
        states = grouped.states()
        assert states in ([], [rbd.RBD_GROUP_SNAP_STATE_INCOMPLETE], [rbd.RBD_GROUP_SNAP_STATE_COMPLETE])
        if states == [rbd.RBD_GROUP_SNAP_STATE_COMPLETE]:
            assert grouped.parts() == [1, 1]
            for name in MEMBERS:
                grouped.write(name, LATER)
            grouped.of(module).rollback_to_snap("snap")
        elif states:
            with pytest.raises(rbd.InvalidArgument):
                grouped.of(rbd).rollback_to_snap("snap")
        grouped.judge(DATA)
        if states:
            grouped.of(module).remove_snap("snap")
        assert (grouped.states(), grouped.parts()) == ([], [0, 0])
        grouped.of(module).create_snap("snap")
        assert grouped.parts() == [1, 1]
        grouped.end(module)
        return died

    everywhere(backend, features, scenario)


def test_remove_snap(backend: Backend) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        grouped = Grouped(scene, FEATURES, snapshot=True)
        died = scene.cut_off(lambda io: group_snapshots.remove(io, "group", "snap"), at)
        if grouped.states():
            grouped.of(module).remove_snap("snap")
        assert (grouped.states(), grouped.parts(module)) == ([], [0, 0])
        grouped.judge(LATER)
        grouped.end(module)
        return died

    everywhere(backend, FEATURES, scenario)


def test_rollback(backend: Backend) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        grouped = Grouped(scene, FEATURES, snapshot=True)
        died = scene.cut_off(lambda io: group_snapshots.roll_back(io, "group", "snap"), at)
        grouped.judge(DATA, LATER)
        assert grouped.states() == [rbd.RBD_GROUP_SNAP_STATE_COMPLETE]
        grouped.of(module).rollback_to_snap("snap")
        grouped.judge(DATA)
        grouped.end(module)
        return died

    everywhere(backend, FEATURES, scenario)


def test_remove_group(backend: Backend) -> None:
    def scenario(scene: Scene, module: Any, at: int) -> bool:
        grouped = Grouped(scene, FEATURES, snapshot=True)
        died = scene.cut_off(lambda io: group.remove(io, "group"), at)
        grouped.judge(LATER)
        grouped.end(module)
        return died

    everywhere(backend, FEATURES, scenario)
