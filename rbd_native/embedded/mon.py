"""The embedded monitor: pools and their applications, the blocklist, configuration, and the commands over them.

Functions take a connection inside a transaction. They refuse by raising :class:`Denied` with a positive errno.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from rbd_native.embedded import snapshots, watches
from rbd_native.embedded.store import count
from rbd_native.rados.port import PoolStats

CAPACITY: Final = 1 << 40
"""Bytes that a cluster says it could hold."""

DEFAULT_BLOCKLIST_SECONDS: Final = 3600.0

_FORGOTTEN: Final = 86400.0  # seconds until a client that never watched anything, and never left, is struck off

_NONCE_STEP: Final = 2654435761  # odd, so that the nonces of the first 2**32 clients differ


class Denied(Exception):
    """Positive errno, and what the monitor says."""

    def __init__(self, code: int, status: str = "") -> None:
        super().__init__(status or errno.errorcode.get(code, str(code)))
        self.errno = code
        self.status = status


# --- clients ---------------------------------------------------------------------------------------------------------


def register(db: sqlite3.Connection) -> tuple[int, str]:
    """A new client: its global id, greater than any before, and its address."""
    gid = count(db, "gid")
    db.execute("DELETE FROM client WHERE seen < ? AND gid NOT IN (SELECT gid FROM watch)", (time.time() - _FORGOTTEN,))
    address = f"127.0.0.1:0/{gid * _NONCE_STEP % 2**32}"
    db.execute("INSERT INTO client VALUES (?, ?, ?)", (gid, address, time.time()))
    return gid, address


def unregister(db: sqlite3.Connection, gid: int) -> None:
    watches.drop_client(db, gid)
    db.execute("DELETE FROM client WHERE gid = ?", (gid,))


def fact(db: sqlite3.Connection, name: str) -> str:
    """Of the cluster: fsid, created, require_min_compat_client."""
    return str(db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])


# --- pools -----------------------------------------------------------------------------------------------------------


def pools(db: sqlite3.Connection) -> dict[int, str]:
    return dict(db.execute("SELECT id, name FROM pool ORDER BY id").fetchall())


def pool_id(db: sqlite3.Connection, name: str) -> int:
    found = db.execute("SELECT id FROM pool WHERE name = ?", (name,)).fetchone()
    if found is None:
        raise Denied(errno.ENOENT, f"unrecognized pool '{name}'")
    return int(found[0])


def pool_name(db: sqlite3.Connection, pool: int) -> str:
    found = db.execute("SELECT name FROM pool WHERE id = ?", (pool,)).fetchone()
    if found is None:
        raise Denied(errno.ENOENT)
    return str(found[0])


def create_pool(db: sqlite3.Connection, name: str) -> int:
    if not name:
        raise Denied(errno.EINVAL)
    try:
        (pool,) = db.execute("INSERT INTO pool (name) VALUES (?) RETURNING id", (name,)).fetchone()
    except sqlite3.IntegrityError:
        raise Denied(errno.EEXIST, f"pool '{name}' already exists") from None
    return int(pool)


def delete_pool(db: sqlite3.Connection, name: str) -> None:
    """With everything in it."""
    pool = pool_id(db, name)
    mine = "(SELECT id FROM object WHERE pool = ?)"
    for table in ("chunk", "xattr", "omap", "clone", "watch"):
        db.execute(f"DELETE FROM {table} WHERE obj IN {mine}", (pool,))
    for table in ("object", "clone_snap", "removed_snap", "application", "application_metadata", "pool_option"):
        db.execute(f"DELETE FROM {table} WHERE pool = ?", (pool,))
    db.execute("DELETE FROM pool WHERE id = ?", (pool,))


def pool_stats(db: sqlite3.Connection, pool: int) -> PoolStats:
    pool_name(db, pool)
    objects, used = db.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM object WHERE pool = ? AND alive", (pool,)
    ).fetchone()
    clones, kept = db.execute(
        "SELECT count(*), coalesce(sum(clone.size), 0) FROM clone JOIN object ON object.id = clone.obj WHERE pool = ?",
        (pool,),
    ).fetchone()
    return PoolStats(used + kept, objects + clones, max(CAPACITY - stored(db), 0))


def stored(db: sqlite3.Connection) -> int:
    """Bytes that the database takes."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return int(pages * size)


_SURE: Final = "pass --yes-i-really-mean-it to proceed anyway"


# --- applications ----------------------------------------------------------------------------------------------------


def enable_application(db: sqlite3.Connection, pool: int, app: str, force: bool) -> None:
    name = pool_name(db, pool)
    others = [other for other in applications(db, pool) if other != app]
    if others and not force:
        words = f"Are you SURE? Pool '{name}' already has an enabled application; {_SURE}"
        raise Denied(errno.EPERM, words)
    db.execute("INSERT OR IGNORE INTO application VALUES (?, ?)", (pool, app))


def disable_application(db: sqlite3.Connection, pool: int, app: str) -> None:
    db.execute("DELETE FROM application WHERE pool = ? AND app = ?", (pool, app))
    db.execute("DELETE FROM application_metadata WHERE pool = ? AND app = ?", (pool, app))


def applications(db: sqlite3.Connection, pool: int) -> list[str]:
    return [app for (app,) in db.execute("SELECT app FROM application WHERE pool = ? ORDER BY app", (pool,))]


def application_metadata(db: sqlite3.Connection, pool: int, app: str) -> dict[str, str]:
    pool_name(db, pool)
    if app not in applications(db, pool):
        raise Denied(errno.ENOENT)
    rows = db.execute("SELECT key, value FROM application_metadata WHERE pool = ? AND app = ? ORDER BY key", (pool, app))
    return dict(rows.fetchall())


def set_application_metadata(db: sqlite3.Connection, pool: int, app: str, key: str, value: str) -> None:
    application_metadata(db, pool, app)
    db.execute("INSERT OR REPLACE INTO application_metadata VALUES (?, ?, ?, ?)", (pool, app, key, value))


def remove_application_metadata(db: sqlite3.Connection, pool: int, app: str, key: str) -> None:
    application_metadata(db, pool, app)
    db.execute("DELETE FROM application_metadata WHERE pool = ? AND app = ? AND key = ?", (pool, app, key))


# --- snapshots -------------------------------------------------------------------------------------------------------


def create_snap(db: sqlite3.Connection, pool: int) -> int:
    snap = snapshots.create(db, pool)
    if snap is None:
        raise Denied(errno.ENOENT)
    return snap


def remove_snap(db: sqlite3.Connection, pool: int, snap: int) -> None:
    """Also of one that was removed before; ENOENT for one that never was."""
    found = db.execute("SELECT snap_seq FROM pool WHERE id = ?", (pool,)).fetchone()
    if found is None or snap > found[0]:
        raise Denied(errno.ENOENT)
    if snap:
        snapshots.remove(db, pool, snap)


# --- the blocklist ---------------------------------------------------------------------------------------------------


def block(db: sqlite3.Connection, address: str, seconds: float) -> float:
    """Refuse every operation of a client from now on, and drop its watches. Returns until when."""
    until = time.time() + (seconds or DEFAULT_BLOCKLIST_SECONDS)
    address = _address(address)
    db.execute("INSERT OR REPLACE INTO blocklist VALUES (?, ?)", (address, until))
    host, _, nonce = address.rpartition(":")
    pattern = f"{host}:%" if nonce == "0/0" else address
    for (gid,) in db.execute("SELECT gid FROM client WHERE address LIKE ?", (pattern,)).fetchall():
        watches.drop_client(db, gid)
    return until


def unblock(db: sqlite3.Connection, address: str) -> bool:
    """Whether it was on the list."""
    return db.execute("DELETE FROM blocklist WHERE address = ?", (_address(address),)).rowcount > 0


def blocklist(db: sqlite3.Connection) -> list[tuple[str, float]]:
    """Addresses, and until when each is refused."""
    db.execute("DELETE FROM blocklist WHERE until <= ?", (time.time(),))
    return db.execute("SELECT address, until FROM blocklist ORDER BY address DESC").fetchall()


def _address(text: str) -> str:
    """ "ip:port/nonce", where an ip alone means all of its clients (":0/0")."""
    host, colon, rest = text.rpartition(":")
    if not colon or not rest.partition("/")[0].isdecimal():
        host, rest = text, "0/0"
    port, _, nonce = rest.partition("/")
    try:
        ipaddress.ip_address(host.strip("[]"))
        return f"{host}:{int(port)}/{int(nonce or 0)}"
    except ValueError:
        raise Denied(errno.EINVAL, f"unable to parse address {text}") from None


# --- configuration ---------------------------------------------------------------------------------------------------


def config(db: sqlite3.Connection, entity: str, name: str) -> str | None:
    """The cluster's own setting of an option for a client: its own before that of all clients before that of all."""
    for who in (entity, entity.partition(".")[0], "global"):
        found = db.execute("SELECT value FROM config WHERE who = ? AND name = ?", (who, name)).fetchone()
        if found is not None:
            return str(found[0])
    return None


# --- addresses, and how things are shown ------------------------------------------------------------------------------

ADDRESS_TYPE: Final = "embedded"
"""Of the address of a monitor that is no server, but a file, or something in the memory of a process."""


def address(db: sqlite3.Connection) -> str:
    """The file that the cluster is in; where it is in none, its id."""
    return str(db.execute("PRAGMA database_list").fetchone()[2]) or fact(db, "fsid")


def stamp(moment: float) -> str:
    """A time as the monitor prints it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")


def rendered(value: object, command: Mapping[str, object]) -> bytes:
    """JSON as the monitor prints it: dense where the command asks for `format: json`."""
    if command.get("format") == "json":
        return json.dumps(value, separators=(",", ":")).encode()
    return (json.dumps(value, indent=4) + "\n").encode()
