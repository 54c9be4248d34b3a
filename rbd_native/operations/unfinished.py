"""Take away an image that could not be finished: what fails leaves nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from rbd_native import header as headers
from rbd_native.operations import remove, snap_remove, snapshots
from rbd_native.operations.open import open_image
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import ProtectionStatus


@contextlib.asynccontextmanager
async def whole_or_nothing(io: Io, name: str, identifier: str) -> AsyncIterator[None]:
    """Where what is done inside fails, take the new image of that name and id away. By then it is closed."""
    try:
        yield
    except GeneratorExit:  # nobody is there any more to wait for anything
        raise
    except BaseException:
        await take_away(io, name, identifier)
        raise


async def take_away(io: Io, name: str, identifier: str) -> None:
    """Remove the image of that id, with its snapshots, while it still has that name. Nobody has it open any more.

    The error for which it is taken away is the one that counts: what cannot be removed now stays under its name.
    """
    with contextlib.suppress(RadosError):
        if await headers.id_of(io, name) != identifier:
            return
        with contextlib.suppress(RadosError):  # without a header, there are no snapshots
            await _without_snapshots(io, name, identifier)
        await remove.remove(io, name)


async def _without_snapshots(io: Io, name: str, identifier: str) -> None:
    image = await open_image(io, name=name, identifier=identifier, with_parent=False)
    try:
        for snapshot in image.header.snapshots:
            if snapshot.protection != ProtectionStatus.UNPROTECTED:
                await snapshots.unprotect(image, snapshot.info.name)
                await image.fresh()
            await snap_remove.remove(image, snapshots.with_id(image, snapshot.info.id))
    finally:
        await image.close()
