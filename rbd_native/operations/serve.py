"""What the owner of an image's lock does for clients that ask: one row a message."""

from __future__ import annotations

from rbd_native.image.context import ImageContext
from rbd_native.image.requests import Perform, Report
from rbd_native.operations import features, metadata, rebuild_object_map, rename, resize, sparsify
from rbd_native.operations.progress import Progress
from rbd_native.watch_notify import Message, MetadataUpdate, RebuildObjectMap, Rename, Resize, Sparsify, UpdateFeatures


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
    await features.update(image, message.features, enabled=message.enabled)


SERVED: dict[type[Message], Perform] = {
    Resize: _resize,
    Rename: _rename,
    MetadataUpdate: _metadata,
    RebuildObjectMap: _rebuild,
    Sparsify: _sparsify,
    UpdateFeatures: _update_features,
}
