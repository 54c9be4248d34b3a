"""Writes that are acknowledged before the cluster has them: what librbd's `rbd_cache` is to a writer.

A write ends once its bytes are kept here; they go out object by object, one operation after the other, each with all that
has gathered for its object by then. So a run of small writes becomes a few large ones, and rewriting costs nothing. What a
flush has acknowledged is on stable storage. What a cluster refuses in the background is lost, as with librbd: the next
flush of each thread that wrote of it says so, once, and of any other that flushes first; or else the close. What else waits
for writes, a snapshot or a diff, takes that from nobody.

What was kept in one term of the exclusive lock is neither written nor shown in another: the lock may have been somebody
else's in between.

Policies, `rbd_cache_policy`: with `writearound` bytes go out at once, or when the operation before them on the same object
has ended; with `writeback` when there are more than `rbd_cache_target_dirty` of them, or after `rbd_cache_max_dirty_age`
seconds. With `writethrough`, or with no `rbd_cache_max_dirty`, there is no cache. Nothing is kept before the first flush
where `rbd_cache_writethrough_until_flush` is set: whoever never flushes does not know that he has to.

Each batch of an object's bytes counts as a write inside the image's gate until it is out. So whatever closes the gate, a
snapshot, a resize, the lock's going elsewhere, finds everything written.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any, Final

from rbd_native.engine import PENDING, Resume, Signal, Task, Waiting
from rbd_native.image.pieces import Pieces, Store, write_steps
from rbd_native.native import threading
from rbd_native.rados.port import Buffer, RadosError

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

log = logging.getLogger(__name__)

_BYPASS: Final = "writethrough"
_LATER: Final = "writeback"


_NO_TERM: Final = 0
"""Of bytes that were accepted where the image had no lock."""
_NOBODYS: Final = -1
"""Where it has one that is not held."""


class _Batch(Pieces):
    """Bytes that go out together, and their place inside the gate. `term`: of the lock under which they were accepted;
    `writers`: the threads that wrote them."""

    __slots__ = ("epoch", "out", "term", "writers")

    def __init__(self, epoch: int, term: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.term = term
        self.out = Signal()
        self.writers: set[int] = set()


class _Loss:
    """Acknowledged bytes that did not go out. `owed`: the writers that have not been told; `told`: who has been."""

    __slots__ = ("epoch", "error", "number", "owed", "told")

    def __init__(self, number: int, batch: _Batch, error: RadosError) -> None:
        self.number = number
        self.epoch = batch.epoch
        self.error = error
        self.owed = set(batch.writers)
        self.told: set[int] = set()


class _Object:
    """What is kept of one object: a batch on its way, and the next one. `busy`: something sees to it."""

    __slots__ = ("busy", "flying", "waiting")

    def __init__(self) -> None:
        self.busy = False
        self.flying: _Batch | None = None
        self.waiting: _Batch | None = None


class WriteCache:
    """Of one open image. `trusting`: whether writes are kept, or still written through."""

    def __init__(self, image: ImageContext, store: Store) -> None:
        settings = image.settings
        self._image = image
        self._store = store
        self._guard = threading.Lock()
        self._objects: dict[int, _Object] = {}
        self._size = 0
        self._losses: list[_Loss] = []
        self._lost = 0
        self._writers: list[Resume] = []
        self._most = settings.integer("rbd_cache_max_dirty")
        self._later = settings.text("rbd_cache_policy") == _LATER
        self._target = min(settings.integer("rbd_cache_target_dirty"), self._most)
        self._age = settings.real("rbd_cache_max_dirty_age")
        self._aging = False
        self._flushes = 0
        self.trusting = not settings.flag("rbd_cache_writethrough_until_flush")
        image.gate.tell(self.push)

    @classmethod
    def of(cls, image: ImageContext, store: Store) -> WriteCache | None:
        """As the image's options want it."""
        settings = image.settings
        wanted = settings.flag("rbd_cache") and settings.text("rbd_cache_policy") != _BYPASS
        return cls(image, store) if wanted and settings.integer("rbd_cache_max_dirty") and not image.read_only else None

    # --- writing ---

    def put(self, objectno: int, start: int, data: Buffer, epoch: int, writer: int) -> None:
        """Keep bytes of an object. `epoch`: of the writer, who is inside the gate. `writer`: its thread."""
        data = _frozen(data)
        outlived = None
        with self._guard:
            term = self._term()
            kept = self._objects.get(objectno)
            if kept is None:
                kept = self._objects[objectno] = _Object()
            if kept.waiting is not None and kept.waiting.term != term:
                outlived, kept.waiting = kept.waiting, None
            if kept.waiting is None:
                kept.waiting = _Batch(self._image.gate.share(epoch), term)
            kept.waiting.writers.add(writer)
            before = kept.waiting.size
            kept.waiting.put(start, data)
            self._size += kept.waiting.size - before
            launch = not kept.busy and (not self._later or self._flushes > 0 or self._image.gate.closing)
            kept.busy = kept.busy or launch
            ages = self._later and not self._aging
            self._aging = self._aging or ages
            full = self._later and self._size > self._target
        if outlived is not None:
            self._lose(outlived, self._outlived())
            self._written(outlived)
        if launch:
            self._launch(objectno, kept)
        if full:
            self.push()
        elif ages:
            self._image.background.spawn(self._push_later(), f"{self._image.name}: write of what has grown old")

    def _term(self) -> int:
        """What bytes that are accepted now depend on."""
        lock = self._image.lock
        if lock is None:
            return _NO_TERM
        return lock.term if lock.owned else _NOBODYS

    def _shown(self, batch: _Batch) -> bool:
        """Whether its bytes are what the image has: they are not where the lock was lost since."""
        return batch.term in (_NO_TERM, self._term())

    @property
    def full(self) -> bool:
        """More is kept than may be."""
        return self._size > self._most

    async def room(self) -> None:
        """Wait until no more is kept than may be: what each writer ends with."""
        while self.full:
            await Waiting(self._wait_for_room)

    def _wait_for_room(self, resume: Resume) -> Any:
        with self._guard:
            if self._size <= self._most:
                return None
            self._writers.append(resume)
        return PENDING

    # --- reading ---

    def has(self, objectno: int) -> bool:
        """Whether it may have a part of an object. If not by now, the cluster has all of it."""
        return objectno in self._objects

    def pieces(self, objectno: int, start: int, end: int) -> list[tuple[int, Buffer]]:
        """What is kept of a part of an object: (start, bytes), the later ones to be laid over the earlier ones. What is not
        among it by now, the cluster has."""
        if not self.has(objectno):
            return []
        with self._guard:
            kept = self._objects.get(objectno)
            if kept is None:
                return []
            batches = [batch for batch in (kept.flying, kept.waiting) if batch is not None and self._shown(batch)]
            return [piece for batch in batches for piece in batch.within(start, end)]

    # --- writing out ---

    def push(self) -> None:
        """See to it that all that is kept goes out."""
        with self._guard:
            idle = [(objectno, kept) for objectno, kept in self._objects.items() if not kept.busy]
            for _, kept in idle:
                kept.busy = True
        for objectno, kept in idle:
            self._launch(objectno, kept)

    async def _push_later(self) -> None:
        await self._image.background.sleep(self._image.io.cluster.sleep(self._age))
        self._aging = False
        self.push()

    async def drain(self, objectno: int) -> None:
        """Wait until what is kept of an object now is out: before something is done to it that is no write."""
        with self._guard:
            kept = self._objects.get(objectno)
            if kept is None:
                return
            batch = kept.waiting or kept.flying
            launch, kept.busy = not kept.busy, True
        if launch:
            self._launch(objectno, kept)
        if batch is not None:
            await batch.out.wait()

    async def flush(self) -> None:
        """Wait until all that is kept now is out. The error of what was lost meanwhile, of which its writers hear, too."""
        first, epoch = self._lost, self._image.gate.epoch
        await self._out()
        with self._guard:
            errors = [loss.error for loss in self._losses if loss.number >= first and loss.epoch <= epoch]
        if errors:
            raise errors[0]

    async def flush_and_tell(self, listener: int | None) -> None:
        """The same on behalf of a thread that wants to know what was lost, also before; None: for all that have not been
        told, and will not be."""
        epoch = self._image.gate.epoch
        await self._out()
        error = self._tell(listener, epoch)
        if error is not None:
            raise error

    async def _out(self) -> None:
        with self._guard:
            self._flushes += 1
        try:
            going = Task(self._image.gate.flush()).launch()
            self.push()
            await going
        finally:
            with self._guard:
                self._flushes -= 1

    def _tell(self, listener: int | None, epoch: int) -> RadosError | None:
        """The first error that the listener has not been told, of what lies before the end of an epoch."""
        if not self._losses:
            return None
        alive = {thread.ident for thread in threading.enumerate()}
        with self._guard:
            losses = [loss for loss in self._losses if loss.epoch <= epoch and listener not in loss.told]
            for loss in losses:
                loss.told.add(listener or 0)
                loss.owed = {writer for writer in loss.owed if writer in alive and writer != listener}
            if listener is None:
                self._losses = []
            self._losses = [loss for loss in self._losses if loss.owed or not loss.told]
        return losses[0].error if losses else None

    def _lose(self, batch: _Batch, error: BaseException) -> None:
        if not isinstance(error, RadosError):
            log.error("%s: acknowledged bytes were not written", self._image.name, exc_info=error)
            error = RadosError(errno.EIO, str(error))
        with self._guard:
            self._losses.append(_Loss(self._lost, batch, error))
            self._lost += 1

    def _launch(self, objectno: int, kept: _Object) -> None:
        """For whoever has made it busy."""
        self._image.background.spawn(self._write_out(objectno, kept), f"{self._image.name}: write of object {objectno}")

    async def _write_out(self, objectno: int, kept: _Object) -> None:
        while (batch := self._take(objectno, kept)) is not None:
            try:
                await self._ensure_allowed(batch)
                await self._store(self._image, objectno, write_steps(self._image, objectno, batch.runs()))
            except BaseException as error:  # whatever it is: the bytes are not out, and somebody believes that they are
                self._lose(batch, error)
            finally:
                kept.flying = None
                self._written(batch)

    async def _ensure_allowed(self, batch: _Batch) -> None:
        """ESHUTDOWN where the lock under which it was accepted has been lost: it may be another's by now. Where it was
        accepted without one, and the image has come to have one, that is taken."""
        image = self._image
        if image.stale:  # another client may have taken a snapshot, where no lock keeps it from that
            await image.fresh()
        lock = image.lock
        if lock is None:
            return
        if batch.term == _NO_TERM:
            await lock.acquire_automatically()
        elif batch.term != self._term():
            raise self._outlived()

    def _outlived(self) -> RadosError:
        return RadosError(errno.ESHUTDOWN, f"{self._image.name}: the exclusive lock was lost before all was written")

    def _take(self, objectno: int, kept: _Object) -> _Batch | None:
        with self._guard:
            kept.flying, kept.waiting = kept.waiting, None
            if kept.flying is None:
                del self._objects[objectno]
            return kept.flying

    def _written(self, batch: _Batch) -> None:
        """It is out, or lost: there is room again, and its place inside the gate is free."""
        with self._guard:
            self._size -= batch.size
            writers: list[Resume] = []
            if self._size <= self._most:
                writers, self._writers = self._writers, writers
        self._image.gate.leave(batch.epoch)
        batch.out.set()
        for resume in writers:
            resume(None)


def _frozen(data: Buffer) -> Buffer:
    """The same bytes where nobody can change them any more."""
    if isinstance(data, bytes) or (isinstance(data, memoryview) and isinstance(data.obj, bytes)):
        return data
    return bytes(data)
