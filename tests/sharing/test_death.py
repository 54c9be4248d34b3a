"""The owner of an image is killed in the middle of writing, and another client takes over.

No write that was acknowledged is lost, whichever of rbd_native and librbd dies; the object map is true, or is flagged as
not to be believed; and the next owner need not wait longer than the cluster needs to notice the death.
"""

import itertools
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rbd_native import embedded
from tests.cluster import CephCluster
from tests.sharing.conftest import WATCH_TIMEOUT
from tests.sharing.ledger import Ledger
from tests.sharing.maps import check_by_librbd, judge
from tests.sharing.players import Player, Refused, players
from tests.sharing.worker import BLOCK, RECORD

ORDER = 16
GRANULE = (1 << ORDER) // BLOCK
BLOCKS = 1024
SIZE = (BLOCKS + GRANULE) * BLOCK  # the last object is for who takes over
FEATURES = 61
# What librbd acknowledges out of its cache may die with it.
OPTIONS = {"rbd_cache": "false"}
ESHUTDOWN = 108
ENOUGH = 50
"""Operations acknowledged before a fight may be disturbed."""
SLACK = 6.0
"""Seconds for a busy machine, and for the monitor to publish who is fenced."""

_numbers = itertools.count()
pytestmark = pytest.mark.timeout(900)


class Duel:
    """An image, its owner, and the one who will take over when that is killed."""

    def __init__(self, owner: Player, heir: Player) -> None:
        number = next(_numbers)
        self.name = f"duel-{number}"
        self.ledger = Ledger(number, BLOCKS, GRANULE)
        self.owner = owner
        self.heir = heir
        self.killed = 0.0
        owner.call("create", self.name, SIZE, ORDER, FEATURES)
        owner.call("open", self.name)
        heir.call("open", self.name)

    def fight(self) -> None:
        self.owner.begin("hammer", self.ledger.seed, self.ledger.next, BLOCKS, 8, 60.0, GRANULE)

    def rage(self) -> None:
        """Until a good part of it is done, however busy the machine is."""
        deadline = time.monotonic() + 30
        acknowledged = 0
        while acknowledged < ENOUGH:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            records = self.owner.recorded()
            whole = len(records) - len(records) % RECORD.size
            acknowledged = sum(done for _, _, done, _ in RECORD.iter_unpack(records[:whole]))

    def give_up(self) -> int | None:
        """What the owner's fight ended with: the errno, None if it was not disturbed."""
        try:
            self.owner.end()
        except Refused as refused:
            return refused.code
        return None

    def kill(self) -> None:
        self.killed = time.monotonic()
        self.ledger.take(self.owner.kill())

    def take_over(self) -> None:
        self.heir.begin("write", b"x" * BLOCK, BLOCKS * BLOCK)

    def taken_over(self) -> float:
        """How many seconds after the death."""
        assert self.heir.end() == BLOCK
        return time.monotonic() - self.killed

    def check(self, onlooker: Any) -> None:
        self.ledger.check(self.heir.call("read", 0, BLOCKS * BLOCK))
        judge(onlooker, self.name, exact=False)

    def end(self, onlooker: Any) -> None:
        """The map is true. Who dies between map and data leaves an entry without an object, which may make librbd's check
        call the map wrong; it is so when only librbd is there, too. So a new one is made, in which librbd keeps those
        entries, but accepts them."""
        assert judge(onlooker, self.name, exact=False) == 0
        self.owner.call("rebuild_object_map")
        self.owner.call("close")
        assert judge(onlooker, self.name, exact=self.owner.client == "ours") == 0


@pytest.mark.ceph
def test_owner_killed(hasty: CephCluster, onlooker: Any, where: dict[str, str], full: bool) -> None:
    names = _kill_owners([("ours", "librbd"), ("librbd", "ours")], where, OPTIONS, onlooker, full)
    for name in names:
        check_by_librbd(hasty, "rbd", name)
        assert judge(onlooker, name, exact=False) == 0


def test_owner_killed_on_a_file(tmp_path: Path, full: bool) -> None:
    file = str(tmp_path / "cluster")
    with embedded.Rados(conf={"embedded_path": file}) as cluster, cluster.open_ioctx("rbd") as ioctx:
        options = {"osd_client_watch_timeout": str(WATCH_TIMEOUT)}
        _kill_owners([("ours", "ours")], {"file": file, "pool": "rbd"}, options, ioctx, full)


def _kill_owners(
    pairs: list[tuple[str, str]], where: dict[str, str], options: dict[str, str], onlooker: Any, full: bool
) -> list[str]:
    """Each heir becomes the next owner to be killed: so the kinds take turns. The names of the images."""
    duels_at_once, rounds = (10, 5 * len(pairs)) if full else (4, 2)
    dice = random.Random(1)
    kinds = list(itertools.chain(*pairs * (duels_at_once // len(pairs))))
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    with players(kinds, where, options) as clients:
        duels = [Duel(owner, heir) for owner, heir in zip(clients[::2], clients[1::2], strict=True)]
        for _ in range(rounds):
            for duel in duels:
                duel.fight()
            time.sleep(0.3)
            for duel in duels:
                time.sleep(dice.random() * 0.1)
                duel.kill()
                duel.take_over()
            for duel in duels:
                took[duel.heir.client].append(duel.taken_over())
            for duel in duels:
                duel.check(onlooker)
                duel.owner, duel.heir = duel.heir, Player(duel.owner.client, where, options)
                clients.append(duel.heir)
            for duel in duels:
                duel.heir.call("open", duel.name)
        for duel in duels:
            assert duel.ledger.acknowledged > 20 * rounds
            duel.end(onlooker)
    for client, seconds in took.items():
        median = sorted(seconds)[len(seconds) // 2]
        print(f"{client} took over {len(seconds)} times, after {median:.1f} s, {max(seconds):.1f} s at most")
        assert max(seconds) < WATCH_TIMEOUT + SLACK
    return [duel.name for duel in duels]


FENCED: list[tuple[Any, ...]] = [
    ("write", b"x", 0),
    ("write", b"x", SIZE - 1),
    ("read", 0, 4),
    ("discard", 0, SIZE),
    ("write_zeroes", 0, BLOCK),
    ("flush",),
    ("resize", SIZE // 2),
    ("create_snap", "snap"),
    ("metadata_set", "key", "value"),
    ("metadata_get", "key"),
    ("update_features", 16, False),
    ("rebuild_object_map",),
    ("sparsify", 4096),
    ("items", "lock_get_owners"),
    ("lock_acquire", 0),
    ("is_exclusive_lock_owner",),
]


@pytest.mark.ceph
@pytest.mark.parametrize("heir", ["ours", "librbd"])
def test_fenced(hasty: CephCluster, onlooker: Any, where: dict[str, str], heir: str) -> None:
    """A client on the blocklist can do nothing more, and does no harm."""
    with players(["ours", heir], where, OPTIONS) as (victim, other):
        duel = Duel(victim, other)
        duel.fight()
        duel.rage()
        (owner,) = other.call("items", "lock_get_owners")
        hasty.cli("ceph", "osd", "blocklist", "add", owner["owner"])
        assert duel.give_up() == ESHUTDOWN
        for attempt in FENCED:
            with pytest.raises(Refused, match="ConnectionShutdown") as caught:
                victim.call(*attempt)
            assert caught.value.code == ESHUTDOWN, attempt
        assert victim.call("size") == SIZE, "what it knows it tells"
        duel.ledger.take(victim.recorded())
        duel.take_over()
        duel.taken_over()
        duel.check(onlooker)
        victim.call("close")
        assert duel.ledger.acknowledged >= ENOUGH
        assert other.call("size") == SIZE
        assert other.call("items", "list_snaps") == other.call("items", "metadata_list") == []
        duel.check(onlooker)


@pytest.mark.ceph
def test_asleep_too_long(onlooker: Any, where: dict[str, str]) -> None:
    """The owner is stopped in mid-write, and wakes up when another has taken over: what it then still sends is refused.
    Two at the same time, with an heir of each kind."""
    with players(["ours", "ours", "ours", "librbd"], where, OPTIONS) as clients:
        duels = [Duel(clients[0], clients[1]), Duel(clients[2], clients[3])]
        for duel in duels:
            duel.fight()
        for duel in duels:
            duel.rage()
        for duel in duels:
            duel.owner.signal(signal.SIGSTOP)
            duel.killed = time.monotonic()
            duel.take_over()
        for duel in duels:
            assert duel.taken_over() < WATCH_TIMEOUT + SLACK
        before = []
        for duel in duels:
            duel.ledger.take(duel.owner.recorded())
            before.append(duel.heir.call("digest"))
            duel.check(onlooker)
        for duel in duels:
            duel.owner.signal(signal.SIGCONT)
        for duel in duels:
            assert duel.give_up() == ESHUTDOWN
            with pytest.raises(Refused, match="ConnectionShutdown"):
                duel.owner.call("write", b"x", 0)
        time.sleep(1)
        for duel, digest in zip(duels, before, strict=True):
            assert duel.heir.call("digest") == digest
            duel.heir.call("write", b"more", BLOCKS * BLOCK)
            duel.check(onlooker)
            assert duel.heir.call("flags") == 0


@pytest.mark.ceph
def test_asleep_alone(onlooker: Any, where: dict[str, str]) -> None:
    """The owner is stopped for so long that it loses its watch, but nobody wants its lock: it goes on under another watch,
    by which it is known to be alive."""
    with players(["ours"], where, OPTIONS) as (owner,):
        owner.call("create", "asleep", SIZE, ORDER, FEATURES)
        owner.call("open", "asleep")
        owner.call("write", b"data", 0)
        (before,) = owner.call("items", "watchers_list")
        owner.signal(signal.SIGSTOP)
        time.sleep(WATCH_TIMEOUT + 2)
        owner.signal(signal.SIGCONT)
        time.sleep(2)
        owner.call("write", b"DATA", 0)
        owner.call("write", b"more", SIZE - 4)
        assert owner.call("is_exclusive_lock_owner")
        (after,) = owner.call("items", "watchers_list")
        assert after["cookie"] != before["cookie"]
        with players(["librbd"], where, OPTIONS) as (other,):
            other.call("open", "asleep")
            began = time.monotonic()
            other.call("write", b"mine", 0)
            assert time.monotonic() - began < 2, "it was given up for the asking"
            other.call("close")
        owner.call("write", b"back", 0)
        owner.call("close")
        assert judge(onlooker, "asleep", exact=True) == 0
