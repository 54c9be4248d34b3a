"""The exclusive lock of a handle, as a table of states and events.

What holds at all times:

1. Writes pass the gate only in OWNED and DRAINING, and only with a state of the image that is current.
2. In UNLOCKED the OSD does not have this handle for the owner, as far as anybody knows; in UNSURE it may have.
3. From OWNED the lock goes only by DRAINING, in which newcomers wait and those inside end, or by being lost.
4. In UNLOCKING nobody is inside: nothing is written under a lock that is on its way back.
5. The object map is loaded from before OWNED is entered until it is left for UNLOCKING or lost.
6. An operation whose answer never came leads to UNSURE, never to a guess; the next attempt, or giving back, finds out.
7. Each time OWNED is entered is a term of its own: what was accepted in one term is not written in another.
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    UNLOCKED = enum.auto()
    ACQUIRING = enum.auto()
    """An attempt is under way: asking the owner, waiting for it, taking the lock, loading the object map."""
    OWNED = enum.auto()
    """Held, and all that goes with it is in place."""
    DRAINING = enum.auto()
    """Held still, and about to be given back: those inside end."""
    UNLOCKING = enum.auto()
    """Being given back."""
    UNSURE = enum.auto()
    """An answer did not come: the OSD may have this handle for the owner."""


class Event(enum.Enum):
    ACQUIRE = enum.auto()
    """An attempt begins."""
    GRANTED = enum.auto()
    """It is ours, and all is in place."""
    DENIED = enum.auto()
    """The attempt has ended, and nothing is held."""
    UNANSWERED = enum.auto()
    """The attempt, or giving back, has ended, and what was sent may have been done."""
    RELEASE = enum.auto()
    """It is to be given back."""
    DRAINED = enum.auto()
    """Nobody is inside any more."""
    UNLOCKED = enum.auto()
    """The OSD does not have us for the owner any more."""
    LOST = enum.auto()
    """The OSD says that it is not ours: it was broken, or we are fenced."""


S, E = State, Event

TABLE: Final[dict[tuple[State, Event], State]] = {
    (S.UNLOCKED, E.ACQUIRE): S.ACQUIRING,
    (S.UNLOCKED, E.RELEASE): S.UNLOCKED,
    (S.UNLOCKED, E.LOST): S.UNLOCKED,
    (S.ACQUIRING, E.GRANTED): S.OWNED,
    (S.ACQUIRING, E.DENIED): S.UNLOCKED,
    (S.ACQUIRING, E.UNANSWERED): S.UNSURE,
    (S.ACQUIRING, E.LOST): S.ACQUIRING,
    (S.OWNED, E.RELEASE): S.DRAINING,
    (S.OWNED, E.LOST): S.UNLOCKED,
    (S.DRAINING, E.DRAINED): S.UNLOCKING,
    (S.DRAINING, E.LOST): S.UNLOCKED,
    (S.UNLOCKING, E.UNLOCKED): S.UNLOCKED,
    (S.UNLOCKING, E.UNANSWERED): S.UNSURE,
    (S.UNLOCKING, E.LOST): S.UNLOCKING,
    (S.UNSURE, E.ACQUIRE): S.ACQUIRING,
    (S.UNSURE, E.RELEASE): S.UNLOCKING,
    (S.UNSURE, E.LOST): S.UNLOCKED,
}
"""What is not in it cannot be: :func:`after` raises."""

HOLDING: Final = frozenset({State.OWNED, State.DRAINING})
"""Where those who are inside may write."""


class Impossible(Exception):
    """An event that cannot be in this state: a fault of the program, not of the cluster."""


def after(state: State, event: Event) -> State:
    """The state that an event leads to. Raises Impossible."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise Impossible(f"{event.name} in {state.name}") from None
