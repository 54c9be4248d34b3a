"""Make a clone independent of its parent: every object it does not have yet gets the parent's data.

Then the bond is cut, the parent's side first: a client that dies in between leaves a clone that has all it needs and still
knows its parent, and flattening it again ends it. Where snapshots of the clone still show the parent's data (it was made
without deep-flatten), the bond stays for their sake.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.cls_client import mutate
from rbd_native.constants import RBD_FEATURE_DEEP_FLATTEN
from rbd_native.engine import for_each
from rbd_native.image.context import ImageContext
from rbd_native.image.copyup import copyup, has_parent_at
from rbd_native.object_map import ObjectState
from rbd_native.operations import family
from rbd_native.operations.progress import Progress
from rbd_native.rados.port import RadosError, Stat
from rbd_native.types import ParentImageSpec
from rbd_native.watch_notify import Flatten


async def flatten(image: ImageContext, progress: Progress | None = None) -> None:
    """EINVAL without a parent, EROFS."""
    if image.stale:
        await image.fresh()
    if image.frozen:
        raise RadosError(errno.EROFS, image.name)
    _parent(image)
    await image.requests.carry_out(
        Flatten,
        lambda: apply(image, progress),
        progress.update if progress is not None else None,
        done_before=errno.EINVAL,
    )


def _parent(image: ImageContext) -> ParentImageSpec:
    if image.header.parent is None or not image.header.parent_overlap:
        raise RadosError(errno.EINVAL, f"image {image.name} has no parent")
    return image.header.parent


async def apply(image: ImageContext, progress: Progress | None = None) -> None:
    """What whoever owns the image does for :func:`flatten`."""
    spec = _parent(image)
    report = progress or Progress()
    # Beyond the end of the image nothing is missing: shrinking has given the snapshots their own.
    count = image.layout.object_count(min(image.header.size, image.widest_overlap))
    done = 0

    async def step(objectno: int) -> None:
        nonlocal done
        if has_parent_at(image, objectno) and not await _exists(image, objectno):
            await copyup(image, objectno, ())
        report.update(done, count)
        done += 1

    await for_each(map(step, range(count)), image.settings.integer("rbd_concurrent_management_ops"))
    if image.header.features & RBD_FEATURE_DEEP_FLATTEN or not any(s.parent_overlap for s in image.header.snapshots):
        await family.detach(image, spec)
    await mutate(image.io, image.header_oid, cls_rbd.parent_detach())
    await image.changed()
    await family.sweep(image, spec)


async def _exists(image: ImageContext, objectno: int) -> bool:
    keeper = image.head_map
    if keeper is not None and keeper.trusted:
        return keeper.bits[objectno] is not ObjectState.NONEXISTENT
    reply = await image.data_io.read(image.object_name(objectno), [Stat()]).bare()
    return reply.rv == 0
