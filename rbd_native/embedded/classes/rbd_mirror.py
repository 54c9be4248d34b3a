"""Class `rbd`, `rbd_mirroring` and `rbd_mirror_leader`: what is mirrored, with whom, and which daemon does
it.

Keys: `mirror_uuid` (raw), `mirror_mode`, `remote_namespace`, `mirror_peer_<uuid>`, `image_<id>` and
`global_<global id>` (the id); `instance_<id>` (empty), `image_map_<global id>`.
"""

from __future__ import annotations

import dataclasses
import errno
import uuid as uuids

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.classes.rbd_mirror_status import IMAGE, remove_status
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import encode, text, u32
from rbd_native.types import (
    MirrorImage,
    MirrorImageMap,
    MirrorImageState,
    MirrorMode,
    MirrorPeer,
    MirrorPeerDirection,
)

_UUID = b"mirror_uuid"
_MODE = b"mirror_mode"
_REMOTE_NAMESPACE = b"remote_namespace"
_PEER = b"mirror_peer_"
_GLOBAL = b"global_"
_INSTANCE = b"instance_"
_IMAGE_MAP = b"image_map_"

_TX = MirrorPeerDirection.TX


# --- the pool


@handles(cls_rbd.mirror_uuid_get)
def mirror_uuid_get(context: ObjectContext) -> str:
    raw = context.omap(_UUID)
    if raw is None:
        raise ClassError(errno.ENOENT)
    return raw.decode("utf-8", "surrogateescape")


@handles(cls_rbd.mirror_uuid_set)
def mirror_uuid_set(context: ObjectContext, uuid: str) -> None:
    if not uuid or omap.find(context, _MODE, u32, MirrorMode.DISABLED) != MirrorMode.DISABLED:
        raise ClassError(errno.EINVAL)
    omap.put_raw(context, _UUID, uuid.encode("utf-8", "surrogateescape"))


@handles(cls_rbd.mirror_mode_get)
def mirror_mode_get(context: ObjectContext) -> MirrorMode:
    found: MirrorMode = omap.need(context, _MODE, u32)
    return found


@handles(cls_rbd.mirror_mode_set)
def mirror_mode_set(context: ObjectContext, mode: MirrorMode) -> None:
    if mode == MirrorMode.DISABLED:
        if _peers(context):
            raise ClassError(errno.EBUSY)
        omap.discard(context, _MODE, _UUID, _REMOTE_NAMESPACE)
        return
    if mode not in MirrorMode or context.omap(_UUID) is None:
        raise ClassError(errno.EINVAL)
    omap.put(context, _MODE, mode, u32)


def _require_enabled(context: ObjectContext) -> None:
    if omap.find(context, _MODE, u32, MirrorMode.DISABLED) == MirrorMode.DISABLED:
        raise ClassError(errno.EINVAL)


@handles(cls_rbd.mirror_remote_namespace_get)
def mirror_remote_namespace_get(context: ObjectContext) -> str:
    found: str = omap.need(context, _REMOTE_NAMESPACE, text)
    return found


@handles(cls_rbd.mirror_remote_namespace_set)
def mirror_remote_namespace_set(context: ObjectContext, namespace: str) -> None:
    if omap.find(context, _MODE, u32, MirrorMode.DISABLED) in (MirrorMode.IMAGE, MirrorMode.POOL):
        raise ClassError(errno.EINVAL)
    omap.put(context, _REMOTE_NAMESPACE, namespace, text)


# --- peers


def _peers(context: ObjectContext) -> list[MirrorPeer]:
    return [omap.parse(MirrorPeer, raw) for raw in omap.entries_so_far(context, _PEER).values()]


def _change_peer(context: ObjectContext, uuid: str, **changes: object) -> None:
    peer = omap.need(context, omap.key(_PEER, uuid), MirrorPeer)
    _save_peer(context, dataclasses.replace(peer, **changes))


def _save_peer(context: ObjectContext, peer: MirrorPeer) -> None:
    omap.put(context, omap.key(_PEER, peer.uuid), peer)


@handles(cls_rbd.mirror_peer_list)
def mirror_peer_list(context: ObjectContext) -> list[MirrorPeer]:
    return _peers(context)


@handles(cls_rbd.mirror_peer_add)
def mirror_peer_add(context: ObjectContext, peer: MirrorPeer) -> None:
    _require_enabled(context)
    if not peer.is_valid or peer.uuid == mirror_uuid_get(context) or peer.direction == _TX:
        raise ClassError(errno.EINVAL)
    for old in _peers(context):
        if old.uuid == peer.uuid:
            raise ClassError(errno.ESTALE)
        if old.site_name == peer.site_name or (peer.mirror_uuid and old.mirror_uuid == peer.mirror_uuid):
            raise ClassError(errno.EEXIST)
    _save_peer(context, peer)


@handles(cls_rbd.mirror_peer_remove)
def mirror_peer_remove(context: ObjectContext, uuid: str) -> None:
    omap.discard(context, omap.key(_PEER, uuid))


@handles(cls_rbd.mirror_peer_set_client)
def mirror_peer_set_client(context: ObjectContext, uuid: str, client_name: str) -> None:
    _change_peer(context, uuid, client_name=client_name)


@handles(cls_rbd.mirror_peer_set_cluster)
def mirror_peer_set_cluster(context: ObjectContext, uuid: str, site_name: str) -> None:
    if any(peer.site_name == site_name and peer.uuid != uuid for peer in _peers(context)):
        raise ClassError(errno.EEXIST)
    _change_peer(context, uuid, site_name=site_name)


@handles(cls_rbd.mirror_peer_set_direction)
def mirror_peer_set_direction(context: ObjectContext, uuid: str, direction: MirrorPeerDirection) -> None:
    _change_peer(context, uuid, direction=direction)


@handles(cls_rbd.mirror_peer_ping)
def mirror_peer_ping(context: ObjectContext, site_name: str, mirror_uuid: str, direction: MirrorPeerDirection) -> None:
    if direction != _TX:
        raise ClassError(errno.EINVAL)
    _require_enabled(context)
    if not site_name or not mirror_uuid:
        raise ClassError(errno.EINVAL)
    peer = _pinged(_peers(context), site_name, mirror_uuid)
    if peer.direction == MirrorPeerDirection.RX:
        peer = dataclasses.replace(peer, direction=MirrorPeerDirection.RX_TX)
    peer = dataclasses.replace(peer, last_seen=context.now())
    if not peer.is_valid:
        raise ClassError(errno.EINVAL)
    _save_peer(context, peer)


def _pinged(peers: list[MirrorPeer], site_name: str, mirror_uuid: str) -> MirrorPeer:
    """Which peer that was, with the name or uuid it has by now; a new one where none is known."""
    by_site = next((peer for peer in peers if peer.site_name == site_name), None)
    by_uuid = None
    if by_site is None or by_site.mirror_uuid not in ("", mirror_uuid):
        by_uuid = next((peer for peer in peers if peer.mirror_uuid == mirror_uuid), None)
    if by_uuid is not None:
        # Two peers then: the uuid is right, the name is left to whoever has it.
        return by_uuid if by_site is not None else dataclasses.replace(by_uuid, site_name=site_name)
    if by_site is not None:
        return dataclasses.replace(by_site, mirror_uuid=mirror_uuid)
    return MirrorPeer(str(uuids.uuid4()), site_name, "", direction=_TX, mirror_uuid=mirror_uuid)


# --- images


@handles(cls_rbd.mirror_image_list)
def mirror_image_list(context: ObjectContext, after: str, max_return: int) -> dict[str, str]:
    entries = omap.listing(context, IMAGE, after, max_return)
    return {image_id: omap.parse(MirrorImage, raw).global_id for image_id, raw in entries.items()}


@handles(cls_rbd.mirror_image_get_image_id)
def mirror_image_get_image_id(context: ObjectContext, global_id: str) -> str:
    found: str = omap.need(context, omap.key(_GLOBAL, global_id), text)
    return found


@handles(cls_rbd.mirror_image_get)
def mirror_image_get(context: ObjectContext, image_id: str) -> MirrorImage:
    found: MirrorImage = omap.need(context, omap.key(IMAGE, image_id), MirrorImage)
    return found


@handles(cls_rbd.mirror_image_set)
def mirror_image_set(context: ObjectContext, image_id: str, image: MirrorImage) -> None:
    old = omap.find(context, omap.key(IMAGE, image_id), MirrorImage)
    global_key = omap.key(_GLOBAL, image.global_id)
    if old is None:
        if context.omap(global_key) is not None:
            raise ClassError(errno.EEXIST)
        if image.state == MirrorImageState.DISABLING:
            raise ClassError(errno.ENOENT)
    elif old.global_id != image.global_id:
        raise ClassError(errno.EINVAL)
    context.set_omap({omap.key(IMAGE, image_id): encode(image), global_key: encode(image_id, text)})


@handles(cls_rbd.mirror_image_remove)
def mirror_image_remove(context: ObjectContext, image_id: str) -> None:
    image = mirror_image_get(context, image_id)
    if image.state != MirrorImageState.DISABLING:
        raise ClassError(errno.EBUSY)
    omap.drop(context, omap.key(IMAGE, image_id), omap.key(_GLOBAL, image.global_id))
    remove_status(context, image.global_id)


# --- rbd_mirror_leader


@handles(cls_rbd.mirror_instances_list)
def mirror_instances_list(context: ObjectContext) -> list[str]:
    return list(omap.entries(context, _INSTANCE))


@handles(cls_rbd.mirror_instances_add)
def mirror_instances_add(context: ObjectContext, instance_id: str) -> None:
    omap.put_raw(context, omap.key(_INSTANCE, instance_id))


@handles(cls_rbd.mirror_instances_remove)
def mirror_instances_remove(context: ObjectContext, instance_id: str) -> None:
    omap.drop(context, omap.key(_INSTANCE, instance_id))


@handles(cls_rbd.mirror_image_map_list)
def mirror_image_map_list(context: ObjectContext, after: str, max_return: int) -> dict[str, MirrorImageMap]:
    entries = omap.listing(context, _IMAGE_MAP, after, max_return)
    return {global_id: omap.parse(MirrorImageMap, raw) for global_id, raw in entries.items()}


@handles(cls_rbd.mirror_image_map_update)
def mirror_image_map_update(context: ObjectContext, global_id: str, image_map: MirrorImageMap) -> None:
    omap.put(context, omap.key(_IMAGE_MAP, global_id), image_map)


@handles(cls_rbd.mirror_image_map_remove)
def mirror_image_map_remove(context: ObjectContext, global_id: str) -> None:
    omap.discard(context, omap.key(_IMAGE_MAP, global_id))
