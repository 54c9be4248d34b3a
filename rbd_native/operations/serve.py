"""What the owner of an image's lock does for clients that ask: one row a message."""

from __future__ import annotations

from rbd_native.image.context import ImageContext
from rbd_native.image.requests import Perform, Report
from rbd_native.operations import (
    features,
    flatten,
    metadata,
    rebuild_object_map,
    rename,
    resize,
    snap_remove,
    snapshots,
    sparsify,
)
from rbd_native.operations.progress import Progress
from rbd_native.watch_notify import (
    Flatten,
    Message,
    MetadataUpdate,
    RebuildObjectMap,
    Rename,
    Resize,
    SnapCreate,
    SnapProtect,
    SnapRemove,
    SnapRename,
    SnapUnprotect,
    Sparsify,
    UpdateFeatures,
)


async def _resize(image: ImageContext, message: Resize, report: Report) -> None:
    await resize.apply(image, message.size, allow_shrink=message.allow_shrink, progress=Progress(report))


async def _rename(image: ImageContext, message: Rename, report: Report) -> None:
    await rename.apply(image, message.name)


async def _metadata(image: ImageContext, message: MetadataUpdate, report: Report) -> None:
    if message.value is None:
        await metadata.take_out(image, message.key)
    else:
        await metadata.write_in(image, message.key, message.value.encode("utf-8", "surrogateescape"))


async def _rebuild(image: ImageContext, message: RebuildObjectMap, report: Report) -> None:
    await rebuild_object_map.apply(image, Progress(report))


async def _sparsify(image: ImageContext, message: Sparsify, report: Report) -> None:
    await sparsify.apply(image, message.sparse_size, Progress(report))


async def _update_features(image: ImageContext, message: UpdateFeatures, report: Report) -> None:
    await features.apply(image, message.features, enabled=message.enabled)


async def _flatten(image: ImageContext, message: Flatten, report: Report) -> None:
    await flatten.apply(image, Progress(report))


async def _snap_create(image: ImageContext, message: SnapCreate, report: Report) -> None:
    await snapshots.apply_create(image, message.name, message.namespace, message.flags)


async def _snap_remove(image: ImageContext, message: SnapRemove, report: Report) -> None:
    await snap_remove.apply_remove(image, message.name, message.namespace)


async def _snap_rename(image: ImageContext, message: SnapRename, report: Report) -> None:
    await snapshots.apply_rename(image, message.snap_id, message.name)


async def _snap_protect(image: ImageContext, message: SnapProtect, report: Report) -> None:
    await snapshots.protect(image, message.name)


async def _snap_unprotect(image: ImageContext, message: SnapUnprotect, report: Report) -> None:
    await snapshots.unprotect(image, message.name)


SERVED: dict[type[Message], Perform] = {
    Resize: _resize,
    Rename: _rename,
    MetadataUpdate: _metadata,
    RebuildObjectMap: _rebuild,
    Sparsify: _sparsify,
    UpdateFeatures: _update_features,
    Flatten: _flatten,
    SnapCreate: _snap_create,
    SnapRemove: _snap_remove,
    SnapRename: _snap_rename,
    SnapProtect: _snap_protect,
    SnapUnprotect: _snap_unprotect,
}
