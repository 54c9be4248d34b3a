"""What takes the exclusive lock, what leaves it where it is, and what is refused: of us and of librbd alike."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.conftest import Side

MIB = 1 << 20
REFUSED = "ReadOnlyImage"
STEPS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda image: None,
    "flush": lambda image: image.flush(),
    "invalidate_cache": lambda image: image.invalidate_cache(),
    "write": lambda image: image.write(b"a", 0),
    "discard": lambda image: image.discard(0, MIB),
    "read": lambda image: image.read(0, 1),
    "rollback": lambda image: image.rollback_to_snap("s"),
    "set_snap_limit": lambda image: image.set_snap_limit(9),
    "remove_snap": lambda image: image.remove_snap("s"),
    "create_snap": lambda image: image.create_snap("t"),
    "rename_snap": lambda image: image.rename_snap("s", "t"),
    "protect_snap": lambda image: image.protect_snap("s"),
    "resize": lambda image: image.resize(2 * MIB),
    "metadata_set": lambda image: image.metadata_set("a", "b"),
    "sparsify": lambda image: image.sparsify(4096),
}
LEAVES_IT = {"nothing", "invalidate_cache", "read", "rename_snap", "protect_snap"}
ONLY_IF_TAKEN_FOR_WRITES = {"flush", "write", "discard"}
PIECEWISE = {"remove_snap"}
"""Takes it only where there is a fast-diff to keep up."""


def owned_image(side: Side, features: int, *, by_hand: bool) -> Any:
    """It owns the lock."""
    side.create("image", features)
    image = side.image("image")
    image.write(b"x", 0)
    image.create_snap("s")
    if by_hand:
        image.lock_acquire(side.rbd.RBD_LOCK_MODE_EXCLUSIVE)
    assert image.is_exclusive_lock_owner()
    return image


@pytest.mark.parametrize("features", [5, 61])
@pytest.mark.parametrize("by_hand", [False, True], ids=["taken for a write", "taken by hand"])
@pytest.mark.parametrize("step", STEPS)
def test_after_lock_release(side: Side, step: str, by_hand: bool, features: int) -> None:
    """Once given back, a lock that was taken for a write is taken for writes again; one that was taken by hand only by
    maintenance."""
    with owned_image(side, features, by_hand=by_hand) as image:
        image.lock_release()
        assert not image.is_exclusive_lock_owner()
        answer = side.answer(STEPS[step], image)
        refused = by_hand and step in ONLY_IF_TAKEN_FOR_WRITES
        assert (answer == REFUSED) == refused, answer
        takes = step not in LEAVES_IT and not refused and not (step in PIECEWISE and not features & 16)
        assert image.is_exclusive_lock_owner() == takes
        writes = side.answer(image.write, b"y", 0)
        assert writes == (REFUSED if by_hand and not takes else "1")


FROM_AN_OWNER: dict[str, tuple[str, str]] = {
    # step: what it answers where the owner has the lock by hand, and where it gives it up when asked
    "flush": (REFUSED, "None"),
    "write": (REFUSED, "1"),
    "rollback": (REFUSED, REFUSED),
    "set_snap_limit": (REFUSED, "0"),
    "metadata_set": ("None", "None"),
    "create_snap": ("None", "None"),
    "protect_snap": ("None", "None"),
    "resize": ("None", "None"),
}
ASKED_FOR = {"flush", "write", "set_snap_limit"}
"""For these a living owner is asked for the lock; the others it does itself, or are refused."""


@pytest.mark.parametrize("by_hand", [False, True], ids=["given up when asked", "kept"])
@pytest.mark.parametrize("step", FROM_AN_OWNER)
def test_while_another_owns_it(side: Side, step: str, by_hand: bool) -> None:
    with owned_image(side, 61, by_hand=by_hand) as owner, side.rbd.Image(side.other_ioctx(), "image") as image:
        kept, given_up = FROM_AN_OWNER[step]
        assert side.answer(STEPS[step], image) == (kept if by_hand else given_up)
        moves = not by_hand and step in ASKED_FOR
        if step != "metadata_set":  # which librbd 16 takes the lock for, and later ones have the owner do
            assert (image.is_exclusive_lock_owner(), owner.is_exclusive_lock_owner()) == (moves, not moves)
