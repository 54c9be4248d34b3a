"""Give an image another name.

The new name's id object is made first and the old one's removed last; the directory, which decides, changes in one step
in between. A client that dies leaves one name more that leads to the same id, never one less.
"""

from __future__ import annotations

import contextlib
import errno

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import mutate
from rbd_native.image.context import open_image
from rbd_native.rados.port import Create, Io, RadosError, Remove


async def rename(io: Io, source: str, destination: str) -> None:
    """ENOENT without the image, EEXIST where the new name is taken (be it by this image), EINVAL for ""."""
    image = await open_image(io, name=source)
    try:
        if not destination:
            raise RadosError(errno.EINVAL, "an image needs a name")
        for oid in (names.old_header(destination), names.image_id(destination)):
            if await headers.exists(io, oid):
                raise RadosError(errno.EEXIST, destination)
        await io.write(names.image_id(destination), [Create(), cls_rbd.set_id(image.id).step])
        try:
            await mutate(io, names.DIRECTORY, cls_rbd.dir_rename_image(source, destination, image.id))
        except RadosError:
            with contextlib.suppress(RadosError):  # the reason is the error above; a spare id object does no harm
                await io.write(names.image_id(destination), [Remove()])
            raise
        await io.write(names.image_id(source), [Remove()])
    finally:
        await image.close()
