"""The object classes of the embedded OSD: importing this package registers every handler.

Each handler does what a 20.2 OSD does, with its errnos in its order and the bytes it stores: tests/contract
holds both against each other, method by method.
"""

from rbd_native.embedded.classes import (
    lock,
    rbd_children,
    rbd_data,
    rbd_directory,
    rbd_format1,
    rbd_group,
    rbd_header,
    rbd_metadata,
    rbd_mirror,
    rbd_mirror_status,
    rbd_object_map,
    rbd_parent,
    rbd_snapshots,
    rbd_trash,
)

__all__ = [
    "lock",
    "rbd_children",
    "rbd_data",
    "rbd_directory",
    "rbd_format1",
    "rbd_group",
    "rbd_header",
    "rbd_metadata",
    "rbd_mirror",
    "rbd_mirror_status",
    "rbd_object_map",
    "rbd_parent",
    "rbd_snapshots",
    "rbd_trash",
]
