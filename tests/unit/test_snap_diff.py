"""What snapshots' records and object maps tell of changes, held against objects and images whose every state is known."""

import itertools
from collections.abc import Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rbd_native.object_map import BitVector, ObjectState
from rbd_native.rados.port import HEAD, Clone, SnapSet
from rbd_native.snap_diff import DiffState, Fold, Intervals, common, joined, object_changes, without

SIZE = 24

edges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))
pieces = st.lists(edges.map(lambda pair: (min(pair), max(pair))), max_size=6)


def cells(intervals: Iterable[tuple[int, int]]) -> set[int]:
    return {cell for start, end in intervals for cell in range(start, end)}


@settings(deadline=None)
@given(pieces, pieces)
def test_intervals_are_sets(first: Intervals, second: Intervals) -> None:
    a, b = joined(first), joined(second)
    for made, wanted in (
        (a, cells(first)),
        (common(a, b), cells(first) & cells(second)),
        (without(a, b), cells(first) - cells(second)),
    ):
        assert cells(made) == wanted
        assert all(left[1] < right[0] for left, right in itertools.pairwise(made)), "they touch"
        assert all(start < end for start, end in made)


class Object:
    """An object as an OSD keeps it: clones are made by the first change after a snapshot."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.states: dict[int, bytes | None] = {0: None}
        self.clones: list[Clone] = []
        self.seq = 0
        self.snap = 0

    def take(self) -> None:
        self.snap += 1
        self.states[self.snap] = self.data

    def change(self, new: bytes | None, touched: Intervals) -> None:
        old = self.data
        if old is not None and self.seq < self.snap:
            served = tuple(range(self.seq + 1, self.snap + 1))
            self.clones.append(Clone(self.snap, served, ((0, len(old)),) if old else (), len(old)))
        if self.seq < self.snap:
            self.seq = self.snap
        if self.clones:
            last = self.clones[-1]
            shared = without([(at, at + length) for at, length in last.overlap], touched) if old is not None else []
            kept = common(shared, joined([(0, 0 if new is None else len(new))]))
            self.clones[-1] = last._replace(overlap=tuple((start, end - start) for start, end in kept))
        self.data = new

    def write(self, start: int, end: int, value: int) -> None:
        data = (self.data or b"").ljust(start, b"\0")
        self.change(data[:start] + bytes([value]) * (end - start) + data[end:], joined([(start, end)]))

    def found(self) -> SnapSet:
        self.states[HEAD] = self.data
        head = [] if self.data is None else [Clone(HEAD, (), (), len(self.data))]
        return SnapSet((*self.clones, *head), self.seq)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, SIZE - 1), st.integers(1, SIZE)),
        st.tuples(st.just("cut"), st.integers(0, SIZE), st.none()),
        st.tuples(st.just("remove"), st.none(), st.none()),
        st.tuples(st.just("snap"), st.none(), st.none()),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(steps, st.booleans())
def test_nothing_that_changed_is_left_out(history: list[tuple[str, int, int]], whole: bool) -> None:
    thing = Object()
    for number, (verb, first, second) in enumerate(history):
        if verb == "write":
            thing.write(first, min(first + second, SIZE), number % 9 + 1)
        elif verb == "cut" and thing.data is not None:
            thing.change(thing.data[:first], joined([(first, len(thing.data))]))
        elif verb == "remove" and thing.data is not None:
            thing.change(None, [(0, SIZE)])
        elif verb == "snap":
            thing.take()
    found = thing.found()
    everything = [(0, SIZE)]
    versions = sorted(thing.states)
    for place, until in enumerate(versions):
        for since in versions[:place]:
            data, zeros = object_changes(found, since, until, everything, SIZE, whole=whole)
            before = (thing.states[since] or b"").ljust(SIZE, b"\0")
            after = (thing.states[until] or b"").ljust(SIZE, b"\0")
            told = cells(data) | cells(zeros)
            assert not cells(data) & cells(zeros)
            assert {at for at in range(SIZE) if before[at] != after[at]} <= told
            assert all(after[at] == 0 for at in cells(zeros))
            if thing.states[until] is None:
                assert not data
            if since == until or not found.clones:
                assert not told


def test_a_clone_that_serves_no_snapshot_tells_nothing_so_all_is_told() -> None:
    """As an OSD gives it while it trims."""
    found = SnapSet((Clone(3, (), ((0, 4),), 4), Clone(HEAD, (), (), 4)), 3)
    assert object_changes(found, 2, HEAD, [(1, 9)], 16, whole=False) == ([(1, 9)], [])


def test_what_was_cut_off_is_a_difference_of_those_who_had_it() -> None:
    """As librbd has it since release 18: from a version that had nothing it is none."""
    found = SnapSet((Clone(1, (1,), ((0, 4),), 12), Clone(HEAD, (), (), 4)), 1)
    assert object_changes(found, 0, HEAD, [(0, SIZE)], SIZE, whole=False) == ([(0, 4)], [])
    assert object_changes(found, 1, HEAD, [(0, SIZE)], SIZE, whole=False) == ([], [(4, 12)])


# --- maps ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["write", "remove", "leave"]), min_size=9, max_size=9), min_size=2, max_size=5))
def test_maps_tell_which_objects_changed(rounds: list[list[str]]) -> None:
    """Each round is what happens to nine objects up to a version; from the first version to the last."""
    exists = [False] * 9
    maps = []
    for verbs in rounds:
        states = []
        for number, verb in enumerate(verbs):
            was = exists[number]
            exists[number] = verb == "write" or (was and verb == "leave")
            clean = was and verb == "leave"
            there = ObjectState.EXISTS_CLEAN if clean else ObjectState.EXISTS
            states.append(there if exists[number] else ObjectState.NONEXISTENT)
        maps.append(states)
    fold = Fold()
    fold.start(BitVector.pack(maps[0]), 9)
    for states in maps[1:]:
        fold.then(BitVector.pack(states), 9, last=states is maps[-1])
    for number in range(9):
        was, now = maps[0][number] != 0, maps[-1][number] != 0
        touched = any(states[number] != ObjectState.EXISTS_CLEAN for states in maps[1:])
        expected = {
            (False, False): DiffState.HOLE,
            (False, True): DiffState.DATA_UPDATED,
            (True, False): DiffState.HOLE_UPDATED,
            (True, True): DiffState.DATA_UPDATED if touched else DiffState.DATA,
        }[was, now]
        assert int(fold.states[number]) == expected


def test_from_the_beginning_only_the_last_map_counts() -> None:
    fold = Fold()
    fold.then(BitVector.pack(np.array([0, 1, 2, 3, 0])), 5, last=True)
    assert fold.states.unpack().tolist() == [DiffState.HOLE, *[DiffState.DATA_UPDATED] * 3, DiffState.HOLE]


def test_objects_that_an_image_lost_by_shrinking_are_holes() -> None:
    fold = Fold()
    fold.start(BitVector.pack(np.array([1, 1, 1])), 3)
    fold.then(BitVector.pack(np.array([3])), 1, last=False)
    fold.then(BitVector.pack(np.array([3, 0, 1])), 3, last=True)
    assert fold.states.unpack().tolist() == [DiffState.DATA, DiffState.HOLE, DiffState.DATA_UPDATED]
