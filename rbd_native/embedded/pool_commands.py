"""The monitor commands about one pool: its settings, its quota, its name, where its objects lie.

There is one OSD, and no placement: settings are kept and shown, and change nothing.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from rbd_native.embedded import mon
from rbd_native.embedded.mon import Denied, rendered
from rbd_native.embedded.placement import object_hash, stable_mod

Command = Mapping[str, Any]
Answer = tuple[bytes, str]

_NUMBERS: Final = {"size": 1, "min_size": 1, "pg_num": 32, "pgp_num": 32}
_FLAGS: Final = {
    "hashpspool": True,
    "nodelete": False,
    "nopgchange": False,
    "nosizechange": False,
    "write_fadvise_dontneed": False,
    "noscrub": False,
    "nodeep-scrub": False,
}
_QUOTA: Final = ("max_objects", "max_bytes")


def _option(db: sqlite3.Connection, pool: int, name: str) -> str | None:
    found = db.execute("SELECT value FROM pool_option WHERE pool = ? AND name = ?", (pool, name)).fetchone()
    return None if found is None else str(found[0])


def _number(db: sqlite3.Connection, pool: int, name: str, default: int) -> int:
    return int(_option(db, pool, name) or default)


def settings(db: sqlite3.Connection, pool: int) -> dict[str, Any]:
    """As `osd pool get` shows them, in its order."""
    numbers = {name: _number(db, pool, name, default) for name, default in _NUMBERS.items()}
    flags = {name: (_option(db, pool, name) or str(default).lower()) == "true" for name, default in _FLAGS.items()}
    scale = {"pg_autoscale_mode": _option(db, pool, "pg_autoscale_mode") or "off"}
    bulk = {"bulk": _option(db, pool, "bulk") == "true"}
    return {**numbers, "crush_rule": "replicated_rule", **flags, "use_gmt_hitset": True, "fast_read": 0, **scale, **bulk}


def _pool(db: sqlite3.Connection, command: Command, name: str = "pool") -> tuple[int, str]:
    given = command.get(name)
    if not isinstance(given, str):
        raise Denied(errno.EINVAL, f"missing required parameter {name}(<poolname>)")
    return mon.pool_id(db, given), given


def _is_json(command: Command) -> bool:
    return command.get("format") == "json"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _get(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, name = _pool(db, command)
    variable, all_ = command.get("var"), settings(db, pool)
    if variable not in (*all_, "all"):
        raise Denied(errno.EINVAL, f"pool '{name}': invalid variable: '{variable}'")
    wanted = all_ if variable == "all" else {str(variable): all_[str(variable)]}
    if _is_json(command):
        return rendered({"pool": name, "pool_id": pool, **wanted}, command), ""
    shown = {key: int(value) if key == "use_gmt_hitset" else value for key, value in wanted.items()}
    return "".join(f"{key}: {_plain(value)}\n" for key, value in shown.items()).encode(), ""


def _set(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, _ = _pool(db, command)
    variable, value = str(command.get("var")), str(command.get("val", ""))
    if variable in _NUMBERS:
        if not value.isdecimal() or not 1 <= int(value) <= (10 if "size" in variable else 65536):
            raise Denied(errno.EINVAL, f"error parsing integer value '{value}'")
    elif variable in (*_FLAGS, "bulk"):
        if value not in ("true", "false", "1", "0"):
            raise Denied(errno.EINVAL, "expecting value 'true', 'false', '0', or '1'")
        value = {"1": "true", "0": "false"}.get(value, value)
    elif variable != "pg_autoscale_mode":
        raise Denied(errno.EINVAL, f"unrecognized variable '{variable}'")
    db.execute("INSERT OR REPLACE INTO pool_option VALUES (?, ?, ?)", (pool, variable, value))
    return b"", f"set pool {pool} {variable} to {command.get('val')}"


def _rename(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    source, target = command.get("srcpool"), command.get("destpool")
    if not isinstance(source, str) or not isinstance(target, str) or not target:
        raise Denied(errno.EINVAL, "missing required parameter srcpool(<poolname>) or destpool(<poolname>)")
    known = mon.pools(db).values()
    if source not in known:
        if target in known:
            return b"", f"pool '{source}' does not exist; pool '{target}' does -- assuming successful rename"
        raise Denied(errno.ENOENT, f"unrecognized pool '{source}'")
    if target in known:
        raise Denied(errno.EEXIST, f"pool '{target}' already exists")
    db.execute("UPDATE pool SET name = ? WHERE name = ?", (target, source))
    return b"", f"pool '{source}' renamed to '{target}'"


def _quota(db: sqlite3.Connection, pool: int) -> dict[str, int]:
    return {f"quota_{name}": _number(db, pool, f"quota_{name}", 0) for name in _QUOTA}


def _get_quota(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, name = _pool(db, command)
    quota = _quota(db, pool)
    stats = mon.pool_stats(db, pool)
    if _is_json(command):
        current = {"current_num_objects": stats.objects, "current_num_bytes": stats.bytes_used}
        return rendered({"pool_name": name, "pool_id": pool, **quota, **current}, command), ""
    objects, size = quota["quota_max_objects"] or "N/A", quota["quota_max_bytes"]
    limits = f"  max objects: {objects}\n  max bytes  : {f'{size} B' if size else 'N/A'}"
    return f"quotas for pool '{name}':\n{limits}".encode(), ""


def _set_quota(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, name = _pool(db, command)
    field, value = str(command.get("field")), str(command.get("val", ""))
    if field not in _QUOTA:
        raise Denied(errno.EINVAL, f"unrecognized field '{field}'; should be 'max_bytes' or 'max_objects'")
    if not value.isdecimal() or int(value) >= 2**63:
        raise Denied(errno.EINVAL, f"error parsing value '{value}'")
    db.execute("INSERT OR REPLACE INTO pool_option VALUES (?, ?, ?)", (pool, f"quota_{field}", value))
    return b"", f"set-quota {field} = {value} for pool {name}"


def _stats(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    if "pool_name" in command:
        pool, name = _pool(db, command, "pool_name")
        wanted = {pool: name}
    else:
        wanted = mon.pools(db)
    if _is_json(command):
        nothing: dict[str, Any] = {"recovery": {}, "recovery_rate": {}, "client_io_rate": {}}
        return rendered([{"pool_name": name, "pool_id": pool, **nothing} for pool, name in wanted.items()], command), ""
    return "".join(f"pool {name} id {pool}\n  nothing is going on\n\n" for pool, name in wanted.items()).encode(), ""


def details(db: sqlite3.Connection, pool: int, name: str) -> dict[str, Any]:
    """What `osd pool ls detail` and `osd dump` tell of a pool, but for its number and name."""
    all_ = settings(db, pool)
    flags = [flag for flag in _FLAGS if all_[flag]]
    bits = {"hashpspool": 1, "nodelete": 16, "nopgchange": 32, "nosizechange": 64}
    (snap_seq,) = db.execute("SELECT snap_seq FROM pool WHERE id = ?", (pool,)).fetchone()
    return {
        "flags": sum(bits.get(flag, 0) for flag in flags),
        "flags_names": ",".join(flags),
        "type": 1,
        "size": all_["size"],
        "min_size": all_["min_size"],
        "crush_rule": 0,
        "object_hash": 2,
        "pg_autoscale_mode": all_["pg_autoscale_mode"],
        "pg_num": all_["pg_num"],
        "pg_placement_num": all_["pgp_num"],
        "pg_placement_num_target": all_["pgp_num"],
        "pg_num_target": all_["pg_num"],
        "pg_num_pending": all_["pg_num"],
        "last_change": "1",
        "snap_mode": "selfmanaged",
        "snap_seq": snap_seq,
        "snap_epoch": 0,
        "pool_snaps": [],
        "removed_snaps": "[]",
        "quota_max_bytes": _quota(db, pool)["quota_max_bytes"],
        "quota_max_objects": _quota(db, pool)["quota_max_objects"],
        "tiers": [],
        "tier_of": -1,
        "read_tier": -1,
        "write_tier": -1,
        "cache_mode": "none",
        "erasure_code_profile": "",
        "stripe_width": 0,
        "expected_num_objects": 0,
        "fast_read": False,
        "options": {},
        "application_metadata": {app: mon.application_metadata(db, pool, app) for app in mon.applications(db, pool)},
    }


def _ls(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pools = mon.pools(db)
    detailed = command.get("detail") == "detail"
    if _is_json(command):
        names = list(pools.values())
        told = [{"pool_id": pool, "pool_name": name, **details(db, pool, name)} for pool, name in pools.items()]
        return rendered(told if detailed else names, command), ""
    if not detailed:
        return "".join(f"{name}\n" for name in pools.values()).encode(), ""
    return ("".join(_line(pool, name, details(db, pool, name)) for pool, name in pools.items()) + "\n").encode(), ""


def _line(pool: int, name: str, told: Mapping[str, Any]) -> str:
    apps = f" application {','.join(told['application_metadata'])}" if told["application_metadata"] else ""
    return (
        f"pool {pool} '{name}' replicated size {told['size']} min_size {told['min_size']} crush_rule 0 object_hash rjenkins"
        f" pg_num {told['pg_num']} pgp_num {told['pg_placement_num']} autoscale_mode {told['pg_autoscale_mode']}"
        f" last_change 1 flags {told['flags_names']} stripe_width 0{apps}\n"
    )


def _map(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    pool, name = _pool(db, command)
    oid = command.get("object")
    if not isinstance(oid, str):
        raise Denied(errno.EINVAL, "missing required parameter object(<objectname>)")
    namespace = command.get("nspace", "")
    raw = object_hash(f"{namespace}\x1f{oid}".encode() if namespace else oid.encode())
    group = stable_mod(raw, settings(db, pool)["pg_num"])
    shown = f"{namespace}/{oid}" if namespace else oid
    if _is_json(command):
        osds: dict[str, Any] = {"up": [0], "up_primary": 0, "acting": [0], "acting_primary": 0}
        where = {"epoch": 1, "pool": name, "pool_id": pool, "objname": shown}
        return rendered({**where, "raw_pgid": f"{pool}.{raw:x}", "pgid": f"{pool}.{group:x}", **osds}, command), ""
    found = f"pg {pool}.{raw:x} ({pool}.{group:x}) -> up ([0], p0) acting ([0], p0)"
    return f"osdmap e1 pool '{name}' ({pool}) object '{shown}' -> {found}\n".encode(), ""


COMMANDS: Final = {
    "osd map": _map,
    "osd pool get": _get,
    "osd pool get-quota": _get_quota,
    "osd pool ls": _ls,
    "osd pool rename": _rename,
    "osd pool set": _set,
    "osd pool set-quota": _set_quota,
    "osd pool stats": _stats,
}
