"""Clones and their parents: who descends from whom. How they are bound to each other: see :mod:`bond`."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional
from rbd_native.image.context import ImageContext
from rbd_native.rados.port import Io
from rbd_native.types import ChildImageSpec


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


async def children(image: ImageContext) -> list[Relative]:
    """The clones of the snapshot the handle is set to, or of all snapshots; by pool, namespace and name."""
    if image.stale:
        await image.fresh()
    ids = [image.snap.info.id] if image.snap is not None else list(image.snapc.ids)
    found: list[Relative] = []
    for snap in ids:
        found += [child async for child in children_of(image.io, image.id, snap)]
    return sorted(found, key=lambda child: (child.pool_name, child.pool_namespace, child.image_name))


async def children_of(io: Io, identifier: str, snap: int) -> AsyncIterator[Relative]:
    """The clones of one snapshot, of either format. An image of format 1, without an id, has none."""
    if not identifier:
        return
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
    # An image may be said to descend from itself.
    seen = {(image.io.pool_id, image.io.namespace, image.id)}
    pending = await children(image)
    while pending:
        child = pending.pop(0)
        found.append(child)
        key = (child.pool_id, child.pool_namespace, child.image_id)
        if key in seen:
            continue
        seen.add(key)
        io = image.io.cluster.io(child.pool_id, child.pool_namespace)
        _, header = await headers.read(io, child.image_id, read_only=True)
        for snap in header.snapc.ids:
            pending += [grandchild async for grandchild in children_of(io, child.image_id, snap)]
    return found
