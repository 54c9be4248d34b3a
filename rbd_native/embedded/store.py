"""The SQLite database that holds an embedded cluster: its schema, its connections and its transactions.

A cluster in memory has one connection, which its threads take turns at. A cluster in a file is in WAL mode: readers
have connections of their own and never wait for a writer; writers of this process take turns at one connection, and
those of other processes are kept apart by a lock file beside the database (a lock that ends with its process, and
whose waiters are woken instead of polling). A process may end at any moment: what was committed is in the file, the
rest is not.

Data lies in chunks. The rows of an object belong to a *state*: HEAD_STATE for the object as it is now, the clone's id
for what snapshots keep. A chunk that a clone does not have itself is that of the next newer state; one it has as NULL
was a hole (see :mod:`rbd_native.embedded.snapshots`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

CHUNK: Final = 32768
"""Bytes of an object's data in one row."""

HEAD_STATE: Final = 2**63 - 1

FORMAT: Final = "1"

_PAGE: Final = 8192  # of the database: a chunk fits four pages, and a write dirties only those that it changes
_CHECKPOINT: Final = 4096  # pages of log before they are moved into the file: 32 MiB
_PATIENCE: Final = 60.0  # seconds that SQLite's own locks are waited for

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


class Transaction(Protocol):
    """`with` it to have a connection. Reads are of one moment; writes are all made, or, on an exception, none."""

    def __enter__(self) -> sqlite3.Connection: ...

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None: ...


_forks = 0
"""How many forks lie between the first process and this one. Cheaper to look at than the process id."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class ForkedError(RuntimeError):
    """A process that was forked uses a cluster that its parent opened. It must open the file itself."""


class Store:
    """One database, in memory where `path` is None. `sync`: also survive the machine's death, not only the process'."""

    def __init__(self, path: str | os.PathLike[str] | None, pools: Sequence[str], sync: bool = False) -> None:
        self.path = None if path is None else Path(path).absolute()
        self._sync = sync
        self._generation = _forks
        self._closed = False
        self._turn = threading.RLock()
        self._idle: deque[sqlite3.Connection] = deque()
        if self.path is None:
            self._writer = _connect(":memory:")
            _create(self._writer, pools)
            self.write: Transaction = _Turn(self)
            self._shared: Transaction = _SharedRead(self)
        else:
            self._gate = _Gate(self.path)
            self._writer = self._open(self.path, pools)
            self.write = _GatedTurn(self, self._gate)

    def _open(self, path: Path, pools: Sequence[str]) -> sqlite3.Connection:
        with self._gate:
            new = _is_new(path)
            writer = self._attach(path)
            if new:
                _create(writer, pools)
        return writer

    def _attach(self, path: Path) -> sqlite3.Connection:
        connection = _connect(str(path))
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        return connection

    @property
    def read(self) -> Transaction:
        """A transaction that only reads. It waits for no writer, unless the cluster is in memory."""
        return self._shared if self.path is None else _OwnRead(self)

    def check(self) -> None:
        """Refuse what must not go on: ForkedError, or ValueError after :meth:`close`."""
        if self._closed:
            raise ValueError("this embedded cluster is closed")
        if self._generation != _forks:
            raise ForkedError("this embedded cluster was opened before fork(): open it again in the child")

    def borrow(self) -> sqlite3.Connection:
        """A connection for reading, of a cluster in a file."""
        self.check()
        try:
            return self._idle.pop()
        except IndexError:
            return self._attach(self.path)  # type: ignore[arg-type]

    def give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def data_version(self) -> int:
        """A number that is another one after any other connection has written."""
        with self._turn:
            self.check()
            version: int = self._writer.execute("PRAGMA data_version").fetchone()[0]
            return version

    def close(self) -> None:
        """Close all connections. Reads under way in other threads end first."""
        if self._generation != _forks:
            return
        with self._turn:
            if self._closed:
                return
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._writer.close()
            if self.path is not None:
                self._gate.close()


class _SharedRead:
    """A read on the one connection of a cluster in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = store._turn

    def __enter__(self) -> sqlite3.Connection:
        self._turn.acquire()
        try:
            self._store.check()
        except BaseException:
            self._turn.release()
            raise
        return self._store._writer

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        self._turn.release()


class _OwnRead:
    """A read on a connection of its own: a snapshot of the file."""

    __slots__ = ("_connection", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> sqlite3.Connection:
        self._connection = self._store.borrow()
        self._connection.execute("BEGIN")
        return self._connection

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        self._connection.execute("COMMIT")
        self._store.give_back(self._connection)


class _Turn:
    """A write, of one thread at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = store._turn

    def __enter__(self) -> sqlite3.Connection:
        self._turn.acquire()
        try:
            self._store.check()
            self._begin()
        except BaseException:
            self._turn.release()
            raise
        return self._store._writer

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        try:
            self._end(kind is None)
        finally:
            self._turn.release()

    def _begin(self) -> None:
        self._store._writer.execute("BEGIN IMMEDIATE")

    def _end(self, keep: bool) -> None:
        connection = self._store._writer
        try:
            if keep:
                connection.execute("COMMIT")
        finally:
            if connection.in_transaction:  # an exception, or a COMMIT that failed
                connection.execute("ROLLBACK")


class _GatedTurn(_Turn):
    """A write to a file, of one process at a time."""

    def __init__(self, store: Store, gate: _Gate) -> None:
        super().__init__(store)
        self._gate = gate

    def _begin(self) -> None:
        self._gate.__enter__()
        try:
            super()._begin()
        except BaseException:
            self._gate.__exit__()
            raise

    def _end(self, keep: bool) -> None:
        try:
            super()._end(keep)
        finally:
            self._gate.__exit__()


class _Gate:
    """The lock file of a database: its holder may write. The kernel opens it again when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path.with_name(path.name + "-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._handle)


def _connect(where: str) -> sqlite3.Connection:
    return sqlite3.connect(where, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=512)


def _is_new(path: Path) -> bool:
    """Whether a file has yet to be made a cluster. ValueError where it is something else; it is not touched."""
    with contextlib.closing(_connect(str(path))) as connection:
        try:
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return True
            found = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is not an embedded cluster: {error}") from error
    if found is None or found[0] != FORMAT:
        raise ValueError(f"{path} is not an embedded cluster of format {FORMAT}")
    return False


def _create(connection: sqlite3.Connection, pools: Sequence[str]) -> None:
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
    facts = {
        "format": FORMAT,
        "fsid": str(uuid.uuid4()),
        "created": time.time(),
        "require_min_compat_client": "luminous",
    }
    facts |= dict.fromkeys(_COUNTERS, 0)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
    connection.executemany("INSERT INTO pool (name) VALUES (?)", [(name,) for name in pools])
    connection.execute("INSERT INTO application SELECT id, 'rbd' FROM pool")
    connection.execute("COMMIT")


def count(connection: sqlite3.Connection, counter: str, step: int = 1) -> int:
    """Advance one of the cluster's counters and return it."""
    value: int = connection.execute(
        "UPDATE meta SET value = value + ? WHERE name = ? RETURNING value", (step, counter)
    ).fetchone()[0]
    return value


def errno_of(error: sqlite3.Error) -> int:
    """What a fault of the database is to a client."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
    return _ERRNOS.get(code & 0xFF, errno.EIO)


_ERRNOS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_BUSY: errno.ETIMEDOUT,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_TOOBIG: errno.EFBIG,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}
