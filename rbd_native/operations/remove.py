"""Remove an image by its name: out of the directory into the trash first, and from there for good.

Once it is in the trash, marked as being removed, its name still shows in the list but nothing opens it by name. A
client that dies at any later point leaves it there, and removing the name again goes on where that ended. Options of the
pool may have it stay in the trash, for a time, or for as long as clones need it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Coroutine, Mapping
from typing import Any

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call_optional
from rbd_native.engine import gather
from rbd_native.image.context import ImageContext
from rbd_native.operations import erase, mirror_image, old_format, trash
from rbd_native.operations.progress import Progress
from rbd_native.options import Settings
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import TrashImageSource, TrashImageSpec, TrashImageState

_OURS = (TrashImageSource.REMOVING,)
_KEPT = (TrashImageSource.USER, TrashImageSource.USER_PARENT)


async def remove(io: Io, name: str, progress: Progress | None = None) -> None:
    """ENOENT, ENOTEMPTY (snapshots), EBUSY (open elsewhere), EMLINK (in a group), EINVAL (primary at another site)."""
    reading: list[Coroutine[Any, Any, Any]] = [
        call_optional(io, names.DIRECTORY, cls_rbd.dir_get_id(name), None),
        headers.pool_config(io),
    ]
    identifier, pool_config = await gather(reading, len(reading))
    if identifier is None:
        found = await _half_removed(io, name)
        if found is None:
            await old_format.remove(io, name, progress)
            return
        identifier, spec = found
        if spec.source != TrashImageSource.REMOVING:
            await trash.unhook(io, name, identifier, spec.source)
            return
        if spec.state != TrashImageState.RESTORING:
            await _to_its_end(io, name, identifier, spec, progress)
            return
        await trash.restore(io, identifier, name, _OURS)  # a removal that failed was being undone: it is begun anew
    settings = Settings(io.cluster.conf_get, pool_config)
    async with contextlib.AsyncExitStack() as closing:
        image = await _opened(io, identifier, name, pool_config)
        if image is not None:
            closing.push_async_callback(image.close)
        source = await _where_to(image, settings)
        if source == TrashImageSource.REMOVING:
            # It stays open meanwhile: whoever has opened it by its name until now is seen, nobody can from then on.
            notice = await trash.unhook(io, name, identifier, source, quietly=True)
            closing.pop_all()
            ending: list[Coroutine[Any, Any, Any]] = [
                erase.announce(io, notice),
                _for_good(io, name, identifier, image, progress),
            ]
            await gather(ending, len(ending))
            return
    delay = settings.integer("rbd_move_to_trash_on_remove_expire_seconds") if source == TrashImageSource.USER else 0
    await trash.unhook(io, name, identifier, source, delay)


async def _half_removed(io: Io, name: str) -> tuple[str, TrashImageSpec] | None:
    """An image of this name whose removal was begun, if only by moving it to the trash: nothing else can be done with it
    until it has arrived there. (librbd does not find that; it has no end for one that waits there for clones.)"""
    async for identifier, spec in headers.trash(io):
        arriving = spec.state == TrashImageState.MOVING and spec.source in _KEPT
        if spec.name == name and (arriving or spec.source == TrashImageSource.REMOVING):
            return identifier, spec
    return None


async def _to_its_end(
    io: Io, name: str, identifier: str, spec: TrashImageSpec, progress: Progress | None
) -> None:
    if spec.state == TrashImageState.MOVING:
        await trash.unhook(io, name, identifier, TrashImageSource.REMOVING)
    await trash.remove(io, identifier, force=True, progress=progress)


async def _opened(io: Io, identifier: str, name: str, pool_config: Mapping[str, bytes]) -> ImageContext | None:
    """None where it has no header: left behind by a create that did not finish."""
    try:
        return await trash.opened(io, identifier, name, pool_config)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


async def _where_to(image: ImageContext | None, settings: Settings) -> TrashImageSource:
    """What the image is put into the trash for: to be removed at once, unless an option says otherwise."""
    keep = settings.flag("rbd_move_to_trash_on_remove")
    if image is None:
        return TrashImageSource.USER if keep else TrashImageSource.REMOVING
    if keep:
        await trash.make_ready(image)
        return TrashImageSource.USER
    source = TrashImageSource.REMOVING
    free, record = await erase.looked_at(image)
    if not free:
        source = TrashImageSource.USER_PARENT
        if not settings.flag("rbd_move_parent_to_trash_on_remove"):
            raise RadosError(errno.ENOTEMPTY, f"image {image.name} has clones")
    if record is not None:
        await mirror_image.end(image, force=False)
    return source


async def _for_good(
    io: Io, name: str, identifier: str, image: ImageContext | None, progress: Progress | None
) -> None:
    try:
        await erase.finish(io, identifier, image, progress, erase.Stage.TAKEN)
    except erase.Needed:
        # Somebody came in between, and it is whole: it gets its name back, if that is still to be had.
        with contextlib.suppress(RadosError):
            await trash.restore(io, identifier, name, _OURS)
        raise
