"""The two libraries that raise a family: each opens its images anew for every operation, or keeps them open."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.family.content import Member, Snap


class Side:
    """A library with a client of its own. `module`: rbd or rbd_native; `pools`: open ioctxs by name."""

    def __init__(self, module: Any, cluster: Any, pools: list[str], *, keeps: bool) -> None:
        self.rbd = module
        self.cluster = cluster
        self.is_librbd = module.__name__ == "rbd"
        self.pools = {name: cluster.open_ioctx(name) for name in pools}
        self._keeps = keeps
        self._kept: dict[Member, Any] = {}

    def close(self) -> None:
        for member in list(self._kept):
            self.let_go(member)
        for ioctx in self.pools.values():
            ioctx.close()
        self.cluster.shutdown()

    @contextlib.contextmanager
    def open(self, member: Member) -> Iterator[Any]:
        """The image, for reading and writing."""
        image = self._kept.get(member)
        if image is None:
            image = self.rbd.Image(self.pools[member.pool], member.name)
            if self._keeps:
                self._kept[member] = image
        if self.is_librbd:
            image.size()  # it cuts requests off at the size it knew: so it is made to look
        try:
            yield image
            image.flush()  # for the other library to see it; from here on both cache what is written
        finally:
            if member not in self._kept:
                image.close()

    def owns(self, member: Member) -> bool:
        """Whether it keeps the image open, and has its exclusive lock."""
        return member in self._kept and bool(self._kept[member].is_exclusive_lock_owner())

    def let_go(self, member: Member) -> None:
        """Close what is kept of it."""
        if member in self._kept:
            self._kept.pop(member).close()

    @contextlib.contextmanager
    def at(self, member: Member, place: int | None) -> Iterator[Any]:
        """The image, or its `place`th snapshot: one that is open only to be read, or the one that is kept."""
        if self._keeps:
            with self.open(member) as image:
                self._set(image, place)
                try:
                    yield image
                finally:
                    if place is not None:
                        image.set_snap_by_id(None)
        else:
            with self.rbd.Image(self.pools[member.pool], member.name, read_only=True) as image:
                self._set(image, place)
                yield image

    @staticmethod
    def _set(image: Any, place: int | None) -> None:
        # Not Image(snapshot=id): the binding of 16.2.15 dies of that.
        if place is not None:
            image.set_snap_by_id(list(image.list_snaps())[place]["id"])

    def clone(self, parent: Member, snap: Snap, pool: str, name: str, old: bool, **layout: Any) -> None:
        ends = (self.pools[parent.pool], parent.name, snap.name, self.pools[pool], name)
        form = 1 if old else 2
        if self.is_librbd:
            self.cluster.conf_set("rbd_default_clone_format", str(form))
            self.rbd.RBD().clone(*ends, **layout)
        else:
            self.rbd.RBD().clone(*ends, **layout, clone_format=form)
