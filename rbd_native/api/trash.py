"""The methods of class RBD about the trash."""

from __future__ import annotations

import calendar
import datetime
import time
from collections.abc import Iterator
from typing import Any

from rbd_native.api.boundary import c_float, c_int, drive, moment, name_text, shown, uint64
from rbd_native.operations import purge, trash
from rbd_native.operations.progress import Callback, Progress
from rbd_native.rados.connect import port_for
from rbd_native.types import TrashImageSource, TrashImageSpec


class TrashMethods:
    """What class RBD has of them."""

    def trash_move(self, ioctx: Any, name: str | bytes, delay: int = 0) -> None:
        """Move an image to the trash, to be kept for `delay` seconds at least.

        Raises ImageNotFound, ImageBusy (another client keeps the lock), ImageMemberOfGroup.
        """
        text = name_text(name, "name")
        drive(trash.move(port_for(ioctx), text, uint64(delay)), "error moving image to trash")

    def trash_purge(
        self, ioctx: Any, expire_ts: datetime.datetime | None = None, threshold: float = purge.ANY_USAGE
    ) -> None:
        """Remove the images that users put into the trash and that need not be kept any longer.

        expire_ts: as of when (default: now); without a time zone, it is local time. threshold: from 0 to 1; images that are
        to be kept go too, until no more than that part of the pool is in use, and nothing goes where it is not more.

        Raises InvalidArgument (threshold), and what an image that was to go is kept by: ImageHasSnapshots, ImageBusy.
        """
        until = 0
        if expire_ts:
            # In which zone a time stands that does not say it is the binding's choice.
            aware = expire_ts.tzinfo is not None
            until = calendar.timegm(expire_ts.utctimetuple()) if aware else int(time.mktime(expire_ts.timetuple()))
        drive(purge.purge(port_for(ioctx), until, c_float(threshold)), "error purging images from trash")

    def trash_remove(
        self, ioctx: Any, image_id: str | bytes, force: bool = False, on_progress: Callback | None = None
    ) -> None:
        """Remove an image that is in the trash, and its data; on_progress(done, total) hears of every object.

        Raises ImageNotFound, PermissionError (it is to be kept, and not `force`), ImageHasSnapshots, ImageBusy (open,
        locked or being restored), ImageMemberOfGroup, OSError with errno EUCLEAN (still being moved to the trash).
        """
        identifier = name_text(image_id, "image_id")
        forced = bool(c_int(force))
        work = trash.remove(port_for(ioctx), identifier, force=forced, progress=Progress(on_progress))
        drive(work, "error deleting image from trash")

    def trash_get(self, ioctx: Any, image_id: str | bytes) -> dict[str, Any]:
        """Keys id, name, source ("USER", "MIRRORING", "MIGRATION", "REMOVING", "USER_PARENT"), deletion_time and
        deferment_end_time (with time zone). Raises ImageNotFound."""
        identifier = name_text(image_id, "image_id")
        spec = drive(trash.get(port_for(ioctx), identifier), "error retrieving image from trash")
        return _entry(identifier, spec)

    def trash_list(self, ioctx: Any) -> TrashIterator:
        """Iterate over the images in the trash, by id, as dicts such as :meth:`trash_get` gives."""
        return TrashIterator(ioctx)

    def trash_restore(self, ioctx: Any, image_id: str | bytes, name: str | bytes) -> None:
        """Give an image in the trash a name again, "" for the one it had.

        Raises ImageNotFound, ImageExists, ImageBusy (being moved or removed), InvalidArgument (not users' to restore).
        """
        identifier, text = name_text(image_id, "image_id"), name_text(name, "name")
        drive(trash.restore(port_for(ioctx), identifier, text), "error restoring image from trash")


class TrashIterator:
    """The trash as it was when it was made."""

    def __init__(self, ioctx: Any) -> None:
        self._entries = drive(trash.listing(port_for(ioctx)), "error listing trash entries")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for identifier, spec in self._entries:
            yield _entry(identifier, spec)


def _entry(identifier: str, spec: TrashImageSpec) -> dict[str, Any]:
    known = isinstance(spec.source, TrashImageSource)
    return {
        "id": shown(identifier),
        "name": shown(spec.name),
        "source": spec.source.name if known else f"UNKNOWN_{spec.source}",
        "deletion_time": moment(spec.deletion_time),
        "deferment_end_time": moment(spec.deferment_end),
    }
