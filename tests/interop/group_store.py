"""What pools with groups hold, with everything taken out that two runs cannot have alike: ids, times, numbers of pools, and
which of several snapshots that are taken at once is given which id.

Records about groups are decoded, and shown to be exactly what encoding them gives: so nothing in them goes unseen.
"""

import re
from collections.abc import Mapping
from typing import Any

from rbd_native.encoding import decode, encode, text, u8, u64
from rbd_native.types import GroupSnapshot, GroupSnapshotNamespace, GroupSpec, StoredSnapshot
from tests.releases import GROUP_SNAP_ORDER, told
from tests.stored import Stored, contents, normal

_HEADER = "rbd_group_header."
_DIRECTORY = "rbd_group_directory"
_NOTHING = Stored(b"", {}, {})


def comparable(rados_module: Any, ioctxs: list[Any]) -> list[dict[str, Any]]:
    """All objects of several pools, which the ioctxs are open on; groups may be in any of them."""
    found = [contents(rados_module, ioctx) for ioctx in ioctxs]
    roles = {ioctx.get_pool_id(): f"pool {place}" for place, ioctx in enumerate(ioctxs)}
    view = _View(found, roles)
    return [view.pool(pool, roles) for pool in found]


def exact(kind: Any, raw: bytes) -> Any:
    value = decode(kind, raw)
    assert encode(value, kind) == raw
    return value


class _View:
    def __init__(self, pools: list[dict[str, Stored]], roles: Mapping[int, str]) -> None:
        self._roles = roles
        self._groups: dict[str, str] = {}
        self._group_snaps: dict[str, str] = {}
        self._images: dict[str, str] = {}
        for pool in pools:
            for name, identifier in _directory(pool, _DIRECTORY).items():
                self._groups[identifier] = name
                for record in _records(pool.get(_HEADER + identifier, _NOTHING)):
                    self._group_snaps[record.id] = f"{name}@{record.name}"
            for name, identifier in _directory(pool, "rbd_directory").items():
                self._images[identifier] = name

    def pool(self, pool: dict[str, Stored], roles: Mapping[int, str]) -> dict[str, Any]:
        """Objects of groups and snapshots in words; the rest as bytes, ids replaced."""
        found: dict[str, Any] = {}
        plain: dict[str, Stored] = {}
        for oid, one in pool.items():
            if oid == _DIRECTORY:
                found[oid] = self._directory(one)
            elif oid.startswith(_HEADER):
                found[_HEADER + self._groups[oid.removeprefix(_HEADER)]] = self._group(one)
            else:
                oid, one = self._image(pool, oid, one)
                plain[oid] = one
        return found | normal(plain, roles)

    def _directory(self, one: Stored) -> dict[str, str]:
        named = {key: exact(text, value) for key, value in one.omap.items()}
        found = {key.removeprefix("name_"): value for key, value in named.items() if key.startswith("name_")}
        assert named == {f"name_{k}": v for k, v in found.items()} | {f"id_{v}": k for k, v in found.items()}
        return {name: self._groups[identifier] for name, identifier in found.items()}

    def _group(self, one: Stored) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in one.omap.items():
            kind, _, rest = key.partition("_")
            if kind == "image":
                pool, _, identifier = rest.partition("_")
                assert len(pool) == 16
                found[f"{self._roles[int(pool, 16)]}: {self._images[identifier]}"] = exact(u8, value)
            elif kind == "snap":
                snap_id = rest.removeprefix("order_")
                if told(GROUP_SNAP_ORDER) and snap_id in self._group_snaps:  # the last place counts what failed, too
                    found[f"place of {self._group_snaps[snap_id]}"] = exact(u64, value)
            else:
                record = exact(GroupSnapshot, value)
                assert (kind, rest) == ("snapshot", record.id)
                parts = [(self._roles[p.pool_id], self._images[p.image_id], p.snap_id > 0) for p in record.snaps]
                found[f"@{record.name}"] = (record.state, sorted(parts))
        return found | {"data": one.data, "xattrs": one.xattrs}

    def _image(self, pool: dict[str, Stored], oid: str, one: Stored) -> tuple[str, Stored]:
        """An object with a snapshot's id in its name, or in its keys, has its place among the image's snapshots instead.
        What a header says about groups is told in words."""
        found = re.fullmatch(r"rbd_object_map\.(\w+)\.(\w{16})", oid)
        if found is not None:
            ids = _snap_ids(pool[f"rbd_header.{found[1]}"])
            return f"rbd_object_map.{found[1]}@{ids.index(int(found[2], 16))}", one
        if not oid.startswith("rbd_header."):
            return oid, one
        ids = _snap_ids(one)
        omap = {}
        for key, value in one.omap.items():
            if key == "rbd_group_ref":
                spec = exact(GroupSpec, value)
                omap[key] = f"{self._roles[spec.pool_id]}: {self._groups[spec.group_id]}".encode()
            elif key == "snap_seq":
                seq = exact(u64, value)
                omap[key] = b"newest" if ids and seq == ids[-1] else b"none" if seq == 0 else b"newer than all"
            elif key.startswith("snapshot_"):
                snapshot = exact(StoredSnapshot, value)
                assert key == f"snapshot_{snapshot.id:016x}"
                omap[f"@{ids.index(snapshot.id)}"] = self._snapshot(snapshot)
            else:
                omap[key] = value
        return oid, one._replace(omap=omap)

    def _snapshot(self, snapshot: StoredSnapshot) -> bytes:
        namespace, name = snapshot.namespace, snapshot.name
        whose = repr(namespace)
        if isinstance(namespace, GroupSnapshotNamespace):
            assert name == f".group.{namespace.pool_id:x}_{namespace.group_id}_{namespace.group_snap_id}"
            name = self._group_snaps[namespace.group_snap_id]
            whose = f"{self._roles[namespace.pool_id]}: {self._groups[namespace.group_id]}"
        rest = (snapshot.image_size, snapshot.protection_status, snapshot.flags, snapshot.child_count)
        return repr((name, whose, *rest, snapshot.parent_overlap)).encode()


def _directory(pool: dict[str, Stored], oid: str) -> dict[str, str]:
    omap = pool.get(oid, _NOTHING).omap
    return {key.removeprefix("name_"): exact(text, value) for key, value in omap.items() if key.startswith("name_")}


def _records(header: Stored) -> list[GroupSnapshot]:
    return [exact(GroupSnapshot, value) for key, value in header.omap.items() if key.startswith("snapshot_")]


def _snap_ids(header: Stored) -> list[int]:
    return sorted(int(key.removeprefix("snapshot_"), 16) for key in header.omap if key.startswith("snapshot_"))
