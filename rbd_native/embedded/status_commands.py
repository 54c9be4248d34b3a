"""The commands that ask how the cluster is: one monitor, one OSD, both well."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Any, Final

from rbd_native.embedded import mon
from rbd_native.embedded.mon import rendered

Command = Mapping[str, Any]
Answer = tuple[bytes, str]

VERSION: Final = "ceph version 16.2.15 (embedded) pacific (stable)"
"""Of what this behaves like."""

HEALTH: Final[dict[str, Any]] = {"status": "HEALTH_OK", "checks": {}, "mutes": []}
MON_STATUS: Final[dict[str, Any]] = {"name": "a", "rank": 0, "state": "leader", "election_epoch": 1, "quorum": [0]}


def _is_json(command: Command) -> bool:
    return command.get("format") in ("json", "json-pretty")


def _since(db: sqlite3.Connection) -> float:
    return float(mon.fact(db, "created"))


def _monmap(db: sqlite3.Connection) -> dict[str, Any]:
    made = mon.stamp(_since(db)).replace("+0000", "Z")
    addresses = {"addrvec": [{"type": mon.ADDRESS_TYPE, "addr": mon.address(db), "nonce": 0}]}
    return {
        "epoch": 1,
        "fsid": mon.fact(db, "fsid"),
        "modified": made,
        "created": made,
        "min_mon_release": 16,
        "min_mon_release_name": "pacific",
        "election_strategy": 1,
        "mons": [{"rank": 0, "name": "a", "public_addrs": addresses, "addr": mon.address(db)}],
    }


def _osdmap(db: sqlite3.Connection) -> dict[str, Any]:
    since = int(_since(db))
    counts = dict.fromkeys(("num_osds", "num_up_osds", "num_in_osds"), 1)
    return {"epoch": 1, **counts, "osd_up_since": since, "osd_in_since": since, "num_remapped_pgs": 0}


def _quorum(db: sqlite3.Connection) -> dict[str, Any]:
    age = max(int(time.time() - _since(db)), 0)
    return {"election_epoch": 1, "quorum": [0], "quorum_names": ["a"], "quorum_age": age}


def _pgmap(db: sqlite3.Connection) -> dict[str, Any]:
    stats = [mon.pool_stats(db, pool) for pool in mon.pools(db)]
    used = mon.stored(db)
    groups = 32 * len(stats)
    return {
        "pgs_by_state": [{"state_name": "active+clean", "count": groups}] if groups else [],
        "num_pgs": groups,
        "num_pools": len(stats),
        "num_objects": sum(one.objects for one in stats),
        "data_bytes": sum(one.bytes_used for one in stats),
        "bytes_used": used,
        "bytes_avail": max(mon.CAPACITY - used, 0),
        "bytes_total": mon.CAPACITY,
    }


def _status(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    groups = _pgmap(db)
    fsid = mon.fact(db, "fsid")
    if _is_json(command):
        monmap = {"epoch": 1, "min_mon_release_name": "pacific", "num_mons": 1}
        parts = {"monmap": monmap, "osdmap": _osdmap(db), "pgmap": groups}
        nothing: dict[str, Any] = {
            "fsmap": {"epoch": 1, "by_rank": [], "up:standby": 0},
            "mgrmap": {"available": False, "num_standbys": 0, "modules": [], "services": {}},
            "servicemap": {"epoch": 0, "services": {}},
            "progress_events": {},
        }
        return rendered({"fsid": fsid, "health": HEALTH, **_quorum(db), **parts, **nothing}, command), ""
    lines = [
        "  cluster:",
        f"    id:     {fsid}",
        "    health: HEALTH_OK",
        " ",
        "  services:",
        "    mon: 1 daemons, quorum a",
        "    mgr: no daemons active",
        "    osd: 1 osds: 1 up, 1 in",
        " ",
        "  data:",
        f"    pools:   {groups['num_pools']} pools, {groups['num_pgs']} pgs",
        f"    objects: {groups['num_objects']} objects, {groups['data_bytes']} B",
        f"    usage:   {groups['bytes_used']} B used, {groups['bytes_avail']} B / {groups['bytes_total']} B avail",
        f"    pgs:     {groups['num_pgs']} active+clean",
        " ",
    ]
    return ("\n".join(lines) + "\n").encode(), ""


def _health(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return (rendered(HEALTH, command) if _is_json(command) else b"HEALTH_OK\n"), ""


def _quorum_status(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    told = {**_quorum(db), "quorum_leader_name": "a", "features": {}, "monmap": _monmap(db)}
    return rendered(told, {"format": "json"}), ""


def _mon_stat(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    if _is_json(command):
        told = {"epoch": 1, "min_mon_release_name": "pacific", "num_mons": 1, "leader": "a"}
        return rendered({**told, "quorum": [{"rank": 0, "name": "a"}]}, command) + b"\n", ""
    where = f"{{a={mon.ADDRESS_TYPE}:{mon.address(db)}/0}}"
    return f"e1: 1 mons at {where} removed_ranks: {{}}, election epoch 1, leader 0 a, quorum 0 a\n".encode(), ""


def _osd_stat(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return (rendered(_osdmap(db), command) if _is_json(command) else b"1 osds: 1 up, 1 in; epoch: e1\n"), ""


def _osd_ls(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return (b"[0]\n" if _is_json(command) else b"0\n"), ""


def _max_osd(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return (rendered({"epoch": 1, "max_osd": 1}, command) if _is_json(command) else b"max_osd = 1 in epoch 1\n"), ""


_TREE: Final[dict[str, Any]] = {
    "nodes": [
        {"id": -1, "name": "default", "type": "root", "type_id": 11, "children": [-2]},
        {"id": -2, "name": "embedded", "type": "host", "type_id": 1, "pool_weights": {}, "children": [0]},
        {
            "id": 0,
            "device_class": "ssd",
            "name": "osd.0",
            "type": "osd",
            "type_id": 0,
            "crush_weight": 1.0,
            "depth": 2,
            "pool_weights": {},
            "exists": 1,
            "status": "up",
            "reweight": 1,
            "primary_affinity": 1,
        },
    ],
    "stray": [],
}

_TREE_TEXT: Final = """\
ID  CLASS  WEIGHT   TYPE NAME          STATUS  REWEIGHT  PRI-AFF
-1         1.00000  root default
-2         1.00000      host embedded
 0    ssd  1.00000          osd.0          up   1.00000  1.00000
"""


def _osd_tree(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return (rendered(_TREE, command) + b"\n" if _is_json(command) else _TREE_TEXT.encode()), ""


def _version(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return (rendered({"version": VERSION}, command) + b"\n" if _is_json(command) else f"{VERSION}\n".encode()), ""


def _versions(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    told = {"mon": {VERSION: 1}, "mgr": {}, "osd": {VERSION: 1}, "mds": {}, "overall": {VERSION: 2}}
    return rendered(told, command), ""


def _crush_rules(db: sqlite3.Connection, command: Command, data: bytes) -> Answer:
    return (b'["replicated_rule"]' if _is_json(command) else b"replicated_rule\n"), ""


COMMANDS: Final = {
    "health": _health,
    "mon stat": _mon_stat,
    "osd crush rule ls": _crush_rules,
    "osd getmaxosd": _max_osd,
    "osd ls": _osd_ls,
    "osd stat": _osd_stat,
    "osd tree": _osd_tree,
    "quorum_status": _quorum_status,
    "status": _status,
    "version": _version,
    "versions": _versions,
}
