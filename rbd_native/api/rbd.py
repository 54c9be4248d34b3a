"""class RBD: what is done to a pool's images by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from rbd_native.api import unbuilt
from rbd_native.api.boundary import c_int, drive, name_text, shown, uint64, wish
from rbd_native.api.completion import Completion
from rbd_native.api.details import row
from rbd_native.api.group import GroupMethods
from rbd_native.api.image import Image
from rbd_native.api.mirror import MirrorMethods
from rbd_native.api.namespaces import NamespaceMethods
from rbd_native.api.pool import PoolMethods
from rbd_native.api.trash import TrashMethods
from rbd_native.constants import FEATURE_NAMES, RBD_FEATURES_ALL
from rbd_native.engine import may_block, run, spawn
from rbd_native.errors import InvalidArgument
from rbd_native.operations import by_name, clone, create, describe, listing, remove
from rbd_native.operations import old_format as old_formats
from rbd_native.operations.progress import Callback, Progress
from rbd_native.option_types import FEATURES
from rbd_native.rados.connect import port_for

_FORCE = "RBD_FORCE_ALLOW_V1"


@unbuilt.lacks(unbuilt.RBD)
class RBD(GroupMethods, MirrorMethods, NamespaceMethods, PoolMethods, TrashMethods):
    """Create, list, rename and remove images; it has no state."""

    def version(self) -> tuple[int, int, int]:
        """The version of librbd's interface that this module follows: (major, minor, extra)."""
        return (1, 16, 0)

    def create(
        self,
        ioctx: Any,
        name: str | bytes,
        size: int,
        order: int | None = None,
        old_format: bool = False,
        features: int | None = None,
        stripe_unit: int | None = None,
        stripe_count: int | None = None,
        data_pool: str | bytes | None = None,
    ) -> None:
        """Create an image of `size` bytes on objects of 2**order bytes.

        What is None comes from the configuration of the pool and the client (rbd_default_*). As in the binding,
        old_format leaves the format to the configuration (rbd_default_format), and forbids what format 1 cannot have. An
        image of format 1 is made only where RBD_FORCE_ALLOW_V1 is set in the environment, as librbd has it. Raises
        ImageExists, InvalidArgument, ArgumentOutOfRange (order), FunctionNotSupported (features), ImageNotFound (data
        pool, namespace).
        """
        text = name_text(name, "name")
        if old_format:
            if features or stripe_unit or stripe_count or data_pool:
                raise InvalidArgument(
                    "format 1 images do not support feature masks, non-default striping, nor data pool"
                )
            plain = wish(uint64(size), order, None, None, None, None, c_int)
            allowed = _FORCE in os.environ
            drive(old_formats.create(port_for(ioctx), text, plain, allowed=allowed), "error creating image")
            return
        wanted = wish(uint64(size), order, features, stripe_unit, stripe_count, data_pool, c_int)
        drive(create.create(port_for(ioctx), text, wanted), "error creating image")

    def aio_open_image(
        self,
        oncomplete: Callable[[Completion, Image], Any],
        ioctx: Any,
        name: str | bytes | None = None,
        snapshot: str | bytes | int | None = None,
        read_only: bool = False,
        image_id: str | bytes | None = None,
    ) -> Completion:
        """Begin to open an image; oncomplete(completion, image) is called when that has ended, well or not."""
        return Image(ioctx, name, snapshot, read_only, image_id, oncomplete).opening()

    def list(self, ioctx: Any) -> list[str]:
        """The names of the images, those of format 1 first, each kind by its bytes."""
        return [image["name"] for image in ImageIterator(ioctx) if image["name"]]

    def list2(self, ioctx: Any) -> ImageIterator:
        """Iterate over the images as dicts with keys id ("" for format 1) and name."""
        return ImageIterator(ioctx)

    def list_details(self, ioctx: Any) -> ImageDetailsIterator:
        """Iterate over the images, in the order of list2, with what their headers say of them; none is opened. The binding
        does not have it.

        Each is a dict with keys id ("" for format 1) and name; size, obj_size, num_objs, order, block_name_prefix as of
        :meth:`Image.stat`; old_format, features, flags, op_features, stripe_unit, stripe_count, create_timestamp,
        access_timestamp, modify_timestamp as those methods of an image give them; and

        - data_pool_id: -1 where the data is in the image's own pool;
        - parent: what a clone shares data with, a dict with keys pool_id, pool_namespace, image_id, snap_id and overlap
          (bytes); else None;
        - snapshots: oldest first, dicts with keys id, size, name, namespace (a type) and protected;
        - group: a dict with keys pool_id and group_id, or None;
        - lock: what :meth:`Image.list_lockers` gives, or None where nobody holds it.

        No name of a pool, parent or group is looked up. An image that is gone before its header is read is left out. One
        whose header cannot be read has but the keys id, name and error, the errno that opening it gives, too; the others
        follow.

        Images are listed and read as the iteration goes on, some in advance, so a pool may have any number of them; what is
        changed meanwhile shows or does not. Iterating again reads anew. ImageNotFound where there is no such pool.
        """
        return ImageDetailsIterator(ioctx)

    def clone(
        self,
        p_ioctx: Any,
        p_name: str | bytes,
        p_snapshot: str | int,
        c_ioctx: Any,
        c_name: str | bytes,
        features: int | None = None,
        order: int | None = None,
        stripe_unit: int | None = None,
        stripe_count: int | None = None,
        data_pool: str | bytes | None = None,
        clone_format: int | None = None,
    ) -> None:
        """Create an image that begins as another was at a snapshot (name or id). What is None is as the parent has it.

        clone_format: 1 (the snapshot must be protected), 2, or None for rbd_default_clone_format. Raises ImageNotFound,
        ImageExists, InvalidArgument, ArgumentOutOfRange (order), FunctionNotSupported (layering).
        """
        parent, name = name_text(p_name, "p_name"), name_text(c_name, "c_name")
        if isinstance(p_snapshot, int):
            snapshot: str | int = uint64(p_snapshot)
        elif isinstance(p_snapshot, str):
            snapshot = name_text(p_snapshot, "p_snapshot")
        else:
            raise TypeError("p_snapshot must be a string or an integer")
        wanted = wish(0, order, features, stripe_unit, stripe_count, data_pool)
        chosen = None if clone_format is None else uint64(clone_format)
        work = clone.clone(port_for(p_ioctx), parent, snapshot, port_for(c_ioctx), name, wanted, chosen)
        drive(work, "error creating clone")

    def remove(self, ioctx: Any, name: str | bytes, on_progress: Callback | None = None) -> None:
        """Remove an image and all its data; on_progress(done, total) hears of every object.

        Raises ImageNotFound, ImageBusy (open elsewhere), ImageHasSnapshots, ImageMemberOfGroup.
        """
        text = name_text(name, "name")
        drive(remove.remove(port_for(ioctx), text, Progress(on_progress)), "error removing image")

    def rename(self, ioctx: Any, src: str | bytes, dest: str | bytes) -> None:
        """Rename an image. Raises ImageNotFound, ImageExists."""
        source, destination = name_text(src, "src"), name_text(dest, "dest")
        drive(by_name.rename(port_for(ioctx), source, destination), "error renaming image")

    def features_from_string(self, str_features: str | bytes) -> int:
        """The bit mask of a comma-separated list of feature names, or of a number; "" gives the default features."""
        text = name_text(str_features, "str_features")
        try:
            return int(FEATURES.parse(text))
        except ValueError as error:
            raise InvalidArgument("error getting features bitmask from str", errno=22) from error

    def features_to_string(self, features: int) -> str:
        """The names of the bits of a mask, sorted, separated by commas. InvalidArgument for an unknown bit."""
        mask = uint64(features)
        if mask & ~RBD_FEATURES_ALL:
            raise InvalidArgument("error converting features bitmask to str", errno=22)
        return ",".join(sorted(name for name, bit in FEATURE_NAMES.items() if mask & bit))


class ImageIterator:
    """The images of a pool and namespace, as they were when it was made."""

    def __init__(self, ioctx: Any) -> None:
        self._images = drive(listing.images(port_for(ioctx)), "error listing images")

    def __iter__(self) -> Iterator[dict[str, str]]:
        for name, identifier in self._images:
            yield {"id": identifier, "name": shown(name)}




class ImageDetailsIterator:
    """The images of a pool and namespace and what their headers say, as they are when it comes to them."""

    def __init__(self, ioctx: Any) -> None:
        self._io = port_for(ioctx)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        images = describe.describe(self._io)

        async def advance() -> describe.Described | describe.Unreadable | None:
            async for image in images:
                return image
            return None

        try:
            while (image := drive(advance(), "error listing images")) is not None:
                yield row(image)
        finally:
            # Reads are under way where somebody stopped in the middle. They are waited for, unless this is the collector
            # at work in a thread that brings their ends.
            if may_block():
                run(images.aclose())
            else:
                spawn(images.aclose(), "end of a listing")
