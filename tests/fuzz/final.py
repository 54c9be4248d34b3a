"""What lies on the disk at the end of a run, judged by librbd and the tool `rbd`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from tests.fuzz.rules import raw
from tests.fuzz.stage import Finding
from tests.fuzz.state import MAP, Img
from tests.fuzz.world import JUDGE, World

Cli = Callable[..., Any]


class Final:
    """cli: runs a program of Ceph, and gives its standard output. pool: of the run."""

    def __init__(self, world: World, cli: Cli, pool: str) -> None:
        self.world, self.cli, self.pool = world, cli, pool

    def check(self) -> None:
        """All handles are closed, all that clients have left is looked at. Finding where it is wrong."""
        self._close()
        self.world.look()
        state = self.world.state
        for name, key in state.names.items():
            if key in self.world.contents:
                self._image(name, state.images[key])

    def _close(self) -> None:
        handles = sorted({name for state in self.world.states for name in state.handles})
        for name in handles:
            self.world.run({"lanes": [[{"on": name, "do": "Image.close", "args": [], "kw": {}}]]})

    def _image(self, name: str, img: Img) -> None:
        try:
            self._judge(name, img)
        except Finding as finding:
            raise Finding(finding.kind, finding.words, ours=self.world.of_ours(img.key)) from None

    def _judge(self, name: str, img: Img) -> None:
        spec = f"{self.pool}/{name}"
        info = json.loads(self.cli("rbd", "info", "--format", "json", spec))
        sizes = {one.images[img.key].size for one in self.world.states}
        if info["size"] not in sizes:
            raise Finding("info", f"{spec}: size {info['size']}, not {sizes}")
        self._exported(spec, img)
        harmed = img.key in self.world.harmed
        if not harmed:
            self._lockers(spec, img)
        self._maps(spec, img, harmed)
        self._diffs(name, img)
        self._finely(name, img)

    def _finely(self, name: str, img: Img) -> None:
        """Between two snapshots a deep copy of ours has no more bytes that were written than one of librbd has."""
        state = self.world.state
        source = state.images.get(self.world.sources.get(img.key, 0))
        origin = state.name_of(source.key) if source is not None else None
        if source is None or origin is None or not self.world.of_ours(img.key):
            return
        if [snap.size for snap in source.named] != [snap.size for snap in img.named]:
            return  # the source has been given other snapshots since
        layout = self.world.layouts[img.key]
        reference, on, stage = f"{name}-by-librbd", f"{JUDGE}1", self.world.stage
        stage.one(on, "Image.open", name=origin, read_only=True)
        made = stage.one(on, "Image.deep_copy", {"ioctx": None}, reference, *layout)
        stage.one(on, "Image.close")
        for (old, since), (new, end) in itertools.pairwise(zip(img.named, source.named, strict=True)):
            if made.good:
                here, there = self._changed(name, old.name, new.name), self._changed(reference, since.name, end.name)
                if here - there:
                    words = f"{name}: {old.name}..{new.name} has {len(here - there)} bytes more than librbd's"
                    raise Finding("coarse copy", f"{words}, first at {min(here - there)}")

    @staticmethod
    def resized(img: Img) -> bool:
        return len({img.size, *(snap.size for snap in img.snaps)}) > 1

    def _changed(self, name: str, since: str, end: str) -> set[int]:
        """The places that a difference names as written."""
        on = f"{JUDGE}1"
        stage = self.world.stage
        stage.one(on, "Image.open", name=name, read_only=True, snapshot=end)
        made = stage.one(on, "Image.diff_iterate", 0, 1 << 40, since)
        stage.one(on, "Image.close")
        return {place for offset, length, exists in made.ok or [] if exists for place in range(offset, offset + length)}

    def _exported(self, spec: str, img: Img) -> None:
        """What the tool exports is what librbd reads."""
        whole = self.world.contents[img.key].possible(1 << 61, 1 << 61)
        data = self.cli("rbd", "export", "--no-progress", spec, "-", raw=True)
        if whole.wrong(data).any():
            raise Finding("export", f"{spec}: {whole.explain(data, 0)}")

    def _lockers(self, spec: str, img: Img) -> None:
        found = json.loads(self.cli("rbd", "lock", "ls", "--format", "json", spec))
        if len(found) != len(img.users):
            raise Finding("lock left", f"{spec}: {found}, wanted {img.users}")

    def _maps(self, spec: str, img: Img, harmed: bool) -> None:
        """A map says nothing false, or is flagged. Who dies between map and data leaves an entry too many, which the tool
        minds."""
        info = json.loads(self.cli("rbd", "info", "--format", "json", spec))
        if "object-map" not in info["features"] or img.mirror == "demoted":
            return
        harmed = harmed or img.key in self.world.vague
        if self.world.touched.get(img.key, set()) | {self.world.makers.get(img.key, "rbd_native")} != {"rbd_native"}:
            return  # librbd alone, too, makes maps that its own check finds wrong
        for at in ["", *(f"@{snap.name}" for snap in img.named)]:
            before = self._flags(spec + at)
            if before and not harmed and img.features & MAP:
                self._flagged(spec + at, before, "before it was checked")
            words = self.cli("rbd", "object-map", "check", "--no-progress", spec + at, errors=True)
            after = self._flags(spec + at)
            if after and not before and not harmed:
                self._flagged(spec + at, after, f"once it was checked: {words[-600:]}")

    def _flagged(self, spec: str, flags: list[str], when: str) -> None:
        raise Finding("object map", f"{spec}: {flags} {when}")

    def _flags(self, spec: str) -> list[str]:
        return list(json.loads(self.cli("rbd", "info", "--format", "json", spec))["flags"])

    def _diffs(self, name: str, img: Img) -> None:
        """A difference between two snapshots has all that differs."""
        world = self.world
        bytes_of: dict[str | None, bytes] = {}
        names: list[str | None] = [*[snap.name for snap in img.named][-4:], None]
        for snap in names:
            bytes_of[snap] = raw(world.stage.one(JUDGE, "client.digest", name, snap).ok)
        for place, end in enumerate(names):
            on = f"{JUDGE}1"
            kw: dict[str, Any] = {"name": name, "read_only": True} | ({"snapshot": end} if end else {})
            world.stage.one(on, "Image.open", **kw)
            for since in names[:place]:
                # By the objects alone librbd does not see that the end of one was cut off and grown again.
                for whole in (False,) if self.resized(img) else (False, True):
                    self._diff(on, name, since, end, bytes_of, whole)
            world.stage.one(on, "Image.close")

    def _diff(
        self, on: str, name: str, since: str | None, end: str | None, bytes_of: dict[str | None, bytes], whole: bool
    ) -> None:
        assert since is not None
        new, old = bytes_of[end], bytearray(bytes_of[since])
        made = self.world.stage.one(on, "Image.diff_iterate", 0, len(new), since, whole_object=whole)
        if made.ok is None:
            raise Finding("diff", f"{name}: {made}")
        old = old[: len(new)] + bytes(max(len(new) - len(old), 0))
        for offset, length, exists in made.ok:
            old[offset : offset + length] = (
                new[offset : offset + length] if exists else bytes(len(new[offset : offset + length]))
            )
        if bytes(old) != new:
            at = next(place for place, (one, other) in enumerate(zip(old, new, strict=True)) if one != other)
            raise Finding("diff", f"{name}: from {since} to {end} (whole_object={whole}) misses what changed at {at}")
