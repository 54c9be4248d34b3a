"""Finding watchers where they cannot be listed: by a notification that every client of an image answers."""

from __future__ import annotations

from typing import Final

from rbd_native.rados.composed import ComposedOperation
from rbd_native.rados.port import Io, NotifyReply, Operation, RadosError, Reply, Watcher

_HEADER_UPDATE: Final = bytes.fromhex("07010400000003000000")
"""Says that the header has changed: harmless where it has not, and acknowledged by all."""

_TIMEOUT_MS: Final = 5000


def find_watchers(io: Io, oid: str) -> Operation:
    """Output: list of Watcher without addresses and timeouts, for the protocol tells neither."""

    async def find() -> Reply:
        try:
            found: NotifyReply = await io.notify(oid, _HEADER_UPDATE, _TIMEOUT_MS)
        except RadosError as error:
            return Reply(-error.errno)
        known = [(client, cookie) for client, cookie, _ in found.acks] + found.timeouts
        return Reply(0, ([Watcher("", client, cookie, 0) for client, cookie in known],))

    return ComposedOperation(oid, find)
