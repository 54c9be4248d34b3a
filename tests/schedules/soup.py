"""Anything at once: several clients and threads, each with its own object, snapshots, sizes, lost watches and lost answers.

What must hold: what was acknowledged and flushed is there; a snapshot that was taken never changes; all calls end; the next
client can write.
"""

import errno
from typing import Any

import rbd_native as rbd
from rbd_native.rados.faults import anything
from tests.schedules.world import CACHED, OBJECT, PLAIN, World, attempt, create, outcome
from tests.sharing.maps import judge

BLOCK = 4096
THREADS = 3


def _look(ioctx: Any, snapshot: str | None) -> tuple[bytes, ...]:
    with rbd.Image(ioctx, "image", snapshot=snapshot, read_only=True) as image:
        return tuple(image.read(number * OBJECT, 1) for number in range(THREADS))


def soup(world: World) -> None:
    dice = world.dice
    features = dice.choice((1, 5, 13, 61))
    # Without a lock, writes of others that are under way go into a snapshot: one client, then.
    clients = [world.troubled(anything, **dice.choice((PLAIN, CACHED))) for _ in range(2 if features > 1 else 1)]
    create(clients[0][0], THREADS + 2, features)
    images = [rbd.Image(ioctx, "image") for ioctx, _ in clients]
    looker = world.ioctx()
    taken: dict[str, tuple[bytes, ...]] = {}
    sure: dict[int, set[bytes]] = {}
    lost: list[int] = []

    def work(number: int) -> None:
        image = images[number % len(images)]
        possible: set[bytes] = {b"\0"}
        for turn in range(6):
            verb = dice.choice(("write", "write", "write", "flush", "snap", "grow", "remove", "trouble", "lose"))
            byte = bytes([65 + number * 8 + turn])
            if verb == "write":
                possible.add(byte)
                if attempt(image.write, byte * BLOCK, number * OBJECT) == BLOCK and attempt(image.flush) is None:
                    possible = {byte}
            elif verb == "flush":
                attempt(image.flush)
            elif verb == "snap":
                name = f"{number}-{turn}"
                if attempt(image.create_snap, name) is None:
                    taken[name] = _look(looker, name)
            elif verb == "grow":
                attempt(image.resize, (THREADS + dice.randrange(4)) * OBJECT)
            elif verb == "remove" and taken:
                name = dice.choice(sorted(taken))
                del taken[name]
                attempt(image.remove_snap, name)
            elif verb == "trouble":
                faults = clients[number % len(clients)][1]
                faults.fail(errno.ETIMEDOUT, at=faults.sent + dice.randrange(6), sent=dice.random() < 0.5)
            elif verb == "lose":
                lost.append(number)
                world.lose_watches(clients[number % len(clients)][0])
        sure[number] = possible

    for job in [world.begin(work, number) for number in range(THREADS)]:
        outcome(job)
    for image in images:
        attempt(image.close)
    assert lost or not world.fenced(), "a client that lives, and whose watch was there all the time, was fenced"
    for name, before in taken.items():
        assert _look(looker, name) == before, name
    head = _look(looker, None)
    assert all(head[number] in sure[number] for number in range(THREADS)), (head, sure)
    if features & rbd.RBD_FEATURE_OBJECT_MAP:
        judge(looker, "image", exact=False)
    with rbd.Image(world.ioctx(), "image") as image:
        assert image.write(b"z" * BLOCK, 0) == BLOCK
