"""class Group: images whose snapshots are taken together; and the methods of class RBD about groups."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from rbd_native.api.boundary import drive, name_bytes, name_text, shown, uint32
from rbd_native.constants import RBD_GROUP_SNAP_NAMESPACE_TYPE_USER
from rbd_native.errors import group_errno_to_exception
from rbd_native.operations import group, group_members, group_snapshots
from rbd_native.operations.progress import Callback, Progress
from rbd_native.rados.connect import port_for

T = TypeVar("T")


def _drive(work: Coroutine[Any, Any, T], message: str, *values: Any) -> T:
    return drive(work, message, *values, table=group_errno_to_exception)


class GroupMethods:
    """What class RBD has of them."""

    def group_create(self, ioctx: Any, name: str | bytes) -> None:
        """Raises ObjectExists; InvalidArgument for ""."""
        text = name_text(name, "name")
        _drive(group.create(port_for(ioctx), text), "error creating group %s", name_bytes(name, "name"))

    def group_remove(self, ioctx: Any, name: str | bytes) -> None:
        """Remove a group and its snapshots; the images stay. No error where there is none."""
        text = name_text(name, "name")
        _drive(group.remove(port_for(ioctx), text), "error removing group")

    def group_list(self, ioctx: Any) -> list[str]:
        """The names, by their bytes."""
        return [shown(name) for name in _drive(group.listing(port_for(ioctx)), "error listing groups")]

    def group_rename(self, ioctx: Any, src: str | bytes, dest: str | bytes) -> None:
        """Raises ImageNotFound and ImageExists, as the binding does here; InvalidArgument for ""."""
        source, target = name_text(src, "src"), name_text(dest, "dest")
        drive(group.rename(port_for(ioctx), source, target), "error renaming group")


class Group:
    """A group by its name, which need not exist before it is asked for something. It is nothing that has to be closed; as
    the binding's, it serves in a `with` block all the same."""

    def __init__(self, ioctx: Any, name: str | bytes) -> None:
        self._shown = name_bytes(name, "name")
        self._name = name_text(name, "name")
        self._io = port_for(ioctx)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        return False

    def id(self) -> str:
        """What it keeps when its name changes. Raises ObjectNotFound."""
        work = group_members.identify(self._io, self._name)
        return _drive(work, "error getting id of group %s", self._shown)

    # --- images ---

    def add_image(self, image_ioctx: Any, image_name: str | bytes) -> None:
        """Of any pool, in the group's namespace. No error where it is in the group.

        Raises ObjectNotFound; ObjectExists (it is in another group); InvalidArgument (of another namespace).
        """
        name = name_text(image_name, "image_name")
        work = group_members.add(self._io, self._name, port_for(image_ioctx), name)
        _drive(work, "error adding image to group")

    def remove_image(self, image_ioctx: Any, image_name: str | bytes) -> None:
        """Its snapshots that are part of the group's stay. No error where it is in no group.

        Raises ObjectNotFound; OSError with errno EBADF (it is in another group); InvalidArgument (of another namespace).
        """
        name = name_text(image_name, "image_name")
        work = group_members.remove(self._io, self._name, port_for(image_ioctx), name)
        _drive(work, "error removing image from group")

    def list_images(self) -> GroupImageIterator:
        """Iterate over the members, by pool and image id, as dicts with keys name, pool (id) and state
        (RBD_GROUP_IMAGE_STATE_*). None where there is no such group."""
        return GroupImageIterator(self)

    # --- snapshots ---

    def create_snap(self, snap_name: str | bytes, flags: int = 0) -> None:
        """Take a snapshot of all members at one moment: nothing is written to any of them meanwhile. flags:
        RBD_SNAP_CREATE_*.

        Raises ObjectNotFound, ObjectExists, InvalidArgument, ReadOnlyImage (a user keeps a member's lock),
        DiskQuotaExceeded; then no member has a new snapshot.
        """
        name = name_text(snap_name, "snap_name")
        work = group_snapshots.create(self._io, self._name, name, uint32(flags))
        _drive(work, "error creating group snapshot")

    def remove_snap(self, snap_name: str | bytes) -> None:
        """Raises ObjectNotFound."""
        name = name_text(snap_name, "snap_name")
        _drive(group_snapshots.remove(self._io, self._name, name), "error removing group snapshot")

    def rename_snap(self, old_snap_name: str | bytes, new_snap_name: str | bytes) -> None:
        """Raises ObjectNotFound, ObjectExists; InvalidArgument for ""."""
        old, new = name_text(old_snap_name, "old_snap_name"), name_text(new_snap_name, "new_snap_name")
        _drive(group_snapshots.rename(self._io, self._name, old, new), "error renaming group snapshot")

    def list_snaps(self) -> GroupSnapIterator:
        """Iterate over the snapshots as dicts such as :meth:`get_snap_info` gives, oldest first (on clusters before
        release 20: by their ids). None where there is no such group."""
        return GroupSnapIterator(self)

    def get_snap_info(self, snap_name: str | bytes) -> dict[str, Any]:
        """Keys id, name, state (RBD_GROUP_SNAP_STATE_*), namespace_type (RBD_GROUP_SNAP_NAMESPACE_TYPE_USER),
        image_snap_name ("" where the group had no images), and image_snaps: a list of dicts with keys pool_id, snap_id and
        image_name.

        Raises ObjectNotFound.
        """
        name = name_text(snap_name, "snap_name")
        work = group_snapshots.info(self._io, self._name, name)
        return _snapshot(_drive(work, "error showing a group snapshot"))

    def rollback_to_snap(self, name: str | bytes, on_progress: Callback | None = None) -> None:
        """Make all members what they were. on_progress(done, total), which the binding does not have, hears of each object.

        Raises ObjectNotFound, InvalidArgument (the snapshot is incomplete, or of other members), ReadOnlyImage (a user
        keeps a member's lock).
        """
        work = group_snapshots.roll_back(self._io, self._name, name_text(name, "name"), Progress(on_progress))
        _drive(work, "error rolling back group to snapshot")


class GroupImageIterator:
    """The members of a group as they were when it was made."""

    def __init__(self, group: Group) -> None:
        work = group_members.listing(group._io, group._name)
        self._members = _drive(work, "error listing images for group %s", group._shown)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for member in self._members:
            yield {"name": shown(member.name), "pool": member.pool_id, "state": member.state}


class GroupSnapIterator:
    """The snapshots of a group as they were when it was made."""

    def __init__(self, group: Group) -> None:
        work = group_snapshots.listing(group._io, group._name)
        self._snapshots = _drive(work, "error listing snapshots for group %s", group._shown)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(_snapshot, self._snapshots)


def _snapshot(info: group_snapshots.Info) -> dict[str, Any]:
    return {
        "id": info.record.id,
        "name": shown(info.record.name),
        "state": int(info.record.state),
        "namespace_type": RBD_GROUP_SNAP_NAMESPACE_TYPE_USER,
        "image_snap_name": info.image_snap_name,
        "image_snaps": [
            {"pool_id": part.pool_id, "snap_id": part.snap_id, "image_name": shown(part.image_name)} for part in info.parts
        ],
    }
