"""The same calls about mirroring to librbd, to rbd_native beside it, and to rbd_native on an embedded cluster.

What uuids stand for takes their place in results; peers are named by their sites, images by their names.
"""

import contextlib
import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import rados
import rbd as real

import rbd_native as ours
from rbd_native import embedded
from rbd_native.object_map import BitVector, ObjectState
from tests.cluster import CephCluster
from tests.interop.twins import Outcome, agree, outcome
from tests.releases import TRASH_FROM_THE_START, told
from tests.stored import Stored, normal, stored

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ID = re.compile(r"[0-9a-f]{6,14}")
MIB = 1 << 20


class Side(NamedTuple):
    """module: librbd's or ours; rados_module: whose ioctx it is."""

    module: Any
    rados_module: Any
    client: Any
    ioctx: Any


class Sides:
    """A pool of each kind."""

    def __init__(self, ceph: CephCluster, name: str) -> None:
        self._ceph = ceph
        self._cluster = embedded.Cluster(pools=("rbd",))
        fake = embedded.Rados(cluster=self._cluster)
        fake.connect()
        self.sides: list[Side] = []
        self._pools = [f"{name}-theirs", f"{name}-mine"]
        for module, pool in zip((real, ours), self._pools, strict=True):
            ceph.create_pool(pool, pg_num=4)
            client = ceph.rados()
            self.sides.append(Side(module, rados, client, client.open_ioctx(pool)))
        self.sides.append(Side(ours, embedded, fake, fake.open_ioctx("rbd")))
        self.sides[-1].ioctx.create_self_managed_snap()  # a real pool's ids begin with 2

    def close(self) -> None:
        for side in self.sides:
            side.ioctx.close()
            side.client.shutdown()
        self._cluster.close()
        for pool in self._pools:
            self._ceph.remove_pool(pool)

    def forget(self) -> None:
        """Remove everything, mirroring included."""
        for side in self.sides:
            for space in ("", "space"):
                side.ioctx.set_namespace(space)
                for found in list(side.ioctx.list_objects()):
                    with contextlib.suppress(side.rados_module.ObjectNotFound):  # it is there for its snapshots only
                        side.ioctx.remove_object(found.key)
            side.ioctx.set_namespace("")

    def all(self, call: Callable[[Side], Any]) -> Outcome:
        """What each side answers must be the same."""
        theirs, mine, fake = (self._shown(side, outcome(partial(call, side))) for side in self.sides)
        assert agree(theirs, mine), f"librbd: {theirs}, ours: {mine}"
        assert fake == mine, f"ours: {mine}, on an embedded cluster: {fake}"
        return mine

    def rbd(self, method: str, *arguments: Any) -> Outcome:
        """A method of class RBD."""
        return self.all(lambda side: getattr(side.module.RBD(), method)(side.ioctx, *arguments))

    def image(self, name: str, method: str, *arguments: Any) -> Outcome:
        """A method of a handle that is opened for it."""

        def do(side: Side) -> Any:
            with side.module.Image(side.ioctx, name) as image:
                found = getattr(image, method)(*arguments)
                return list(found) if hasattr(found, "__next__") or type(found).__name__.endswith("Iterator") else found

        return self.all(do)

    def peer(self, side: Side, site: str) -> str:
        """The uuid of a peer; of nobody's where there is none of that name."""
        found = [peer["uuid"] for peer in side.module.RBD().mirror_peer_list(side.ioctx) if peer["site_name"] == site]
        return found[0] if found else "nobody"

    def _shown(self, side: Side, result: Outcome) -> Outcome:
        return Outcome(result.raised, self._plain(side, result.value), result.words)

    def _plain(self, side: Side, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._plain(side, one) for key, one in value.items() if key != "id" or isinstance(one, int)}
        if isinstance(value, list | tuple):
            return sorted((self._plain(side, one) for one in value), key=repr)
        if isinstance(value, str):
            return "<id>" if ID.fullmatch(value) else UUID.sub("<uuid>", value)
        return value.replace(tzinfo=None) if hasattr(value, "tzinfo") else value

    def stored(self, space: str = "", *, rolled_back: bool = False) -> dict[str, Stored]:
        """All sides hold the same; that, with ids and times taken out.

        `rolled_back`: an image may have been. Then librbd 16 calls objects unchanged in its map that we call changed (see
        rbd_native.operations.rollback), so that it only counts which there are.
        """
        found = []
        for side in self.sides:
            side.ioctx.set_namespace(space)
            own = {side.ioctx.get_pool_id(): "pool"}
            found.append(normal(heads(side), own))
            side.ioctx.set_namespace("")
        theirs = found[0]
        for who, mine in zip(("ours", "embedded"), found[1:], strict=True):
            one, other = parts(theirs, rolled_back), parts(mine, rolled_back)
            pairs = {part: (one.get(part), other.get(part)) for part in one | other}
            different = {part: pair for part, pair in pairs.items() if pair[0] != pair[1]}
            assert not different, f"object: (librbd's, {who}): {different}"
        return theirs


def parts(pool: dict[str, Stored], rolled_back: bool) -> dict[tuple[str, str, str], Any]:
    """What the objects consist of, by object, kind and key."""
    found: dict[tuple[str, str, str], Any] = {(name, "data", ""): one.data for name, one in pool.items()}
    if rolled_back:
        for name, one in pool.items():
            if name.startswith("rbd_object_map."):
                bits = BitVector.decode(one.data)
                found[name, "data", ""] = [bits[number] != ObjectState.NONEXISTENT for number in range(len(bits))]
    for kind in ("omap", "xattrs"):
        found |= {(name, kind, key): value for name, one in pool.items() for key, value in getattr(one, kind).items()}
    return found


def heads(side: Side) -> dict[str, Stored]:
    """All objects, but those that are there for their snapshots only, and that of old clones, whose keys are no text."""
    found = {}
    for name in sorted({entry.key for entry in side.ioctx.list_objects()} - {"rbd_children"}):
        with contextlib.suppress(side.rados_module.ObjectNotFound):
            found[name] = stored(side.rados_module, side.ioctx, name)
    if not told(TRASH_FROM_THE_START) and found.get("rbd_trash") == Stored(b"", {}, {}):
        del found["rbd_trash"]
    return found


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def come_from_elsewhere(side: Side, name: str, *, complete: bool) -> None:
    """Make of an image what the daemon has while it copies it: not primary, with a snapshot that is complete or not."""
    with side.module.Image(side.ioctx, name, read_only=True) as image:
        identifier, mapped = image.id(), image.features() & ours.RBD_FEATURE_OBJECT_MAP
    header = f"rbd_header.{identifier}"
    mask = struct.pack("<QQ", ours.RBD_FEATURE_NON_PRIMARY, ours.RBD_FEATURE_NON_PRIMARY)
    side.ioctx.execute(header, "rbd", "set_features", mask)
    snap = side.ioctx.create_self_managed_snap()
    body = struct.pack("<IBBI", 3, 2, complete, 0) + text("a" * 36) + struct.pack("<QQI", 77, 0, 0)
    namespace = b"\1\1" + struct.pack("<I", len(body)) + body
    mirror_name = f".mirror.non_primary.{'b' * 36}.{snap:036}"
    side.ioctx.execute(header, "rbd", "snapshot_add", text(mirror_name) + struct.pack("<Q", snap) + namespace)
    if mapped:
        side.ioctx.write_full(f"rbd_object_map.{identifier}.{snap:016x}", side.ioctx.read(f"rbd_object_map.{identifier}"))
