"""Operations on the whole image: which wait for which, in any order of coming and going."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbd_native.engine import PENDING, Signal, Task
from rbd_native.image.exclusion import MAY_OVERLAP, Exclusion, Operation

PAIRS = list(itertools.combinations_with_replacement(Operation, 2))


class Holder:
    """One that wants to be under way, and is until :meth:`end`."""

    def __init__(self, exclusion: Exclusion, operation: Operation) -> None:
        self.operation = operation
        self.entered = False
        self._end = Signal()
        self._task: Task[Any] = Task(self._hold(exclusion)).launch()

    async def _hold(self, exclusion: Exclusion) -> None:
        async with exclusion.hold(self.operation):
            self.entered = True
            await self._end.wait()

    def end(self) -> None:
        self._end.set()
        assert self._task.finished


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda operation: operation.name)
def test_every_pair(first: Operation, second: Operation) -> None:
    exclusion = Exclusion()
    one, other = Holder(exclusion, first), Holder(exclusion, second)
    assert one.entered
    assert other.entered == (second in MAY_OVERLAP[first])
    one.end()
    assert other.entered
    other.end()


def test_the_table_is_the_same_both_ways() -> None:
    for one, other in PAIRS:
        assert (one in MAY_OVERLAP[other]) == (other in MAY_OVERLAP[one])


@given(st.lists(st.one_of(st.sampled_from(list(Operation)), st.integers(0, 9)), max_size=30))
def test_any_order(script: list[Operation | int]) -> None:
    """An operation comes, a number is one that ends. Those under way may overlap, and nobody waits for nothing."""
    exclusion = Exclusion()
    holders: list[Holder] = []
    for event in script:
        inside = [holder for holder in holders if holder.entered]
        if isinstance(event, Operation):
            holders.append(Holder(exclusion, event))
        elif inside:
            ended = inside[event % len(inside)]
            ended.end()
            holders.remove(ended)
        inside = [holder for holder in holders if holder.entered]
        for one, other in itertools.combinations(inside, 2):
            assert other.operation in MAY_OVERLAP[one.operation]
        for place, holder in enumerate(holders):
            if not holder.entered:
                before = [other for other in holders[:place] if not other.entered] + inside
                assert any(holder.operation not in MAY_OVERLAP[other.operation] for other in before)
    for _ in range(len(holders)):
        ended = next(holder for holder in holders if holder.entered)
        ended.end()
        holders.remove(ended)


def test_what_fails_inside_leaves_it() -> None:
    exclusion = Exclusion()

    async def fail() -> None:
        async with exclusion.hold(Operation.RESIZE):
            raise ZeroDivisionError

    task = Task(fail()).launch()
    assert task.start(lambda value: None) is not PENDING
    assert Holder(exclusion, Operation.RESIZE).entered
