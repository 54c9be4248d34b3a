"""The other sites of a mirrored pool, and how to reach them.

A peer's record lies in `rbd_mirroring` of the pool; its address and key, which not everybody who may read the pool is to
see, in the monitor's key store under `rbd/mirror/peer/<pool>/<uuid>`, as a JSON object of strings. The name of this site
lies there too.
"""

from __future__ import annotations

import errno
import json
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from rbd_native import cls_rbd, names
from rbd_native.cls_client import mutate
from rbd_native.operations import mirror_snapshots, mirroring, namespaces
from rbd_native.operations.open import open_image
from rbd_native.rados.port import Cluster, Io, RadosError
from rbd_native.types import MirrorImageMode, MirrorPeer, MirrorPeerDirection, MirrorSnapshotNamespace

_SITE_NAME: Final = "rbd/mirror/site_name"
_PEER: Final = "rbd/mirror/peer/"
_OURSELVES: Final = "ceph"
"""What a client calls the cluster that it is connected to, unless its conf file has another name."""


# --- the monitor's key store -----------------------------------------------------------------------------------------


async def key_get(cluster: Cluster, key: str) -> bytes:
    """Empty where there is none. EOPNOTSUPP by a monitor that keeps no keys."""
    try:
        found: bytes = await cluster.mon_command({"prefix": "config-key get", "key": key})
    except RadosError as error:
        if error.errno == errno.ENOENT:
            return b""
        raise _unkept(error) from error
    return found


async def key_set(cluster: Cluster, key: str, value: str) -> None:
    """An empty value removes it."""
    command = {"prefix": "config-key set", "key": key, "val": value} if value else {"prefix": "config-key rm", "key": key}
    try:
        await cluster.mon_command(command)
    except RadosError as error:
        if error.errno == errno.ENOENT and not value:
            return
        raise _unkept(error) from error


def _unkept(error: RadosError) -> RadosError:
    return RadosError(errno.EOPNOTSUPP, str(error)) if error.errno == errno.EINVAL else error


async def site_name(cluster: Cluster) -> str:
    """The cluster's id where it was given no name."""
    found = await key_get(cluster, _SITE_NAME)
    return found.decode("utf-8", "surrogateescape") or cluster.fsid()


async def set_site_name(cluster: Cluster, name: str) -> None:
    """An empty name takes it away."""
    await key_set(cluster, _SITE_NAME, name)


# --- peers -----------------------------------------------------------------------------------------------------------


def _not_ourselves(site: str) -> None:
    if site == _OURSELVES:
        raise RadosError(errno.EINVAL, f"{site} is this cluster")


async def add(io: Io, direction: int, site: str, client: str) -> str:
    """The uuid of the new peer. EINVAL (mirroring is off, no client, no name, or that of this cluster; a direction in which
    nothing would be received), EEXIST."""
    _not_ourselves(site)
    if direction == MirrorPeerDirection.TX:
        raise RadosError(errno.EINVAL, "a peer that is only sent to makes itself known")
    way: Any = direction & 0xFF  # as much as the record holds, and the OSD judges it
    while True:
        peer = MirrorPeer(str(uuids.uuid4()), site, client, direction=way)
        try:
            await mutate(io, names.MIRRORING, cls_rbd.mirror_peer_add(peer))
        except RadosError as error:
            if error.errno != errno.ESTALE:  # the uuid is taken
                raise
        else:
            return peer.uuid


async def remove(io: Io, uuid: str) -> None:
    """Also of one that is not there. No snapshot is kept for it any more."""
    try:
        await key_set(io.cluster, _key(io, uuid), "")
    except RadosError as error:
        if error.errno != errno.EPERM:
            raise
    await mutate(io, names.MIRRORING, cls_rbd.mirror_peer_remove(uuid))
    for namespace in [*await namespaces.listing(io), ""]:
        await _unlink(io.in_namespace(namespace), uuid)


async def _unlink(io: Io, uuid: str) -> None:
    for identifier in [found async for found in mirroring.mirrored(io)]:
        record = await mirroring.record(io, identifier)
        if record is None or record.mode != MirrorImageMode.SNAPSHOT:
            continue
        try:
            image = await open_image(io, identifier=identifier, serves_mirroring=True)
        except RadosError as error:
            if error.errno != errno.ENOENT:
                raise
            continue
        try:
            for snapshot in reversed(image.header.snapshots):
                kind = snapshot.info.namespace
                if isinstance(kind, MirrorSnapshotNamespace) and uuid in kind.mirror_peer_uuids:
                    await mirror_snapshots.unlink(image, snapshot.info.id, uuid)
        finally:
            await image.close()


async def set_client(io: Io, uuid: str, client: str) -> None:
    """ENOENT."""
    await mutate(io, names.MIRRORING, cls_rbd.mirror_peer_set_client(uuid, client))


async def set_site(io: Io, uuid: str, site: str) -> None:
    """ENOENT, EEXIST, EINVAL (the name of this cluster)."""
    _not_ourselves(site)
    await mutate(io, names.MIRRORING, cls_rbd.mirror_peer_set_cluster(uuid, site))


# --- how to reach them -----------------------------------------------------------------------------------------------


def _key(io: Io, uuid: str) -> str:
    return f"{_PEER}{io.pool_id}/{uuid}"


async def attributes(io: Io, uuid: str) -> dict[str, str]:
    """Ascending by key: mon_host and key, as a rule. ENOENT; EINVAL where they cannot be read."""
    found = await key_get(io.cluster, _key(io, uuid))
    if not found:
        raise RadosError(errno.ENOENT, f"no attributes of peer {uuid}")
    return dict(sorted(strings(found).items()))


def strings(raw: bytes) -> dict[str, str]:
    """A JSON object whose values are strings; control characters may stand in them as they are. EINVAL."""
    try:
        found = json.loads(raw.decode("utf-8", "surrogateescape"), strict=False)
    except ValueError as error:
        raise RadosError(errno.EINVAL, f"not JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise RadosError(errno.EINVAL, "not a JSON object of strings")
    return found


async def set_attributes(io: Io, uuid: str, values: Mapping[str, str]) -> None:
    """ENOENT where there is no such peer."""
    if not any(peer.uuid == uuid for peer in await mirroring.peers(io)):
        raise RadosError(errno.ENOENT, f"peer {uuid}")
    await key_set(io.cluster, _key(io, uuid), json.dumps(dict(sorted(values.items())), ensure_ascii=False))
