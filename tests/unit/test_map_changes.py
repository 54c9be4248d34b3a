"""Changes of an object map that are gathered: each is made once, none is kept waiting by what is not its neighbour."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbd_native.engine import Signal, Task
from rbd_native.image.map_changes import MapChanges
from rbd_native.object_map import ObjectState

EXISTS = (ObjectState.EXISTS, None)
PENDING = (ObjectState.PENDING, None)


class Map:
    """Changes that end when they are told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, Any]] = []
        self.going: list[Signal] = []
        self.changes = MapChanges(self._send)

    async def _send(self, start: int, end: int, state: ObjectState, expected: ObjectState | None) -> None:
        self.sent.append((start, end, (state, expected)))
        going = Signal()
        self.going.append(going)
        error = await going.wait()
        if error is not None:
            raise error

    def begin(self, entry: int, kind: Any = EXISTS) -> Task[None]:
        return Task(self.changes.make(entry, kind)).launch()

    def land(self, place: int = 0, error: Exception | None = None) -> None:
        self.going.pop(place).set(error)


def test_neighbours_wait_and_go_together() -> None:
    made = Map()
    tasks = [made.begin(entry) for entry in (5, 6, 7, 4, 9, 8)]
    assert [change[:2] for change in made.sent] == [(5, 6), (9, 10)], "a neighbour of nobody's waits for nobody"
    made.land()
    assert [change[:2] for change in made.sent] == [(5, 6), (9, 10), (4, 5), (6, 9)]
    assert [task.finished for task in tasks] == [True, False, False, False, False, False]
    made.land(1)
    assert not any(task.finished for task in tasks[1:4]), "all that went out at once are waited for"
    made.land(1)
    assert [task.finished for task in tasks] == [True, True, True, True, False, True]
    made.land()
    assert tasks[4].finished
    assert not made.changes._near


def test_another_change_of_a_neighbour_does_not_wait() -> None:
    made = Map()
    for entry, kind in ((5, EXISTS), (6, PENDING), (7, (ObjectState.EXISTS, ObjectState.PENDING))):
        made.begin(entry, kind)
    assert len(made.sent) == 3


def test_who_goes_together_fails_together() -> None:
    made = Map()
    first, second, third = (made.begin(entry) for entry in (1, 2, 3))
    made.land()
    first.result()
    made.land(error=OSError("no"))
    for task in (second, third):
        with pytest.raises(OSError, match="no"):
            task.result()
    assert not made.changes._near


def test_a_failure_is_not_that_of_those_who_wait_for_it() -> None:
    made = Map()
    first, second = made.begin(1), made.begin(2)
    made.land(error=OSError("no"))
    with pytest.raises(OSError, match="no"):
        first.result()
    made.land()
    second.result()


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([EXISTS, PENDING]), st.integers(0, 3)), max_size=60))
def test_each_is_made_once(script: list[tuple[int, Any, int]]) -> None:
    """In any order of beginnings and ends; as the map's owner does, one entry is never changed by two at a time."""
    made = Map()
    under_way: dict[int, Task[None]] = {}
    wanted: list[tuple[int, Any]] = []
    for entry, kind, landings in script:
        for _ in range(min(landings, len(made.going))):
            made.land(entry % len(made.going))
        if entry not in under_way or under_way[entry].finished:
            under_way[entry] = made.begin(entry, kind)
            wanted.append((entry, kind))
    while made.going:
        made.land()
    assert all(task.finished for task in under_way.values())
    done = [(entry, kind) for start, end, kind in made.sent for entry in range(start, end)]
    assert sorted(done, key=repr) == sorted(wanted, key=repr)
    assert not made.changes._near
