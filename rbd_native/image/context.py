"""The state of an open image, and how it follows what other clients do to it.

A handle that may write watches the image's header. A header update from anybody marks the state stale, and the next
operation reads it anew before it does anything: so a write never uses a snapshot context or a size that was replaced
before it began. A handle that only reads keeps what it saw when it was opened, as librbd's does.

The watch is registered before the header is read for the first time: no update can fall in between.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from rbd_native import header as headers
from rbd_native import header_v1, names
from rbd_native.constants import RBD_FEATURE_EXCLUSIVE_LOCK, RBD_FEATURE_NON_PRIMARY, RBD_FEATURES_ALL
from rbd_native.engine import KeyedMutex, Mutex, gather, spawn
from rbd_native.header import Fixed, Header, Snapshot
from rbd_native.image import unsupported
from rbd_native.image.exclusive_lock import NOTIFY_TIMEOUT_MS, ExclusiveLock
from rbd_native.image.gate import UnderWay, WriteGate
from rbd_native.image.gathering import Gathering
from rbd_native.image.head_map import HeadMap
from rbd_native.image.readahead import ReadAhead
from rbd_native.image.requests import Perform, Requests
from rbd_native.image.snap_map import SnapMap
from rbd_native.image.timestamps import Timestamps
from rbd_native.image.watch import ImageWatch
from rbd_native.image.write_cache import WriteCache
from rbd_native.options import Settings
from rbd_native.rados.port import HEAD, AllocHint, Io, RadosError, SnapContext
from rbd_native.striping import Layout
from rbd_native.types import EntityAddress, ParentImageSpec, UserSnapshotNamespace
from rbd_native.watch_notify import HeaderUpdate, Message, encode_message

_COMPRESSION_HINTS = {"compressible": 256, "incompressible": 512}
"""The flags of an allocation hint: LIBRADOS_ALLOC_HINT_FLAG_*."""

_Line = frozenset[tuple[int, str, str]]
"""Images, by pool, namespace and id, each of which has the next one as its parent."""


class ImageContext:
    """One open image. `io` is where its metadata lies, `data_io` where its data objects do.

    `serving`: as the owner of the lock it does what other clients ask for; else they have to ask until another owns it.

    `identifier`: "" for an image of format 1, which has its name alone.
    """

    def __init__(
        self, io: Io, identifier: str, name: str, perform: dict[type[Message], Perform], *, read_only: bool
    ) -> None:
        self.io = io
        self.data_io = io
        self.id = identifier
        self.name = name
        self.opened_read_only = read_only
        self.serves_mirroring = 0
        """How many parts of mirroring itself are at work through this handle."""
        self.stale = False
        self.serving = True
        self.snap: Snapshot | None = None
        self.snap_gone = False
        self.header_oid = names.header(identifier) if identifier else names.old_header(name)
        self.entering = UnderWay()
        """Writes that wait at the gate, for a current state or for the lock."""
        self.copyups = KeyedMutex()
        self.gate = WriteGate()
        self.timestamps = Timestamps(self)
        self._refreshing = Mutex()
        self.watch = ImageWatch(self)
        self.lock: ExclusiveLock | None = None
        self.parent: ImageContext | None = None
        self.cache: WriteCache | None = None
        self.gathering: Gathering | None = None
        self.snap_map = SnapMap(self)
        self.ahead: ReadAhead | None = None
        self.requests = Requests(self, perform)
        self._perform = perform
        self.fixed: Fixed
        self.layout: Layout
        self.hints: tuple[AllocHint, ...] = ()
        """What a write tells the OSD of an object that may be new."""
        self._name_format: str
        self._parent_spec: ParentImageSpec | None = None
        self._line: _Line = frozenset()
        self._pool_config: Mapping[str, bytes] = {}
        self.header: Header
        self.settings: Settings

    # --- what it is ---

    @property
    def old_format(self) -> bool:
        """Whether it has format 1."""
        return not self.id

    @property
    def size(self) -> int:
        """Bytes, at the snapshot the handle is set to; 0 where that is gone."""
        if self.snap_gone:
            return 0
        return self.header.size if self.snap is None else self.snap.info.image_size

    @property
    def overlap(self) -> int:
        """Bytes from the start that the parent has, where this image has no object; 0 without a parent."""
        return self.header.parent_overlap if self.snap is None else self.snap.parent_overlap

    @property
    def widest_overlap(self) -> int:
        """The overlap of the head or of that snapshot where it is widest."""
        return max(self.header.parent_overlap, *(s.parent_overlap for s in self.header.snapshots), 0)

    @property
    def flags(self) -> int:
        return self.header.flags if self.snap is None else self.snap.flags

    @property
    def snapc(self) -> SnapContext:
        return self.header.snapc

    @property
    def read_snap(self) -> int:
        """The snapshot id that reads carry."""
        return HEAD if self.snap is None else self.snap.info.id

    @property
    def read_only(self) -> bool:
        """Opened so, or the image is primary at another site: then only mirroring itself writes to it."""
        if self.opened_read_only:
            return True
        return bool(self.header.features & RBD_FEATURE_NON_PRIMARY) and not self.serves_mirroring

    @property
    def frozen(self) -> bool:
        """Nothing can be written through this handle."""
        return self.read_only or self.snap is not None

    @property
    def has_lock(self) -> bool:
        return bool(self.header.features & RBD_FEATURE_EXCLUSIVE_LOCK)

    @property
    def head_map(self) -> HeadMap | None:
        """The head's object map, while this handle keeps it."""
        return self.lock.map if self.lock is not None else None

    def object_name(self, objectno: int) -> str:
        return self._name_format % objectno

    @property
    def may_write(self) -> bool:
        """The state is current and, where the image has a lock, it is held."""
        return not self.stale and (self.lock is None or self.lock.owned)

    def _current(self, header: Header, pool_config: Mapping[str, bytes] | None = None) -> None:
        self.header = header
        if pool_config is not None:
            self._pool_config = pool_config
        if self.snap is not None:  # its record may have changed
            at = self.snap.info.id
            found = next((s for s in header.snapshots if s.info.id == at), None)
            self.snap, self.snap_gone = found or self.snap, found is None
        wanted = self.has_lock and not self.read_only
        if wanted != (self.lock is not None):
            if self.lock is not None:  # the feature is off: what was held would look like the lock of a dead client
                spawn(self.lock.release(), f"{self.header_oid}: release of the exclusive lock")
            self.lock = ExclusiveLock(self) if wanted else None
        self.settings = Settings(self.io.cluster.conf_get, self._pool_config, header.config)
        self.timestamps.follow(header, self.settings)
        self.hints = (self._hint(),) if self.settings.flag("rbd_enable_alloc_hint") else ()

    def _hint(self) -> AllocHint:
        size = self.layout.object_size
        return AllocHint(size, size, _COMPRESSION_HINTS.get(self.settings.text("rbd_compression_hint"), 0))

    # --- open and close ---

    async def open(
        self, snapshot: str | int | None, pool_config: Mapping[str, bytes], *, with_parent: bool = True
    ) -> ImageContext:
        """`pool_config`: the options that the pool gives its images, as just read. `with_parent` False leaves the parent
        alone: enough for what reads and writes nothing that it may have, but not for what others may ask for, which is
        flattening, too."""
        self._with_parent = self.serving = with_parent
        try:
            if not self.opened_read_only:
                await self.watch.register()
            self.fixed, header = await self._read()
            self.layout = self.fixed.layout
            self._name_format = f"{self.fixed.prefix.replace('%', '%%')}.%0{self.fixed.digits}x"
            self._current(header, pool_config)
            self._check()
            await self._follow_parent()
            if self.fixed.data_pool != -1:
                self.data_io = self.io.cluster.io(self.fixed.data_pool, self.io.namespace)
            if snapshot is not None:
                self.snap = self._whole(self._find_snapshot(snapshot))
        except BaseException:
            await self.close()
            raise
        return self

    async def _read(self) -> tuple[Fixed, Header]:
        if self.old_format:
            return await header_v1.read(self.io, self.name)
        return await headers.read(self.io, self.id, read_only=self.opened_read_only)

    async def _refresh(self) -> Header:
        if self.old_format:
            return await header_v1.refresh(self.io, self.name)
        return await headers.refresh(self.io, self.id, read_only=self.opened_read_only)

    def moved(self, name: str) -> None:
        """It has another name now. A header of format 1 moves with it, and is watched there from the next registration."""
        self.name = name
        if self.old_format:
            self.header_oid = names.old_header(name)

    async def close(self) -> None:
        """Write out what is cached, give back the lock, if it is held, and stop watching. The handle is of no use after it,
        even where that fails."""
        try:
            await self.settle()
        finally:
            try:
                if self.lock is not None:
                    await self.lock.release(heard=True)
            except RadosError as error:
                if error.errno != errno.ESHUTDOWN:  # fenced: there is nothing left to give back
                    raise
            finally:
                await self.watch.close()
                if self.parent is not None:
                    await self.parent.close()

    async def settle(self) -> None:
        """Wait until the writes that have begun are on stable storage, also those that still wait for the lock."""
        await self.entering.flush()
        await (self.gate.flush() if self.cache is None else self.cache.flush())

    def _check(self) -> None:
        if self.header.incompatible & ~RBD_FEATURES_ALL:
            raise RadosError(errno.ENOSYS, f"image {self.name} has features this client does not know")
        reason = unsupported.reason(self.header, read_only=self.opened_read_only)
        if reason is not None:
            raise RadosError(errno.ENOSYS, f"image {self.name}: {reason}")

    def _find_snapshot(self, key: str | int) -> Snapshot:
        """By id, or by name among those that users made."""
        for snapshot in self.header.snapshots:
            info = snapshot.info
            if info.id == key or (info.name == key and isinstance(info.namespace, UserSnapshotNamespace)):
                return snapshot
        raise RadosError(errno.ENOENT, f"{self.name}@{key}")

    async def set_snap(self, key: str | int | None) -> None:
        """Set the handle to a snapshot, by name or id, or back to the head. ENOENT."""
        if self.stale:
            await self.fresh()
        snapshot = None if key is None else self._whole(self._find_snapshot(key))
        if snapshot is not None and self.lock is not None:
            await self.lock.release()
        self.snap, self.snap_gone = snapshot, False

    def _whole(self, snapshot: Snapshot) -> Snapshot:
        """ENOENT where the parent that it needs is gone."""
        if snapshot.parent_overlap and self.parent is None and self._with_parent:
            raise RadosError(errno.ENOENT, f"parent of {self.name}@{snapshot.info.name}")
        return snapshot

    # --- its parent ---

    async def _follow_parent(self) -> None:
        """Have the parent open, at the snapshot the image was cloned from, while any overlap with it is left."""
        wanted = self.header.parent if self.widest_overlap and self._with_parent else None
        if self._parent_spec == wanted:
            return
        old, self.parent, self._parent_spec = self.parent, None, None
        if old is not None:
            await old.close()
        if wanted is not None:
            line = self._line | {(self.io.pool_id, self.io.namespace, self.id)}
            if (wanted.pool_id, wanted.pool_namespace, wanted.image_id) in line:
                raise RadosError(errno.ELOOP, f"image {self.name} is its own ancestor")
            io = self.io.cluster.io(wanted.pool_id, wanted.pool_namespace)
            try:
                self.parent = await self.open_relative(io, wanted.image_id, wanted.snap_id, read_only=True, line=line)
            except RadosError as error:
                # A librbd that flattens a head whose bond holds nothing takes the parent from its snapshots, too: what
                # needs none can still be read.
                if error.errno != errno.ENOENT or self.overlap:
                    raise
                return
            self._parent_spec = wanted

    async def open_relative(
        self,
        io: Io,
        identifier: str,
        snap: int | None = None,
        *,
        read_only: bool = False,
        with_parent: bool = True,
        line: _Line = frozenset(),
    ) -> ImageContext:
        """Open another image, by its id, as this one was opened. `line`: of whom it is the parent, and so on."""
        reading: list[Coroutine[Any, Any, Any]] = [headers.name_of(io, identifier), headers.pool_config(io)]
        name, pool_config = await gather(reading, 2)
        image = ImageContext(io, identifier, name, self._perform, read_only=read_only)
        image._line = line
        return await image.open(snap, pool_config, with_parent=with_parent)

    # --- following others ---

    async def fresh(self, *, pool_too: bool = True) -> None:
        """Make the state current: what every operation begins with where `stale` is set. `pool_too`: also the options
        that the pool gives its images."""
        async with self._refreshing:
            if not self.stale:
                return
            self.stale = False  # an update from here on asks for another round
            try:
                if self.watch.lost:
                    await self.watch.register()
                reading: list[Coroutine[Any, Any, Any]] = []
                reading.append(self._refresh())
                if pool_too:
                    reading.append(headers.pool_config(self.io))
                header, *configs = await gather(reading, 2)
                before = self.header.features
                self._current(header, *configs)
                if self.lock is not None:
                    await self.lock.follow_features(before)
                await self._follow_parent()
                self._check()
            except BaseException:
                self.stale = True
                raise

    async def under_lock(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for which the exclusive lock must stay held. EROFS where it cannot be had."""
        while (lock := self.lock) is not None:
            epoch = await lock.usage.enter()
            try:
                if lock.owned:
                    await work()
                    return
            finally:
                lock.usage.leave(epoch)
            await lock.acquire_automatically()
        await work()

    async def fence(self, address: EntityAddress) -> None:
        """Keep a client from ever writing again, and see to it that our own next operation comes after that."""
        cluster = self.io.cluster
        await cluster.blocklist_add(str(address), self.settings.integer("rbd_blocklist_expire_seconds"))
        await cluster.wait_for_latest_map()

    async def changed(self) -> None:
        """Tell every other client that the header has changed; this one reads it anew too.

        Clients that do not answer in time are not waited for longer: they have lost their watch, or soon will.
        """
        self.stale = True
        await self.io.notify(self.header_oid, encode_message(HeaderUpdate()), NOTIFY_TIMEOUT_MS)
