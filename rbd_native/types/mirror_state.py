"""The state of an image as of a mirror snapshot of it, in objects `rbd_mirror_snapshot.*`: a header and the state."""

from __future__ import annotations

from typing import Annotated

from rbd_native.encoding import blob, struct, text, u8, u32, u64
from rbd_native.types.images import ProtectionStatus
from rbd_native.types.snapshots import snapshot_namespace


@struct(1)
class ImageStateHeader:
    """In front of the state: over how many objects both are spread."""

    object_count: u32


@struct(1)
class SnapState:
    namespace: snapshot_namespace
    name: text
    protection_status: Annotated[ProtectionStatus, u8]


@struct(1)
class ImageState:
    """What the other site is to make of its copy. `features`: those that are not a matter of each site's own;
    `snapshots`: those that users made, by id.
    """

    name: text
    features: u64
    snap_limit: u64
    snapshots: dict[u64, SnapState]
    metadata: dict[text, blob]
