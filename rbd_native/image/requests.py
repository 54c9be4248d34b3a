"""Maintenance of an image that another client has open: what one asks for, the owner of the exclusive lock does.

Who wants to resize, rename or otherwise maintain an image owns its lock while doing so, or asks the owner to do it. The
owner acknowledges at once, works, tells its progress and, at the end, the result. A request has an id of its own, so that
asking twice does not do it twice; when the owner goes away, or falls silent for too long, the one that asked begins again,
with the same id, and perhaps does it itself.

A number in an id counts for the whole process, not for a handle: one that is opened again often gets the watch cookie of
the one before it, and the owner would take its first request for one that it has answered. An owner, in turn, forgets a
request once the one that asked has heard the result: what comes under the same id after that is another request.

Source: the notifications of a running 16.2.15 librbd.
"""

from __future__ import annotations

import errno
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rbd_native.engine import First, Signal, Suspension
from rbd_native.image.exclusive_lock import NOTIFY_TIMEOUT_MS, ExclusiveLock
from rbd_native.native import threading
from rbd_native.rados.port import NotifyReply, RadosError
from rbd_native.watch_notify import (
    AsyncComplete,
    AsyncProgress,
    AsyncRequestId,
    Message,
    acknowledgements,
    encode_message,
    response,
)

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""(done, total) of a long operation."""

Perform = Callable[["ImageContext", Any, Report], Awaitable[None]]
"""What the owner does for a request. RadosError is its negative result."""

_REMEMBERED_SECONDS = 600.0
_RETRY_SECONDS = 1.0
_PROGRESS_SECONDS = 0.1
_numbers: Final = itertools.count(1)
"""Of the requests of this process; a forked child has other connections, and so other client ids."""
_RESTART: Final = object()
"""Ask again; the last time may have been enough."""
_NOT_BEGUN: Final = object()
"""Ask again; nothing has been done yet."""


class _Event(NamedTuple):
    """What a request that was asked of the owner hears."""

    progress: tuple[int, int] | None = None
    result: int | None = None


class _Asked:
    """A request of ours, from when it is first asked until it is done, whoever does it."""

    def __init__(self, request: AsyncRequestId, report: Report | None) -> None:
        self.request = request
        self.silences = 0
        self.wants_lock = False
        self._report = report
        self._events: deque[Any] = deque()
        self._signal = Signal()

    def tell(self, event: Any) -> None:
        self._events.append(event)
        self._signal.set()

    def told(self) -> int | None:
        """The result, if it has come while nobody was listening; what else came is of the past."""
        result = None
        while self._events:
            event = self._events.popleft()
            if event is not _RESTART and event.result not in (None, -errno.ERESTART):
                result = event.result
        return result

    async def hear(self, patience: Suspension) -> int | None:
        """The result; None where the owner may be another now, and may have done it; -ETIMEDOUT where nothing was heard for
        so long."""
        while True:
            self._signal.clear()  # before looking: what comes after the look sets it again
            if not self._events:
                await First(self._signal.wait(), patience)
            if not self._events:
                return -errno.ETIMEDOUT
            event = self._events.popleft()
            if event is _RESTART:
                return None
            if event.result is not None:
                result: int = event.result
                return result
            if self._report is not None and event.progress is not None:
                self._report(*event.progress)


class _Served(NamedTuple):
    """A request of another client: what it was, its result, None while it is worked on, and when that came."""

    message: Any
    result: int | None
    since: float


class Requests:
    """One handle's requests of the lock's owner, and, when it is the owner, those of others."""

    def __init__(self, image: ImageContext, perform: dict[type[Message], Perform]) -> None:
        self._image = image
        self._perform = perform
        self._guard = threading.Lock()
        self._asked: dict[AsyncRequestId, _Asked] = {}
        self._served: dict[AsyncRequestId, _Served] = {}

    # --- asking ---

    def new_id(self) -> AsyncRequestId:
        """A name for a request of this handle."""
        return AsyncRequestId(self._image.watch.client, next(_numbers))

    async def carry_out(
        self,
        message: Callable[[AsyncRequestId], Message],
        local: Callable[[], Awaitable[None]],
        report: Report | None = None,
        done_before: int = 0,
    ) -> None:
        """Do it here under the lock, or have the owner do it. `done_before`: the errno which, when asked again, says that
        the first time had been enough."""
        asked = _Asked(self.new_id(), report)
        self._asked[asked.request] = asked
        try:
            again = False
            while (result := await self._once(asked, message, local, done_before if again else 0)) is not None:
                again = again or result is _RESTART
        finally:
            del self._asked[asked.request]

    async def _once(
        self,
        asked: _Asked,
        message: Callable[[AsyncRequestId], Message],
        local: Callable[[], Awaitable[None]],
        enough: int,
    ) -> Any:
        """None where it is done."""
        # A user who keeps the lock by hand, or has given it back so, still maintains the image: then it is taken.
        image = self._image
        if image.stale:
            await image.fresh()
        lock = image.lock
        here = lock is None or lock.owned or await lock.acquire(wait=asked.wants_lock)
        try:
            result = asked.told()
            if result is not None:
                return self._judged(result)
            if lock is None or here:
                return await self._here(lock, local)
            return await self._there(lock, message(asked.request), asked)
        except RadosError as error:
            if error.errno == errno.ERESTART:  # the lock was lost before anything was done
                return _NOT_BEGUN
            if error.errno == enough:
                return None
            raise

    def _judged(self, result: int) -> None:
        self._image.invalidate()  # whatever came of it, and whether or not the notice of it has come
        if result < 0:
            raise RadosError(-result, self._image.name)

    async def _here(self, lock: ExclusiveLock | None, local: Callable[[], Awaitable[None]]) -> Any:
        if lock is None:
            async with self._image.unsure_on_failure():
                await local()
            return None
        epoch = await lock.usage.enter()
        try:
            if not lock.owned:
                return _NOT_BEGUN
            if self._image.stale:
                await self._image.fresh()
            async with self._image.unsure_on_failure():
                await local()
            return None
        finally:
            lock.usage.leave(epoch)

    async def _there(self, lock: ExclusiveLock, message: Message, asked: _Asked) -> Any:
        image = self._image
        lock.expect()
        reply: NotifyReply = await image.io.notify(image.header_oid, encode_message(message), NOTIFY_TIMEOUT_MS)
        answers = acknowledgements(reply)
        if not answers:
            if reply.timeouts:  # the owner may have heard it all the same
                return _RESTART
            await lock.move(_RETRY_SECONDS)
            return _NOT_BEGUN
        if 0 not in answers:  # where the lock has just gone from one to another, both may answer
            if -errno.EOPNOTSUPP in answers:  # an owner that cannot do it must let go
                asked.wants_lock = True
                return _NOT_BEGUN
            return _NOT_BEGUN if -errno.ERESTART in answers else self._judged(answers[0])
        patience = image.io.cluster.sleep(image.settings.integer("rbd_request_timed_out_seconds"))
        result = await asked.hear(patience)
        if result == -errno.ERESTART:  # by the owner's word
            return _NOT_BEGUN
        if result == -errno.ETIMEDOUT:
            self._unheard(asked)
        return _RESTART if result in (None, -errno.ETIMEDOUT) else self._judged(result)

    def _unheard(self, asked: _Asked) -> None:
        """An owner that has done it, and told a result of 0 that was never heard, says nothing more about it, however often
        it is asked: at last it is asked for under another name."""
        asked.silences += 1
        if asked.silences > 1:
            del self._asked[asked.request]
            asked.request = self.new_id()
            self._asked[asked.request] = asked

    def progressed(self, message: AsyncProgress) -> None:
        self._tell(message.request, _Event(progress=(message.offset, message.total)))

    def completed(self, message: AsyncComplete) -> bool:
        """Whether it was a request of ours."""
        return self._tell(message.request, _Event(result=message.result))

    def owner_changed(self) -> None:
        """Whoever worked on our requests may be gone: begin again."""
        for asked in list(self._asked.values()):
            asked.tell(_RESTART)

    def _tell(self, request: AsyncRequestId, event: _Event) -> bool:
        asked = self._asked.get(request)
        if asked is not None:
            asked.tell(event)
        return asked is not None

    # --- serving ---

    def requested(self, message: Any) -> bytes:
        """A request has come in: the answer to it. Only the owner of the lock answers anything."""
        lock = self._image.lock
        if lock is None or not lock.owned or not self._image.serving:
            return b""
        perform = self._perform.get(type(message))
        if perform is None:  # from a later release, or nothing that is asked of an owner
            return response(-errno.EOPNOTSUPP)
        request: AsyncRequestId = message.request
        if request.client == self._image.watch.client:
            return response(-errno.ERESTART)
        with self._guard:
            self._forget()
            known = self._served.get(request)
            if known is not None and known.result is not None and known.message != message:
                known = None  # a handle that was opened again, and counts anew
            if known is None:
                self._served[request] = _Served(message, None, time.monotonic())
        background, what = self._image.background, f"{self._image.header_oid}: request of another client"
        if known is not None:
            if known.result == 0:  # who asks again has not heard of it: after an answer of 0 it waits for it
                background.spawn(self._complete(AsyncComplete(request, 0)), what)
            return response(known.result or 0)
        background.spawn(self._serve(lock, perform, message), what)
        return response(0)

    def _forget(self) -> None:
        oldest = time.monotonic() - _REMEMBERED_SECONDS
        for request, served in list(self._served.items()):
            if served.result is not None and served.since < oldest:
                del self._served[request]

    async def _serve(self, lock: ExclusiveLock, perform: Perform, message: Any) -> None:
        request: AsyncRequestId = message.request
        epoch = await lock.usage.enter()
        try:
            result = await self._attempt(lock, perform, message)
            with self._guard:
                if result == -errno.ERESTART:
                    del self._served[request]
                else:
                    self._served[request] = _Served(message, result, time.monotonic())
            # Before the lock can go: who asked must hear of the result before it hears of another owner.
            heard = await self._complete(AsyncComplete(request, result))
            if heard:
                with self._guard:
                    self._served.pop(request, None)
        finally:
            lock.usage.leave(epoch)

    async def _attempt(self, lock: ExclusiveLock, perform: Perform, message: Any) -> int:
        if not lock.owned:
            return -errno.ERESTART
        try:
            if self._image.stale:
                await self._image.fresh()
            async with self._image.unsure_on_failure():
                await perform(self._image, message, self._reporter(message.request))
        except RadosError as error:
            return -error.errno
        except Exception:
            # Who asked would wait for ever, and nobody else would hear of it.
            log.exception("%s: request of another client", self._image.header_oid)
            return -errno.EIO
        return 0

    def _reporter(self, request: AsyncRequestId) -> Report:
        """Tells the one who asked, now and then, how far it is."""
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PROGRESS_SECONDS:
                last = now
                self._image.background.spawn(self._notify(AsyncProgress(request, done, total)), "notice of progress")

        return report

    async def _complete(self, message: AsyncComplete) -> bool:
        """Whether the one who asked has heard it. Sent again while it lives and does not answer in time."""
        client = message.request.client
        who = client.client, client.handle
        for _ in range(3):
            reply = await self._notify(message)
            if who not in reply.timeouts:
                return any((acknowledger, cookie) == who for acknowledger, cookie, _ in reply.acks)
        return False

    async def _notify(self, message: Message) -> NotifyReply:
        reply: NotifyReply = await self._image.io.notify(
            self._image.header_oid, encode_message(message), NOTIFY_TIMEOUT_MS
        )
        return reply
