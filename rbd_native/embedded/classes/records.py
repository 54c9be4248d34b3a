"""Snapshots and the parent as a header's omap keeps them, for the handlers that share them."""

from __future__ import annotations

import dataclasses
import errno
from typing import Any

from rbd_native import constants as c
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext
from rbd_native.encoding import u64
from rbd_native.types import StoredParent, StoredSnapshot

SNAPSHOT = b"snapshot_"
PARENT = b"parent"


def snapshot_key(snap_id: int) -> bytes:
    return SNAPSHOT + b"%016x" % snap_id


def load_snapshot(context: ObjectContext, snap_id: int) -> StoredSnapshot:
    """ENOENT where there is none."""
    found: StoredSnapshot = omap.need(context, snapshot_key(snap_id), StoredSnapshot)
    return found


def save_snapshot(context: ObjectContext, snapshot: StoredSnapshot, **changes: Any) -> None:
    changed = dataclasses.replace(snapshot, **changes)
    omap.put(context, snapshot_key(changed.id), changed)


def all_snapshots(context: ObjectContext) -> list[StoredSnapshot]:
    """Ascending by id."""
    return [omap.parse(StoredSnapshot, raw) for raw in context.omap_all(SNAPSHOT).values()]


def load_parent(context: ObjectContext) -> StoredParent | None:
    found: StoredParent | None = omap.find(context, PARENT, StoredParent)
    return found


def save_parent(context: ObjectContext, parent: StoredParent, **changes: Any) -> None:
    omap.put(context, PARENT, dataclasses.replace(parent, **changes))


def has_feature(context: ObjectContext, feature: int) -> bool:
    """False also on what is no header of format 2."""
    return bool(omap.find(context, b"features", u64, 0) & feature)


def require_feature(context: ObjectContext, feature: int) -> None:
    if not has_feature(context, feature):
        raise ClassError(errno.ENOEXEC)


def change_op_features(context: ObjectContext, op_features: int, mask: int) -> None:
    """Set the bits of `mask`; feature OPERATIONS is on while any bit is. ENOENT without features."""
    features = omap.need(context, b"features", u64)
    old = omap.find(context, b"op_features", u64, 0)
    new = old & ~mask | op_features & mask
    if new == old:
        return
    if new:
        omap.put(context, b"op_features", new, u64)
        changed = features | c.RBD_FEATURE_OPERATIONS
    else:
        omap.drop(context, b"op_features")
        changed = features & ~c.RBD_FEATURE_OPERATIONS
    if changed != features:
        omap.put(context, b"features", changed, u64)
