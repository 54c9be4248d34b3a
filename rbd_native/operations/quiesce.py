"""Ask every client that has an image open to hold still while a snapshot is taken."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Sequence

from rbd_native.engine import for_each, gather
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

log = logging.getLogger(__name__)

_AT_ONCE = 32
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


@contextlib.asynccontextmanager
async def quiesced(images: Sequence[ImageContext], *, ignore_errors: bool) -> AsyncIterator[None]:
    """Several images hold still for as long as the block takes; where one does not, none is kept waiting."""
    asked = [(image, image.requests.new_id()) for image in images]

    async def ask(image: ImageContext, request: AsyncRequestId) -> RadosError | None:
        try:
            await quiesce(image, request, ignore_errors=ignore_errors)
        except RadosError as error:
            return error
        return None

    async def let_go(image: ImageContext, request: AsyncRequestId) -> None:
        try:
            await unquiesce(image, request)
        except RadosError as error:
            log.warning("clients of image %s may wait for longer: %s", image.name, error)

    refusals = await gather([ask(image, request) for image, request in asked], _AT_ONCE)
    try:
        for refusal in refusals:
            if refusal is not None:
                raise refusal
        yield
    finally:
        still = [pair for pair, refusal in zip(asked, refusals, strict=True) if refusal is None]
        await for_each([let_go(image, request) for image, request in still], _AT_ONCE)
