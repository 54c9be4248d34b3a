"""The sides that are to agree about groups, and what is done on all of them at once."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import rados
import rbd as real

import rbd_native as ours
from tests.interop.group_store import comparable
from tests.interop.twins import Outcome, agree, outcome
from tests.releases import LISTING_SNAPS_OF_NO_GROUP, OTHER_MEMBERS, told

MIB = 1 << 20
_ROLLED_BACK_TO_OTHERS = "[errno 22] RBD invalid argument (error rolling back group to snapshot)"
OVER_LIMIT = ("ObjectNotFound", "DiskQuotaExceeded")
"""What librbd says where a member may have no more snapshots, and what we say."""


class Side:
    """One library on one cluster, with two pools."""

    def __init__(self, module: Any, rados_module: Any, cluster: Any, pools: list[str]) -> None:
        self.module = module
        self.rados_module = rados_module
        self.cluster = cluster
        self.pools = pools
        self.ioctxs = [cluster.open_ioctx(pool) for pool in pools]

    def role(self, pool_id: int) -> int:
        ids = [ioctx.get_pool_id() for ioctx in self.ioctxs]
        return ids.index(pool_id) if pool_id in ids else pool_id

    @contextlib.contextmanager
    def image(self, pool: int, name: str) -> Iterator[Any]:
        with self.module.Image(self.ioctxs[pool], name) as image:
            yield image

    def group(self, name: Any) -> Any:
        return self.module.Group(self.ioctxs[0], name)

    def forget(self) -> None:
        for ioctx in self.ioctxs:
            for found in list(ioctx.list_objects()):
                with contextlib.suppress(self.rados_module.ObjectNotFound):  # listed still, for its snapshots' sake
                    ioctx.remove_object(found.key)
            ioctx.execute("rbd_directory", "rbd", "dir_state_set", bytes(4))  # images may be made here


class Mixed(Side):
    """Both libraries in turn: what one has made the other goes on with."""

    def __init__(self, cluster: Any, pools: list[str]) -> None:
        super().__init__(None, rados, cluster, pools)
        self._turns = itertools.cycle((real, ours, ours, real, ours, real, real))

    @property
    def module(self) -> Any:
        return next(self._turns)

    @module.setter
    def module(self, module: Any) -> None:
        pass


Call = Callable[[Side], Any]


class Sides:
    """The same calls on every side: they must come out the same. Sides: librbd, both in turn, ours, ours on the embedded
    cluster."""

    def __init__(self, sides: list[Side]) -> None:
        self.sides = sides

    def all(self, call: Call) -> Outcome:
        theirs_side, mixed_side, *our_sides = self.sides
        mine, inside = [outcome(lambda side=side: call(side)) for side in our_sides]  # type: ignore[misc]
        assert inside == mine, f"ours: {mine}, on the embedded cluster: {inside}"
        if mine.words == _ROLLED_BACK_TO_OTHERS and told(OTHER_MEMBERS) != mine.raised:
            return mine  # librbd would do it
        theirs, mixed = [outcome(lambda side=side: call(side)) for side in (theirs_side, mixed_side)]  # type: ignore[misc]
        assert agree(theirs, mixed) or mixed == mine, f"librbd: {theirs}, in turn: {mixed}"
        assert agree(theirs, mine) or (theirs.raised, mine.raised) == OVER_LIMIT, f"librbd: {theirs}, ours: {mine}"
        return mine

    def compare(self) -> list[dict[str, Any]]:
        """All pools hold the same; what that is."""
        theirs, *others = [comparable(side.rados_module, side.ioctxs) for side in self.sides]
        for found in others:
            for pool, wanted in zip(found, theirs, strict=True):
                different = {
                    name: (wanted.get(name), pool.get(name))
                    for name in wanted | pool
                    if wanted.get(name) != pool.get(name)
                }
                assert not different, f"object: (librbd's, ours): {different}"
        return theirs

    # --- what a script is made of ---

    def rbd(self, method: str, *arguments: Any) -> Outcome:
        return self.all(lambda side: getattr(side.module.RBD(), method)(side.ioctxs[0], *arguments))

    def on(self, group: Any, method: str, *arguments: Any) -> Outcome:
        if method == "list_snaps":
            return self.snaps(group)
        return self.all(lambda side: getattr(side.group(group), method)(*arguments))

    def member(self, group: Any, method: str, pool: int, image: Any) -> Outcome:
        return self.all(lambda side: getattr(side.group(group), method)(side.ioctxs[pool], image))

    def members(self, group: Any) -> Outcome:
        def listed(side: Side) -> Any:
            found = [(side.role(m["pool"]), m["name"], m["state"], sorted(m)) for m in side.group(group).list_images()]
            assert [place for place, *_ in found] == sorted(place for place, *_ in found)
            return sorted(found)

        return self.all(listed)

    def may_leave(self, group: str, pool: int, name: str) -> bool:
        """Whether it is in no other group. Else a link is left, over which removing the group fails: with some members
        removed before and some not, as their ids are."""
        try:
            with real.Image(self.sides[0].ioctxs[pool], name) as image:
                return image.group()["name"] in ("", group)
        except real.ImageNotFound:
            return True

    def snaps(self, group: Any) -> Outcome:
        if told(LISTING_SNAPS_OF_NO_GROUP) and not self._exists(group):
            mine = self.sides[-1]
            return outcome(lambda: list(mine.group(group).list_snaps()))
        return self.all(lambda side: sorted((s["name"], s["state"]) for s in side.group(group).list_snaps()))

    def _exists(self, group: Any) -> bool:
        """Whether there is a group of that name; of what is no name, that librbd will see that."""
        if not isinstance(group, str | bytes):
            return True
        name = group.decode("utf-8", "surrogateescape") if isinstance(group, bytes) else group
        return name in ours.RBD().group_list(self.sides[-1].ioctxs[0])

    def create(self, pool: int, name: str, features: int) -> Outcome:
        return self.all(lambda side: side.module.RBD().create(side.ioctxs[pool], name, MIB, 18, features=features))

    def remove(self, pool: int, name: str) -> Outcome:
        return self.all(lambda side: side.module.RBD().remove(side.ioctxs[pool], name))

    def rename(self, pool: int, name: str, new_name: str) -> Outcome:
        return self.all(lambda side: side.module.RBD().rename(side.ioctxs[pool], name, new_name))

    def write(self, pool: int, name: str, place: int) -> Outcome:
        def write(side: Side) -> Any:
            with side.image(pool, name) as image:
                return image.write(bytes([place + 1]) * 5000, place * 100_000)

        return self.all(write)

    def resize(self, pool: int, name: str, size: int) -> Outcome:
        def resize(side: Side) -> Any:
            with side.image(pool, name) as image:
                image.resize(size)

        return self.all(resize)

    def limit(self, pool: int, name: str, number: int) -> Outcome:
        def limit(side: Side) -> Any:
            with side.image(pool, name) as image:
                image.set_snap_limit(number)

        return self.all(limit)

    def snap(self, pool: int, name: str) -> Outcome:
        """One of the image's own."""

        def snap(side: Side) -> Any:
            with side.image(pool, name) as image:
                image.create_snap("own")

        return self.all(snap)

    def drop_part(self, pool: int, name: str) -> Outcome:
        """The image's first snapshot, whosever it is."""

        def drop(side: Side) -> Any:
            with side.image(pool, name) as image:
                for found in sorted(image.list_snaps(), key=lambda found: int(found["id"]))[:1]:
                    image.remove_snap_by_id(found["id"])

        return self.all(drop)

    def look(self, pool: int, name: str) -> Outcome:
        """All that an image says about its group, its snapshots, and itself."""

        def look(side: Side) -> Any:
            with side.image(pool, name) as image:
                group = image.group()
                content = image.read(0, image.size())
                found = [self._part(side, image, snap) for snap in image.list_snaps()]
                return side.role(group["pool"]), group["name"], image.size(), image.op_features(), content, found

        return self.all(look)

    @staticmethod
    def _part(side: Side, image: Any, snap: dict[str, Any]) -> Any:
        told = outcome(lambda: image.snap_get_group_namespace(snap["id"]))
        if snap.get("group"):
            assert told.value == snap["group"]
        kind = image.snap_get_namespace_type(snap["id"])
        image.set_snap_by_id(snap["id"])
        content = image.read(0, image.size())
        image.set_snap_by_id(None)
        value = told.value if told.raised else (side.role(told.value["pool"]), sorted(told.value.items())[0])
        return snap["size"], snap["namespace"], kind, told.raised, value, content, sorted(snap)
