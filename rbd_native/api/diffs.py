"""The method of an image that tells what changed in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from rbd_native.api.boundary import c_int, drive, name_text, uint8, uint64
from rbd_native.image.context import ImageContext
from rbd_native.interrupts import allowed
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
        from_snapshot: str | int | None,
        iterate_cb: Callable[[int, int, bool], Any],
        include_parent: bool = True,
        whole_object: bool = False,
    ) -> None:
        """Call iterate_cb(offset, length, exists) for each extent of a range that changed, in ascending order.

        From a snapshot (name or id), or from the beginning of time (None or 0), to what the image is set to: `exists` says
        whether there is data or it is zeros now. Where the callback raises, that ends it; where it returns a negative
        number, that is the errno it ends with. `include_parent`: from the beginning of time, tell of what a clone still
        shares with its parent too. `whole_object`: be content with whole objects, which object maps tell in no time.

        Raises ImageNotFound for the snapshot, InvalidArgument where it is newer than what the image is set to, or the
        range begins beyond the end.
        """
        image = self._image
        since, given = _version(from_snapshot)
        start, size = uint64(offset), uint64(length)
        parent, whole = bool(uint8(include_parent)), bool(uint8(whole_object))

        async def work() -> None:
            found = diff.changes(image, start, size, since, include_parent=parent, whole_object=whole)
            async with aclosing(found) as batches:
                async for batch in batches:
                    with allowed():  # else who walks through a large image could not be stopped
                        for extent in batch:
                            result = iterate_cb(*extent)
                            if result is not None and (code := c_int(result)) < 0:
                                raise RadosError(-code, "ended by the callback")

        drive(work(), "error generating diff from snapshot %s", given)


def _version(snapshot: str | int | None) -> tuple[str | int | None, str]:
    """What to begin with, None for the beginning of time, and how messages call it. TypeError."""
    if snapshot is None:
        return None, "id 0"
    if isinstance(snapshot, int):
        return uint64(snapshot) or None, f"id {int(snapshot)}"
    if isinstance(snapshot, str):
        return name_text(snapshot, "from_snapshot"), snapshot
    raise TypeError("from_snapshot must be a string or an integer")
