"""Cases about images as such: made, opened, listed, snapshotted, cloned, copied, removed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.data import MIB, Bench, Case
from benchmarks.measure import Clock, Figure, again, keep_under_way
from benchmarks.subjects import MAPPED, NO_COMPRESSION, ORDER, ImageDisk

OBJECT = 1 << ORDER
SPARSE_SIZE, SPARSE_OBJECTS = 1 << 40, 1000
LISTED, DESCRIBED, CHILDREN = 1000, 200, 500
HALF_FULL = 256 * OBJECT
_made: dict[tuple[int, str], str] = {}


def _once(bench: Bench, what: str, make: Callable[[str], None]) -> str:
    """The name of something that is made when it is first asked for, and stays."""
    key = (id(bench), what)
    if key not in _made:
        name = bench.name()
        make(name)
        _made[key] = name
    return _made[key]


def _filled(bench: Bench, size: int, features: int = MAPPED, every: int = 2) -> Callable[[str], None]:
    """Makes an image of which every so manieth object is full."""

    def make(name: str) -> None:
        bench.images.create(name, size, features)
        with bench.images.open(name) as image:
            for offset in range(0, size, every * OBJECT):
                image.write(NO_COMPRESSION, offset)

    return make


def _apart(bench: Bench, before: Callable[[], Any], step: Callable[[Any], None], after: Callable[[Any], None]) -> Figure:
    """Only `step` counts; what comes before gives its argument."""
    clock, number = Clock(bench.seconds), 0
    while not clock.over:
        subject = before()
        with clock:
            step(subject)
        number += 1
        after(subject)
    return clock.figure(number)


def _nothing(_: Any) -> None:
    pass


def open_and_close(bench: Bench) -> Figure:
    name = _once(bench, "default", _filled(bench, 16 * OBJECT, 61))
    return again(bench.seconds, lambda: bench.images.open(name).close())


def open_read_only(bench: Bench) -> Figure:
    name = _once(bench, "default", _filled(bench, 16 * OBJECT, 61))
    return again(bench.seconds, lambda: bench.images.open(name, read_only=True).close())


def create(bench: Bench) -> Figure:
    return _apart(bench, bench.name, lambda name: bench.images.create(name, 64 * MIB, 61), bench.images.remove)


def remove_empty(bench: Bench) -> Figure:
    return _apart(bench, _new(bench, 0), bench.images.remove, _nothing)


def remove_full(bench: Bench) -> Figure:
    return _apart(bench, _new(bench, 256), bench.images.remove, _nothing)


def _new(bench: Bench, objects: int, size: int = 16) -> Callable[[], str]:
    """Makes images of which so many objects are written; `size`: how many they have at least."""

    def make() -> str:
        name = bench.name()
        bench.images.create(name, max(objects, size) * OBJECT, 61)
        if objects:
            with bench.images.open(name) as image:
                for number in range(objects):
                    image.write(b"data", number * OBJECT)
        return name

    return make


def rename(bench: Bench) -> Figure:
    names = [bench.name(), bench.name()]
    bench.images.create(names[0], OBJECT)

    def step() -> None:
        bench.images.rbd.RBD().rename(bench.images.ioctx, *names)
        names.reverse()

    figure = again(bench.seconds, step)
    bench.images.remove(names[0])
    return figure


@contextmanager
def _default(bench: Bench) -> Iterator[Any]:
    with bench.images.open(_once(bench, "default", _filled(bench, 16 * OBJECT, 61))) as image:
        yield image


def snapshot_create(bench: Bench) -> Figure:
    with _default(bench) as image:
        names = (f"snap-{number}" for number in itertools.count())
        return _apart(bench, lambda: next(names), image.create_snap, image.remove_snap)


def snapshot_remove(bench: Bench) -> Figure:
    with _default(bench) as image:
        numbers = itertools.count()

        def before() -> str:
            name = f"snap-{next(numbers)}"
            image.create_snap(name)
            return name

        return _apart(bench, before, image.remove_snap, _nothing)


def snapshot_rollback(bench: Bench) -> Figure:
    with _default(bench) as image:
        image.create_snap("back")
        image.write(NO_COMPRESSION, 0)
        figure = again(bench.seconds, lambda: image.rollback_to_snap("back"))
        image.remove_snap("back")
        return figure


def _parent(bench: Bench) -> str:
    def make(name: str) -> None:
        _filled(bench, 64 * OBJECT, 61, every=4)(name)
        with bench.images.open(name) as image:
            image.create_snap("snap")
            image.protect_snap("snap")

    return _once(bench, "parent", make)


def _clone(bench: Bench, parent: str, child: str) -> None:
    ioctx = bench.images.ioctx
    bench.images.rbd.RBD().clone(ioctx, parent, "snap", ioctx, child, features=61)


def clone(bench: Bench) -> Figure:
    parent = _parent(bench)
    return _apart(bench, bench.name, lambda child: _clone(bench, parent, child), bench.images.remove)


def flatten(bench: Bench) -> Figure:
    """16 objects of 64 have data."""
    parent = _parent(bench)

    def before() -> str:
        child = bench.name()
        _clone(bench, parent, child)
        return child

    def step(child: str) -> None:
        with bench.images.open(child) as image:
            image.flatten()

    return _apart(bench, before, step, bench.images.remove)


def children(bench: Bench) -> Figure:
    def make(name: str) -> None:
        _filled(bench, OBJECT, 61)(name)
        with bench.images.open(name) as image:
            image.create_snap("snap")
            image.protect_snap("snap")
        for _ in range(CHILDREN):
            _clone(bench, name, bench.name())

    name = _once(bench, "family", make)
    with bench.images.open(name, "snap", read_only=True) as image:
        return again(bench.seconds, lambda: _expect(len(list(image.list_children2())), CHILDREN))


def _expect(found: int, wanted: int) -> None:
    assert found == wanted, f"{found}, not {wanted}"


def list2(bench: Bench) -> Figure:
    def make(name: str) -> None:
        for number in range(LISTED):
            bench.images.create(f"{name}-{number}", OBJECT)

    _once(bench, "many", make)

    def step() -> None:
        assert len(list(bench.images.rbd.RBD().list2(bench.images.ioctx))) >= LISTED

    return again(bench.seconds, step)


def list_details(bench: Bench) -> Figure:
    """In a namespace: of other images nothing is read. librbd has to open each."""

    def make(name: str) -> None:
        binding.namespace_create(ioctx, name)
        with _within(ioctx, name):
            for number in range(DESCRIBED):
                bench.images.create(f"{number:03}", OBJECT, 61)
                if number % 2:
                    with bench.images.open(f"{number:03}") as image:
                        image.create_snap("snap")

    def described() -> list[Any]:
        return list(binding.list_details(ioctx))

    def opened() -> list[Any]:
        found = []
        for entry in binding.list2(ioctx):
            with bench.images.open(entry["name"], read_only=True) as image:
                found.append((image.stat(), image.features(), list(image.list_snaps())))
        return found

    binding, ioctx = bench.images.rbd.RBD(), bench.images.ioctx
    look = described if hasattr(binding, "list_details") else opened
    with _within(ioctx, _once(bench, "described", make)):
        return again(bench.seconds, lambda: _expect(len(look()), DESCRIBED))


@contextmanager
def _within(ioctx: Any, namespace: str) -> Iterator[None]:
    ioctx.set_namespace(namespace)
    try:
        yield
    finally:
        ioctx.set_namespace("")


def diff(bench: Bench) -> Figure:
    def make(name: str) -> None:
        bench.images.create(name, SPARSE_SIZE, MAPPED)
        with bench.images.open(name) as image:
            for number in random.Random(0).sample(range(SPARSE_SIZE >> ORDER), SPARSE_OBJECTS):
                image.write(b"data", number << ORDER)

    with bench.images.open(_once(bench, "sparse", make), read_only=True) as image:

        def step() -> None:
            extents: list[tuple[int, int, bool]] = []
            image.diff_iterate(0, SPARSE_SIZE, None, lambda *extent: extents.append(extent), whole_object=True)
            _expect(len(extents), SPARSE_OBJECTS)

        return again(bench.seconds, step)


def _half_full(bench: Bench) -> str:
    return _once(bench, "half full", _filled(bench, HALF_FULL))


def export(bench: Bench) -> Figure:
    name, path = _half_full(bench), bench.scratch / "export"
    path.unlink(missing_ok=True)
    figure = again(bench.seconds, lambda: bench.images.export(name, path))
    _expect(path.stat().st_size, HALF_FULL)
    return figure


def import_(bench: Bench) -> Figure:
    """What the case before has left."""
    path = bench.scratch / "export"
    return _apart(bench, bench.name, lambda name: bench.images.import_(path, name), bench.images.remove)


def copy(bench: Bench) -> Figure:
    with bench.images.open(_half_full(bench), read_only=True) as image:
        return _apart(bench, bench.name, lambda name: image.copy(bench.images.ioctx, name), bench.images.remove)


def deep_copy(bench: Bench) -> Figure:
    with bench.images.open(_half_full(bench), read_only=True) as image:
        return _apart(bench, bench.name, lambda name: image.deep_copy(bench.images.ioctx, name), bench.images.remove)


def first_writes(bench: Bench) -> Figure:
    """To 64 objects, one behind the other, that the object map does not have yet: 16 at a time."""

    def before() -> Any:
        image = bench.images.open(_new(bench, 0, size=65)())
        image.write(b"data", 64 * OBJECT)  # which takes the lock
        return image

    def step(image: Any) -> None:
        disk = ImageDisk(image)
        plan = (partial(disk.submit_write, NO_COMPRESSION[:4096], number * OBJECT) for number in range(64))
        keep_under_way(disk, plan, 16, float("inf"))

    return _apart(bench, before, step, lambda image: image.close())


def resize_to_nothing(bench: Bench) -> Figure:
    def before() -> Any:
        return bench.images.open(_new(bench, 64)())

    def step(image: Any) -> None:
        image.resize(0)

    return _apart(bench, before, step, lambda image: image.close())


IMAGES: dict[str, Case] = {
    "open + close": open_and_close,
    "open + close, read-only": open_read_only,
    "create": create,
    "remove, empty": remove_empty,
    "remove, 1 GiB, 256 objects": remove_full,
    "rename": rename,
    "snapshot create": snapshot_create,
    "snapshot remove": snapshot_remove,
    "snapshot rollback": snapshot_rollback,
    "clone": clone,
    "flatten, 16 of 64 objects": flatten,
    "first writes to 64 objects": first_writes,
    "children of 500": children,
    "list2 of 1,000": list2,
    "list with details of 200": list_details,
    "diff of 1 TiB, by objects": diff,
    "export of 1 GiB, half full": export,
    "import of 1 GiB, half full": import_,
    "copy of 1 GiB, half full": copy,
    "deep_copy of 1 GiB, half full": deep_copy,
    "resize to 0, 64 objects": resize_to_nothing,
}

