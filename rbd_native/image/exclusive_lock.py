"""The exclusive lock of an image: one client at a time may write, and hands the right over when another asks.

The lock is one of class `lock` on the header, named `rbd_lock`, with tag `internal` and the cookie `auto <watch>`, where
`<watch>` is the cookie of the owner's watch: so everybody can see whether the owner still lives. An owner that is asked
lets the writes under way end, gives the lock back and says so. An owner that is dead (its watch is gone) is first kept
from ever writing again, by blocklisting its address, and only then robbed of the lock; one that lives never is.

Once a user has taken or given back the lock by hand, the handle no longer takes it or gives it up by itself.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from rbd_native import cls_lock, names
from rbd_native.cls_client import call, mutate
from rbd_native.engine import First, Mutex, Signal, spawn
from rbd_native.image.gate import WriteGate
from rbd_native.image.head_map import HeadMap
from rbd_native.rados.port import ListWatchers, NotifyReply, RadosError
from rbd_native.types import Locker, LockerId, LockInfo, LockType
from rbd_native.watch_notify import (
    AcquiredLock,
    Message,
    ReleasedLock,
    RequestLock,
    acknowledgements,
    encode_message,
)

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

TAG = "internal"
_COOKIE = "auto "
NOTIFY_TIMEOUT_MS = 5000
_RELEASE_SECONDS = 10.0
_RETRY_SECONDS = 1.0


class ExclusiveLock:
    """One handle's part in the lock of its image.

    `owned` is true only while the lock is held and everything that goes with it is in place. `usage` is what operations
    on the whole image pass: while one is inside, the lock stays. `map`: the head's object map, while owned.
    """

    def __init__(self, image: ImageContext) -> None:
        self._image = image
        self._changing = Mutex()
        self._released = Signal()
        self._releasing = False
        self._cookie = ""
        self.owned = False
        self.automatic = True
        self.usage = WriteGate()
        self.map: HeadMap | None = None

    # --- taking it ---

    async def acquire(self, *, wait: bool = True) -> bool:
        """Own the lock. With `wait` false, False where a living client has it; else EROFS where that will not let go."""
        async with self._changing:
            if self.owned:
                return True
            while not (await self._try() and await self._taken()):
                locker = await self.locker()
                if locker is None:
                    continue
                if not await self._alive(locker):
                    await self.break_from(*locker)
                elif not wait:
                    return False
                else:
                    await self._ask()
            return True

    async def acquire_automatically(self) -> None:
        """What a write does. EROFS where the user has taken that into his own hands."""
        if not self.automatic and not self.owned:
            raise RadosError(errno.EROFS, "the exclusive lock is not held, and no longer taken automatically")
        await self.acquire()

    async def _try(self) -> bool:
        image = self._image
        if image.watch.cookie is None:  # lost, and on its way back: without it we would be taken for dead
            await image.fresh()
        cookie = f"{_COOKIE}{image.watch.cookie}"
        request = cls_lock.lock(names.LOCK_NAME, LockType.EXCLUSIVE, cookie, TAG)
        reply = await image.io.write(image.header_oid, [request.step]).bare()
        if reply.rv == -errno.EBUSY:
            return False
        if reply.rv < 0 and reply.rv != -errno.EEXIST:
            raise RadosError(-reply.rv, image.header_oid, reply)
        self._cookie = cookie
        return True

    async def _taken(self) -> bool:
        """Make it ours: the state is read anew, for the last owner may have changed it, then the map. False where it was
        lost meanwhile, with the watch."""
        image = self._image
        try:
            image.stale = True
            await image.fresh()
            await self.open_map()
            await self.rewatched()
        except BaseException:
            await self._unlock()
            raise
        self.owned = bool(self._cookie)
        if self.owned:
            self._say(AcquiredLock(image.watch.client))
        return self.owned

    async def locker(self) -> tuple[LockerId, Locker] | None:
        """Who has the lock. EROFS where it is one that users hold, which is nobody's to ask for."""
        info: LockInfo = await call(self._image.io, self._image.header_oid, cls_lock.get_info(names.LOCK_NAME))
        for who, locker in info.lockers.items():
            if info.tag != TAG or info.type != LockType.EXCLUSIVE or not who.cookie.startswith(_COOKIE):
                raise RadosError(errno.EROFS, f"locked by {who.name} with cookie {who.cookie!r}")
            return who, locker
        return None

    async def _alive(self, locker: tuple[LockerId, Locker]) -> bool:
        """Whether the owner's watch is still there: the same address, nonce included, and the same cookie."""
        who, record = locker
        reply = await self._image.io.read(self._image.header_oid, [ListWatchers()])
        address = str(record.address)
        return any(f"{_COOKIE}{w.cookie}" == who.cookie and w.address == address for w in reply.outs[0])

    async def _ask(self) -> None:
        """Ask the owner to let go and wait until it has, or until it is time to look again."""
        image = self._image
        self._released.clear()
        payload = encode_message(RequestLock(image.watch.client))
        reply: NotifyReply = await image.io.notify(image.header_oid, payload, NOTIFY_TIMEOUT_MS)
        answers = acknowledgements(reply)
        if -errno.EROFS in answers:
            raise RadosError(errno.EROFS, "the owner of the exclusive lock keeps it")
        if 0 in answers:
            await First(self._released.wait(), image.io.cluster.sleep(_RELEASE_SECONDS))
        elif not reply.timeouts:
            # Nobody felt addressed: the owner is just taking the lock, or just letting go.
            await First(self._released.wait(), image.io.cluster.sleep(_RETRY_SECONDS))

    async def break_from(self, who: LockerId, record: Locker) -> None:
        """Take the lock from a dead client. It is fenced first, and only if it still is the one that was found dead."""
        image = self._image
        again = await self.locker()
        if again is None or again[0] != who:
            return
        if image.settings.flag("rbd_blocklist_on_break_lock"):
            await image.fence(record.address)
        request = cls_lock.break_lock(names.LOCK_NAME, who.name, who.cookie)
        reply = await image.io.write(image.header_oid, [request.step]).bare()
        if reply.rv < 0 and reply.rv != -errno.ENOENT:
            raise RadosError(-reply.rv, image.header_oid, reply)

    # --- giving it back ---

    async def release(self) -> None:
        """Let operations and writes end, give the lock back, and say so."""
        async with self._changing:
            if not self.owned:
                return
            image = self._image
            await self.usage.close()
            await image.gate.close()
            try:
                self.owned = False
                await self._unlock()
            finally:
                image.gate.open()
                self.usage.open()
            await image.io.notify(image.header_oid, encode_message(ReleasedLock(image.watch.client)), NOTIFY_TIMEOUT_MS)

    async def _unlock(self) -> None:
        image = self._image
        await self.close_map()
        cookie, self._cookie = self._cookie, ""
        reply = await image.io.write(image.header_oid, [cls_lock.unlock(names.LOCK_NAME, cookie).step]).bare()
        if reply.rv < 0 and reply.rv != -errno.ENOENT:
            raise RadosError(-reply.rv, image.header_oid, reply)

    def requested(self) -> int | None:
        """Another client asks for it: 0 if it will be given up, -EROFS if not, None where it is not ours to give."""
        if not self.owned:
            return None
        if not self.automatic:
            return -errno.EROFS
        if not self._releasing:
            self._releasing = True
            spawn(self._release_on_request(), f"{self._image.header_oid}: release of the exclusive lock")
        return 0

    async def _release_on_request(self) -> None:
        try:
            await self.release()
        finally:
            self._releasing = False

    # --- the object map that goes with it ---

    async def open_map(self) -> None:
        """Load the head's map, where the image has one. It is this client's while the lock is."""
        self.map = await HeadMap.open(self._image)

    async def close_map(self) -> None:
        keeper, self.map = self.map, None
        if keeper is not None:
            await keeper.close()

    # --- what else happens to it ---

    async def confirmed(self) -> bool:
        """Whether the lock is held, by the OSD's word."""
        if not self.owned:
            return False
        held = cls_lock.assert_locked(names.LOCK_NAME, LockType.EXCLUSIVE, self._cookie, TAG)
        reply = await self._image.io.read(self._image.header_oid, [held.step]).bare()
        return reply.rv == 0

    def other_released(self) -> None:
        self._released.set()

    async def rewatched(self) -> None:
        """The handle has a new watch: the lock must name it, or the owner will be taken for dead.

        Where that fails the lock is no longer ours: somebody broke it, or we were fenced.
        """
        image = self._image
        cookie = f"{_COOKIE}{image.watch.cookie}"
        if not self._cookie or cookie == self._cookie:
            return
        request = cls_lock.set_cookie(names.LOCK_NAME, LockType.EXCLUSIVE, self._cookie, TAG, cookie)
        try:
            await mutate(image.io, image.header_oid, request)
        except RadosError:
            self.owned = False
            self.map = None
            self._cookie = ""
        else:
            self._cookie = cookie

    def _say(self, message: Message) -> None:
        """Tell the others, without waiting for them to have heard."""
        image = self._image

        async def send() -> None:
            await image.io.notify(image.header_oid, encode_message(message), NOTIFY_TIMEOUT_MS)

        spawn(send(), f"{image.header_oid}: notice")
