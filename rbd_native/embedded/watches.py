"""Watches and notifications, as far as the store is concerned: who watches what, who was told, who has answered.

A client proves that it lives by a time stamp of its own (`client.seen`); a watch whose client has not done so for the
watch's timeout is gone, whoever looks first removes it.
"""

from __future__ import annotations

import sqlite3
import time

from rbd_native.embedded.store import Store
from rbd_native.rados.port import Watcher

_WATCHERS = (
    "SELECT client.address, watch.gid, watch.cookie, watch.timeout FROM watch JOIN client ON client.gid = watch.gid"
    " WHERE watch.obj = ? AND client.seen + watch.timeout > ? ORDER BY watch.cookie"
)


def watchers(db: sqlite3.Connection, obj: int) -> list[Watcher]:
    """Who watches an object now."""
    return [Watcher(*found) for found in db.execute(_WATCHERS, (obj, time.time()))]


def drop_object(db: sqlite3.Connection, obj: int) -> None:
    """The object was deleted: its watches are lost."""
    db.execute("DELETE FROM watch WHERE obj = ?", (obj,))
    db.execute("DELETE FROM notify_ack WHERE reply IS NULL AND notify IN (SELECT id FROM notify WHERE obj = ?)", (obj,))


def woken(store: Store) -> None:
    """Let those who wait look at the store again."""


def drop_client(db: sqlite3.Connection, gid: int) -> None:
    """All watches of a client are lost, or given up."""
    db.execute("DELETE FROM watch WHERE gid = ?", (gid,))
    db.execute("DELETE FROM notify_ack WHERE gid = ? AND reply IS NULL", (gid,))
