"""The embedded OSD: operations on objects, each one transaction of the store.

A write first asks all its steps (which note what they want done, see :mod:`rbd_native.embedded.change`), then does
it: the clone that snapshots need, the noted changes in their order, and at last the object's row.
"""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rbd_native.cls_client import Access
from rbd_native.embedded import context, objects, snapshots, steps, watches
from rbd_native.embedded.change import NO_SNAPS, Change, Refusal
from rbd_native.embedded.objclass import Entity
from rbd_native.embedded.objects import Row
from rbd_native.embedded.store import FAULTS, HEAD_STATE, Store, errno_of
from rbd_native.rados import port
from rbd_native.rados.port import HEAD, Exec, Reply, SnapContext, failure

MAX_NAME: Final = 2048  # bytes; osd_max_object_name_len
_LAST_SNAP: Final = 2**63 - 1  # the largest id that can be stored; it is never given
MAX_NAMESPACE: Final = 256  # osd_max_object_namespace_len


class Osd:
    """Operations on any object of one store.

    patience: seconds that a write waits at most for another process that holds the file, None for without end. After
    that it is -ETIMEDOUT.
    """

    def __init__(self, store: Store, on_lost_watches: Callable[[], None]) -> None:
        self.store = store
        self.patience: float | None = None
        self._on_lost_watches = on_lost_watches

    # --- reading ---

    def read(self, client: Entity, pool: int, namespace: str, oid: str, wanted: Sequence[Any], snap: int) -> Reply:
        try:
            name = check_name(namespace, oid)
            if any(type(step) is Exec and _writes(step) for step in wanted):
                return self._execute_all(client, pool, namespace, oid, wanted, snap)
            with self.store.read as db:
                admit(db, client, pool)
                row = objects.find(db, pool, namespace, name)
                return _read(db, client, pool, oid, row, wanted, snap if snap == HEAD else min(snap, _LAST_SNAP))
        except Refusal as refusal:
            return Reply(refusal.rv)
        except FAULTS as error:
            return failure(errno_of(error))

    def _execute_all(self, client: Entity, pool: int, namespace: str, oid: str, wanted: Sequence[Any], snap: int) -> Reply:
        """A read with a method that writes is a write, of a client that names neither snapshots nor the time."""
        if snap != HEAD:
            return failure(errno.EROFS)
        if len(wanted) > 1:
            return port.NOT_SUPPORTED
        return self.write(client, pool, namespace, oid, wanted, NO_SNAPS, mtime=0, keep=True)

    # --- writing ---

    def write(
        self,
        client: Entity,
        pool: int,
        namespace: str,
        oid: str,
        wanted: Sequence[Any],
        snapc: SnapContext,
        mtime: int | None = None,
        keep: bool = False,
    ) -> Reply:
        """`mtime` in nanoseconds, None for now. `keep`: with the outputs of class methods, which a real OSD drops."""
        wanted = tuple(wanted)
        try:
            name = check_name(namespace, oid)
            if not snapshots.is_valid(snapc) or snapc.seq > _LAST_SNAP:
                return failure(errno.EINVAL)
            changes = steps.survey(wanted)
            with self.store.writing(self.patience) as db:
                admit(db, client, pool)
                row = objects.find(db, pool, namespace, name)
                change = Change(db, pool, oid, row, client, snapc, mtime)
                if wanted and not changes:
                    change.demand()
                outs = tuple([steps.WRITES[type(step)](change, step) for step in wanted])
                version = commit(change, namespace, name) if change.dirty else change.version
        except Refusal as refusal:
            return Reply(refusal.rv)
        except FAULTS as error:
            return failure(errno_of(error))
        if change.lost_watches:
            self._on_lost_watches()
        return Reply(0, outs if keep else (None,) * len(outs), version)

    def roll_back(self, client: Entity, pool: int, namespace: str, oid: str, snap: int, snapc: SnapContext) -> Reply:
        """Make an object what it was at a snapshot; remove it where it was absent then, -EBUSY if it is watched."""
        try:
            name = check_name(namespace, oid)
            if not snapshots.is_valid(snapc):
                return failure(errno.EINVAL)
            with self.store.writing(self.patience) as db:
                admit(db, client, pool)
                row = objects.find(db, pool, namespace, name)
                change = Change(db, pool, oid, row, client, snapc)
                target = snapshots.state_at(db, pool, row, snap)
                if target is None:
                    _remove_unwatched(change)
                elif target.state == HEAD_STATE:
                    change.touch()
                else:
                    change.touch()
                    change.journal.append((_restore, (target, change)))
                    change.size = target.size
                    change.has_omap = snapshots.has_omap(db, target)
                version = commit(change, namespace, name) if change.dirty else change.version
        except Refusal as refusal:
            return Reply(refusal.rv)
        except FAULTS as error:
            return failure(errno_of(error))
        if change.lost_watches:
            self._on_lost_watches()
        return Reply(0, (), version)


def _remove_unwatched(change: Change) -> None:
    """Remove an object, if there is one; -EBUSY where somebody watches it."""
    if change.before is not None and watches.watchers(change.db, change.before.obj):
        raise Refusal(-errno.EBUSY)
    if change.exists or change.is_remnant:
        change.remove()


def _restore(db: sqlite3.Connection, row: Row, target: objects.State, change: Change) -> None:
    change.changed += snapshots.roll_back(db, row, target)


def _writes(step: Exec) -> bool:
    return Access.WRITE in context.handler_of(step).method.access


def check_name(namespace: str, oid: str) -> bytes:
    """The name of an object, as it is stored. -EINVAL for none, -ENAMETOOLONG."""
    name = objects.raw(oid)
    if not name:
        raise Refusal(-errno.EINVAL)
    if len(name) > MAX_NAME or len(namespace.encode()) > MAX_NAMESPACE:
        raise Refusal(-errno.ENAMETOOLONG)
    return name


def admit(db: sqlite3.Connection, client: Entity, pool: int) -> None:
    """-ESHUTDOWN for a client on the blocklist, -ENOENT where the pool is missing."""
    there, until = db.execute(
        "SELECT EXISTS (SELECT 1 FROM pool WHERE id = ?), (SELECT max(until) FROM blocklist WHERE address IN (?, ?))",
        (pool, client.address, any_of(client.address)),
    ).fetchone()
    if until is not None and until > time.time():
        raise Refusal(-errno.ESHUTDOWN)
    if not there:
        raise Refusal(-errno.ENOENT)


def refuse_blocked(db: sqlite3.Connection, client: Entity) -> None:
    """-ESHUTDOWN for a client on the blocklist."""
    addresses = (client.address, any_of(client.address))
    (until,) = db.execute("SELECT max(until) FROM blocklist WHERE address IN (?, ?)", addresses).fetchone()
    if until is not None and until > time.time():
        raise Refusal(-errno.ESHUTDOWN)


def any_of(address: str) -> str:
    """The blocklist's name for every client of an address' host."""
    return address.partition(":")[0] + ":0/0"


def _read(
    db: sqlite3.Connection, client: Entity, pool: int, oid: str, row: Row | None, wanted: Sequence[Any], snap: int
) -> Reply:
    if not wanted:
        return Reply(0)
    if len(wanted) == 1 and type(wanted[0]) in _ALONE:
        if row is None:
            return failure(errno.ENOENT)
        return Reply(0, (_ALONE[type(wanted[0])](db, row),), row.version)
    state = objects.head(row) if snap == HEAD else snapshots.state_at(db, pool, row, snap)
    if state is None or row is None:
        return failure(errno.ENOENT)
    look = steps.Look(db, oid, state, row.seq, client)
    return Reply(0, tuple([steps.look(look, step) for step in wanted]), state.version)


def _list_watchers(db: sqlite3.Connection, row: Row) -> list[port.Watcher]:
    if not row.alive:
        raise Refusal(-errno.ENOENT)
    return watches.watchers(db, row.id)


_ALONE: Final[dict[type, Any]] = {port.ListSnaps: snapshots.snap_set, port.ListWatchers: _list_watchers}


def commit(change: Change, namespace: str, name: bytes) -> int:
    """Do what an operation has noted; the object's version afterwards."""
    db, row = change.db, change.row
    if row is None:
        floor: int = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()[0]
        row = Row(0, 0, 0, 0, floor, 0, 0, 0)
        (identity,) = db.execute(
            "INSERT INTO object (pool, ns, oid, alive, size, mtime, version, seq, top, omap)"
            " VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0, 0) RETURNING id",
            (change.pool, namespace, name),
        ).fetchone()
        row = row._replace(id=identity)
    remembered = change.deleted and change.hides_snaps
    row = snapshots.make_writable(db, change.pool, row, change.snapc)
    for what, arguments in change.journal:
        what(db, row, *arguments)
    snapshots.note_changes(db, row, change.changed)
    version = row.version + 1
    db.execute(
        "UPDATE object SET alive = ?, size = ?, mtime = ?, version = ?, seq = ?, top = ?, omap = ? WHERE id = ?",
        (change.exists, change.size, change.stamp(), version, row.seq, row.top, change.has_omap, row.id),
    )
    if change.deleted:
        change.lost_watches = watches.drop_object(db, row.id)
    if not change.exists and not row.top and not remembered:
        snapshots.forget(db, row.id)
    return version
