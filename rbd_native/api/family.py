"""The methods of an image about its parent and its clones."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from rbd_native.api.boundary import drive, shown
from rbd_native.image.context import ImageContext
from rbd_native.operations import family, flatten, snapshots
from rbd_native.operations.progress import Callback, Progress
from rbd_native.rados.port import RadosError


class FamilyMethods:
    """What class Image has of them."""

    name: bytes | str

    @property
    def _image(self) -> ImageContext:
        raise NotImplementedError

    def _at_snapshot(self, what: str) -> ImageContext:
        raise NotImplementedError

    def overlap(self) -> int:
        """Bytes from the start that a clone shares with its parent; 0 for other images."""
        return self._at_snapshot("overlap").overlap

    def get_parent_image_spec(self) -> dict[str, Any]:
        """Keys pool_id, pool_name, pool_namespace, image_id, image_name, trash, snap_id, snap_namespace_type, snap_name.

        Raises ImageNotFound for an image that is no clone.
        """

        async def look() -> dict[str, Any]:
            image = self._image
            if image.stale:
                await image.fresh()
            if image.parent is None or not image.overlap:
                raise RadosError(errno.ENOENT, "no parent")
            found = await family.relative(image.parent.io, image.parent.id)
            snapshot = snapshots.with_id(image.parent, image.parent.read_snap)
            return {
                "pool_id": found.pool_id,
                "pool_name": found.pool_name,
                "pool_namespace": found.pool_namespace,
                "image_id": found.image_id,
                "image_name": shown(found.image_name),
                "trash": found.trash,
                "snap_id": snapshot.info.id,
                "snap_namespace_type": int(snapshot.info.namespace.type),
                "snap_name": shown(snapshot.info.name),
            }

        return drive(look(), "error getting parent info for image %s", self.name)

    def parent_info(self) -> tuple[str, str, str]:
        """(pool name, image name, snapshot name) of the parent. Raises ImageNotFound."""
        spec = self.get_parent_image_spec()
        return spec["pool_name"], spec["image_name"], spec["snap_name"]

    def parent_id(self) -> str:
        """The image id of the parent. Raises ImageNotFound."""
        identifier: str = self.get_parent_image_spec()["image_id"]
        return identifier

    def list_children(self) -> list[tuple[str, str]]:
        """(pool name, image name) of the clones of the snapshot the image is set to, or of all its snapshots; without
        those in the trash."""
        found = drive(family.children(self._image), "error listing children.")
        return [(child.pool_name, shown(child.image_name)) for child in found if not child.trash]

    def list_children2(self) -> ChildIterator:
        """As list_children, trash included: dicts with keys pool, pool_namespace, image, id and trash."""
        return ChildIterator(self)

    def list_descendants(self) -> ChildIterator:
        """As list_children2, and the clones of the clones, all the way down."""
        return ChildIterator(self, True)

    def flatten(self, on_progress: Callback | None = None) -> None:
        """Copy what a clone still shares with its parent, and part from it. Raises InvalidArgument for other images."""
        drive(flatten.flatten(self._image, Progress(on_progress)), "error flattening %s", self.name)


class ChildIterator:
    """The clones of an image as they were when it was made."""

    def __init__(self, image: FamilyMethods, descendants: bool = False) -> None:
        find = family.descendants if descendants else family.children
        self._children = drive(find(image._image), "error listing children.")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for child in self._children:
            yield {
                "pool": child.pool_name,
                "pool_namespace": child.pool_namespace,
                "image": shown(child.image_name),
                "id": child.image_id,
                "trash": child.trash,
            }
