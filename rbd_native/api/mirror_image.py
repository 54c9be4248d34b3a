"""The methods of an image about its mirroring."""

from __future__ import annotations

from typing import Any

from rbd_native.api.boundary import drive, shown, uint32
from rbd_native.api.completion import Completion, OnComplete
from rbd_native.api.mirror import info_row, site_statuses
from rbd_native.constants import RBD_MIRROR_IMAGE_MODE_JOURNAL
from rbd_native.image.context import ImageContext
from rbd_native.operations import mirror_image


class MirrorImageMethods:
    """What class Image has of them."""

    name: bytes | str

    @property
    def _image(self) -> ImageContext:
        raise NotImplementedError

    def id(self) -> str:
        raise NotImplementedError

    # --- turn it on and off ---

    def mirror_image_enable(self, mode: int = RBD_MIRROR_IMAGE_MODE_JOURNAL) -> None:
        """Mirror the image, by its journal or by snapshots (RBD_MIRROR_IMAGE_MODE_*). Raises InvalidArgument (the pool is
        not mirrored image by image, the parent not at all, or the image in another way), FunctionNotSupported (journal)."""
        work = mirror_image.enable(self._image, uint32(mode))
        drive(work, "error enabling mirroring for image %s", self.name)

    def mirror_image_disable(self, force: bool) -> None:
        """No longer mirror it, even, with `force`, if it is primary at another site. Raises InvalidArgument, ImageBusy (a
        clone of it is mirrored)."""
        work = mirror_image.disable(self._image, force=bool(force))
        drive(work, "error disabling mirroring for image %s", self.name)

    def mirror_image_promote(self, force: bool) -> None:
        """Make it primary at this site: from here on it is written here. Raises InvalidArgument (it is not mirrored, or is
        primary), ImageBusy (primary at another site, and not `force`)."""
        work = mirror_image.promote(self._image, force=bool(force))
        drive(work, "error promoting image %s to primary", self.name)

    def mirror_image_demote(self) -> None:
        """From here on nobody writes to it, until it is promoted here or elsewhere. Raises InvalidArgument (not mirrored,
        or not primary), ReadOnlyImage (another client keeps the lock)."""
        drive(mirror_image.demote(self._image), "error demoting image %s to secondary", self.name)

    def mirror_image_resync(self) -> None:
        """Have all of it copied anew from the site where it is primary. Raises InvalidArgument (it is not mirrored, or is
        primary)."""
        drive(mirror_image.resync(self._image), "error to resync image %s", self.name)

    def mirror_image_create_snapshot(self, flags: int = 0) -> int:
        """Take a snapshot for the other sites; its id. `flags`: RBD_SNAP_CREATE_*. Raises InvalidArgument (flags; not
        mirrored by snapshots, not primary, or no site to receive it)."""
        work = mirror_image.create_snapshot(self._image, uint32(flags))
        return drive(work, "error creating mirror snapshot for image %s", self.name)

    def aio_mirror_image_create_snapshot(self, flags: int, oncomplete: OnComplete) -> Completion:
        """The same; oncomplete(completion, snap_id), with None for the id where it failed."""
        return Completion(mirror_image.create_snapshot(self._image, uint32(flags)), oncomplete, data=True)

    # --- what is known ---

    def mirror_image_get_info(self) -> dict[str, Any]:
        """Keys global_id, state (RBD_MIRROR_IMAGE_*: DISABLED where it is not mirrored) and primary."""
        found = drive(mirror_image.info(self._image), "error getting mirror info for image %s", self.name)
        return info_row(found)

    def aio_mirror_image_get_info(self, oncomplete: OnComplete) -> Completion:
        """The same; oncomplete(completion, info), with None for info where it failed."""
        return Completion(_info(self._image), oncomplete, data=True)

    def mirror_image_get_mode(self) -> int:
        """RBD_MIRROR_IMAGE_MODE_*. Raises InvalidArgument where it is not mirrored."""
        return int(drive(mirror_image.mode(self._image), "error getting mirror mode for image %s", self.name))

    def aio_mirror_image_get_mode(self, oncomplete: OnComplete) -> Completion:
        """The same; oncomplete(completion, mode), with None for mode where it failed."""
        return Completion(_mode(self._image), oncomplete, data=True)

    def mirror_image_get_status(self) -> dict[str, Any]:
        """Keys name, id, info (as :meth:`mirror_image_get_info`); state, description, last_update and up, as the local
        site says; and remote_statuses, a list of dicts with the same four and mirror_uuid."""
        image = self._image
        found, sites = drive(mirror_image.status(image), "error getting mirror status for image %s", self.name)
        return {"name": shown(image.name), "id": self.id(), "info": info_row(found), **site_statuses(sites)}

    def mirror_image_get_instance_id(self) -> str:
        """The id of the daemon that serves the image. Raises InvalidArgument (not mirrored), ImageNotFound (none does)."""
        work = mirror_image.instance(self._image)
        return str(drive(work, "error getting mirror instance id for image %s", self.name))


async def _info(image: ImageContext) -> dict[str, Any]:
    return info_row(await mirror_image.info(image))


async def _mode(image: ImageContext) -> int:
    return int(await mirror_image.mode(image))
