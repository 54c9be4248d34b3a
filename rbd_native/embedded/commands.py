"""The monitor commands that an embedded cluster knows: those that RBD clients and their administration send.

Every other command is refused as one the monitor does not know (-EINVAL).
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rbd_native.embedded import auth_commands, mon, pool_commands, status_commands
from rbd_native.embedded.conf import UnknownOption, canonical, checked, find
from rbd_native.embedded.mon import Denied, rendered

Command = Mapping[str, Any]
Answer = tuple[bytes, str]
"""Output and status line."""


def run(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    """Denied, with the status line of the refusal."""
    prefix = command.get("prefix")
    if not isinstance(prefix, str):
        raise Denied(errno.EINVAL, "command prefix not found")
    known = _COMMANDS.get(prefix)
    if known is None:
        raise Denied(errno.EINVAL, "command not known")
    try:
        return known(db, command, data)
    except (TypeError, ValueError, OverflowError, sqlite3.ProgrammingError) as error:
        # A parameter of another type, or beyond all bounds. What was done for it is undone with the transaction.
        raise Denied(errno.EINVAL, f"invalid command: {error}") from error


def _text(command: Command, name: str) -> str:
    """A parameter that must be there."""
    value = command.get(name)
    if not isinstance(value, str):
        raise Denied(errno.EINVAL, f"missing required parameter {name}(<string>)")
    return value


def _sure(command: Command, flag: str = "yes_i_really_mean_it") -> bool:
    return command.get(flag) in (True, "true", f"--{flag.replace('_', '-')}")


# --- the blocklist ---------------------------------------------------------------------------------------------------


def _blocklist(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    action = command.get("blocklistop", command.get("blacklistop"))
    address = _text(command, "addr")
    if action == "add":
        seconds = command.get("expire", mon.DEFAULT_BLOCKLIST_SECONDS)
        if not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
            raise Denied(errno.EINVAL, "bad or missing field 'expire'")
        until = mon.block(db, address, seconds)
        return b"", f"blocklisting {address} until {mon.stamp(until)} ({seconds:g} sec)"
    if action == "rm":
        listed = mon.unblock(db, address)
        return b"", f"un-blocklisting {address}" if listed else f"{address} isn't blocklisted"
    raise Denied(errno.EINVAL, "blocklistop must be add or rm")


def _blocklist_ls(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    entries = mon.blocklist(db)
    status = f"listed {len(entries)} entries"
    if command.get("format") == "json":
        listed = [{"addr": address, "until": mon.stamp(until)} for address, until in entries]
        return rendered(listed, command) + b"[]", status  # sic: a second list, of ranges, follows
    return "".join(f"{address} {mon.stamp(until)}\n" for address, until in entries).encode(), status


def _blocklist_clear(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    db.execute("DELETE FROM blocklist")
    return b"", " removed all blocklist entries"


# --- pools -----------------------------------------------------------------------------------------------------------


def _pool_create(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    name = _text(command, "pool")
    try:
        mon.create_pool(db, name)
    except Denied as denied:
        if denied.errno != errno.EEXIST:
            raise
        return b"", denied.status
    return b"", f"pool '{name}' created"


def _pool_delete(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    name = _text(command, "pool")
    if command.get("pool2") != name or not _sure(command, "yes_i_really_really_mean_it"):
        raise Denied(errno.EPERM, f"WARNING: this will *PERMANENTLY DESTROY* all data stored in pool {name}.")
    try:
        mon.delete_pool(db, name)
    except Denied:
        return b"", f"pool '{name}' does not exist"
    return b"", f"pool '{name}' removed"


def _df(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    stats = {pool: mon.pool_stats(db, pool) for pool in mon.pools(db)}
    pools = [
        {
            "name": name,
            "id": pool,
            "stats": {
                "stored": stats[pool].bytes_used,
                "objects": stats[pool].objects,
                "kb_used": -(-stats[pool].bytes_used // 1024),
                "bytes_used": stats[pool].bytes_used,
                "percent_used": stats[pool].bytes_used / (stats[pool].bytes_used + stats[pool].max_available or 1),
                "max_avail": stats[pool].max_available,
            },
        }
        for pool, name in mon.pools(db).items()
    ]
    used = mon.stored(db)
    whole = {"total_bytes": mon.CAPACITY, "total_avail_bytes": max(mon.CAPACITY - used, 0), "total_used_bytes": used}
    if command.get("format") != "json":
        return _df_text(whole, pools), ""
    return rendered({"stats": whole, "pools": pools}, command), ""


def _df_text(whole: Mapping[str, int], pools: Sequence[Mapping[str, Any]]) -> bytes:
    size, left, used = whole["total_bytes"], whole["total_avail_bytes"], whole["total_used_bytes"]
    row = f"{size} B  {left} B  {used} B  {used} B  {100 * used / size:.2f}"
    lines = ["--- RAW STORAGE ---", "CLASS  SIZE  AVAIL  USED  RAW USED  %RAW USED", f"ssd    {row}", f"TOTAL  {row}", " "]
    lines += ["--- POOLS ---", "POOL  ID  PGS  STORED  OBJECTS  USED  %USED  MAX AVAIL"]
    for pool in pools:
        stats = pool["stats"]
        amounts = f"{stats['stored']} B  {stats['objects']}  {stats['bytes_used']} B  {100 * stats['percent_used']:.2f}"
        lines.append(f"{pool['name']}  {pool['id']}  32  {amounts}  {stats['max_avail']} B")
    return ("\n".join(lines) + "\n").encode()


def _lspools(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pools = mon.pools(db)
    if command.get("format") == "json":
        listed = [{"poolnum": pool, "poolname": name} for pool, name in pools.items()]
        return rendered(listed, command) + b"\n", ""
    return "".join(f"{pool} {name}\n" for pool, name in pools.items()).encode(), ""


def _application_enable(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, app = _text(command, "pool"), _text(command, "app")
    mon.enable_application(db, mon.pool_id(db, pool), app, _sure(command))
    return b"", f"enabled application '{app}' on pool '{pool}'"


def _application_disable(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, app = _text(command, "pool"), _text(command, "app")
    if not _sure(command):
        raise Denied(errno.EPERM, "Are you SURE? pass --yes-i-really-mean-it to proceed anyway")
    mon.disable_application(db, mon.pool_id(db, pool), app)
    return b"", f"disable application '{app}' on pool '{pool}'"


def _application_get(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    if "pool" in command:
        return rendered(_apps(db, mon.pool_id(db, _text(command, "pool"))), command), ""
    return rendered({name: _apps(db, pool) for pool, name in mon.pools(db).items()}, command), ""


def _application_set(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, app, key, value = (_text(command, name) for name in ("pool", "app", "key", "value"))
    try:
        mon.set_application_metadata(db, mon.pool_id(db, pool), app, key, value)
    except Denied as denied:
        raise Denied(denied.errno, denied.status or _not_enabled(app, pool)) from None
    return b"", f"set application '{app}' key '{key}' to '{value}' on pool '{pool}'"


def _application_rm(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, app, key = (_text(command, name) for name in ("pool", "app", "key"))
    try:
        mon.remove_application_metadata(db, mon.pool_id(db, pool), app, key)
    except Denied as denied:
        raise Denied(denied.errno, denied.status or _not_enabled(app, pool)) from None
    return b"", f"removed application '{app}' key '{key}' on pool '{pool}'"


def _not_enabled(app: str, pool: str) -> str:
    return f"application '{app}' is not enabled on pool '{pool}'"


# --- configuration ---------------------------------------------------------------------------------------------------


def _config_set(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    who, name = _text(command, "who"), canonical(_text(command, "name"))
    try:
        value = checked(name, _text(command, "value"))
    except UnknownOption:
        raise Denied(errno.EINVAL, f"unrecognized config option '{name}'") from None
    except ValueError as error:
        raise Denied(errno.EINVAL, f"error parsing value: {error}") from None
    db.execute("INSERT OR REPLACE INTO config VALUES (?, ?, ?)", (who, name, value))
    return b"", ""


def _config_rm(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    where = (_text(command, "who"), canonical(_text(command, "name")))
    db.execute("DELETE FROM config WHERE who = ? AND name = ?", where)
    return b"", ""


def _config_get(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    name = canonical(_text(command, "key"))
    option = find(name)
    if option is None:
        raise Denied(errno.ENOENT, f"unrecognized key '{name}'")
    value = mon.config(db, _text(command, "who"), name)
    return f"{option.render(option.default) if value is None else value}\n".encode(), ""


def _config_dump(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    rows = db.execute("SELECT who, name, value FROM config ORDER BY who, name")
    return rendered([{"section": who, "name": name, "value": value} for who, name, value in rows], command), ""


def _key_get(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    found = db.execute("SELECT value FROM config_key WHERE key = ?", (str(command.get("key", "")),)).fetchone()
    if found is None:
        raise Denied(errno.ENOENT)
    return bytes(found[0]), ""


def _key_set(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    key = _text(command, "key")
    value = str(command["val"]).encode() if "val" in command else bytes(data)
    db.execute("INSERT OR REPLACE INTO config_key VALUES (?, ?)", (key, value))
    return b"", f"set {key}"


def _key_rm(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    db.execute("DELETE FROM config_key WHERE key = ?", (_text(command, "key"),))
    return b"", "key deleted"


def _key_exists(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    key = _text(command, "key")
    if not db.execute("SELECT 1 FROM config_key WHERE key = ?", (key,)).fetchone():
        raise Denied(errno.ENOENT, f"key '{key}' doesn't exist")
    return b"", f"key '{key}' exists"


def _key_ls(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return rendered([key for (key,) in db.execute("SELECT key FROM config_key ORDER BY key")], command), ""


# --- the cluster -----------------------------------------------------------------------------------------------------


def _fsid(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    fsid = mon.fact(db, "fsid")
    return (rendered({"fsid": fsid}, command) if command.get("format") == "json" else f"{fsid}\n".encode()), ""


def _get_compat(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return f"{mon.fact(db, 'require_min_compat_client')}\n".encode(), ""


_RELEASES: Final = ("jewel", "kraken", "luminous", "mimic", "nautilus", "octopus", "pacific", "quincy", "reef")


def _set_compat(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    release = _text(command, "version")
    if release not in _RELEASES:
        raise Denied(errno.EINVAL, f"{release} is not a valid version")
    db.execute("UPDATE meta SET value = ? WHERE name = 'require_min_compat_client'", (release,))
    return b"", f"set require_min_compat_client to {release}"


def _osd_dump(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    if command.get("format") != "json":
        detailed, _ = pool_commands.COMMANDS["osd pool ls"](db, {"detail": "detail"}, b"")
        head = ["epoch 1", f"fsid {mon.fact(db, 'fsid')}", "flags sortbitwise", "max_osd 1"]
        compat = [f"require_min_compat_client {mon.fact(db, 'require_min_compat_client')}", "require_osd_release pacific"]
        listed = [f"blocklist {address} expires {mon.stamp(until)}" for address, until in mon.blocklist(db)]
        return "\n".join([*head, *compat, detailed.decode().strip(), *listed, ""]).encode(), ""
    pools = [
        {"pool": pool, "pool_name": name, **pool_commands.details(db, pool, name)} for pool, name in mon.pools(db).items()
    ]
    facts = {
        "fsid": mon.fact(db, "fsid"),
        "require_min_compat_client": mon.fact(db, "require_min_compat_client"),
        "require_osd_release": "pacific",
        "pools": pools,
        "blocklist": {address: mon.stamp(until) for address, until in mon.blocklist(db)},
    }
    return rendered(facts, command), ""


def _apps(db: sqlite3.Connection, pool: int) -> dict[str, dict[str, str]]:
    return {app: mon.application_metadata(db, pool, app) for app in mon.applications(db, pool)}


def _mon_dump(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    if command.get("format") != "json":
        made = mon.stamp(float(mon.fact(db, "created")))
        lines = ["epoch 1", f"fsid {mon.fact(db, 'fsid')}", f"last_changed {made}", f"created {made}"]
        lines += ["min_mon_release 16 (pacific)", "election_strategy: 1", f"0: {mon.ADDRESS_TYPE}:{mon.address(db)} mon.a"]
        return "\n".join([*lines, ""]).encode(), "dumped monmap epoch 1"
    addresses = {"addrvec": [{"type": mon.ADDRESS_TYPE, "addr": mon.address(db), "nonce": 0}]}
    only = {"rank": 0, "name": "a", "public_addrs": addresses}
    return rendered({"epoch": 1, "fsid": mon.fact(db, "fsid"), "mons": [only]}, command), "dumped monmap epoch 1"


_COMMANDS: Final[dict[str, Callable[[sqlite3.Connection, Command, bytes], Answer]]] = {
    **auth_commands.COMMANDS,
    **pool_commands.COMMANDS,
    **status_commands.COMMANDS,
    "config dump": _config_dump,
    "config get": _config_get,
    "config rm": _config_rm,
    "config set": _config_set,
    "config-key exists": _key_exists,
    "config-key get": _key_get,
    "config-key ls": _key_ls,
    "config-key rm": _key_rm,
    "config-key set": _key_set,
    "df": _df,
    "fsid": _fsid,
    "mon dump": _mon_dump,
    "osd blacklist": _blocklist,
    "osd blacklist clear": _blocklist_clear,
    "osd blacklist ls": _blocklist_ls,
    "osd blocklist": _blocklist,
    "osd blocklist clear": _blocklist_clear,
    "osd blocklist ls": _blocklist_ls,
    "osd dump": _osd_dump,
    "osd get-require-min-compat-client": _get_compat,
    "osd lspools": _lspools,
    "osd pool application disable": _application_disable,
    "osd pool application enable": _application_enable,
    "osd pool application get": _application_get,
    "osd pool application rm": _application_rm,
    "osd pool application set": _application_set,
    "osd pool create": _pool_create,
    "osd pool delete": _pool_delete,
    "osd set-require-min-compat-client": _set_compat,
}
