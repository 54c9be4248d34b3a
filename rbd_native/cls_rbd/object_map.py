"""Class `rbd` on object maps. A whole map is the bytes of :mod:`rbd_native.object_map`."""

from __future__ import annotations

from rbd_native.cls_client import READ, READ_WRITE, method
from rbd_native.encoding import rest, u8, u64


@method("rbd", READ)
def object_map_load() -> rest:
    """The map, without checksums. ENOENT missing or empty, EINVAL corrupt."""


@method("rbd", READ_WRITE)
def object_map_save(bit_vector: rest) -> None:
    """Replace the map; it is stored with checksums."""


@method("rbd", READ_WRITE)
def object_map_resize(object_count: u64, default_state: u8) -> None:
    """New entries get the given state; ESTALE where an entry that goes has another one. EINVAL over the
    limit.
    """


@method("rbd", READ_WRITE)
def object_map_update(start: u64, end: u64, state: u8, expected: u8 | None) -> None:
    """Set the entries of [start, end) that have the expected state (None: any; 1 means 1 or 3).

    ENOENT, ERANGE. Two of them in one operation: the first is lost.
    """


@method("rbd", READ_WRITE)
def object_map_snap_add() -> None:
    """A snapshot was taken: all that exists is clean."""


@method("rbd", READ_WRITE)
def object_map_snap_remove(removed: rest) -> None:
    """On the map of the next newer state: what the removed snapshot had changed is not clean any more."""
