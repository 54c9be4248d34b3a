"""Snapshots of a group: one of every member, of one moment.

The record of it goes into the group's header first, as incomplete. Then every client that has a member open is asked to
hold still, the exclusive locks of all members are taken and held, so that nothing is written anywhere, and the members'
snapshots are taken; then the record is completed. If anything fails all of it is undone. A client that dies in between
leaves an incomplete record by which the snapshots that were taken are found and removed.

A member's snapshot belongs to the group's by its namespace, and is named `.group.<pool, hex>_<group id>_<snapshot id>`.
What a group's snapshot consists of is what it had as members when it was taken, whatever it has now. Members without the
exclusive lock have snapshots of nearly the same moment: nothing keeps others from writing to them in between.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional, mutate
from rbd_native.constants import RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR, RBD_SNAP_CREATE_SKIP_QUIESCE
from rbd_native.engine import for_each, gather
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.operations import group_members, rollback, snap_remove, snapshots
from rbd_native.operations.hold import hold
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Joint, Progress
from rbd_native.operations.quiesce import quiesced
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import (
    GroupSnapshot,
    GroupSnapshotNamespace,
    GroupSnapshotState,
    ImageSnapshotSpec,
    SnapshotNamespaceType,
    TrashSnapshotNamespace,
)
from rbd_native.watch_notify import SNAP_SKIP_QUIESCE

log = logging.getLogger(__name__)

_PAGE = 1024
_AT_ONCE = 32
_BEGINNING: Final = GroupSnapshot("", "", GroupSnapshotState.INCOMPLETE, [])


# --- records ---------------------------------------------------------------------------------------------------------


async def records(io: Io, group_id: str) -> list[GroupSnapshot]:
    """Oldest first, where the cluster knows the order (since 20); else by id. ENOENT where the group has no header."""
    oid = names.group_header(group_id)
    found: list[GroupSnapshot] = []
    while True:
        page = await call(io, oid, cls_rbd.group_snap_list(found[-1] if found else _BEGINNING, _PAGE))
        found += page
        if len(page) < _PAGE:
            break
    order = await _order(io, oid) if len(found) > 1 else {}
    return sorted(found, key=lambda record: order.get(record.id, 0))


async def _order(io: Io, oid: str) -> dict[str, int]:
    found: dict[str, int] = {}
    while True:
        request = cls_rbd.group_snap_list_order(next(reversed(found), ""), _PAGE)
        empty: dict[str, int] = {}
        page = await call_optional(io, oid, request, empty, errno.EOPNOTSUPP)
        found |= page
        if len(page) < _PAGE:
            return found


async def find(io: Io, group: str, name: str) -> tuple[str, GroupSnapshot]:
    """The group's id, and the record of one of its snapshots. ENOENT."""
    group_id = await group_members.identify(io, group)
    for record in await records(io, group_id):
        if record.name == name:
            return group_id, record
    raise RadosError(errno.ENOENT, f"{group}@{name}")


def _part_name(namespace: GroupSnapshotNamespace) -> str:
    """What the members' snapshots are called."""
    return f".group.{namespace.pool_id:x}_{namespace.group_id}_{namespace.group_snap_id}"


def _namespace(io: Io, group_id: str, record: GroupSnapshot) -> GroupSnapshotNamespace:
    return GroupSnapshotNamespace(io.pool_id, group_id, record.id)


async def rename(io: Io, group: str, name: str, new_name: str) -> None:
    """ENOENT; EEXIST (also where both are the same, whether it is there or not); EINVAL ("")."""
    if name == new_name:
        raise RadosError(errno.EEXIST, new_name)
    group_id, record = await find(io, group, name)
    await mutate(io, names.group_header(group_id), cls_rbd.group_snap_set(replace(record, name=new_name)))


# --- members ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _opened(
    io: Io, record: GroupSnapshot, *, with_parent: bool = False, all_there: bool = True
) -> AsyncIterator[list[ImageContext]]:
    """The images that the record is about, for as long as the block takes. They serve nobody meanwhile: nothing that
    somebody wants of one of them is to come in between. ENOENT where one is gone, if `all_there`."""
    images: list[ImageContext] = []

    async def open_one(part: ImageSnapshotSpec) -> None:
        there = group_members.pool_of(io, part.pool_id)
        try:
            image = await open_image(there, identifier=part.image_id, with_parent=with_parent)
        except RadosError as error:
            if all_there or error.errno != errno.ENOENT:
                raise
        else:
            image.serving = False
            images.append(image)

    try:
        await for_each([open_one(part) for part in record.snaps], _AT_ONCE)
        yield images
    finally:
        await _close(images)


async def _close(images: Iterable[ImageContext]) -> None:
    async def close(image: ImageContext) -> None:
        try:
            await image.close()
        except RadosError as error:
            log.warning("image %s was not closed properly: %s", image.name, error)

    await for_each([close(image) for image in images], _AT_ONCE)


def _part_of(image: ImageContext, namespace: GroupSnapshotNamespace) -> Snapshot | None:
    """The image's snapshot that is part of the group's. It is told by its namespace, whatever its name."""
    return next((s for s in image.header.snapshots if s.info.namespace == namespace), None)


def _removed_part_of(image: ImageContext, namespace: GroupSnapshotNamespace) -> Snapshot | None:
    """What is left of it where a client died while it removed it. (librbd 16 does not look for that.)"""
    rest = TrashSnapshotNamespace(_part_name(namespace), SnapshotNamespaceType.GROUP)
    return next((s for s in image.header.snapshots if s.info.namespace == rest), None)


# --- take ------------------------------------------------------------------------------------------------------------


async def create(io: Io, group: str, name: str, flags: int = 0) -> None:
    """ENOENT, EEXIST, EINVAL (flags, ""), EROFS (a lock that is not given up), EDQUOT (a member's limit), and what a client
    answers that cannot hold still. Where it fails nothing is left of it."""
    snapshots.check_flags(flags)
    group_id = await group_members.identify(io, group)
    members = [link.spec for link in await group_members.links(io, group_id)]
    parts = [ImageSnapshotSpec(member.pool_id, member.image_id, 0) for member in members]
    record = GroupSnapshot(names.new_id(io.cluster.instance_id()), name, GroupSnapshotState.INCOMPLETE, parts)
    await mutate(io, names.group_header(group_id), cls_rbd.group_snap_set(record))
    clean = True
    try:
        async with _opened(io, record) as images:
            try:
                await _take(io, group_id, record, images, flags)
            except BaseException:
                clean = await _undo(io, group_id, record, images)
                raise
    except BaseException:
        if clean:
            with contextlib.suppress(RadosError):  # the reason is the error above; an incomplete record can be removed
                await _forget(io, group_id, record)
        raise


async def _take(io: Io, group_id: str, record: GroupSnapshot, images: Sequence[ImageContext], flags: int) -> None:
    namespace = _namespace(io, group_id, record)
    name = _part_name(namespace)
    asked = () if flags & RBD_SNAP_CREATE_SKIP_QUIESCE else images

    async def take(image: ImageContext) -> tuple[tuple[int, str], int]:
        if image.stale:
            await image.fresh()
        return (image.io.pool_id, image.id), await snapshots.take(image, name, namespace, SNAP_SKIP_QUIESCE)

    async with quiesced(asked, ignore_errors=bool(flags & RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR)), hold(images) as held:
        taken = dict(await gather([take(image) for image in images], _AT_ONCE))
        await held.check()
        parts = [replace(part, snap_id=taken[part.pool_id, part.image_id]) for part in record.snaps]
        complete = replace(record, state=GroupSnapshotState.COMPLETE, snaps=parts)
        await mutate(io, names.group_header(group_id), cls_rbd.group_snap_set(complete))


async def _undo(io: Io, group_id: str, record: GroupSnapshot, images: Sequence[ImageContext]) -> bool:
    """Whether no member's snapshot is left; else the record is needed, to remove it by."""
    try:
        await _remove_parts(images, _namespace(io, group_id, record))
    except RadosError as error:
        log.warning("group snapshot %s stays, incomplete: %s", record.name, error)
        return False
    return True


# --- remove ----------------------------------------------------------------------------------------------------------


async def remove(io: Io, group: str, name: str) -> None:
    """ENOENT."""
    group_id, record = await find(io, group, name)
    await remove_record(io, group_id, record)


async def remove_record(io: Io, group_id: str, record: GroupSnapshot) -> None:
    """The members' snapshots, as far as they are there, and then the record."""
    async with _opened(io, record, all_there=False) as images:
        await _remove_parts(images, _namespace(io, group_id, record))
    await _forget(io, group_id, record)


async def _remove_parts(images: Sequence[ImageContext], namespace: GroupSnapshotNamespace) -> None:
    async def remove_one(image: ImageContext) -> None:
        if image.stale:
            await image.fresh()
        part = _part_of(image, namespace) or _removed_part_of(image, namespace)
        if part is None:
            return
        waits = isinstance(part.info.namespace, TrashSnapshotNamespace)  # maybe for its clones: it goes with the last
        try:
            await snap_remove.remove(image, part)
        except RadosError as error:
            if error.errno != errno.ENOENT and not (waits and error.errno == errno.EBUSY):
                raise

    await for_each([remove_one(image) for image in images], _AT_ONCE)


async def _forget(io: Io, group_id: str, record: GroupSnapshot) -> None:
    await mutate(io, names.group_header(group_id), cls_rbd.group_snap_remove(record.id))


# --- roll back -------------------------------------------------------------------------------------------------------


async def roll_back(io: Io, group: str, name: str, progress: Progress | None = None) -> None:
    """Make all members what they were. ENOENT; EINVAL (incomplete: it is of no one moment; members have come or gone
    since); EROFS (a lock that is not given up). A member whose snapshot is not there any more is left as it is. Doing it
    again finishes what was cut off."""
    group_id, record = await find(io, group, name)
    if record.state != GroupSnapshotState.COMPLETE:
        raise RadosError(errno.EINVAL, f"{group}@{name} is incomplete")
    then = {(part.pool_id, part.image_id) for part in record.snaps}
    now = {(link.spec.pool_id, link.spec.image_id) for link in await group_members.links(io, group_id)}
    if then != now:
        raise RadosError(errno.EINVAL, f"{group} has other members than {name}")
    namespace = _namespace(io, group_id, record)
    async with _opened(io, record, with_parent=True) as images, hold(images):
        parts = [(image, part) for image in images if (part := _part_of(image, namespace)) is not None]
        joint = Joint(progress or Progress(), len(parts))
        steps = [
            rollback.apply(
                image, part.info.name, namespace, joint.part(place, image.layout.object_count(part.info.image_size))
            )
            for place, (image, part) in enumerate(parts)
        ]
        await for_each(steps, _AT_ONCE)


# --- look ------------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A member's snapshot. The image has no name where it is not there any more."""

    image_name: str
    pool_id: int
    snap_id: int


class Info(NamedTuple):
    """A group's snapshot as a user sees it. `image_snap_name`: of each of its parts; "" where it has none."""

    record: GroupSnapshot
    image_snap_name: str
    parts: list[Part]


async def listing(io: Io, group: str) -> list[Info]:
    """Empty without the group: so it is in librbd."""
    try:
        group_id = await group_members.identify(io, group)
        found = await records(io, group_id)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
    return [await _info(io, group_id, record) for record in found]


async def info(io: Io, group: str, name: str) -> Info:
    """ENOENT."""
    return await _info(io, *await find(io, group, name))


async def _info(io: Io, group_id: str, record: GroupSnapshot) -> Info:
    parts = await gather([_part(io, part) for part in record.snaps], _AT_ONCE)
    return Info(record, _part_name(_namespace(io, group_id, record)) if parts else "", parts)


async def _part(io: Io, part: ImageSnapshotSpec) -> Part:
    try:
        name = await headers.name_of(group_members.pool_of(io, part.pool_id), part.image_id)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        name = ""
    return Part(name, part.pool_id, part.snap_id)
