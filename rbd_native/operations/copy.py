"""Copy what an image holds now, or held at a snapshot, into a new image; holes stay holes.

The copy belongs to nobody's family and has no snapshots. What the caller leaves open is as the source has it.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native import header as headers
from rbd_native.cls_client import mutate
from rbd_native.constants import RBD_FEATURES_IMPLICIT
from rbd_native.engine import for_each
from rbd_native.image import io as writing
from rbd_native.image.context import ImageContext
from rbd_native.image.reading import find
from rbd_native.operations import create
from rbd_native.operations.clone import inherit
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.rados.port import Io, RadosError
from rbd_native.zeros import filled_runs

_PIECE = 4 << 20
_BLOCK = 4096


async def copy(
    source: ImageContext, io: Io, name: str, wish: create.Wish, progress: Progress | None = None
) -> None:
    """`wish.size` is the source's to say. EEXIST, EINVAL (name), and what :func:`create.create` refuses.

    Where it fails halfway, the copy stays, for whoever wants to look at it or remove it.
    """
    if source.stale:
        await source.fresh()
    if not name:
        raise RadosError(errno.EINVAL, "an image needs a name")
    wish = inherit(source, wish, source.header.features & ~RBD_FEATURES_IMPLICIT)
    identifier = await create.create(io, name, wish)
    target = await open_image(io, identifier=identifier)
    try:
        await copy_metadata(source, target)
        await _copy_data(source, target, progress or Progress())
        await writing.flush(target)
    finally:
        await target.close()


async def copy_metadata(source: ImageContext, target: ImageContext) -> None:
    """The pairs and options of the source."""
    metadata = await headers.metadata(source.io, source.header_oid)
    if metadata:
        await mutate(target.io, target.header_oid, cls_rbd.metadata_set(metadata))
        target.invalidate()


async def _copy_data(source: ImageContext, target: ImageContext, progress: Progress) -> None:
    size = source.size
    done = 0

    async def piece(offset: int) -> None:
        nonlocal done
        data = await find(source, offset, min(_PIECE, size - offset))
        view = memoryview(data)
        for start, end in filled_runs(data, _BLOCK):
            await writing.write(target, offset + start, view[start:end])
        progress.update(done, size)
        done += min(_PIECE, size - offset)

    depth = source.settings.integer("rbd_concurrent_management_ops")
    await for_each(map(piece, range(0, size, _PIECE)), depth)
