"""Copy an image with its history: every snapshot of users, and what changed between them.

The target goes through the states of the source, oldest first: it gets the size and the changes of each snapshot, and then
a snapshot of that name. A clone's copy is a clone of the same parent, unless it is to be flattened: it keeps the rules of
every clone. The source is read through a handle of the copy's own, which is set to nothing: other users of the caller's
handle go on with it as it is.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rbd_native import header as headers
from rbd_native.constants import RBD_FEATURE_LAYERING, RBD_FEATURES_IMPLICIT
from rbd_native.image import io as writing
from rbd_native.image.context import ImageContext
from rbd_native.operations import bond, clone, create, snapshots
from rbd_native.operations.copy import copy_metadata
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.operations.replay import replay
from rbd_native.operations.unfinished import whole_or_nothing
from rbd_native.operations.version_changes import Version, versions_of
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import ProtectionStatus


async def deep_copy(
    image: ImageContext,
    io: Io,
    name: str,
    wish: create.Wish,
    *,
    clone_format: int = 0,
    flatten: bool = False,
    progress: Progress | None = None,
) -> None:
    """Up to the snapshot the image is set to. EEXIST, EINVAL (name, clone format, the parent's snapshot is not protected),
    ENOENT (the snapshot), ENOSYS (layering), EXDEV (format 1 into another namespace), and what :func:`create.create`
    refuses. What fails leaves nothing."""
    if image.stale:
        await image.fresh()
    if not name:
        raise RadosError(errno.EINVAL, "an image needs a name")
    last = image.read_snap
    await writing.flush(image)  # what its objects hold is copied, not what the handle has kept
    source = await open_image(image.io, name=image.name, identifier=image.id, read_only=True)
    try:
        versions = versions_of(source, last)
        bound = source.header.parent is not None and not flatten
        if bound:
            wish = clone.masked(wish)
        wish = clone.inherit(source, wish, source.header.features & ~RBD_FEATURES_IMPLICIT, versions[-1].size)
        if bound:
            await _clone(source, versions, io, name, wish, clone_format, progress)
            return
        plan = await create.prepare(io, name, wish)
        _check_protection(versions, plan.features)
        identifier = await create.lay_out(io, name, plan)
        async with whole_or_nothing(io, name, identifier):
            await _fill(source, versions, io, name, identifier, progress)
    finally:
        await source.close()


def _check_protection(versions: Sequence[Version], features: int) -> None:
    """ENOSYS where a snapshot is protected, and the copy is to have no layering: it could not protect its own."""
    if any(map(_protected, versions)) and not features & RBD_FEATURE_LAYERING:
        raise RadosError(errno.ENOSYS, "a protected snapshot needs the feature layering")


def _protected(version: Version) -> bool:
    return version.snapshot is not None and version.snapshot.protection == ProtectionStatus.PROTECTED


# --- of a clone ------------------------------------------------------------------------------------------------------


async def _clone(
    source: ImageContext,
    versions: Sequence[Version],
    io: Io,
    name: str,
    wish: create.Wish,
    clone_format: int,
    progress: Progress | None,
) -> None:
    """Make the copy a clone of the source's parent."""
    old = await clone.old_format(io, source.settings, clone_format)
    async with _parent_of(source) as parent:
        clone.check(parent, io, wish, old=old)
        plan = await create.prepare(io, name, wish)
        metadata = await headers.metadata(parent.io, parent.header_oid)
        identifier = await create.lay_out(io, name, plan)
        async with whole_or_nothing(io, name, identifier):
            child = bond.spec_of(io, identifier)
            await clone.bind(parent, child, io, plan.features, source.widest_overlap, metadata, old=old)
            await _fill(source, versions, io, name, identifier, progress)


@asynccontextmanager
async def _parent_of(source: ImageContext) -> AsyncIterator[ImageContext]:
    """The parent, at the snapshot of which the source is a clone, as it is now."""
    if source.parent is not None:  # which was opened just now, with the source
        yield source.parent
        return
    spec = source.header.parent
    assert spec is not None
    io = source.io.cluster.io(spec.pool_id, spec.pool_namespace)
    parent = await source.open_relative(io, spec.image_id, spec.snap_id, read_only=True)
    try:
        yield parent
    finally:
        await parent.close()


# --- what it holds ---------------------------------------------------------------------------------------------------


async def _fill(
    source: ImageContext,
    versions: Sequence[Version],
    io: Io,
    name: str,
    identifier: str,
    progress: Progress | None,
) -> None:
    target = await open_image(io, name=name, identifier=identifier)
    try:
        await replay(source, target, versions, progress or Progress())
        await copy_metadata(source, target)
        await writing.flush(target)
        for version in versions:
            if version.snapshot is not None and _protected(version):
                await snapshots.protect(target, version.snapshot.info.name)
    finally:
        await target.close()
