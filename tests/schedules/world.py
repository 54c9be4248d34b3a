"""One cluster and its clients under one schedule: all of a story, and how stories are tried, replayed and shortened."""

import contextlib
import random
import secrets
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple
from unittest import mock

import rbd_native as rbd
from rbd_native.api.image import _images
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

    def __init__(self, seed: int, held: Collection[int] | None = None) -> None:
        self.schedule = Schedule(seed, patience=0.5, latest=600.0, held=held)
        self.dice = random.Random(f"story {seed}")
        self._ids = random.Random(f"ids {seed}")
        self._clients = contextlib.ExitStack()
        self.first: Any = None
        """An ioctx that a story may keep here."""
        self.of_interest: tuple[int, int] | None = None
        """Which steps are worth holding back, by their places; None: all."""

    @contextlib.contextmanager
    def entered(self) -> Iterator["World"]:
        with (
            mock.patch.object(secrets, "randbits", self._ids.getrandbits),
            Virtual(self.schedule).clocks(),
            self.schedule.conducting(),
            ScheduledCluster(self.schedule) as self.cluster,
            self._clients,
        ):
            try:
                yield self
            finally:
                for image in list(_images):
                    image.closed = True  # where the story ended early: nobody is to close it in the next one

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

    def fenced(self) -> list[str]:
        """The addresses of clients that others have taken for dead."""
        with self.cluster.store.read as db:
            return [address for (address,) in db.execute("SELECT address FROM blocklist")]


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


class Telling(NamedTuple):
    """How a story went. `held`: the numbers of the steps that were held back, None where the seed drew everything.
    `numbers`: of its steps that are of interest, in their order. `error`: None where all was well."""

    seed: int
    held: tuple[int, ...] | None
    error: Exception | None
    numbers: list[int]
    told: str


def tell(story: Story, seed: int, held: tuple[int, ...] | None = None) -> Telling:
    """One telling."""
    world = World(seed, held)
    error = None
    with world.entered():
        try:
            story(world)
        except Exception as caught:
            error = caught
        schedule = world.schedule
        first, end = world.of_interest or (0, schedule.steps)
        return Telling(seed, held, error, schedule.numbers[first:end], schedule.told())


def find(story: Story, schedules: int, first: int = 0) -> tuple[Telling | None, int]:
    """The first schedule that goes wrong, and how many were tried."""
    for number in range(schedules):
        telling = tell(story, first + number)
        if telling.error is not None:
            return telling, number + 1
    return None, schedules


def each_held(story: Story, seed: int, width: int = 1) -> Iterator[Telling]:
    """Tell a story in which all comes in its order, and then again with each run of `width` steps held back in turn."""
    straight = tell(story, seed, ())
    yield straight
    numbers = straight.numbers
    for place in range(0, len(numbers), width):
        yield tell(story, seed, tuple(numbers[place : place + width]))


def shorten(story: Story, seed: int) -> Telling | None:
    """The same story going wrong with one step held back, or a few that follow each other, and all else in its order; None
    where that is not enough."""
    for width in (1, 2, 4, 8):
        for telling in each_held(story, seed, width):
            if telling.error is not None:
                return telling
    return None
