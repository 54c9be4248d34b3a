"""Give an image of format 1 another name: its header is named after it.

The new header is made first and the old one removed last; the directory changes in one step in between. A client that
dies leaves headers under both names, of one and the same image. The directory says which of them counts, and renaming once
more from the one name to the other goes on where that ended.

Where librbd 16 renames, the image's metadata, its limit of snapshots and its locks are lost; here they go along.
"""

from __future__ import annotations

import contextlib
from typing import Final

from rbd_native import format1, header_v1, names
from rbd_native import header as headers
from rbd_native.encoding import DecodeError
from rbd_native.image.context import ImageContext
from rbd_native.operations import erase
from rbd_native.rados.port import Create, GetXattr, Io, OmapGet, OmapSet, RadosError, Read, SetXattr, WriteFull, WriteStep

_LOCK: Final = f"lock.{names.LOCK_NAME}"
_PAGE = 1024


async def rename(image: ImageContext, destination: str) -> None:
    """EEXIST where the new name is taken (be it by this image)."""
    io, source = image.io, image.name
    left_over = await _left_over(image, destination)
    if not left_over:
        await headers.unused(io, destination)
    await image.watch.let_go()
    try:
        if not left_over or source in await header_v1.directory(io):
            await _copy_header(io, source, destination, over=left_over)
            await _relist(io, source, destination)
        await erase.gone(io, names.old_header(source))
        image.moved(destination)
    finally:
        await image.watch.register()


async def _left_over(image: ImageContext, destination: str) -> bool:
    """Whether the new name has a header of this very image, from an attempt that did not end."""
    if destination == image.name:
        return False
    reply = await image.io.read(names.old_header(destination), [Read(0, 0)]).bare()
    if reply.rv < 0:
        return False
    try:
        return format1.parse_header(reply.outs[0]).prefix == image.fixed.prefix
    except DecodeError:
        return False


async def _relist(io: Io, source: str, destination: str) -> None:
    try:
        await header_v1.relist(io, add=destination, remove=source)
    except RadosError as error:
        if not error.unanswered:
            with contextlib.suppress(RadosError):  # the reason is the error above; the same rename goes on from here
                await erase.gone(io, names.old_header(destination))
        raise


async def _copy_header(io: Io, source: str, destination: str, *, over: bool) -> None:
    """In one step, with all that users and locks have put there. `over`: another may be there already."""
    oid = names.old_header(source)
    reply = await io.read(oid, [Read(0, 0)])
    steps: list[WriteStep] = [Create(exclusive=not over), WriteFull(reply.outs[0])]
    lock = await io.read(oid, [GetXattr(_LOCK)]).bare()
    if lock.rv >= 0:
        steps.append(SetXattr(_LOCK, lock.outs[0]))
    after, more = b"", True
    while more:
        (page,) = (await io.read(oid, [OmapGet(after, _PAGE)])).outs
        if page.values:
            steps.append(OmapSet(page.values))
            after = max(page.values)
        more = page.more
    await io.write(names.old_header(destination), steps)
