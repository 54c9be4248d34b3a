"""Children that tests fork, and what they have to say."""

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from rbd_native.embedded.client import Io
from rbd_native.rados.port import OmapGetByKeys, OmapSet

PATIENCE = 60.0  # seconds that a child has: only one that hangs needs them


class Child:
    """A forked child that does `work`; what that returns, or raises, comes as JSON."""

    def __init__(self, work: Callable[[], Any], fork: Callable[[], int] = os.fork) -> None:
        self._pipe, theirs = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            os.close(self._pipe)
            try:
                answer = work()
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            try:
                os.write(theirs, json.dumps(answer).encode())
            except BrokenPipeError:
                answer = None  # nobody wants to know
            finally:
                os._exit(0)
        os.close(theirs)

    def result(self) -> Any:
        """AssertionError for one that hangs or dies."""
        ready, _, _ = select.select([self._pipe], [], [], PATIENCE)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        with os.fdopen(self._pipe) as pipe:
            told = pipe.read()
        os.waitpid(self.pid, 0)
        assert told, "the child said nothing"
        return json.loads(told)

    def result_or_nothing(self) -> None:
        """Its end, whatever it says."""
        os.close(self._pipe)
        os.waitpid(self.pid, 0)


def in_child(work: Callable[[], Any]) -> Any:
    return Child(work).result()


def put(io: Io, oid: str, first: int, count: int) -> int:
    """Add so many keys to an object's omap, one operation each; how many were acknowledged."""
    told = 0
    for number in range(first, first + count):
        told += io.write(oid, [OmapSet({b"%06d" % number: b"x"})]).block().rv == 0
    return told


def missing(io: Io, oid: str, first: int, count: int) -> list[bytes]:
    """Which of those keys are not there."""
    keys = [b"%06d" % number for number in range(first, first + count)]
    reply = io.read(oid, [OmapGetByKeys(tuple(keys))]).block()
    found = reply.outs[0] if reply.rv == 0 else {}
    return [key for key in keys if key not in found]


def descriptors() -> dict[int, str]:
    """What this process has open, by the descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:  # the one that the list was read with
            continue
    return found
