"""What changed in the objects of an image from each of its versions to the next, for whoever goes through all of them.

Each object is asked once for its own record, which tells every byte that was written and every one that was given up. One
that no object map has ever seen is not asked at all.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call
from rbd_native.constants import RBD_FEATURE_OBJECT_MAP, RBD_MAX_OBJECT_MAP_OBJECTS
from rbd_native.engine import for_each
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.object_map import BitVector, ObjectMapCorrupt, ObjectState
from rbd_native.operations.rebuild_object_map import serving
from rbd_native.rados.port import HEAD, ListSnaps, RadosError, SnapSet
from rbd_native.snap_diff import object_changes
from rbd_native.types import UserSnapshotNamespace


class Version(NamedTuple):
    """A state of an image. `snapshot`: the user's that keeps it, if one does. `flags`: of its object map. `overlap`: bytes
    from the start that the parent has."""

    snapshot: Snapshot | None
    snap: int
    size: int
    flags: int
    overlap: int


def versions_of(image: ImageContext, last: int) -> list[Version]:
    """Oldest first: the users' snapshots up to the id `last`, and what that is itself: the head, or a snapshot that is no
    user's. ENOENT where there is no such snapshot."""
    found: list[Version] = []
    header = image.header
    for snapshot in reversed(header.snapshots):
        kept = isinstance(snapshot.info.namespace, UserSnapshotNamespace)
        if (snapshot.info.id < last and kept) or snapshot.info.id == last:
            version = Version(None, snapshot.info.id, snapshot.info.image_size, snapshot.flags, snapshot.parent_overlap)
            found.append(version._replace(snapshot=snapshot) if kept else version)
    if last == HEAD:
        found.append(Version(None, HEAD, header.size, header.flags, header.parent_overlap))
    elif not found or found[-1].snap != last:
        raise RadosError(errno.ENOENT, f"snapshot {last} of {image.name}")
    return found


class Kind(IntEnum):
    """What became of a range of an object."""

    ZEROS = 0  # there is nothing any more
    DATA = 1  # it was written
    ANYTHING = 2  # it is to be looked at: there is data, or nothing


Piece = tuple[int, int, Kind]
"""(start, end, kind), in bytes of an object."""

_FIELD = 30
_MASK = (1 << _FIELD) - 1
"""More than an object has bytes."""


class Changes:
    """The pieces of many objects, of which each was added at once."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._pieces = array("Q")
        self.objects = 0
        """How many there are."""

    def add(self, objectno: int, pieces: Sequence[Piece]) -> None:
        if pieces:
            self.objects += 1
            self._numbers.extend([objectno] * len(pieces))
            self._pieces.extend(kind << 2 * _FIELD | start << _FIELD | end for start, end, kind in pieces)

    def __iter__(self) -> Iterator[tuple[int, list[Piece]]]:
        """(object, its pieces)."""
        held: list[Piece] = []
        before = -1
        for objectno, packed in zip(self._numbers, self._pieces, strict=True):
            if objectno != before and held:
                yield before, held
                held = []
            before = objectno
            held.append((packed >> _FIELD & _MASK, packed & _MASK, Kind(packed >> 2 * _FIELD)))
        if held:
            yield before, held


class History(NamedTuple):
    """`changes`: of each version since the one before it. `existing`: the objects that may have existed at any of them, by
    their states in a map; None where any may."""

    changes: list[Changes]
    existing: BitVector | None


async def history(image: ImageContext, versions: Sequence[Version], *, shares: bool) -> History:
    """`shares`: where the image has no object, its parent may have something."""
    count = image.layout.object_count(max((version.size for version in versions), default=0))
    existing = await _existing(image, versions, count)
    changes = [Changes() for _ in versions]

    async def examine(objectno: int) -> None:
        oid = image.object_name(objectno)
        reply = await image.data_io.read(oid, [ListSnaps()]).bare()
        if reply.rv == -errno.ENOENT:
            return
        if reply.rv < 0:
            raise RadosError(-reply.rv, oid, reply)
        found = _steps(reply.outs[0], versions, image.layout.object_size, shares=shares)
        for change, pieces in zip(changes, found, strict=True):
            change.add(objectno, pieces)

    await for_each(map(examine, _numbers(existing, count)), image.settings.integer("rbd_concurrent_management_ops"))
    return History(changes, existing)


def _steps(found: SnapSet, versions: Sequence[Version], object_size: int, *, shares: bool) -> Iterator[list[Piece]]:
    """What became of an object, version for version."""
    whole = [(0, object_size)]
    before, since = None, 0
    for version in versions:
        now = serving(found, version.snap)
        if now is before:
            yield []
        elif shares and (now is None or before is None):  # what the parent has there comes to light, or is hidden
            yield [(0, object_size, Kind.ANYTHING)]
        else:
            data, zeros = object_changes(found, since, version.snap, whole, object_size, whole=False)
            yield [(*part, Kind.DATA) for part in data] + [(*part, Kind.ZEROS) for part in zeros]
        before, since = now, version.snap


# --- maps ------------------------------------------------------------------------------------------------------------


async def _existing(image: ImageContext, versions: Sequence[Version], count: int) -> BitVector | None:
    """What the maps of all versions have; None where one of them is missing, or is not to be believed."""
    if not image.header.features & RBD_FEATURE_OBJECT_MAP or count > RBD_MAX_OBJECT_MAP_OBJECTS:
        return None
    union = BitVector(count)
    for version in versions:
        bits = None if version.flags else await _map(image, version.snap)
        if bits is None:
            return None
        for start, states in bits.chunks(0, min(len(bits), count)):
            present = union.unpack(start, start + len(states)) | (states != ObjectState.NONEXISTENT)
            union.put(start, present)
    return union


def _numbers(existing: BitVector | None, count: int) -> Iterable[int]:
    if existing is None:
        return range(count)
    return (start + int(place) for start, states in existing.chunks() for place in states.nonzero()[0])


async def _map(image: ImageContext, snap: int) -> BitVector | None:
    oid = names.object_map(image.id, None if snap == HEAD else snap)
    try:
        raw: bytes = await call(image.io, oid, cls_rbd.object_map_load())
        return BitVector.decode(raw)
    except (RadosError, ObjectMapCorrupt):
        return None
