"""Give back the space that zeros take."""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.engine import for_each
from rbd_native.image.context import ImageContext
from rbd_native.image.copyup import has_parent_at
from rbd_native.image.exclusion import Operation
from rbd_native.object_map import ObjectState
from rbd_native.operations.presence import candidates
from rbd_native.operations.progress import Progress
from rbd_native.rados.port import RadosError, Stat
from rbd_native.watch_notify import Sparsify

_SMALLEST = 4096


async def sparsify(image: ImageContext, sparse_size: int, progress: Progress | None = None) -> None:
    """Runs of zeros of at least `sparse_size` bytes (a power of two from 4096 to the object size) become holes, and
    objects that hold nothing else go. EINVAL, EROFS."""
    if image.stale:
        await image.fresh()
    _check(image, sparse_size)
    if image.frozen:
        raise RadosError(errno.EROFS, image.name)
    await image.requests.carry_out(
        lambda request: Sparsify(request, sparse_size),
        lambda: apply(image, sparse_size, progress),
        progress.update if progress is not None else None,
    )


def _check(image: ImageContext, sparse_size: int) -> None:
    power = sparse_size > 0 and not sparse_size & (sparse_size - 1)
    if not power or not _SMALLEST <= sparse_size <= image.layout.object_size:
        raise RadosError(errno.EINVAL, f"sparse size {sparse_size}")


async def apply(image: ImageContext, sparse_size: int, progress: Progress | None = None) -> None:
    """What whoever owns the image does for :func:`sparsify`."""
    async with image.alone(Operation.SPARSIFY):
        await _objects(image, sparse_size, progress)


async def _objects(image: ImageContext, sparse_size: int, progress: Progress | None) -> None:
    _check(image, sparse_size)
    report = progress or Progress()
    count = image.layout.object_count(image.header.size)

    async def step(objectno: int) -> None:
        await _object(image, objectno, sparse_size)
        report.update(objectno, count)

    if count:
        report.update(0, count)
    depth = image.settings.integer("rbd_concurrent_management_ops")
    await for_each(map(step, await candidates(image, 0, count)), depth)


async def _object(image: ImageContext, objectno: int, sparse_size: int) -> None:
    keeper = image.head_map
    if keeper is not None:
        if not keeper.may_exist(objectno):
            return
        await keeper.update(objectno, ObjectState.PENDING)
    oid = image.object_name(objectno)
    # An object of nothing but zeros must stay where it hides what the parent has there.
    request = cls_rbd.sparsify(sparse_size, not has_parent_at(image, objectno))
    reply = await image.data_io.write(oid, [request.step], snapc=image.snapc).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, oid, reply)
    if keeper is not None:
        left = await image.data_io.read(oid, [Stat()]).bare()
        if left.rv == -errno.ENOENT:
            await keeper.update(objectno, ObjectState.NONEXISTENT, ObjectState.PENDING)
        else:
            await keeper.update(objectno, ObjectState.EXISTS)
