"""What the images of a family must hold, and who they descend from: no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from rbd_native.constants import RBD_FEATURE_DEEP_FLATTEN
from rbd_native.striping import Layout
from tests.sharing.model import GRANULARITY, Model


class Content(Model):
    """The bytes of an image of any layout."""

    def __init__(self, data: bytes, layout: Layout) -> None:
        super().__init__(0, layout.order)
        self.data = bytearray(data)
        self.layout = layout

    def discard(self, offset: int, length: int) -> None:
        granularity = min(GRANULARITY, self.object_size)
        for extent in self.layout.iter_extents(offset, min(length, self.size - offset)):
            start, stop = extent.offset, extent.offset + extent.length
            if granularity < self.object_size or stop < self.object_size:
                start = -(-start // granularity) * granularity
                stop -= stop % granularity
            for at, size in self.layout.image_extents(extent.objectno, start, max(stop - start, 0)):
                size = min(size, self.size - at)
                if size > 0:
                    self.data[at : at + size] = bytes(size)


@dataclass(eq=False)
class Snap:
    """`overlap`: what it shares with the parent of its image, None where that has been parted from. `trash`: its name was
    given up, its clones were not."""

    name: str
    data: bytes
    overlap: int | None
    protected: bool = False
    trash: bool = False


@dataclass(eq=False)
class Member:
    """One image. `parent` and `at`: what it was cloned from, for as long as that lists it among its clones. `overlap`: as
    of a snapshot."""

    name: str
    pool: str
    features: int
    content: Content
    depth: int = 0
    parent: Member | None = None
    at: Snap | None = None
    old: bool = False
    overlap: int | None = None
    snaps: list[Snap] = field(default_factory=list)

    @property
    def users(self) -> list[Snap]:
        return [snap for snap in self.snaps if not snap.trash]

    def resize(self, size: int) -> None:
        self.content.resize(size)
        if self.overlap is not None:
            self.overlap = min(self.overlap, size)

    def snapshot(self, name: str) -> None:
        self.snaps.append(Snap(name, bytes(self.content.data), self.overlap))

    def roll_back(self, snap: Snap) -> None:
        self.resize(len(snap.data))
        self.content.data[:] = snap.data


class Family:
    """All images, and what becomes of the relations among them."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    def clones(self, parent: Member, at: Snap) -> list[Member]:
        """Those that the parent lists."""
        return [member for member in self.members if member.parent is parent and member.at is at]

    def descendants(self, member: Member) -> list[Member]:
        """Its clones, and theirs."""
        children = [child for child in self.members if child.parent is member]
        return children + [one for child in children for one in self.descendants(child)]

    def flatten(self, member: Member, *, by_librbd: bool) -> None:
        deep = bool(member.features & RBD_FEATURE_DEEP_FLATTEN)
        if deep or not member.snaps:
            member.overlap = None if member.overlap or not by_librbd else member.overlap
            for snap in member.snaps if deep else ():
                snap.overlap = None
            self.part(member)
        elif member.overlap or not by_librbd:
            # librbd leaves a bond that holds nothing as it is.
            member.overlap = None
            self.settle(member)

    def settle(self, child: Member) -> None:
        """After the head or a snapshot of a clone has parted from its parent."""
        if child.overlap is None and all(snap.overlap is None for snap in child.snaps):
            self.part(child)

    def part(self, child: Member) -> None:
        """A clone is no clone any more. With the last of them goes a snapshot in the trash."""
        parent, at, child.parent, child.at = child.parent, child.at, None, None
        if parent is not None and at is not None and at.trash and not self.clones(parent, at):
            self.forget(parent, at)

    def last_bound(self, member: Member, snap: Snap) -> bool:
        """Whether a clone that was flattened is bound to its parent for the sake of that snapshot alone."""
        return member.overlap is None and [one for one in member.snaps if one.overlap is not None] == [snap]

    def remove_snap(self, member: Member, snap: Snap) -> None:
        if self.clones(member, snap):
            snap.trash = True
        else:
            self.forget(member, snap)

    def forget(self, member: Member, snap: Snap) -> None:
        member.snaps.remove(snap)
        if snap.overlap is not None:
            self.settle(member)

    def remove(self, member: Member) -> None:
        self.members.remove(member)
        self.part(member)
