"""Clones and their parents: who descends from whom. How they are bound to each other: see :mod:`bond`.

Pools may be deleted and clones removed while this looks: a pool that is gone has no clones, and who is no clone any more is
none. But a clone that is nowhere to be found, and goes on being listed by its parent, is an error: ENOENT.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional
from rbd_native.image.context import ImageContext
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import ChildImageSpec

T = TypeVar("T")


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
    async for pool, ids in old_children_of(io, identifier, snap):
        for child in sorted(ids):
            found = await _unless_gone(relative(pool, child))
            if found is not None:
                yield found
            elif child in await _old_ids(pool, io, identifier, snap):
                raise RadosError(errno.ENOENT, f"clone {child}")
    for spec in await _specs(io, identifier, snap):
        there = place(io, spec.pool_id, spec.pool_namespace)
        if there is None:  # its pool was deleted, and nobody has told the parent
            yield Relative(spec.pool_id, "", spec.pool_namespace, spec.image_id, "", False)
            continue
        found = await _unless_gone(relative(there, spec.image_id))
        if found is not None:
            yield found
        elif spec in await _specs(io, identifier, snap):
            raise RadosError(errno.ENOENT, f"clone {spec.image_id}")


async def _specs(io: Io, identifier: str, snap: int) -> set[ChildImageSpec]:
    """The clones of format 2."""
    nothing: set[ChildImageSpec] = set()
    return await call_optional(io, names.header(identifier), cls_rbd.children_list(snap), nothing)


async def old_children_of(io: Io, identifier: str, snap: int) -> AsyncIterator[tuple[Io, set[str]]]:
    """The ids of the clones of format 1 of one snapshot, pool by pool."""
    pools: dict[int, str] = await io.cluster.pools()
    for pool in pools:
        there = place(io, pool, io.namespace)
        if there is not None and (ids := await _old_ids(there, io, identifier, snap)):
            yield there, ids


async def _old_ids(there: Io, io: Io, identifier: str, snap: int) -> set[str]:
    request = cls_rbd.get_children(io.pool_id, identifier, snap)
    nothing: set[str] = set()
    return await call_optional(there, names.CHILDREN, request, nothing, errno.ENOENT, errno.EOPNOTSUPP)


def place(io: Io, pool: int, namespace: str) -> Io | None:
    """Where another pool's images are; None where there is no such pool any more."""
    try:
        return io.cluster.io(pool, namespace)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


async def _unless_gone(looking: Coroutine[Any, Any, T]) -> T | None:
    try:
        return await looking
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


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
        pending += await _unless_gone(_children_of_all(image.io, child)) or []
    return found


async def _children_of_all(io: Io, child: Relative) -> list[Relative]:
    """Those of all snapshots of a clone."""
    there = io.cluster.io(child.pool_id, child.pool_namespace)
    _, header = await headers.read(there, child.image_id, read_only=True)
    return [found for snap in header.snapc.ids async for found in children_of(there, child.image_id, snap)]
