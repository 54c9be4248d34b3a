"""A run of a script: its steps are made on the stage, and what comes of them is judged."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tests.fuzz.effects import Effects, Frozen
from tests.fuzz.history import Content
from tests.fuzz.judge import Explanation, Judged
from tests.fuzz.rules import raw
from tests.fuzz.stage import Finding, Made, Stage, Trouble
from tests.fuzz.state import Img, State

JUDGE = "j"
"""The client that only looks: librbd, in a process of its own."""
TROUBLED_WATCH = 3.0
"""Seconds that a process may be stopped without its watches being in danger."""

VAGUE = ("sparsify", "discard", "write_zeroes")
"""Whoever does these: the map may then call objects changed that are not, and librbd's check minds."""

Step = dict[str, Any]


@dataclass
class World:
    """harmed: images some of whose users died or were fenced. touched, makers: the libraries that used an image, that
    copied it."""

    stage: Stage
    admin: Callable[..., Any]
    cached: bool
    capacity: int
    pool: str
    states: set[State] = field(default_factory=lambda: {State()})
    contents: dict[int, Content] = field(default_factory=dict)
    snaps: dict[int, Frozen] = field(default_factory=dict)
    harmed: set[int] = field(default_factory=set)
    vague: set[int] = field(default_factory=set)
    touched: dict[int, set[str]] = field(default_factory=dict)
    layouts: dict[int, list[Any]] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    """What deep copies are of; layouts: what was asked for with them."""
    makers: dict[int, str] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    uids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    pools: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def state(self) -> State:
        """One that may be true."""
        return next(iter(self.states))

    def module(self, client: str) -> str:
        return self.stage.clients[client][1]

    @property
    def natives(self) -> list[str]:
        return [client for client, (_, module) in self.stage.clients.items() if module != "rbd"]

    def connect(self, client: str) -> Made:
        options = {"rbd_cache": "true" if self.cached else "false"}
        return self.stage.one(client, "client.connect", self.module(client), self.pool, **options)

    # --- steps ---

    def run(self, step: Step) -> None:
        """Finding where something must not be."""
        if "fence" in step:
            self._fence(step["fence"])
        elif "look" in step:
            self.look()
        else:
            self._lanes(step)

    def _fence(self, client: str) -> None:
        made = self.stage.one(client, "client.address")
        if made.ok is None:
            return
        self.admin(
            "osd blocklist", blocklistop="add", addr=made.ok.split("/")[0].split("v2:")[-1] + "/" + made.ok.split("/")[-1]
        )
        self._harm(client)
        self.states = {state.fence(client) for state in self.states}

    def _harm(self, client: str) -> None:
        for state in self.states:
            self.harmed |= {handle.image for name, handle in state.handles.items() if name[0] == client}

    def _placed(self, lane: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """With what a script does not know: the pool, and options."""
        options = {"rbd_cache": "true" if self.cached else "false"}
        return [
            {**one, "args": [*one["args"], self.pool], "kw": options} if one["do"] == "client.connect" else one
            for one in lane
        ]

    def _lanes(self, step: Step) -> None:
        trouble = Trouble(**step["trouble"]) if "trouble" in step else None
        before = self.states
        if trouble is not None:
            self._expect(trouble)
        with _Churn(self, step.get("churn", 0)):
            lanes = self.stage.perform([self._placed(lane) for lane in step["lanes"]], trouble)
        made = sorted((one for lane in lanes for one in lane if one.t0 is not None), key=lambda one: one.t0 or 0)
        for one in (one for lane in lanes for one in lane):
            self.log.append(f"  {one}")
            if one.t0 is not None:
                self.counts[self.module(one.on[0]), one.do] += 1
        calls = [Judged(one, self.module(one.on[0]), next(self.uids)) for one in made]
        self._classes(calls)
        for call in calls:
            if call.made.on in self.state.handles and "read" not in call.made.do:
                self.touched.setdefault(self.state.handles[call.made.on].image, set()).add(call.module)
        self.states = Explanation(calls, self.cached, self.natives).run(self.states)
        for call in calls:
            if call.made.do in ("Image.lock_break", "Image.break_lock") and call.made.good:
                self._harm_all(before)
            if call.made.do.endswith(VAGUE) and call.made.on in self.state.handles:
                self.vague.add(self.state.handles[call.made.on].image)
        Effects(self, before, calls).apply()
        if trouble is not None and trouble.seconds is None:
            self._bury(trouble.process)

    def _harm_all(self, states: set[State]) -> None:
        self.harmed |= {handle.image for state in states for handle in state.handles.values()}

    def _expect(self, trouble: Trouble) -> None:
        clients = [client for client, (place, _) in self.stage.clients.items() if place == trouble.process]
        if trouble.seconds is not None and trouble.seconds < TROUBLED_WATCH:
            return
        for client in clients:
            self._harm(client)
            if trouble.seconds is not None:
                doubtful = {replace(state, doubtful=state.doubtful | {client}) for state in self.states}
                self.states = doubtful | {state.unlocked(client) for state in doubtful}

    def _bury(self, process: int) -> None:
        """A killed process starts anew; its clients connect."""
        clients = [client for client, (place, _) in self.stage.clients.items() if place == process]
        self.stage.restart(process)
        for client in clients:
            self.states = {state.gone(client).let_in(client) for state in self.states}
            self.connect(client)

    @staticmethod
    def _classes(calls: list[Judged]) -> None:
        """Whatever the state, these are faults of the library itself."""
        for call in calls:
            odd = call.made.call.get("odd") or _of_a_wrong_type(call.made.call)
            if call.made.err is not None and call.made.err[0] in INTERNAL and not odd:
                raise Finding(f"raised {call.made.err[0]}", str(call.made), ours=call.module != "rbd")

    # --- looking ---

    def look(self) -> None:
        """librbd reads all images and snapshots, by openings of its own."""
        for state in [self.state]:
            for name, key in state.names.items():
                self._look_at(state, name, state.images[key])

    def _look_at(self, state: State, name: str, img: Img) -> None:
        content = self.contents.get(img.key)
        if content is None:
            return
        for snap in img.named:
            frozen = self.snaps.get(snap.key)
            made = self.stage.one(JUDGE, "client.digest", name, snap.name)
            without = {one for one in self.states if all(snap.key != kept.key for kept in one.images[img.key].snaps)}
            if made.ok is None and without:  # it was taken by one who was killed, and is not there
                self.states = without
                continue
            if made.ok is None or frozen is None:
                raise Finding("snapshot", f"{name}@{snap.name} cannot be read: {made}", ours=self.of_ours(img.key))
            found = raw(made.ok)
            words = frozen.check(found, whole=True)
            if words:
                raise Finding("snapshot", f"{name}@{snap.name}: {words}", ours=frozen.ours and self.of_ours(img.key))
            self._only(f"{name}@{snap.name}", len(found), partial(_snap_size, img.key, snap.key))
        made = self.stage.one(JUDGE, "client.digest", name, None)
        if made.ok is None:
            raise Finding("image", f"{name} cannot be read: {made}")
        found = raw(made.ok)
        self._only(name, len(found), lambda state: [state.images[img.key].size])
        seen = content.possible(made.t0 or 0, made.t1 or 0)
        if seen.wrong(found).any():
            raise Finding("bytes", f"{name}: {seen.explain(found, 0)}", ours=self.of_ours(img.key))
        if all(layer.firm for layer in content.layers):
            content.seen(found, made.t0 or 0)

    def of_ours(self, key: int) -> bool:
        """Whether it was not librbd alone that made an image."""
        return self.makers.get(key) != "rbd"

    def _only(self, what: str, size: int, sizes: Callable[[State], list[int]]) -> None:
        """Of the states that may be true those in which something is of that size."""
        fitting = {state for state in self.states if sizes(state) == [size]}
        if not fitting:
            raise Finding(
                "size", f"{what} has {size} bytes, not {sorted({one for state in self.states for one in sizes(state)})}"
            )
        self.states = fitting


def _snap_size(image: int, key: int, state: State) -> list[int]:
    return [one.size for one in state.images[image].snaps if one.key == key]


INTERNAL = frozenset(
    "TypeError AttributeError ValueError IndexError NameError AssertionError RuntimeError UnboundLocalError RecursionError "
    "StopIteration KeyboardInterrupt BaseExceptionGroup InterruptedError UnicodeDecodeError ZeroDivisionError".split()
)


def _of_a_wrong_type(call: Mapping[str, Any]) -> bool:
    """A diff from a snapshot that is given as bytes or a float: a TypeError is the right answer."""
    return call["do"] == "Image.diff_iterate" and any(isinstance(one, float | dict) for one in call["args"][2:3])


class _Churn:
    """Pools that come and go while lanes run."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.names = [f"churn-{next(world.pools)}" for _ in range(count)]
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for name in self.names:
            self.world.admin("osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)

    def __enter__(self) -> None:
        for name in self.names:
            self.world.admin("osd pool create", pool=name, pg_num=1)
            self.world.admin("osd pool application enable", pool=name, app="rbd")
        if self.names:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        if self.names:
            self.thread.join()
