"""Clients in processes of their own, driven by the test: see :mod:`tests.sharing.worker`."""

import contextlib
import os
import pickle
import select
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tests.sharing.nursery import nursery
from tests.sharing.worker import LENGTH

PATIENCE = 90.0
"""Seconds after which a client that does not answer is stuck."""

class Refused(Exception):
    """What the client's call raised: the class of its exception, and the errno."""

    def __init__(self, client: str, kind: str, code: int | None, words: str) -> None:
        super().__init__(f"{client}: {kind}: {words}")
        self.kind = kind
        self.code = code


class Player:
    """One client. `client`: "librbd" or "ours". Its standard error is a file, `notes`; so are the `records` of a hammer."""

    def __init__(self, client: str, where: dict[str, str], options: dict[str, str] | None = None) -> None:
        self.client = client
        self.notes: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by kill)
        self.records: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        its_input, mine = os.pipe()
        yours, its_output = os.pipe()
        self._asked = os.fdopen(mine, "wb")
        self._answers = os.fdopen(yours, "rb")
        setup = {"client": client, "options": options or {}, **where}
        self.process = nursery().bear(setup, its_input, its_output, self.notes.fileno(), self.records.fileno())
        os.close(its_input)
        os.close(its_output)

    def begin(self, method: str, *arguments: Any) -> None:
        """Ask for something; :meth:`end` gives what came of it."""
        raw = pickle.dumps((method, arguments))
        self._asked.write(LENGTH.pack(len(raw)) + raw)
        self._asked.flush()

    def end(self) -> Any:
        stream = self._answers
        if not select.select([stream], [], [], PATIENCE)[0]:
            self.signal(signal.SIGUSR1)  # it notes where its threads are
            time.sleep(1)
            raise TimeoutError(f"{self.client} does not answer: {self.noted()[-8000:].decode('utf-8', 'replace')}")
        head = stream.read(LENGTH.size)
        if len(head) < LENGTH.size:
            raise EOFError(f"{self.client} is gone: {self.noted()[-4000:].decode('utf-8', 'replace')}")
        outcome, *rest = pickle.loads(stream.read(*LENGTH.unpack(head)))
        if outcome == "error":
            raise Refused(self.client, *rest)
        return rest[0]

    def call(self, method: str, *arguments: Any) -> Any:
        self.begin(method, *arguments)
        return self.end()

    def noted(self) -> bytes:
        """What it wrote to its standard error so far."""
        return os.pread(self.notes.fileno(), 1 << 30, 0)

    def recorded(self) -> bytes:
        """The records of its hammer so far."""
        return os.pread(self.records.fileno(), 1 << 30, 0)

    def signal(self, number: int) -> None:
        self.process.signal(number)

    def kill(self) -> bytes:
        """With -9, and wait until it is gone; the records of its hammer."""
        self.process.kill()
        recorded = self.recorded()
        for stream in (self._asked, self._answers, self.notes, self.records):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        return recorded


@contextlib.contextmanager
def players(clients: Iterable[str], where: dict[str, str], options: dict[str, str] | None = None) -> Iterator[list[Player]]:
    """One for each name. They are started together, and killed at the end."""
    started: list[Player] = []
    try:
        for client in clients:
            started.append(Player(client, where, options))
        for player in started:
            player.call("instance")
        yield started
    finally:
        for player in started:
            if player.process.alive:
                player.kill()
