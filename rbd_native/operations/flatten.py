"""Make a clone independent of its parent: every object it does not have yet gets the parent's data.

Then the bond is cut, the parent's side first: a client that dies in between leaves a clone that has all it needs and still
knows its parent, and flattening it again ends it. Where snapshots of the clone go on depending on the parent (it was made
without deep-flatten), the parent's side stays for their sake.

Several clients may flatten one clone at the same time: whoever comes second to a step finds it done.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.cls_client import call
from rbd_native.constants import RBD_FEATURE_DEEP_FLATTEN
from rbd_native.engine import for_each
from rbd_native.image import io
from rbd_native.image.context import ImageContext
from rbd_native.image.copyup import secure
from rbd_native.image.exclusion import Operation
from rbd_native.operations import bond, family, snap_remove
from rbd_native.operations.presence import shared
from rbd_native.operations.progress import Progress
from rbd_native.rados.port import HEAD, RadosError
from rbd_native.types import ParentImageSpec
from rbd_native.watch_notify import Flatten


async def flatten(image: ImageContext, progress: Progress | None = None) -> None:
    """EINVAL without a parent, EROFS."""
    if image.stale:
        await image.fresh()
    if not image.read_only:
        _parent(image)
    if image.frozen:
        raise RadosError(errno.EROFS, image.name)
    try:
        await image.requests.carry_out(
            Flatten, lambda: apply(image, progress), progress.update if progress is not None else None
        )
    except RadosError as error:
        if error.errno != errno.EINVAL or await _has_parent(image):
            raise
        # It had one when this began: somebody else was sooner.


async def _has_parent(image: ImageContext) -> bool:
    """By what the header says now."""
    return await call(image.io, image.header_oid, cls_rbd.parent_overlap_get(HEAD)) is not None


def _parent(image: ImageContext) -> ParentImageSpec:
    if image.header.parent is None or not image.header.bound:
        raise RadosError(errno.EINVAL, f"image {image.name} has no parent")
    return image.header.parent


async def apply(image: ImageContext, progress: Progress | None = None) -> None:
    """What whoever owns the image does for :func:`flatten`."""
    async with image.alone(Operation.FLATTEN):
        spec = _parent(image)
        await _copy(image, progress or Progress())
        async with image.alone(Operation.DETACH_PARENT):
            free = bool(image.header.features & RBD_FEATURE_DEEP_FLATTEN) or not image.header.snapshots
            if free:
                await bond.detach(image, spec)
            await _cut(image)
    if free:
        await snap_remove.sweep(image, spec)


async def _cut(image: ImageContext) -> None:
    try:
        await image.update_header(cls_rbd.parent_detach())
    except RadosError as error:
        if error.errno != errno.ENOENT:  # an image without a lock: another client was sooner
            raise
        await image.changed()


async def flatten_children(image: ImageContext, snap: int) -> None:
    """Make every clone of a snapshot independent."""
    for child in [child async for child in family.children_of(image.io, image.id, snap)]:
        io = image.io.cluster.io(child.pool_id, child.pool_namespace)
        opened = await image.open_relative(io, child.image_id)
        try:
            await flatten(opened)
        finally:
            await opened.close()


async def _copy(image: ImageContext, report: Progress) -> None:
    # Beyond the overlap nothing is missing: what snapshots need there they were given when the image shrank.
    count = image.layout.object_count(min(image.header.size, image.header.parent_overlap))

    async def step(objectno: int) -> None:
        epoch = await io.enter(image)  # as a write does: no snapshot can be taken in the middle of it
        try:
            await secure(image, objectno)
        finally:
            image.gate.leave(epoch)
        report.update(objectno, count)

    await for_each(map(step, await shared(image, count)), image.settings.integer("rbd_concurrent_management_ops"))
