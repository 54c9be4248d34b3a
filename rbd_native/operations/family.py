"""Clones and their parents: who descends from whom, and how the bond is cut.

A clone names its parent in its own header. The parent knows its clones in one of two ways: clones of format 2 are listed in
its header, those of format 1 in the object `rbd_children` of the clone's pool. A snapshot that was removed while it had
clones waits in the trash namespace of its image and goes with the last of them.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional, mutate
from rbd_native.constants import RBD_OPERATION_FEATURE_CLONE_CHILD
from rbd_native.image.context import ImageContext
from rbd_native.operations import snapshots
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import ChildImageSpec, ParentImageSpec, TrashSnapshotNamespace
from rbd_native.watch_notify import HeaderUpdate, encode_message

_NOTIFY_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class Relative:
    """An image somewhere in the cluster, with the names that its ids have now."""

    pool_id: int
    pool_name: str
    pool_namespace: str
    image_id: str
    image_name: str
    trash: bool


async def relative(io: Io, identifier: str) -> Relative:
    """ENOENT where the id is neither in the directory nor in the trash."""
    name = await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_name(identifier), None)
    trash = name is None
    if name is None:
        name = (await call(io, names.TRASH, cls_rbd.trash_get(identifier))).name
    return Relative(io.pool_id, await io.cluster.pool_name(io.pool_id), io.namespace, identifier, name, trash)


# --- downward --------------------------------------------------------------------------------------------------------


async def children(image: ImageContext) -> list[Relative]:
    """The clones of the snapshot the handle is set to, or of all snapshots; by pool, namespace and name."""
    if image.stale:
        await image.fresh()
    ids = [image.snap.info.id] if image.snap is not None else list(image.snapc.ids)
    found: list[Relative] = []
    for snap in ids:
        found += [child async for child in _children_of(image.io, image.id, snap)]
    return sorted(found, key=lambda child: (child.pool_name, child.pool_namespace, child.image_name))


async def _children_of(io: Io, identifier: str, snap: int) -> AsyncIterator[Relative]:
    pools: dict[int, str] = await io.cluster.pools()
    for pool in pools:
        there = io.cluster.io(pool, io.namespace)
        request = cls_rbd.get_children(io.pool_id, identifier, snap)
        ids: set[str] = await call_optional(there, names.CHILDREN, request, set(), errno.ENOENT, errno.EOPNOTSUPP)
        for child in sorted(ids):
            yield await relative(there, child)
    empty: set[ChildImageSpec] = set()
    for spec in await call_optional(io, names.header(identifier), cls_rbd.children_list(snap), empty):
        yield await relative(io.cluster.io(spec.pool_id, spec.pool_namespace), spec.image_id)


async def descendants(image: ImageContext) -> list[Relative]:
    """The clones, their clones, and so on; each before its own."""
    found: list[Relative] = []
    pending = await children(image)
    while pending:
        child = pending.pop(0)
        found.append(child)
        io = image.io.cluster.io(child.pool_id, child.pool_namespace)
        _, header = await headers.read(io, child.image_id, read_only=True)
        for snap in header.snapc.ids:
            pending += [grandchild async for grandchild in _children_of(io, child.image_id, snap)]
    return found


# --- the bond --------------------------------------------------------------------------------------------------------


async def attach(child: ImageContext, spec: ParentImageSpec, overlap: int, *, old: bool) -> None:
    """Bind a new image to its parent, the child's side first: from then on its removal clears away all of it."""
    io = child.io
    steps = [cls_rbd.parent_attach(spec, overlap)]
    if not old:
        steps.append(cls_rbd.op_features_set(RBD_OPERATION_FEATURE_CLONE_CHILD, RBD_OPERATION_FEATURE_CLONE_CHILD))
    await mutate(io, child.header_oid, *steps)
    if old:
        entry = cls_rbd.add_child(spec.pool_id, spec.image_id, spec.snap_id, child.id)
        await mutate(io, names.CHILDREN, entry)
        return
    parent = io.cluster.io(spec.pool_id, spec.pool_namespace)
    await mutate(parent, names.header(spec.image_id), cls_rbd.child_attach(spec.snap_id, _spec(child)))
    await _tell(parent, spec.image_id)


async def detach(child: ImageContext, spec: ParentImageSpec) -> None:
    """Take a clone off its parent's list. Where that was done before, nothing is left to do."""
    io = child.io
    if child.header.op_features & RBD_OPERATION_FEATURE_CLONE_CHILD:
        parent = io.cluster.io(spec.pool_id, spec.pool_namespace)
        steps = [cls_rbd.child_detach(spec.snap_id, _spec(child)).step]
        reply = await parent.write(names.header(spec.image_id), steps).bare()
        if reply.rv == 0:
            await _tell(parent, spec.image_id)
    else:
        entry = cls_rbd.remove_child(spec.pool_id, spec.image_id, spec.snap_id, child.id)
        reply = await io.write(names.CHILDREN, [entry.step]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, f"parent of {child.name}")


async def sweep(child: ImageContext, spec: ParentImageSpec) -> None:
    """Remove the parent's snapshot for good if it only waited, in the trash, for its last clone to go."""
    there = child.io.cluster.io(spec.pool_id, spec.pool_namespace)
    try:
        info = await call(there, names.header(spec.image_id), cls_rbd.snapshot_get(spec.snap_id))
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    if not isinstance(info.namespace, TrashSnapshotNamespace) or info.child_count:
        return
    parent = await child.open_relative(there, spec.image_id)
    try:
        await snapshots.remove(parent, snapshots.with_id(parent, spec.snap_id))
    finally:
        await parent.close()


def _spec(child: ImageContext) -> ChildImageSpec:
    return ChildImageSpec(child.io.pool_id, child.id, child.io.namespace)


async def _tell(io: Io, identifier: str) -> None:
    """The parent's header has changed."""
    await io.notify(names.header(identifier), encode_message(HeaderUpdate()), _NOTIFY_TIMEOUT_MS)
