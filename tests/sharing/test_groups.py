"""Snapshots of a group of images on two pools that clients of either kind write to all the time: each is of one moment.

What a snapshot of the group has is a prefix of what each writer has written, record after record over all images: it is so
when read at the members' snapshots, and again once the group was rolled back to it. The prefix is no shorter than what was
acknowledged before the snapshot was begun, and no longer than what was begun before it was done.
"""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rbd_native.constants import RBD_GROUP_SNAP_STATE_COMPLETE
from tests.sharing.conftest import Arena
from tests.sharing.players import Player, players
from tests.sharing.scribe import Desk, prefix
from tests.sharing.worker import _connect

FEATURES = 61
SLOTS = 128
POOLS = ("rbd", "rbd-more")
GROUP = ("rbd", "group")


@pytest.fixture
def cluster(arena: Arena) -> Iterator[Any]:
    """A client of the test's own, on a cluster with a second pool."""
    client = _connect(arena.where.get("conf", ""), arena.where.get("file", ""), {})
    if POOLS[1] not in client.list_pools():
        client.create_pool(POOLS[1])
    yield client
    client.shutdown()


class Load:
    """Writers, one of each kind, and others, one of each kind, who take the snapshots."""

    def __init__(self, clients: list[Player], desk: Desk, room: Path) -> None:
        self.desk = desk
        self.writers, self.takers = clients[:2], clients[2:]
        self.reached = [0] * len(self.writers)
        self._before = [0] * len(self.writers)
        self._room = room
        self._periods = itertools.count()
        for writer in self.writers:
            writer.call("desk", *desk)

    def begin(self) -> None:
        self._stop = self._room / f"stop-{next(self._periods)}"
        for place, writer in enumerate(self.writers):
            self._before[place] = self._size(writer) - 2 * self.reached[place]
            writer.begin("write_records", place, self.reached[place], str(self._stop))

    def end(self) -> None:
        self._stop.touch()
        self.reached = [writer.end() for writer in self.writers]

    @staticmethod
    def _size(writer: Player) -> int:
        return os.fstat(writer.records.fileno()).st_size

    def done(self) -> list[int]:
        """How many records each has had acknowledged."""
        return [(self._size(writer) - before) // 2 for writer, before in zip(self.writers, self._before, strict=True)]

    def begun(self) -> list[int]:
        return [(self._size(writer) - before + 1) // 2 for writer, before in zip(self.writers, self._before, strict=True)]

    def wait_for_more(self, number: int) -> None:
        """Until each has written so many more: that they still do."""
        wanted = [done + number for done in self.done()]
        deadline = time.monotonic() + 60
        while any(done < want for done, want in zip(self.done(), wanted, strict=True)):
            assert time.monotonic() < deadline, "a writer is stuck"
            time.sleep(0.005)

    def found(self, reader: Player, snaps: list[int | None]) -> list[int]:
        """How many records of each writer there are. AssertionError where they are not the first so many."""
        where = [(pool, name, snap) for (pool, name), snap in zip(self.desk.images, snaps, strict=True)]
        contents = reader.call("contents", where)
        return [prefix(self.desk, place, contents) for place in range(len(self.writers))]


@pytest.mark.parametrize("order", [16])
def test_every_snapshot_is_of_one_moment(arena: Arena, cluster: Any, full: bool, tmp_path: Path, order: int) -> None:
    periods, each = (10, 5) if full else (2, 1)
    desk = Desk([(POOLS[number % 2], f"member-{number}") for number in range(8)], SLOTS, 2)
    with players(arena.kinds * 2, arena.where, arena.options) as clients:
        _make(cluster, desk, order)
        load = Load(clients, desk, tmp_path)
        turns = itertools.cycle(load.takers)
        times: list[float] = []
        for period in range(periods):
            load.begin()
            taken = [_take(load, [next(turns)], f"snap-{period}-{number}", times) for number in range(each)]
            taken.append(_take(load, load.takers, f"both-{period}", times))
            load.end()
            for names, low, high in taken:
                for name in names:
                    _judge(load, turns, name, low, high)
                    next(turns).call("group", *GROUP, "remove_snap", name)
            next(turns)  # or each would have the same part in every period
        for kind in arena.kinds if full else ():
            _after_a_death(arena, load, kind, tmp_path)
        report = ", ".join(f"{seconds:.2f}" for seconds in times)
        print(f"\nsnapshots, of each period the last by two clients at once, in s: {report}; records: {load.reached}")
        for writer in load.writers:
            writer.call("leave_desk")
        for client in clients:
            assert client.noted() == b"", client.client
    _remove(cluster, desk)


def _take(load: Load, takers: list[Player], name: str, times: list[float]) -> tuple[list[str], list[int], list[int]]:
    """A snapshot by each taker, at once: each then waits for locks that the others have. Their names, and how many records
    of each writer must be in them, at least and at most."""
    load.wait_for_more(20)
    low, began = load.done(), time.monotonic()
    names = [f"{name}-{place}" for place in range(len(takers))]
    for taker, one in zip(takers, names, strict=True):
        taker.begin("group", *GROUP, "create_snap", one)
    for taker in takers:
        taker.end()
    times.append(time.monotonic() - began)
    return names, low, load.begun()


def _judge(load: Load, turns: Iterator[Player], name: str, low: list[int], high: list[int]) -> None:
    reader = next(turns)
    found = load.found(reader, _parts(load, name))
    for least, count, most in zip(low, found, high, strict=True):
        assert least <= count <= most, (name, low, found, high)
    next(turns).call("group", *GROUP, "rollback_to_snap", name)
    assert load.found(reader, [None] * 8) == found, name
    load.reached = found  # the writers go on from there


def _after_a_death(arena: Arena, load: Load, kind: str, room: Path) -> None:
    """A writer is killed, and the locks that it has are taken from it. (It caches nothing: that would be lost.)"""
    for taker in load.takers:
        first = load.reached[0]
        with players([kind], arena.where, arena.options) as (victim,):
            victim.call("desk", *load.desk, False)
            victim.begin("write_records", 0, first, str(room / "never"))
            while len(victim.recorded()) < 50:
                time.sleep(0.005)
            written = len(victim.kill())
        taker.call("group", *GROUP, "create_snap", "death")
        found = load.found(taker, _parts(load, "death"))
        assert first + written // 2 <= found[0] <= first + (written + 1) // 2
        taker.call("group", *GROUP, "rollback_to_snap", "death")
        assert load.found(taker, [None] * 8) == found
        taker.call("group", *GROUP, "remove_snap", "death")
        load.reached = found


def _parts(load: Load, name: str) -> list[int | None]:
    """The ids of the members' snapshots."""
    ours = next(taker for taker in load.takers if taker.client == "ours")
    info = ours.call("group", *GROUP, "get_snap_info", name)
    assert info["state"] == RBD_GROUP_SNAP_STATE_COMPLETE
    ids = {part["image_name"]: part["snap_id"] for part in info["image_snaps"]}
    return [ids[image] for _, image in load.desk.images]


def _make(cluster: Any, desk: Desk, order: int) -> None:
    import rbd_native as rbd

    with cluster.open_ioctx(GROUP[0]) as home:
        rbd.RBD().group_create(home, GROUP[1])
        for pool, name in desk.images:
            with cluster.open_ioctx(pool) as ioctx:
                rbd.RBD().create(ioctx, name, desk.size, order, features=FEATURES)
                rbd.Group(home, GROUP[1]).add_image(ioctx, name)


def _remove(cluster: Any, desk: Desk) -> None:
    import rbd_native as rbd

    with cluster.open_ioctx(GROUP[0]) as home:
        rbd.RBD().group_remove(home, GROUP[1])
    for pool, name in desk.images:
        with cluster.open_ioctx(pool) as ioctx:
            rbd.RBD().remove(ioctx, name)
