"""Remove an image: out of the directory into the trash first, then its data, then its header.

Once it is in the trash, marked as being removed, its name still shows in the list but nothing opens it by name. A
client that dies at any later point leaves it there, and removing the name again goes on where that ended.
"""

from __future__ import annotations

import errno
import time
from dataclasses import replace

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional, mutate
from rbd_native.encoding import UTime
from rbd_native.image.context import ImageContext
from rbd_native.operations import bond, snapshots
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.operations.resize import trim
from rbd_native.rados.port import AssertExists, Io, ListWatchers, RadosError, Remove
from rbd_native.types import TrashImageSource, TrashImageSpec, TrashImageState
from rbd_native.watch_notify import trash_added, trash_removed

_NOTIFY_TIMEOUT_MS = 5000


async def remove(io: Io, name: str, progress: Progress | None = None) -> None:
    """ENOENT, ENOTEMPTY (snapshots), EBUSY (open elsewhere), EMLINK (in a group)."""
    identifier = await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_id(name), None)
    if identifier is None:
        identifier = await _half_removed(io, name)
    else:
        await _check_header(io, identifier)
        await _unhook(io, name, identifier)
    await finish(io, identifier, progress)


async def _half_removed(io: Io, name: str) -> str:
    """The id of an image of this name whose removal was begun. ENOENT; ENOSYS for format 1."""
    async for identifier, spec in headers.trash(io):
        if spec.name == name and spec.source == TrashImageSource.REMOVING:
            return identifier
    if name in await headers.old_directory(io):
        raise RadosError(errno.ENOSYS, f"image {name} has format 1")
    raise RadosError(errno.ENOENT, name)


async def _unhook(io: Io, name: str, identifier: str) -> None:
    """Move the image from the directory to the trash. Each step may have been done by somebody who then died."""
    now = UTime(*divmod(time.time_ns(), 10**9))
    spec = TrashImageSpec(TrashImageSource.REMOVING, name, now, now, TrashImageState.MOVING)
    try:
        await mutate(io, names.TRASH, cls_rbd.trash_add(identifier, spec))
    except RadosError as error:
        if error.errno != errno.EEXIST:
            raise
    await _gone(io, names.image_id(name))
    await mutate(io, names.DIRECTORY, cls_rbd.dir_remove_image(name, identifier))
    await _settle(io, identifier)
    notice = trash_added(identifier, replace(spec, state=TrashImageState.NORMAL))
    await io.notify(names.TRASH, notice, _NOTIFY_TIMEOUT_MS)


async def _settle(io: Io, identifier: str) -> None:
    await mutate(io, names.TRASH, cls_rbd.trash_state_set(identifier, TrashImageState.NORMAL, TrashImageState.MOVING))


async def _gone(io: Io, oid: str) -> None:
    """Remove an object that need not be there."""
    reply = await io.write(oid, [Remove()]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, oid)


async def finish(io: Io, identifier: str, progress: Progress | None = None) -> None:
    """Remove an image that is in the trash: its data, its header and what belongs to it, its entry last."""
    spec = await call(io, names.TRASH, cls_rbd.trash_get(identifier))
    if spec.state == TrashImageState.MOVING:
        await _settle(io, identifier)
    states = cls_rbd.trash_state_set(identifier, TrashImageState.REMOVING, TrashImageState.NORMAL)
    await mutate(io, names.TRASH, states)
    await _remove_data(io, identifier, progress)
    await _gone(io, names.header(identifier))
    await _gone(io, names.object_map(identifier))
    mirror = cls_rbd.mirror_image_remove(identifier)
    reply = await io.write(names.MIRRORING, [AssertExists(), mirror.step]).bare()
    if reply.rv < 0 and reply.rv not in (-errno.ENOENT, -errno.EOPNOTSUPP):
        raise RadosError(-reply.rv, names.MIRRORING)
    await mutate(io, names.TRASH, cls_rbd.trash_remove(identifier))
    await io.notify(names.TRASH, trash_removed(identifier), _NOTIFY_TIMEOUT_MS)


async def _remove_data(io: Io, identifier: str, progress: Progress | None) -> None:
    """And the bond with the parent. Where there is no header any more, all that is done."""
    try:
        image = await open_image(io, identifier=identifier, with_parent=False)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    try:
        await check_removable(image)
        await image.under_lock(lambda: trim(image, 0, image.header.size, progress))
        if image.header.parent is not None:
            await bond.detach(image, image.header.parent)
            await snapshots.sweep(image, image.header.parent)
    finally:
        await image.close()


async def _check_header(io: Io, identifier: str) -> None:
    """Whether the image may go. One without a header, left behind by a create that did not finish, may."""
    try:
        image = await open_image(io, identifier=identifier, with_parent=False)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    try:
        await check_removable(image)
    finally:
        await image.close()


async def check_removable(image: ImageContext) -> None:
    """No snapshot may need it, nobody else may have it open, and no group may hold it."""
    if image.lock is not None:
        try:
            await image.lock.acquire()
        except RadosError as error:
            raise RadosError(errno.EBUSY, f"image {image.name} is locked by another client") from error
    if not all(snapshots.waits(snapshot.info) for snapshot in image.header.snapshots):
        raise RadosError(errno.ENOTEMPTY, f"image {image.name} has snapshots")
    if await _others_watch(image):
        raise RadosError(errno.EBUSY, f"image {image.name} is open elsewhere")
    if image.header.group.is_valid:
        raise RadosError(errno.EMLINK, f"image {image.name} is in a group")
    for snapshot in image.header.snapshots:  # left behind by the last clone of each, whose client then died
        await snapshots.remove(image, snapshot)
    if image.stale:
        await image.fresh()


async def _others_watch(image: ImageContext) -> bool:
    reply = await image.io.read(image.header_oid, [ListWatchers()])
    me = image.io.cluster.instance_id()
    return any((watcher.client, watcher.cookie) != (me, image.watch.cookie) for watcher in reply.outs[0])
