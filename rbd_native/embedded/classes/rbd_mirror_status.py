"""Class `rbd`, `rbd_mirroring`: what the daemons say about the images, and whether they still live.

Keys `status_global_<global id>` for the local site and `remote_status_global_<global id>_<mirror uuid>`. A
status is up while the daemon that gave it watches the object.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Collection

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import text
from rbd_native.types import (
    AddressType,
    EntityAddress,
    EntityInstance,
    EntityName,
    EntityType,
    MirrorImage,
    MirrorImageSiteStatus,
    MirrorImageState,
    MirrorImageStatus,
    MirrorImageStatusState,
    MirrorPeer,
    MirrorPeerDirection,
    StoredOrigin,
    StoredSiteStatus,
)

IMAGE = b"image_"
_LOCAL = b"status_global_"
_REMOTE = b"remote_status_global_"
_GLOBAL = b"global_"

_RX = MirrorPeerDirection.RX
_TX = MirrorPeerDirection.TX
_RX_TX = MirrorPeerDirection.RX_TX
_UNKNOWN = MirrorImageStatusState.UNKNOWN
_ERROR = MirrorImageStatusState.ERROR
_TALKED_ABOUT = (MirrorImageState.ENABLED, MirrorImageState.CREATING)


def _instance(client: int, address: str) -> EntityInstance:
    return EntityInstance(EntityName(EntityType.CLIENT, client), EntityAddress.parse(address, AddressType.ANY))


def _watchers(context: ObjectContext) -> set[EntityInstance]:
    return {_instance(watcher.client, watcher.address) for watcher in context.watchers()}


def _remote_prefix(global_id: str) -> bytes:
    return omap.key(_REMOTE, global_id) + b"_"


# --- what a daemon says


@handles(cls_rbd.mirror_image_status_set)
def mirror_image_status_set(context: ObjectContext, global_id: str, status: MirrorImageSiteStatus) -> None:
    image_id = omap.find(context, omap.key(_GLOBAL, global_id), text)
    image = omap.find(context, omap.key(IMAGE, image_id), MirrorImage) if image_id is not None else None
    if image is None or image.state not in _TALKED_ABOUT:
        return
    if status.mirror_uuid:
        entry = omap.key(_remote_prefix(global_id), status.mirror_uuid)
    else:
        entry = omap.key(_LOCAL, global_id)
    origin = StoredOrigin(_instance(context.entity.client, context.entity.address))
    stored = dataclasses.replace(status, mirror_uuid="", up=False, last_update=context.now())
    omap.put(context, entry, StoredSiteStatus(origin, stored))


@handles(cls_rbd.mirror_image_status_remove)
def mirror_image_status_remove(context: ObjectContext, global_id: str) -> None:
    remove_status(context, global_id)


def remove_status(context: ObjectContext, global_id: str) -> None:
    """Of all sites."""
    prefix = _remote_prefix(global_id)
    remote = [omap.key(prefix, mirror_uuid) for mirror_uuid in omap.entries_so_far(context, prefix)]
    omap.discard(context, omap.key(_LOCAL, global_id), *remote)


@handles(cls_rbd.mirror_image_status_remove_down)
def mirror_image_status_remove_down(context: ObjectContext) -> None:
    watchers = _watchers(context)
    for prefix in (_LOCAL, _REMOTE):
        entries = omap.entries(context, prefix).items()
        omap.discard(context, *[omap.key(prefix, name) for name, raw in entries if _origin(raw) not in watchers])


def _origin(raw: bytes) -> EntityInstance:
    found: StoredOrigin = omap.parse(StoredOrigin, raw)
    return found.instance


# --- what is known of an image


def _status(context: ObjectContext, global_id: str, watchers: Collection[EntityInstance]) -> list[MirrorImageSiteStatus]:
    found = omap.entries_so_far(context, _remote_prefix(global_id))
    local = context.omap(omap.key(_LOCAL, global_id))
    if local is not None:
        found = {"": local, **found}
    sites = []
    for mirror_uuid, raw in found.items():
        stored = omap.parse(StoredSiteStatus, raw)
        up = stored.origin.instance in watchers
        sites.append(dataclasses.replace(stored.status, mirror_uuid=mirror_uuid, up=up))
    return sites


@handles(cls_rbd.mirror_image_status_get)
def mirror_image_status_get(context: ObjectContext, global_id: str) -> MirrorImageStatus:
    sites = _status(context, global_id, _watchers(context))
    if not sites:
        raise ClassError(errno.ENOENT)
    return MirrorImageStatus.of(sites)


@handles(cls_rbd.mirror_image_status_list)
def mirror_image_status_list(
    context: ObjectContext, after: str, max_return: int
) -> tuple[dict[str, MirrorImage], dict[str, MirrorImageStatus]]:
    watchers = _watchers(context)
    images = _images(context, after, max_return)
    sites = {image_id: _status(context, image.global_id, watchers) for image_id, image in images.items()}
    return images, {image_id: MirrorImageStatus.of(known) for image_id, known in sites.items() if known}


def _images(context: ObjectContext, after: str = "", limit: int = 2**64 - 1) -> dict[str, MirrorImage]:
    entries = omap.listing(context, IMAGE, after, limit)
    return {image_id: omap.parse(MirrorImage, raw) for image_id, raw in entries.items()}


@handles(cls_rbd.mirror_image_status_get_summary)
def mirror_image_status_get_summary(context: ObjectContext, peers: list[MirrorPeer]) -> dict[MirrorImageStatusState, int]:
    watchers = _watchers(context)
    direction, sending = _summary_direction(peers)
    counts: dict[MirrorImageStatusState, int] = {}
    for image in _images(context).values():
        state = _summary_state(_status(context, image.global_id, watchers), direction, sending)
        counts[state] = counts.get(state, 0) + 1
    return counts


def _summary_direction(peers: list[MirrorPeer]) -> tuple[MirrorPeerDirection, set[str]]:
    """Which way the peers work together, and the uuids of those that we send to."""
    sending = {peer.mirror_uuid for peer in peers if peer.direction != _RX}
    directions = [peer.direction for peer in peers]
    if not directions:
        return _RX, sending
    if any(direction != directions[0] for direction in directions if direction != _RX):
        return _RX_TX, sending
    return directions[0], sending


def _summary_state(
    sites: list[MirrorImageSiteStatus], direction: MirrorPeerDirection, sending: set[str]
) -> MirrorImageStatusState:
    states: list[MirrorImageStatusState] = []
    if direction in (_RX, _RX_TX):
        states += [site.state for site in sites if not site.mirror_uuid and site.up]
    if direction in (_TX, _RX_TX):
        remote = [site for site in sites if site.mirror_uuid]
        # An error counts even where the daemon that met it is gone.
        states += [site.state if site.up or site.state == _ERROR else _UNKNOWN for site in remote]
        if sending - {site.mirror_uuid for site in remote}:
            return _UNKNOWN
    if not states:
        return _UNKNOWN
    return _ERROR if _ERROR in states else min(states)


# --- which daemon serves an image


@handles(cls_rbd.mirror_image_instance_get)
def mirror_image_instance_get(context: ObjectContext, global_id: str) -> EntityInstance:
    return _server(context, global_id, _watchers(context))


def _server(context: ObjectContext, global_id: str, watchers: Collection[EntityInstance]) -> EntityInstance:
    raw = context.omap(omap.key(_LOCAL, global_id))
    if raw is None:
        raise ClassError(errno.ENOENT)
    origin = _origin(raw)
    if origin not in watchers:
        raise ClassError(errno.ESTALE)
    return origin


@handles(cls_rbd.mirror_image_instance_list)
def mirror_image_instance_list(context: ObjectContext, after: str, max_return: int) -> dict[str, EntityInstance]:
    watchers = _watchers(context)
    found: dict[str, EntityInstance] = {}
    for image_id, image in _images(context, after).items():
        if len(found) >= max_return:
            break
        try:
            found[image_id] = _server(context, image.global_id, watchers)
        except ClassError:
            continue  # nobody serves it
    return found
