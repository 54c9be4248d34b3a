"""Writes one behind the other, gathered: what librbd's `rbd_io_scheduler` "simple" is for.

While a write to an object is on its way, those that go on where the last one ended wait for it, and then go out together,
in one operation. Each is acknowledged when its bytes are on stable storage. Writes elsewhere in the object wait for nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbd_native.engine import Signal
from rbd_native.image.pieces import Pieces, Store, write_steps
from rbd_native.native import threading
from rbd_native.rados.port import Buffer

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext


class _Batch(Pieces):
    """Bytes of writes that wait; `out` tells them when, with the error if there was one."""

    __slots__ = ("out",)

    def __init__(self) -> None:
        super().__init__()
        self.out = Signal()


class _Object:
    """`flying`: operations on their way. `end`: where the last write ended, be it on its way or waiting."""

    flying = 0
    end = -1
    waiting: _Batch | None = None


class Gathering:
    """Of one open image."""

    def __init__(self, image: ImageContext, store: Store) -> None:
        self._image = image
        self._store = store
        self._guard = threading.Lock()
        self._objects: dict[int, _Object] = {}

    @classmethod
    def of(cls, image: ImageContext, store: Store) -> Gathering | None:
        """As the image's options want it."""
        wanted = image.settings.text("rbd_io_scheduler") == "simple" and not image.opened_read_only
        return cls(image, store) if wanted else None

    async def write(self, objectno: int, start: int, data: Buffer) -> None:
        """Write bytes of an object; they must not change meanwhile."""
        with self._guard:
            kept = self._objects.get(objectno)
            if kept is None:
                kept = self._objects[objectno] = _Object()
            batch = None
            if kept.flying and kept.end == start:
                batch = kept.waiting = kept.waiting or _Batch()
                batch.put(start, data)
            else:
                kept.flying += 1
            kept.end = start + len(data)
        if batch is None:
            steps = write_steps(self._image, objectno, [(start, data)])
            try:
                await self._store(self._image, objectno, steps)
            finally:
                self._landed(objectno, kept)
        else:
            error = await batch.out.wait()
            if error is not None:
                raise error

    def _landed(self, objectno: int, kept: _Object) -> None:
        """An operation has ended: those that waited go."""
        with self._guard:
            batch, kept.waiting = kept.waiting, None
            if batch is None:
                kept.flying -= 1
                if not kept.flying:
                    del self._objects[objectno]
        if batch is not None:
            what = f"{self._image.name}: write of object {objectno}"
            self._image.background.spawn(self._send(objectno, kept, batch), what)

    async def _send(self, objectno: int, kept: _Object, batch: _Batch) -> None:
        error: BaseException | None = None
        try:
            await self._store(self._image, objectno, write_steps(self._image, objectno, batch.runs()))
        except BaseException as caught:  # every writer hears of it
            error = caught
        self._landed(objectno, kept)
        batch.out.set(error)
