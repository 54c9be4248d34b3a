"""The exclusive lock of an image: one client at a time may write, and hands the right over when another asks.

The lock is one of class `lock` on the header, named `rbd_lock`, with tag `internal` and the cookie `auto <watch>`, where
`<watch>` is the cookie of the owner's watch: so everybody can see whether the owner still lives. An owner that is asked
lets the writes under way end, gives the lock back and says so. An owner that is dead (its watch is gone) is first kept
from ever writing again, by blocklisting its address, and only then robbed of the lock; one that lives never is.

Once a user has taken the lock by hand, the handle no longer takes it for writes, or gives it up, by itself.

What state it is in, and what may happen in each, is a table (:mod:`rbd_native.image.lock_states`); here is what is done.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from rbd_native import cls_lock, names
from rbd_native.cls_client import call
from rbd_native.constants import RBD_FEATURE_OBJECT_MAP
from rbd_native.engine import First, Mutex, Signal, gather
from rbd_native.image.gate import WriteGate
from rbd_native.image.head_map import HeadMap
from rbd_native.image.lock_states import HOLDING, Event, State, after
from rbd_native.native import threading
from rbd_native.rados.port import AssertExists, ListWatchers, NotifyReply, RadosError, Watcher, WriteStep
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
_ATTEMPTS = 3
"""How often what was not answered is sent again at once."""
_NOT_OURS = (-errno.ENOENT, -errno.EBUSY)


class ExclusiveLock:
    """One handle's part in the lock of its image.

    `owned` is true only while the lock is held and everything that goes with it is in place; `elsewhere` while another
    client is known to own it. `usage` is what operations on the whole image pass: while one is inside, the lock stays.
    `map`: the head's object map, while owned. `term`: how often it was taken so far.
    """

    def __init__(self, image: ImageContext) -> None:
        self._image = image
        self._changing = Mutex()
        """Held by whoever takes it, or gives it back; not by whoever only waits for those inside."""
        self._letting_go = Mutex()
        self._freed = Signal()
        self._moved = Signal()
        self._gone = Signal()
        self._patience = _OWN_RETRIES
        self._promised = False
        """Somebody was told that it will be given back, and nothing has come of that yet."""
        self._fetched: bytes | None = None
        self._cookie = ""
        """By which the OSD has us for the owner, or may have; "" where it has not."""
        self._tried: set[str] = set()
        """Other cookies by which it may have us, since an answer did not come."""
        self.state = State.UNLOCKED
        self.owned = False
        self.term = 0
        self.elsewhere = False
        self.automatic = True
        self.transient = False
        """Taken by hand, but given up to whoever asks."""
        self.usage = WriteGate()
        self.map: HeadMap | None = None
        self._guard = threading.Lock()
        """Around each event: it may be lost in any thread."""

    def _happen(self, event: Event, *, only_in: State | None = None) -> bool:
        """False, and nothing, in another state than that."""
        with self._guard:
            if only_in is not None and self.state is not only_in:
                return False
            self._enter(event)
        return True

    def _enter(self, event: Event) -> None:
        self.state = after(self.state, event)
        self.owned = self.state in HOLDING

    def _conclude(self, done: Event | None, missing: Event) -> bool:
        """An attempt has ended: `done` where that is so, `missing` where the OSD does not have us for the owner. Whether it
        is owned."""
        with self._guard:
            if not self._cookie:
                self._enter(missing)
            else:
                self._enter(Event.UNANSWERED if done is None else done)
            if self.owned:
                self.term += 1
                self.elsewhere = False
            return self.owned

    # --- taking it ---

    async def acquire(self, *, wait: bool = True) -> bool:
        """Own the lock, or find that the image has none any more. With `wait` false, False where a living client has it;
        else EROFS where that will not let go."""
        async with self._changing:
            if self.owned:
                return True
            self._happen(Event.ACQUIRE)
            granted = owned = False
            try:
                granted = await self._attempt(wait)
            finally:
                owned = self._conclude(Event.GRANTED if granted else None, Event.DENIED)
            if owned:
                notice = self._tell(AcquiredLock(self._image.watch.client))
                self._image.background.spawn(notice, f"{self._image.header_oid}: notice")
            return granted

    async def acquire_for_good(self) -> None:
        """The same also where it is just being given back, to somebody who asked for it before."""
        while self.state is not State.OWNED:
            await self.acquire()
            if self.state is State.DRAINING:
                async with self._letting_go:  # held until it is back
                    pass
            elif not self.owned:
                return

    async def acquire_automatically(self) -> None:
        """What a write does. EROFS where the user has taken that into their own hands."""
        if not self.automatic and not self.owned:
            raise RadosError(errno.EROFS, "the exclusive lock is not held, and no longer taken automatically")
        await self.acquire()

    async def _attempt(self, wait: bool) -> bool:
        """Whether it is ours, and all in place, or the image has no lock any more."""
        self._patience = _OWN_RETRIES
        if wait and self.elsewhere and not self._cookie:
            await self._ask()
        while True:
            if await self._try():
                await self._settle_in()
                if self._cookie or self._image.lock is not self:
                    return True
            pause = await self._ask() if wait else 0.0
            if pause is not None and not await self._look(wait, pause):
                return False

    async def _try(self) -> bool:
        image = self._image
        if image.watch.cookie is None:  # lost, and on its way back: without it we would be taken for dead
            image.invalidate()
            await image.fresh()
        cookie = f"{_COOKIE}{image.watch.cookie}"
        if self._cookie not in ("", cookie):  # from an attempt that was not answered, and an older watch
            await self._unlock_header()
        image.invalidate()
        both: list[Coroutine[Any, Any, Any]] = [self._lock(cookie), self._read_along()]
        granted: bool = (await gather(both, 2))[0]
        return granted

    async def _lock(self, cookie: str) -> bool:
        """Whether it was granted; then the map is fetched as well."""
        image = self._image
        request = cls_lock.lock(names.LOCK_NAME, LockType.EXCLUSIVE, cookie, TAG)
        self._cookie = cookie  # from here on, whatever is answered, or is not
        # The header of an image that has just been removed does not come back by being locked: it would have no watch, and
        # whoever found the lock on it would fence us.
        steps: list[WriteStep] = [AssertExists(), request.step]
        reply = await image.io.write(image.header_oid, steps).bare()
        if reply.rv == -errno.EBUSY:
            self._forget_cookie()
            return False
        if reply.rv < 0 and reply.rv != -errno.EEXIST:
            if reply.rv in (-errno.ENOENT, -errno.ESHUTDOWN):
                self._forget_cookie()
            raise RadosError(-reply.rv, image.header_oid, reply)
        self._fetched = await HeadMap.fetch(image)
        return True

    async def _read_along(self) -> None:
        """The state may just as well be read at the same time: whether it is that of after the locking, it says itself."""
        with contextlib.suppress(RadosError):  # then it still is stale
            await self._image.fresh(pool_too=False)

    async def _settle_in(self) -> None:
        """Make it ours: the state is read anew, for the last owner may have changed it, and the map. It is not ours where
        it was lost meanwhile, with the watch, or the image's feature was turned off."""
        image = self._image
        fetched, self._fetched = self._fetched, None
        try:
            if self._me(self._cookie) not in image.header.lock.lockers:
                image.invalidate()
            if image.stale:
                await image.fresh(pool_too=False)
            if image.lock is self:
                await self.open_map(fetched)
                await self.rewatched()
            else:
                await self._unlock()
        except BaseException:
            with contextlib.suppress(RadosError):  # the reason is the error that is on its way
                await self._unlock()
            raise

    def _me(self, cookie: str) -> LockerId:
        return LockerId(EntityName(EntityType.CLIENT, self._image.io.cluster.instance_id()), cookie)

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
        """Ask the owner to let go, and wait until it has. Where nobody says that it will: for how many seconds not to ask
        again."""
        image = self._image
        self._freed.clear()
        self.expect()
        asking = image.background.launch(self._tell(RequestLock(image.watch.client)))
        answered, _ = await First(self._freed.wait(), asking)
        if not answered:  # it was given up before everybody has said whether they will
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
        """Let operations and writes end, give the lock back, and say so. `heard`: wait until the others have heard it.

        Does nothing where it is not held. Raises the error where it may still be after several attempts.
        """
        async with self._letting_go:
            self._promised = False
            if self.state is State.ACQUIRING:
                async with self._changing:  # until that has come to its end
                    pass
            if self.state is State.OWNED:
                await self._drain_and_give_back(heard)
            elif self.state is State.UNSURE:
                async with self._changing:
                    if self._happen(Event.RELEASE, only_in=State.UNSURE):
                        await self._give_back(heard)

    async def _drain_and_give_back(self, heard: bool) -> None:
        image = self._image
        self._gone.clear()
        if not self._happen(Event.RELEASE, only_in=State.OWNED):
            return
        try:
            operations = self.usage.close()
            await First(operations, self._gone.wait())
            writes = image.gate.close()
            try:
                await First(writes, self._gone.wait())
                async with self._changing:
                    if self._happen(Event.DRAINED, only_in=State.DRAINING):
                        await self._give_back(heard)
            finally:
                image.gate.open()
        finally:
            self.usage.open()

    async def _give_back(self, heard: bool) -> None:
        """Nobody is inside. Who asks from here on is not answered; who asks after the next time it was taken asks anew."""
        image = self._image
        try:
            unlocking = image.background.launch(self._unlock())
            # The OSD does one after the other: who hears of it finds the lock free. And who wanted it is to have it
            # first, before this handle takes it again.
            telling = image.background.launch(self._tell(ReleasedLock(image.watch.client)))
            self.elsewhere = True
            await unlocking
        finally:
            self._conclude(None, Event.UNLOCKED)
        if heard:
            await telling

    async def _unlock(self) -> None:
        """Give back the map's lock and the image's. Whoever finds the one free and the other not may break it."""
        await gather((self.close_map(), self._unlock_header()), 2)

    async def _unlock_header(self) -> None:
        """Where it fails, the cookie tells that it may still be held."""
        image = self._image
        for cookie in (self._cookie, *self._tried):
            if not cookie:
                continue
            request = cls_lock.unlock(names.LOCK_NAME, cookie)
            for _ in range(_ATTEMPTS):
                reply = await image.io.write(image.header_oid, [request.step]).bare()
                if reply.rv == 0 or reply.rv in (-errno.ENOENT, -errno.ESHUTDOWN):
                    break
            if reply.rv == -errno.ESHUTDOWN:  # fenced: it is not ours, whatever the OSD still says
                self._forget_cookie()
            if reply.rv < 0 and reply.rv != -errno.ENOENT:
                raise RadosError(-reply.rv, image.header_oid, reply)
        self._forget_cookie()

    def _forget_cookie(self) -> None:
        self._cookie = ""
        self._tried.clear()

    def requested(self) -> int | None:
        """Another client asks for it: 0 if it will be given up, -EROFS if not, None where it is not ours to give."""
        if not self.owned and self.state is not State.UNSURE:
            return None
        if not self.automatic and not self.transient and self.state is State.OWNED:
            return -errno.EROFS
        if self.state is not State.DRAINING and not self._promised:
            self._promised = True
            self._image.background.spawn(self.release(), f"{self._image.header_oid}: release of the exclusive lock")
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
        """Whether the lock is held, by the OSD's word: it is asked even where we think not. ESHUTDOWN where we are
        fenced."""
        held = cls_lock.assert_locked(names.LOCK_NAME, LockType.EXCLUSIVE, self._cookie, TAG)
        reply = await self._image.io.read(self._image.header_oid, [held.step]).bare()
        if reply.rv < 0 and reply.rv not in _NOT_OURS:
            self._image.invalidate()
            raise RadosError(-reply.rv, self._image.header_oid, reply)
        return reply.rv == 0 and self.owned

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
        """The OSD says that it is not ours: nothing is written any more before it has been taken anew. Who waits for those
        inside need not: there is nothing to give back."""
        with self._guard:
            self.map = None
            self._forget_cookie()
            self._enter(Event.LOST)
        self._gone.set()

    async def rewatched(self, *, was_blind: bool = False) -> None:
        """The handle has a new watch: the lock must name it, or the owner will be taken for dead. `was_blind`: there was a
        time without one, in which it may have been taken from us.

        It is lost only where the OSD says that it is not ours. What was not answered is sent again, and may have been done
        the first time. Raises RadosError where it remains unknown: then the watch is taken anew.
        """
        image = self._image
        cookie = f"{_COOKIE}{image.watch.cookie}"
        # A cookie may be one that was in use before: that the lock names it does not say that it is still ours.
        unsure = self._tried or (was_blind and self._cookie == cookie)
        if unsure and not await self._adopt(cookie):
            self.lost()
        for _ in range(_ATTEMPTS):
            if self._cookie in ("", cookie):  # lost meanwhile, or done
                self._tried.clear()
                return
            request = cls_lock.set_cookie(names.LOCK_NAME, LockType.EXCLUSIVE, self._cookie, TAG, cookie)
            self._tried.add(cookie)  # before it is sent: whoever gives the lock back meanwhile has to know of it
            reply = await image.io.write(image.header_oid, [request.step]).bare()
            if reply.rv == 0 and self._cookie:
                self._cookie = cookie
            elif reply.rv == -errno.ESHUTDOWN or (reply.rv in _NOT_OURS and not await self._adopt(cookie)):
                self.lost()
        if self._cookie not in ("", cookie):
            raise RadosError(-reply.rv, image.header_oid, reply)

    async def _adopt(self, cookie: str) -> bool:
        """Whether the OSD has us for the owner by a cookie of ours; then that is the one."""
        info: LockInfo = await call(self._image.io, self._image.header_oid, _INFO)
        for ours in (cookie, self._cookie, *self._tried):
            if self._me(ours) in info.lockers:
                self._cookie = ours
                self._tried.clear()
                return True
        return False

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
