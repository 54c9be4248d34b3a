"""List the images of a pool and namespace."""

from __future__ import annotations

from rbd_native import header as headers
from rbd_native import header_v1
from rbd_native.rados.port import Io
from rbd_native.types import TrashImageSource


async def images(io: Io) -> list[tuple[str, str]]:
    """(name, id) of every image a user sees: format 1 first (their id is ""), then the others by name.

    An image whose removal was begun and not finished is one of them: its name still stands until it is gone.
    """
    listed = {name: identifier async for name, identifier in headers.directory(io)}
    async for identifier, spec in headers.trash(io):
        if spec.source == TrashImageSource.REMOVING:
            listed.setdefault(spec.name, identifier)
    ordered = sorted(listed.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape"))
    return [(name, "") for name in await header_v1.directory(io)] + ordered
