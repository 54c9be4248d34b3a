"""Class `rbd`, image headers: size, features, flags, time stamps, striping, group membership, migration.

Keys of the omap: `size`, `order`, `features`, `object_prefix`, `snap_seq`, `*_timestamp` always;
`data_pool_id`, `stripe_unit`, `stripe_count`, `flags`, `op_features`, `rbd_group_ref`, `migration` where they
apply.
"""

from __future__ import annotations

import dataclasses
import errno

from rbd_native import cls_rbd
from rbd_native import constants as c
from rbd_native.embedded.classes import omap, rbd_format1
from rbd_native.embedded.classes.records import (
    change_op_features,
    load_parent,
    load_snapshot,
    require_feature,
    save_parent,
    save_snapshot,
)
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import UTime, encode, i64, text, u8, u64, utime
from rbd_native.format1 import MIGRATING
from rbd_native.types import NO_GROUP, GroupSpec, MigrationHeaderType, MigrationSpec, MigrationState

_TIMESTAMPS = (b"create_timestamp", b"access_timestamp", b"modify_timestamp")
_CAN_DISABLE = c.RBD_FEATURES_MUTABLE | c.RBD_FEATURES_DISABLE_ONLY


@handles(cls_rbd.create)
def create(context: ObjectContext, size: int, order: int, features: int, object_prefix: str, data_pool_id: int) -> None:
    if features & ~c.RBD_FEATURES_ALL:
        raise ClassError(errno.ENOSYS)
    if not object_prefix:
        raise ClassError(errno.EINVAL)
    if context.omap(b"object_prefix") is not None:
        raise ClassError(errno.EEXIST)
    if features & c.RBD_FEATURE_OPERATIONS:
        raise ClassError(errno.EINVAL)
    if bool(features & c.RBD_FEATURE_DATA_POOL) != (data_pool_id != -1):
        raise ClassError(errno.EINVAL)
    values = {
        b"size": encode(size, u64),
        b"order": encode(order, u8),
        b"features": encode(features, u64),
        b"object_prefix": encode(object_prefix, text),
        b"snap_seq": encode(0, u64),
        **dict.fromkeys(_TIMESTAMPS, encode(context.now(), utime)),
    }
    if data_pool_id != -1:
        values[b"data_pool_id"] = encode(data_pool_id, i64)
    context.set_omap(values)


# --- features


@handles(cls_rbd.get_features)
def get_features(context: ObjectContext, snap_id: int, read_only: bool) -> tuple[int, int]:
    features = omap.need(context, b"features", u64)
    mask = c.RBD_FEATURES_INCOMPATIBLE if read_only else c.RBD_FEATURES_RW_INCOMPATIBLE
    return features, features & mask


@handles(cls_rbd.set_features)
def set_features(context: ObjectContext, features: int, mask: int) -> None:
    if mask & c.RBD_FEATURES_INTERNAL:
        raise ClassError(errno.EINVAL)
    mask &= c.RBD_FEATURES_ALL
    if features & mask & ~c.RBD_FEATURES_MUTABLE or ~features & mask & ~_CAN_DISABLE:
        raise ClassError(errno.EINVAL)
    old = omap.find(context, b"features", u64, 0)
    omap.put(context, b"features", old & ~mask | features & mask, u64)


@handles(cls_rbd.op_features_get)
def op_features_get(context: ObjectContext) -> int:
    found: int = omap.find(context, b"op_features", u64, 0)
    return found


@handles(cls_rbd.op_features_set)
def op_features_set(context: ObjectContext, op_features: int, mask: int) -> None:
    if mask & ~c.RBD_OPERATION_FEATURES_ALL:
        raise ClassError(errno.EINVAL)
    change_op_features(context, op_features, mask)


# --- size and layout


@handles(cls_rbd.get_size)
def get_size(context: ObjectContext, snap_id: int) -> tuple[int, int]:
    order = omap.need(context, b"order", u8)
    if snap_id == c.NOSNAP:
        return order, omap.need(context, b"size", u64)
    return order, load_snapshot(context, snap_id).image_size


@handles(cls_rbd.set_size)
def set_size(context: ObjectContext, size: int) -> None:
    old = omap.need(context, b"size", u64)
    omap.put(context, b"size", size, u64)
    if size >= old:
        return
    parent = load_parent(context)
    if parent is not None and (parent.head_overlap or 0) > size:
        save_parent(context, parent, head_overlap=size)


@handles(cls_rbd.get_object_prefix)
def get_object_prefix(context: ObjectContext) -> str:
    found: str = omap.need(context, b"object_prefix", text)
    return found


@handles(cls_rbd.get_data_pool)
def get_data_pool(context: ObjectContext) -> int:
    found: int = omap.find(context, b"data_pool_id", i64, -1)
    return found


@handles(cls_rbd.get_stripe_unit_count)
def get_stripe_unit_count(context: ObjectContext) -> tuple[int, int]:
    omap.require_object(context)
    require_feature(context, c.RBD_FEATURE_STRIPINGV2)
    unit = omap.find(context, b"stripe_unit", u64)
    if unit is None:
        unit = _object_size(omap.need(context, b"order", u8))
    return unit, omap.find(context, b"stripe_count", u64, 1)


@handles(cls_rbd.set_stripe_unit_count)
def set_stripe_unit_count(context: ObjectContext, stripe_unit: int, stripe_count: int) -> None:
    if not stripe_unit or not stripe_count:
        raise ClassError(errno.EINVAL)
    omap.require_object(context)
    require_feature(context, c.RBD_FEATURE_STRIPINGV2)
    object_size = _object_size(omap.need(context, b"order", u8))
    if stripe_unit > object_size or object_size % stripe_unit:
        raise ClassError(errno.EINVAL)
    omap.put(context, b"stripe_unit", stripe_unit, u64)
    omap.put(context, b"stripe_count", stripe_count, u64)


def _object_size(order: int) -> int:
    return 1 << (order % 64)


# --- time stamps


@handles(cls_rbd.get_create_timestamp)
def get_create_timestamp(context: ObjectContext) -> UTime:
    return _timestamp(context, b"create_timestamp")


@handles(cls_rbd.get_access_timestamp)
def get_access_timestamp(context: ObjectContext) -> UTime:
    return _timestamp(context, b"access_timestamp")


@handles(cls_rbd.get_modify_timestamp)
def get_modify_timestamp(context: ObjectContext) -> UTime:
    return _timestamp(context, b"modify_timestamp")


def _timestamp(context: ObjectContext, entry: bytes) -> UTime:
    omap.require_object(context)
    found: UTime = omap.find(context, entry, utime, UTime())
    return found


@handles(cls_rbd.set_access_timestamp)
def set_access_timestamp(context: ObjectContext) -> None:
    omap.require_object(context)
    omap.put(context, b"access_timestamp", context.now(), utime)


@handles(cls_rbd.set_modify_timestamp)
def set_modify_timestamp(context: ObjectContext) -> None:
    omap.require_object(context)
    omap.put(context, b"modify_timestamp", context.now(), utime)


# --- flags


@handles(cls_rbd.get_flags)
def get_flags(context: ObjectContext, snap_id: int) -> int:
    if snap_id != c.NOSNAP:
        return load_snapshot(context, snap_id).flags
    found: int = omap.find(context, b"flags", u64, 0)
    return found


@handles(cls_rbd.set_flags)
def set_flags(context: ObjectContext, flags: int, mask: int, snap_id: int) -> None:
    if snap_id != c.NOSNAP:
        snapshot = load_snapshot(context, snap_id)
        save_snapshot(context, snapshot, flags=snapshot.flags & ~mask | flags & mask)
        return
    old = omap.find(context, b"flags", u64, 0)
    omap.put(context, b"flags", old & ~mask | flags & mask, u64)


# --- group


@handles(cls_rbd.image_group_add)
def image_group_add(context: ObjectContext, group: GroupSpec) -> None:
    old = omap.find(context, b"rbd_group_ref", GroupSpec)
    if old is not None:
        if old != group:
            raise ClassError(errno.EEXIST)
        return
    change_op_features(context, c.RBD_OPERATION_FEATURE_GROUP, c.RBD_OPERATION_FEATURE_GROUP)
    omap.put(context, b"rbd_group_ref", group)


@handles(cls_rbd.image_group_remove)
def image_group_remove(context: ObjectContext, group: GroupSpec) -> None:
    if omap.need(context, b"rbd_group_ref", GroupSpec) != group:
        raise ClassError(errno.EBADF)
    omap.drop(context, b"rbd_group_ref")
    change_op_features(context, 0, c.RBD_OPERATION_FEATURE_GROUP)


@handles(cls_rbd.image_group_get)
def image_group_get(context: ObjectContext) -> GroupSpec:
    found: GroupSpec = omap.find(context, b"rbd_group_ref", GroupSpec, NO_GROUP)
    return found


# --- migration


@handles(cls_rbd.migration_set)
def migration_set(context: ObjectContext, spec: MigrationSpec) -> None:
    if context.omap(b"migration") is not None:
        raise ClassError(errno.EEXIST)
    features = omap.find(context, b"features", u64)
    if features is None:
        rbd_format1.begin_migration(context, spec)
    elif not features & c.RBD_FEATURE_MIGRATING:
        omap.put(context, b"features", features | c.RBD_FEATURE_MIGRATING, u64)
    elif spec.header_type != MigrationHeaderType.DST:
        raise ClassError(errno.EEXIST)
    omap.put(context, b"migration", spec)


@handles(cls_rbd.migration_set_state)
def migration_set_state(context: ObjectContext, state: MigrationState, description: str) -> None:
    spec = migration_get(context)
    omap.put(context, b"migration", dataclasses.replace(spec, state=state, state_description=description))


@handles(cls_rbd.migration_get)
def migration_get(context: ObjectContext) -> MigrationSpec:
    features = omap.find(context, b"features", u64)
    if features is None:
        migrating = rbd_format1.header_text(context) == MIGRATING
    else:
        migrating = bool(features & c.RBD_FEATURE_MIGRATING)
    if not migrating:
        raise ClassError(errno.EINVAL)
    found: MigrationSpec = omap.need(context, b"migration", MigrationSpec)
    return found


@handles(cls_rbd.migration_remove)
def migration_remove(context: ObjectContext) -> None:
    omap.discard(context, b"migration")
    features = omap.find(context, b"features", u64)
    if features is None:
        rbd_format1.end_migration(context)
    elif features & c.RBD_FEATURE_MIGRATING:
        omap.put(context, b"features", features & ~c.RBD_FEATURE_MIGRATING, u64)
