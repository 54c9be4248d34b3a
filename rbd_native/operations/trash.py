"""The trash: images that have lost their name and may get one again.

An entry of the trash keeps an image's id, the name it had, who put it there and until when only force removes it. Moving
an image there takes its name away, restoring it gives it one; both go through a state of the entry that tells others what
is under way, in an order in which the image can always be found: by its entry, or by its name. A client that dies in
between leaves an entry that the same call, by anybody, brings to its end.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional, mutate, mutate_present
from rbd_native.constants import RBD_FEATURE_JOURNALING
from rbd_native.encoding import UTime
from rbd_native.engine import gather
from rbd_native.image.context import ImageContext
from rbd_native.operations import erase, mirror_image, mirroring
from rbd_native.operations.erase import announce, forget, gone, now
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.rados.port import HEAD, Create, Io, RadosError
from rbd_native.types import MirrorMode, TrashImageSource, TrashImageSpec, TrashImageState
from rbd_native.watch_notify import trash_added

RESTORABLE: Final = (TrashImageSource.USER, TrashImageSource.MIRRORING, TrashImageSource.USER_PARENT)
"""Who put it there: what the others put there is theirs to take out."""

_LAST_SECOND = 2**32 - 1


async def get(io: Io, identifier: str) -> TrashImageSpec:
    """ENOENT."""
    return await call(io, names.TRASH, cls_rbd.trash_get(identifier))


async def make(io: Io) -> None:
    """An empty one, where there is none yet."""
    await io.write(names.TRASH, [Create(exclusive=False)])


async def listing(io: Io) -> list[tuple[str, TrashImageSpec]]:
    """(id, entry) by id. What is being removed counts as an image still."""
    return [(key, spec) async for key, spec in headers.trash(io) if spec.source != TrashImageSource.REMOVING]


async def opened(
    io: Io, identifier: str, name: str | None = None, pool_config: Mapping[str, bytes] | None = None
) -> ImageContext:
    """The image, for writing, without its parent."""
    image = await open_image(io, name=name, identifier=identifier, with_parent=False, pool_config=pool_config)
    if image.read_only and await mirroring.record(io, identifier) is None:
        # What kept others from writing was left behind by a client that died while it ended the mirroring.
        image.serves_mirroring = 1
        image.invalidate()
    return image


# --- into it ---------------------------------------------------------------------------------------------------------


async def move(io: Io, name: str, delay: int) -> None:
    """Move an image to the trash, for `delay` seconds at least, and end its mirroring. ENOENT; EBUSY (locked); EMLINK (in a
    group); EINVAL (primary at another site); EOPNOTSUPP for format 1."""
    identifier = await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_id(name), None)
    if identifier is None:
        identifier = await _half_moved(io, name)
    else:
        await _make_ready(io, identifier)
    await unhook(io, name, identifier, TrashImageSource.USER, delay)


async def _half_moved(io: Io, name: str) -> str:
    async for identifier, spec in headers.trash(io):
        if (spec.name, spec.source, spec.state) == (name, TrashImageSource.USER, TrashImageState.MOVING):
            return identifier
    known = name and await headers.exists(io, names.old_header(name))
    raise RadosError(errno.EOPNOTSUPP if known else errno.ENOENT, name)


async def _make_ready(io: Io, identifier: str) -> None:
    """What has no header any more may be moved: the trash is where it will be removed from."""
    try:
        image = await opened(io, identifier)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    try:
        await make_ready(image)
    finally:
        await image.close()


async def make_ready(image: ImageContext) -> None:
    """End its mirroring. EBUSY (another client keeps the lock), EMLINK (in a group), EINVAL (primary at another site)."""
    await erase.owned(image)
    if image.header.group.is_valid:
        raise RadosError(errno.EMLINK, f"image {image.name} is in a group")
    await mirror_image.end(image, force=False)


async def unhook(
    io: Io, name: str, identifier: str, source: TrashImageSource, delay: int = 0, *, quietly: bool = False
) -> bytes:
    """Make the entry and take the name away. Each step may have been done by somebody who then died. What is being removed
    is left in that state. The notice of it, which is announced unless that is to happen `quietly`."""
    moment = now()
    until = UTime(min(moment.sec + delay, _LAST_SECOND), moment.nsec)
    spec = TrashImageSpec(source, name, moment, until, TrashImageState.MOVING)
    await _enter(io, identifier, spec)
    await gather((gone(io, names.image_id(name)), _unlist(io, name, identifier)), 2)
    removing = source == TrashImageSource.REMOVING
    state = TrashImageState.REMOVING if removing else TrashImageState.NORMAL
    await _set_state(io, identifier, state, TrashImageState.MOVING)
    notice = trash_added(identifier, replace(spec, state=TrashImageState.NORMAL))
    if not quietly:
        await announce(io, notice)
    return notice


async def _unlist(io: Io, name: str, identifier: str) -> None:
    reply = await io.write(names.DIRECTORY, [cls_rbd.dir_remove_image(name, identifier).step]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, name)


async def _enter(io: Io, identifier: str, spec: TrashImageSpec) -> None:
    enough = {spec.state} if spec.source == TrashImageSource.REMOVING else {spec.state, TrashImageState.NORMAL}
    while True:
        reply = await io.write(names.TRASH, [cls_rbd.trash_add(identifier, spec).step]).bare()
        if reply.rv == 0:
            return
        if reply.rv != -errno.EEXIST:
            raise RadosError(-reply.rv, names.TRASH, reply)
        old = await call_optional(io, names.TRASH, cls_rbd.trash_get(identifier), None)
        if old is not None and old.source == spec.source and old.state in enough:
            return  # somebody else does the same, or has done it
        # Left by an attempt of another kind that did not end. The image has its name still: nothing is lost in between.
        await mutate_present(io, names.TRASH, cls_rbd.trash_remove(identifier))


async def _set_state(io: Io, identifier: str, state: TrashImageState, expected: TrashImageState) -> None:
    await mutate(io, names.TRASH, cls_rbd.trash_state_set(identifier, state, expected))


# --- and out of it ---------------------------------------------------------------------------------------------------


async def restore(io: Io, identifier: str, name: str, sources: Collection[TrashImageSource] = RESTORABLE) -> None:
    """Give an image a name again, the one it had for "". ENOENT; EINVAL (put there by none of `sources`); EBUSY (on its way
    in, or being removed); EEXIST."""
    spec = await get(io, identifier)
    if spec.source not in sources:
        raise RadosError(errno.EINVAL, f"{identifier} is in the trash for another reason")
    if spec.state not in (TrashImageState.NORMAL, TrashImageState.RESTORING):
        raise RadosError(errno.EBUSY, identifier)
    await _not_to_be_mirrored(io, identifier)
    await _set_state(io, identifier, TrashImageState.RESTORING, TrashImageState.NORMAL)
    if spec.state == TrashImageState.RESTORING:
        await _take_back(io, identifier, name or spec.name)
    try:
        await _claim(io, identifier, name or spec.name)
    except RadosError:
        with contextlib.suppress(RadosError):  # the reason is the error above; it can be restored from either state
            await _set_state(io, identifier, TrashImageState.NORMAL, TrashImageState.RESTORING)
        raise
    await forget(io, identifier)


async def _not_to_be_mirrored(io: Io, identifier: str) -> None:
    """ENOSYS for an image with a journal, in a pool all of whose images with a journal are mirrored."""
    request = cls_rbd.get_features(HEAD, True)
    features, _ = await call_optional(io, names.header(identifier), request, (0, 0))
    if features & RBD_FEATURE_JOURNALING:
        mode = await call_optional(io, names.MIRRORING, cls_rbd.mirror_mode_get(), MirrorMode.DISABLED)
        if mode == MirrorMode.POOL:
            raise RadosError(errno.ENOSYS, "mirrored images are not supported yet")


async def _take_back(io: Io, identifier: str, name: str) -> None:
    """The name that an earlier attempt gave it, if it was another."""
    other = await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_name(identifier), None)
    if other is not None and other != name:
        await mutate(io, names.DIRECTORY, cls_rbd.dir_remove_image(other, identifier))
        await gone(io, names.image_id(other))


async def _claim(io: Io, identifier: str, name: str) -> None:
    if await headers.exists(io, names.old_header(name)):
        raise RadosError(errno.EEXIST, name)
    holder = await call_optional(io, names.image_id(name), cls_rbd.get_id(), None)
    if holder is None:
        await io.write(names.image_id(name), [Create(), cls_rbd.set_id(identifier).step])
    elif holder != identifier:
        raise RadosError(errno.EEXIST, name)
    reply = await io.write(names.DIRECTORY, [cls_rbd.dir_add_image(name, identifier).step]).bare()
    if reply.rv == 0:
        return
    if await call_optional(io, names.DIRECTORY, cls_rbd.dir_get_id(name), None) != identifier:
        await gone(io, names.image_id(name))
        raise RadosError(-reply.rv, name, reply)


async def remove(io: Io, identifier: str, *, force: bool, progress: Progress | None = None) -> None:
    """End an image. ENOENT; EPERM (too early, without `force`); EUCLEAN (on its way in); EBUSY (on its way out, locked, or
    open elsewhere); ENOTEMPTY (snapshots); EMLINK (in a group)."""
    spec = await get(io, identifier)
    if now() < spec.deferment_end and not force:
        raise RadosError(errno.EPERM, f"{identifier} is kept for longer")
    if spec.state == TrashImageState.MOVING:
        raise RadosError(errno.EUCLEAN, f"{identifier} is on its way into the trash")
    if spec.state not in (TrashImageState.NORMAL, TrashImageState.REMOVING):
        raise RadosError(errno.EBUSY, f"{identifier} is being restored")
    await erase.erase(io, identifier, opened, progress)
