"""List the images of a pool and namespace."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from rbd_native import header as headers
from rbd_native import header_v1
from rbd_native.rados.port import Io
from rbd_native.types import TrashImageSource

_Entry = tuple[str, str]
"""Name and id."""


async def images(io: Io) -> list[_Entry]:
    """(name, id) of every image a user sees: format 1 first (their id is ""), then the others by name.

    An image whose removal was begun and not finished is one of them: its name still stands until it is gone.
    """
    listed = {name: identifier async for name, identifier in headers.directory(io)}
    ordered = sorted((await _removing(io) | listed).items(), key=_place)
    return [(name, "") for name in await header_v1.directory(io)] + ordered


async def walk(io: Io) -> AsyncGenerator[_Entry, None]:
    """The same, a page of the directory at a time: what changes meanwhile may be listed or not.

    What is kept is a page, the images that are being removed, and the names of those of format 1, which are one object.
    """
    for name in await header_v1.directory(io):
        yield name, ""
    removing = deque(sorted((await _removing(io)).items(), key=_place))
    async with aclosing(headers.directory(io)) as directory:
        async for entry in directory:
            while removing and _place(removing[0]) <= _place(entry):
                other = removing.popleft()
                if other[0] != entry[0]:
                    yield other
            yield entry
    for other in removing:
        yield other


async def _removing(io: Io) -> dict[str, str]:
    """The ids of the images that are being removed, by name; of those that had the same one, the first one's."""
    found: dict[str, str] = {}
    async for identifier, spec in headers.trash(io):
        if spec.source == TrashImageSource.REMOVING:
            found.setdefault(spec.name, identifier)
    return found


def _place(entry: _Entry) -> bytes:
    return entry[0].encode("utf-8", "surrogateescape")
