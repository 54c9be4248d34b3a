"""Open an image, by name or by id."""

from __future__ import annotations

import errno

from rbd_native import header as headers
from rbd_native import names
from rbd_native.image.context import ImageContext
from rbd_native.image.io import apply
from rbd_native.image.write_cache import WriteCache
from rbd_native.operations.serve import SERVED
from rbd_native.rados.port import Io, RadosError


async def open_image(
    io: Io,
    *,
    name: str | None = None,
    identifier: str | None = None,
    snapshot: str | int | None = None,
    read_only: bool = False,
    with_parent: bool = True,
    serves_mirroring: bool = False,
) -> ImageContext:
    """RadosError ENOENT, or ENOSYS for what this release does not keep up yet."""
    if identifier is None:
        assert name is not None
        identifier = await _identify(io, name)
    else:
        name = await headers.name_of(io, identifier)
    image = ImageContext(io, identifier, name, SERVED, read_only=read_only)
    image.serves_mirroring = int(serves_mirroring)
    await image.open(snapshot, with_parent=with_parent)
    image.cache = WriteCache.of(image, apply)
    return image


async def _identify(io: Io, name: str) -> str:
    """The id; "" for an image of format 1."""
    try:
        return await headers.id_of(io, name)
    except RadosError as error:
        if error.errno == errno.ENOENT and await headers.exists(io, names.old_header(name)):
            return ""
        raise
