"""An image that was described without being opened, as the dict that the user gets: see :meth:`RBD.list_details`."""

from __future__ import annotations

from typing import Any

from rbd_native.api.boundary import moment, shown
from rbd_native.api.image import extent_and_objects
from rbd_native.api.locks import lockers_row
from rbd_native.api.snapshots import plain_row
from rbd_native.header import Header
from rbd_native.operations import locks
from rbd_native.operations.describe import Described, Unreadable
from rbd_native.types import ProtectionStatus


def row(image: Described | Unreadable) -> dict[str, Any]:
    if isinstance(image, Described):
        return _details(image)
    return {"id": shown(image.identifier), "name": shown(image.name), "error": image.code}


def _details(image: Described) -> dict[str, Any]:
    fixed, header = image.fixed, image.header
    held = locks.held(header.lock)
    return {
        "id": shown(image.identifier),
        "name": shown(image.name),
        **extent_and_objects(header.size, fixed),
        "old_format": not image.identifier,
        "features": header.features,
        "flags": header.flags,
        "op_features": header.op_features,
        "stripe_unit": fixed.layout.stripe_unit,
        "stripe_count": fixed.layout.stripe_count,
        "data_pool_id": fixed.data_pool,
        "create_timestamp": moment(fixed.created),
        "access_timestamp": moment(header.accessed),
        "modify_timestamp": moment(header.modified),
        "parent": _parent(header),
        "snapshots": [
            plain_row(snapshot) | {"protected": snapshot.protection == ProtectionStatus.PROTECTED}
            for snapshot in reversed(header.snapshots)
        ],
        "group": {"pool_id": header.group.pool_id, "group_id": header.group.group_id} if header.group.is_valid else None,
        "lock": None if held is None else lockers_row(held),
    }


def _parent(header: Header) -> dict[str, Any] | None:
    spec = header.parent
    if spec is None or not header.parent_overlap:
        return None
    return {
        "pool_id": spec.pool_id,
        "pool_namespace": shown(spec.pool_namespace),
        "image_id": shown(spec.image_id),
        "snap_id": spec.snap_id,
        "overlap": header.parent_overlap,
    }
