"""Whether a pool can hold images: it must allow overwrites and self-managed snapshots.

What was found out is written into `rbd_info` of the pool, so that it is asked once in a pool's life.
"""

from __future__ import annotations

import errno

from rbd_native import names
from rbd_native.rados.port import Create, Io, RadosError, Read, Write

_PROBE = b"validate"


async def validate(io: Io) -> None:
    """Prove it, unless that was done before. EINVAL where the pool cannot hold images."""
    info = io.in_namespace("")
    reply = await info.read(names.INFO, [Read(0, 0)]).bare()
    if reply.rv == 0 and reply.outs[0] == names.VALIDATED:
        return
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, names.INFO)
    try:
        snap = await info.snap_create()
    except RadosError as error:
        raise RadosError(errno.EINVAL, "the pool keeps pool snapshots: it cannot hold images") from error
    try:
        await info.write(names.INFO, [Create(exclusive=False), Write(0, _PROBE)])
    finally:
        await info.snap_remove(snap)
    try:
        await info.write(names.INFO, [Write(0, names.VALIDATED)])
    except RadosError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise RadosError(errno.EINVAL, "the pool does not allow overwrites") from error
