"""Ask every client that has an image open to hold still while a snapshot is taken."""

from __future__ import annotations

import errno

from rbd_native.image.context import ImageContext
from rbd_native.image.exclusive_lock import NOTIFY_TIMEOUT_MS
from rbd_native.rados.port import NotifyReply, RadosError
from rbd_native.watch_notify import (
    AsyncRequestId,
    Quiesce,
    Unquiesce,
    acknowledgements,
    encode_message,
)

_NO_HOOKS = -errno.EOPNOTSUPP


async def quiesce(image: ImageContext, request: AsyncRequestId, *, ignore_errors: bool) -> None:
    """Ask, again where some do not answer in time. RadosError with the errno of a client that cannot hold still."""
    attempts = image.settings.integer("rbd_quiesce_notification_attempts")
    results = [-errno.ETIMEDOUT]
    while attempts and -errno.ETIMEDOUT in results:
        attempts -= 1
        reply: NotifyReply = await image.io.notify(image.header_oid, encode_message(Quiesce(request)), NOTIFY_TIMEOUT_MS)
        results = acknowledgements(reply) + [-errno.ETIMEDOUT] * len(reply.timeouts)
    refused = [result for result in results if result < 0 and result != _NO_HOOKS]
    if refused and not ignore_errors:
        await unquiesce(image, request)
        raise RadosError(-refused[0], f"image {image.name} was not quiesced")


async def unquiesce(image: ImageContext, request: AsyncRequestId) -> None:
    """Let them go on."""
    await image.io.notify(image.header_oid, encode_message(Unquiesce(request)), NOTIFY_TIMEOUT_MS)
