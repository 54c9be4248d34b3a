"""Class `rbd` on image headers, but for snapshots and parents. Metadata lives on `rbd_info` too, for a whole
pool.
"""

from __future__ import annotations

from typing import Annotated

from rbd_native.cls_client import READ, READ_WRITE, method
from rbd_native.constants import NOSNAP
from rbd_native.encoding import blob, boolean, i64, text, u8, u64, utime
from rbd_native.types import GroupSpec, MigrationSpec, MigrationState


@method("rbd", READ_WRITE)
def create(size: u64, order: u8, features: u64, object_prefix: text, data_pool_id: i64 = -1) -> None:
    """Size in bytes, object size 2 ** order. EEXIST, ENOSYS for features the OSD does not know, EINVAL."""


@method("rbd", READ)
def get_features(snap_id: u64, read_only: boolean = False) -> tuple[u64, u64]:
    """Features, and those without which a client must not open the image. `snap_id` does not matter."""


@method("rbd", READ_WRITE)
def set_features(features: u64, mask: u64) -> None:
    """Of the bits in `mask`. EINVAL for those that cannot change."""


@method("rbd", READ)
def get_size(snap_id: u64) -> tuple[u8, u64]:
    """Order, and size in bytes. ENOENT."""


@method("rbd", READ_WRITE)
def set_size(size: u64) -> None:
    """Bytes. Shrinking cuts the overlap with the parent for good."""


@method("rbd", READ)
def get_object_prefix() -> text:
    """What the names of data objects begin with."""


@method("rbd", READ)
def get_data_pool() -> i64:
    """-1 where data is in the pool of the header."""


@method("rbd", READ)
def get_stripe_unit_count() -> tuple[u64, u64]:
    """Stripe unit in bytes, stripe count. ENOEXEC without feature STRIPINGV2."""


@method("rbd", READ_WRITE)
def set_stripe_unit_count(stripe_unit: u64, stripe_count: u64) -> None:
    """ENOEXEC without feature STRIPINGV2, EINVAL."""


@method("rbd", READ)
def get_create_timestamp() -> utime:
    """Zero where unknown."""


@method("rbd", READ)
def get_access_timestamp() -> utime:
    """Zero where unknown."""


@method("rbd", READ)
def get_modify_timestamp() -> utime:
    """Zero where unknown."""


@method("rbd", READ_WRITE)
def set_access_timestamp() -> None:
    """To the OSD's clock. ENOENT."""


@method("rbd", READ_WRITE)
def set_modify_timestamp() -> None:
    """To the OSD's clock. ENOENT."""


@method("rbd", READ)
def get_flags(snap_id: u64) -> u64:
    """RBD_FLAG_*. ENOENT where there is no such snapshot."""


@method("rbd", READ_WRITE)
def set_flags(flags: u64, mask: u64, snap_id: u64 = NOSNAP) -> None:
    """Of the bits in `mask`. ENOENT where there is no such snapshot."""


@method("rbd", READ)
def op_features_get() -> u64:
    """RBD_OPERATION_FEATURE_*."""


@method("rbd", READ_WRITE)
def op_features_set(op_features: u64, mask: u64) -> None:
    """Of the bits in `mask`; feature OPERATIONS comes and goes with them. EINVAL for unknown bits."""


@method("rbd", READ)
def metadata_list(after: text, max_return: u64) -> dict[text, blob]:
    """Keys and values from behind the key `after`; 0 for a page of 64."""


@method("rbd", READ_WRITE)
def metadata_set(values: dict[text, blob]) -> None:
    """Add or replace."""


@method("rbd", READ)
def metadata_get(key: text) -> blob:
    """ENOENT."""


@method("rbd", READ_WRITE)
def metadata_remove(key: text) -> None:
    """OK where there is none."""


@method("rbd", READ_WRITE)
def migration_set(spec: MigrationSpec) -> None:
    """EEXIST where a migration is under way. On a format 1 header: ENXIO, EINVAL unless it is the source."""


@method("rbd", READ_WRITE)
def migration_set_state(state: Annotated[MigrationState, u8], description: text) -> None:
    """EINVAL where no migration is under way."""


@method("rbd", READ)
def migration_get() -> MigrationSpec:
    """EINVAL where no migration is under way."""


@method("rbd", READ_WRITE)
def migration_remove() -> None:
    """Ends it."""


@method("rbd", READ_WRITE)
def image_group_add(group: GroupSpec) -> None:
    """EEXIST where the image is in another group."""


@method("rbd", READ_WRITE)
def image_group_remove(group: GroupSpec) -> None:
    """ENOENT, EBADF where the image is in another group."""


@method("rbd", READ)
def image_group_get() -> GroupSpec:
    """NO_GROUP where there is none."""
