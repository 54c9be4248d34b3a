"""The numbers and names of RBD: first those the `rbd` binding publishes, then those of the protocol.

Contract
    Every name of the first part has the binding's name and value (releases 16 to 20 agree on all that they
    share; the tests compare with the installed one). Those of the second part are Ceph's on-disk and on-wire
    values that more than one module needs; what only one format uses is declared at that format.
"""

from typing import Final

# ------------------------------------------------------------------- published by the binding

ECANCELED: Final = 125

# Features of an image (a bit mask, stored in its header).
RBD_FEATURE_LAYERING: Final = 1 << 0
RBD_FEATURE_STRIPINGV2: Final = 1 << 1
RBD_FEATURE_EXCLUSIVE_LOCK: Final = 1 << 2
RBD_FEATURE_OBJECT_MAP: Final = 1 << 3
RBD_FEATURE_FAST_DIFF: Final = 1 << 4
RBD_FEATURE_DEEP_FLATTEN: Final = 1 << 5
RBD_FEATURE_JOURNALING: Final = 1 << 6
RBD_FEATURE_DATA_POOL: Final = 1 << 7
RBD_FEATURE_OPERATIONS: Final = 1 << 8
RBD_FEATURE_MIGRATING: Final = 1 << 9
RBD_FEATURE_NON_PRIMARY: Final = 1 << 10

RBD_FEATURES_ALL: Final = 0xFFF
RBD_FEATURES_INCOMPATIBLE: Final = 0x883  # without them a client must not even read
RBD_FEATURES_RW_INCOMPATIBLE: Final = 0xFFF  # without them a client must not write
RBD_FEATURES_MUTABLE: Final = 0xC5C
RBD_FEATURES_SINGLE_CLIENT: Final = 0x85C

# Operations an image has been part of (header key op_features).
RBD_OPERATION_FEATURE_CLONE_PARENT: Final = 1 << 0
RBD_OPERATION_FEATURE_CLONE_CHILD: Final = 1 << 1
RBD_OPERATION_FEATURE_GROUP: Final = 1 << 2
RBD_OPERATION_FEATURE_SNAP_TRASH: Final = 1 << 3

RBD_FLAG_OBJECT_MAP_INVALID: Final = 1 << 0
RBD_FLAG_FAST_DIFF_INVALID: Final = 1 << 1

RBD_IMAGE_OPTION_FORMAT: Final = 0
RBD_IMAGE_OPTION_FEATURES: Final = 1
RBD_IMAGE_OPTION_ORDER: Final = 2
RBD_IMAGE_OPTION_STRIPE_UNIT: Final = 3
RBD_IMAGE_OPTION_STRIPE_COUNT: Final = 4
RBD_IMAGE_OPTION_DATA_POOL: Final = 10
RBD_IMAGE_OPTION_FLATTEN: Final = 11
RBD_IMAGE_OPTION_CLONE_FORMAT: Final = 12

RBD_LOCK_MODE_EXCLUSIVE: Final = 0
RBD_LOCK_MODE_SHARED: Final = 1
RBD_LOCK_MODE_EXCLUSIVE_TRANSIENT: Final = 2

RBD_WRITE_ZEROES_FLAG_THICK_PROVISION: Final = 1

# Snapshots.
RBD_SNAP_NAMESPACE_TYPE_USER: Final = 0
RBD_SNAP_NAMESPACE_TYPE_GROUP: Final = 1
RBD_SNAP_NAMESPACE_TYPE_TRASH: Final = 2
RBD_SNAP_NAMESPACE_TYPE_MIRROR: Final = 3

RBD_SNAP_MIRROR_STATE_PRIMARY: Final = 0
RBD_SNAP_MIRROR_STATE_PRIMARY_DEMOTED: Final = 1
RBD_SNAP_MIRROR_STATE_NON_PRIMARY: Final = 2
RBD_SNAP_MIRROR_STATE_NON_PRIMARY_DEMOTED: Final = 3

RBD_SNAP_CREATE_SKIP_QUIESCE: Final = 1 << 0
RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR: Final = 1 << 1

RBD_SNAP_REMOVE_UNPROTECT: Final = 1 << 0
RBD_SNAP_REMOVE_FLATTEN: Final = 1 << 1
RBD_SNAP_REMOVE_FORCE: Final = RBD_SNAP_REMOVE_UNPROTECT | RBD_SNAP_REMOVE_FLATTEN

# Groups.
RBD_GROUP_IMAGE_STATE_ATTACHED: Final = 0
RBD_GROUP_IMAGE_STATE_INCOMPLETE: Final = 1

RBD_GROUP_SNAP_STATE_INCOMPLETE: Final = 0
RBD_GROUP_SNAP_STATE_COMPLETE: Final = 1

RBD_GROUP_SNAP_NAMESPACE_TYPE_USER: Final = 0

# Live migration.
RBD_IMAGE_MIGRATION_STATE_UNKNOWN: Final = -1
RBD_IMAGE_MIGRATION_STATE_ERROR: Final = 0
RBD_IMAGE_MIGRATION_STATE_PREPARING: Final = 1
RBD_IMAGE_MIGRATION_STATE_PREPARED: Final = 2
RBD_IMAGE_MIGRATION_STATE_EXECUTING: Final = 3
RBD_IMAGE_MIGRATION_STATE_EXECUTED: Final = 4
RBD_IMAGE_MIGRATION_STATE_ABORTING: Final = 5

# Where the value of an option comes from.
RBD_CONFIG_SOURCE_CONFIG: Final = 0
RBD_CONFIG_SOURCE_POOL: Final = 1
RBD_CONFIG_SOURCE_IMAGE: Final = 2

# Encryption.
RBD_ENCRYPTION_FORMAT_LUKS1: Final = 0
RBD_ENCRYPTION_FORMAT_LUKS2: Final = 1
RBD_ENCRYPTION_FORMAT_LUKS: Final = 2

RBD_ENCRYPTION_ALGORITHM_AES128: Final = 0
RBD_ENCRYPTION_ALGORITHM_AES256: Final = 1

# Mirroring.
RBD_MIRROR_MODE_DISABLED: Final = 0
RBD_MIRROR_MODE_IMAGE: Final = 1
RBD_MIRROR_MODE_POOL: Final = 2
RBD_MIRROR_MODE_INIT_ONLY: Final = 3

RBD_MIRROR_IMAGE_MODE_JOURNAL: Final = 0
RBD_MIRROR_IMAGE_MODE_SNAPSHOT: Final = 1

RBD_MIRROR_IMAGE_DISABLING: Final = 0
RBD_MIRROR_IMAGE_ENABLED: Final = 1
RBD_MIRROR_IMAGE_DISABLED: Final = 2
RBD_MIRROR_IMAGE_CREATING: Final = 3

RBD_MIRROR_PEER_DIRECTION_RX: Final = 0
RBD_MIRROR_PEER_DIRECTION_TX: Final = 1
RBD_MIRROR_PEER_DIRECTION_RX_TX: Final = 2

RBD_MIRROR_PEER_ATTRIBUTE_NAME_KEY: Final = "key"
RBD_MIRROR_PEER_ATTRIBUTE_NAME_MON_HOST: Final = "mon_host"

MIRROR_IMAGE_STATUS_STATE_UNKNOWN: Final = 0
MIRROR_IMAGE_STATUS_STATE_ERROR: Final = 1
MIRROR_IMAGE_STATUS_STATE_SYNCING: Final = 2
MIRROR_IMAGE_STATUS_STATE_STARTING_REPLAY: Final = 3
MIRROR_IMAGE_STATUS_STATE_REPLAYING: Final = 4
MIRROR_IMAGE_STATUS_STATE_STOPPING_REPLAY: Final = 5
MIRROR_IMAGE_STATUS_STATE_STOPPED: Final = 6

# Pool statistics.
RBD_POOL_STAT_OPTION_IMAGES: Final = 0
RBD_POOL_STAT_OPTION_IMAGE_PROVISIONED_BYTES: Final = 1
RBD_POOL_STAT_OPTION_IMAGE_MAX_PROVISIONED_BYTES: Final = 2
RBD_POOL_STAT_OPTION_IMAGE_SNAPSHOTS: Final = 3
RBD_POOL_STAT_OPTION_TRASH_IMAGES: Final = 4
RBD_POOL_STAT_OPTION_TRASH_PROVISIONED_BYTES: Final = 5
RBD_POOL_STAT_OPTION_TRASH_MAX_PROVISIONED_BYTES: Final = 6
RBD_POOL_STAT_OPTION_TRASH_SNAPSHOTS: Final = 7

# ------------------------------------------------------------------- of the protocol

# Snapshot ids with a meaning of their own.
SNAPDIR: Final = 2**64 - 1
NOSNAP: Final = 2**64 - 2
MAXSNAP: Final = 2**64 - 3

RBD_FEATURE_DIRTY_CACHE: Final = 1 << 11  # a persistent cache holds data; the binding has no name for it

# Feature name (as rbd_default_features and features_from_string spell it) to bit, ascending.
FEATURE_NAMES: Final[dict[str, int]] = {
    "layering": RBD_FEATURE_LAYERING,
    "striping": RBD_FEATURE_STRIPINGV2,
    "exclusive-lock": RBD_FEATURE_EXCLUSIVE_LOCK,
    "object-map": RBD_FEATURE_OBJECT_MAP,
    "fast-diff": RBD_FEATURE_FAST_DIFF,
    "deep-flatten": RBD_FEATURE_DEEP_FLATTEN,
    "journaling": RBD_FEATURE_JOURNALING,
    "data-pool": RBD_FEATURE_DATA_POOL,
    "operations": RBD_FEATURE_OPERATIONS,
    "migrating": RBD_FEATURE_MIGRATING,
    "non-primary": RBD_FEATURE_NON_PRIMARY,
    "dirty-cache": RBD_FEATURE_DIRTY_CACHE,
}

RBD_FEATURES_DEFAULT: Final = 0x3D
RBD_FEATURES_DISABLE_ONLY: Final = RBD_FEATURE_DEEP_FLATTEN
RBD_FEATURES_INTERNAL: Final = RBD_FEATURE_OPERATIONS | RBD_FEATURE_MIGRATING
RBD_FEATURES_IMPLICIT: Final = (  # follow from other choices; a request for them is not looked at
    RBD_FEATURE_STRIPINGV2
    | RBD_FEATURE_DATA_POOL
    | RBD_FEATURE_FAST_DIFF
    | RBD_FEATURES_INTERNAL
    | RBD_FEATURE_NON_PRIMARY
    | RBD_FEATURE_DIRTY_CACHE
)
RBD_OPERATION_FEATURES_ALL: Final = 0xF

# Protection of a snapshot (header key snapshot_*).
PROTECTION_STATUS_UNPROTECTED: Final = 0
PROTECTION_STATUS_UNPROTECTING: Final = 1
PROTECTION_STATUS_PROTECTED: Final = 2

# Trash entries.
TRASH_IMAGE_SOURCE_USER: Final = 0
TRASH_IMAGE_SOURCE_MIRRORING: Final = 1
TRASH_IMAGE_SOURCE_MIGRATION: Final = 2
TRASH_IMAGE_SOURCE_REMOVING: Final = 3
TRASH_IMAGE_SOURCE_USER_PARENT: Final = 4

TRASH_IMAGE_STATE_NORMAL: Final = 0
TRASH_IMAGE_STATE_MOVING: Final = 1
TRASH_IMAGE_STATE_REMOVING: Final = 2
TRASH_IMAGE_STATE_RESTORING: Final = 3

DIRECTORY_STATE_READY: Final = 0
DIRECTORY_STATE_ADD_DISABLED: Final = 1

# Locks (class `lock`). A header and its object map each have a lock of this name.
RBD_LOCK_NAME: Final = "rbd_lock"
RBD_LOCK_TAG: Final = "internal"
RBD_LOCK_COOKIE_PREFIX: Final = "auto "

LOCK_TYPE_NONE: Final = 0
LOCK_TYPE_EXCLUSIVE: Final = 1
LOCK_TYPE_SHARED: Final = 2
LOCK_TYPE_EXCLUSIVE_EPHEMERAL: Final = 3

# Objects of a pool or namespace.
RBD_DIRECTORY: Final = "rbd_directory"
RBD_INFO: Final = "rbd_info"
RBD_NAMESPACE: Final = "rbd_namespace"
RBD_CHILDREN: Final = "rbd_children"
RBD_TRASH: Final = "rbd_trash"
RBD_GROUP_DIRECTORY: Final = "rbd_group_directory"
RBD_MIRRORING: Final = "rbd_mirroring"

# Objects of one image: prefix + name, or prefix + id (and more, see the module of the format).
RBD_ID_PREFIX: Final = "rbd_id."
RBD_HEADER_PREFIX: Final = "rbd_header."
RBD_OBJECT_MAP_PREFIX: Final = "rbd_object_map."
RBD_DATA_PREFIX: Final = "rbd_data."
RBD_GROUP_HEADER_PREFIX: Final = "rbd_group_header."
RBD_JOURNAL_PREFIX: Final = "journal."
RBD_JOURNAL_DATA_PREFIX: Final = "journal_data."
RBD_MIRROR_SNAPSHOT_PREFIX: Final = "rbd_mirror_snapshot."
RBD_OLD_SUFFIX: Final = ".rbd"  # a format 1 header is <name>.rbd

# Limits.
RBD_MAX_OBJECT_MAP_OBJECTS: Final = 256_000_000
RBD_MAX_IMAGE_ID_LENGTH: Final = 14
RBD_MAX_BLOCK_NAME_PREFIX: Final = 43
