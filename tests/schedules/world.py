"""One cluster and its clients under one schedule: all of a story, and how stories are tried, replayed and shortened."""

import contextlib
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import rbd_native as rbd
from rbd_native.embedded import watches
from rbd_native.embedded.scheduled import ScheduledCluster
from rbd_native.rados.faults import Faults, Predicate, anything
from rbd_native.rados.schedule import Job, Schedule
from rbd_native.rados.wrapper import wrap
from tests.scheduling import ScheduledIoctx, ScheduledRados, Virtual

OBJECT = 4 << 20
PLAIN = {"rbd_cache": "false"}
CACHED = {"rbd_cache": "true", "rbd_cache_writethrough_until_flush": "false"}


class TroubledIoctx(ScheduledIoctx):
    """An ioctx of a client some of whose operations go wrong."""

    faults: Faults

    @property
    def rbd_native_port(self) -> Any:
        return wrap(super().rbd_native_port, self.faults)


class World:
    """`dice`: for what the story itself draws."""

    def __init__(self, seed: int, choices: Sequence[int] | None = None) -> None:
        self.schedule = Schedule(seed, patience=0.5, latest=600.0, choices=choices)
        self.dice = random.Random(f"story {seed}")
        self._ids = random.Random(f"ids {seed}")
        self._clients = contextlib.ExitStack()

    @contextlib.contextmanager
    def entered(self) -> Iterator["World"]:
        with (
            mock.patch.object(secrets, "randbits", self._ids.getrandbits),
            Virtual(self.schedule).clocks(),
            self.schedule.conducting(),
            ScheduledCluster(self.schedule) as self.cluster,
            self._clients,
        ):
            yield self

    def connect(self, **conf: str) -> ScheduledRados:
        client = ScheduledRados(self.schedule, cluster=self.cluster, conf={**PLAIN, **conf})
        client.connect()
        self._clients.callback(client.shutdown)
        return client

    def ioctx(self, **conf: str) -> Any:
        """Of a new client."""
        return self.connect(**conf).open_ioctx("rbd")

    def troubled(self, counted: Predicate = anything, **conf: str) -> tuple[Any, Faults]:
        """Of a new client whose operations may be made to go wrong."""
        client = self.connect(**conf)
        ioctx = TroubledIoctx(client, "rbd", client.open_ioctx("rbd")._io)
        ioctx.faults = Faults(counted)
        return ioctx, ioctx.faults

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Job:
        """In a thread of its own; what is done at the same time is in any order."""
        return self.schedule.begin(lambda: function(*arguments))

    def lose_watches(self, ioctx: Any) -> None:
        """Those of a client, as when its connection to the OSDs was gone for too long."""
        connection = ioctx.rados._client()
        with self.cluster.store.write as db:
            for cookie in watches.cookies(db, connection.entity.client):
                watches.remove(db, connection.entity.client, cookie)
        connection.events.ring()


def outcome(job: Job) -> Any:
    """What it returned, or the error of this library that it raised."""
    try:
        return job.result()
    except rbd.Error as error:
        return error


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """The same of a call."""
    try:
        return function(*arguments)
    except rbd.Error as error:
        return error


def create(ioctx: Any, objects: int, features: int, name: str = "image") -> None:
    """An image of so many objects."""
    rbd.RBD().create(ioctx, name, objects * OBJECT, 22, features=features, old_format=False)


Story = Callable[[World], None]


class Found(NamedTuple):
    """A schedule under which a story goes wrong. `choices`: what is to be given to have it again."""

    seed: int
    choices: list[int]
    error: BaseException
    told: str


def tell(story: Story, seed: int, choices: Sequence[int] | None = None) -> Found | None:
    """One telling; None where all is well."""
    world = World(seed, choices)
    try:
        with world.entered():
            try:
                story(world)
            finally:
                told, chosen = world.schedule.told(), list(world.schedule.chosen)
    except Exception as error:
        return Found(seed, chosen, error, told)
    return None


def find(story: Story, schedules: int, first: int = 0) -> tuple[Found | None, int]:
    """The first schedule that goes wrong, and how many were tried."""
    for number in range(schedules):
        found = tell(story, first + number)
        if found is not None:
            return found, number + 1
    return None, schedules


def shorten(story: Story, found: Found, tries: int = 300) -> Found:
    """The same failure with as few choices as can be found that are not the oldest step."""
    choices = list(found.choices)

    def fails(candidate: list[int]) -> Found | None:
        again = tell(story, found.seed, candidate)
        return again if again is not None and type(again.error) is type(found.error) else None

    best = found
    size = len(choices)
    while size and tries:
        place = 0
        while place < len(choices) and tries:
            candidate = [*choices[:place], *([0] * len(choices[place : place + size])), *choices[place + size :]]
            if any(choices[place : place + size]):
                tries -= 1
                again = fails(candidate)
                if again is not None:
                    choices, best = candidate, again._replace(choices=candidate)
            place += size
        size //= 2
    while choices and not choices[-1]:
        choices.pop()
    return best._replace(choices=choices)
