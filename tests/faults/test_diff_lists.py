"""What diff_iterate begins with, and the lists it gives: those of librbd since release 18."""

from typing import Any

import pytest

from tests import releases as rules
from tests.faults.conftest import Side

MIB = 1 << 20
Extents = list[tuple[int, int, bool]]


def told(image: Any, since: Any = None, **how: Any) -> Extents:
    extents: Extents = []
    image.diff_iterate(0, 2**63, since, lambda *extent: extents.append(extent), **how)
    return extents


@pytest.mark.parametrize("features", [1, 61])
def test_the_beginning_of_time(side: Side, features: int) -> None:
    side.create("image", features, size=8 * MIB)
    if not side.told(rules.FROM_ZERO):
        return
    with side.image("image") as image:
        image.write(b"a" * 6000, 0)
        image.create_snap("one")
        image.write(b"b" * 100, 3 * MIB)
        image.create_snap("two")
        image.discard(3 * MIB, MIB)
        image.write(b"c" * 9, 5 * MIB)
        all_of_it = [(0, 6000, True), (5 * MIB, 9, True)]
        assert told(image) == told(image, 0) == told(image, False) == all_of_it
        one, two = (image.snap_get_id(name) for name in ("one", "two"))
        assert told(image, "one") == told(image, one) == all_of_it[1:]
        assert told(image, two) == [(3 * MIB, 100, False), (5 * MIB, 9, True)]
        image.set_snap("one")
        assert told(image, 0) == [(0, 6000, True)]
        assert told(image, one) == []
        assert side.answer(told, image, two) == "InvalidArgument"


def test_other_beginnings(side: Side) -> None:
    side.create("image")
    with side.image("image") as image:
        image.create_snap("one")
        if side.told(rules.FROM_BYTES) != "TypeError":
            return
        odd: tuple[Any, ...] = (b"one", b"", 1.0, bytearray(b"one"), [])
        for since in odd:
            with pytest.raises(TypeError, match=r"^from_snapshot must be a string or an integer$"):
                told(image, since)
        assert side.answer(told, image, -1) == side.answer(told, image, 2**64) == "OverflowError"
        for since, shown in ((True, "id 1"), (2**63, f"id {2**63}"), (2**64 - 1, f"id {2**64 - 1}"), ("", ""), ("x", "x")):
            with pytest.raises(side.rbd.ImageNotFound, match=rf"\(error generating diff from snapshot {shown}\)"):
                told(image, since)
        with pytest.raises(side.rbd.InvalidArgument, match=r"\(error generating diff from snapshot id 0\)"):
            image.diff_iterate(8 * MIB, 1, None, print)


def test_what_neither_version_has_is_no_difference(side: Side) -> None:
    """Written, kept by a snapshot, and cut off again."""
    cut = side.told(rules.CUT_OFF)
    long, short = 200_000, 65_536
    side.create("image", 1, size=8 * MIB)
    with side.image("image") as image:
        image.write(b"a" * long, 0)
        image.create_snap("long")
        image.discard(short, MIB - short)
        image.create_snap("short")
        image.write(b"b" * 9, 100)
        assert told(image) == [(0, long if cut else short, True)]
        assert told(image, "long") == [(100, 9, True), (short, long - short, False)]
        assert told(image, "short") == [(100, 9, True)]
        if not cut:  # else as much of the object as there is, in several pieces
            for since in (None, "long", "short"):
                assert told(image, since, whole_object=True) == [(0, MIB, True)]


def test_an_object_that_only_an_older_snapshot_had(side: Side) -> None:
    side.create("image", 1, size=8 * MIB)
    with side.image("image") as image:
        image.write(b"a" * 100, 2 * MIB)
        image.create_snap("had")
        image.discard(2 * MIB, MIB)
        image.write(b"b" * 10, 4 * MIB)
        image.create_snap("has")
        image.write(b"c" * 10, 6 * MIB)
        image.set_snap("has")
        assert told(image) == [(4 * MIB, 10, True)]
        if not side.told(rules.CUT_OFF):
            assert told(image, whole_object=True) == [(4 * MIB, MIB, True)]
        assert told(image, "had") == [(2 * MIB, 100, False), (4 * MIB, 10, True)]
