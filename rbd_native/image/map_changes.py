"""Changes of neighbouring entries of an object map, gathered.

While a change is on its way, those that bring entries next to it to the same state wait for it, and then go out together, a
change for each run of neighbours. Changes elsewhere wait for nobody. So the first writes to many objects in a row, or a
flatten, change the map a few times, not once an object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from rbd_native.engine import Signal, for_each, spawn
from rbd_native.native import threading
from rbd_native.object_map import ObjectState

_AT_ONCE = 16

Kind = tuple[ObjectState, ObjectState | None]
"""What entries become, and which of them: those of a state, or all (None)."""
Send = Callable[[int, int, ObjectState, ObjectState | None], Awaitable[None]]
"""Makes a change: (start, end, state, expected)."""


class _Flight:
    """A change on its way. `waiting`: the entries that wait for it; `out` tells them when theirs is made, with the error if
    there was one. `near`: the entries that would have to wait, too."""

    __slots__ = ("near", "out", "waiting")

    def __init__(self) -> None:
        self.near: list[int] = []
        self.out = Signal()
        self.waiting: list[int] = []


class MapChanges:
    """Of one object map."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._guard = threading.Lock()
        self._near: dict[tuple[Kind, int], _Flight] = {}

    async def make(self, entry: int, kind: Kind) -> None:
        """Change one entry, of which no other change is under way."""
        with self._guard:
            flight = self._near.get((kind, entry))
            if flight is not None:
                flight.waiting.append(entry)
                self._reach(flight, kind, entry, entry + 1)
            else:
                mine = self._depart(kind, entry, entry + 1)
        if flight is None:
            await self._fly(mine, kind, entry, entry + 1)
            return
        error = await flight.out.wait()
        if error is not None:
            raise error

    def _depart(self, kind: Kind, start: int, end: int) -> _Flight:
        flight = _Flight()
        self._reach(flight, kind, start, end)
        return flight

    def _reach(self, flight: _Flight, kind: Kind, start: int, end: int) -> None:
        for entry in (start - 1, end):
            if self._near.setdefault((kind, entry), flight) is flight:
                flight.near.append(entry)

    async def _fly(self, flight: _Flight, kind: Kind, start: int, end: int) -> None:
        try:
            await self._send(start, end, *kind)
        finally:
            self._landed(flight, kind)

    def _landed(self, flight: _Flight, kind: Kind) -> None:
        """Those that waited for it go."""
        with self._guard:
            for entry in flight.near:
                self._near.pop((kind, entry), None)
            departing = [(self._depart(kind, *run), *run) for run in _runs(flight.waiting)]
        if departing:
            spawn(self._fly_all(flight, kind, departing), "changes of an object map")

    async def _fly_all(self, before: _Flight, kind: Kind, departing: list[tuple[_Flight, int, int]]) -> None:
        error: BaseException | None = None
        try:
            await for_each([self._fly(flight, kind, start, end) for flight, start, end in departing], _AT_ONCE)
        except BaseException as caught:  # whoever waits hears of it
            error = caught
        before.out.set(error)


def _runs(entries: list[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of neighbours."""
    start = end = -1
    for entry in sorted(entries):
        if entry != end:
            if start < end:
                yield start, end
            start = entry
        end = entry + 1
    if start < end:
        yield start, end
