"""Mirroring of one image: turned on and off, handed from site to site, and what is known about it.

Its record in `rbd_mirroring` says that it is mirrored; it is written when everything else is in place, and goes last, after
it has been marked as being disabled: from any point in between, disabling it again ends that.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import contextlib
import errno
import json
import uuid as uuids
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final, NamedTuple

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call, call_optional, mutate
from rbd_native.constants import (
    RBD_FEATURE_EXCLUSIVE_LOCK,
    RBD_FEATURE_JOURNALING,
    RBD_FEATURE_NON_PRIMARY,
    RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR,
    RBD_SNAP_CREATE_SKIP_QUIESCE,
)
from rbd_native.image.context import ImageContext
from rbd_native.operations import family, features, metadata, mirror_snapshots, mirroring, snap_remove, snapshots
from rbd_native.operations.mirroring import Promotion
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import (
    EntityInstance,
    MirrorImage,
    MirrorImageMode,
    MirrorImageSiteStatus,
    MirrorImageState,
    MirrorMode,
)
from rbd_native.watch_notify import mirror_image_updated

NOT_FOUND: Final = "status not found"
_META: Final = ".rbd_mirror."
_RESYNC: Final = "resync_requested"
_QUIESCE_FLAGS: Final = {
    "required": 0,
    "ignore-error": RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR,
    "skip": RBD_SNAP_CREATE_SKIP_QUIESCE,
}


class Info(NamedTuple):
    """`record` None: the image is not mirrored."""

    record: MirrorImage | None
    promotion: Promotion

    @property
    def global_id(self) -> str:
        return "" if self.record is None else self.record.global_id

    @property
    def state(self) -> MirrorImageState:
        return MirrorImageState.DISABLED if self.record is None else self.record.state

    @property
    def mode(self) -> MirrorImageMode:
        return MirrorImageMode.JOURNAL if self.record is None else self.record.mode

    @property
    def primary(self) -> bool:
        return self.promotion is Promotion.PRIMARY


# --- what is known ---------------------------------------------------------------------------------------------------


async def info(image: ImageContext) -> Info:
    """ENOSYS where it is mirrored by its journal."""
    if image.stale:
        await image.fresh()
    record = await mirroring.record(image.io, image.id)
    if record is None:
        return Info(None, Promotion.NON_PRIMARY)
    by_snapshots(record)
    return Info(record, mirroring.promotion(next(mirror_snapshots.kinds(image), None)))


def by_snapshots(record: MirrorImage) -> None:
    """ENOSYS unless it is they that the image is mirrored by."""
    if record.mode != MirrorImageMode.SNAPSHOT:
        raise RadosError(errno.ENOSYS, "mirroring by a journal is not supported yet")


async def mode(image: ImageContext) -> MirrorImageMode:
    """EINVAL where it is not mirrored."""
    return (await _record(image)).mode


async def _record(image: ImageContext) -> MirrorImage:
    record = await mirroring.record(image.io, image.id)
    if record is None:
        raise RadosError(errno.EINVAL, f"image {image.name} is not mirrored")
    return record


async def status(image: ImageContext) -> tuple[Info, list[MirrorImageSiteStatus]]:
    """What each site says, the local one first; it has said nothing where it is not there."""
    found = await info(image)
    sites = [MirrorImageSiteStatus(description=NOT_FOUND)]
    if found.state == MirrorImageState.ENABLED:
        said = await call_optional(image.io, names.MIRRORING, cls_rbd.mirror_image_status_get(found.global_id), None)
        sites = sites if said is None else said.sites
    return found, sites


async def instance(image: ImageContext) -> int:
    """The client id of the daemon that serves it. EINVAL where it is not mirrored; ENOENT, ESTALE where none does."""
    record = await mirroring.record(image.io, image.id)
    if record is None or record.state != MirrorImageState.ENABLED:
        raise RadosError(errno.EINVAL, f"image {image.name} is not mirrored")
    found: EntityInstance = await call(image.io, names.MIRRORING, cls_rbd.mirror_image_instance_get(record.global_id))
    return found.name.num


# --- turn it on and off ----------------------------------------------------------------------------------------------


async def _image_by_image(image: ImageContext) -> None:
    if image.stale:
        await image.fresh()
    if await mirroring.mode(image.io) != MirrorMode.IMAGE:
        raise RadosError(errno.EINVAL, "the pool is not mirrored image by image")


async def enable(image: ImageContext, wanted: int) -> None:
    """EINVAL (the pool is not mirrored image by image; the parent is not mirrored; the image is, in another way), EROFS;
    ENOSYS by journal."""
    await _image_by_image(image)
    parent = image.parent
    if parent is not None and await mirroring.record(parent.io, parent.id) is None:
        raise RadosError(errno.EINVAL, "the parent is not mirrored")
    if wanted == MirrorImageMode.JOURNAL and not image.header.features & RBD_FEATURE_JOURNALING:
        missing = RBD_FEATURE_JOURNALING | (RBD_FEATURE_EXCLUSIVE_LOCK & ~image.header.features)
        await features.update(image, missing, enabled=True)
    record = await mirroring.record(image.io, image.id)
    if record is not None:
        if record.mode != wanted or record.state != MirrorImageState.ENABLED:
            raise RadosError(errno.EINVAL, f"image {image.name} is mirrored in another way, or being disabled")
        return
    if wanted == MirrorImageMode.JOURNAL:
        raise RadosError(errno.ENOSYS, "mirroring by a journal is not supported yet")
    if wanted != MirrorImageMode.SNAPSHOT:
        raise RadosError(errno.ENOENT, f"mirror mode {wanted}: taken for a journal, and there is none")
    if image.old_format:  # librbd 16 says so, too, but only after it has taken a snapshot that stays
        raise RadosError(errno.ENOENT, f"image {image.name} has format 1: the directory does not know it")
    record = MirrorImage(str(uuids.uuid4()), MirrorImageState.ENABLED, MirrorImageMode.SNAPSHOT)
    flags = _QUIESCE_FLAGS[image.settings.text("rbd_default_snapshot_quiesce_mode")]
    await mirror_snapshots.create_primary(image, record, flags)
    await _set(image, record)


async def _set(image: ImageContext, record: MirrorImage, *, heard: bool = True) -> None:
    await mutate(image.io, names.MIRRORING, cls_rbd.mirror_image_set(image.id, record))
    if heard:
        await mirroring.announce(image.io, mirror_image_updated(record.state, image.id, record.global_id))


async def disable(image: ImageContext, *, force: bool) -> None:
    """Nothing to do where it is not mirrored. EINVAL (the pool is not mirrored image by image; it is primary elsewhere,
    and not `force`), EBUSY (a clone of it is mirrored), EROFS. Where that fails it stays mirrored."""
    await _image_by_image(image)
    record = await mirroring.record(image.io, image.id)
    if record is None:
        return
    by_snapshots(record)
    await _set(image, replace(record, state=MirrorImageState.DISABLING), heard=False)
    try:
        await _without_mirrored_clones(image)
        async with _for_mirroring(image):
            await _forget_resync(image, await mirroring.uuid(image.io))
            await end(image, force=force)
    except RadosError:
        with contextlib.suppress(RadosError):  # the reason is the error above; it can be disabled again from either state
            await _set(image, replace(record, state=MirrorImageState.ENABLED), heard=False)
        raise


async def _without_mirrored_clones(image: ImageContext) -> None:
    for snap in image.snapc.ids:
        async for child in family.children_of(image.io, image.id, snap):
            there = image.io.cluster.io(child.pool_id, child.pool_namespace)
            if await mirroring.record(there, child.image_id) is not None:
                raise RadosError(errno.EBUSY, f"clone {child.image_name} is mirrored")


async def _forget_resync(image: ImageContext, uuid: str) -> None:
    try:
        await metadata.remove(image, _META + uuid)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise


async def end(image: ImageContext, *, force: bool) -> None:
    """End the mirroring of an image that somebody has open for that, or that is to be removed. Nothing to do where it is
    not mirrored. EINVAL where it is primary elsewhere, and not `force`."""
    found = await info(image)
    record = found.record
    if record is None:
        return
    here = found.promotion in (Promotion.PRIMARY, Promotion.UNKNOWN)
    if not here and not force:
        raise RadosError(errno.EINVAL, f"image {image.name} is not primary")
    if record.state != MirrorImageState.DISABLING:
        await _set(image, replace(record, state=MirrorImageState.DISABLING))
    if not here:
        await mirror_snapshots.promote(image, record)
    elif _kept_from_writing(image):  # by a client that died while it demoted or promoted it
        await mirror_snapshots.let_write(image)
    if image.stale:
        await image.fresh()
    await clear(image)
    await forget(image.io, image.id)


def _kept_from_writing(image: ImageContext) -> bool:
    return bool(image.header.features & RBD_FEATURE_NON_PRIMARY)


async def forget(io: Io, identifier: str) -> None:
    """Drop what is left of the record of an image that is not there any more."""
    record = await mirroring.record(io, identifier)
    if record is None:
        return
    if record.state != MirrorImageState.DISABLING:
        request = cls_rbd.mirror_image_set(identifier, replace(record, state=MirrorImageState.DISABLING))
        await mutate(io, names.MIRRORING, request)
    reply = await io.write(names.MIRRORING, [cls_rbd.mirror_image_remove(identifier).step]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, names.MIRRORING, reply)
    notice = mirror_image_updated(MirrorImageState.DISABLED, identifier, record.global_id)
    await mirroring.announce(io, notice)


async def clear(image: ImageContext) -> None:
    """Remove the mirror snapshots; there may be some that have no record, or none any more."""
    for snapshot, _ in list(mirror_snapshots.of(image)):
        try:
            if image.stale:
                await image.fresh()
            await snap_remove.remove(image, snapshots.with_id(image, snapshot.info.id))
        except RadosError as error:
            if error.errno != errno.ENOENT:
                raise
    if image.stale:
        await image.fresh()


# --- from site to site -----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _for_mirroring(image: ImageContext) -> AsyncIterator[None]:
    """What is done inside is mirroring itself: it may write to an image that is primary elsewhere."""
    image.serves_mirroring += 1
    try:
        image.invalidate()
        await image.fresh()
        yield
    finally:
        image.serves_mirroring -= 1
        if image.lock is not None and image.read_only:  # before the next read of the header finds that it has no place here
            await image.lock.release()
        image.invalidate()


async def promote(image: ImageContext, *, force: bool) -> None:
    """Make it primary here. EINVAL where it is not mirrored, or is primary, or being disabled; EBUSY where it is primary
    elsewhere, and not `force`.

    A client that dies in the middle may leave an image that is primary, and that nobody may write to: promoting it ends
    that, too. (With librbd 16 it takes a demotion and a promotion.)
    """
    async with _for_mirroring(image):
        found = await info(image)
        if found.record is None:
            raise RadosError(errno.EINVAL, f"image {image.name} is not mirrored")
        if found.state != MirrorImageState.ENABLED or (found.primary and not _kept_from_writing(image)):
            raise RadosError(errno.EINVAL, f"image {image.name} is primary, or being disabled")
        if found.primary:
            await mirror_snapshots.let_write(image)
            return
        if found.promotion is Promotion.NON_PRIMARY and not force:
            raise RadosError(errno.EBUSY, f"image {image.name} is primary elsewhere")
        await mirror_snapshots.promote(image, found.record)


async def demote(image: ImageContext) -> None:
    """EINVAL where it is not mirrored, or not primary; EROFS where another client keeps the lock."""
    async with _for_mirroring(image):
        found = await info(image)
        if found.record is None or found.state != MirrorImageState.ENABLED or not found.primary:
            raise RadosError(errno.EINVAL, f"image {image.name} is not mirrored, or not primary")
        if image.opened_read_only:  # before anything is changed: librbd 16 leaves the image so that nobody may write to it
            raise RadosError(errno.EROFS, image.name)
        await mirror_snapshots.demote(image, found.record)


async def resync(image: ImageContext) -> None:
    """Have the daemon copy all of it anew. EINVAL where it is not mirrored, or primary; EBADMSG where what was asked before
    cannot be read."""
    found = await info(image)
    if found.record is None:
        raise RadosError(errno.EINVAL, f"image {image.name} is not mirrored")
    if found.primary:
        raise RadosError(errno.EINVAL, f"image {image.name} is primary")
    key = _META + await mirroring.uuid(image.io)
    asked = await call_optional(image.io, image.header_oid, cls_rbd.metadata_get(key), None)
    if asked is not None and not _readable(asked):
        raise RadosError(errno.EBADMSG, f"{image.header_oid}: {key}")
    value = json.dumps({_RESYNC: True}).encode()
    await image.update_header(cls_rbd.metadata_set({key: value}))


def _readable(raw: bytes) -> bool:
    try:
        found = json.loads(raw)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get(_RESYNC), bool)


async def create_snapshot(image: ImageContext, flags: int) -> int:
    """Take a mirror snapshot; its id. EINVAL (flags; the image is not mirrored by snapshots, or not primary; nobody would
    receive it), EROFS."""
    snapshots.check_flags(flags)
    found = await info(image)
    if found.record is None or found.state != MirrorImageState.ENABLED:
        raise RadosError(errno.EINVAL, f"image {image.name} is not mirrored by snapshots")
    return await mirror_snapshots.create_primary(image, found.record, flags, alone=False)
