"""Describe all images of a pool and namespace without opening them: what their headers say, and nothing else.

librbd can only open an image to look at it, which is a dozen round trips, one after the other. Here a header is one
compound read (a second one where it has snapshots, a third where it is striped), without a watch, without the parent, and
many are under way at once. So images are described too that could not be opened: those with features that this client does
not know or keep up, and those whose parent or data pool is gone.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from rbd_native import header as headers
from rbd_native import header_v1, names
from rbd_native.header import Fixed, Header
from rbd_native.operations import listing
from rbd_native.pipeline import in_order
from rbd_native.rados.port import Io, RadosError

WINDOW: Final = 32
"""So many headers are being read, or have been and wait for those before them, at most."""

_OF_THE_CLIENT: Final = (errno.ESHUTDOWN, errno.ENOTCONN)
"""They tell nothing of an image: the client is fenced, or its connection is closed."""


@dataclass(frozen=True, slots=True)
class Described:
    """An image; `identifier` is "" for format 1."""

    identifier: str
    name: str
    fixed: Fixed
    header: Header


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image whose header cannot be read; `code` is the errno that opening it gives, too."""

    identifier: str
    name: str
    code: int


async def describe(io: Io) -> AsyncGenerator[Described | Unreadable, None]:
    """Yield every image in the order of the list (``contextlib.aclosing`` for whoever may stop earlier).

    The list is read as it is needed; so an image that comes, goes or gets another name meanwhile may be left out, and one
    that is gone when its header is read is. Raises what keeps the list from being read.
    """
    async with aclosing(in_order(_reads(io), WINDOW)) as found:
        async for one in found:
            if one is not None:
                yield one


async def _reads(io: Io) -> AsyncGenerator[Coroutine[Any, Any, Described | Unreadable | None], None]:
    async with aclosing(listing.walk(io)) as entries:
        async for name, identifier in entries:
            yield _read(io, name, identifier)


async def _read(io: Io, name: str, identifier: str) -> Described | Unreadable | None:
    """None for an image that is not there any more."""
    oid = names.header(identifier) if identifier else names.old_header(name)
    if "\0" in oid:  # a damaged directory: no object is called so
        return Unreadable(identifier, name, errno.EINVAL)
    try:
        if identifier:
            fixed, header = await headers.read(io, identifier, read_only=True)
        else:
            fixed, header = await header_v1.read(io, name)
    except RadosError as error:
        if error.errno in _OF_THE_CLIENT:
            raise
        # A header that lacks something fails with the same errno as one that is not there.
        if error.errno == errno.ENOENT and not await headers.exists(io, oid):
            return None
        return Unreadable(identifier, name, error.errno)
    return Described(identifier, name, fixed, header)
