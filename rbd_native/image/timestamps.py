"""When an image was last read and written, as its header tells: brought up to date now and then, never waited for.

The interval of `rbd_atime_update_interval` and `rbd_mtime_update_interval` is in seconds; 0 leaves the stamp alone. The
stamp itself is the OSD's clock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rbd_native import cls_rbd
from rbd_native.cls_client import ClassCall
from rbd_native.encoding import UTime
from rbd_native.options import Settings

if TYPE_CHECKING:
    from rbd_native.header import Header
    from rbd_native.image.context import ImageContext

_NEVER = float("inf")


def _now() -> UTime:
    return UTime(*divmod(time.time_ns(), 10**9))


class Timestamps:
    """The moments from which on the next read, or write, stamps the header."""

    def __init__(self, image: ImageContext) -> None:
        self._image = image
        self.accessed = self.modified = UTime()
        """When, as far as this handle knows."""
        self._read_due = self._write_due = _NEVER
        self._intervals = (0, 0)

    def follow(self, header: Header, settings: Settings) -> None:
        """What the header says, and the options."""
        reads = settings.integer("rbd_atime_update_interval")
        writes = settings.integer("rbd_mtime_update_interval")
        self._intervals = reads, writes
        # A header of format 1 does not say: there, what this handle did is all that is known.
        self.accessed = header.accessed if any(header.accessed) else self.accessed
        self.modified = header.modified if any(header.modified) else self.modified
        self._read_due = self.accessed.sec + reads if reads else _NEVER
        self._write_due = self.modified.sec + writes if writes else _NEVER

    def read(self) -> None:
        """The image is being read."""
        if time.time() >= self._read_due:
            self.accessed = _now()
            self._read_due = self.accessed.sec + self._intervals[0]
            if not self._image.read_only:
                self._stamp(cls_rbd.set_access_timestamp())

    def written(self) -> None:
        """The image is being written."""
        if time.time() >= self._write_due:
            self.modified = _now()
            self._write_due = self.modified.sec + self._intervals[1]
            self._stamp(cls_rbd.set_modify_timestamp())

    def _stamp(self, request: ClassCall[None]) -> None:
        image = self._image

        async def send() -> None:
            await image.io.write(image.header_oid, [request.step])

        image.background.spawn(send(), f"{image.header_oid}: time stamp")
