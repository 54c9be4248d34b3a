"""What is done to an image that is given by its name, and is open only for as long as that takes."""

from __future__ import annotations

from rbd_native.operations import rename as renaming
from rbd_native.operations.open import open_image
from rbd_native.rados.port import Io


async def rename(io: Io, source: str, destination: str) -> None:
    """ENOENT without the image, EEXIST where the new name is taken, EINVAL for ""."""
    image = await open_image(io, name=source)
    try:
        await renaming.rename(image, destination)
    finally:
        await image.close()
