"""A client of an embedded cluster's file in a process of its own: does what it is told, line by line.

    python -m tests.embedded.worker PATH [deaf]

Each line of its input is a JSON list, the name of one of the functions below and its arguments; each line of its output is
the answer. With `deaf` it cannot be woken by other processes, and has to look for itself.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from rbd_native import embedded
from rbd_native.embedded import bell
from rbd_native.rados.port import NotifyReply, OmapCmp, OmapGetByKeys, OmapSet, Read, Write

heard: list[Any] = []
watches: list[Any] = []


def main(path: str, deaf: bool) -> None:
    if deaf:
        bell.make = lambda *_: bell.LocalBell()
    cluster = embedded.Cluster(path)
    connection = cluster.connect()
    verbs = Verbs(connection)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        action: Callable[..., Any] = getattr(verbs, verb)
        print(json.dumps(action(*arguments)), flush=True)
    cluster.close()


class Verbs:
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.io = connection.io(1)

    def who(self) -> Any:
        return self.connection.instance_id(), self.connection.address()

    def write(self, oid: str, text: str) -> int:
        return int(self.io.write(oid, [Write(0, text.encode())]).block().rv)

    def read(self, oid: str) -> Any:
        reply = self.io.read(oid, [Read(0, 0)]).block()
        return reply.outs[0].decode() if reply.rv == 0 else reply.rv

    def watch(self, oid: str, timeout: int) -> int:
        """Answers every notification with the payload in capitals; `heard` tells what came."""
        outcome = self.io.watch(oid, self._answer, lambda code: heard.append(["lost", code]), timeout).block()
        watches.append(outcome.value)
        return int(outcome.rv)

    @staticmethod
    def _answer(client: int, notify: int, payload: bytes) -> bytes:
        heard.append([client, payload.decode()])
        return payload.upper()

    def unwatch(self) -> int:
        return int(watches.pop().close().block().rv)

    def notify(self, oid: str, text: str, timeout_ms: int) -> Any:
        """Return value, answers, clients that did not answer, and how long it took."""
        start = time.monotonic()
        outcome = self.io.notify(oid, text.encode(), timeout_ms).block()
        took = time.monotonic() - start
        reply = outcome.value or NotifyReply([], [])
        acks = [(client, payload.decode()) for client, _, payload in reply.acks]
        return outcome.rv, acks, [client for client, _ in reply.timeouts], took

    def heard(self, count: int, seconds: float) -> Any:
        """What came to the watches, once there is as much as that."""
        end = time.monotonic() + seconds
        while len(heard) < count and time.monotonic() < end:
            time.sleep(0.005)
        return heard

    def add(self, oid: str, times: int) -> int:
        """Add 1 to a number in an omap, that many times, against all others who do. Returns the failed attempts."""
        failed = 0
        while times:
            (found,) = self.io.read(oid, [OmapGetByKeys((b"n",))]).block().outs
            old = found.get(b"n", b"")
            new = str(int(old or b"0") + 1).encode()
            done = self.io.write(oid, [OmapCmp(b"n", old), OmapSet({b"n": new})]).block().rv == 0
            times -= done
            failed += not done
        return failed


if __name__ == "__main__":
    main(sys.argv[1], "deaf" in sys.argv[2:])
