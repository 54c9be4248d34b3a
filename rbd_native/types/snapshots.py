"""Snapshots of an image: the namespaces that say what a snapshot is for, and what header and client keep of
it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar

from rbd_native.encoding import boolean, i64, rest, since, struct, tagged, text, u8, u32, u64, utime
from rbd_native.types.images import ProtectionStatus


class SnapshotNamespaceType(IntEnum):
    USER = 0
    GROUP = 1
    TRASH = 2
    MIRROR = 3


class MirrorSnapshotState(IntEnum):
    PRIMARY = 0
    PRIMARY_DEMOTED = 1
    NON_PRIMARY = 2
    NON_PRIMARY_DEMOTED = 3


@struct()
class UserSnapshotNamespace:
    """A snapshot that a user made."""

    type: ClassVar[int] = SnapshotNamespaceType.USER


@struct()
class GroupSnapshotNamespace:
    """Part of a group's snapshot; the pool is that of the group."""

    type: ClassVar[int] = SnapshotNamespaceType.GROUP
    pool_id: i64
    group_id: text
    group_snap_id: text


@struct()
class TrashSnapshotNamespace:
    """A removed snapshot that clones still depend on, and what it was."""

    type: ClassVar[int] = SnapshotNamespaceType.TRASH
    original_name: text
    original_type: Annotated[SnapshotNamespaceType, u32]


@struct()
class MirrorSnapshotNamespace:
    """A snapshot taken by mirroring. Of a primary, `primary_snap_id` is since when it is clean."""

    type: ClassVar[int] = SnapshotNamespaceType.MIRROR
    state: Annotated[MirrorSnapshotState, u8]
    complete: boolean
    mirror_peer_uuids: set[text]
    primary_mirror_uuid: text
    primary_snap_id: u64
    last_copied_object_number: u64
    snap_seqs: dict[u64, u64]

    @property
    def is_non_primary(self) -> bool:
        return self.state in (MirrorSnapshotState.NON_PRIMARY, MirrorSnapshotState.NON_PRIMARY_DEMOTED)

    @property
    def is_primary(self) -> bool:
        return self.state in (MirrorSnapshotState.PRIMARY, MirrorSnapshotState.PRIMARY_DEMOTED)


@struct()
class UnknownSnapshotNamespace:
    """Of a type that this release does not know; what it says is kept."""

    type: u32
    body: rest = b""


SnapshotNamespace = (
    UserSnapshotNamespace
    | GroupSnapshotNamespace
    | TrashSnapshotNamespace
    | MirrorSnapshotNamespace
    | UnknownSnapshotNamespace
)

snapshot_namespace = Annotated[
    SnapshotNamespace,
    tagged(
        u32,
        [UserSnapshotNamespace, GroupSnapshotNamespace, TrashSnapshotNamespace, MirrorSnapshotNamespace],
        UnknownSnapshotNamespace,
        version=1,
    ),
]
"""V(1,1) of the type and what that type has."""


@struct(1)
class SnapshotInfo:
    """What `snapshot_get` tells of a snapshot."""

    id: u64
    namespace: snapshot_namespace
    name: text
    image_size: u64
    timestamp: utime
    child_count: u32


@struct(8, 8)
class StoredSnapshot:
    """Header key `snapshot_*`, as OSDs write it since Nautilus. Older layouts (version < 8) are not read
    here.

    `parent_overlap`: bytes of the parent that this snapshot shows; absent where it does not depend on one.
    """

    id: u64 = since(8)
    name: text
    image_size: u64
    protection_status: Annotated[ProtectionStatus, u8]
    flags: u64
    namespace: snapshot_namespace
    timestamp: utime
    child_count: u32
    parent_overlap: u64 | None
