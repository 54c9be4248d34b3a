"""The object map of an image's head, kept true while the exclusive lock is held.

The map may say that an object exists which does not; never the opposite. So it is changed before a write makes an object
and after a removal has taken it away, each time on the OSD first and then here. Each change asserts the map's own lock:
one sent by a client that has been fenced and replaced fails, however late it arrives.

A map that is damaged, missing or too small, or a change that fails, makes it invalid: the flags say so to everybody. An
invalid map is kept up, but never trusted, until it is made anew.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from rbd_native import cls_lock, cls_rbd, names
from rbd_native.cls_client import call, decoded, mutate
from rbd_native.constants import (
    RBD_FEATURE_FAST_DIFF,
    RBD_FEATURE_OBJECT_MAP,
    RBD_FLAG_FAST_DIFF_INVALID,
    RBD_FLAG_OBJECT_MAP_INVALID,
    RBD_MAX_OBJECT_MAP_OBJECTS,
)
from rbd_native.engine import KeyedMutex, gather
from rbd_native.image.map_changes import MapChanges
from rbd_native.native import threading
from rbd_native.object_map import BitVector, ObjectMapCorrupt, ObjectState
from rbd_native.rados.port import AssertExists, RadosError, Truncate, WriteStep
from rbd_native.types import LockInfo, LockType

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

_LOCK = cls_lock.lock(names.LOCK_NAME, LockType.EXCLUSIVE, "", "")
_HELD = cls_lock.assert_locked(names.LOCK_NAME, LockType.EXCLUSIVE, "", "")
_LOAD = cls_rbd.object_map_load()
_ATTEMPTS = 3
"""How often what was not answered is sent."""
_FATAL = (errno.ESHUTDOWN, errno.EBUSY)
"""We are fenced, or the map's lock is somebody else's: the lock on the image is lost, and the map not ours to judge."""


class HeadMap:
    """`bits`: as the OSD has them; of a map that could not be read, all that may exist. `trusted`: an object it calls
    absent is absent."""

    def __init__(self, image: ImageContext) -> None:
        self._image = image
        self._oid = names.object_map(image.id)
        self._guard = threading.Lock()
        self._changing = KeyedMutex()
        self._changes = MapChanges(self.update_range)
        self.bits = BitVector()
        self._distrusted = False

    @classmethod
    async def open(cls, image: ImageContext, fetched: bytes | None = None) -> HeadMap | None:
        """Lock and load it, unless :meth:`fetch` has done that; None where the image has none. The caller holds the
        image's lock.

        EROFS where the image has more objects than a map can have, unless its map is said to be invalid: then it has none.
        """
        if not image.header.features & RBD_FEATURE_OBJECT_MAP:
            return None
        objects = image.layout.object_count(image.header.size)
        if objects > RBD_MAX_OBJECT_MAP_OBJECTS:
            if image.header.flags & RBD_FLAG_OBJECT_MAP_INVALID:
                return None
            raise RadosError(errno.EROFS, f"{image.name}: {objects} objects are too many for an object map")
        keeper = cls(image)
        if fetched is None:
            await keeper._lock()
        await keeper._load(fetched)
        return keeper

    @staticmethod
    async def fetch(image: ImageContext) -> bytes | None:
        """Lock and load at once, while the header is being read anew: for whoever has just got the image's lock. None
        where there is no map, by what is known so far, or where that does not go smoothly."""
        if not image.header.features & RBD_FEATURE_OBJECT_MAP:
            return None
        oid = names.object_map(image.id)
        # A map that was taken away meanwhile does not come back by being locked.
        lock: list[WriteStep] = [AssertExists(), _LOCK.step]
        held, loaded = await gather((image.io.write(oid, lock).bare(), image.io.read(oid, [_LOAD.step]).bare()), 2)
        if held.rv not in (0, -errno.EEXIST) or loaded.rv < 0:
            return None
        try:
            return decoded(_LOAD, loaded.outs[0], oid)
        except RadosError:
            return None

    @staticmethod
    async def close(image: ImageContext) -> None:
        """Give its lock back, if it is held. Where that gets no answer, several times, whoever has the image's lock next
        may break it."""
        if not image.header.features & RBD_FEATURE_OBJECT_MAP:
            return
        oid = names.object_map(image.id)
        for _ in range(_ATTEMPTS):
            reply = await image.io.write(oid, [cls_lock.unlock(names.LOCK_NAME, "").step]).bare()
            if reply.rv != -errno.ETIMEDOUT:
                break
        if reply.rv < 0 and reply.rv not in (-errno.ENOENT, -errno.ETIMEDOUT):
            raise RadosError(-reply.rv, oid, reply)

    async def _lock(self) -> None:
        """Whoever has it does not own the image any more: the image's own lock fenced him, if that was needed."""
        io = self._image.io
        while (reply := await io.write(self._oid, [_LOCK.step]).bare()).rv == -errno.EBUSY:
            info: LockInfo = await call(io, self._oid, cls_lock.get_info(names.LOCK_NAME))
            for who in info.lockers:
                broken = cls_lock.break_lock(names.LOCK_NAME, who.name, who.cookie)
                await io.write(self._oid, [broken.step]).bare()
        if reply.rv < 0 and reply.rv != -errno.EEXIST:
            raise RadosError(-reply.rv, self._oid, reply)

    async def _load(self, fetched: bytes | None) -> None:
        objects = self._image.layout.object_count(self._image.header.size)
        try:
            raw = await call(self._image.io, self._oid, _LOAD) if fetched is None else fetched
            self.bits = BitVector.decode(raw)
        except RadosError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT, errno.EIO):
                raise
            await self._doubt(objects)
            if error.errno != errno.ENOENT:  # an object without any data is left as it is, until the image is resized
                await self._write(Truncate(0), _resize(objects))
        except ObjectMapCorrupt:
            await self._doubt(objects)
            await self._write(Truncate(0), _resize(objects))
        else:
            if len(self.bits) < objects:
                await self._doubt(objects)
                await self._write(_resize(objects))

    async def _doubt(self, objects: int) -> None:
        """What the OSD has is of no use: here, all that may exist counts as existing."""
        self.bits = BitVector(objects, ObjectState.EXISTS)
        await self.invalidate()

    async def invalidate(self) -> None:
        """Say that the map is not to be believed. It is kept up all the same."""
        self._distrusted = True
        image = self._image
        flags = RBD_FLAG_OBJECT_MAP_INVALID
        if image.header.features & RBD_FEATURE_FAST_DIFF:
            flags |= RBD_FLAG_FAST_DIFF_INVALID
        await mutate(image.io, image.header_oid, cls_rbd.set_flags(flags, flags))
        image.invalidate()

    # --- what it says ---

    @property
    def trusted(self) -> bool:
        return not self._distrusted and not self._image.header.flags & RBD_FLAG_OBJECT_MAP_INVALID

    def may_exist(self, objectno: int) -> bool:
        """Whether the object may be there."""
        try:
            return self.bits[objectno] is not ObjectState.NONEXISTENT or not self.trusted
        except IndexError:  # beyond its end
            return True

    # --- changing it ---

    def unaware(self, objectno: int) -> bool:
        """Whether :meth:`will_write` has something to do."""
        try:
            return self.bits[objectno] is not ObjectState.EXISTS
        except IndexError:
            return False

    async def will_write(self, objectno: int) -> None:
        """Before a write to an object."""
        if self.unaware(objectno):
            await self.update(objectno, ObjectState.EXISTS)

    async def update(self, objectno: int, state: ObjectState, expected: ObjectState | None = None) -> None:
        """Set one entry, there and here. Changes of the same entry wait for each other."""
        await self._changing.enter(objectno)
        try:
            if objectno < len(self.bits) and self._matter(objectno, objectno + 1, state, expected):
                await self._changes.make(objectno, (state, expected))
        finally:
            self._changing.leave(objectno)

    async def update_range(self, start: int, end: int, state: ObjectState, expected: ObjectState | None = None) -> None:
        """Set the entries of a range, or those of the expected state (EXISTS is also EXISTS_CLEAN)."""
        end = min(end, len(self.bits))
        if start >= end or not self._matter(start, end, state, expected):
            return
        if await self._change(cls_rbd.object_map_update(start, end, state, expected).step):
            with self._guard:  # four entries share a byte
                self.bits.set_range(start, end, state, expected)

    def _matter(self, start: int, end: int, state: ObjectState, expected: ObjectState | None) -> bool:
        """Whether any entry changes. An object that does not exist need not be noted as about to go."""
        if state is ObjectState.PENDING and expected is None:
            expected = ObjectState.EXISTS
        if end - start == 1:
            now = self.bits[start]
            same = expected is None or now is expected
            return (same or (now, expected) == (ObjectState.EXISTS_CLEAN, ObjectState.EXISTS)) and now is not state
        found = dict(zip(ObjectState, self.bits.counts(start, end), strict=True))
        if expected is None:
            return found[state] < end - start
        also = found[ObjectState.EXISTS_CLEAN] if expected is ObjectState.EXISTS else 0
        return found[expected] + also > 0

    async def resize(self, objects: int) -> None:
        """New entries are of objects that do not exist; those that are dropped must be."""
        if await self._change(_resize(objects)):
            with self._guard:
                self.bits.resize(objects)

    async def replace(self, bits: BitVector) -> None:
        """Save another map in its place, whole, in one step."""
        if await self._change(cls_rbd.object_map_save(bits.encode()).step):
            with self._guard:
                self.bits = bits

    async def snap_add(self) -> None:
        """A snapshot was taken: what exists is as it is in it."""
        if await self._change(cls_rbd.object_map_snap_add().step):
            with self._guard:
                self.bits.snap_add()

    async def snap_remove(self, removed: BitVector) -> None:
        """The newest snapshot goes: what it saw change has changed since the one before it."""
        if await self._change(cls_rbd.object_map_snap_remove(removed.encode(with_crcs=False)).step):
            with self._guard:
                self.bits.snap_remove(removed)

    async def _change(self, step: WriteStep) -> bool:
        """Whether it was made. Where it fails, and we are not fenced, the map is invalid, and the image goes on."""
        try:
            await self._write(step)
        except RadosError as error:
            if error.errno in _FATAL:
                if self._image.lock is not None:
                    self._image.lock.lost()
                raise
            if error.errno == errno.ENOENT:  # librbd turns the feature off without asking the owner
                self._image.invalidate()
                await self._image.fresh()
            if self._image.header.features & RBD_FEATURE_OBJECT_MAP:
                await self.invalidate()
            return False
        return True

    async def _write(self, *steps: WriteStep) -> None:
        await self._image.io.write(self._oid, [_HELD.step, *steps])


def _resize(objects: int) -> WriteStep:
    """New entries say that there is no object."""
    return cls_rbd.object_map_resize(objects, ObjectState.NONEXISTENT).step
