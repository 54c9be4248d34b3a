"""Kills writers of an embedded cluster's file, over and over, and looks at what is left: a program of its own.

    python -m tests.embedded.killing PATH KILLS SEED

Two writers work on the file at any time, each on an object of its own, with compound operations whose parts all tell the
operation's number; now and then a snapshot is made, and written under. A writer says on a pipe what has been acknowledged.
One of them is killed with -9 at a random moment; then a third process opens the file and compares. It is never closed
properly in between. Everything is forked from here, where no cluster is ever opened.
"""

import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from rbd_native import embedded
from rbd_native.embedded.client import Io
from rbd_native.rados.port import GetXattr, OmapGet, OmapRemove, OmapSet, Read, SetXattr, SnapContext, Truncate, Write

ACK = struct.Struct("<QQ")  # number of the operation, and the snapshot that has been made just before it, or 0
EXTENT = 100_000  # some chunks and a part of one
SPAN = 300_000
SNAPSHOTS = 3  # that a writer keeps


class Writer:
    """A child that writes to an object until it is killed."""

    def __init__(self, path: str, oid: str) -> None:
        self.oid = oid
        self._pipe, theirs = os.pipe()
        self.pid = fork(lambda: write_on(path, oid, theirs))
        os.close(theirs)

    def kill(self) -> list[tuple[int, int]]:
        """What it had been told to be done."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        with os.fdopen(self._pipe, "rb") as pipe:
            told = pipe.read()
        return [ACK.unpack_from(told, at) for at in range(0, len(told) - ACK.size + 1, ACK.size)]


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return pid


def steps(number: int) -> list[Any]:
    """An operation of which every part tells the number."""
    fill = number.to_bytes(8, "little")
    return [
        Write(number * 7919 % (SPAN - EXTENT), fill * (EXTENT // 8)),
        Write(SPAN - 8, fill),
        Truncate(SPAN + number % 977),
        SetXattr("number", fill),
        OmapSet({b"number": fill, b"%020d" % number: fill}),
        OmapRemove((b"%020d" % (number - 1),)),
    ]


def check_whole(io: Io, oid: str, snap: int | None = None) -> int:
    """The number that all parts of an object agree on; 0 for no object."""
    snaps = {} if snap is None else {"snap": snap}
    reply = io.read(oid, [Read(0, 0), OmapGet()], **snaps).block()
    if reply.rv == -2:
        return 0
    data, omap = reply.outs
    xattr = io.read(oid, [GetXattr("number")], **snaps).block().outs[0]
    number = int.from_bytes(xattr, "little")
    start = number * 7919 % (SPAN - EXTENT)
    assert len(data) == SPAN + number % 977, "size"
    assert data[start : start + EXTENT] == xattr * (EXTENT // 8), "data"
    assert data[SPAN - 8 : SPAN] == xattr, "the end of the data"
    assert omap.values == {b"number": xattr, b"%020d" % number: xattr}, "omap"
    return number


def write_on(path: str, oid: str, pipe: int) -> None:
    io = embedded.Cluster(path).connect().io(1)
    rng = random.Random()
    number = check_whole(io, oid)
    snaps: list[int] = []
    while True:
        number += 1
        made = 0
        if rng.random() < 0.2:
            made = io.snap_create().block().value
            snaps.append(made)
            if len(snaps) > SNAPSHOTS:
                assert io.snap_remove(snaps.pop(0)).block().rv == 0
        ids = tuple(reversed(snaps))
        context = SnapContext(max(ids, default=0), ids)
        assert io.write(oid, steps(number), snapc=context).block().rv == 0
        os.write(pipe, ACK.pack(number, made))


def check(path: str, oid: str, told: list[tuple[int, int]], thorough: bool) -> None:
    cluster = embedded.Cluster(path)
    io = cluster.connect().io(1)
    number = check_whole(io, oid)
    if told:
        last = told[-1][0]
        assert last <= number <= last + 1, f"acknowledged up to {last}, there is {number}"
        # A snapshot was made after the operation before the one that it was told with.
        for before, made in [(at - 1, made) for at, made in told if made][-(SNAPSHOTS - 1) :]:
            assert check_whole(io, oid, made) == before, f"snapshot {made} of {before}"
    if thorough:
        with cluster.store.read as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def verified(path: str, oid: str, told: list[tuple[int, int]], thorough: bool) -> bool:
    return os.waitpid(fork(lambda: check(path, oid, told, thorough)), 0)[1] == 0


def main(path: str, kills: int, seed: int) -> NoReturn:
    rng = random.Random(seed)
    writers = [Writer(path, f"object-{n}") for n in range(2)]
    operations = 0
    for kill in range(kills):
        time.sleep(rng.choice([0.0, 0.01, 0.03]) + rng.random() * 0.06)
        victim = writers.pop(0)
        told = victim.kill()
        operations += len(told)
        if not verified(path, victim.oid, told, thorough=kill % 20 == 0 or kill == kills - 1):
            for writer in writers:
                writer.kill()
            sys.exit(f"after kill {kill}, with {len(told)} operations acknowledged")
        writers.append(Writer(path, victim.oid))
    for writer in writers:
        operations += len(writer.kill())
    print(operations)
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
