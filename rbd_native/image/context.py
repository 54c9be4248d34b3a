"""An open image: what it is made of, how it follows what other clients do to it, and how it ends.

A handle that may write watches the image's header. Each header update that is announced, by anybody, counts; what the
handle knows (:mod:`rbd_native.image.state`) tells how many of them it covers. Nobody acts on a state that covers less than
was announced when the act began: it is read anew first, and whoever comes meanwhile waits for that, too. So a write never
uses a snapshot context or a size that was replaced before it began. A handle that only reads keeps what it saw when it was
opened, as librbd's does.

The watch is registered before the header is read for the first time: no update can fall in between.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from rbd_native import header as headers
from rbd_native import header_v1, names
from rbd_native.cls_client import ClassCall
from rbd_native.constants import RBD_FEATURE_NON_PRIMARY, RBD_FEATURES_ALL
from rbd_native.engine import KeyedMutex, Mutex, gather
from rbd_native.header import Fixed, Header, Snapshot
from rbd_native.image import state as states
from rbd_native.image import unsupported
from rbd_native.image.background import Background
from rbd_native.image.exclusion import Exclusion, Operation
from rbd_native.image.exclusive_lock import NOTIFY_TIMEOUT_MS, ExclusiveLock
from rbd_native.image.gate import UnderWay, WriteGate
from rbd_native.image.gathering import Gathering
from rbd_native.image.head_map import HeadMap
from rbd_native.image.readahead import ReadAhead
from rbd_native.image.requests import Perform, Requests
from rbd_native.image.snap_map import SnapMap
from rbd_native.image.state import ImageState
from rbd_native.image.timestamps import Timestamps
from rbd_native.image.watch import ImageWatch
from rbd_native.image.write_cache import WriteCache
from rbd_native.native import threading
from rbd_native.options import Settings
from rbd_native.rados.port import AllocHint, AssertExists, Io, RadosError, SnapContext, WriteStep
from rbd_native.striping import Layout
from rbd_native.types import EntityAddress, UserSnapshotNamespace
from rbd_native.watch_notify import HeaderUpdate, Message, encode_message

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
        self.announced = 0
        """Updates of the header, and whatever else may have changed it."""
        self.serving = True
        self.header_oid = names.header(identifier) if identifier else names.old_header(name)
        self.reading = UnderWay()
        """Reads."""
        self.entering = UnderWay()
        """Writes that wait at the gate, for a current state or for the lock."""
        self.copyups = KeyedMutex()
        self.gate = WriteGate()
        self.exclusion = Exclusion()
        self.background = Background()
        self.timestamps = Timestamps(self)
        self._guard = threading.Lock()
        """Around what several threads replace: the state, and the count of updates."""
        self._refreshing = Mutex()
        self.watch = ImageWatch(self)
        self._own_lock = ExclusiveLock(self)
        self.lock: ExclusiveLock | None = None
        """Where the image has one, and this handle may write."""
        self.cache: WriteCache | None = None
        self.gathering: Gathering | None = None
        self.snap_map = SnapMap(self)
        self.ahead: ReadAhead | None = None
        self.requests = Requests(self, perform)
        self._perform = perform
        self.fixed: Fixed
        self.layout: Layout
        self._name_format: str
        self._line: _Line = frozenset()
        self.state: ImageState

    # --- what it is ---

    @property
    def old_format(self) -> bool:
        """Whether it has format 1."""
        return not self.id

    @property
    def stale(self) -> bool:
        """More was announced than is known."""
        return self.state.covers != self.announced

    @property
    def header(self) -> Header:
        return self.state.header

    @property
    def settings(self) -> Settings:
        return self.state.settings

    @property
    def hints(self) -> tuple[AllocHint, ...]:
        return self.state.hints

    @property
    def parent(self) -> ImageContext | None:
        return self.state.parent

    @property
    def snap(self) -> Snapshot | None:
        """The snapshot that the handle is set to."""
        return self.state.snapshot

    @property
    def snap_gone(self) -> bool:
        return self.state.snapshot_gone

    @property
    def size(self) -> int:
        """Bytes, at the snapshot the handle is set to; 0 where that is gone."""
        return self.state.size

    @property
    def overlap(self) -> int:
        """Bytes from the start that the parent has, where this image has no object; 0 without a parent."""
        return self.state.overlap

    @property
    def widest_overlap(self) -> int:
        """The overlap of the head or of that snapshot where it is widest."""
        return states.widest_overlap(self.state.header)

    @property
    def flags(self) -> int:
        return self.state.flags

    @property
    def snapc(self) -> SnapContext:
        return self.state.header.snapc

    @property
    def read_snap(self) -> int:
        """The snapshot id that reads carry."""
        return self.state.read_snap

    @property
    def read_only(self) -> bool:
        """Opened so, or the image is primary at another site: then only mirroring itself writes to it."""
        return self._read_only_at(self.state)

    def _read_only_at(self, state: ImageState) -> bool:
        if self.opened_read_only:
            return True
        return bool(state.header.features & RBD_FEATURE_NON_PRIMARY) and not self.serves_mirroring

    @property
    def frozen(self) -> bool:
        """No data can be written through this handle, not even while mirroring itself is at work through it."""
        state = self.state
        primary_elsewhere = state.header.features & RBD_FEATURE_NON_PRIMARY
        return self.opened_read_only or bool(primary_elsewhere) or state.snapshot is not None

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
            covers = self.announced
            self.fixed, header = await self._read()
            self.layout = self.fixed.layout
            self._name_format = f"{self.fixed.prefix.replace('%', '%%')}.%0{self.fixed.digits}x"
            self._check(header)
            if self.fixed.data_pool != -1:
                self.data_io = self.io.cluster.io(self.fixed.data_pool, self.io.namespace)
            new = self._new_state(header, pool_config)
            self._install(new)
            self._install(replace(await self._with_its_parent(new), covers=covers))
            if snapshot is not None:
                await self.set_snap(snapshot)
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
        and nothing of it is under way, even where it fails: with the first error, unless that only says that this client
        was fenced, and so has nothing left to give back."""
        self.background.hurry()
        first: BaseException | None = None
        steps = (
            self.settle,
            self._give_back_lock,
            self.watch.close,
            self.reading.flush,
            self.background.end,
            self._close_parent,
        )
        for step in steps:
            try:
                await step()
            except BaseException as error:  # the next step is none the less to be done
                fenced = isinstance(error, RadosError) and error.errno == errno.ESHUTDOWN
                if first is None and not (fenced and step != self.settle):
                    first = error
        if first is not None:
            raise first

    async def settle(self, listener: int | None = None) -> None:
        """Wait until the writes that have begun are on stable storage, also those that still wait for the lock. Raises the
        error of one that was lost since it was acknowledged, unless the thread that listens has been told (by default,
        unless all who wrote have)."""
        await self.entering.flush()
        await (self.gate.flush() if self.cache is None else self.cache.flush_and_tell(listener))

    async def _give_back_lock(self) -> None:
        await self._own_lock.release(heard=True)

    async def _close_parent(self) -> None:
        if (parent := self._parent_if_open) is not None:
            await parent.close()

    @property
    def _parent_if_open(self) -> ImageContext | None:
        """None also where opening has not come that far."""
        return self.state.parent if hasattr(self, "state") else None

    def _check(self, header: Header) -> None:
        if header.incompatible & ~RBD_FEATURES_ALL:
            raise RadosError(errno.ENOSYS, f"image {self.name} has features this client does not know")
        reason = unsupported.reason(header, read_only=self.opened_read_only)
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
        if key is not None:
            self._whole(self._find_snapshot(key))
            if self.lock is not None:
                await self.lock.release()
        with self._guard:  # the state may be another by now, and the snapshot with it
            self.state = self.state.at(None if key is None else self._find_snapshot(key))

    def _whole(self, snapshot: Snapshot) -> Snapshot:
        """ENOENT where the parent that it needs is gone."""
        if snapshot.parent_overlap and self.parent is None and self._with_parent:
            raise RadosError(errno.ENOENT, f"parent of {self.name}@{snapshot.info.name}")
        return snapshot

    # --- its parent ---

    async def _with_its_parent(self, new: ImageState) -> ImageState:
        """The same with the parent open, at the snapshot the image was cloned from, while any overlap with it is left."""
        wanted = new.header.parent if states.widest_overlap(new.header) and self._with_parent else None
        if wanted is None:
            return new
        before = self._parent_if_open
        if before is not None and self.state.parent_spec == wanted:
            return replace(new, parent=before, parent_spec=wanted)
        line = self._line | {(self.io.pool_id, self.io.namespace, self.id)}
        if (wanted.pool_id, wanted.pool_namespace, wanted.image_id) in line:
            raise RadosError(errno.ELOOP, f"image {self.name} is its own ancestor")
        io = self.io.cluster.io(wanted.pool_id, wanted.pool_namespace)
        try:
            parent = await self.open_relative(io, wanted.image_id, wanted.snap_id, read_only=True, line=line)
        except RadosError as error:
            # A librbd that flattens a head whose bond holds nothing takes the parent from its snapshots, too: what
            # needs none can still be read.
            if error.errno != errno.ENOENT or new.follow(self.state).overlap:
                raise
            return new
        return replace(new, parent=parent, parent_spec=wanted)

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

    def invalidate(self) -> None:
        """What is known may not be so any more: nobody acts on it before it has been read anew."""
        with self._guard:
            self.announced += 1

    async def fresh(self, *, pool_too: bool = True) -> None:
        """Make the state cover all that has been announced by now: what every operation begins with where it is `stale`.
        `pool_too`: also the options that the pool gives its images."""
        wanted = self.announced
        async with self._refreshing:
            if self.state.covers < wanted:
                await self._read_anew(pool_too=pool_too)

    async def _read_anew(self, *, pool_too: bool) -> None:
        covers = self.announced
        if self.watch.lost:
            await self.watch.register()
        reading: list[Coroutine[Any, Any, Any]] = []
        reading.append(self._refresh())
        if pool_too:
            reading.append(headers.pool_config(self.io))
        header, *configs = await gather(reading, 2)
        self._check(header)
        before = self.state
        new = await self._with_its_parent(self._new_state(header, *configs))
        self._install(new)  # which nobody acts on yet
        try:
            if self.lock is not None:
                await self.lock.follow_features(before.header.features)
        finally:
            if before.parent is not None and before.parent is not new.parent:
                await before.parent.close()
        with self._guard:
            self.state = replace(self.state, covers=covers)

    def _new_state(self, header: Header, pool_config: Mapping[str, bytes] | None = None) -> ImageState:
        """What a header says, and what follows from it; not to be acted on yet, and without the parent."""
        config = self.state.pool_config if pool_config is None else pool_config
        settings = Settings(self.io.cluster.conf_get, config, header.config)
        return ImageState(states.NOTHING, header, config, settings, states.allocation_hints(settings, self.layout))

    def _install(self, new: ImageState) -> None:
        with self._guard:
            if hasattr(self, "state"):
                new = new.follow(self.state)
            self.state = new
        self.timestamps.follow(new.header, new.settings)
        wanted = new.has_lock and not self._read_only_at(new)
        if self.lock is not None and not wanted:  # else what is held would look like the lock of a dead client
            self.background.spawn(self.lock.release(), f"{self.header_oid}: release of the exclusive lock")
        self.lock = self._own_lock if wanted else None

    async def under_lock(self, work: Callable[[], Awaitable[None]], *, ask: bool = True) -> None:
        """Do something for which the exclusive lock must stay held. EROFS where it cannot be had. `ask`: whether a living
        owner is asked for it."""
        while (lock := self.lock) is not None:
            epoch = await lock.usage.enter()
            try:
                if lock.owned:
                    async with self.unsure_on_failure():
                        await work()
                    return
            except RadosError as error:
                if error.errno != errno.ERESTART:  # the lock was lost before anything was done
                    raise
            finally:
                lock.usage.leave(epoch)
            if not await lock.acquire(wait=ask):
                raise RadosError(errno.EROFS, f"another client owns the exclusive lock of {self.name}")
        async with self.unsure_on_failure():
            await work()

    @contextlib.asynccontextmanager
    async def alone(self, operation: Operation, *, locked: bool = True) -> AsyncIterator[None]:
        """Nothing is under way meanwhile that may not overlap with the operation, and the state is current. ERESTART where
        the exclusive lock was lost before that, unless it is not needed: `locked`."""
        async with self.exclusion.hold(operation):
            if self.stale:
                await self.fresh()
            if locked and self.lock is not None and not self.lock.owned:
                raise RadosError(errno.ERESTART, f"the exclusive lock of {self.name} was lost")
            yield

    @contextlib.asynccontextmanager
    async def writes_blocked(self) -> AsyncIterator[None]:
        """No write is under way, and none begins. Whoever writes next reads the state anew: also where what was done inside
        has failed, and may have been done all the same."""
        async with self.gate.shut():
            try:
                if self.stale:
                    await self.fresh()
                yield
            finally:
                self.invalidate()

    @contextlib.asynccontextmanager
    async def unsure_on_failure(self) -> AsyncIterator[None]:
        """What has failed after it was sent may have been done: then the state is not to be relied on."""
        try:
            yield
        except BaseException:
            self.invalidate()
            raise

    async def fence(self, address: EntityAddress) -> None:
        """Keep a client from ever writing again, and see to it that our own next operation comes after that."""
        cluster = self.io.cluster
        await cluster.blocklist_add(str(address), self.settings.integer("rbd_blocklist_expire_seconds"))
        await cluster.wait_for_latest_map()

    async def update_header(self, *calls: ClassCall[Any]) -> None:
        """Change the header by methods of its class, in one operation, and tell everybody. ENOENT where the image has been
        removed: most methods would make a header anew."""
        steps: list[WriteStep] = [AssertExists(), *(request.step for request in calls)]
        async with self.unsure_on_failure():
            await self.io.write(self.header_oid, steps)
        await self.changed()

    async def changed(self) -> None:
        """Tell every other client that the header has changed; this one reads it anew too.

        Clients that do not answer in time are not waited for longer: they have lost their watch, or soon will.
        """
        self.invalidate()
        await self.io.notify(self.header_oid, encode_message(HeaderUpdate()), NOTIFY_TIMEOUT_MS)
