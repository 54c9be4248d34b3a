"""Mirroring by snapshots: those that mirroring takes of an image, what they say about it, and who still needs them.

The newest mirror snapshot tells whether the image is primary here (it is written here, and its snapshots are sent to the
peers), elsewhere, or nowhere since it was demoted. A primary snapshot names the peers that have not got it yet; when there
are too many for a peer, it is the newest but one that it does without. An image that is not primary has the feature
NON_PRIMARY, which keeps everybody but mirroring itself from writing.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import errno
import logging
import uuid as uuids
from collections.abc import Iterator

from rbd_native import cls_rbd
from rbd_native.cls_client import mutate
from rbd_native.constants import RBD_FEATURE_NON_PRIMARY, RBD_SNAP_CREATE_SKIP_QUIESCE
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.operations import erase, mirroring, rollback, snap_remove, snapshots
from rbd_native.rados.port import HEAD, RadosError
from rbd_native.types import MirrorImage, MirrorSnapshotNamespace, MirrorSnapshotState

log = logging.getLogger(__name__)

_PRIMARY = MirrorSnapshotState.PRIMARY
_PRIMARY_DEMOTED = MirrorSnapshotState.PRIMARY_DEMOTED
_NON_PRIMARY = MirrorSnapshotState.NON_PRIMARY
_DEMOTED = (_PRIMARY_DEMOTED, MirrorSnapshotState.NON_PRIMARY_DEMOTED)
_POLL_SECONDS = 1.0
_ABANDONED_SECONDS = 60
"""How long a snapshot may be incomplete that somebody is just taking. (librbd 16 takes it for abandoned at once, and so may
remove one under another client's hands.)"""
_PATIENCE = 100
"""How many snapshots are unlinked at a time: others may do the same."""


def of(image: ImageContext) -> Iterator[tuple[Snapshot, MirrorSnapshotNamespace]]:
    """The mirror snapshots, newest first, each with its namespace."""
    for snapshot in image.header.snapshots:
        if isinstance(snapshot.info.namespace, MirrorSnapshotNamespace):
            yield snapshot, snapshot.info.namespace


def kinds(image: ImageContext) -> Iterator[MirrorSnapshotNamespace]:
    return (kind for _, kind in of(image))


# --- take ------------------------------------------------------------------------------------------------------------


async def create_primary(
    image: ImageContext, record: MirrorImage, flags: int, *, demoted: bool = False, force: bool = False, alone: bool = True
) -> int:
    """The id of the new snapshot, or of a newer one. `demoted`: the last one as primary. `force`: although the image is not
    primary. `alone`: even if nobody receives it. EINVAL, EROFS, and what :func:`snapshots.create` raises."""
    _check_primary(image, demoted=demoted, force=force)
    peers = await mirroring.receivers(image.io)
    if not peers and not alone:
        raise RadosError(errno.EINVAL, "the pool has no peer that images are sent to")
    state = _PRIMARY_DEMOTED if demoted else _PRIMARY
    name = f".mirror.primary.{record.global_id}.{uuids.uuid4()}"
    kind = MirrorSnapshotNamespace(state, False, peers, "", HEAD, 0, {})
    await snapshots.create(image, name, flags, kind)
    await image.fresh()
    # Where it is gone somebody else has taken one after it, and it was too much: that one has all that it had.
    taken = next((found for found, _ in of(image) if found.info.name == name), next(of(image), (None,))[0])
    if taken is None:
        raise RadosError(errno.ENOENT, f"{image.name}@{name}")
    try:
        await _prune(image, peers)
    except RadosError as error:  # it is taken all the same; the next one will see to it
        log.warning("%s: a mirror snapshot stays linked to a peer: %s", image.header_oid, error)
    return taken.info.id


def _check_primary(image: ImageContext, *, demoted: bool, force: bool) -> None:
    newest = next(kinds(image), None)
    if newest is None:
        return
    if newest.state in _DEMOTED and not force:
        raise RadosError(errno.EINVAL, f"image {image.name} is demoted")
    if newest.state == _NON_PRIMARY and (demoted or not force or not newest.complete):
        raise RadosError(errno.EINVAL, f"image {image.name} is not primary")


async def _create_orphan(image: ImageContext, record: MirrorImage) -> None:
    """A snapshot that says that the image belongs to nobody: a daemon that still copies it gives up."""
    name = f".mirror.non_primary.{record.global_id}.{uuids.uuid4()}"
    await snapshots.create(image, name, 0, MirrorSnapshotNamespace(_NON_PRIMARY, True, set(), "", HEAD, 0, {}))
    await image.fresh()


# --- unlink ----------------------------------------------------------------------------------------------------------


async def _prune(image: ImageContext, peers: set[str]) -> None:
    """Unlink what is too much for a peer, and what nobody waits for."""
    limit = image.settings.integer("rbd_mirroring_max_mirroring_snapshots")
    for _ in range(_PATIENCE):
        found = _superfluous(image, peers, limit)
        if found is None:
            return
        try:
            await unlink(image, *found)
        except RadosError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # somebody else has done it, or is about to
                raise
            image.invalidate()
            await image.fresh()


def _superfluous(image: ImageContext, peers: set[str], limit: int) -> tuple[int, str] | None:
    """A snapshot and a peer that it is to be unlinked from."""
    oldest_first = list(of(image))[::-1]
    newest = oldest_first[-1][0].info.timestamp.sec
    for peer in sorted(peers):
        for snapshot, kind in oldest_first:
            abandoned = kind.is_primary and not kind.complete and newest - snapshot.info.timestamp.sec > _ABANDONED_SECONDS
            # Nobody waits for it: it is from before there were peers, or left by a client that died.
            if not kind.mirror_peer_uuids or (peer in kind.mirror_peer_uuids and abandoned):
                return snapshot.info.id, peer
    for peer in sorted(peers):
        linked: list[int] = []
        for snapshot, kind in oldest_first:
            if kind.state != _PRIMARY:  # what was before the last promotion does not count
                linked = []
            elif peer in kind.mirror_peer_uuids:
                linked.append(snapshot.info.id)
                if len(linked) > limit:
                    return linked[limit - 1], peer
    return None


async def unlink(image: ImageContext, snap: int, peer: str) -> None:
    """Say that a peer does not need a snapshot. One that nobody needs goes, unless it is the newest, by which the state of
    the image is told. ENOENT where there is none; EINVAL for another kind of snapshot."""
    if image.stale:
        await image.fresh()
    snapshot = snapshots.with_id(image, snap)
    kind = snapshot.info.namespace
    if not isinstance(kind, MirrorSnapshotNamespace):
        raise RadosError(errno.EINVAL, f"snapshot {snap} is not one of mirroring")
    newest = next(of(image))[0].info.id == snap
    if kind.mirror_peer_uuids <= {peer} and not newest:
        await snap_remove.remove(image, snapshot)
    elif peer in kind.mirror_peer_uuids:
        await image.update_header(cls_rbd.mirror_image_snapshot_unlink_peer(snap, peer))
    if image.stale:
        await image.fresh()


# --- demote and promote ----------------------------------------------------------------------------------------------


async def _keep_from_writing(image: ImageContext) -> None:
    """What has begun to be written comes before it, and is in the snapshot that follows; nothing comes after it."""
    request = cls_rbd.set_features(RBD_FEATURE_NON_PRIMARY, RBD_FEATURE_NON_PRIMARY)
    async with image.alone(Operation.CHANGE_PRIMARY):
        async with image.writes_blocked():
            await mutate(image.io, image.header_oid, request)
        await image.changed()


async def let_write(image: ImageContext) -> None:
    """Whoever has the image open hears of it."""
    await image.update_header(cls_rbd.set_features(0, RBD_FEATURE_NON_PRIMARY))


async def demote(image: ImageContext, record: MirrorImage) -> None:
    """From here on nobody writes to it, and this is the last state that peers get. The exclusive lock is given back."""
    if image.lock is not None:
        await image.lock.acquire()
    # Whoever takes the lock after this reads the header anew, and finds that he must not write.
    await image.under_lock(lambda: _keep_from_writing(image))
    await create_primary(image, record, RBD_SNAP_CREATE_SKIP_QUIESCE, demoted=True)
    if image.lock is not None:
        await image.lock.release()


async def promote(image: ImageContext, record: MirrorImage) -> None:
    """Make it primary here. What was copied in part is rolled back to the last snapshot that came whole. EINVAL where there
    is none."""
    newest = next(kinds(image), None)
    if newest is None or newest.state != _NON_PRIMARY:
        await _make_primary(image, record)
        return
    back = None if newest.complete else _last_whole(image)
    await _create_orphan(image, record)
    await _wait_for_daemons(image)
    had = image.lock is not None and image.lock.owned
    if image.lock is not None:
        await image.lock.acquire()
    if back is not None:
        name, kind = back.info.name, back.info.namespace
        await image.under_lock(lambda: rollback.apply(image, name, kind))
        await image.fresh()
    await _make_primary(image, record)
    if image.lock is not None and not had:
        await image.lock.release()


def _last_whole(image: ImageContext) -> Snapshot:
    """The snapshot to go back to. EINVAL."""
    for snapshot, kind in list(of(image))[1:]:
        if kind.state != _NON_PRIMARY or kind.complete:
            return snapshot
    raise RadosError(errno.EINVAL, f"image {image.name} was never copied whole")


async def _make_primary(image: ImageContext, record: MirrorImage) -> None:
    await create_primary(image, record, RBD_SNAP_CREATE_SKIP_QUIESCE, force=True)
    await let_write(image)


async def _wait_for_daemons(image: ImageContext) -> None:
    """Until none has the image open: each closes it when it sees the orphan snapshot."""
    while await erase.others_watching(image) & await erase.mirror_daemons(image.io):
        await image.io.cluster.sleep(_POLL_SECONDS)


