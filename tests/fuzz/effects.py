"""What calls make of the bytes of images and snapshots, and whether what was read may have been."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbd_native.striping import Layout
from tests.fuzz.actor import pattern
from tests.fuzz.history import NEVER, Content, Possible, discarded
from tests.fuzz.judge import Judged
from tests.fuzz.rules import raw
from tests.fuzz.stage import Finding
from tests.fuzz.state import EXCLUSIVE, GROUP, Handle, Img, State

if TYPE_CHECKING:
    from tests.fuzz.world import World

UNKNOWN = {5, 108, 110}
"""Errors after which what was asked for may have been done, or may be done yet."""


@dataclass(eq=False)
class Frozen:
    """A snapshot's bytes: one of several possibilities, as long as more than one is left."""

    variants: list[Possible]
    size: int
    ours: bool = True
    """Whether not librbd alone had the image when it was taken."""

    def check(self, found: bytes, offset: int = 0, *, whole: bool = False) -> str | None:
        sized = [one for one in self.variants if not (whole and one.exact and one.size != len(found))]
        fitting = [one for one in sized if not one.wrong(found, offset).any()]
        if not fitting:
            return (
                sized[0].explain(found, offset)
                if sized
                else f"{len(found)} bytes, not {[one.size for one in self.variants]}"
            )
        self.variants = fitting
        if whole:
            self.size = len(found)
            content = Content(max(self.size, 1))
            content.seen(found, 0)
            self.variants = [content.possible(NEVER - 1, NEVER - 1)]
        return None


class Effects:
    """Of the calls of one step."""

    def __init__(self, world: World, before: set[State], calls: list[Judged]) -> None:
        self.world, self.calls = world, calls
        self.before = next(iter(before))
        self.after = world.state
        self.all_before = before

    def apply(self) -> None:
        for call in self.calls:
            self._flushed(call)
        for call in sorted(self.calls, key=lambda one: "rollback" in one.made.do):
            if "rollback" in call.made.do:  # perhaps to what was only now taken
                self._freeze_all()
            self._write(call)
        self._freeze_all()
        for call in self.calls:
            self._read(call)
        for content in self.world.contents.values():
            content.settle()

    # --- who, and when ---

    def _handle(self, name: str) -> Handle | None:
        return self.before.handles.get(name) or self.after.handles.get(name)

    def _img(self, call: Judged) -> Img | None:
        handle = self._handle(call.made.on)
        if handle is None:
            return None
        return self.before.images.get(handle.image) or self.after.images.get(handle.image)

    def _sizes(self, key: int) -> set[int]:
        states = [*self.all_before, *self.world.states]
        return {state.images[key].size for state in states if key in state.images}

    @staticmethod
    def _time(call: Judged) -> tuple[int, int] | None:
        """When it had its effect, if it may have had any."""
        made = call.made
        assert made.t0 is not None
        if made.t1 is None:
            return made.t0, NEVER
        if made.err is None or made.err[0] == "IncompleteWriteError":
            return made.t0, made.t1
        return (made.t0, NEVER) if made.err[1] in UNKNOWN else None

    # --- what is written ---

    def _flushed(self, call: Judged) -> None:
        image = self._img(call)
        if not self.world.cached or image is None or not call.made.good or image.key not in self.world.contents:
            return
        do, content = call.made.do.removeprefix("Image.").removeprefix("aio_"), self.world.contents[image.key]
        assert call.made.t0 is not None
        if do in ("flush", "close", "create_snap", "resize", "rollback_to_snap", "lock_release"):
            content.flushed(call.made.on, call.made.t0)
        if do in ("write", "discard", "write_zeroes", "flush", "lock_acquire") and image.features & EXCLUSIVE:
            for layer in content.layers:  # the lock came from whoever had it, and with it what that had kept
                if layer.who != call.made.on and layer.t1 <= call.made.t0:
                    layer.firm = True

    def _write(self, call: Judged) -> None:
        do = call.made.do.removeprefix("Image.").removeprefix("aio_")
        image, time = self._img(call), self._time(call)
        if time is None:
            return
        if call.made.do in ("RBD.clone", "RBD.create"):
            self._made(call)
        if call.made.do == "Group.rollback_to_snap":
            self._group_back(call, time)
        if image is None or image.key not in self.world.contents:
            return
        content, words = self.world.contents[image.key], str(call.made)[:80]
        if do in ("write", "discard", "write_zeroes"):
            self._data(call, image, content, time, words)
        elif do == "resize":
            size = call.made.call["args"][0]
            content.zero(size, content.capacity, *time, call.made.on, words, whole=True)
        elif do == "rollback_to_snap":
            snap = self._snap(image, call.made.call["args"][0])
            if snap is not None:
                content.add_possible(snap.variants[0].cut(snap.size), *time, call.made.on, words)

    def _group_back(self, call: Judged, time: tuple[int, int]) -> None:
        group, snap = call.made.call["args"]
        for image in self.before.images.values():
            for taken in image.snaps:
                if (
                    taken.name == f"{GROUP}{group}.{snap}"
                    and taken.key in self.world.snaps
                    and image.key in self.world.contents
                ):
                    frozen = self.world.snaps[taken.key]
                    content = self.world.contents[image.key]
                    content.add_possible(frozen.variants[0].cut(frozen.size), *time, call.made.on, str(call.made)[:80])

    def _snap(self, image: Img, name: str) -> Frozen | None:
        found = self.before.images.get(image.key, image).snap(name) or self.after.images.get(image.key, image).snap(name)
        return self.world.snaps.get(found.key) if found is not None else None

    def _data(self, call: Judged, image: Img, content: Content, time: tuple[int, int], words: str) -> None:
        args, do = call.made.call["args"], call.made.do
        sizes = self._sizes(image.key)
        t0, t1 = time if len(sizes) == 1 or do.endswith("write") else (time[0], NEVER)
        firm = not self.world.cached
        if do.endswith("write"):
            data = pattern(*args[0]["data"]) if "data" in args[0] else raw(args[0])
            content.add(args[1], data[: max(max(sizes) - args[1], 0)], t0, t1, call.made.on, words, firm=firm)
            return
        size, (offset, length) = max(sizes), args[:2]
        if do.endswith("zeroes"):
            ranges = [(offset, min(offset + length, size))]
        else:
            layout = Layout.create(image.order, *(image.stripe or (0, 0)))
            ranges = discarded(layout, offset, length, size)
        for start, stop in ranges:
            content.zero(start, stop, t0, t1, call.made.on, words, firm=firm)

    def _made(self, call: Judged) -> None:
        content = Content(self.world.capacity)
        if call.made.do == "RBD.clone":
            image = self.after.images.get(call.uid)
            if image is None or image.parent is None:
                return
            frozen = self.world.snaps[image.parent[1]]
            content.add_possible(
                frozen.variants[0].cut(frozen.size), call.made.t0 or 0, call.made.t1 or NEVER, "", "the parent's"
            )
        self.world.contents[call.uid] = content

    # --- what is taken ---

    def _freeze_all(self) -> None:
        for call in self.calls:
            self._freeze(call)

    def _freeze(self, call: Judged) -> None:
        time = self._time(call)
        if time is None or (call.made.t1 is not None and call.made.err is not None):
            return
        do = call.made.do
        if do == "Image.create_snap":
            image = self._img(call)
            if image is not None and image.key in self.world.contents:
                self._take(call.uid, image, time)
        elif do == "Group.create_snap":
            for place, key in enumerate(sorted(self.after.groups[call.made.call["args"][0]].members)):
                self._take(call.uid * 1000 + place, self.after.images[key], time)
        elif do in ("Image.copy", "Image.deep_copy"):
            self._copied(call, time)

    def _take(self, key: int, image: Img, time: tuple[int, int]) -> None:
        """A snapshot. Where the lock keeps operations on the whole image apart, it has all of each, or nothing."""
        content = self.world.contents[image.key]
        wholes = content.wholes(*time) if image.features & EXCLUSIVE else []
        groups: dict[tuple[int, str], list[int]] = {}
        for layer in wholes:
            groups.setdefault((layer.t0, layer.who), []).append(layer.number)
        variants = []
        for choice in itertools.product((False, True), repeat=min(len(groups), 4)):
            hard = [number for said, numbers in zip(choice, groups.values(), strict=False) if said for number in numbers]
            out = [number for said, numbers in zip(choice, groups.values(), strict=False) if not said for number in numbers]
            seen = content.possible(*time, hard=frozenset(hard), without=frozenset(out))
            if len(groups) == 1:
                first = wholes[0]
                seen = Possible(
                    first.start or len(first.data) if choice[0] else self._size_before(image.key), seen.layers, exact=True
                )
            variants.append(seen)
        sizes = {snap.size for state in self.world.states if image.key in state.images
                 for snap in state.images[image.key].snaps if snap.key == key}  # fmt: skip
        self.world.snaps[key] = Frozen(variants, max(sizes, default=image.size), self._native(image.key))

    def _native(self, key: int) -> bool:
        states = [state for state in (*self.all_before, *self.world.states) if key in state.images]
        owners = [state.images[key].owner or "" for state in states]
        return any(name[:1] in self.world.natives for name in (*owners, *(call.made.on for call in self.calls)))

    def _size_before(self, key: int) -> int:
        return self.before.images[key].size

    def _copied(self, call: Judged, time: tuple[int, int]) -> None:
        source, made = self._img(call), self.after.images.get(call.uid)
        handle = self._handle(call.made.on)
        if source is None or made is None or handle is None or source.key not in self.world.contents:
            return
        seen = self.world.contents[source.key].possible(*time, call.made.on)
        if handle.at is not None and handle.at in self.world.snaps:
            seen = self.world.snaps[handle.at].variants[0]
        self.world.makers[call.uid] = call.module
        content = Content(self.world.capacity)
        content.add_possible(seen.cut(made.size), *time, "", "the source's")
        self.world.contents[call.uid] = content
        if call.made.do == "Image.deep_copy":
            self.world.sources[call.uid] = source.key
            self.world.layouts[call.uid] = [*call.made.call["args"][2:6]]
            source = self.before.images.get(source.key, source)
            for old, new in zip(source.named, made.snaps, strict=False):
                self.world.snaps[new.key] = self.world.snaps[old.key]

    # --- what is read ---

    def _read(self, call: Judged) -> None:
        if call.made.do not in ("Image.read", "Image.aio_read") or not call.made.good:
            return
        image, handle = self._img(call), self._handle(call.made.on)
        if image is None or handle is None or image.key not in self.world.contents:
            return
        found, offset = raw(call.made.ok), call.made.call["args"][0]
        assert call.made.t0 is not None
        assert call.made.t1 is not None
        if handle.at is not None:
            frozen = self.world.snaps.get(handle.at)
            words = frozen.check(found, offset) if frozen is not None else None
        else:
            seen = self.world.contents[image.key].possible(call.made.t0, call.made.t1, call.made.on)
            words = seen.explain(found, offset) if seen.wrong(found, offset).any() else None
        if words:
            at = f"{json.dumps(call.made.call)} at {handle}"
            raise Finding("read", f"{at}: {words}", ours=True)
