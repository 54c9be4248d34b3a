"""Watches and notifications in the store: who watches what, who was told, who has answered.

A client proves that it lives by a time stamp of its own (`client.seen`); a watch whose client has not done so for the
watch's timeout is gone: whoever looks first removes it. A notification is a row, with one row more for every watcher
that is to answer; a watcher that is lost need not.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final, NamedTuple

from rbd_native.embedded.objclass import Entity
from rbd_native.embedded.store import count
from rbd_native.rados.port import NotifyReply, Watcher

_STALE: Final = 60.0  # seconds after its end that a notification whose client has died is kept

_WATCHERS: Final = (
    "SELECT client.address, watch.gid, watch.cookie, watch.timeout FROM watch JOIN client ON client.gid = watch.gid"
    " WHERE watch.obj = ? AND client.seen + watch.timeout > ? ORDER BY watch.gid, watch.cookie"
)


class Notification(NamedTuple):
    """What a client's watch has to answer."""

    id: int
    cookie: int
    notifier: int
    payload: bytes


# --- watches ---------------------------------------------------------------------------------------------------------


def watchers(db: sqlite3.Connection, obj: int) -> list[Watcher]:
    """Who watches an object now."""
    return [Watcher(*found) for found in db.execute(_WATCHERS, (obj, time.time()))]


def add(db: sqlite3.Connection, obj: int, client: Entity, cookie: int, timeout: int) -> None:
    db.execute("INSERT OR REPLACE INTO client VALUES (?, ?, ?)", (client.client, client.address, time.time()))
    db.execute("INSERT INTO watch VALUES (?, ?, ?, ?)", (obj, client.client, cookie, timeout))


def remove(db: sqlite3.Connection, gid: int, cookie: int) -> bool:
    """Whether it was still there."""
    _excuse(db, "gid = ? AND cookie = ?", gid, cookie)
    return db.execute("DELETE FROM watch WHERE gid = ? AND cookie = ?", (gid, cookie)).rowcount > 0


def cookies(db: sqlite3.Connection, gid: int) -> set[int]:
    """The watches that a client has."""
    return {cookie for (cookie,) in db.execute("SELECT cookie FROM watch WHERE gid = ?", (gid,))}


def confirm(db: sqlite3.Connection, gid: int) -> None:
    """A client lives."""
    db.execute("UPDATE client SET seen = ? WHERE gid = ?", (time.time(), gid))


def confirmed(db: sqlite3.Connection, gid: int, cookie: int) -> float | None:
    """Seconds since a watch was known to be in place; None where it is lost."""
    found = db.execute(
        "SELECT client.seen FROM watch JOIN client ON client.gid = watch.gid WHERE watch.gid = ? AND watch.cookie = ?",
        (gid, cookie),
    ).fetchone()
    return None if found is None else max(0.0, time.time() - found[0])


def expire(db: sqlite3.Connection) -> None:
    """Remove the watches of clients that have not been heard of."""
    lapsed = db.execute(
        "SELECT watch.gid, watch.cookie FROM watch LEFT JOIN client ON client.gid = watch.gid"
        " WHERE client.seen IS NULL OR client.seen + watch.timeout <= ?",
        (time.time(),),
    ).fetchall()
    for gid, cookie in lapsed:
        remove(db, gid, cookie)


def drop_object(db: sqlite3.Connection, obj: int) -> bool:
    """The object was deleted: its watches are lost. Whether there were any."""
    _excuse(db, "notify IN (SELECT id FROM notify WHERE obj = ?)", obj)
    return db.execute("DELETE FROM watch WHERE obj = ?", (obj,)).rowcount > 0


def drop_client(db: sqlite3.Connection, gid: int) -> None:
    """All watches of a client are lost, or given up."""
    _excuse(db, "gid = ?", gid)
    db.execute("DELETE FROM watch WHERE gid = ?", (gid,))


def _excuse(db: sqlite3.Connection, whom: str, *arguments: int) -> None:
    """Do not wait for answers of watches that are gone."""
    db.execute(f"DELETE FROM notify_ack WHERE reply IS NULL AND {whom}", arguments)


# --- notifications ---------------------------------------------------------------------------------------------------


def start(db: sqlite3.Connection, obj: int, gid: int, payload: bytes, seconds: float) -> tuple[int, set[int]]:
    """Tell all who watch an object: the notification's id, and the clients to wake (none: it is over)."""
    expire(db)
    _forget_stale(db)
    told = db.execute("SELECT gid, cookie FROM watch WHERE obj = ?", (obj,)).fetchall()
    notify = count(db, "notify")
    if told:
        db.execute("INSERT INTO notify VALUES (?, ?, ?, ?, ?)", (notify, obj, gid, time.time() + seconds, bytes(payload)))
        db.executemany("INSERT INTO notify_ack VALUES (?, ?, ?, NULL)", [(notify, *watch) for watch in told])
    return notify, {watcher for watcher, _ in told}


def _forget_stale(db: sqlite3.Connection) -> None:
    for (notify,) in db.execute("SELECT id FROM notify WHERE deadline < ?", (time.time() - _STALE,)).fetchall():
        finish(db, notify)


def due(db: sqlite3.Connection, gid: int) -> list[Notification]:
    """What a client has not answered yet, oldest first."""
    rows = db.execute(
        "SELECT notify.id, notify_ack.cookie, notify.gid, notify.payload FROM notify_ack"
        " JOIN notify ON notify.id = notify_ack.notify"
        " WHERE notify_ack.gid = ? AND notify_ack.reply IS NULL ORDER BY notify.id",
        (gid,),
    )
    return [Notification(*row) for row in rows]


def acknowledge(db: sqlite3.Connection, notify: int, gid: int, cookie: int, reply: bytes) -> None:
    """No effect where nobody waits for it any more."""
    db.execute(
        "UPDATE notify_ack SET reply = ? WHERE notify = ? AND gid = ? AND cookie = ?",
        (bytes(reply), notify, gid, cookie),
    )


class Progress(NamedTuple):
    """Of a notification: who has not answered, as (client, cookie), and when to look again at the latest."""

    missing: list[tuple[int, int]]
    next_look: float


def progress(db: sqlite3.Connection, notify: int) -> Progress:
    missing = db.execute(
        "SELECT gid, cookie FROM notify_ack WHERE notify = ? AND reply IS NULL ORDER BY gid, cookie", (notify,)
    ).fetchall()
    (deadline,) = db.execute("SELECT deadline FROM notify WHERE id = ?", (notify,)).fetchone() or (0.0,)
    (lapse,) = db.execute(
        "SELECT min(client.seen + watch.timeout) FROM notify_ack"
        " JOIN watch ON watch.gid = notify_ack.gid AND watch.cookie = notify_ack.cookie"
        " JOIN client ON client.gid = notify_ack.gid WHERE notify_ack.notify = ? AND notify_ack.reply IS NULL",
        (notify,),
    ).fetchone()
    return Progress(missing, deadline if lapse is None else min(deadline, lapse))


def finish(db: sqlite3.Connection, notify: int) -> NotifyReply:
    """Forget a notification; what came back, and from whom nothing did."""
    rows = db.execute("DELETE FROM notify_ack WHERE notify = ? RETURNING gid, cookie, reply", (notify,)).fetchall()
    db.execute("DELETE FROM notify WHERE id = ?", (notify,))
    rows.sort(key=lambda row: row[:2])
    return NotifyReply(
        [(gid, cookie, reply) for gid, cookie, reply in rows if reply is not None],
        [(gid, cookie) for gid, cookie, reply in rows if reply is None],
    )
