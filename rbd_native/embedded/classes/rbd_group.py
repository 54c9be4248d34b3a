"""Class `rbd`, `rbd_group_header.<id>`: keys `image_<pool, 16 hex digits>_<image id>`, `snapshot_<id>` and
`snap_order_<id>` (u64: the place of that snapshot in time), `snap_max_order` (u64: the last place that was given).

Group directories are those of :mod:`rbd_native.embedded.classes.rbd_directory`.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import encode, u8, u64
from rbd_native.types import GroupImageSpec, GroupImageStatus, GroupSnapshot, GroupSnapshotState

_IMAGE = b"image_"
_SNAPSHOT = b"snapshot_"
_ORDER = b"snap_order_"
_MAX_ORDER = b"snap_max_order"


def _image_key(spec: GroupImageSpec) -> bytes:
    # No pool, no key: what stands for "from the beginning" in a listing.
    if spec.pool_id == -1:
        return b""
    return omap.key(_IMAGE + b"%016x_" % (spec.pool_id % 2**64), spec.image_id)


def _image_spec(entry: bytes) -> GroupImageSpec:
    pool, separator, _ = entry[len(_IMAGE) :].partition(b"_")
    try:
        pool_id = int(pool, 16)
    except ValueError:
        raise ClassError(errno.EIO) from None
    if not separator:
        raise ClassError(errno.EIO)
    image_id = omap.name_of(_IMAGE + pool + separator, entry)
    return GroupImageSpec(image_id, pool_id - 2**64 if pool_id >= 2**63 else pool_id)


@handles(cls_rbd.group_image_set)
def group_image_set(context: ObjectContext, status: GroupImageStatus) -> None:
    omap.put(context, _image_key(status.spec), status.state, u8)


@handles(cls_rbd.group_image_remove)
def group_image_remove(context: ObjectContext, spec: GroupImageSpec) -> None:
    omap.drop(context, _image_key(spec))


@handles(cls_rbd.group_image_list)
def group_image_list(context: ObjectContext, after: GroupImageSpec, max_return: int) -> list[GroupImageStatus]:
    found: list[GroupImageStatus] = []
    last, more = _image_key(after), True
    if not max_return:
        context.omap_page(last, 1, _IMAGE)  # looked at all the same, for the errno
    while more and len(found) < max_return:
        page, more = context.omap_page(last, min(max_return - len(found), 1024), _IMAGE)
        for last, raw in page.items():
            found.append(GroupImageStatus(_image_spec(last), omap.parse(u8, raw)))
    return found


@handles(cls_rbd.group_snap_set)
def group_snap_set(context: ObjectContext, snapshot: GroupSnapshot) -> None:
    if not snapshot.name or not snapshot.id:
        raise ClassError(errno.EINVAL)
    snapshots = _all_snapshots(context)
    if any(old.name == snapshot.name and old.id != snapshot.id for old in snapshots.values()):
        raise ClassError(errno.EEXIST)
    if snapshot.state == GroupSnapshotState.INCOMPLETE and snapshot.id in snapshots:
        raise ClassError(errno.EEXIST)
    if snapshot.state == GroupSnapshotState.INCOMPLETE:  # a new one
        place = omap.find(context, _MAX_ORDER, u64, 0) + 1
        context.set_omap({_MAX_ORDER: encode(place, u64), omap.key(_ORDER, snapshot.id): encode(place, u64)})
    omap.put(context, omap.key(_SNAPSHOT, snapshot.id), snapshot)


def _all_snapshots(context: ObjectContext) -> dict[str, GroupSnapshot]:
    entries = context.omap_all(_SNAPSHOT)
    return {omap.name_of(_SNAPSHOT, entry): omap.parse(GroupSnapshot, raw) for entry, raw in entries.items()}


@handles(cls_rbd.group_snap_remove)
def group_snap_remove(context: ObjectContext, snap_id: str) -> None:
    omap.drop(context, omap.key(_SNAPSHOT, snap_id), omap.key(_ORDER, snap_id))


@handles(cls_rbd.group_snap_get_by_id)
def group_snap_get_by_id(context: ObjectContext, snap_id: str) -> GroupSnapshot:
    found: GroupSnapshot = omap.need(context, omap.key(_SNAPSHOT, snap_id), GroupSnapshot)
    return found


@handles(cls_rbd.group_snap_list)
def group_snap_list(context: ObjectContext, after: GroupSnapshot, max_return: int) -> list[GroupSnapshot]:
    try:
        entries = omap.listing(context, _SNAPSHOT, after.id, max_return)
    except ClassError:
        return []  # a real OSD passes over what fails here
    return [omap.parse(GroupSnapshot, raw) for raw in entries.values()]


@handles(cls_rbd.group_snap_list_order)
def group_snap_list_order(context: ObjectContext, after: str, max_return: int) -> dict[str, int]:
    entries = omap.listing(context, _ORDER, after, max_return)
    return {snap_id: omap.parse(u64, raw) for snap_id, raw in entries.items()}
