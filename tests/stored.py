"""What a pool holds, object by object, and the same with everything taken out of it that two runs cannot have alike.

Read through the rados-shaped face of either kind of cluster, not through rbd_native's own port, where that can show it.
"""

import contextlib
import re
import struct
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from rbd_native.engine import awaited, run
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import OmapGet
from tests.releases import TRASH_FROM_THE_START, told

_ALL = 1 << 30
_TIME_KEYS = ("create_timestamp", "access_timestamp", "modify_timestamp")
_NOW = b"<now>"
_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PEER = re.compile(rb"\x24\0\0\0<peer [^>]*>")
_PEERS = re.compile(rb"(?:\x24\0\0\0<peer [^>]*>){2,}")
_SIZE = re.compile(rb"(?<=\x02[\x01\x02])[^\0]\0\0\0(?=<)")
_TRASH_TIMES = 16  # two times, in front of the state that ends the entry


class Stored(NamedTuple):
    """One object."""

    data: bytes
    omap: dict[str, bytes]
    xattrs: dict[str, bytes]


def contents(rados_module: Any, ioctx: Any) -> dict[str, Stored]:
    """Every object of the namespace that the ioctx is set to, by name, but for those that are there only in snapshots."""
    found: dict[str, Stored] = {}
    for name in sorted(entry.key for entry in ioctx.list_objects()):
        with contextlib.suppress(rados_module.ObjectNotFound):
            found[name] = stored(rados_module, ioctx, name)
    if not told(TRASH_FROM_THE_START) and found.get("rbd_trash") == Stored(b"", {}, {}):
        del found["rbd_trash"]  # where ours made it, and librbd does not
    return found


def stored(rados_module: Any, ioctx: Any, name: str) -> Stored:
    with rados_module.ReadOpCtx() as operation:
        pairs, _ = ioctx.get_omap_vals(operation, "", "", 1 << 16)
        ioctx.operate_read_op(operation, name)
        try:
            omap = {key: value or b"" for key, value in pairs}  # python-rados: None for an empty one
        except UnicodeDecodeError:  # it cannot show keys of rbd_children, which begin with the id of a pool, beyond 127
            page = run(awaited(port_for(ioctx).read(name, [OmapGet(limit=1 << 16)]))).outs[0]
            omap = {key.decode("utf-8", "surrogateescape"): value for key, value in page.values.items()}
    size, _ = ioctx.stat(name)
    return Stored(ioctx.read(name, size) if size else b"", omap, dict(ioctx.get_xattrs(name)))


def data_objects(rados_module: Any, ioctx: Any) -> list[str]:
    """The names of all objects that hold image data."""
    return sorted(found.key for found in ioctx.list_objects() if found.key.startswith("rbd_data."))


def normal(
    pool: Mapping[str, Stored], pool_ids: Mapping[int, str] | None = None, names: Mapping[str, str] | None = None
) -> dict[str, Stored]:
    """The same with ids of images by their names, ids of pools as `pool_ids` says, and time stamps as one word.

    `names`: of images, by id, where several had the same one. Locks that nobody holds are left out. Time stamps that are
    not of the last minutes stay as they are, and so tell.
    """
    return _Normal(pool, pool_ids or {}, names or {}).pool()


class _Normal:
    def __init__(self, pool: Mapping[str, Stored], pool_ids: Mapping[int, str], names: Mapping[str, str]) -> None:
        self._pool = pool
        self._pool_ids = pool_ids
        nothing = Stored(b"", {}, {})
        directory = pool.get("rbd_directory", nothing).omap
        self._names = {key.removeprefix("id_"): text(value) for key, value in directory.items() if key.startswith("id_")}
        for key, value in pool.get("rbd_trash", nothing).omap.items():
            (length,) = struct.unpack_from("<I", value, 7)
            self._names[key.removeprefix("id_")] = value[11 : 11 + length].decode()
        self._names |= names
        self._prefixes = {_old_prefix(one.data): name for name, one in pool.items() if _is_old(name, one)}
        self._uuids = _known_uuids(pool.get("rbd_mirroring", nothing).omap, self._names)

    def pool(self) -> dict[str, Stored]:
        return {self.key(name): self.stored(name) for name in self._pool}

    def stored(self, name: str) -> Stored:
        one = self._pool[name]
        omap = {self.key(key): self.value(name, key, value) for key, value in one.omap.items()}
        data = self.ids(one.data) if name.startswith("rbd_id.") else one.data
        if _is_old(name, one):
            data = _old_header(data)
        if name.startswith("rbd_mirror_snapshot."):
            data = self.uuids(data)
        return Stored(data, omap, {key: self.ids(value) for key, value in one.xattrs.items() if not _free(key, value)})

    def key(self, key: str) -> str:
        key = self.uuids(key.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
        for identifier, name in self._names.items():
            key = key.replace(identifier, f"<{name}>")
        for prefix, name in self._prefixes.items():
            key = key.replace(prefix, f"<{name}>")
        for number, role in self._pool_ids.items():
            key = key.replace(f"rbd_data.{number}.", f"rbd_data.<{role}>.")
        return key

    def value(self, oid: str, key: str, value: bytes) -> bytes:
        if key in _TIME_KEYS and len(value) == 8:
            return _recent(value)
        if key == "data_pool_id":
            number = int.from_bytes(value, "little")
            return self._pool_ids.get(number, str(number)).encode()
        if oid == "rbd_trash" and key.startswith("id_"):
            return value[: -_TRASH_TIMES - 1] + _recent(value[-17:-9]) + _later(value[-17:-1]) + value[-1:]
        if key.startswith("snapshot_"):
            value = _UUID.sub(b"<uuid>", self.times(self.uuids(value)))
        if oid == "rbd_mirroring":
            value = _UUID.sub(b"<uuid>", self.uuids(value))
        if key == "parent" or key.startswith("snap_children_"):
            value = _SIZE.sub(b"<size>", self.pools(value))  # that of an id within: they are not all as long
        if key.startswith("snap_children_"):  # in the order of ids
            return b"".join(sorted(re.split(rb"(?=\x02\x01<size>)", self.ids(value))))
        return self.ids(value)

    def uuids(self, value: bytes) -> bytes:
        """Those that are known, by what they stand for; peers next to each other in the order of their names."""
        for uuid, role in self._uuids.items():
            value = value.replace(uuid, role)
        return _PEERS.sub(lambda found: b"".join(sorted(_PEER.findall(found[0]))), value)

    def pools(self, value: bytes) -> bytes:
        """Numbers of pools, where there can hardly be another number of 64 bits that is the same."""
        for number, role in self._pool_ids.items():
            value = value.replace(struct.pack("<q", number), f"<{role}>".encode())
        return value

    @staticmethod
    def times(value: bytes) -> bytes:
        """Time stamps of the last minutes, wherever they are."""
        for place in range(len(value) - 7):
            if _recent(value[place : place + 8]) == _NOW:
                return value[:place] + _NOW + value[place + 8 :]
        return value

    def ids(self, value: bytes) -> bytes:
        """Ids, and data prefixes made of them, with the lengths in front of them: those differ too."""
        for identifier, name in self._names.items():
            owners = [f"rbd_data.{number}." for number in self._pool_ids]
            for prefix in [*owners, "rbd_data.", ""]:
                whole = (prefix + identifier).encode()
                value = value.replace(struct.pack("<I", len(whole)) + whole, self.key(prefix + f"<{name}>").encode())
        return value


def _is_old(name: str, one: Stored) -> bool:
    """Whether it is the header of an image of format 1."""
    return name.endswith(".rbd") and one.data.startswith(b"<<<")


def _old_prefix(header: bytes) -> str:
    """What the names of the data objects of a format 1 image start with: it has random numbers."""
    prefix = header[40:64].partition(b"\0")[0].decode()
    assert re.fullmatch(r"rb\.[0-9a-f]{1,8}\.[0-9a-f]{1,8}\.[0-9a-f]{1,8}", prefix)
    return prefix


def _old_header(data: bytes) -> bytes:
    """A header of format 1 without the prefix of the data objects, and with the places of its snapshots' ids instead of
    those: they count what the pool has seen."""
    seq, count = struct.unpack_from("<QI", data, 88)
    rows = list(struct.iter_unpack("<QQ", data[112 : 112 + 16 * count]))
    order = sorted({0, seq, *(snap for snap, _ in rows)})
    table = b"".join(struct.pack("<QQ", order.index(snap), size) for snap, size in rows)
    return data[:40] + data[64:88] + struct.pack("<Q", order.index(seq)) + data[96:112] + table + data[112 + 16 * count :]


def _known_uuids(omap: Mapping[str, bytes], names: Mapping[str, str]) -> dict[bytes, bytes]:
    """The uuids in rbd_mirroring, and what they stand for."""
    found = {omap["mirror_uuid"]: b"<pool>"} if "mirror_uuid" in omap else {}
    for key, value in omap.items():
        if key.startswith("mirror_peer_"):
            (length,) = struct.unpack_from("<I", value, 46)
            found[key.removeprefix("mirror_peer_").encode()] = b"<peer " + value[50 : 50 + length] + b">"
        if key.startswith("image_"):
            identifier = key.removeprefix("image_")
            found[value[10:46]] = b"<image " + names.get(identifier, identifier).encode() + b">"
    return found


def text(value: bytes) -> str:
    """A string as Ceph encodes it."""
    (length,) = struct.unpack_from("<I", value)
    assert len(value) == 4 + length
    return value[4:].decode("utf-8", "surrogateescape")


def _free(key: str, value: bytes) -> bool:
    """Whether it is a lock that nobody holds: one that was given back leaves its type and tag behind."""
    return key.startswith("lock.") and value[6:10] == b"\0\0\0\0"


def _later(times: bytes) -> bytes:
    """The second of two time stamps, as what it is later than the first."""
    seconds, nanoseconds, later, then = struct.unpack("<IIII", times)
    delay = "for ever" if later == 2**32 - 1 else f"+{later - seconds}"
    return f"<{delay}>".encode() if nanoseconds == then else times[8:]


def _recent(value: bytes) -> bytes:
    seconds, nanoseconds = struct.unpack("<II", value)
    return _NOW if -5 < time.time() - seconds < 300 and nanoseconds < 10**9 else value
