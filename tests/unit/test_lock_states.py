"""The table of the exclusive lock: every pair of state and event, and what holds in each."""

import itertools

import pytest

from rbd_native.image.lock_states import HOLDING, TABLE, Event, Impossible, State, after

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda value: value.name)
def test_every_pair(state: State, event: Event) -> None:
    if (state, event) in TABLE:
        assert after(state, event) is TABLE[state, event]
    else:
        with pytest.raises(Impossible):
            after(state, event)


def test_losing_it_is_possible_always_and_never_leaves_it_held() -> None:
    assert all((state, Event.LOST) in TABLE for state in State)
    assert all(after(state, Event.LOST) not in HOLDING for state in State)


def test_it_is_held_only_after_it_was_granted() -> None:
    into = {(state, event) for (state, event), new in TABLE.items() if new in HOLDING and state not in HOLDING}
    assert into == {(State.ACQUIRING, Event.GRANTED)}


def test_it_is_given_back_only_once_nobody_is_inside() -> None:
    into = {(state, event) for (state, event), new in TABLE.items() if new is State.UNLOCKING and state is not new}
    assert into == {(State.DRAINING, Event.DRAINED), (State.UNSURE, Event.RELEASE)}
    assert State.UNSURE not in HOLDING


def test_what_was_not_answered_is_never_taken_for_either() -> None:
    assert {new for (_, event), new in TABLE.items() if event is Event.UNANSWERED} == {State.UNSURE}


def test_there_is_a_way_out_of_every_state() -> None:
    for start in State:
        reached, edge = {start}, [start]
        while edge:
            state = edge.pop()
            for (where, _), new in TABLE.items():
                if where is state and new not in reached:
                    reached.add(new)
                    edge.append(new)
        assert {State.OWNED, State.UNLOCKED} <= reached
