"""How those who wait for something in the store are woken.

Within a cluster in memory a bell is an event of this process. Where other processes share the file, it is a datagram
socket whose abstract name (Linux: there is no file to leave behind) follows from the cluster's and the client's id; what is
sent carries nothing. A ring that is lost costs only time: who waits looks at the file every POLL seconds as well.
"""

from __future__ import annotations

import sys
from typing import Final, Protocol

from rbd_native.native import socket, threading

POLL: Final = 0.05
"""Seconds between two looks at a file that other processes may have changed."""


class Bell(Protocol):
    def ring(self) -> None:
        """From any thread of this process."""

    def wait(self, seconds: float) -> bool:
        """Until it rings, or rang since the last time, or the time is over. Whether it rang."""

    def close(self) -> None: ...


class LocalBell:
    """Within this process."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        rang = self._event.wait(seconds)
        self._event.clear()
        return rang

    def close(self) -> None:
        """Nothing is held."""


class SocketBell:
    """Of one client of a cluster in a file."""

    def __init__(self, fsid: str, client: int) -> None:
        self._name = _name(fsid, client)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(self._name)
        except OSError:
            self._socket.close()
            raise

    def ring(self) -> None:
        _send(self._name)

    def wait(self, seconds: float) -> bool:
        rang = False
        self._socket.settimeout(seconds)
        try:
            while self._socket.recv(1):
                rang = True
                self._socket.settimeout(0.0)  # the rest of the queue, too
        except (TimeoutError, BlockingIOError):
            return rang
        return rang

    def close(self) -> None:
        self._socket.close()


def make(fsid: str | None, client: int) -> Bell:
    """The bell of a client; `fsid` None for a cluster in memory."""
    if fsid is None or sys.platform != "linux":
        return LocalBell()
    try:
        return SocketBell(fsid, client)
    except OSError:  # no such sockets here: others are found out about by looking
        return LocalBell()


def ring_elsewhere(fsid: str, client: int) -> None:
    """Wake a client in another process, if it listens."""
    if sys.platform == "linux":
        _send(_name(fsid, client))


def _name(fsid: str, client: int) -> bytes:
    return f"\0rbd_native/{fsid}/{client}".encode()


def _send(name: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(b"!", name)
        except OSError:  # nobody listens, or it has been rung so often that its queue is full
            return
