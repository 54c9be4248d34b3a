"""End an image that is in the trash: its data first, its header and its entry last.

Until its entry goes, everything that is left is found through it, and what was done before is passed over: a client that
dies at any point leaves an image that anybody may remove again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call_optional, mutate
from rbd_native.encoding import UTime
from rbd_native.engine import gather
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.operations import bond, mirror_image, mirroring, snap_remove
from rbd_native.operations.progress import Progress
from rbd_native.operations.resize import trim
from rbd_native.rados.port import Io, ListWatchers, RadosError, Remove
from rbd_native.types import (
    MirrorImage,
    MirrorSnapshotNamespace,
    ParentImageSpec,
    TrashImageSource,
    TrashImageState,
    TrashSnapshotNamespace,
)
from rbd_native.watch_notify import trash_removed

Opener = Callable[[Io, str], Awaitable[ImageContext]]
"""Opens an image by its id for writing, without its parent."""

_NOTIFY_TIMEOUT_MS = 5000
_IN_NOBODYS_WAY = (MirrorSnapshotNamespace, TrashSnapshotNamespace)
"""Snapshots that go with the image; but those in the trash may have clones."""

_PAUSES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.4)
"""Seconds between looks at who else has an image open that is to be removed, as long as they are the same."""

log = logging.getLogger(__name__)


class Needed(RadosError):
    """Something needs the image, and nothing of it has been removed."""


def now() -> UTime:
    return UTime(*divmod(time.time_ns(), 10**9))


# --- whether it may go -----------------------------------------------------------------------------------------------


async def owned(image: ImageContext) -> None:
    """Take the exclusive lock, where the image has one. EBUSY where another client keeps it."""
    if image.lock is None:
        return
    try:
        await image.lock.acquire()
    except RadosError as error:
        raise Needed(errno.EBUSY, f"image {image.name} is locked by another client") from error


class Stage(Enum):
    """How far the removal of an image has come that is looked at."""

    NAMED = "it has its name still"
    TAKEN = "this client has just taken its name away"
    TRASH = "it is in the trash, from where anybody may remove it"


async def removable(image: ImageContext, stage: Stage = Stage.NAMED) -> bool:
    """Whether nothing needs it; False where only clones of snapshots do that have been removed themselves.

    Raises Needed: EBUSY (locked, open elsewhere), ENOTEMPTY (snapshots), EMLINK (in a group).
    """
    await owned(image)
    looking: list[Coroutine[Any, Any, Any]] = [others_watching(image), mirror_daemons(image.io), _fresh(image)]
    watching, daemons, _ = await gather(looking, len(looking))
    if not all(isinstance(snapshot.info.namespace, _IN_NOBODYS_WAY) for snapshot in image.header.snapshots):
        raise Needed(errno.ENOTEMPTY, f"image {image.name} has snapshots")
    if watching - daemons and not await _left_alone(image, daemons, stage):
        raise Needed(errno.EBUSY, f"image {image.name} is open elsewhere")
    if image.header.group.is_valid:
        raise Needed(errno.EMLINK, f"image {image.name} is in a group")
    for snapshot in image.header.snapshots:
        if snap_remove.waits(snapshot.info):  # left behind by its last clone, whose client then died
            await snap_remove.remove(image, snapshot)
    await _fresh(image)
    return not any(isinstance(snapshot.info.namespace, TrashSnapshotNamespace) for snapshot in image.header.snapshots)


async def _left_alone(image: ImageContext, daemons: set[str], stage: Stage) -> bool:
    """Whether all others that have it open close it, one within a moment of the other: they may be about to remove it, too,
    and would all find each other in their way. One of them stays until the others have left: who has taken its name away,
    else who comes first in the order of clients."""
    me = image.io.cluster.instance_id(), image.watch.cookie or 0
    before: list[tuple[int, int]] = []
    pauses = iter(_PAUSES)
    while True:
        reply = await image.io.read(image.header_oid, [ListWatchers()])
        others = [(w.client, w.cookie) for w in reply.outs[0] if w.address not in daemons and (w.client, w.cookie) != me]
        if not others:
            return True
        if stage is not Stage.TAKEN and me > min(others):
            return False
        if stage is Stage.NAMED and await _in_trash(image):
            return False
        if others != before:
            before, pauses = others, iter(_PAUSES)
        pause = next(pauses, None)
        if pause is None:
            return False
        await image.io.cluster.sleep(pause)


async def _in_trash(image: ImageContext) -> bool:
    return await call_optional(image.io, names.TRASH, cls_rbd.trash_get(image.id), None) is not None


async def looked_at(image: ImageContext, stage: Stage = Stage.NAMED) -> tuple[bool, MirrorImage | None]:
    """Whether it is :func:`removable`, and what is said of its mirroring."""
    looking: list[Coroutine[Any, Any, Any]] = [removable(image, stage), mirroring.record(image.io, image.id)]
    free, record = await gather(looking, len(looking))
    return free, record


async def _fresh(image: ImageContext) -> None:
    if image.stale:
        await image.fresh()


async def others_watching(image: ImageContext) -> set[str]:
    """The addresses of those that have the image open, besides this handle."""
    reply = await image.io.read(image.header_oid, [ListWatchers()])
    me = image.io.cluster.instance_id(), image.watch.cookie
    return {watcher.address for watcher in reply.outs[0] if (watcher.client, watcher.cookie) != me}


async def mirror_daemons(io: Io) -> set[str]:
    """The addresses of the daemons that mirror images of the pool; they close an image when its mirroring ends."""
    reply = await io.read(names.MIRRORING, [ListWatchers()]).bare()
    return {watcher.address for watcher in reply.outs[0]} if reply.rv == 0 else set()


# --- its end ---------------------------------------------------------------------------------------------------------


async def erase(io: Io, identifier: str, opener: Opener, progress: Progress | None = None) -> None:
    """Remove an image whose trash entry is in state NORMAL, or REMOVING from an earlier attempt. Raises Needed."""
    await _state(io, identifier, TrashImageState.REMOVING, TrashImageState.NORMAL)
    image: ImageContext | None = None
    async with _or_not(io, identifier):
        try:
            image = await opener(io, identifier)
        except RadosError as error:
            if error.errno != errno.ENOENT:
                raise
    await finish(io, identifier, image, progress, Stage.TRASH)


async def finish(
    io: Io, identifier: str, image: ImageContext | None, progress: Progress | None, stage: Stage
) -> None:
    """The same where the entry is in state REMOVING, and the image open; it is closed. None: it has no header any more.

    It is looked at anew: since it was opened it may have come to be needed.
    """
    if image is not None:
        async with _or_not(io, identifier):
            try:
                image.invalidate()
                await _content(image, progress, stage)
            finally:
                await image.close()
    left = (gone(io, names.header(identifier)), gone(io, names.object_map(identifier)), mirror_image.forget(io, identifier))
    await gather(left, len(left))
    await forget(io, identifier)


@contextlib.asynccontextmanager
async def _or_not(io: Io, identifier: str) -> AsyncIterator[None]:
    """Where what is inside fails, the image is not being removed any more."""
    try:
        yield
    except RadosError:
        with contextlib.suppress(RadosError):  # the reason is the error above; either state lets others try again
            await _state(io, identifier, TrashImageState.NORMAL, TrashImageState.REMOVING)
        raise


async def _state(io: Io, identifier: str, state: TrashImageState, expected: TrashImageState) -> None:
    await mutate(io, names.TRASH, cls_rbd.trash_state_set(identifier, state, expected))


async def _content(image: ImageContext, progress: Progress | None, stage: Stage) -> None:
    """Its data and its bond with the parent."""
    free, record = await looked_at(image, stage)
    if not free:
        raise Needed(errno.ENOTEMPTY, f"image {image.name} has clones")
    if record is not None:
        await mirror_image.end(image, force=False)
    await mirror_image.clear(image)
    await image.under_lock(lambda: _trim_all(image, progress))
    if image.header.parent is not None:
        await bond.detach(image, image.header.parent)
        await snap_remove.sweep(image, image.header.parent)


async def _trim_all(image: ImageContext, progress: Progress | None) -> None:
    async with image.alone(Operation.TRIM), image.writes_blocked():
        await trim(image, 0, image.header.size, progress, mark=False)


async def gone(io: Io, oid: str) -> None:
    """Remove an object that need not be there."""
    reply = await io.write(oid, [Remove()]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, oid)


async def forget(io: Io, identifier: str) -> None:
    """Take an entry out of the trash, if it is there, and say so."""
    reply = await io.write(names.TRASH, [cls_rbd.trash_remove(identifier).step]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, names.TRASH)
    await announce(io, trash_removed(identifier))


async def announce(io: Io, notice: bytes) -> None:
    """Tell whoever watches the trash. It is done, whether or not they hear of it."""
    with contextlib.suppress(RadosError):
        await io.notify(names.TRASH, notice, _NOTIFY_TIMEOUT_MS)


# --- parents that went first -----------------------------------------------------------------------------------------


async def sweep(child: ImageContext, spec: ParentImageSpec) -> None:
    """Remove the parent if it was removed before, and waited in the trash for its last clone to go.

    Where that cannot be, it stays there for a purge: the clone may go all the same.
    """
    there = child.io.cluster.io(spec.pool_id, spec.pool_namespace)
    entry = await call_optional(there, names.TRASH, cls_rbd.trash_get(spec.image_id), None)
    if entry is None or entry.source != TrashImageSource.USER_PARENT or entry.state != TrashImageState.NORMAL:
        return
    nothing: tuple[int, list[int]] = (0, [])
    _, ids = await call_optional(there, names.header(spec.image_id), cls_rbd.get_snapcontext(), nothing)
    if ids or now() < entry.deferment_end:
        return

    async def opener(io: Io, identifier: str) -> ImageContext:
        return await child.open_relative(io, identifier, with_parent=False)

    try:
        await erase(there, spec.image_id, opener)
    except RadosError as error:
        log.warning("image %s stays in the trash: %s", spec.image_id, error)
