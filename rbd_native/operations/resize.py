"""Change the size of an image.

Growing is one step. Shrinking first gives up the data beyond the new end, the whole objects and then the tails of those
that remain, and only then lowers the size: a client that dies in between leaves an image of the old size whose end
reads as zeros, and doing it again finishes it. No write overlaps a resize, and none goes by
the old size after it, also where it fails and may have been done all the same.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from itertools import chain

from rbd_native import cls_rbd, header_v1
from rbd_native.constants import RBD_FEATURE_OBJECT_MAP, RBD_MAX_OBJECT_MAP_OBJECTS
from rbd_native.engine import for_each
from rbd_native.image.context import ImageContext
from rbd_native.image.copyup import secure
from rbd_native.image.exclusion import Operation
from rbd_native.object_map import ObjectState
from rbd_native.operations.presence import candidates
from rbd_native.operations.progress import Progress
from rbd_native.rados.port import RadosError, Remove, Truncate, WriteStep, Zero
from rbd_native.striping import Layout
from rbd_native.watch_notify import Resize


async def resize(
    image: ImageContext, size: int, *, allow_shrink: bool = True, progress: Progress | None = None
) -> None:
    """Set the size in bytes. EINVAL where it would shrink and may not, or needs too large an object map; EROFS."""
    if image.stale:
        await image.fresh()
    check_map(image, size)
    if size == image.header.size and not image.snap_gone:
        return
    if image.frozen:
        raise RadosError(errno.EROFS, image.name)
    if size < image.header.size and not allow_shrink:
        raise RadosError(errno.EINVAL, "the image would shrink")
    await image.requests.carry_out(
        lambda request: Resize(size, request, allow_shrink),
        lambda: apply(image, size, allow_shrink=allow_shrink, progress=progress),
        progress.update if progress is not None else None,
    )


def check_map(image: ImageContext, size: int) -> None:
    """EINVAL where the image keeps an object map, and one of that size in bytes has too many objects for it."""
    objects = image.layout.object_count(size)
    if image.header.features & RBD_FEATURE_OBJECT_MAP and objects > RBD_MAX_OBJECT_MAP_OBJECTS:
        raise RadosError(errno.EINVAL, f"{objects} objects are too many for an object map")


async def apply(
    image: ImageContext, size: int, *, allow_shrink: bool, progress: Progress | None = None
) -> None:
    """What whoever owns the image does for :func:`resize`."""
    async with image.alone(Operation.RESIZE):
        if size < image.header.size and not allow_shrink:
            raise RadosError(errno.EINVAL, "the image would shrink")
        check_map(image, size)
        if size == image.header.size:
            return
        async with image.writes_blocked():
            await set_size(image, size, progress)
        await image.changed()


async def set_size(image: ImageContext, size: int, progress: Progress | None = None) -> None:
    """The steps of it, with writes blocked."""
    objects, keeper, before = image.layout.object_count(size), image.head_map, image.header.size
    if size < before:
        await trim(image, size, before, progress)
    elif keeper is not None:
        await keeper.resize(objects)  # a map that is longer than need be does no harm
    step = header_v1.set_size(size) if image.old_format else cls_rbd.set_size(size).step
    await image.io.write(image.header_oid, [step])
    if size < before and keeper is not None:
        await keeper.resize(objects)


async def trim(
    image: ImageContext,
    size: int,
    old_size: int,
    progress: Progress | None = None,
    *,
    mark: bool = True,
) -> None:
    """Give up all data between `size` and `old_size`. The caller sees to it that nobody writes there meanwhile.

    Without `mark`, the map keeps saying that there are objects: where it goes as well.
    """
    layout = image.layout
    kept, count = layout.object_count(size), layout.object_count(old_size)
    keeper = image.head_map
    report = progress or Progress()

    async def shorten(objectno: int, place: int) -> None:
        left, end = layout.object_extent_in(size, objectno), layout.object_extent_in(old_size, objectno)
        await _cut(image, objectno, left, end)
        report.update(place, total)

    async def remove(objectno: int) -> None:
        if image.snapc.ids:
            await _cut(image, objectno, 0, 0)
        else:  # which comes to this
            oid = image.object_name(objectno)
            reply = await image.data_io.write(oid, (Remove(),), snapc=image.snapc).bare()
            if reply.rv < 0 and reply.rv != -errno.ENOENT:
                raise RadosError(-reply.rv, oid, reply)
        report.update(objectno - kept, total)

    # Only the last object set that remains can have objects with a tail beyond the end.
    last_set = max(kept - 1, 0) // layout.stripe_count * layout.stripe_count
    cut = array("Q")
    cut.extend(n for n in await _concerned(image, last_set, kept) if _has_tail(layout, n, size, old_size))
    total = len(cut) + count - kept
    if total:
        report.update(0, total)
    depth = image.settings.integer("rbd_concurrent_management_ops")
    if keeper is not None and mark:
        await keeper.update_range(kept, count, ObjectState.PENDING, ObjectState.EXISTS)
    await for_each((remove(number) for number in await _concerned(image, kept, count)), depth)
    if keeper is not None and mark:
        await keeper.update_range(kept, count, ObjectState.NONEXISTENT, ObjectState.PENDING)
    await for_each((shorten(number, count - kept + place) for place, number in enumerate(cut)), depth)


def _has_tail(layout: Layout, objectno: int, size: int, old_size: int) -> bool:
    return layout.object_extent_in(size, objectno) < layout.object_extent_in(old_size, objectno)


async def _concerned(image: ImageContext, start: int, end: int) -> Iterator[int]:
    """The objects of a range that may be there, or that snapshots need: see :func:`_cut`."""
    needed = start
    if image.parent is not None and image.snapc.ids:
        needed = min(max(image.layout.object_count(image.header.parent_overlap), start), end)
    return chain(range(start, needed), await candidates(image, needed, end))


async def _cut(image: ImageContext, objectno: int, left: int, end: int) -> None:
    """Leave only the first `left` bytes of an object of which `end` were in use; remove it where none is left.

    Truncation would grow an object that ends before: it is for those that were in use to their very end. Where a
    snapshot shows the parent's data through an object that is missing, the object gets it first: a later flatten looks at
    what is left of the head alone.
    """
    brought = bool(image.snapc.ids) and await secure(image, objectno)
    if left and image.head_map is not None and image.head_map.may_exist(objectno):
        await image.head_map.will_write(objectno)
    oid = image.object_name(objectno)
    step: WriteStep = Remove()
    if left:
        step = Truncate(left) if end == image.layout.object_size else Zero(left, end - left)
    reply = await image.data_io.write(oid, [step], snapc=image.snapc).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, oid, reply)
    if brought and not left and image.head_map is not None:
        await image.head_map.update(objectno, ObjectState.NONEXISTENT, ObjectState.EXISTS)
