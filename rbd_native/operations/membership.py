"""What an image says about the group it is in, and a snapshot of it about the group snapshot it is part of."""

from __future__ import annotations

import errno
from typing import NamedTuple

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call
from rbd_native.image.context import ImageContext
from rbd_native.operations import snapshots
from rbd_native.rados.port import RadosError
from rbd_native.types import NO_GROUP, GroupSnapshotNamespace


class Group(NamedTuple):
    """The pool is that of the group; -1, with an empty name, for none."""

    pool_id: int
    name: str


async def group(image: ImageContext) -> Group:
    """The group of an image. ENOENT where it is in one that is not there any more."""
    if image.stale:
        await image.fresh()
    spec = image.header.group
    if spec.pool_id == NO_GROUP.pool_id:
        return Group(spec.pool_id, "")
    return Group(spec.pool_id, await _name(image, spec.pool_id, spec.group_id))


async def group_snapshot(image: ImageContext, snap: int) -> tuple[Group, str]:
    """The group, and the name of the group's snapshot, that a snapshot is part of. ENOENT; EINVAL where it is of another
    kind."""
    if image.stale:
        await image.fresh()
    part = snapshots.with_id(image, snap).info.namespace
    if not isinstance(part, GroupSnapshotNamespace):
        raise RadosError(errno.EINVAL, f"snapshot {snap} is not part of a group's")
    name = await _name(image, part.pool_id, part.group_id)
    io = image.io.cluster.io(part.pool_id, image.io.namespace)
    whole = await call(io, names.group_header(part.group_id), cls_rbd.group_snap_get_by_id(part.group_snap_id))
    return Group(part.pool_id, name), whole.name


async def _name(image: ImageContext, pool_id: int, identifier: str) -> str:
    io = image.io.cluster.io(pool_id, image.io.namespace)
    return await call(io, names.GROUP_DIRECTORY, cls_rbd.dir_get_name(identifier))
