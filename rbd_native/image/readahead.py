"""Reading ahead of who reads one piece behind the other: what librbd does where `rbd_cache` is on.

After `rbd_readahead_trigger_requests` reads that each begin where the one before ended, the next
`rbd_readahead_max_bytes` are fetched before they are asked for; once `rbd_readahead_disable_after_bytes` have been read
through the handle (0: never) no more: by then, whoever reads a disk to start a machine from it has done so.

What is fetched is shown only while nothing can have changed it: at a snapshot, or under the exclusive lock in one and the
same term of it, with no write of this handle begun or ended since. (librbd also shows it where others may write.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from rbd_native.engine import Task
from rbd_native.native import threading
from rbd_native.rados.port import RadosError

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

Fetch = Callable[["ImageContext", int, int], Awaitable[bytes]]
"""Reads (offset, length) of an image."""


class _Window(NamedTuple):
    """Bytes that are fetched, or have been. `token`: what must still be so for them to be shown."""

    start: int
    end: int
    token: Any
    fetching: Task[bytes]


class ReadAhead:
    """Of one open image."""

    def __init__(self, image: ImageContext, fetch: Fetch) -> None:
        settings = image.settings
        self._image = image
        self._fetch = fetch
        self._guard = threading.Lock()
        self._trigger = settings.integer("rbd_readahead_trigger_requests")
        self._most = settings.integer("rbd_readahead_max_bytes")
        self._left = settings.integer("rbd_readahead_disable_after_bytes") or (1 << 64)
        self._next = -1
        self._run = 0
        self._changes = 0
        self._windows: list[_Window] = []

    @classmethod
    def of(cls, image: ImageContext, fetch: Fetch) -> ReadAhead | None:
        """As the image's options want it."""
        settings = image.settings
        wanted = settings.flag("rbd_cache") and settings.integer("rbd_readahead_max_bytes")
        return cls(image, fetch) if wanted else None

    def changed(self) -> None:
        """A write of this handle begins, or has ended."""
        with self._guard:
            self._changes += 1
            self._windows = []

    async def read(self, offset: int, length: int) -> bytes | None:
        """What has been fetched, if all of it has; and have more fetched, if this looks like the next of many."""
        if self._left < 0:  # for good
            return None
        token = self._token()
        with self._guard:
            windows = self._covering(offset, offset + length, token)
            wanted = self._wanted(offset, length)
        if wanted is not None and token is not None:
            self._begin(*wanted, token)
        if not windows:
            return None
        try:
            parts = [await window.fetching for window in windows]
        except RadosError:
            return None  # whoever asks the cluster learns what it is
        if self._token() != token:
            return None
        start = windows[0].start
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        return whole[offset - start : offset - start + length]

    def _token(self) -> Any:
        """What the bytes depend on; None where they may change at any time."""
        image = self._image
        if image.stale:
            return None
        if image.snap is not None:
            return image.snap.info.id
        lock = image.lock
        return (self._changes, lock, lock.term) if lock is not None and lock.owned else None

    def _covering(self, start: int, end: int, token: Any) -> list[_Window]:
        if token is None or any(window.token != token for window in self._windows):
            self._windows = []
        found = [window for window in self._windows if window.start < end and start < window.end]
        if not found or start < found[0].start or end > found[-1].end:
            return []
        return found

    def _wanted(self, offset: int, length: int) -> tuple[int, int] | None:
        """(start, length) of what is to be fetched now."""
        self._run = self._run + 1 if offset == self._next else 1
        self._next = offset + length
        self._left -= length
        if self._left < 0:
            self._windows = []
        if self._run < self._trigger or self._left < 0 or length >= self._most:
            return None
        while self._windows and self._windows[0].end <= offset:
            del self._windows[0]
        end = self._windows[-1].end if self._windows else self._next
        if not self._next <= end < self._next + self._most // 2:  # enough is there, or elsewhere
            return None
        stop = end + self._most
        size = min(stop - stop % self._most, self._image.size) - end  # to a round place: fewer objects to ask
        return (end, size) if size > 0 else None

    def _begin(self, start: int, length: int, token: Any) -> None:
        with self._guard:
            if self._windows and self._windows[-1].end != start:  # somebody else was quicker
                return
            window = _Window(start, start + length, token, Task(self._fetched(start, length)))
            self._windows.append(window)
        window.fetching.launch()

    async def _fetched(self, start: int, length: int) -> bytes:
        epoch = self._image.reading.count()
        try:
            return await self._fetch(self._image, start, length)
        finally:
            self._image.reading.leave(epoch)
