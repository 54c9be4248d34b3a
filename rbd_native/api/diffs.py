"""The method of an image that tells what changed in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from rbd_native.api.boundary import c_int, drive, name_bytes, name_text, uint8, uint64
from rbd_native.image.context import ImageContext
from rbd_native.operations import diff
from rbd_native.rados.port import RadosError


class DiffMethods:
    """What class Image has of them."""

    name: bytes | str

    @property
    def _image(self) -> ImageContext:
        raise NotImplementedError

    def diff_iterate(
        self,
        offset: int,
        length: int,
        from_snapshot: str | bytes | int | None,
        iterate_cb: Callable[[int, int, bool], Any],
        include_parent: bool = True,
        whole_object: bool = False,
    ) -> None:
        """Call iterate_cb(offset, length, exists) for each extent of a range that changed, in ascending order.

        From a snapshot (name or id), or from the beginning of time (None), to what the image is set to: `exists` says
        whether there is data or it is zeros now. Where the callback raises, that ends it; where it returns a negative
        number, that is the errno it ends with. `include_parent`: from the beginning of time, tell of what a clone still
        shares with its parent too. `whole_object`: be content with whole objects, which object maps tell in no time.

        Raises ImageNotFound for the snapshot, InvalidArgument where it is newer than what the image is set to, or the
        range begins beyond the end.
        """
        image = self._image
        since: str | int | None = None
        given: bytes | int | None = None
        if isinstance(from_snapshot, int):
            since = given = uint64(from_snapshot)
        elif from_snapshot is not None:
            since, given = name_text(from_snapshot, "from_snapshot"), name_bytes(from_snapshot, "from_snapshot")
        start, size = uint64(offset), uint64(length)
        parent, whole = bool(uint8(include_parent)), bool(uint8(whole_object))

        async def work() -> None:
            found = diff.changes(image, start, size, since, include_parent=parent, whole_object=whole)
            async with aclosing(found) as batches:
                async for batch in batches:
                    for extent in batch:
                        result = iterate_cb(*extent)
                        if result is not None and (code := c_int(result)) < 0:
                            raise RadosError(-code, "ended by the callback")

        drive(work(), "error generating diff from snapshot %s", given)
