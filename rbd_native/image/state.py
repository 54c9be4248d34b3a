"""What a handle knows of its image: one value, replaced whole, never changed.

Whoever reads or writes takes all that it needs from one and the same state: a size and a snapshot context of two moments,
or an overlap and a parent that do not belong together, lose data. `covers` tells how current it is: it counts the updates
that had been announced before the header was read. A handle acts on no state that covers less than was announced when
the act began (:meth:`rbd_native.image.context.ImageContext.refresh`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rbd_native.constants import RBD_FEATURE_EXCLUSIVE_LOCK
from rbd_native.header import Header, Snapshot
from rbd_native.options import Settings
from rbd_native.rados.port import HEAD, AllocHint
from rbd_native.striping import Layout
from rbd_native.types import ParentImageSpec

if TYPE_CHECKING:
    from rbd_native.image.context import ImageContext

NOTHING: Final = -1
"""What a state covers that is not to be acted on: nothing."""

_COMPRESSION_HINTS: Final = {"compressible": 256, "incompressible": 512}
"""The flags of an allocation hint: LIBRADOS_ALLOC_HINT_FLAG_*."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """`parent`: the parent as it is open, None where nothing is shared with it; `parent_spec`: which that is. `snapshot`:
    the one that the handle is set to, `snapshot_gone`: it was removed. `hints`: what a write tells the OSD of an object
    that may be new."""

    covers: int
    header: Header
    pool_config: Mapping[str, bytes]
    settings: Settings
    hints: tuple[AllocHint, ...]
    parent: ImageContext | None = None
    parent_spec: ParentImageSpec | None = None
    snapshot: Snapshot | None = None
    snapshot_gone: bool = False

    @property
    def size(self) -> int:
        """Bytes, at the snapshot the handle is set to; 0 where that is gone."""
        if self.snapshot_gone:
            return 0
        return self.header.size if self.snapshot is None else self.snapshot.info.image_size

    @property
    def overlap(self) -> int:
        """Bytes from the start that the parent has, where this image has no object; 0 without a parent."""
        return self.header.parent_overlap if self.snapshot is None else self.snapshot.parent_overlap

    @property
    def read_snap(self) -> int:
        """The snapshot id that reads carry."""
        return HEAD if self.snapshot is None else self.snapshot.info.id

    @property
    def flags(self) -> int:
        return self.header.flags if self.snapshot is None else self.snapshot.flags

    @property
    def has_lock(self) -> bool:
        return bool(self.header.features & RBD_FEATURE_EXCLUSIVE_LOCK)

    def at(self, snapshot: Snapshot | None) -> ImageState:
        """The same of a handle that is set to a snapshot, or to the head."""
        return replace(self, snapshot=snapshot, snapshot_gone=False)

    def follow(self, before: ImageState) -> ImageState:
        """The same of a handle that is set to what it was set to before: that snapshot's record may have changed."""
        if before.snapshot is None:
            return self
        at = before.snapshot.info.id
        found = next((snapshot for snapshot in self.header.snapshots if snapshot.info.id == at), None)
        return replace(self, snapshot=found or before.snapshot, snapshot_gone=found is None)


def widest_overlap(header: Header) -> int:
    """The overlap of the head or of that snapshot where it is widest."""
    return max(header.parent_overlap, *(snapshot.parent_overlap for snapshot in header.snapshots), 0)


def allocation_hints(settings: Settings, layout: Layout) -> tuple[AllocHint, ...]:
    """As the image's options want them."""
    if not settings.flag("rbd_enable_alloc_hint"):
        return ()
    size = layout.object_size
    return (AllocHint(size, size, _COMPRESSION_HINTS.get(settings.text("rbd_compression_hint"), 0)),)
