"""Random operations on a family of images, done by random libraries, and what must be true of it after each."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from rbd_native.constants import RBD_FEATURE_DEEP_FLATTEN, RBD_FEATURE_FAST_DIFF, RBD_FEATURE_STRIPINGV2
from rbd_native.constants import RBD_SNAP_NAMESPACE_TYPE_TRASH as TRASH
from rbd_native.striping import Layout
from tests.family.content import Content, Family, Member, Snap
from tests.family.sides import Side
from tests.sharing.model import Dice

DEEPEST = 5
MOST_IMAGES = 7
MOST_SNAPS = 4

WEIGHTS = {
    "write": 26,
    "zero": 8,
    "discard": 10,
    "resize": 9,
    "take": 12,
    "drop": 9,
    "protect": 5,
    "unprotect": 4,
    "clone": 12,
    "roll_back": 6,
    "flatten": 5,
    "remove": 6,
    "sparsify": 2,
    "rename_snap": 2,
}


class Saga:
    """`sides` take turns on a family that begins with one image of `features` in the first of `pools`.

    `thorough`: after how many operations all is looked at, by all; after each, what it was done to is, by one.
    """

    def __init__(
        self, seed: int, sides: list[Side], pools: list[str], data_pool: str, features: int, order: int, *, thorough: int
    ) -> None:
        self.random = random.Random(seed)
        self.sides = sides
        self.pools = pools
        self.data_pool = data_pool
        self.features = features
        self.order = order
        self.thorough = thorough
        self.largest = 24 << order
        self.dice = Dice(seed, self.largest, order)
        self.family = Family()
        self.count = 0
        self.log: list[str] = []

    # --- running it ---

    def run(self, operations: int) -> None:
        self.found()
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        for number in range(operations):
            if not self.family.members:
                self.found()
            member = self.random.choice(self.family.members)
            side = self.random.choice(self.sides)
            kind = self.random.choices(kinds, weights)[0]
            self.say(f"{number}: {'librbd' if side.is_librbd else 'ours'} {kind} {member.name}")
            getattr(self, f"_{kind}")(member, side)
            if member in self.family.members:
                self.check(member)
            if number % self.thorough == self.thorough - 1:
                self.check_all()
        self.check_all()

    def say(self, words: str) -> None:
        self.log.append(words)

    def story(self) -> str:
        return "\n".join(self.log[-60:])

    def end(self) -> None:
        """Take everything apart again, in any order that works."""
        while self.family.members:
            member = self.random.choice(self.family.members)
            side = self.random.choice(self.sides)
            for snap in member.users:
                if snap.protected and not any(clone.old for clone in self.family.clones(member, snap)):
                    self._unprotect_one(member, snap, side)
                if not snap.protected:
                    self._drop_one(member, snap, side)
            if not member.snaps:
                self._remove(member, side)

    # --- founding ---

    def found(self) -> None:
        side = self.random.choice(self.sides)
        layout = self._layout()
        name, size = self._new_name(), self.random.randrange(self.largest // 2, self.largest)
        content = Content(bytes(size), layout)
        pool = self.pools[0]
        self.say(f"found {name} {layout} {size}")
        side.rbd.RBD().create(
            side.pools[pool], name, size, order=layout.order, old_format=False, features=self.features,
            stripe_unit=layout.stripe_unit, stripe_count=layout.stripe_count, data_pool=self._data_pool(),
        )  # fmt: skip
        member = Member(name, pool, self._kept_features(), content)
        self.family.members.append(member)
        for _ in range(6):
            self._write(member, side)

    def _new_name(self) -> str:
        self.count += 1
        return f"m{self.count}"

    def _kept_features(self) -> int:
        return self.features & ~RBD_FEATURE_STRIPINGV2

    def _layout(self) -> Layout:
        order = self.random.choice([self.order, self.order, max(self.order - 1, 12), self.order + 1])
        if not self.features & RBD_FEATURE_STRIPINGV2 and self.random.random() < 0.8:
            return Layout(order, 1 << order, 1)
        unit = self.random.choice([4096, 1 << (order - 1), 1 << order])
        return Layout(order, min(unit, 1 << order) if unit >= 4096 else 1 << order, self.random.choice([1, 2, 3]))

    def _data_pool(self) -> str | None:
        return self.data_pool if self.random.random() < 0.2 else None

    # --- data ---

    def _extent(self, member: Member) -> tuple[int, int] | None:
        return self.dice.extent(0, member.content.size) if member.content.size else None

    def _write(self, member: Member, side: Side) -> None:
        extent = self._extent(member)
        if extent is None:
            return
        offset, length = extent
        data = self.random.randbytes(length)
        self.say(f"  {offset}~{length}")
        with side.open(member) as image:
            assert image.write(data, offset) == length
        member.content.write(data, offset)

    def _zero(self, member: Member, side: Side) -> None:
        extent = self._extent(member)
        if extent is None:
            return
        thick = self.random.choice([0, 0, 1])
        self.say(f"  {extent[0]}~{extent[1]} thick={thick}")
        with side.open(member) as image:
            image.write_zeroes(*extent, thick)
        member.content.write_zeroes(*extent)

    def _discard(self, member: Member, side: Side) -> None:
        extent = self._extent(member)
        if extent is None:
            return
        self.say(f"  {extent[0]}~{extent[1]}")
        with side.open(member) as image:
            image.discard(*extent)
        member.content.discard(*extent)

    def _sparsify(self, member: Member, side: Side) -> None:
        if member.snaps and member.features & RBD_FEATURE_FAST_DIFF:
            return  # whoever does it, librbd or not: the map then calls objects changed that are not, and the check minds
        with side.open(member) as image:
            image.sparsify(4096)

    def _resize(self, member: Member, side: Side) -> None:
        size = member.content.size
        low, high = (0, size) if self.random.random() < 0.5 else (self.largest // 4, self.largest)
        new = self.random.randint(low, high)
        new -= new % self.random.choice([1, 4096, member.content.object_size])
        self.say(f"  {size} -> {new}")
        with side.open(member) as image:
            image.resize(new)
        member.resize(new)

    # --- snapshots ---

    def _take(self, member: Member, side: Side) -> None:
        if len(member.snaps) >= MOST_SNAPS:
            return
        name = f"s{self.random.randrange(1000)}"
        self.say(f"  {name}")
        with side.open(member) as image:
            if any(snap.name == name for snap in member.users):
                with pytest.raises(side.rbd.ImageExists):
                    image.create_snap(name)
                return
            image.create_snap(name)
        member.snapshot(name)

    def _some(self, member: Member) -> Snap | None:
        return self.random.choice(member.users) if member.users else None

    def _drop(self, member: Member, side: Side) -> None:
        snap = self._some(member)
        if snap is not None:
            self.say(f"  {snap.name}")
            self._drop_one(member, snap, side)

    def _drop_one(self, member: Member, snap: Snap, side: Side) -> None:
        by_librbd = self._doer(member, side).is_librbd
        if by_librbd and self.family.last_bound(member, snap) and self.family.clones(member, snap):
            # librbd takes the image off its parent's list, although the snapshot stays, in the trash, and depends on that:
            # once the parent's snapshot goes, the clones cannot be opened any more.
            self.say("  not by librbd")
            return
        with side.open(member) as image:
            if snap.protected:
                with pytest.raises(side.rbd.ImageBusy):
                    image.remove_snap(snap.name)
                return
            image.remove_snap(snap.name)
        self.family.remove_snap(member, snap)

    def _rename_snap(self, member: Member, side: Side) -> None:
        snap = self._some(member)
        if snap is not None:
            name = f"r{self.random.randrange(10**6)}"
            self.say(f"  {snap.name} -> {name}")
            with side.open(member) as image:
                image.rename_snap(snap.name, name)
            snap.name = name

    def _protect(self, member: Member, side: Side) -> None:
        snap = self._some(member)
        if snap is not None:
            self.say(f"  {snap.name}")
            with side.open(member) as image:
                if snap.protected:
                    with pytest.raises(side.rbd.ImageBusy):
                        image.protect_snap(snap.name)
                else:
                    image.protect_snap(snap.name)
            snap.protected = True

    def _unprotect(self, member: Member, side: Side) -> None:
        snap = self._some(member)
        if snap is not None:
            self.say(f"  {snap.name}")
            self._unprotect_one(member, snap, side)

    def _unprotect_one(self, member: Member, snap: Snap, side: Side) -> None:
        refusal = None
        if not snap.protected:
            refusal = side.rbd.InvalidArgument
        elif any(clone.old for clone in self.family.clones(member, snap)):
            refusal = side.rbd.ImageBusy
        with side.open(member) as image:
            if refusal is not None:
                with pytest.raises(refusal):
                    image.unprotect_snap(snap.name)
            else:
                image.unprotect_snap(snap.name)
                snap.protected = False

    def _roll_back(self, member: Member, side: Side) -> None:
        snap = self._some(member)
        if snap is not None:
            self.say(f"  {snap.name}")
            with side.open(member) as image:
                image.flush()  # takes the lock from the other handle, if that has it: a rollback does not ask for it
                image.rollback_to_snap(snap.name)
                if side.is_librbd and member.features & RBD_FEATURE_FAST_DIFF:
                    # It leaves a map that calls unchanged since the newest snapshot what it has just rolled back.
                    image.rebuild_object_map()
            member.roll_back(snap)

    # --- relations ---

    def _clone(self, parent: Member, side: Side) -> None:
        if not parent.snaps:
            self._take(parent, side)
        snap = self._some(parent)
        if snap is None or parent.depth >= DEEPEST or len(self.family.members) >= MOST_IMAGES:
            return
        old = self.random.random() < (0.7 if snap.protected else 0.1)
        name, pool, layout = self._new_name(), self.random.choice(self.pools), self._layout()
        features = self.random.choice([self.features, self.features, self.features, 1, 5, 13, 29, 61])
        asked: dict[str, Any] = {"features": features, "data_pool": self._data_pool()}
        if self.random.random() < 0.5:
            asked |= {"order": layout.order, "stripe_unit": layout.stripe_unit, "stripe_count": layout.stripe_count}
        else:
            layout = parent.content.layout
        self.say(f"  {snap.name} to {pool}/{name} old={old} {asked} {layout}")

        def make() -> None:
            side.clone(parent, snap, pool, name, old, **asked)

        if not snap.data or (old and not snap.protected):
            with pytest.raises(side.rbd.InvalidArgument):
                make()
            return
        make()
        child = Member(
            name, pool, features & ~RBD_FEATURE_STRIPINGV2, Content(snap.data, layout), parent.depth + 1, parent, snap, old,
            len(snap.data),
        )  # fmt: skip
        self.family.members.append(child)

    def _flatten(self, member: Member, side: Side) -> None:
        deep = member.features & RBD_FEATURE_DEEP_FLATTEN
        if self._doer(member, side).is_librbd and deep and member.overlap == 0 and any(s.overlap for s in member.snaps):
            # librbd finds that the head shares nothing with its parent, takes the image off the parent's list all the
            # same, and leaves its snapshots depending on what may go now.
            self.say("  not by librbd")
            return
        with side.open(member) as image:
            if member.overlap is None:
                with pytest.raises(side.rbd.InvalidArgument):
                    image.flatten()
                return
            doer = self._doer(member, side)
            image.flatten()
        self.family.flatten(member, by_librbd=doer.is_librbd)
        for other in self.family.descendants(member):
            # An open librbd never looks at its parents again, and goes on reading what the flattened one has let go of.
            for every in self.sides:
                if every.is_librbd:
                    every.let_go(other)

    def _doer(self, member: Member, side: Side) -> Side:
        """Who does what one of the sides asks for: whoever keeps the image open and has its lock."""
        return next((every for every in self.sides if every.owns(member)), side)

    def _remove(self, member: Member, side: Side) -> None:
        waiting = member.snaps and all(snap.trash for snap in member.snaps)
        if side.is_librbd and waiting and any(snap.overlap for snap in member.snaps):
            # librbd refuses, but not before it has taken the image off its parent's list: its snapshots lose the parent.
            self.say("  not by librbd")
            return
        for every in self.sides:
            every.let_go(member)
        ioctx = side.pools[member.pool]
        if member.snaps:
            with pytest.raises(side.rbd.ImageHasSnapshots):
                side.rbd.RBD().remove(ioctx, member.name)
            return
        side.rbd.RBD().remove(ioctx, member.name)
        self.family.remove(member)

    # --- what must be true ---

    def check_all(self) -> None:
        for member in self.family.members:
            for side in self.sides:
                self._compare(side, self._head(member, side))
                for place in range(len(member.snaps)):
                    self._compare(side, self._snapshot(member, place, side))

    def check(self, member: Member) -> None:
        """By one of the sides, and one of the snapshots by another."""
        side = self.random.choice(self.sides)
        self._compare(side, self._head(member, side))
        if member.snaps:
            side = self.random.choice(self.sides)
            self._compare(side, self._snapshot(member, self.random.randrange(len(member.snaps)), side))

    def _compare(self, side: Side, views: Iterable[tuple[str, Any, Any]]) -> None:
        """(what, as it must be, as it is)."""
        for what, wanted, found in views:
            assert found == wanted, _difference(found, wanted, f"{what} by {side.rbd.__name__}")

    def _head(self, member: Member, side: Side) -> Iterator[tuple[str, Any, Any]]:
        with side.at(member, None) as image:
            yield f"{member.name} overlap", member.overlap or 0, image.overlap()
            yield f"{member.name} flags", 0, image.flags()
            yield f"{member.name} size", member.content.size, image.size()
            yield f"{member.name}", bytes(member.content.data), bytes(image.read(0, image.size()))
            rows = [(_name(snap), snap["size"], snap["namespace"] == TRASH) for snap in image.list_snaps()]
        yield f"{member.name} snapshots", [(s.name, len(s.data), s.trash) for s in member.snaps], rows

    def _snapshot(self, member: Member, place: int, side: Side) -> Iterator[tuple[str, Any, Any]]:
        snap, name = member.snaps[place], f"{member.name}@{member.snaps[place].name}"
        with side.at(member, place) as image:
            yield f"{name} overlap", snap.overlap or 0, image.overlap()
            yield f"{name} flags", 0, image.flags()
            yield name, snap.data, bytes(image.read(0, image.size()))
            children = sorted((child["pool"], child["image"]) for child in image.list_children2())
        wanted = sorted((child.pool, child.name) for child in self.family.clones(member, snap))
        yield f"clones of {name}", wanted, children


def _name(snap: dict[str, Any]) -> str:
    return str(snap["trash"]["original_name"] if "trash" in snap else snap["name"])


def _difference(found: Any, wanted: Any, what: str) -> str:
    if not isinstance(found, bytes) or len(found) != len(wanted):
        return f"{what}: {found if not isinstance(found, bytes) else len(found)}, not {wanted!r:.100}"
    places = [place for place in range(0, len(found), 512) if found[place : place + 512] != wanted[place : place + 512]]
    first = next(at for at in range(len(found)) if found[at] != wanted[at])
    kinds = f"{found[first : first + 8].hex()} for {bytes(wanted[first : first + 8]).hex()}"
    return f"{what}: {len(places)} sectors differ, first at {first}: {kinds}"
