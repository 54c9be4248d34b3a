"""The port over a user's own python-rados connection, with ctypes on the librados that python-rados loaded.

python-rados alone cannot send a compound read, list clones or watchers, or notify with binary payloads, and it copies
what it is given. So the objects' part of the port talks to librados itself, on the connection that the user opened. Where
its C handle cannot be had, :mod:`rbd_native.rados.pure` takes over, with less.

The user's ioctx is only where the pool and the namespace are read from: each :class:`LibradosIo` owns C ioctxs, one per
snapshot context and one per snapshot that is read, and never changes one in use. The user may close his ioctx; his
connection is kept alive; once he has shut it down, every call fails with ESHUTDOWN.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from ctypes import c_uint64
from typing import Any, Final

from rbd_native.native import threading
from rbd_native.rados import _handle, pure
from rbd_native.rados._listing import Listing
from rbd_native.rados._operations import (
    CompoundRead,
    CompoundWrite,
    ReadOne,
    ReadOneInto,
    RemoveOne,
    Settled,
    WriteOne,
    whole_read,
)
from rbd_native.rados._session import Blocking, Context, Session, extras, library
from rbd_native.rados._snapshots import CreateSnap, RemoveSnap, RollBack
from rbd_native.rados._steps import effective, text
from rbd_native.rados._watches import LibradosWatch, Notify, Register
from rbd_native.rados.cluster import RadosCluster
from rbd_native.rados.port import (
    HEAD,
    Call,
    Capability,
    Exec,
    Io,
    ListSnaps,
    ListWatchers,
    OnNotify,
    OnWatchError,
    Operation,
    Outcome,
    RadosError,
    Read,
    ReadInto,
    ReadStep,
    Remove,
    Reply,
    SnapContext,
    Write,
    WriteFull,
    WriteStep,
)
from rbd_native.rados.watchers import find_watchers

_SNAPDIR: Final = 2**64 - 1
"""The snapshot id under which an object's clones are listed."""

_CONTEXTS: Final = 32
"""How many ioctxs for snapshot contexts and snapshots an Io keeps at hand; any in use live on until they are not."""

_clusters: Final[weakref.WeakValueDictionary[tuple[int, bool], RadosCluster]] = weakref.WeakValueDictionary()
_adapting: Final = threading.Lock()


def adapt(ioctx: Any, *, pure_python: bool = False) -> Io:
    """The Io of the pool and namespace of an open `rados.Ioctx`. All of one `rados.Rados` share a Cluster.

    With `pure_python`, or where the connection's C handle cannot be had, it goes through python-rados alone; the
    cluster's `capabilities` then say what is missing.
    """
    rados = _handle.connection_of(ioctx)
    key = id(rados), pure_python  # the id is not given to another object: the cluster holds on to this one
    with _adapting:
        cluster = _clusters.get(key)
        if cluster is None:
            pointer = None if pure_python else _find(ioctx, rados)
            cluster = _clusters[key] = pure.cluster(rados) if pointer is None else _cluster(rados, pointer)
    return cluster.io(ioctx.get_pool_id(), ioctx.get_namespace())


def adapt_connection(rados: Any) -> RadosCluster:
    """The Cluster of a connected `rados.Rados`, for what is not about objects: without an ioctx, its C handle is not looked
    for."""
    with _adapting:
        known = _clusters.get((id(rados), False)) or _clusters.get((id(rados), True))
        if known is None:
            known = _clusters[id(rados), True] = pure.cluster(rados)
        return known


def _find(ioctx: Any, rados: Any) -> int | None:
    try:
        return _handle.find(ioctx, rados, library())
    except (OSError, AttributeError):  # no librados under its name, or one that lacks a function
        return None


def _cluster(rados: Any, pointer: int) -> RadosCluster:
    session = Session(rados, pointer)
    lacking = Capability(0) if extras() else Capability.LIST_SNAPS | Capability.LIST_WATCHERS
    return RadosCluster(
        rados,
        Capability.ALL & ~lacking,
        lambda cluster, pool_id, namespace: LibradosIo(cluster, session, pool_id, namespace),
        lambda function: Blocking(session, function),
    )


class LibradosIo(Io):
    """One namespace of one pool."""

    cluster: RadosCluster

    def __init__(self, cluster: RadosCluster, session: Session, pool_id: int, namespace: str) -> None:
        """RadosError with ENOENT where there is no such pool."""
        self.cluster = cluster
        self.pool_id = pool_id
        self.namespace = namespace
        self._session = session
        self._guard = threading.Lock()
        self._contexts: OrderedDict[Hashable, Context] = OrderedDict()
        self._head = Context(session, pool_id, namespace, lambda pointer: 0)
        self._latest: tuple[SnapContext | None, Context] = (None, self._head)

    # --- ioctxs ---

    def _context(self, key: Hashable, setup: Callable[[int], int]) -> Context:
        """The ioctx for a snapshot or snapshot context, from those at hand or new."""
        with self._guard:
            context = self._contexts.get(key)
            if context is not None:
                self._contexts.move_to_end(key)
                return context
        context = Context(self._session, self.pool_id, self.namespace, setup)
        with self._guard:
            self._contexts[key] = context
            oldest = self._contexts.popitem(last=False) if len(self._contexts) > _CONTEXTS else None
        del oldest  # outside the lock: if this was its last use, it is freed here
        return context

    def _at(self, snap: int) -> Context:
        if snap == HEAD:
            return self._head

        def set_snap(pointer: int) -> int:
            self._session.library.ioctx_snap_set_read(pointer, snap)
            return 0

        return self._context(snap, set_snap)

    def _under(self, snapc: SnapContext | None) -> Context:
        if snapc is None:
            return self._head
        last, context = self._latest
        if snapc is last:  # an image has one, for as long as no snapshot comes or goes
            return context
        context = self._context(snapc, self._set_snapc(snapc))
        self._latest = snapc, context
        return context

    def _set_snapc(self, snapc: SnapContext) -> Callable[[int], int]:
        def set_snapc(pointer: int) -> int:
            ids = (c_uint64 * len(snapc.ids))(*snapc.ids)
            rv: int = self._session.library.ioctx_selfmanaged_snap_set_write_ctx(pointer, snapc.seq, ids, len(snapc.ids))
            return rv

        return set_snapc

    # --- operations ---

    def read(self, oid: str, steps: Sequence[ReadStep], *, snap: int = HEAD) -> Operation:
        name = text(oid)
        try:
            if len(steps) != 1:
                context = self._at(snap)
            else:
                step = steps[0]
                if type(step) is Read and step.length:
                    return ReadOne(self._at(snap), oid, name, step)
                if type(step) is ReadInto:
                    return ReadOneInto(self._at(snap), oid, name, step)
                if type(step) is ListWatchers and not extras():
                    return find_watchers(self, oid)
                context = self._at(_SNAPDIR if type(step) is ListSnaps else snap)
        except RadosError as error:
            return Settled(oid, Reply(-error.errno))
        if not steps:
            return Settled(oid, Reply(0))
        if any(type(step) is Read and not step.length for step in steps):
            return whole_read(self, oid, steps, snap)
        return CompoundRead(context, oid, name, steps)

    def write(self, oid: str, steps: Sequence[WriteStep], *, snapc: SnapContext | None = None) -> Operation:
        name = text(oid)
        try:
            context = self._under(snapc)
        except RadosError as error:
            return Settled(oid, Reply(-error.errno))
        if len(steps) == 1:
            step = steps[0]
            if type(step) is Write:
                return WriteOne(context, oid, name, step.data, step.offset)
            if type(step) is WriteFull:
                return WriteOne(context, oid, name, step.data, None)
            if type(step) is Remove:
                return RemoveOne(context, oid, name)
        for step in steps:
            if effective(step):
                return CompoundWrite(context, oid, name, steps)
        return Settled(oid, Reply(0, (None,) * len(steps)))  # librados sends no operation without steps

    def execute(self, oid: str, step: Exec) -> Operation:
        # As a read, whatever the method does: the OSD goes by the method, and only reads bring back output.
        return CompoundRead(self._head, oid, text(oid), (step,))

    # --- watches ---

    def watch(self, oid: str, on_notify: OnNotify, on_error: OnWatchError, timeout: int = 0) -> Call:
        return Register(LibradosWatch(self._head, text(oid), on_notify, on_error), timeout, oid)

    def notify(self, oid: str, payload: bytes, timeout_ms: int) -> Call:
        return Notify(self._head, oid, text(oid), payload, timeout_ms)

    # --- snapshots ---

    def snap_create(self) -> Call:
        return CreateSnap(self._head, "snapshot")

    def snap_remove(self, snap: int) -> Call:
        return RemoveSnap(self._head, snap)

    def rollback(self, oid: str, snap: int, snapc: SnapContext) -> Call:
        name = text(oid)
        steps = extras()
        if steps is not None:
            try:
                return RollBack(self._under(snapc), oid, name, snap, steps)
            except RadosError as error:
                outcome = Outcome(-error.errno)
                return Blocking(self._session, lambda: outcome, oid)
        roll_back = self._session.library.ioctx_selfmanaged_snap_rollback
        return Blocking(self._session, lambda: Outcome(roll_back(self._under(snapc).pointer, name, snap)), oid)

    # --- the rest ---

    async def list_objects(self) -> AsyncIterator[str]:
        listing = Listing(self._head)
        try:
            while names := await Blocking(self._session, listing.page, "list"):
                for name in names:
                    yield name
        finally:
            listing.close()

    def in_namespace(self, namespace: str) -> Io:
        return LibradosIo(self.cluster, self._session, self.pool_id, namespace)
