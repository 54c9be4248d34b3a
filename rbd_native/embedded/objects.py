"""How an object lies in the database: its row, its chunks of data, its xattrs and its omap.

Everything here works on one object (`obj`, its row's id) inside a transaction of the caller, who answers for the
order of things, for limits, and for the object's row. Data beyond an object's size is never stored, a hole is no row,
and a chunk may be shorter than CHUNK: what is missing of it is zeros.

What a clone shares with the head is one row, that of the head. So a change to the head's data first leaves to the
newest clone what is about to be changed (:func:`preserve`).
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from rbd_native.embedded.store import CHUNK, HEAD_STATE
from rbd_native.rados.port import Buffer, OmapPage

OMAP_PAGE: Final = 1024
"""Entries that one step returns at most (osd_max_omap_entries_per_request)."""


class Row(NamedTuple):
    """An object's row.

    `alive` is false for one that is deleted and only has clones. `top`: its newest clone, or 0. `omap`: whether it has
    one, which may have no keys.
    """

    id: int
    alive: int
    size: int
    mtime: int
    version: int
    seq: int
    top: int
    omap: int


class State(NamedTuple):
    """What an operation reads: the head or a clone of an object."""

    obj: int
    state: int
    size: int
    mtime: int
    version: int


def raw(name: str) -> bytes:
    """The bytes that a name stands for; ValueError for a NUL, which no name can have."""
    if "\0" in name:
        raise ValueError(f"NUL in a name: {name!r}")
    return name.encode("utf-8", "surrogateescape")


def name_of(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")


def find(db: sqlite3.Connection, pool: int, namespace: str, oid: bytes) -> Row | None:
    found = db.execute(
        "SELECT id, alive, size, mtime, version, seq, top, omap FROM object WHERE pool = ? AND ns = ? AND oid = ?",
        (pool, namespace, oid),
    ).fetchone()
    return None if found is None else Row._make(found)


def head(row: Row | None) -> State | None:
    return State(row.id, HEAD_STATE, row.size, row.mtime, row.version) if row is not None and row.alive else None


# --- data ------------------------------------------------------------------------------------------------------------

_ONE: Final = "SELECT data FROM chunk WHERE obj = ? AND idx = ? AND state = ?"
_HEAD_RANGE: Final = "SELECT idx, data FROM chunk WHERE obj = ? AND idx BETWEEN ? AND ? AND state = ? ORDER BY idx"
_CLONE_RANGE: Final = (  # with min(), SQLite takes `data` from the row that has the minimum
    "SELECT idx, data, min(state) FROM chunk WHERE obj = ? AND idx BETWEEN ? AND ? AND state >= ? GROUP BY idx ORDER BY idx"
)
_PUT: Final = (
    "INSERT INTO chunk (obj, idx, state, data) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (obj, idx, state) DO UPDATE SET data = excluded.data"
)


def read(db: sqlite3.Connection, state: State, offset: int, length: int) -> bytes:
    """Up to `length` bytes from `offset`; fewer at the end of the object."""
    end = min(offset + length, state.size)
    if end <= offset:
        return b""
    first, start = divmod(offset, CHUNK)
    last = (end - 1) // CHUNK
    if first == last and state.state == HEAD_STATE:
        found = db.execute(_ONE, (state.obj, first, HEAD_STATE)).fetchone()
        data: bytes = found[0] if found else b""
        return data[start : start + end - offset].ljust(end - offset, b"\0")
    return _assemble(chunks(db, state, first, last), offset, end)


def chunks(db: sqlite3.Connection, state: State, first: int, last: int) -> list[tuple[int, bytes]]:
    """The stored chunks among `first` .. `last`, ascending, as (index, data)."""
    if state.state == HEAD_STATE:
        return db.execute(_HEAD_RANGE, (state.obj, first, last, HEAD_STATE)).fetchall()
    rows = db.execute(_CLONE_RANGE, (state.obj, first, last, state.state))
    return [(index, data) for index, data, _ in rows if data is not None]


def _assemble(rows: list[tuple[int, bytes]], offset: int, end: int) -> bytes:
    pieces: list[Buffer] = []
    at = offset
    for index, data in rows:
        base = index * CHUNK
        piece = memoryview(data)[max(at - base, 0) : end - base]
        start = max(base, at)
        if start > at:
            pieces.append(bytes(start - at))
        pieces.append(piece)
        at = start + len(piece)
    pieces.append(bytes(end - at))
    return b"".join(pieces)


def write(db: sqlite3.Connection, row: Row, offset: int, data: Buffer) -> None:
    """Overwrite the head's data. `data` is bytes or a memoryview of bytes."""
    first, start = divmod(offset, CHUNK)
    end = offset + len(data)
    last, tail = divmod(end, CHUNK)
    if first == last:
        _patch(db, row, first, start, data)
        return
    view = memoryview(data)
    at = 0
    if start:
        at = CHUNK - start
        _patch(db, row, first, start, view[:at])
        first += 1
    if first < last:
        preserve(db, row, first, last - 1)
        whole = enumerate(range(at, at + (last - first) * CHUNK, CHUNK), first)
        db.executemany(_PUT, [(row.id, index, HEAD_STATE, view[place : place + CHUNK]) for index, place in whole])
        at += (last - first) * CHUNK
    if tail:
        _patch(db, row, last, 0, view[at:])


def _patch(db: sqlite3.Connection, row: Row, index: int, start: int, data: Buffer) -> None:
    """Overwrite a part of one chunk."""
    if not len(data):
        return
    found = db.execute(_ONE, (row.id, index, HEAD_STATE)).fetchone()
    old: bytes = found[0] if found else b""
    if row.top:
        preserve(db, row, index, index)
    end = start + len(data)
    if start == 0 and end >= len(old):
        new: Buffer = data
    else:
        new = b"".join((old[:start].ljust(start, b"\0"), data, old[end:]))
    db.execute(_PUT, (row.id, index, HEAD_STATE, new))


def zero(db: sqlite3.Connection, row: Row, offset: int, length: int) -> None:
    """Make a range of the head, which must lie within it, zeros: whole chunks become holes."""
    first, start = divmod(offset, CHUNK)
    last, tail = divmod(offset + length, CHUNK)
    if first == last:
        _blank(db, row, first, start, tail)
        return
    if start:
        _blank(db, row, first, start, CHUNK)
        first += 1
    _drop(db, row, first, last - 1)
    if tail:
        _blank(db, row, last, 0, tail)


def _blank(db: sqlite3.Connection, row: Row, index: int, start: int, end: int) -> None:
    found = db.execute(_ONE, (row.id, index, HEAD_STATE)).fetchone()
    if found and len(found[0]) > start:
        _patch(db, row, index, start, bytes(min(end, len(found[0])) - start))


def truncate(db: sqlite3.Connection, row: Row, size: int) -> None:
    """Drop the head's data from `size` on."""
    first, keep = divmod(size, CHUNK)
    if keep:
        found = db.execute(_ONE, (row.id, first, HEAD_STATE)).fetchone()
        if found and len(found[0]) > keep:
            if row.top:
                preserve(db, row, first, first)
            db.execute(_PUT, (row.id, first, HEAD_STATE, found[0][:keep]))
        first += 1
    _drop(db, row, first, HEAD_STATE)


def _drop(db: sqlite3.Connection, row: Row, first: int, last: int) -> None:
    if row.top:
        preserve(db, row, first, last)
    db.execute("DELETE FROM chunk WHERE obj = ? AND idx BETWEEN ? AND ? AND state = ?", (row.id, first, last, HEAD_STATE))


def preserve(db: sqlite3.Connection, row: Row, first: int, last: int) -> None:
    """Leave the head's chunks `first` .. `last` to the newest clone, where it does not have its own.

    They are gone from the head afterwards. Holes are left to it as well: as NULL, so that what is written there later
    does not show through; but not beyond the largest clone, where nobody looks.
    """
    if not row.top:
        return
    db.execute(
        "UPDATE OR IGNORE chunk SET state = ? WHERE obj = ? AND idx BETWEEN ? AND ? AND state = ?",
        (row.top, row.id, first, last, HEAD_STATE),
    )
    reach = db.execute("SELECT max(size) FROM clone WHERE obj = ?", (row.id,)).fetchone()[0]
    holes = range(first, min(last, (reach - 1) // CHUNK) + 1)
    db.executemany(
        "INSERT OR IGNORE INTO chunk (obj, idx, state, data) VALUES (?, ?, ?, NULL)",
        [(row.id, index, row.top) for index in holes],
    )


# --- xattrs ----------------------------------------------------------------------------------------------------------


def xattr(db: sqlite3.Connection, state: State, name: str) -> bytes | None:
    found = db.execute(
        "SELECT value FROM xattr WHERE obj = ? AND state = ? AND name = ?", (state.obj, state.state, raw(name))
    ).fetchone()
    return None if found is None else found[0]


def xattrs(db: sqlite3.Connection, state: State) -> dict[str, bytes]:
    rows = db.execute("SELECT name, value FROM xattr WHERE obj = ? AND state = ? ORDER BY name", (state.obj, state.state))
    return {name_of(name): value for name, value in rows}


def set_xattr(db: sqlite3.Connection, row: Row, name: str, value: bytes) -> None:
    db.execute("INSERT OR REPLACE INTO xattr VALUES (?, ?, ?, ?)", (row.id, HEAD_STATE, raw(name), value))


def remove_xattr(db: sqlite3.Connection, row: Row, name: str) -> None:
    db.execute("DELETE FROM xattr WHERE obj = ? AND state = ? AND name = ?", (row.id, HEAD_STATE, raw(name)))


# --- omap ------------------------------------------------------------------------------------------------------------

_OMAP_FROM: Final = "SELECT key, value FROM omap WHERE obj = ? AND state = ? AND key >= ? ORDER BY key LIMIT ?"


def omap(db: sqlite3.Connection, state: State, key: bytes) -> bytes | None:
    found = db.execute(
        "SELECT value FROM omap WHERE obj = ? AND state = ? AND key = ?", (state.obj, state.state, key)
    ).fetchone()
    return None if found is None else found[0]


def omap_page(db: sqlite3.Connection, state: State, after: bytes, limit: int, prefix: bytes) -> OmapPage:
    """At most `limit` entries with keys after `after` that start with `prefix`, ascending."""
    limit = max(min(limit, OMAP_PAGE), 0)
    first = max(after + b"\0", prefix)  # the next key after `after` is it and a zero
    found = db.execute(_OMAP_FROM, (state.obj, state.state, first, limit + 1)).fetchall()
    if prefix:
        found = list(itertools.takewhile(lambda entry: entry[0].startswith(prefix), found))
    return OmapPage(dict(found[:limit]), len(found) > limit)


def set_omap(db: sqlite3.Connection, row: Row, values: Mapping[bytes, bytes]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO omap VALUES (?, ?, ?, ?)",
        [(row.id, HEAD_STATE, key, value) for key, value in values.items()],
    )


def remove_omap(db: sqlite3.Connection, row: Row, keys: Iterable[bytes]) -> None:
    db.executemany("DELETE FROM omap WHERE obj = ? AND state = ? AND key = ?", [(row.id, HEAD_STATE, key) for key in keys])


def omap_keys(db: sqlite3.Connection, state: State, first: bytes, last: bytes) -> list[bytes]:
    """The keys from `first` up to, not including, `last`."""
    rows = db.execute(
        "SELECT key FROM omap WHERE obj = ? AND state = ? AND key >= ? AND key < ?",
        (state.obj, state.state, first, last),
    )
    return [key for (key,) in rows]


def clear_omap(db: sqlite3.Connection, row: Row) -> None:
    db.execute("DELETE FROM omap WHERE obj = ? AND state = ?", (row.id, HEAD_STATE))


# --- the object as a whole -------------------------------------------------------------------------------------------


def clear(db: sqlite3.Connection, row: Row) -> None:
    """Drop all that the head has. Its row stays."""
    _drop(db, row, 0, HEAD_STATE)
    db.execute("DELETE FROM xattr WHERE obj = ? AND state = ?", (row.id, HEAD_STATE))
    clear_omap(db, row)
