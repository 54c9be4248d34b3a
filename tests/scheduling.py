"""Embedded clusters under a schedule: `pytest --schedule SEED`.

All embedded clients of the session share one schedule (:mod:`rbd_native.rados.schedule`), and with it the time: answers
come after the call has returned, notifications late, sleeps take no time. Each test begins with the seed and its own name.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from rbd_native import embedded
from rbd_native.embedded.rados_ioctx import Ioctx
from rbd_native.embedded.scheduled import ScheduledCluster
from rbd_native.rados import port
from rbd_native.rados.schedule import Schedule
from rbd_native.rados.wrapper import WrappedCluster, WrappedIo

PATIENCE = 20.0
"""Seconds that a thread of a test's own may take."""


class ScheduledIoctx(Ioctx):
    """What rbd_native asks of it is scheduled; what the test itself asks is done at once."""

    @property
    def rbd_native_port(self) -> port.Io:
        self.require_ioctx_open()
        rados: Any = self.rados
        return WrappedIo(rados.rbd_native_port, self._io, rados.schedule)

    def dup(self) -> Ioctx:
        self.require_ioctx_open()
        return ScheduledIoctx(self.rados, self.name, self._io)


class ScheduledRados(embedded.Rados):
    """A client of a scheduled cluster."""

    def __init__(self, schedule: Schedule, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.schedule = schedule
        self._wrapped: WrappedCluster | None = None

    @property
    def rbd_native_port(self) -> Any:
        if self._wrapped is None:
            self._wrapped = WrappedCluster(self._client(), self.schedule)
        self._client()
        return self._wrapped

    def open_ioctx(self, ioctx_name: str) -> Ioctx:
        return self._scheduled(super().open_ioctx(ioctx_name))

    def open_ioctx2(self, pool_id: int) -> Ioctx:
        return self._scheduled(super().open_ioctx2(pool_id))

    def _scheduled(self, ioctx: Ioctx) -> Ioctx:
        return ScheduledIoctx(self, ioctx.name, ioctx._io)


class Virtual:
    """Python's clocks, as a schedule has the time. They never go back from one schedule of the process to the next."""

    ahead = 0.0

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._start = time.time() + Virtual.ahead
        self._start_monotonic = time.monotonic() + Virtual.ahead
        self._ticks = itertools.count()

    def since(self) -> float:
        """Seconds since it began. Each look takes a microsecond: what is done later has a later time."""
        return self._schedule.now + next(self._ticks) * 1e-6

    @contextlib.contextmanager
    def clocks(self) -> Iterator[None]:
        """Meanwhile, this is the time."""
        clocks: dict[str, Callable[..., Any]] = {
            "time": lambda: self._start + self.since(),
            "time_ns": lambda: int((self._start + self.since()) * 1e9),
            "monotonic": lambda: self._start_monotonic + self.since(),
            "sleep": self._schedule.pass_time,
        }
        with contextlib.ExitStack() as patches:
            for name, clock in clocks.items():
                patches.enter_context(mock.patch.object(time, name, clock))
            try:
                yield
            finally:
                Virtual.ahead += self.since()


class Scheduling:
    """The schedule of a session. Clocks and blocking calls are its own only while one of its clusters is there."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._open = 0
        self._installed = contextlib.ExitStack()
        self.schedule = Schedule(seed, patience=PATIENCE)

    def begin(self, test: str) -> None:
        self.schedule.reseed(f"{self._seed} {test}")

    @contextlib.contextmanager
    def cluster(self) -> Iterator[tuple[ScheduledCluster, Callable[..., ScheduledRados]]]:
        """A new cluster in memory, without pools, and how to make a client of it that is not yet connected."""
        if not self._open:
            self._installed.enter_context(Virtual(self.schedule).clocks())
            self._installed.enter_context(self.schedule.conducting())
        self._open += 1
        try:
            shared = ScheduledCluster(self.schedule, pools=())
            yield shared, lambda **conf: ScheduledRados(self.schedule, cluster=shared, conf=conf)
        finally:
            self._open -= 1
            if not self._open:
                self._installed.close()


current: Scheduling | None = None
"""Of this session: set by `--schedule`."""
