"""Whether there is an order of calls that overlap in which each answers what it may: then what may be true after them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import tests.fuzz.rules_lock
import tests.fuzz.rules_pool
import tests.fuzz.rules_snap  # noqa: F401  (the three register their rules)
from tests.fuzz.history import NEVER
from tests.fuzz.rules import Branch, Case, Want, branches
from tests.fuzz.stage import Finding, Made
from tests.fuzz.state import State

MOST_NODES = 20_000
MOST_STATES = 24


@dataclass
class Judged:
    """A call with what the rules must know of it. uid: its number in the whole run."""

    made: Made
    module: str
    uid: int
    raced: bool = False

    @property
    def ended(self) -> int:
        return NEVER if self.made.t1 is None else self.made.t1


def _same(one: Judged, other: Judged) -> bool:
    if one.made.do != other.made.do or (one.made.t0 or 0) > other.ended or (other.made.t0 or 0) > one.ended:
        return False
    return bool(one.made.call.get("args") == other.made.call.get("args"))


class Explanation:
    """The search. `cached`: see :class:`Case`. natives: the clients that are not librbd's."""

    def __init__(self, calls: Iterable[Judged], cached: bool, natives: Collection[str] = ()) -> None:
        self.natives = natives
        self.calls = [one for one in calls if one.made.t0 is not None and one.made.skip is None]
        self.cached = cached
        for one in self.calls:
            one.raced = any(_same(one, other) for other in self.calls if other is not one)
        self.ends: set[State] = set()
        self.seen: set[tuple[State, frozenset[int]]] = set()
        self.closest: tuple[State, frozenset[int]] | None = None

    def run(self, states: Collection[State]) -> set[State]:
        """All states that may be true after the calls. Finding where there is none."""
        everything = frozenset(range(len(self.calls)))
        stack = [(state, everything) for state in states]
        while stack and len(self.seen) < MOST_NODES:
            state, left = stack.pop()
            if (state, left) in self.seen:
                continue
            self.seen.add((state, left))
            if self.closest is None or len(left) < len(self.closest[1]):
                self.closest = state, left
            if all(self.calls[number].made.t1 is None for number in left):
                self.ends.add(state)
                if len(self.ends) >= MOST_STATES:
                    break
            stack.extend(self._next(state, left))
        if not self.ends:
            self._fail()
        return self.ends

    def _enabled(self, left: frozenset[int]) -> list[int]:
        first = min((self.calls[number].ended for number in left), default=NEVER)
        return sorted(number for number in left if (self.calls[number].made.t0 or 0) <= first)

    def _next(self, state: State, left: frozenset[int]) -> list[tuple[State, frozenset[int]]]:
        found = []
        for number in self._enabled(left):
            after = self._after(state, self.calls[number])
            if after and all(one == state for one in after):
                return [(state, left - {number})]  # it can stand here whatever else comes
            found += [(one, left - {number}) for one in after]
        return found

    def _after(self, state: State, call: Judged) -> list[State]:
        """The states after the call, if it answers so in that state. A call without an answer may have had its effect."""
        if call.made.t1 is None:
            return [branch.state for branch in self._branches(state, call) if branch.want.errors is None]
        return list(dict.fromkeys(branch.state for branch in self._branches(state, call) if branch.want.takes(call.made)))

    def _branches(self, state: State, call: Judged) -> Iterator[Branch]:
        return branches(Case(state, call.made, call.module, self.cached, call.uid, call.raced))

    def _fail(self) -> None:
        if self.closest is None or len(self.seen) >= MOST_NODES:
            return
        state, left = self.closest
        words = []
        for number in self._enabled(left):
            call = self.calls[number]
            wants: list[Want] = [branch.want for branch in self._branches(state, call)]
            words.append(f"{call.made}\n    wanted: {' | '.join(dict.fromkeys(want.words for want in wants))}")
        who = [self.calls[number] for number in left]
        owners = {image.owner[0] for image in state.images.values() if image.owner is not None}
        ours = any(one.module != "rbd" for one in self.calls) or not owners.isdisjoint(self.natives)
        first = self.calls[self._enabled(left)[0]]
        raise Finding(f"answer {first.made.do}", "\n  ".join(words) + f"\n  in {shown(state, who)}", ours=ours)


def shown(state: State, calls: Iterable[Judged]) -> str:
    """What a state says of the images that calls are about."""
    keys = {state.handles[call.made.on].image for call in calls if call.made.on in state.handles}
    names = {key: state.name_of(key) for key in keys}
    handles = {call.made.on: state.handles.get(call.made.on) for call in calls}
    return "; ".join(
        [*(f"{names[key]}: {state.images[key]}" for key in keys), f"{handles}", f"fenced {sorted(state.fenced)}"]
    )
