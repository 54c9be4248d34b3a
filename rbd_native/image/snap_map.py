"""The object map of a snapshot that a handle is set to: spares reads of objects that are not there.

What a snapshot does not have it will not get, unless it shares data with a parent, which may be brought to it, or is being
mirrored from another site. So the map of any other is good for as long as the handle is set to it. It is fetched once an
object was found missing; until it has come, if it ever does, and where it is damaged or said to be invalid, any object may
be there. (librbd fetches it when it opens the image, and uses it for all of them.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call
from rbd_native.constants import (
    RBD_FEATURE_JOURNALING,
    RBD_FEATURE_NON_PRIMARY,
    RBD_FEATURE_OBJECT_MAP,
    RBD_FLAG_OBJECT_MAP_INVALID,
    RBD_MAX_OBJECT_MAP_OBJECTS,
)
from rbd_native.object_map import BitVector, ObjectMapCorrupt, ObjectState
from rbd_native.rados.port import HEAD, RadosError

if TYPE_CHECKING:
    from rbd_native.header import Snapshot
    from rbd_native.image.context import ImageContext

_MIRRORED = RBD_FEATURE_NON_PRIMARY | RBD_FEATURE_JOURNALING


class SnapMap:
    """Of one open image."""

    def __init__(self, image: ImageContext) -> None:
        self._image = image
        self._asked = HEAD
        self._known: tuple[int, BitVector] = (HEAD, BitVector())

    def may_exist(self, objectno: int) -> bool:
        """Whether the object may be there, at the snapshot that the handle is set to."""
        snap, bits = self._known
        if snap == HEAD or snap != self._image.read_snap:
            return True
        try:
            return bits[objectno] is not ObjectState.NONEXISTENT
        except IndexError:  # beyond its end
            return True

    def missed(self) -> None:
        """An object was not there: there may be more of them."""
        image, snapshot = self._image, self._image.snap
        if snapshot is None or snapshot.info.id == self._asked:
            return
        self._asked = snapshot.info.id
        if self._good(snapshot):
            image.background.spawn(self._fetch(snapshot), f"{image.name}: object map of snapshot {snapshot.info.id}")

    async def whole(self) -> BitVector | None:
        """All of it, for whoever goes through all objects. None where it is not to be had, or tells nothing."""
        snapshot = self._image.snap
        if snapshot is None or not self._good(snapshot):
            return None
        if self._known[0] != snapshot.info.id:
            self._asked = snapshot.info.id
            await self._fetch(snapshot)
        snap, bits = self._known
        return bits if snap == snapshot.info.id else None

    def _good(self, snapshot: Snapshot) -> bool:
        image = self._image
        return (
            image.header.features & (RBD_FEATURE_OBJECT_MAP | _MIRRORED) == RBD_FEATURE_OBJECT_MAP
            and not snapshot.parent_overlap
            and not snapshot.flags & RBD_FLAG_OBJECT_MAP_INVALID
            and image.layout.object_count(snapshot.info.image_size) <= RBD_MAX_OBJECT_MAP_OBJECTS
        )

    async def _fetch(self, snapshot: Snapshot) -> None:
        image, snap = self._image, snapshot.info.id
        try:
            raw: bytes = await call(image.io, names.object_map(image.id, snap), cls_rbd.object_map_load())
            bits = BitVector.decode(raw)
        except (RadosError, ObjectMapCorrupt):
            return  # it is only a help
        if len(bits) >= image.layout.object_count(snapshot.info.image_size):
            self._known = (snap, bits)
