"""Class `rbd` on image headers: snapshots, the parent of a clone, and the clones of a snapshot."""

from __future__ import annotations

from typing import Annotated, Final

from rbd_native.cls_client import READ, READ_WRITE, method
from rbd_native.encoding import boolean, i64, text, u8, u64, utime
from rbd_native.types import (
    ChildImageSpec,
    ParentImageSpec,
    ProtectionStatus,
    SnapshotInfo,
    UserSnapshotNamespace,
    snapshot_namespace,
)

_USER: Final = UserSnapshotNamespace()


@method("rbd", READ)
def get_snapcontext() -> tuple[u64, list[u64]]:
    """The newest snapshot id that ever was, and those that are, descending, of all namespaces."""


@method("rbd", READ)
def snapshot_get(snap_id: u64) -> SnapshotInfo:
    """ENOENT."""


@method("rbd", READ)
def get_snapshot_name(snap_id: u64) -> text:
    """ENOENT."""


@method("rbd", READ)
def get_snapshot_timestamp(snap_id: u64) -> utime:
    """ENOENT."""


@method("rbd", READ_WRITE)
def snapshot_add(name: text, snap_id: u64, namespace: snapshot_namespace = _USER) -> None:
    """ESTALE where a newer id was there, EEXIST for id or (in one namespace) name, EDQUOT over the limit."""


@method("rbd", READ_WRITE)
def snapshot_remove(snap_id: u64) -> None:
    """ENOENT, EBUSY where it is protected or has clones."""


@method("rbd", READ_WRITE)
def snapshot_rename(snap_id: u64, name: text) -> None:
    """ENOENT, EEXIST, EINVAL for one that no user made."""


@method("rbd", READ_WRITE)
def snapshot_trash_add(snap_id: u64) -> None:
    """Move it to the trash namespace under a random name. ENOENT, EBUSY protected, EEXIST where it is there
    already.
    """


@method("rbd", READ)
def snapshot_get_limit() -> u64:
    """2 ** 64 - 1 for none."""


@method("rbd", READ_WRITE)
def snapshot_set_limit(limit: u64) -> None:
    """2 ** 64 - 1 for none. ERANGE below the number of snapshots there are."""


@method("rbd", READ)
def get_protection_status(snap_id: u64) -> Annotated[ProtectionStatus, u8]:
    """ENOENT."""


@method("rbd", READ_WRITE)
def set_protection_status(snap_id: u64, status: Annotated[ProtectionStatus, u8]) -> None:
    """ENOENT, EINVAL, ENOEXEC without feature LAYERING."""


# --- the parent of a clone


@method("rbd", READ)
def parent_get() -> ParentImageSpec:
    """NO_PARENT where there is none."""


@method("rbd", READ)
def parent_overlap_get(snap_id: u64) -> u64 | None:
    """Bytes of the parent that show; None where there is no parent. ENOENT."""


@method("rbd", READ_WRITE)
def parent_attach(parent: ParentImageSpec, overlap: u64, reattach: boolean = False) -> None:
    """Overlap in bytes. EEXIST, EINVAL, ENOENT, ENOEXEC without feature LAYERING."""


@method("rbd", READ_WRITE)
def parent_detach() -> None:
    """Snapshots may go on depending on it. ENOENT, ENOEXEC without feature LAYERING."""


@method("rbd", READ)
def get_parent(snap_id: u64) -> tuple[i64, text, u64, u64]:
    """Pool, image id, snapshot and overlap in bytes; before parent_get. EXDEV for a parent in a namespace."""


@method("rbd", READ_WRITE)
def set_parent(pool_id: i64, image_id: text, snap_id: u64, overlap: u64) -> None:
    """Before parent_attach."""


@method("rbd", READ_WRITE)
def remove_parent() -> None:
    """Before parent_detach."""


# --- clones (version 2) of a snapshot


@method("rbd", READ_WRITE)
def child_attach(snap_id: u64, child: ChildImageSpec) -> None:
    """ENOENT also for a snapshot in the trash, EEXIST."""


@method("rbd", READ_WRITE)
def child_detach(snap_id: u64, child: ChildImageSpec) -> None:
    """ENOENT."""


@method("rbd", READ)
def children_list(snap_id: u64) -> set[ChildImageSpec]:
    """ENOENT where there are none."""


# --- snapshots of a format 1 header


@method("rbd", READ)
def snap_list() -> tuple[u64, list[tuple[u64, u64, text]]]:
    """The newest id that ever was; of each snapshot, newest first, id, size in bytes and name."""


@method("rbd", READ_WRITE)
def snap_add(name: text, snap_id: u64) -> None:
    """ESTALE, EEXIST, EDQUOT."""


@method("rbd", READ_WRITE)
def snap_remove(name: text) -> None:
    """ENOENT."""


@method("rbd", READ_WRITE)
def snap_rename(snap_id: u64, name: text) -> None:
    """ENOENT, EEXIST."""
