"""Self-managed snapshots of the embedded OSD: clones made on write, read, trimmed and rolled back to.

The rules are a real OSD's. A write under a newer snapshot than the object has seen (its `seq`) first makes a clone of
the head, whose id is the snapshot context's seq and which serves those of its snapshots that are newer than the
object's seq. A snapshot newer than the object's seq reads the head; any other reads the clone that serves it, or
nothing. A deleted object that has clones stays as a row that is not alive.

Making a clone copies xattrs and omap, but no data: the clone starts without chunks of its own, and a chunk it does
not have is that of the next newer state that has one. A change to the head gives the newest clone what it changes;
trimming a clone gives its chunks to the next older one that lacks them.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from rbd_native.embedded import extents, objects
from rbd_native.embedded.objects import Row, State
from rbd_native.embedded.store import CHUNK, HEAD_STATE, count
from rbd_native.rados.port import HEAD, Clone, SnapContext, SnapSet

# --- reading ---------------------------------------------------------------------------------------------------------


def state_at(db: sqlite3.Connection, pool: int, row: Row | None, snap: int) -> State | None:
    """What a read at `snap` reads; None where the object was absent."""
    if row is None:
        return None
    if snap > row.seq:
        return objects.head(row)
    found = db.execute(
        "SELECT clone.id, clone.size, clone.mtime, clone.version FROM clone_snap"
        " JOIN clone ON clone.obj = clone_snap.obj AND clone.id = clone_snap.clone"
        " WHERE clone_snap.pool = ? AND clone_snap.snap = ? AND clone_snap.obj = ?",
        (pool, snap, row.id),
    ).fetchone()
    return None if found is None else State(row.id, *found)


def snap_set(db: sqlite3.Connection, row: Row) -> SnapSet:
    clones = [
        Clone(clone, _snaps(db, row, clone), extents.ranges(extents.unpack(overlap)), size)
        for clone, size, overlap in db.execute(
            "SELECT id, size, overlap FROM clone WHERE obj = ? ORDER BY id", (row.id,)
        ).fetchall()
    ]
    if row.alive:
        clones.append(Clone(HEAD, (), (), row.size))
    return SnapSet(tuple(clones), row.seq)


def _snaps(db: sqlite3.Connection, row: Row, clone: int) -> tuple[int, ...]:
    rows = db.execute("SELECT snap FROM clone_snap WHERE obj = ? AND clone = ? ORDER BY snap", (row.id, clone))
    return tuple(snap for (snap,) in rows)


def _is_removed(db: sqlite3.Connection, pool: int, snap: int) -> bool:
    return db.execute("SELECT 1 FROM removed_snap WHERE pool = ? AND snap = ?", (pool, snap)).fetchone() is not None


# --- writing ---------------------------------------------------------------------------------------------------------


def is_valid(snapc: SnapContext) -> bool:
    """Whether ids descend, and none is 0 or above seq."""
    if not snapc.ids:
        return 0 <= snapc.seq < HEAD_STATE
    return (
        HEAD_STATE > snapc.seq >= snapc.ids[0]
        and snapc.ids[-1] > 0
        and all(newer > older for newer, older in zip(snapc.ids, snapc.ids[1:], strict=False))
    )


def make_writable(db: sqlite3.Connection, pool: int, row: Row, snapc: SnapContext) -> Row:
    """Before a change to an object: leave a clone of the head to the snapshots that have none. Returns its new row."""
    seq = max(row.seq, snapc.seq)
    if row.alive and snapc.ids and snapc.ids[0] > row.seq:
        wanted = [snap for snap in snapc.ids if snap > row.seq and not _is_removed(db, pool, snap)]
        if wanted:
            _clone(db, pool, row, snapc.seq, wanted)
            return row._replace(seq=seq, top=snapc.seq)
    return row._replace(seq=seq)


def _clone(db: sqlite3.Connection, pool: int, row: Row, clone: int, snaps: list[int]) -> None:
    overlap = extents.pack(extents.of([(0, row.size)]))
    values = (row.id, clone, row.size, row.mtime, row.version, row.omap, overlap)
    db.execute("INSERT INTO clone VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    db.executemany("INSERT INTO clone_snap VALUES (?, ?, ?, ?)", [(pool, snap, row.id, clone) for snap in snaps])
    for table, columns in (("xattr", "name, value"), ("omap", "key, value")):
        db.execute(
            f"INSERT INTO {table} SELECT obj, ?, {columns} FROM {table} WHERE obj = ? AND state = ?",
            (clone, row.id, HEAD_STATE),
        )


def note_changes(db: sqlite3.Connection, row: Row, changed: list[tuple[int, int]]) -> None:
    """After a change to the head's data: the newest clone no longer shares these ranges with it."""
    if not row.top or not changed:
        return
    where = (row.id, row.top)
    (old,) = db.execute("SELECT overlap FROM clone WHERE obj = ? AND id = ?", where).fetchone()
    shared = extents.unpack(old)
    for offset, length in changed:
        extents.cut(shared, offset, length)
    left = extents.pack(shared)
    if left != old:
        db.execute("UPDATE clone SET overlap = ? WHERE obj = ? AND id = ?", (left, *where))


def has_omap(db: sqlite3.Connection, clone: State) -> bool:
    found = db.execute("SELECT omap FROM clone WHERE obj = ? AND id = ?", (clone.obj, clone.state)).fetchone()
    return bool(found[0])


def roll_back(db: sqlite3.Connection, row: Row, to: State) -> list[tuple[int, int]]:
    """Make the head's data, xattrs and omap those of one of its clones. Returns the ranges that changed."""
    last = HEAD_STATE
    wanted = objects.chunks(db, to, 0, last)
    changed = _changed_since(db, row, to)
    objects.clear(db, row)
    db.executemany(
        "INSERT INTO chunk (obj, idx, state, data) VALUES (?, ?, ?, ?)",
        [(row.id, index, HEAD_STATE, data) for index, data in wanted if index * CHUNK < to.size],
    )
    for table, columns in (("xattr", "name, value"), ("omap", "key, value")):
        db.execute(
            f"INSERT INTO {table} SELECT obj, ?, {columns} FROM {table} WHERE obj = ? AND state = ?",
            (HEAD_STATE, row.id, to.state),
        )
    return changed


def _changed_since(db: sqlite3.Connection, row: Row, to: State) -> list[tuple[int, int]]:
    shared = extents.of([(0, to.size)])
    for (overlap,) in db.execute("SELECT overlap FROM clone WHERE obj = ? AND id >= ?", (row.id, to.state)):
        shared = extents.intersection(shared, extents.unpack(overlap))
    changed = extents.of([(0, max(row.size, to.size))])
    for offset, length in extents.ranges(shared):
        extents.cut(changed, offset, length)
    return list(extents.ranges(changed))


# --- the pool's snapshots --------------------------------------------------------------------------------------------


def create(db: sqlite3.Connection, pool: int) -> int | None:
    """A new snapshot id; None where the pool is missing."""
    found = db.execute("UPDATE pool SET snap_seq = snap_seq + 1 WHERE id = ? RETURNING snap_seq", (pool,)).fetchone()
    return None if found is None else found[0]


def remove(db: sqlite3.Connection, pool: int, snap: int) -> None:
    """Forget a snapshot, and trim the clones that no other needs. (A real OSD trims in the background.)"""
    db.execute("INSERT OR IGNORE INTO removed_snap VALUES (?, ?)", (pool, snap))
    for obj, clone in db.execute(
        "DELETE FROM clone_snap WHERE pool = ? AND snap = ? RETURNING obj, clone", (pool, snap)
    ).fetchall():
        if not db.execute("SELECT 1 FROM clone_snap WHERE obj = ? AND clone = ?", (obj, clone)).fetchone():
            _trim(db, obj, clone)


_OLDER: Final = "SELECT id, overlap FROM clone WHERE obj = ? AND id < ? ORDER BY id DESC LIMIT 1"


def _trim(db: sqlite3.Connection, obj: int, clone: int) -> None:
    (overlap,) = db.execute("DELETE FROM clone WHERE obj = ? AND id = ? RETURNING overlap", (obj, clone)).fetchone()
    older = db.execute(_OLDER, (obj, clone)).fetchone()
    if older is not None:
        db.execute("UPDATE OR IGNORE chunk SET state = ? WHERE obj = ? AND state = ?", (older[0], obj, clone))
        shared = extents.pack(extents.intersection(extents.unpack(older[1]), extents.unpack(overlap)))
        db.execute("UPDATE clone SET overlap = ? WHERE obj = ? AND id = ?", (shared, obj, older[0]))
    for table in ("chunk", "xattr", "omap"):
        db.execute(f"DELETE FROM {table} WHERE obj = ? AND state = ?", (obj, clone))
    newest = db.execute("SELECT max(id) FROM clone WHERE obj = ?", (obj,)).fetchone()[0]
    db.execute("UPDATE object SET top = ? WHERE id = ?", (newest or 0, obj))
    if newest is None:
        forget(db, obj)


def forget(db: sqlite3.Connection, obj: int) -> None:
    """Drop the row of an object that is not alive and has no clones. Its name's next object gets a greater version."""
    gone = db.execute("DELETE FROM object WHERE id = ? AND NOT alive AND top = 0 RETURNING version", (obj,)).fetchone()
    if gone is not None:
        floor = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()[0]
        if gone[0] > floor:
            count(db, "version", gone[0] - floor)
