"""The names of the RADOS objects that make up images, pools and groups, and the ids in them.

Source: Ceph's documentation of the RBD on-disk layout, checked against a running cluster.
"""

from __future__ import annotations

import secrets
from typing import Final

DIRECTORY: Final = "rbd_directory"
INFO: Final = "rbd_info"
CHILDREN: Final = "rbd_children"
TRASH: Final = "rbd_trash"
NAMESPACES: Final = "rbd_namespace"
GROUP_DIRECTORY: Final = "rbd_group_directory"
MIRRORING: Final = "rbd_mirroring"
TASKS: Final = "rbd_task"

LOCK_NAME: Final = "rbd_lock"
VALIDATED: Final = b"overwrite validated"
"""Content of rbd_info once a pool has been shown to allow overwrites and self-managed snapshots."""

_ID_LENGTH: Final = 14
_PREFIX_LIMIT: Final = 43


def old_header(name: str) -> str:
    """The header object of a format 1 image."""
    return f"{name}.rbd"


def image_id(name: str) -> str:
    """The object that gives a name its image id."""
    return f"rbd_id.{name}"


def header(identifier: str) -> str:
    return f"rbd_header.{identifier}"


def object_map(identifier: str, snap: int | None = None) -> str:
    """The map of the head, or of a snapshot."""
    return f"rbd_object_map.{identifier}" + ("" if snap is None else f".{snap:016x}")


def group_header(identifier: str) -> str:
    return f"rbd_group_header.{identifier}"


def mirror_snapshot(identifier: str, snap: int, index: int) -> str:
    """One of the objects with the state that an image had at a mirror snapshot."""
    return f"rbd_mirror_snapshot.{identifier}.{snap}.{index}"


def journal(identifier: str) -> str:
    return f"journal.{identifier}"


def data_prefix(identifier: str, metadata_pool: int, separate_data_pool: bool) -> str:
    """What the data objects' names start with; with a data pool of its own, it names the image's pool, in decimal."""
    return f"rbd_data.{metadata_pool}.{identifier}" if separate_data_pool else f"rbd_data.{identifier}"


def prefix_fits(prefix: str) -> bool:
    return len(prefix) <= _PREFIX_LIMIT


def new_id(instance: int) -> str:
    """A new image or group id: the client's global id and 32 random bits, in hex, its last 14 digits."""
    return f"{instance:x}{secrets.randbits(32):x}"[-_ID_LENGTH:]
