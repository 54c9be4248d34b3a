"""An embedded cluster whose notifications, too, come when a schedule says so.

    cluster = ScheduledCluster(schedule)

Its clients have no threads: looking for what has come, and each callback of a watch, are steps of the schedule
(:mod:`rbd_native.rados.schedule`). Clients live as long as they are not gone: time that passes at once is no silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rbd_native.embedded.cluster import Cluster
from rbd_native.embedded.events import Callbacks, Events, Watch
from rbd_native.rados.schedule import Schedule, Timer

if TYPE_CHECKING:
    from rbd_native.embedded.client import Connection


class ScheduledCluster(Cluster):
    """In memory."""

    def __init__(self, schedule: Schedule, *, pools: tuple[str, ...] = ("rbd",)) -> None:
        self.schedule = schedule
        super().__init__(None, pools=pools)
        schedule.before_time_passes.append(self._all_live)

    def events_of(self, connection: Connection) -> Events:
        return ScheduledEvents(connection, self.schedule)

    def _all_live(self, moment: float) -> None:
        """Those who have watches prove, before so much time passes, that they live, and then again."""
        with self.store.write as db:
            for client in list(self._connections):
                db.execute("UPDATE client SET seen = ? WHERE gid = ?", (time.time() + moment - self.schedule.now, client))

    def close(self) -> None:
        self.schedule.before_time_passes.remove(self._all_live)
        super().close()


class ScheduledEvents(Events):
    """Of one client: its threads are the schedule's steps."""

    def __init__(self, connection: Connection, schedule: Schedule) -> None:
        self._schedule = schedule
        self._client = connection.entity.client
        self._looks = False
        self._again: Timer | None = None
        super().__init__(connection)

    def _new_callbacks(self) -> Callbacks:
        return _ScheduledCallbacks(self._schedule, self._client)

    def resume(self, resume: Callable[[Any], None], value: Any) -> None:
        resume(value)

    def ring(self) -> None:
        with self._guard:
            if self._looks or self._stopping or not self._busy():
                return
            self._looks = True
        self._schedule.later(None, ("look", self._client), self._look_once)

    def _wake(self) -> None:
        self.ring()

    def _look_once(self) -> None:
        self._looks = False
        if self._stopping:
            return
        moment = self._look() - time.time()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._answers:
            self._again = self._schedule.at(
                self._schedule.now + max(moment, 0.001), ("look again", self._client), self.ring
            )

    def _prove_life(self, mine: dict[int, Watch]) -> float:
        return time.time() + 3600.0


class _ScheduledCallbacks(Callbacks):
    """One callback of a client's watches at a time."""

    def __init__(self, schedule: Schedule, client: int) -> None:
        super().__init__()
        self._schedule = schedule
        self._client = client

    def post(self, watch: Watch | None, callback: Callable[[], None]) -> None:
        self._schedule.later(("hears", self._client), ("hears", self._client), lambda: self._call(watch, callback))

    def _call(self, watch: Watch | None, callback: Callable[[], None]) -> None:
        if not self._stopped:
            self._running = watch
            try:
                callback()
            finally:
                self._running = None

    def stop(self) -> None:
        self._stopped = True
