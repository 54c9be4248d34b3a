"""The metadata of a pool: pairs that users keep there, and, under `conf_`, options for all images of the pool.

They lie in `rbd_info` of the namespace that is asked. Options are looked for in the default namespace alone: set in
another, they are kept, and have no effect, as with librbd.
"""

from __future__ import annotations

import contextlib
import errno
import time

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, mutate
from rbd_native.options import METADATA_PREFIX, Level, OptionError, Settings, validate_metadata
from rbd_native.rados.port import Io, RadosError

_SIGNAL = "rbd_config_pool_override_update_timestamp"


async def get(io: Io, key: str) -> bytes:
    """ENOENT where there is none."""
    return await call(io, names.INFO, cls_rbd.metadata_get(key))


async def listing(io: Io) -> dict[str, bytes]:
    """All pairs, ascending by key."""
    try:
        return await headers.metadata(io, names.INFO)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return {}


async def put(io: Io, key: str, value: bytes) -> None:
    """EINVAL where the key is that of an option, and pools have none such or the value is none of its."""
    try:
        validate_metadata(key, value.decode("utf-8", "surrogateescape"), Level.POOL)
    except OptionError as error:
        raise RadosError(errno.EINVAL, str(error)) from error
    await mutate(io, names.INFO, cls_rbd.metadata_set({key: value}))
    await _tell(io, key)


async def remove(io: Io, key: str) -> None:
    """ENOENT where there is none."""
    await get(io, key)
    await mutate(io, names.INFO, cls_rbd.metadata_remove(key))
    await _tell(io, key)


async def _tell(io: Io, key: str) -> None:
    """Where it is an option: have every client look at the pool's options anew, through an option of the cluster's own."""
    if key == METADATA_PREFIX or not key.startswith(METADATA_PREFIX):
        return
    command = {"prefix": "config set", "who": "global", "name": _SIGNAL, "value": str(int(time.time()))}
    with contextlib.suppress(RadosError):  # who may write to the pool need not be allowed this; new clients see it anyway
        await io.cluster.mon_command(command)


async def settings(io: Io) -> Settings:
    """The options of images in the pool that have none of their own."""
    return Settings(io.cluster.conf_get, await headers.pool_config(io))
