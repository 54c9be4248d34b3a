"""Remove an image by its name: out of the directory into the trash first, and from there for good.

Once it is in the trash, marked as being removed, its name still shows in the list but nothing opens it by name. A
client that dies at any later point leaves it there, and removing the name again goes on where that ended. Options of the
pool may have it stay in the trash, for a time, or for as long as clones need it.
"""

from __future__ import annotations

import contextlib
import errno

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call_optional
from rbd_native.operations import erase, mirror_image, old_format, pool_metadata, trash
from rbd_native.operations.progress import Progress
from rbd_native.options import Settings
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import TrashImageSource, TrashImageSpec, TrashImageState

_OURS = (TrashImageSource.REMOVING,)


async def remove(io: Io, name: str, progress: Progress | None = None) -> None:
    """ENOENT, ENOTEMPTY (snapshots), EBUSY (open elsewhere), EMLINK (in a group), EINVAL (primary at another site)."""
    identifier = await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_id(name), None)
    if identifier is None:
        found = await _half_removed(io, name)
        if found is None:
            await old_format.remove(io, name, progress)
            return
        identifier, spec = found
        if spec.state != TrashImageState.RESTORING:
            await _to_its_end(io, name, identifier, spec, progress)
            return
        await trash.restore(io, identifier, name, _OURS)  # a removal that failed was being undone: it is begun anew
    settings = await pool_metadata.settings(io)
    source = await _where_to(io, identifier, settings)
    delay = 0
    if source == TrashImageSource.USER:
        delay = settings.integer("rbd_move_to_trash_on_remove_expire_seconds")
    await trash.unhook(io, name, identifier, source, delay)
    if source == TrashImageSource.REMOVING:
        await _for_good(io, name, identifier, progress)


async def _half_removed(io: Io, name: str) -> tuple[str, TrashImageSpec] | None:
    """An image of this name whose removal was begun."""
    async for identifier, spec in headers.trash(io):
        if spec.name == name and spec.source == TrashImageSource.REMOVING:
            return identifier, spec
    return None


async def _to_its_end(
    io: Io, name: str, identifier: str, spec: TrashImageSpec, progress: Progress | None
) -> None:
    if spec.state == TrashImageState.MOVING:
        await trash.unhook(io, name, identifier, TrashImageSource.REMOVING)
    await trash.remove(io, identifier, force=True, progress=progress)


async def _where_to(io: Io, identifier: str, settings: Settings) -> TrashImageSource:
    """What the image is put into the trash for: to be removed at once, unless an option says otherwise.

    One without a header, left behind by a create that did not finish, may go.
    """
    keep = settings.flag("rbd_move_to_trash_on_remove")
    try:
        image = await trash.opened(io, identifier)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return TrashImageSource.USER if keep else TrashImageSource.REMOVING
    try:
        if keep:
            await trash.make_ready(image)
            return TrashImageSource.USER
        source = TrashImageSource.REMOVING
        if not await erase.removable(image):
            source = TrashImageSource.USER_PARENT
            if not settings.flag("rbd_move_parent_to_trash_on_remove"):
                raise RadosError(errno.ENOTEMPTY, f"image {image.name} has clones")
        await mirror_image.end(image, force=False)
        return source
    finally:
        await image.close()


async def _for_good(io: Io, name: str, identifier: str, progress: Progress | None) -> None:
    try:
        await trash.remove(io, identifier, force=True, progress=progress)
    except erase.Needed:
        # Somebody came in between, and it is whole: it gets its name back, if that is still to be had.
        with contextlib.suppress(RadosError):
            await trash.restore(io, identifier, name, _OURS)
        raise
