"""Turn features of an image on and off.

Object map and fast-diff come and go together, and need the exclusive lock; deep-flatten can only be turned off. A map that
is new says nothing yet: it is flagged invalid until it is rebuilt. No write overlaps the change.
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd, names
from rbd_native.cls_client import mutate
from rbd_native.constants import (
    RBD_FEATURE_DEEP_FLATTEN,
    RBD_FEATURE_EXCLUSIVE_LOCK,
    RBD_FEATURE_FAST_DIFF,
    RBD_FEATURE_JOURNALING,
    RBD_FEATURE_OBJECT_MAP,
    RBD_FEATURES_DISABLE_ONLY,
    RBD_FEATURES_MUTABLE,
    RBD_FLAG_FAST_DIFF_INVALID,
    RBD_FLAG_OBJECT_MAP_INVALID,
)
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusion import Operation
from rbd_native.object_map import ObjectState
from rbd_native.rados.port import HEAD, RadosError, Remove
from rbd_native.watch_notify import UpdateFeatures

_MAPS = RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_FAST_DIFF
_INVALID = RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID
_ONLY_WITH_LOCK = _MAPS | RBD_FEATURE_JOURNALING


async def update(image: ImageContext, features: int, *, enabled: bool) -> None:
    """EINVAL for what cannot be changed or is so already; EROFS; ENOSYS for journaling."""
    if image.stale:
        await image.fresh()
    if image.read_only:
        raise RadosError(errno.EROFS, image.name)
    _check(image, features, enabled)
    if image.snap is not None:
        raise RadosError(errno.EROFS, f"{image.name} is set to a snapshot")
    await image.requests.carry_out(
        lambda request: UpdateFeatures(features, enabled, request),
        lambda: apply(image, features, enabled=enabled),
    )


async def apply(image: ImageContext, features: int, *, enabled: bool) -> None:
    """What whoever owns the image does for :func:`update`, or anybody where it has no lock. What is so already is done."""
    if enabled and features & RBD_FEATURE_EXCLUSIVE_LOCK and image.lock is None:
        await _apply(image, features & ~_MAPS, enabled=True)
        features &= _MAPS | RBD_FEATURE_JOURNALING
        if features:
            await image.under_lock(lambda: _apply(image, features, enabled=True))
        return
    await _apply(image, features, enabled=enabled)


async def _apply(image: ImageContext, features: int, *, enabled: bool) -> None:
    async with image.alone(Operation.UPDATE_FEATURES):
        have = image.header.features
        features &= ~have if enabled else have
        if not features:
            return
        _check(image, features, enabled)
        if enabled:
            await _enable(image, features)
        else:
            await _disable(image, features)


def _check(image: ImageContext, features: int, enabled: bool) -> None:
    if image.old_format:
        raise RadosError(errno.EINVAL, f"image {image.name} has format 1")
    have = image.header.features
    allowed = RBD_FEATURES_MUTABLE if enabled else RBD_FEATURES_MUTABLE | RBD_FEATURES_DISABLE_ONLY
    if not features or features & ~allowed:
        raise RadosError(errno.EINVAL, f"features {features:#x} cannot be changed")
    if features & (have if enabled else ~have):
        raise RadosError(errno.EINVAL, f"features {features:#x} are {'on' if enabled else 'off'} already")
    result = have | features if enabled else have & ~features
    if result & _ONLY_WITH_LOCK and not result & RBD_FEATURE_EXCLUSIVE_LOCK:
        raise RadosError(errno.EINVAL, "object-map, fast-diff and journaling need exclusive-lock")
    if features & ~(_MAPS | RBD_FEATURE_EXCLUSIVE_LOCK | RBD_FEATURE_DEEP_FLATTEN):
        raise RadosError(errno.ENOSYS, f"features {features:#x} are not supported yet")


async def _enable(image: ImageContext, features: int) -> None:
    if features & _MAPS:
        await _enable_maps(image)
    if features & RBD_FEATURE_EXCLUSIVE_LOCK:
        async with image.writes_blocked():
            await _set(image, RBD_FEATURE_EXCLUSIVE_LOCK, on=True)
        await image.changed()
        await image.fresh()


async def _enable_maps(image: ImageContext) -> None:
    async with image.writes_blocked():
        for snap in (HEAD, *image.snapc.ids):
            await mutate(image.io, image.header_oid, cls_rbd.set_flags(_INVALID, _INVALID, snap))
        await _set(image, _MAPS, on=True)
        for oid, size in _maps(image):
            objects = image.layout.object_count(size)
            await mutate(image.io, oid, cls_rbd.object_map_resize(objects, ObjectState.NONEXISTENT))
        image.invalidate()
        await image.fresh()  # which loads the head's map
    await image.changed()


async def _disable(image: ImageContext, features: int) -> None:
    if features & _MAPS:
        await _disable_maps(image)
    others = features & ~_MAPS
    if not others:
        return
    async with image.writes_blocked():
        await _set(image, others, on=False)
    await image.changed()
    # Without the lock's feature, the handle gives the lock back as it reads the header anew, once nobody uses it: asked by
    # another client, this runs under it.
    await image.fresh()


async def _disable_maps(image: ImageContext) -> None:
    async with image.writes_blocked():
        if image.lock is not None:
            await image.lock.close_map()
        for oid, _ in _maps(image):
            reply = await image.io.write(oid, [Remove()]).bare()
            if reply.rv < 0 and reply.rv != -errno.ENOENT:
                raise RadosError(-reply.rv, oid)
        await _set(image, _MAPS, on=False)
        for snap in (HEAD, *image.snapc.ids):
            await mutate(image.io, image.header_oid, cls_rbd.set_flags(0, _INVALID, snap))
    await image.changed()


def _maps(image: ImageContext) -> list[tuple[str, int]]:
    """The objects that hold the maps of the head and the snapshots, and the image's size then."""
    snapshots = [(names.object_map(image.id, s.info.id), s.info.image_size) for s in image.header.snapshots]
    return [(names.object_map(image.id), image.header.size), *snapshots]


async def _set(image: ImageContext, features: int, *, on: bool) -> None:
    await mutate(image.io, image.header_oid, cls_rbd.set_features(features if on else 0, features))
