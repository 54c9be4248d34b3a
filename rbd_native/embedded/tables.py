"""What an embedded cluster's file holds: its tables, the number of their format, and the way from older ones to it.

Data lies in chunks. The rows of an object belong to a *state*: HEAD_STATE for the object as it is now, the clone's id
for what snapshots keep. A chunk that a clone does not have itself is that of the next newer state; one it has as NULL
was a hole (see :mod:`rbd_native.embedded.snapshots`).
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rbd_native.embedded.rados_errors import InvalidArgumentError

CHUNK: Final = 32768
"""Bytes of an object's data in one row."""

HEAD_STATE: Final = 2**63 - 1

FORMAT: Final = 2
"""Counts up with every change of the tables; :data:`_UPGRADES` leads to it from the one before."""

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE pool (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL, snap_seq INTEGER NOT NULL DEFAULT 0);
CREATE TABLE application (pool INTEGER, app TEXT, PRIMARY KEY (pool, app)) WITHOUT ROWID;
CREATE TABLE application_metadata (
    pool INTEGER, app TEXT, key TEXT, value TEXT, PRIMARY KEY (pool, app, key)) WITHOUT ROWID;
CREATE TABLE removed_snap (pool INTEGER, snap INTEGER, PRIMARY KEY (pool, snap)) WITHOUT ROWID;
CREATE TABLE config (who TEXT, name TEXT, value TEXT, PRIMARY KEY (who, name)) WITHOUT ROWID;
CREATE TABLE config_key (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE auth (entity TEXT PRIMARY KEY, key TEXT, caps TEXT) WITHOUT ROWID;
CREATE TABLE pool_option (pool INTEGER, name TEXT, value TEXT, PRIMARY KEY (pool, name)) WITHOUT ROWID;
CREATE TABLE client (gid INTEGER PRIMARY KEY, address TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE blocklist (address TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE object (
    id INTEGER PRIMARY KEY, pool INTEGER NOT NULL, ns TEXT NOT NULL, oid BLOB NOT NULL,
    alive INTEGER NOT NULL,     -- 0: deleted, and here for its clones only
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, version INTEGER NOT NULL,
    seq INTEGER NOT NULL,       -- the newest snapshot it was written under
    top INTEGER NOT NULL,       -- its newest clone, or 0
    omap INTEGER NOT NULL,      -- whether it has one, though perhaps without keys
    UNIQUE (pool, ns, oid));
CREATE TABLE clone (
    obj INTEGER, id INTEGER, size INTEGER, mtime INTEGER, version INTEGER, omap INTEGER,
    overlap BLOB NOT NULL,      -- what it shares with the next newer state: see rbd_native.embedded.extents
    PRIMARY KEY (obj, id)) WITHOUT ROWID;
CREATE TABLE clone_snap (
    pool INTEGER, snap INTEGER, obj INTEGER, clone INTEGER, PRIMARY KEY (pool, snap, obj)) WITHOUT ROWID;
CREATE INDEX clone_snap_obj ON clone_snap (obj, clone, snap);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY, obj INTEGER NOT NULL, idx INTEGER NOT NULL, state INTEGER NOT NULL, data BLOB,
    UNIQUE (obj, idx, state));
CREATE TABLE xattr (obj INTEGER, state INTEGER, name BLOB, value BLOB, PRIMARY KEY (obj, state, name)) WITHOUT ROWID;
CREATE TABLE omap (obj INTEGER, state INTEGER, key BLOB, value BLOB, PRIMARY KEY (obj, state, key)) WITHOUT ROWID;
CREATE TABLE watch (
    obj INTEGER, gid INTEGER, cookie INTEGER, timeout INTEGER NOT NULL,
    PRIMARY KEY (obj, gid, cookie)) WITHOUT ROWID;
CREATE INDEX watch_gid ON watch (gid);
CREATE TABLE notify (
    id INTEGER PRIMARY KEY, obj INTEGER NOT NULL, gid INTEGER NOT NULL, deadline REAL NOT NULL, payload BLOB NOT NULL);
CREATE TABLE notify_ack (
    notify INTEGER, gid INTEGER, cookie INTEGER, reply BLOB,    -- NULL: not acknowledged yet
    PRIMARY KEY (notify, gid, cookie)) WITHOUT ROWID;
CREATE INDEX notify_ack_gid ON notify_ack (gid, reply);
"""

_COUNTERS: Final = ("gid", "notify", "version")



_UPGRADES: Final[dict[int, str]] = {
    1: """
        CREATE TABLE IF NOT EXISTS auth (entity TEXT PRIMARY KEY, key TEXT, caps TEXT) WITHOUT ROWID;
        CREATE TABLE pool_option (pool INTEGER, name TEXT, value TEXT, PRIMARY KEY (pool, name)) WITHOUT ROWID;
    """,
}
"""What makes a file of a format one of the next."""


class NotACluster(InvalidArgumentError, ValueError):
    """A file is something else, or a cluster that this release cannot use. It is not touched."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is not an embedded cluster: {why}", errno=22)


def create(connection: sqlite3.Connection, pools: Sequence[str]) -> None:
    """Make an empty database a cluster."""
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
    facts = {
        "format": str(FORMAT),
        "fsid": str(uuid.uuid4()),
        "created": time.time(),
        "require_min_compat_client": "luminous",
    }
    facts |= dict.fromkeys(_COUNTERS, 0)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
    connection.executemany("INSERT INTO pool (name) VALUES (?)", [(name,) for name in pools])
    connection.execute("INSERT INTO application SELECT id, 'rbd' FROM pool")
    connection.execute("COMMIT")


def format_of(connection: sqlite3.Connection, path: Path) -> int | None:
    """The number of a database's format; None where there is nothing in it yet. NotACluster; sqlite3.Error."""
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return None
        found = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _STRANGE:
            raise NotACluster(path, str(error)) from error
        raise
    if found is None or not str(found[0]).isdecimal():
        raise NotACluster(path, "it has no format number")
    number = int(found[0])
    if number > FORMAT:
        raise NotACluster(path, f"its format is {number}, this release of rbd_native knows those up to {FORMAT}")
    return number


def upgrade(connection: sqlite3.Connection, number: int) -> None:
    """Make a file of an older format one of this. All of it, or nothing."""
    while number < FORMAT:
        step = f"{_UPGRADES[number]} UPDATE meta SET value = '{number + 1}' WHERE name = 'format'"
        number += 1
        connection.executescript(f"BEGIN IMMEDIATE; {step}; COMMIT")


def forget_clients(connection: sqlite3.Connection) -> None:
    """Strike off all clients and what they wait for: none of them is one of this copy's."""
    tables = ("client", "watch", "notify", "notify_ack")
    connection.executescript("BEGIN; " + "".join(f"DELETE FROM {table}; " for table in tables) + "COMMIT")


_STRANGE: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""What SQLite says of a database that has no such tables, and of a file that is no database."""
