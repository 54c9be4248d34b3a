"""Class `rbd` on group directories and group headers."""

from __future__ import annotations

from rbd_native.cls_client import READ, READ_WRITE, method
from rbd_native.encoding import text, u64
from rbd_native.types import GroupImageSpec, GroupImageStatus, GroupSnapshot

# --- rbd_group_directory


@method("rbd", READ)
def group_dir_list(after: text, max_return: u64) -> dict[text, text]:
    """Names to ids, from behind the name `after`."""


@method("rbd", READ_WRITE)
def group_dir_add(name: text, group_id: text) -> None:
    """EEXIST where the name is taken, EBADF where the id is, EINVAL."""


@method("rbd", READ_WRITE)
def group_dir_remove(name: text, group_id: text) -> None:
    """ENOENT; ESTALE where name and id do not belong together."""


@method("rbd", READ_WRITE)
def group_dir_rename(source: text, destination: text, group_id: text) -> None:
    """ENOENT, ESTALE, EEXIST."""


# --- rbd_group_header.<id>


@method("rbd", READ_WRITE)
def group_image_set(status: GroupImageStatus) -> None:
    """Add a member or set its state."""


@method("rbd", READ_WRITE)
def group_image_remove(spec: GroupImageSpec) -> None:
    """OK where there is none."""


@method("rbd", READ)
def group_image_list(after: GroupImageSpec, max_return: u64) -> list[GroupImageStatus]:
    """By pool and id, from behind `after`; ("", -1) to begin."""


@method("rbd", READ_WRITE)
def group_snap_set(snapshot: GroupSnapshot) -> None:
    """Add a snapshot (incomplete), or replace it (complete). EEXIST where another has its name, EINVAL."""


@method("rbd", READ_WRITE)
def group_snap_remove(snap_id: text) -> None:
    """OK where there is none."""


@method("rbd", READ)
def group_snap_get_by_id(snap_id: text) -> GroupSnapshot:
    """ENOENT."""


@method("rbd", READ)
def group_snap_list(after: GroupSnapshot, max_return: u64) -> list[GroupSnapshot]:
    """By id, not by age; of `after` only the id counts."""


@method("rbd", READ)
def group_snap_list_order(after: text, max_return: u64) -> dict[text, u64]:
    """Ids to their place in time. Since 20; EOPNOTSUPP before."""
