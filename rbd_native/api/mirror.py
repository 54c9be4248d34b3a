"""The methods of class RBD about mirroring: of a pool, or of the namespace that the ioctx is set to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rbd_native.api.boundary import drive, moment, name_text, shown, uint32
from rbd_native.constants import RBD_MIRROR_PEER_DIRECTION_RX_TX
from rbd_native.operations import mirror_bootstrap, mirror_lists, mirror_peers, mirror_pool, mirroring
from rbd_native.operations.mirror_image import Info
from rbd_native.rados.connect import cluster_for, port_for
from rbd_native.types import MirrorImageSiteStatus


class MirrorMethods:
    """What class RBD has of them."""

    def mirror_site_name_get(self, rados: Any) -> str:
        """How this cluster is called by others: its id where it was given no name. `rados`: a connection."""
        return shown(drive(mirror_peers.site_name(cluster_for(rados)), "error getting site name"))

    def mirror_site_name_set(self, rados: Any, site_name: str | bytes) -> None:
        """An empty name takes it away."""
        text = name_text(site_name, "site_name")
        drive(mirror_peers.set_site_name(cluster_for(rados), text), "error setting mirror site name")

    def mirror_mode_get(self, ioctx: Any) -> int:
        """One of RBD_MIRROR_MODE_*."""
        return int(drive(mirroring.mode(port_for(ioctx)), "error getting mirror mode"))

    def mirror_mode_set(self, ioctx: Any, mirror_mode: int) -> None:
        """Raises InvalidArgument (no such mode; images are mirrored; RBD_MIRROR_MODE_INIT_ONLY for another namespace than
        the default one, or by a cluster older than release 20), ImageBusy (there are peers)."""
        wanted = uint32(mirror_mode)
        drive(mirror_pool.set_mode(port_for(ioctx), wanted), "error setting mirror mode")

    def mirror_uuid_get(self, ioctx: Any) -> str:
        """By which other sites know the pool. Raises ImageNotFound while it is not mirrored."""
        return shown(drive(mirroring.uuid(port_for(ioctx)), "error retrieving mirror uuid"))

    def mirror_remote_namespace_get(self, ioctx: Any) -> str:
        """The namespace of the other site that this one is mirrored to."""
        return shown(drive(mirror_pool.remote_namespace(port_for(ioctx)), "error getting remote namespace"))

    def mirror_remote_namespace_set(self, ioctx: Any, remote_namespace: str | bytes) -> None:
        """Raises InvalidArgument once images may be mirrored; OperationNotSupported by a cluster older than release 20."""
        text = name_text(remote_namespace, "remote_namespace")
        drive(mirror_pool.set_remote_namespace(port_for(ioctx), text), "error setting remote namespace")

    # --- peers ---

    def mirror_peer_bootstrap_create(self, ioctx: Any) -> str:
        """A token with which another site can make itself and this pool peers of each other. Raises InvalidArgument while
        the pool is not mirrored."""
        return shown(drive(mirror_bootstrap.create(port_for(ioctx)), "error creating bootstrap token"))

    def mirror_peer_bootstrap_import(self, ioctx: Any, direction: int, token: str | bytes) -> None:
        """Make the pool and that of the same name at the site where the token is from peers: to receive from it, or, with
        RBD_MIRROR_PEER_DIRECTION_RX_TX, both ways.

        Raises InvalidArgument (direction, token; it is this cluster, or of the same site name; there is another peer),
        ImageNotFound (no such pool there), FunctionNotSupported (which is not mirrored there).
        """
        way, text = uint32(direction), name_text(token, "token")
        drive(mirror_bootstrap.import_token(port_for(ioctx), way, text), "error importing bootstrap token")

    def mirror_peer_add(
        self,
        ioctx: Any,
        site_name: str | bytes,
        client_name: str | bytes,
        direction: int = RBD_MIRROR_PEER_DIRECTION_RX_TX,
    ) -> str:
        """The uuid of the new peer. Raises InvalidArgument, ImageExists."""
        site, client = name_text(site_name, "site_name"), name_text(client_name, "client_name")
        work = mirror_peers.add(port_for(ioctx), uint32(direction), site, client)
        return drive(work, "error adding mirror peer")

    def mirror_peer_remove(self, ioctx: Any, uuid: str | bytes) -> None:
        """Also of one that is not there."""
        text = name_text(uuid, "uuid")
        drive(mirror_peers.remove(port_for(ioctx), text), "error removing mirror peer")

    def mirror_peer_list(self, ioctx: Any) -> MirrorPeerIterator:
        """Iterate over the peers, by uuid, as dicts with keys uuid, direction (RBD_MIRROR_PEER_DIRECTION_*), site_name,
        cluster_name (the same), mirror_uuid and client_name."""
        return MirrorPeerIterator(ioctx)

    def mirror_peer_set_client(self, ioctx: Any, uuid: str | bytes, client_name: str | bytes) -> None:
        """Raises ImageNotFound."""
        identifier, client = name_text(uuid, "uuid"), name_text(client_name, "client_name")
        work = mirror_peers.set_client(port_for(ioctx), identifier, client)
        drive(work, "error setting mirror peer client name")

    def mirror_peer_set_name(self, ioctx: Any, uuid: str | bytes, site_name: str | bytes) -> None:
        """Raises ImageNotFound, ImageExists, InvalidArgument."""
        identifier, site = name_text(uuid, "uuid"), name_text(site_name, "site_name")
        drive(mirror_peers.set_site(port_for(ioctx), identifier, site), "error setting mirror peer site name")

    def mirror_peer_set_cluster(self, ioctx: Any, uuid: str | bytes, cluster_name: str | bytes) -> None:
        """The old name of :meth:`mirror_peer_set_name`."""
        self.mirror_peer_set_name(ioctx, uuid, cluster_name)

    def mirror_peer_get_attributes(self, ioctx: Any, uuid: str | bytes) -> dict[str, str]:
        """How to reach a peer: keys mon_host and key, as a rule. Raises ImageNotFound."""
        text = name_text(uuid, "uuid")
        found = drive(mirror_peers.attributes(port_for(ioctx), text), "error getting mirror peer attributes")
        return {shown(key): shown(value) for key, value in found.items()}

    def mirror_peer_set_attributes(
        self, ioctx: Any, uuid: str | bytes, attributes: Mapping[str | bytes, str | bytes]
    ) -> None:
        """All of them at once. Raises ImageNotFound."""
        text = name_text(uuid, "uuid")
        values = {name_text(key, "key"): name_text(value, "val") for key, value in attributes.items()}
        work = mirror_peers.set_attributes(port_for(ioctx), text, values)
        drive(work, "error setting mirror peer attributes")

    # --- images ---

    def mirror_image_status_list(self, ioctx: Any) -> MirrorImageStatusIterator:
        """Iterate over the mirrored images, by id, as dicts such as :meth:`Image.mirror_image_get_status` gives; but
        whether an image is primary is not said."""
        return MirrorImageStatusIterator(ioctx)

    def mirror_image_status_summary(self, ioctx: Any) -> list[tuple[int, int]]:
        """Pairs of a state (MIRROR_IMAGE_STATUS_STATE_*) and the number of images in it."""
        found = drive(mirror_lists.summary(port_for(ioctx)), "error getting mirror image status summary")
        return [(int(state), number) for state, number in sorted(found.items())]

    def mirror_image_instance_id_list(self, ioctx: Any) -> MirrorImageInstanceIdIterator:
        """Iterate over pairs of an image's id and that of the daemon which serves it."""
        return MirrorImageInstanceIdIterator(ioctx)

    def mirror_image_info_list(self, ioctx: Any, mode_filter: int | None = None) -> MirrorImageInfoIterator:
        """Iterate over pairs of an image's id and a dict with keys mode, global_id, state and primary; with `mode_filter`,
        one of RBD_MIRROR_IMAGE_MODE_*, over those alone that are mirrored so."""
        return MirrorImageInfoIterator(ioctx, mode_filter)


def site_status(site: MirrorImageSiteStatus) -> dict[str, Any]:
    """What a site says about an image, without its name."""
    return {
        "state": int(site.state),
        "description": shown(site.description),
        "last_update": moment(site.last_update),
        "up": bool(site.up),
    }


def site_statuses(sites: list[MirrorImageSiteStatus]) -> dict[str, Any]:
    """What the local site says, if it is there, and what the others do."""
    remote = [{**site_status(site), "mirror_uuid": shown(site.mirror_uuid)} for site in sites if site.mirror_uuid]
    local = [site_status(site) for site in sites if not site.mirror_uuid]
    return {"remote_statuses": remote, **(local[0] if local else {})}


def info_row(info: Info) -> dict[str, Any]:
    return {"global_id": shown(info.global_id), "state": int(info.state), "primary": info.primary}


class MirrorPeerIterator:
    """The peers as they were when it was made."""

    def __init__(self, ioctx: Any) -> None:
        self._peers = drive(mirroring.peers(port_for(ioctx)), "error listing peers")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for peer in self._peers:
            yield {
                "uuid": shown(peer.uuid),
                "direction": int(peer.direction),
                "site_name": shown(peer.site_name),
                "cluster_name": shown(peer.site_name),
                "mirror_uuid": shown(peer.mirror_uuid),
                "client_name": shown(peer.client_name),
            }


class MirrorImageStatusIterator:
    """What was said of the images when it was made."""

    def __init__(self, ioctx: Any) -> None:
        self._rows = drive(mirror_lists.statuses(port_for(ioctx)), "error listing mirror images status")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for name, identifier, record, sites in self._rows:
            yield {
                "name": shown(name),
                "id": shown(identifier),
                "info": {"global_id": shown(record.global_id), "state": int(record.state)},
                **site_statuses(sites),
            }


class MirrorImageInstanceIdIterator:
    """The daemons as they were when it was made."""

    def __init__(self, ioctx: Any) -> None:
        self._instances = drive(mirror_lists.instances(port_for(ioctx)), "error listing mirror images instance ids")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for identifier, instance in self._instances.items():
            yield shown(identifier), str(instance)


class MirrorImageInfoIterator:
    """The mirrored images as they were when it was made."""

    def __init__(self, ioctx: Any, mode_filter: int | None) -> None:
        mode = None if mode_filter is None else uint32(mode_filter)
        self._infos = drive(mirror_lists.infos(port_for(ioctx), mode), "error listing mirror image info")

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for identifier, info in self._infos:
            yield shown(identifier), {"mode": int(info.mode), **info_row(info)}
