"""The monitor commands about users. Their keys open nothing here: there is nothing that asks for them."""

from __future__ import annotations

import base64
import errno
import json
import secrets
import sqlite3
import struct
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rbd_native.embedded.mon import Denied, rendered

Command = Mapping[str, Any]
Answer = tuple[bytes, str]


class User(NamedTuple):
    entity: str
    key: str
    caps: dict[str, str]

    def shown(self) -> dict[str, Any]:
        return {"entity": self.entity, "key": self.key, "caps": self.caps}

    def keyring(self) -> bytes:
        caps = "".join(f'\tcaps {name} = "{cap}"\n' for name, cap in sorted(self.caps.items()))
        return f"[{self.entity}]\n\tkey = {self.key}\n{caps}".encode()


# --- the table -------------------------------------------------------------------------------------------------------


def find(db: sqlite3.Connection, entity: str) -> User | None:
    found = db.execute("SELECT entity, key, caps FROM auth WHERE entity = ?", (entity,)).fetchone()
    return None if found is None else User(found[0], found[1], json.loads(found[2]))


def everybody(db: sqlite3.Connection) -> list[User]:
    rows = db.execute("SELECT entity, key, caps FROM auth ORDER BY entity")
    return [User(entity, key, json.loads(caps)) for entity, key, caps in rows]


def _make(db: sqlite3.Connection, entity: str, caps: Mapping[str, str]) -> User:
    # As Ceph's: type 2 (AES of 256 bits), when it was made, 32 bytes of secret.
    raw = struct.pack("<HIIH", 2, *divmod(time.time_ns(), 10**9), 32) + secrets.token_bytes(32)
    user = User(entity, base64.b64encode(raw).decode(), dict(caps))
    db.execute("INSERT INTO auth VALUES (?, ?, ?)", (entity, user.key, json.dumps(user.caps)))
    return user


def _same(user: User, caps: Mapping[str, str], what: str) -> User:
    """EINVAL where he may do something else."""
    for name in {**user.caps, **caps}:
        if user.caps.get(name) != caps.get(name):
            raise Denied(errno.EINVAL, f"{what} {user.entity} exists but cap {name} does not match")
    return user


# --- the commands ----------------------------------------------------------------------------------------------------


def _entity(command: Command) -> str:
    entity = command.get("entity")
    if not isinstance(entity, str) or "." not in entity:
        raise Denied(errno.EINVAL, "bad entity name")
    return entity


def _caps(command: Command) -> dict[str, str]:
    given = command.get("caps", [])
    if not isinstance(given, list) or len(given) % 2 or not all(isinstance(part, str) for part in given):
        raise Denied(errno.EINVAL, "bad or missing field 'caps'")
    return dict(zip(given[::2], given[1::2], strict=True))


def _is_json(command: Command) -> bool:
    return command.get("format") == "json"


def _get_or_create(db: sqlite3.Connection, command: Command) -> User:
    entity, caps = _entity(command), _caps(command)
    user = find(db, entity)
    return _make(db, entity, caps) if user is None else _same(user, caps, "key for")


def _auth_get_or_create(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    user = _get_or_create(db, command)
    if _is_json(command):
        return rendered([user.shown()], command), ""
    return f"[{user.entity}]\n\tkey = {user.key}\n".encode(), ""


def _auth_get_or_create_key(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    user = _get_or_create(db, command)
    return (rendered({"key": user.key}, command) if _is_json(command) else f"{user.key}\n".encode()), ""


def _auth_get(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    user = find(db, _entity(command))
    if user is None:
        raise Denied(errno.ENOENT, f"failed to find {command['entity']} in keyring")
    output = rendered([user.shown()], command) if _is_json(command) else user.keyring()
    return output, f"exported keyring for {user.entity}"


def _auth_get_key(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    user = find(db, _entity(command))
    if user is None:
        raise Denied(errno.ENOENT, f"don't have {command['entity']}")
    return (rendered({"key": user.key}, command) if _is_json(command) else user.key.encode()), ""


def _auth_add(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    entity, caps = _entity(command), _caps(command)
    user = find(db, entity)
    if user is not None:
        _same(user, caps, "entity")
        return b"", ""
    _make(db, entity, caps)
    return b"", f"added key for {entity}"


def _auth_caps(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    entity, caps = _entity(command), _caps(command)
    if not db.execute("UPDATE auth SET caps = ? WHERE entity = ?", (json.dumps(caps), entity)).rowcount:
        raise Denied(errno.ENOENT, f"couldn't find entry {entity}")
    return b"", f"updated caps for {entity}"


def _auth_rm(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    entity = _entity(command)
    gone = db.execute("DELETE FROM auth WHERE entity = ?", (entity,)).rowcount
    return b"", "updated" if gone else f"entity {entity} does not exist"


def _auth_ls(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    users = everybody(db)
    if _is_json(command):
        return rendered({"auth_dump": [user.shown() for user in users]}, command), ""
    lines = []
    for user in users:
        caps = "".join(f"\tcaps: [{name}] {cap}\n" for name, cap in sorted(user.caps.items()))
        lines.append(f"{user.entity}\n\tkey: {user.key}\n{caps}")
    return "".join(lines).encode(), "installed auth entries:\n"


COMMANDS: Final = {
    "auth add": _auth_add,
    "auth caps": _auth_caps,
    "auth del": _auth_rm,
    "auth get": _auth_get,
    "auth get-key": _auth_get_key,
    "auth get-or-create": _auth_get_or_create,
    "auth get-or-create-key": _auth_get_or_create_key,
    "auth list": _auth_ls,
    "auth ls": _auth_ls,
    "auth print-key": _auth_get_key,
    "auth rm": _auth_rm,
}
