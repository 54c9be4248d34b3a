"""Turn the mirroring of a pool, or of a namespace of it, on and off.

With mode IMAGE users say image by image what is mirrored, with mode POOL everything that has a journal is. With mode
INIT_ONLY, which only the default namespace may have, nothing is: it gives the pool what other namespaces need.

Going from one mode to another passes through IMAGE where images are concerned, so that a client that dies on the way leaves
a mode in which each image can be enabled and disabled.

Source: the sequences of operations of a running 16.2.15 librbd.
"""

from __future__ import annotations

import contextlib
import errno
import uuid as uuids

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_optional, mutate
from rbd_native.constants import RBD_FEATURE_JOURNALING
from rbd_native.operations import mirror_image
from rbd_native.operations.mirroring import announce, mirrored, mode, peers, record
from rbd_native.operations.open import open_image
from rbd_native.rados.port import HEAD, Io, RadosError
from rbd_native.types import MirrorImageState, MirrorMode
from rbd_native.watch_notify import mirror_mode_updated

_OF_NO_IMAGE = (MirrorMode.DISABLED, MirrorMode.INIT_ONLY)


async def remote_namespace(io: Io) -> str:
    """The namespace of the other site that this one is mirrored to: where none can be set, the one of the same name."""
    request = cls_rbd.mirror_remote_namespace_get()
    return await call_optional(io, names.MIRRORING, request, io.namespace, errno.ENOENT, errno.EOPNOTSUPP)


async def set_remote_namespace(io: Io, name: str) -> None:
    """EINVAL while images may be mirrored; EOPNOTSUPP by OSDs older than release 20."""
    if await mode(io) not in _OF_NO_IMAGE:
        raise RadosError(errno.EINVAL, "the pool is mirrored already")
    await mutate(io, names.MIRRORING, cls_rbd.mirror_remote_namespace_set(name))


# --- from mode to mode -----------------------------------------------------------------------------------------------


async def set_mode(io: Io, wanted: int) -> None:
    """EINVAL (no such mode; turned off while images are mirrored), EBUSY (turned off while there are peers, or while clones
    or parents of an image are mirrored); ENOSYS where all images with a journal are to be mirrored, and there are some."""
    if wanted not in set(MirrorMode):
        raise RadosError(errno.EINVAL, f"mirror mode {wanted}")
    target = MirrorMode(wanted)
    if target == MirrorMode.INIT_ONLY and io.namespace:
        raise RadosError(errno.EINVAL, "only a pool's default namespace is initialized")
    if target == MirrorMode.DISABLED and await peers(io):
        raise RadosError(errno.EBUSY, "the pool has peers")
    current = await mode(io)
    if current == target:
        return
    if target == MirrorMode.POOL:
        await _without_journals(io)
    if current == MirrorMode.DISABLED:
        await mutate(io, names.MIRRORING, cls_rbd.mirror_uuid_set(str(uuids.uuid4())))
    if current not in _OF_NO_IMAGE or target not in _OF_NO_IMAGE:
        await _through_image_mode(io, current, target)
    if target == MirrorMode.IMAGE:
        return
    try:
        await _set(io, target)
    except RadosError:
        if current == MirrorMode.DISABLED:  # an OSD older than release 20 knows nothing of INIT_ONLY
            with contextlib.suppress(RadosError):  # the reason is the error above
                await mutate(io, names.MIRRORING, cls_rbd.mirror_mode_set(current))
        raise


async def _through_image_mode(io: Io, current: MirrorMode, target: MirrorMode) -> None:
    if current != MirrorMode.IMAGE:
        await _set(io, MirrorMode.IMAGE)
    if target in _OF_NO_IMAGE:
        await (_none_enabled(io) if current == MirrorMode.IMAGE else _disable_all(io))


async def _set(io: Io, value: MirrorMode) -> None:
    await mutate(io, names.MIRRORING, cls_rbd.mirror_mode_set(value))
    await announce(io, mirror_mode_updated(value))


async def _without_journals(io: Io) -> None:
    """ENOSYS where an image would have to be mirrored by its journal. Asked before anything is changed."""
    async for name, identifier in headers.directory(io):
        features, _ = await call(io, names.header(identifier), cls_rbd.get_features(HEAD, True))
        if features & RBD_FEATURE_JOURNALING:
            raise RadosError(errno.ENOSYS, f"image {name} has a journal: mirroring by it is not supported yet")


async def _none_enabled(io: Io) -> None:
    async for identifier in mirrored(io):
        found = await record(io, identifier)
        if found is not None and found.state == MirrorImageState.ENABLED:
            raise RadosError(errno.EINVAL, f"image {identifier} is mirrored")


async def _disable_all(io: Io) -> None:
    """Where mirrored clones keep an image busy, it is tried again once one of them has been disabled."""
    while True:
        done, busy = 0, 0
        for identifier in [found async for found in mirrored(io)]:
            image = await open_image(io, identifier=identifier)
            try:
                await mirror_image.disable(image, force=False)
                done += 1
            except RadosError as error:
                if error.errno != errno.EBUSY:
                    raise
                busy += 1
            finally:
                await image.close()
        if not busy:
            return
        if not done:
            raise RadosError(errno.EBUSY, f"{busy} images are kept by mirrored clones")
