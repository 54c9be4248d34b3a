"""The exclusive lock of an image: one client at a time may write, and hands the right over when another asks.

The lock is one of class `lock` on the header, named `rbd_lock`, with tag `internal` and the cookie `auto <watch>`, where
`<watch>` is the cookie of the owner's watch: so everybody can see whether the owner still lives. An owner that is asked
lets the writes under way end, gives the lock back and says so. An owner that is dead (its watch is gone) is first kept
from ever writing again, by blocklisting its address, and only then robbed of the lock; one that lives never is.

Once a user has taken or given back the lock by hand, the handle no longer takes it or gives it up by itself.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from rbd_native import cls_lock, names
from rbd_native.cls_client import call, mutate
from rbd_native.constants import RBD_FEATURE_OBJECT_MAP
from rbd_native.engine import First, Mutex, Signal, Task, gather, spawn
from rbd_native.image.gate import WriteGate
from rbd_native.image.head_map import HeadMap
from rbd_native.rados.port import ListWatchers, NotifyReply, RadosError, Watcher
from rbd_native.types import EntityName, EntityType, Locker, LockerId, LockInfo, LockType
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
_INFO = cls_lock.get_info(names.LOCK_NAME)
_COOKIE = "auto "
NOTIFY_TIMEOUT_MS = 5000
_RETRY_SECONDS = 1.0
"""Between two looks, or questions. librbd may promise to let go, just when it has got hold, and forget."""
_OWN_RETRIES = 30


class ExclusiveLock:
    """One handle's part in the lock of its image.

    `owned` is true only while the lock is held and everything that goes with it is in place; `elsewhere` while another
    client is known to own it. `usage` is what operations
    on the whole image pass: while one is inside, the lock stays. `map`: the head's object map, while owned.
    `term`: how often it was taken so far.
    """

    def __init__(self, image: ImageContext) -> None:
        self._image = image
        self._changing = Mutex()
        self._freed = Signal()
        self._moved = Signal()
        self._patience = _OWN_RETRIES
        self._releasing = False
        self._fetched: bytes | None = None
        self._cookie = ""
        self.owned = False
        self.term = 0
        self.elsewhere = False
        self.automatic = True
        self.transient = False
        """Taken by hand, but given up to whoever asks."""
        self.usage = WriteGate()
        self.map: HeadMap | None = None

    # --- taking it ---

    async def acquire(self, *, wait: bool = True) -> bool:
        """Own the lock, or find that the image has none any more. With `wait` false, False where a living client has it;
        else EROFS where that will not let go."""
        async with self._changing:
            self._patience = _OWN_RETRIES
            if wait and self.elsewhere and not self.owned:
                await self._ask()
            while not self.owned:
                if await self._try():
                    await self._taken()
                    if self.owned or self._image.lock is not self:
                        break
                pause = await self._ask() if wait else 0.0
                if pause is not None and not await self._look(wait, pause):
                    return False
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
        image.stale = True
        both: list[Coroutine[Any, Any, Any]] = [self._lock(f"{_COOKIE}{image.watch.cookie}"), self._read_along()]
        granted: bool = (await gather(both, 2))[0]
        return granted

    async def _lock(self, cookie: str) -> bool:
        """Whether it was granted; then the map is fetched as well."""
        image = self._image
        request = cls_lock.lock(names.LOCK_NAME, LockType.EXCLUSIVE, cookie, TAG)
        reply = await image.io.write(image.header_oid, [request.step]).bare()
        if reply.rv == -errno.EBUSY:
            return False
        if reply.rv < 0 and reply.rv != -errno.EEXIST:
            raise RadosError(-reply.rv, image.header_oid, reply)
        self._cookie = cookie
        self._fetched = await HeadMap.fetch(image)
        return True

    async def _read_along(self) -> None:
        """The state may just as well be read at the same time: whether it is that of after the locking, it says itself."""
        with contextlib.suppress(RadosError):  # then it still is stale
            await self._image.fresh(pool_too=False)

    async def _taken(self) -> None:
        """Make it ours: the state is read anew, for the last owner may have changed it, and the map. It is not ours where
        it was lost meanwhile, with the watch, or the image's feature was turned off."""
        image = self._image
        fetched, self._fetched = self._fetched, None
        try:
            me = LockerId(EntityName(EntityType.CLIENT, image.io.cluster.instance_id()), self._cookie)
            if me not in image.header.lock.lockers:
                image.stale = True
            if image.stale:
                await image.fresh(pool_too=False)
            if image.lock is self:
                await self.open_map(fetched)
                await self.rewatched()
            else:
                await self._unlock()
        except BaseException:
            await self._unlock()
            raise
        if self._cookie:
            self.owned = True
            self.term += 1
            self.elsewhere = False
            spawn(self._tell(AcquiredLock(image.watch.client)), f"{image.header_oid}: notice")

    async def locker(self) -> tuple[LockerId, Locker] | None:
        """Who has the lock. EROFS where it is one that users hold, which is nobody's to ask for."""
        info: LockInfo = await call(self._image.io, self._image.header_oid, _INFO)
        return _owner(info)

    async def _look(self, wait: bool, pause: float) -> bool:
        """See who has the lock. From a dead client it is taken; False where one that lives has it, and `wait` is false.
        Else the `pause` in seconds is made, before it is asked again."""
        image = self._image
        owner = await self.locker()
        if owner is None:
            return True
        reply = await image.io.read(image.header_oid, [ListWatchers()])  # the port wants it alone
        if _alive(owner, reply.outs[0]):
            await self.move(pause)
            return wait
        if owner[0].name != EntityName(EntityType.CLIENT, image.io.cluster.instance_id()):
            await self.break_from(*owner)
            return True
        # Another handle of this very client has lost its watch, and will soon have another: to fence it would be to
        # fence ourselves.
        self._patience -= 1
        if not self._patience:
            raise RadosError(errno.EINVAL, "another handle of this client has left the exclusive lock behind")
        await image.io.cluster.sleep(_RETRY_SECONDS)
        return True

    async def _ask(self) -> float | None:
        """Ask the owner to let go, and wait until it has. Where nobody says that he will: for how many seconds not to ask
        again."""
        image = self._image
        self._freed.clear()
        self.expect()
        asking = Task(self._tell(RequestLock(image.watch.client))).launch()
        answered, _ = await First(self._freed.wait(), asking)
        if not answered:  # it was given up before everybody has said whether he will
            return None
        reply = asking.result()
        answers = acknowledgements(reply)
        if -errno.EROFS in answers:
            raise RadosError(errno.EROFS, "the owner of the exclusive lock keeps it")
        if 0 in answers:
            await First(self._freed.wait(), image.io.cluster.sleep(_RETRY_SECONDS))
            return None
        # Nobody felt addressed: the owner is just taking the lock, or just letting go, or cannot hear any more.
        return 0.0 if reply.timeouts else _RETRY_SECONDS

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

    async def release(self, *, heard: bool = False) -> None:
        """Let operations and writes end, give the lock back, and say so. `heard`: wait until the others have heard it."""
        async with self._changing:
            if not self._cookie:
                self._releasing = False
                return
            image = self._image
            await self.usage.close()
            await image.gate.close()
            try:
                # Who asks from here on is not answered; who asks after the next time it was taken asks anew.
                self.owned = self._releasing = False
                unlocking = Task(self._unlock()).launch()
                # The OSD does one after the other: who hears of it finds the lock free. And who wanted it is to have it
                # first, before this handle takes it again.
                telling = Task(self._tell(ReleasedLock(image.watch.client))).launch()
                self.elsewhere = True
                await unlocking
                if heard:
                    await telling
            finally:
                image.gate.open()
                self.usage.open()

    async def _unlock(self) -> None:
        """Give back the map's lock and the image's. Whoever finds the one free and the other not may break it."""
        await gather((self.close_map(), self._unlock_header()), 2)

    async def _unlock_header(self) -> None:
        image = self._image
        reply = await image.io.write(image.header_oid, [cls_lock.unlock(names.LOCK_NAME, self._cookie).step]).bare()
        if reply.rv < 0 and reply.rv != -errno.ENOENT:
            raise RadosError(-reply.rv, image.header_oid, reply)
        self._cookie = ""

    def requested(self) -> int | None:
        """Another client asks for it: 0 if it will be given up, -EROFS if not, None where it is not ours to give."""
        if not self.owned:
            return None
        if not self.automatic and not self.transient:
            return -errno.EROFS
        if not self._releasing:
            self._releasing = True
            spawn(self.release(), f"{self._image.header_oid}: release of the exclusive lock")
        return 0

    # --- the object map that goes with it ---

    async def open_map(self, fetched: bytes | None = None) -> None:
        """Load the head's map, where the image has one. It is this client's while the lock is."""
        self.map = await HeadMap.open(self._image, fetched)

    async def close_map(self) -> None:
        self.map = None
        await HeadMap.close(self._image)

    async def follow_features(self, before: int) -> None:
        """The header was read anew: another client may have turned the map off, or on, without asking the owner."""
        now = self._image.header.features
        if not now & RBD_FEATURE_OBJECT_MAP:
            self.map = None
        elif self.owned and not before & RBD_FEATURE_OBJECT_MAP:
            await self.open_map()

    # --- what else happens to it ---

    async def confirmed(self) -> bool:
        """Whether the lock is held, by the OSD's word."""
        if not self.owned:
            return False
        held = cls_lock.assert_locked(names.LOCK_NAME, LockType.EXCLUSIVE, self._cookie, TAG)
        reply = await self._image.io.read(self._image.header_oid, [held.step]).bare()
        return reply.rv == 0

    def expect(self) -> None:
        """From here on :meth:`move` is about what happens next."""
        self._moved.clear()

    async def move(self, seconds: float) -> None:
        """Wait until another client takes it or gives it back, but not longer than that."""
        await First(self._moved.wait(), self._image.io.cluster.sleep(seconds))

    def moved(self, *, taken: bool) -> None:
        """Another client has taken it, or given it back: who waits for it may look, or ask, again."""
        self.elsewhere = taken
        if not taken:
            self._freed.set()
        self._moved.set()

    def lost(self) -> None:
        """The OSD says that it is not ours: nothing is written any more before it has been taken anew."""
        self.owned = False
        self.map = None
        self._cookie = ""

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
            self.lost()
        else:
            self._cookie = cookie

    async def _tell(self, message: Message) -> NotifyReply:
        image = self._image
        reply: NotifyReply = await image.io.notify(image.header_oid, encode_message(message), NOTIFY_TIMEOUT_MS)
        return reply


def _owner(info: LockInfo) -> tuple[LockerId, Locker] | None:
    """Who has the lock, automatically. EROFS where users hold it."""
    for who, locker in info.lockers.items():
        if info.tag != TAG or info.type != LockType.EXCLUSIVE or not who.cookie.startswith(_COOKIE):
            raise RadosError(errno.EROFS, f"locked by {who.name} with cookie {who.cookie!r}")
        return who, locker
    return None


def _alive(owner: tuple[LockerId, Locker], watchers: list[Watcher]) -> bool:
    """Whether the owner's watch is still there: the same address, nonce included, and the same cookie."""
    who, record = owner
    address = str(record.address)
    return any(f"{_COOKIE}{w.cookie}" == who.cookie and w.address == address for w in watchers)
