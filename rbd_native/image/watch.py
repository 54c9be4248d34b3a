"""The watch of an open image: how it hears of what other clients do, and how it comes back when it was lost.

A callback may not wait, so it only answers, marks the state stale, and leaves the rest to tasks. A watch that is lost is
registered again at once, and again every few seconds while that fails; until then the image counts as stale, so no
operation begins on what may have changed unheard.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rbd_native.encoding import DecodeError
from rbd_native.engine import Mutex
from rbd_native.rados.port import RadosError, Watch
from rbd_native.watch_notify import (
    AcquiredLock,
    AsyncComplete,
    AsyncProgress,
    ClientId,
    HeaderUpdate,
    Message,
    Quiesce,
    ReleasedLock,
    RequestLock,
    Unquiesce,
    decode_message,
    response,
)

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

_RETRY_SECONDS = 2.0
_NOTHING = b""

log = logging.getLogger(__name__)


class ImageWatch:
    """One handle's watch on its image's header."""

    def __init__(self, image: ImageContext) -> None:
        self._image = image
        self._watch: Watch | None = None
        self._registering = Mutex()
        self._closed = False
        self.lost = False
        self._answers: dict[type[Message], Callable[[Any], bytes]] = {
            HeaderUpdate: self._header_update,
            Quiesce: self._quiesce,
            AcquiredLock: self._acquired,
            ReleasedLock: self._released,
            RequestLock: self._requested,
            AsyncProgress: self._progressed,
            AsyncComplete: self._completed,
            Unquiesce: self._unquiesce,
        }

    @property
    def cookie(self) -> int | None:
        """By which the OSD knows it; None where there is none."""
        return None if self._watch is None else self._watch.cookie

    @property
    def client(self) -> ClientId:
        """How other clients know this handle."""
        return ClientId(self._image.io.cluster.instance_id(), self.cookie or 0)

    async def register(self) -> None:
        """Watch, anew if need be; whoever holds the lock keeps it under the new watch."""
        async with self._registering:
            if self._closed:  # while a recovery was on its way: nobody would ever close what it registers
                return
            old, self._watch = self._watch, None
            self.lost = False  # what is lost from here on is the new one
            try:
                if old is not None:
                    with contextlib.suppress(RadosError):  # it is gone, or will be
                        await old.close()
                self._watch = await self._image.io.watch(self._image.header_oid, self._on_notify, self._on_error)
                if self._image.lock is not None:
                    await self._image.lock.rewatched(was_blind=True)
            except BaseException:
                self.lost = True
                raise

    async def let_go(self) -> None:
        """Stop watching for a while: :meth:`register` ends it."""
        async with self._registering:
            watch, self._watch = self._watch, None
            if watch is not None:
                await watch.close()

    async def close(self) -> None:
        """Stop watching for good. What comes in from here on is not answered."""
        self._closed = True
        await self.let_go()

    # --- what comes in ---

    def _on_notify(self, client: int, notify_id: int, payload: bytes) -> bytes:
        try:
            message = decode_message(payload)
        except DecodeError:
            log.warning("%s: a notification that cannot be read", self._image.header_oid)
            return _NOTHING
        answer = self._answers.get(type(message), self._image.requests.requested)
        return answer(message)

    def _header_update(self, message: HeaderUpdate) -> bytes:
        self._image.invalidate()
        return response(0)

    def _quiesce(self, message: Quiesce) -> bytes:
        # Whoever is about to take a snapshot asks all clients to hold still; a handle without hooks always does.
        return response(0)

    def _unquiesce(self, message: Unquiesce) -> bytes:
        return _NOTHING

    def _acquired(self, message: AcquiredLock) -> bytes:
        return self._moved(message.client, taken=True)

    def _released(self, message: ReleasedLock) -> bytes:
        return self._moved(message.client, taken=False)

    def _moved(self, client: ClientId, *, taken: bool) -> bytes:
        if client != self.client:
            if self._image.lock is not None:
                self._image.lock.moved(taken=taken)
            self._image.requests.owner_changed()
        return _NOTHING

    def _progressed(self, message: AsyncProgress) -> bytes:
        self._image.requests.progressed(message)
        return _NOTHING

    def _completed(self, message: AsyncComplete) -> bytes:
        self._image.requests.completed(message)
        return _NOTHING

    def _requested(self, message: RequestLock) -> bytes:
        if self._image.lock is None or message.client == self.client:
            return _NOTHING
        result = self._image.lock.requested()
        return _NOTHING if result is None else response(result)

    def _on_error(self, code: int) -> None:
        self.lost = True
        self._image.invalidate()
        if not (self._closed or self._image.background.closing):
            self._image.background.spawn(self._recover(), f"{self._image.header_oid}: recovery of the watch")

    async def _recover(self) -> None:
        image, last = self._image, errno.ESHUTDOWN  # who is fenced hears of it from every call
        while not (self._closed or image.background.closing):
            try:
                await image.fresh()
            except RadosError as error:
                if error.errno != last:  # told once, not every few seconds
                    last = error.errno
                    log.warning("%s: watch not registered again: %s", image.header_oid, error)
                await image.background.sleep(image.io.cluster.sleep(_RETRY_SECONDS))
            else:
                if not self.lost:
                    return
