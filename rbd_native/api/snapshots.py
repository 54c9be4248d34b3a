"""The methods of an image about its snapshots."""

from __future__ import annotations

import datetime
import errno
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from rbd_native.api.boundary import drive, int64, moment, name_bytes, name_text, shown, uint64
from rbd_native.constants import RBD_SNAP_REMOVE_FLATTEN, RBD_SNAP_REMOVE_UNPROTECT
from rbd_native.errors import ImageNotFound
from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.operations import flatten, membership, rollback, snap_remove, snapshots
from rbd_native.operations.progress import Callback, Progress
from rbd_native.rados.port import RadosError
from rbd_native.types import (
    MirrorSnapshotNamespace,
    ProtectionStatus,
    SnapshotNamespaceType,
    TrashSnapshotNamespace,
)

T = TypeVar("T")


class SnapshotMethods:
    """What class Image has of them. Snapshots are named as users named them, or by their id."""

    name: bytes | str

    @property
    def _image(self) -> ImageContext:
        raise NotImplementedError

    def _current(self) -> ImageContext:
        raise NotImplementedError

    # --- take, remove, rename ---

    def create_snap(self, name: str | bytes, flags: int = 0) -> None:
        """Take a snapshot of the image as it is. `flags`: RBD_SNAP_CREATE_*. Raises ImageExists, DiskQuotaExceeded."""
        text = name_text(name, "name")
        work = snapshots.create(self._image, text, uint64(flags))
        drive(work, "error creating snapshot %s from %s", name_bytes(name, "name"), self.name)

    def remove_snap(self, name: str | bytes) -> None:
        """Remove a snapshot. Raises ImageNotFound, ImageBusy (protected)."""
        given = name_bytes(name, "name")
        self._remove(name_text(name, "name"), "error removing snapshot %s from %s", given, self.name)

    def remove_snap2(self, name: str | bytes, flags: int) -> None:
        """Remove a snapshot, after making its clones independent where `flags` has RBD_SNAP_REMOVE_FLATTEN, and
        unprotecting it where it has RBD_SNAP_REMOVE_UNPROTECT."""
        given, wanted = name_bytes(name, "name"), uint64(flags)
        message = "error removing snapshot %s from %s with flags %d"

        async def work() -> None:
            image = self._image
            snapshot = await snapshots.removable(image, name_text(name, "name"))
            if wanted & RBD_SNAP_REMOVE_FLATTEN:
                await flatten.flatten_children(image, snapshot.info.id)
                await image.fresh()
            if wanted & RBD_SNAP_REMOVE_UNPROTECT and snapshot.protection != ProtectionStatus.UNPROTECTED:
                await snapshots.unprotect(image, snapshot.info.name)
                await image.fresh()
                snapshot = snapshots.named(image, snapshot.info.name)
            await snap_remove.remove(image, snapshot)

        drive(work(), message, given, self.name, wanted)

    def remove_snap_by_id(self, snap_id: int) -> None:
        """As :meth:`remove_snap`."""
        self._remove(uint64(snap_id), "error removing snapshot %s from %s", snap_id, self.name)

    def _remove(self, key: str | int, message: str, *values: Any) -> None:
        image = self._image

        async def work() -> None:
            await snap_remove.remove(image, await snapshots.removable(image, key))

        drive(work(), message, *values)

    def rename_snap(self, srcname: str | bytes, dstname: str | bytes) -> None:
        """Raises ImageNotFound, ImageExists."""
        source, target = name_bytes(srcname, "srcname"), name_bytes(dstname, "dstname")
        work = snapshots.rename(self._image, name_text(srcname, "srcname"), name_text(dstname, "dstname"))
        drive(work, "error renaming snapshot of %s from %s to %s", self.name, source, target)

    def rollback_to_snap(self, name: str | bytes, on_progress: Callback | None = None) -> None:
        """Make the image what it was. on_progress(done, total), which the binding does not have, hears of each object."""
        work = rollback.rollback(self._image, name_text(name, "name"), Progress(on_progress))
        drive(work, "error rolling back image %s to snapshot %s", self.name, name_bytes(name, "name"))

    # --- protect ---

    def protect_snap(self, name: str | bytes) -> None:
        """Keep it from being removed, which clones of format 1 need. Raises ImageNotFound, ImageBusy."""
        work = snapshots.protect(self._image, name_text(name, "name"))
        drive(work, "error protecting snapshot %s@%s", self.name, name_bytes(name, "name"))

    def unprotect_snap(self, name: str | bytes) -> None:
        """Raises ImageNotFound, InvalidArgument (not protected), ImageBusy (it has clones)."""
        work = snapshots.unprotect(self._image, name_text(name, "name"))
        drive(work, "error unprotecting snapshot %s@%s", self.name, name_bytes(name, "name"))

    def is_protected_snap(self, name: str | bytes) -> bool:
        given = name_bytes(name, "name")
        message = "error checking if snapshot %s@%s is protected"
        snapshot = self._look(snapshots.named, name_text(name, "name"), message, self.name, given)
        return snapshot.protection == ProtectionStatus.PROTECTED

    # --- look ---

    def list_snaps(self) -> SnapIterator:
        """Iterate over the snapshots, oldest first, as dicts with keys id, size, name, namespace (a type), and group,
        trash or mirror where the namespace has more to say."""
        return SnapIterator(self)

    def set_snap(self, name: str | bytes | None) -> None:
        """From here on, read the image as it was at a snapshot; None, or an empty name, goes back to the present."""
        key = None if name is None else name_text(name, "name")
        shown_name = None if name is None else name_bytes(name, "name")
        drive(self._image.set_snap(key or None), "error setting image %s to snapshot %s", self.name, shown_name)

    def set_snap_by_id(self, snap_id: int | None) -> None:
        """As :meth:`set_snap`; 0 goes back to the present, too."""
        key = int64(snap_id) if snap_id else None
        drive(self._image.set_snap(key), "error setting image %s to snapshot %s", self.name, key)

    def snap_exists(self, name: str | bytes) -> bool:
        image, text = self._current(), name_text(name, "name")
        return any(s.info.name == text and s.info.namespace == snapshots.USER for s in image.header.snapshots)

    def snap_get_id(self, snap_name: str | bytes) -> int:
        """Raises ImageNotFound."""
        return self._look(snapshots.named, name_text(snap_name, "snap_name"), "error snap_get_id.").info.id

    def snap_get_name(self, snap_id: int) -> str:
        """Raises ImageNotFound."""
        return shown(self._look(snapshots.with_id, int64(snap_id), "error snap_get_name.").info.name)

    def get_snap_timestamp(self, snap_id: int) -> datetime.datetime:
        """When it was taken. Raises ImageNotFound."""
        number = uint64(snap_id)
        message = "error getting snapshot timestamp for image: %s, snap_id: %d"
        return moment(self._look(snapshots.with_id, number, message, self.name, number).info.timestamp)

    def snap_get_namespace_type(self, snap_id: int) -> int:
        """RBD_SNAP_NAMESPACE_TYPE_*. Raises ImageNotFound."""
        number = uint64(snap_id)
        message = "error getting snapshot namespace type for image: %s, snap_id: %d"
        return int(self._look(snapshots.with_id, number, message, self.name, number).info.namespace.type)

    def snap_get_group_namespace(self, snap_id: int) -> dict[str, Any]:
        """Keys pool, name (of the group) and snap_name (of the group's snapshot). Raises ImageNotFound, InvalidArgument."""
        number = uint64(snap_id)
        message = "error getting snapshot group namespace for image: %s, snap_id: %d"
        found, name = drive(membership.group_snapshot(self._image, number), message, self.name, number)
        return {"pool": found.pool_id, "name": shown(found.name), "snap_name": shown(name)}

    def snap_get_trash_namespace(self, snap_id: int) -> dict[str, Any]:
        """Keys original_namespace_type and original_name. Raises InvalidArgument for a snapshot that is not trash."""
        message = "error getting snapshot trash namespace image: %s, snap_id: %d"
        return _trash(self._of_kind(TrashSnapshotNamespace, snap_id, message))

    def snap_get_mirror_namespace(self, snap_id: int) -> dict[str, Any]:
        """Keys state, mirror_peer_uuids, complete, primary_mirror_uuid, primary_snap_id, last_copied_object_number."""
        message = "error getting snapshot mirror namespace for image: %s, snap_id: %d"
        return _mirror(self._of_kind(MirrorSnapshotNamespace, snap_id, message))

    def _of_kind(self, kind: type[T], snap_id: int, message: str) -> T:
        number = uint64(snap_id)

        async def find() -> T:
            image = self._image
            if image.stale:
                await image.fresh()
            namespace = snapshots.with_id(image, number).info.namespace
            if not isinstance(namespace, kind):
                raise RadosError(errno.EINVAL, f"snapshot {number} is of another kind")
            return namespace

        return drive(find(), message, self.name, number)

    def _look(self, find: Callable[[ImageContext, Any], Snapshot], key: Any, message: str, *values: Any) -> Snapshot:
        async def look() -> Snapshot:
            image = self._image
            if image.stale:
                await image.fresh()
            return find(image, key)

        return drive(look(), message, *values)

    # --- count ---

    def get_snap_limit(self) -> int:
        """How many snapshots the image may have; 2**64 - 1 for any number."""
        return drive(snapshots.limit(self._image), "error getting snapshot limit for %s", self.name)

    def set_snap_limit(self, limit: int) -> int:
        """OSError with errno ERANGE where it has more already; returns 0."""
        number = uint64(limit)
        drive(snapshots.set_limit(self._image, number), "error setting snapshot limit for %s", self.name)
        return 0

    def remove_snap_limit(self) -> int:
        """Returns 0."""
        drive(snapshots.set_limit(self._image, 2**64 - 1), "error removing snapshot limit for %s", self.name)
        return 0


class SnapIterator:
    """The snapshots of an image as they were when it was made."""

    def __init__(self, image: SnapshotMethods) -> None:
        self._image = image
        self._snapshots = tuple(reversed(image._current().header.snapshots))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for snapshot in self._snapshots:
            row = plain_row(snapshot)
            kind = row["namespace"]
            if kind in _DETAILS:
                key, describe = _DETAILS[kind]
                row[key] = describe(snapshot.info.namespace)
            elif kind == SnapshotNamespaceType.GROUP:
                row["group"] = self._group(row["id"])
            yield row

    def _group(self, snap_id: int) -> dict[str, Any] | None:
        """What it is part of; None where that is not there any more."""
        try:
            return self._image.snap_get_group_namespace(snap_id)
        except ImageNotFound:
            return None


def plain_row(snapshot: Snapshot) -> dict[str, Any]:
    """What :class:`SnapIterator` tells of every snapshot."""
    info = snapshot.info
    kind = int(info.namespace.type)
    return {"id": info.id, "size": info.image_size, "name": shown(info.name), "namespace": kind}


def _trash(namespace: TrashSnapshotNamespace) -> dict[str, Any]:
    return {
        "original_namespace_type": int(namespace.original_type),
        "original_name": shown(namespace.original_name),
    }


def _mirror(namespace: MirrorSnapshotNamespace) -> dict[str, Any]:
    return {
        "state": int(namespace.state),
        "mirror_peer_uuids": sorted(namespace.mirror_peer_uuids),
        "complete": namespace.complete,
        "primary_mirror_uuid": namespace.primary_mirror_uuid,
        "primary_snap_id": namespace.primary_snap_id,
        "last_copied_object_number": namespace.last_copied_object_number,
    }


_DETAILS: dict[int, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    SnapshotNamespaceType.TRASH: ("trash", _trash),
    SnapshotNamespaceType.MIRROR: ("mirror", _mirror),
}
