"""Give an image another name.

The new name's id object is made first and the old one's removed last; the directory, which decides, changes in one step
in between. A client that dies leaves one name more that leads to the same id, never one less.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Coroutine
from typing import Any

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional, mutate
from rbd_native.engine import gather
from rbd_native.image.context import ImageContext
from rbd_native.operations import erase, rename_old
from rbd_native.rados.port import Create, RadosError, Remove
from rbd_native.watch_notify import Rename


async def rename(image: ImageContext, destination: str) -> None:
    """EEXIST where the new name is taken (be it by this image), EROFS, EINVAL for "" (but for format 1)."""
    if image.old_format:
        await rename_old.rename(image, destination)
        await image.changed()
        return
    if destination:
        await headers.unused(image.io, destination)
    if image.stale:
        await image.fresh()
    if image.read_only:  # as one that is primary at another site is
        raise RadosError(errno.EROFS, image.name)
    if not destination:
        raise RadosError(errno.EINVAL, "an image needs a name")
    await image.requests.carry_out(
        lambda request: Rename(destination, request), lambda: apply(image, destination), done_before=errno.EEXIST
    )


async def apply(image: ImageContext, destination: str) -> None:
    """What whoever owns the image does for :func:`rename`. An image without a lock may be renamed by others meanwhile: then
    it is that name that it loses."""
    io = image.io
    while True:
        looking: list[Coroutine[Any, Any, Any]] = []
        looking.append(call(io, names.DIRECTORY, cls_rbd.dir_get_name(image.id)))
        looking.append(headers.unused(io, destination))
        source, _ = await gather(looking, 2)
        await io.write(names.image_id(destination), [Create(), cls_rbd.set_id(image.id).step])
        try:
            await mutate(io, names.DIRECTORY, cls_rbd.dir_rename_image(source, destination, image.id))
        except RadosError as error:
            if error.unanswered:  # the directory may lead there by now
                raise
            with contextlib.suppress(RadosError):  # the reason is the error above; a spare id object does no harm
                await io.write(names.image_id(destination), [Remove()])
            now = await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_name(image.id), source)
            if error.errno != errno.ENOENT or now == source:
                raise
        else:
            break
    await erase.gone(io, names.image_id(source))
    image.moved(destination)
