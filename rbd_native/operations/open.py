"""Open an image, by name or by id."""

from __future__ import annotations

import errno
from collections.abc import Coroutine, Mapping
from typing import Any

from rbd_native import header as headers
from rbd_native import names
from rbd_native.engine import gather
from rbd_native.image.context import ImageContext
from rbd_native.image.gathering import Gathering
from rbd_native.image.io import apply
from rbd_native.image.readahead import ReadAhead
from rbd_native.image.reading import read_now
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
    pool_config: Mapping[str, bytes] | None = None,
) -> ImageContext:
    """What is known of its name, its id and the options of the pool need not be looked up. RadosError ENOENT, or ENOSYS for
    what this release does not keep up yet."""
    if name is None or identifier is None or pool_config is None:
        reading: list[Coroutine[Any, Any, Any]] = [_named(io, name, identifier), headers.pool_config(io)]
        (name, identifier), pool_config = await gather(reading, 2)
    image = ImageContext(io, identifier, name, SERVED, read_only=read_only)
    image.serves_mirroring = int(serves_mirroring)
    await image.open(snapshot, pool_config, with_parent=with_parent)
    image.cache = WriteCache.of(image, apply)
    image.gathering = Gathering.of(image, apply)
    image.ahead = ReadAhead.of(image, read_now)
    if image.ahead is not None:
        image.gate.tell(image.ahead.changed)
    return image


async def _named(io: Io, name: str | None, identifier: str | None) -> tuple[str, str]:
    """The name and the id, of which one is known at least."""
    if identifier is None:
        assert name is not None
        return name, await _identify(io, name)
    return name if name is not None else await headers.name_of(io, identifier), identifier


async def _identify(io: Io, name: str) -> str:
    """The id; "" for an image of format 1."""
    try:
        return await headers.id_of(io, name)
    except RadosError as error:
        if error.errno == errno.ENOENT and await headers.exists(io, names.old_header(name)):
            return ""
        raise
