"""The transactions of a :class:`~rbd_native.embedded.store.Store`, as context managers that give a connection."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any, Protocol

from rbd_native.embedded import fork
from rbd_native.interrupts import DEFERRED

if TYPE_CHECKING:
    from rbd_native.embedded.store import Store


class Transaction(Protocol):
    """`with` it to have a connection. Reads are of one moment; writes are all made, or, on an exception, none."""

    def __enter__(self) -> sqlite3.Connection: ...

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None: ...


class Deferring:
    """A transaction: signal handlers wait for its end."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> sqlite3.Connection:
        DEFERRED.__enter__()
        try:
            return self._begin()
        except BaseException:
            DEFERRED.__exit__(None, None, None)
            raise

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        try:
            self._end(kind is None)
        finally:
            DEFERRED.__exit__(None, None, None)

    def _begin(self) -> sqlite3.Connection:
        raise NotImplementedError

    def _end(self, keep: bool) -> None:
        raise NotImplementedError


class SharedRead(Deferring):
    """A read on the one connection of a cluster in memory."""

    __slots__ = ("_turn",)

    def _begin(self) -> sqlite3.Connection:
        self._turn = self._store.turn
        self._turn.acquire()
        try:
            self._store.check()
            fork.enter()
        except BaseException:
            self._turn.release()
            raise
        assert self._store.writer is not None
        return self._store.writer

    def _end(self, keep: bool) -> None:
        fork.leave()
        self._turn.release()


class OwnRead(Deferring):
    """A read on a connection of its own: a snapshot of the file."""

    __slots__ = ("_connection",)

    def _begin(self) -> sqlite3.Connection:
        self._store.check()
        fork.enter()
        try:
            self._connection = self._store.borrow()
            try:
                self._connection.execute("BEGIN")
            except BaseException:
                self._store.busy.discard(self._connection)
                self._connection.close()
                raise
        except BaseException:
            fork.leave()
            raise
        return self._connection

    def _end(self, keep: bool) -> None:
        try:
            self._connection.execute("COMMIT")
        finally:
            self._store.give_back(self._connection)
            fork.leave()


class Write(Deferring):
    """A write, of one thread and one process at a time."""

    __slots__ = ("_patience", "_turn", "_writer")

    def __init__(self, store: Store, patience: float | None) -> None:
        super().__init__(store)
        self._patience = patience

    def _begin(self) -> sqlite3.Connection:
        self._turn = self._store.turn
        until = None if self._patience is None else time.monotonic() + self._patience
        _take_turn(self._turn, self._patience)
        try:
            self._store.check()
            return self._begin_alone(until)
        except BaseException:
            self._turn.release()
            raise

    def _begin_alone(self, until: float | None) -> sqlite3.Connection:
        gate = self._store.gate
        if gate is None:
            return self._begin_unforked()
        gate.enter(until)
        try:
            return self._begin_unforked()
        except BaseException:
            gate.leave()
            raise

    def _begin_unforked(self) -> sqlite3.Connection:
        fork.enter()
        try:
            self._writer = self._store.own_writer()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except BaseException:
                _settle(self._writer)
                raise
        except BaseException:
            fork.leave()
            raise
        return self._writer

    def _end(self, keep: bool) -> None:
        try:
            try:
                if keep:
                    self._writer.execute("COMMIT")
            finally:
                try:
                    _settle(self._writer)
                finally:
                    fork.leave()
        finally:
            if self._store.gate is not None:
                self._store.gate.leave()
            self._turn.release()


def _settle(writer: sqlite3.Connection) -> None:
    """Undo what was not committed: an exception, or a COMMIT that failed."""
    if writer.in_transaction:
        writer.execute("ROLLBACK")


def _take_turn(turn: Any, patience: float | None) -> None:
    if not turn.acquire(timeout=-1 if patience is None else max(patience, 0)):
        raise TimeoutError("another thread of this process is at it, or waits for another process")
