"""The state of an image as of a mirror snapshot: what the other site needs to know besides the data.

It is one stream of bytes, an :class:`ImageStateHeader` and an :class:`ImageState`, cut into objects
`rbd_mirror_snapshot.<id>.<snapshot>.<index>`. The first, which says how many there are, is written last and removed last:
as long as it is there all of them can be found.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call, mutate
from rbd_native.constants import RBD_FEATURES_IMPLICIT
from rbd_native.encoding import DecodeError, decode, encode
from rbd_native.header import metadata
from rbd_native.image.context import ImageContext
from rbd_native.operations import erase
from rbd_native.rados.port import Read, WriteFull
from rbd_native.types import ImageState, ImageStateHeader, SnapState, UserSnapshotNamespace

_INTERNAL = ".rbd"
"""What metadata of librbd's own begin with."""


async def write(image: ImageContext, snap: int) -> None:
    """Write the state for a primary snapshot, which is complete with that. ENOENT where the image is in the trash."""
    state = encode(await _state(image))
    size = 1 << image.settings.integer("rbd_default_order")
    length = len(encode(ImageStateHeader(0))) + len(state)
    count = 1 + length // size
    stream = encode(ImageStateHeader(count)) + state
    for index in reversed(range(count)):
        piece = stream[index * size : (index + 1) * size]
        await image.io.write(names.mirror_snapshot(image.id, snap, index), [WriteFull(piece)])
    await mutate(image.io, image.header_oid, cls_rbd.mirror_image_snapshot_set_copy_progress(snap, True, 0))


async def _state(image: ImageContext) -> ImageState:
    pairs = await metadata(image.io, image.header_oid)
    users = (s for s in image.header.snapshots if isinstance(s.info.namespace, UserSnapshotNamespace))
    return ImageState(
        name=await call(image.io, names.DIRECTORY, cls_rbd.dir_get_name(image.id)),
        features=image.header.features & ~RBD_FEATURES_IMPLICIT,
        snap_limit=await call(image.io, image.header_oid, cls_rbd.snapshot_get_limit()),
        snapshots={s.info.id: SnapState(s.info.namespace, s.info.name, s.protection) for s in users},  # type: ignore[arg-type]
        metadata={key: value for key, value in pairs.items() if not key.startswith(_INTERNAL)},
    )


async def remove(image: ImageContext, snap: int) -> None:
    """Also where there is none: snapshots that are not primary may have none."""
    reply = await image.io.read(names.mirror_snapshot(image.id, snap, 0), [Read(0, 0)]).bare()
    if reply.rv == -errno.ENOENT:
        return
    try:
        header: ImageStateHeader = decode(ImageStateHeader, reply.outs[0] if reply.rv == 0 else b"")
        count = max(header.object_count, 1)
    except DecodeError:
        count = 1
    for index in reversed(range(count)):
        await erase.gone(image.io, names.mirror_snapshot(image.id, snap, index))
