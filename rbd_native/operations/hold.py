"""Hold the exclusive locks of several images at once, for what is to happen to all of them with no write in between.

They are taken one after the other, everybody in the same order, and kept: while one is held, who asks for it waits. So two
of us never wait for each other. Clients that go by another order may: who has waited for one lock too long lets those go
that it has, and begins anew once it got that one.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Iterable

from rbd_native.engine import First, Task, gather
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusive_lock import ExclusiveLock
from rbd_native.rados.port import RadosError

_PATIENCE_SECONDS = 1.0
"""At first. It doubles each time: else an owner that is slow, but not waiting for us, might never be waited for for long
enough."""
_AT_ONCE = 32


class Held:
    """Locks that stay where they are until :meth:`leave`."""

    def __init__(self) -> None:
        self._inside: list[tuple[ExclusiveLock, int]] = []
        self._patience = _PATIENCE_SECONDS

    async def join(self, image: ImageContext) -> bool:
        """Take that of an image too, where it has one. False where the others had to be let go for it. EROFS where it is
        not given up."""
        while (lock := image.lock) is not None:
            epoch = await lock.usage.enter()
            if lock.owned:
                self._inside.append((lock, epoch))
                return True
            lock.usage.leave(epoch)
            if not await self._acquire(image, lock):
                return False
        return True

    async def _acquire(self, image: ImageContext, lock: ExclusiveLock) -> bool:
        acquiring = Task(lock.acquire()).launch()
        came, _ = await First(acquiring, image.io.cluster.sleep(self._patience))
        if came == 0 or not self._inside:
            await acquiring
            return True
        self._patience *= 2
        self.leave()
        await acquiring
        return False

    async def check(self) -> None:
        """EBUSY where one was taken from us: by a client that thought us dead, or a user who broke it."""
        if not all(await gather([lock.confirmed() for lock, _ in self._inside], _AT_ONCE)):
            raise RadosError(errno.EBUSY, "an exclusive lock was lost")

    def leave(self) -> None:
        """From here on they may go to who asks."""
        inside, self._inside = self._inside, []
        for lock, epoch in inside:
            lock.usage.leave(epoch)


@contextlib.asynccontextmanager
async def hold(images: Iterable[ImageContext]) -> AsyncIterator[Held]:
    """The locks of all images, for as long as the block takes."""
    ordered = sorted(images, key=lambda image: (image.io.pool_id, image.id))
    held = Held()
    try:
        while not await _all(held, ordered):
            pass
        yield held
    finally:
        held.leave()


async def _all(held: Held, images: list[ImageContext]) -> bool:
    for image in images:
        if not await held.join(image):
            return False
    return True
