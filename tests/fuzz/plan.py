"""From a seed a script: what is done, by whom, and what at the same time.

It is made before anything is run, so a seed always gives the same one: it knows what it asked for, not what came of it. The
parts of a script are of themes; each seed has themes that it likes.

What librbd 16 dies of or hangs in is left out: Image(snapshot=number), numbers of snapshots that are not there
(get_snap_timestamp), close while an operation of another thread is under way on the handle, two of librbd asking each other
for maintenance while the lock goes round.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.fuzz.stage import Call
from tests.fuzz.world import Step

OURS, THEIRS = ("a", "b", "e"), ("c", "d")
CLIENTS: dict[str, tuple[int, str]] = {
    "a": (0, "rbd_native"),
    "d": (0, "rbd"),
    "b": (1, "rbd_native"),
    "e": (1, "rbd_native"),
    "c": (2, "rbd"),
    "j": (3, "rbd"),
}
"""Which process, and which library, each client is of."""
CAPACITY = 1 << 20
LEAST = 16 << 10
THEMES: dict[str, float] = {
    "data": 10,
    "burst": 9,
    "crowd": 9,
    "same": 6,
    "locks": 9,
    "reopen": 7,
    "snaps": 9,
    "clones": 6,
    "copies": 4,
    "layouts": 3,
    "names": 4,
    "groups": 4,
    "mirror": 2,
    "features": 3,
    "diffs": 3,
    "metadata": 3,
    "fence": 3,
    "kill": 1,
    "stop": 1,
    "churn": 0.7,
    "sweep": 3,
    "odd": 3,
    "whole": 6,
    "turned": 3,
}


def call(on: str, do: str, *args: Any, **kw: Any) -> Call:
    return {"on": on, "do": do, "args": list(args), "kw": kw}


class Plan:
    """What was asked for so far. sizes, snaps: of images by name, as they are if all went well."""

    def __init__(self, seed: int, features: int, *, clients: str = "abecd", themes: dict[str, float] | None = None) -> None:
        self.random = random.Random(f"{seed} {features}")
        self.features = features
        self.tag = f"{seed}"
        self.clients = clients
        self.steps: list[Step] = []
        self.sizes: dict[str, int] = {}
        self.snaps: dict[str, list[str]] = {}
        self.snap_sizes: dict[str, int] = {}
        self.orders: dict[str, int] = {}
        self.clones: list[str] = []
        self.handles: dict[str, str] = {}
        self.groups: list[str] = []
        self.count = 0
        self.themes = dict(themes or THEMES)
        for liked in self.random.sample(sorted(self.themes), min(4, len(self.themes))):
            self.themes[liked] *= 5

    # --- making it ---

    def make(self, steps: int) -> list[Step]:
        self.main = self.new_image()
        for client in self.clients:
            self.open(f"{client}1", self.main)
        names, weights = list(self.themes), list(self.themes.values())
        while len(self.steps) < steps:
            theme: Callable[[], None] = getattr(self, f"_{self.random.choices(names, weights)[0]}")
            theme()
            if self.random.random() < 0.35:
                self.steps.append({"look": True})
        return self.steps[:steps]

    def one(self, on: str, do: str, *args: Any, **kw: Any) -> None:
        self.steps.append({"lanes": [[call(on, do, *args, **kw)]]})

    def together(self, *lanes: list[Call], **how: Any) -> None:
        self.steps.append({"lanes": [lane for lane in lanes if lane], **how})

    def number(self) -> int:
        self.count += 1
        return self.count

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def client(self) -> str:
        return self.random.choice(self.clients)

    def image(self) -> str:
        if self.random.random() < 0.7:
            return self.main
        return self.random.choice(sorted(self.sizes) or [self.main])

    def handle(self, image: str | None = None) -> str:
        """One that should be open; it is opened if there is none."""
        found = [name for name, of in self.handles.items() if image in (None, of)]
        if found:
            return self.random.choice(sorted(found))
        image = image or self.main
        name = next(
            name
            for client in self.random.sample(self.clients, len(self.clients))
            for n in "23456789"
            if (name := f"{client}{n}") not in self.handles
        )
        self.open(name, image)
        return name

    def some(self, count: int, image: str | None = None) -> list[str]:
        """Handles of the same image."""
        image = image or self.main
        while len([name for name, of in self.handles.items() if of == image]) < count:
            client = self.client()
            name = next(f"{client}{n}" for n in range(1, 99) if f"{client}{n}" not in self.handles)
            self.open(name, image)
        return self.random.sample(sorted(name for name, of in self.handles.items() if of == image), count)

    def open(self, name: str, image: str, **kw: Any) -> None:
        self.one(name, self.pick("Image.open", "Image.open", "RBD.aio_open_image"), name=image, **kw)
        self.handles[name] = image

    def close(self, name: str) -> None:
        self.one(name, self.pick("Image.close", "Image.close", "Image.aio_close"))
        self.handles.pop(name, None)

    def new_image(self) -> str:
        name = f"i{self.tag}-{self.number()}"
        order = self.pick(12, 12, 13, 14, 16)
        size = min(self.random.randrange(8, 100) << order, CAPACITY * 3 // 4)
        if self.random.random() < 0.3:
            size -= self.random.randrange(1 << order)
        stripes = {"stripe_unit": 1 << (order - 1), "stripe_count": 2} if order > 12 and self.random.random() < 0.2 else {}
        self.one(
            self.client(),
            "RBD.create",
            {"ioctx": None},
            name,
            size,
            order=order,
            old_format=False,
            features=self.features,
            **stripes,
        )
        self.sizes[name], self.snaps[name] = size, []
        self.orders[name] = order
        return name

    # --- calls ---

    def extent(self, image: str) -> tuple[int, int]:
        size = max(self.sizes.get(image, LEAST), 1)
        length = min(self.pick(1, 511, 512, 4096, 4096, 8192, 20_000), size)
        offset = self.random.randrange(size - length + 1)
        if self.random.random() < 0.6:
            offset -= offset % 4096
        return offset, length

    def datum(self, on: str, image: str, *, aio: bool = False) -> Call:
        offset, length = self.extent(image)
        kind = self.pick("write", "write", "write", "write", "read", "read", "discard", "write_zeroes")
        prefix = "Image.aio_" if aio else "Image."
        if kind == "write":
            return call(on, prefix + kind, {"data": [self.number(), length]}, offset)
        return call(on, prefix + kind, offset, length)

    def new_snap(self, image: str) -> str:
        name = f"s{self.number()}"
        self.snaps.setdefault(image, []).append(name)
        self.snap_sizes[name] = self.sizes.get(image, LEAST)
        return name

    def some_snap(self, image: str) -> str:
        names = self.snaps.get(image) or ["none"]
        return self.random.choice(names[-4:]) if self.random.random() < 0.95 else "none"

    def new_size(self, image: str) -> int:
        old = self.sizes.get(image, LEAST)
        size = self.pick(old // 2, old // 4, old * 2, self.random.randrange(LEAST, CAPACITY))
        return int(min(max(size, LEAST), CAPACITY * 3 // 4))

    def whole(self, on: str, image: str, kind: str | None = None) -> Call:
        """An operation on the whole image."""
        kind = kind or self.pick(
            "create_snap", "create_snap", "resize", "resize", "rollback_to_snap", "remove_snap", "rebuild_object_map"
        )
        if kind == "create_snap":
            return call(on, "Image.create_snap", self.new_snap(image))
        if kind == "resize":
            self.sizes[image] = self.new_size(image)
            return call(on, "Image.resize", self.sizes[image])
        if kind == "rebuild_object_map":
            return call(on, "Image.rebuild_object_map")
        return self.back(on, image) if kind == "rollback_to_snap" else call(on, f"Image.{kind}", self.some_snap(image))

    def back(self, on: str, image: str) -> Call:
        name = self.some_snap(image)
        # If it comes to nothing the image is larger: then nothing is beyond its end either.
        self.sizes[image] = min(self.sizes.get(image, LEAST), self.snap_sizes.get(name, CAPACITY))
        return call(on, "Image.rollback_to_snap", name)

    # --- themes: data ---

    def _data(self) -> None:
        image = self.image()
        for _ in range(self.random.randrange(1, 4)):
            on = self.handle(image)
            self.steps.append({"lanes": [[self.datum(on, image)]]})
            if self.random.random() < 0.2:
                self.one(on, self.pick("Image.flush", "Image.aio_flush"))

    def _burst(self) -> None:
        """One handle, one thread: something of the whole image, and at once writes."""
        on = self.handle(self.main)
        if self.random.random() < 0.5:
            self.fill(on)
        lane = []
        for _ in range(self.random.randrange(1, 3)):
            lane.append(self.whole(on, self.main, self.pick("create_snap", "create_snap", "resize", "rollback_to_snap")))
            lane += [self.datum(on, self.main, aio=True) for _ in range(self.random.randrange(3, 10))]
        self.together(lane)
        self.steps.append({"look": True})

    def fill(self, on: str) -> None:
        """Something in most objects, at once."""
        size = self.sizes[self.main]
        self.together(
            [
                call(on, "Image.aio_write", {"data": [self.number(), min(600, size - at)]}, at)
                for at in range(0, size, max(size // 24, 1))
            ]
        )

    def _crowd(self) -> None:
        ons = self.some(self.pick(2, 2, 3))
        lanes: list[list[Call]] = []
        old = self.sizes[self.main]
        whole = self.whole(ons[0], self.main) if self.random.random() < 0.6 else None
        new = self.sizes[self.main]
        self.sizes[self.main] = min(old, new)  # librbd dies of writes beyond the end that is coming
        for on in ons:
            aio = self.random.random() < 0.6
            lanes.append([self.datum(on, self.main, aio=aio) for _ in range(self.random.randrange(2, 5))])
        if whole is not None:
            lanes[0].insert(self.random.randrange(len(lanes[0])), whole)
        self.together(*lanes)
        self.sizes[self.main] = new
        self.steps.append({"look": True})
