"""The SQLite database that holds an embedded cluster: its connections and its transactions.

A cluster in memory has one connection, which its threads take turns at. A cluster in a file is in WAL mode: readers
have connections of their own and never wait for a writer; writers of this process take turns at one connection, and
those of other processes are kept apart by a lock file beside the database (:mod:`rbd_native.embedded.gate`). A process
may end at any moment: what was committed is in the file, the rest is not.

Three things come between a program and its connections, and a transaction is made for each:

- an exception out of a signal handler (Ctrl-C): handlers wait for the end of a transaction;
- a fork: it waits for the end of all of them, and no connection lives across it (:mod:`rbd_native.embedded.fork`);
- another process that holds the lock file and does not go on: a transaction may be given a time to wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from rbd_native.embedded import fork, tables
from rbd_native.embedded.fork import ForkedError
from rbd_native.embedded.gate import Gate
from rbd_native.embedded.rados_errors import ConnectionShutdown, Error, make_ex
from rbd_native.embedded.tables import CHUNK, FORMAT, HEAD_STATE, NotACluster
from rbd_native.embedded.transactions import OwnRead, SharedRead, Transaction, Write
from rbd_native.interrupts import DEFERRED
from rbd_native.native import threading

__all__ = [
    "CHUNK",
    "FAULTS",
    "FORMAT",
    "HEAD_STATE",
    "ClosedError",
    "ForkedError",
    "NotACluster",
    "Store",
    "Transaction",
    "told_as_rados_does",
]

FAULTS: Final = (sqlite3.Error, OSError)
"""What a transaction raises where the database, or what it lies on, fails, or where waiting took too long."""

_PAGE: Final = 8192  # of the database: a chunk fits four pages, and a write dirties only those that it changes
_CHECKPOINT: Final = 4096  # pages of log before they are moved into the file: 32 MiB
_PATIENCE: Final = 60.0  # seconds that SQLite's own locks are waited for


class ClosedError(ConnectionShutdown, ValueError):
    """The cluster has been closed."""


class Store:
    """One database, in memory where `path` is None. `sync`: also survive the machine's death, not only the process'.

    patience: seconds that a process which holds the file is waited for at most; None: without end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        pools: Sequence[str],
        sync: bool = False,
        patience: float | None = None,
    ) -> None:
        """NotACluster; ForkedError; rados.Error with what the file system or SQLite says."""
        self.path = None if path is None else Path(path).absolute()
        if "\0" in str(self.path):
            raise NotACluster(Path(path or ""), "there is a NUL in its name")
        self._sync = sync
        self._refusal: Callable[[], Error] | None = None
        self.turn = threading.RLock()
        self._idle: deque[sqlite3.Connection] = deque()
        self.busy: set[sqlite3.Connection] = set()
        self.writer: sqlite3.Connection | None = None
        self.gate: Gate | None = None
        fork.watch_over(self)
        with DEFERRED, self._in_use(), told_as_rados_does(self.path):
            if self.path is None:
                self.writer = _connect(":memory:")
                tables.create(self.writer, pools)
            else:
                self._open(self.path, pools, patience)

    # --- opening and closing ---

    def _open(self, path: Path, pools: Sequence[str], patience: float | None) -> None:
        fork.refuse_lost(path)
        _format(path)  # before anything is made beside what is no cluster
        gate = _entered(path, None if patience is None else time.monotonic() + patience)
        there = path.is_symlink() or path.exists()
        try:
            self.writer = self._made(path, pools)
        except BaseException:
            made = [path.with_name(path.name + part) for part in ("", "-wal", "-shm", "-journal")] if not there else []
            for left in [*made, *([gate.path] if gate.made else [])]:
                left.unlink(missing_ok=True)
            gate.close()
            raise
        gate.leave()
        self.gate = gate

    def _made(self, path: Path, pools: Sequence[str]) -> sqlite3.Connection:
        number = _format(path)
        writer = self._attach(path, "rwc")
        try:
            if number is None:
                tables.create(writer, pools)
            else:
                tables.upgrade(writer, number)
        except BaseException:
            writer.close()
            raise
        return writer

    def _attach(self, path: Path, mode: str = "rw") -> sqlite3.Connection:
        """A connection to the file, which must be there unless the mode is "rwc"."""
        connection = _connect(f"{path.as_uri()}?mode={mode}")
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def check(self) -> None:
        """Refuse what must not go on: ForkedError, or ClosedError after :meth:`close`."""
        fork.notice()
        if self._refusal is not None:
            raise self._refusal()

    def close(self) -> None:
        """Close all connections. Reads under way in other threads end first."""
        fork.notice()
        with DEFERRED, self.turn:
            if self._refusal is not None:
                return
            self._refusal = _closed
            with self._in_use():
                self._disconnect()
            if self.gate is not None:
                self.gate.close()

    def _disconnect(self) -> None:
        while self._idle:
            self._idle.pop().close()
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()

    # --- forks ---

    def before_fork(self) -> None:
        if self.path is not None:
            self._disconnect()

    def in_child(self, prepared: bool) -> None:
        self.turn = threading.RLock()
        if self.gate is not None:
            self.gate.close()
        if self._refusal is not None:
            return
        if self.path is None:
            self._refusal = _parents_memory
        elif not prepared:
            self._refusal = _unprepared
            left = [*self._idle, *self.busy, *([self.writer] if self.writer is not None else [])]
            fork.lose(self.path, left)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        fork.enter()
        try:
            yield
        finally:
            fork.leave()

    # --- transactions ---

    @property
    def read(self) -> Transaction:
        """A transaction that only reads. It waits for no writer, unless the cluster is in memory."""
        return SharedRead(self) if self.path is None else OwnRead(self)

    @property
    def write(self) -> Transaction:
        """A transaction that writes, however long others keep it waiting."""
        return Write(self, None)

    def writing(self, patience: float | None) -> Transaction:
        """A transaction that writes. TimeoutError where others keep it waiting for more than so many seconds."""
        return Write(self, patience)

    def backup(self, path: Path) -> None:
        """Copy what is there at one moment into a new file. rados.Error."""
        with told_as_rados_does(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            try:
                with contextlib.closing(_connect(f"{path.absolute().as_uri()}?mode=rw")) as copy:
                    with self.read as db:
                        db.backup(copy)
                    tables.forget_clients(copy)
            except BaseException:
                path.unlink()
                raise

    def data_version(self) -> int:
        """A number that is another one after any other connection has written. -1: a writer is waiting, it is not known."""
        if not self.turn.acquire(timeout=_GLANCE):
            return -1
        try:
            self.check()
            with self._in_use():
                version: int = self.own_writer().execute("PRAGMA data_version").fetchone()[0]
                return version
        finally:
            self.turn.release()

    def own_writer(self) -> sqlite3.Connection:
        """Opened again where a fork has closed it."""
        if self.writer is None:
            assert self.path is not None
            self.writer = self._attach(self.path)
        return self.writer

    def borrow(self) -> sqlite3.Connection:
        """A connection for reading, of a cluster in a file."""
        assert self.path is not None
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._attach(self.path)
        self.busy.add(connection)
        return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        self.busy.discard(connection)
        if self._refusal is None:
            self._idle.append(connection)
        else:
            connection.close()


_GLANCE: Final = 0.05  # seconds


def _closed() -> Error:
    return ClosedError("this embedded cluster is closed", errno.ESHUTDOWN)


def _parents_memory() -> Error:
    return ForkedError("this embedded cluster is in its parent's memory: one in a file can be shared with forked children")


def _unprepared() -> Error:
    return ForkedError("this process was forked while its embedded cluster was in use: exec() a program, or fork earlier")


@contextlib.contextmanager
def told_as_rados_does(path: Path | None) -> Iterator[None]:
    """What fails in the database, where it is not an operation's outcome, as exceptions of rados."""
    try:
        yield
    except FAULTS as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        shut = path is not None and os.access(path, os.F_OK) and not os.access(path, os.R_OK | os.W_OK)
        code = errno.EACCES if shut else errno_of(error)
        raise make_ex(code, f"the embedded cluster {path or 'in memory'}: {words}") from error


def _connect(where: str) -> sqlite3.Connection:
    return sqlite3.connect(
        where, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=512, uri=True
    )


def _entered(path: Path, until: float | None) -> Gate:
    """The lock of a file, held. It may be taken away while it is waited for, by one who could not make a cluster."""
    while True:
        gate = Gate(path)
        try:
            gate.enter(until)
            if gate.is_current():
                return gate
        except BaseException:
            gate.close()
            raise
        gate.close()


def _format(path: Path) -> int | None:
    """The format of a cluster's file; None where one has yet to be made. NotACluster: it is something else."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise NotACluster(path, "it is no file")
    if not found.st_size:
        return None
    with contextlib.closing(_connect(f"{path.as_uri()}?mode=rw")) as connection:
        return tables.format_of(connection, path)


def count(connection: sqlite3.Connection, counter: str, step: int = 1) -> int:
    """Advance one of the cluster's counters and return it."""
    value: int = connection.execute(
        "UPDATE meta SET value = value + ? WHERE name = ? RETURNING value", (step, counter)
    ).fetchone()[0]
    return value


def errno_of(error: Exception) -> int:
    """What a fault of the database, one of :data:`FAULTS`, is to a client."""
    if isinstance(error, TimeoutError):
        return errno.ETIMEDOUT
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
    return _ERRNOS.get(code & 0xFF, errno.EIO)


_ERRNOS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_BUSY: errno.ETIMEDOUT,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_TOOBIG: errno.EFBIG,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
}
