"""Create and remove images of format 1: a header named after the image, and a line in the directory's table.

Creating enters the name first; removing gives up the data, then the header, then the name. A client that dies in between
leaves a name without a header, which may be created again or removed.
"""

from __future__ import annotations

import errno
import secrets

from rbd_native import format1, header_v1, names
from rbd_native import header as headers
from rbd_native.operations import create as format2
from rbd_native.operations import erase
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.operations.resize import trim
from rbd_native.options import Settings
from rbd_native.rados.port import Io, RadosError, Write

# --- create ----------------------------------------------------------------------------------------------------------


async def create(io: Io, name: str, wish: format2.Wish, *, allowed: bool) -> None:
    """Create an image in the format that the client's configuration says. For format 1 the caller must be allowed to, and
    be in no namespace: EINVAL. EEXIST, EDOM (order)."""
    settings = Settings(io.cluster.conf_get, {})
    if settings.integer("rbd_default_format") != 1:
        await format2.create(io, name, wish)
        return
    await headers.unused(io, name)
    order = format2.order_of(wish, settings)
    if not allowed or io.namespace:
        raise RadosError(errno.EINVAL, "images of format 1 are not made any more, and never in namespaces")
    await header_v1.relist(io, add=name)
    prefix = _prefix(io.cluster.instance_id())
    await io.write(names.old_header(name), [Write(0, format1.new_header(prefix, order, wish.size))])


def _prefix(instance: int) -> str:
    high, low = divmod(instance, 2**32)
    return f"rb.{high:x}.{low:x}.{secrets.randbits(32):x}"


# --- remove ----------------------------------------------------------------------------------------------------------


async def remove(io: Io, name: str, progress: Progress | None = None) -> None:
    """ENOENT, ENOTEMPTY (snapshots), EBUSY (open elsewhere)."""
    there = await headers.exists(io, names.old_header(name))
    if there:
        await _content(io, name, progress)
        await erase.gone(io, names.old_header(name))
    if not await header_v1.relist(io, remove=name) and not there:
        raise RadosError(errno.ENOENT, name)


async def _content(io: Io, name: str, progress: Progress | None) -> None:
    image = await open_image(io, name=name)
    try:
        await erase.removable(image)
        await trim(image, 0, image.header.size, progress)
    finally:
        await image.close()
