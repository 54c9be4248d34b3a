"""Class `rbd` on the objects of mirroring: `rbd_mirroring`, `rbd_mirror_leader`, and mirror snapshots of a
header.
"""

from __future__ import annotations

from typing import Annotated, Final

from rbd_native.cls_client import READ, READ_WRITE, WRITE, method
from rbd_native.encoding import boolean, i32, text, u8, u32, u64
from rbd_native.types import (
    EntityInstance,
    MirrorImage,
    MirrorImageMap,
    MirrorImageSiteStatus,
    MirrorImageStatus,
    MirrorImageStatusState,
    MirrorMode,
    MirrorPeer,
    MirrorPeerDirection,
)

_NO_PEERS: Final[list[MirrorPeer]] = []

# --- the pool


@method("rbd", READ)
def mirror_uuid_get() -> text:
    """ENOENT where mirroring never was enabled."""


@method("rbd", READ_WRITE)
def mirror_uuid_set(uuid: text) -> None:
    """EINVAL where mirroring is enabled."""


@method("rbd", READ)
def mirror_mode_get() -> Annotated[MirrorMode, u32]:
    """ENOENT where mirroring is disabled."""


@method("rbd", READ_WRITE)
def mirror_mode_set(mode: Annotated[MirrorMode, u32]) -> None:
    """EINVAL without uuid, EBUSY where it is to be disabled and has peers."""


@method("rbd", READ)
def mirror_remote_namespace_get() -> text:
    """The namespace on the other side. Since 20; EOPNOTSUPP before."""


@method("rbd", READ_WRITE)
def mirror_remote_namespace_set(namespace: text) -> None:
    """Since 20; EOPNOTSUPP before."""


# --- peers


@method("rbd", READ)
def mirror_peer_list() -> list[MirrorPeer]:
    """By uuid."""


@method("rbd", READ_WRITE)
def mirror_peer_add(peer: MirrorPeer) -> None:
    """ESTALE where the uuid is taken, EEXIST where the site is, EINVAL."""


@method("rbd", READ_WRITE)
def mirror_peer_remove(uuid: text) -> None:
    """OK where there is none."""


@method("rbd", READ_WRITE)
def mirror_peer_set_client(uuid: text, client_name: text) -> None:
    """ENOENT."""


@method("rbd", READ_WRITE)
def mirror_peer_set_cluster(uuid: text, site_name: text) -> None:
    """ENOENT."""


@method("rbd", READ_WRITE)
def mirror_peer_set_direction(uuid: text, direction: Annotated[MirrorPeerDirection, u8]) -> None:
    """ENOENT."""


@method("rbd", READ_WRITE)
def mirror_peer_ping(
    site_name: text, mirror_uuid: text, direction: Annotated[MirrorPeerDirection, u8]
) -> None:
    """A daemon of the other site was here; `direction` must be TX."""


# --- images


@method("rbd", READ)
def mirror_image_list(after: text, max_return: u64) -> dict[text, text]:
    """Image ids to global ids, from behind the image id `after`."""


@method("rbd", READ)
def mirror_image_get_image_id(global_id: text) -> text:
    """ENOENT."""


@method("rbd", READ)
def mirror_image_get(image_id: text) -> MirrorImage:
    """ENOENT."""


@method("rbd", READ_WRITE)
def mirror_image_set(image_id: text, image: MirrorImage) -> None:
    """EEXIST where the global id is another's, EINVAL where it would change, ENOENT."""


@method("rbd", READ_WRITE)
def mirror_image_remove(image_id: text) -> None:
    """ENOENT, EBUSY unless its state is DISABLING."""


# --- status of images


@method("rbd", READ_WRITE)
def mirror_image_status_set(global_id: text, status: MirrorImageSiteStatus) -> None:
    """The caller says how its site is doing. ENOENT never: an image that is not mirrored is passed over."""


@method("rbd", READ_WRITE)
def mirror_image_status_remove(global_id: text) -> None:
    """OK where there is none."""


@method("rbd", READ)
def mirror_image_status_get(global_id: text) -> MirrorImageStatus:
    """ENOENT."""


@method("rbd", READ)
def mirror_image_status_list(
    after: text, max_return: u64
) -> tuple[dict[text, MirrorImage], dict[text, MirrorImageStatus]]:
    """The images from behind the image id `after`, and the status of those that have one."""


@method("rbd", READ)
def mirror_image_status_get_summary(
    peers: list[MirrorPeer] = _NO_PEERS,
) -> dict[Annotated[MirrorImageStatusState, u8], i32]:
    """How many images are in which state, as far as these peers go."""


@method("rbd", READ_WRITE)
def mirror_image_status_remove_down() -> None:
    """Of daemons that are gone."""


@method("rbd", READ)
def mirror_image_instance_get(global_id: text) -> EntityInstance:
    """The daemon that serves the image. ENOENT; ESTALE where it is gone."""


@method("rbd", READ)
def mirror_image_instance_list(after: text, max_return: u64) -> dict[text, EntityInstance]:
    """By image id, of daemons that are there."""


# --- rbd_mirror_leader


@method("rbd", READ)
def mirror_instances_list() -> list[text]:
    """Ascending."""


@method("rbd", READ_WRITE)
def mirror_instances_add(instance_id: text) -> None:
    """OK where it is there."""


@method("rbd", READ_WRITE)
def mirror_instances_remove(instance_id: text) -> None:
    """OK where there is none."""


@method("rbd", READ)
def mirror_image_map_list(after: text, max_return: u64) -> dict[text, MirrorImageMap]:
    """By global id, from behind `after`."""


@method("rbd", WRITE)
def mirror_image_map_update(global_id: text, image_map: MirrorImageMap) -> None:
    """Add or replace."""


@method("rbd", WRITE)
def mirror_image_map_remove(global_id: text) -> None:
    """OK where there is none."""


# --- mirror snapshots, on an image header


@method("rbd", READ_WRITE)
def mirror_image_snapshot_unlink_peer(snap_id: u64, peer_uuid: text) -> None:
    """ENOENT, EINVAL for another kind of snapshot."""


@method("rbd", READ_WRITE)
def mirror_image_snapshot_set_copy_progress(
    snap_id: u64, complete: boolean, last_copied_object_number: u64
) -> None:
    """ENOENT, EINVAL for another kind of snapshot."""
