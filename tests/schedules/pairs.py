"""Every verb beside every other: `python -m tests.schedules.pairs [VERB...]` tells which pairs went wrong, and how.

Two verbs are begun at the same time, on one handle or by two clients, with everything in its order and then with each step
held back in turn. Whatever the order: both end, with no error but those that the other may cause; what was acknowledged is
there; a snapshot that was there, or was taken, never changes; the map of objects denies none; nothing is left that keeps
the image from being opened.
"""

import collections
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import rbd_native as rbd
from tests.schedules.world import CACHED, OBJECT, PLAIN, Telling, World, attempt, create, each_held, outcome
from tests.sharing.maps import judge

OBJECTS = 3
BLOCK = 4096
PLACES = [number * OBJECT for number in range(OBJECTS)]

Verb = Callable[[World, Any], Any]


def _aio_writes(world: World, image: Any) -> Any:
    done = [image.aio_write(b"w" * BLOCK, place, None) for place in PLACES]
    for completion in done:
        completion.wait_for_complete_and_cb()
    return [completion.get_return_value() for completion in done]


VERBS: dict[str, Verb] = {
    "write": lambda world, image: image.write(b"W" * BLOCK, PLACES[1]),
    "aio_writes": _aio_writes,
    "discard": lambda world, image: image.discard(PLACES[1], OBJECT),
    "flush": lambda world, image: image.flush(),
    "create_snap": lambda world, image: image.create_snap("new"),
    "remove_snap": lambda world, image: image.remove_snap("old"),
    "protect_snap": lambda world, image: image.protect_snap("old"),
    "rename_snap": lambda world, image: image.rename_snap("old", "renamed"),
    "rollback": lambda world, image: image.rollback_to_snap("kept"),
    "shrink": lambda world, image: image.resize(OBJECT),
    "grow": lambda world, image: image.resize(5 * OBJECT),
    "rebuild": lambda world, image: image.rebuild_object_map(),
    "no_map": lambda world, image: image.update_features(rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF, False),
    "metadata": lambda world, image: image.metadata_set("key", "value"),
    "release": lambda world, image: image.lock_release(),
    "acquire": lambda world, image: image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE),
    "sparsify": lambda world, image: image.sparsify(4096),
    "set_snap": lambda world, image: (image.set_snap("kept"), image.read(0, 1), image.set_snap(None)),
    "diff": lambda world, image: image.diff_iterate(0, image.size(), "kept", lambda *extent: None, whole_object=True),
    "copy": lambda world, image: image.copy(image_ioctx(world), "copy"),
    "rename": lambda world, image: rbd.RBD().rename(image_ioctx(world), "image", "other"),
    "lose_watch": lambda world, image: world.lose_watches(world.first),
}

ALLOWED: tuple[type[Exception], ...] = (
    rbd.ImageNotFound, rbd.ImageBusy, rbd.InvalidArgument, rbd.ReadOnlyImage, rbd.ImageExists, rbd.FunctionNotSupported,
)  # fmt: skip
"""What one verb may make of another: a snapshot that is gone, a place beyond the end."""


def image_ioctx(world: World) -> Any:
    return world.ioctx()


class Pair(NamedTuple):
    first: str
    second: str
    features: int
    clients: int
    cached: bool

    def __str__(self) -> str:
        who = "two clients" if self.clients == 2 else "one handle"
        return f"{self.first} | {self.second} ({who}, features {self.features}{', cached' if self.cached else ''})"


def _look(ioctx: Any, name: str, snapshot: str | None) -> tuple[Any, ...] | None:
    """Its size, and the first byte of each block that verbs write; None where it is not there."""
    try:
        with rbd.Image(ioctx, name, snapshot=snapshot, read_only=True) as image:
            size = image.size()
            return size, *(image.read(place, 1) for place in PLACES if place < size)
    except rbd.ImageNotFound:
        return None


def story_of(pair: Pair) -> Callable[[World], None]:
    """Two verbs at once."""

    def story(world: World) -> None:
        conf = CACHED if pair.cached else PLAIN
        world.first = world.ioctx(**conf)
        create(world.first, OBJECTS, pair.features)
        image = rbd.Image(world.first, "image")
        for place in PLACES:
            image.write(b"0" * BLOCK, place)
        image.create_snap("kept")
        image.write(b"1" * BLOCK, PLACES[1])
        image.create_snap("old")
        image.write(b"2" * BLOCK, 0)
        image.flush()
        other = image if pair.clients == 1 else rbd.Image(world.ioctx(**conf), "image")
        looker = world.ioctx()
        world.schedule.settle()
        begun = world.schedule.steps
        jobs = [
            world.begin(VERBS[pair.first], world, image),
            world.begin(VERBS[pair.second], world, other),
        ]
        if "create_snap" in pair[:2]:
            outcome(jobs[pair[:2].index("create_snap")])
        new = _look(looker, "image", "new") if "rename" not in pair[:2] else None
        results = [outcome(job) for job in jobs]
        world.schedule.settle()
        world.of_interest = (begun, world.schedule.steps)
        for result in results:
            assert not isinstance(result, Exception) or isinstance(result, ALLOWED), results
        for handle in {id(image): image, id(other): other}.values():
            closed = attempt(handle.close)
            assert closed is None, closed
        name = "other" if "rename" in pair[:2] else "image"
        after = _look(looker, name, "new")
        # Without a lock, a write that is under way when another client takes a snapshot goes into it: with librbd, too.
        alone = pair.clients == 1 or pair.features & rbd.RBD_FEATURE_EXCLUSIVE_LOCK
        assert new is None or not alone or after == new, ("the new snapshot changed", new, after)
        _judge_at_rest(looker, name, results, pair)

    return story


def _judge_at_rest(looker: Any, name: str, results: list[Any], pair: Pair) -> None:
    verbs = dict(zip(pair[:2], results, strict=True))
    kept = _look(looker, name, "kept")
    assert kept == (3 * OBJECT, b"0", b"0", b"0"), ("the kept snapshot changed", kept)
    if "create_snap" in verbs and verbs["create_snap"] is None:
        assert _look(looker, name, "new") is not None, "told, and not taken"
    if pair.features & rbd.RBD_FEATURE_OBJECT_MAP and "no_map" not in verbs:
        judge(looker, name, exact=False)
    if verbs.get("write") == BLOCK and not verbs.keys() & {"discard", "rollback", "shrink", "aio_writes", "copy"}:
        head = _look(looker, name, None)
        assert head is not None and head[2] == b"W", "an acknowledged write is not there"
    with rbd.Image(looker, name) as image:
        assert image.write(b"z" * 512, 0) == 512  # whoever comes next gets the lock
        image.create_snap("last")
        size = image.size()
        assert size in (OBJECT, 3 * OBJECT, 5 * OBJECT)


def pairs(wanted: list[str]) -> Iterator[Pair]:
    names = list(VERBS)
    for place, first in enumerate(names):
        for second in names[place:]:
            if not wanted or first in wanted or second in wanted:
                for features, clients, cached in ((61, 1, False), (61, 2, False), (1, 2, False), (61, 1, True)):
                    yield Pair(first, second, features, clients, cached)


def explore(pair: Pair, width: int) -> tuple[int, list[Telling]]:
    """How many schedules, and those that went wrong."""
    count, wrong = 0, []
    for telling in each_held(story_of(pair), 0, width):
        count += 1
        if telling.error is not None:
            wrong.append(telling)
            if not telling.held:
                break
    return count, wrong


def main(arguments: list[str]) -> None:
    width = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 4
    logging.disable(logging.CRITICAL)
    total: collections.Counter[str] = collections.Counter()
    for pair in pairs(arguments):
        count, wrong = explore(pair, width)
        total["schedules"] += count
        total["wrong"] += len(wrong)
        if wrong:
            held = f"held {wrong[0].held}" if wrong[0].held else "all in order"
            print(f"{pair}: {len(wrong)} of {count}, {held}: {wrong[0].error!r:.300}", flush=True)
    print(dict(total))


if __name__ == "__main__":
    main(sys.argv[1:])
