"""Images: parents and children, trash entries, migrations, and the enumerations of directory and header."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from rbd_native.constants import NOSNAP
from rbd_native.encoding import boolean, i64, since, struct, text, u8, u64, utime
from rbd_native.types.mirror import MirrorImageMode


class DirectoryState(IntEnum):
    READY = 0
    ADD_DISABLED = 1


class ProtectionStatus(IntEnum):
    UNPROTECTED = 0
    UNPROTECTING = 1
    PROTECTED = 2


class TrashImageSource(IntEnum):
    """Why an image is in the trash. REMOVING entries are removals under way and are listed as images."""

    USER = 0
    MIRRORING = 1
    MIGRATION = 2
    REMOVING = 3
    USER_PARENT = 4


class TrashImageState(IntEnum):
    NORMAL = 0
    MOVING = 1
    REMOVING = 2
    RESTORING = 3


class MigrationHeaderType(IntEnum):
    SRC = 1
    DST = 2


class MigrationState(IntEnum):
    ERROR = 0
    PREPARING = 1
    PREPARED = 2
    EXECUTING = 3
    EXECUTED = 4
    ABORTING = 5


class AssertSnapcSeqState(IntEnum):
    """What `assert_snapc_seq` wants of the given sequence: newer than the object's, or not."""

    GT_SNAPSET_SEQ = 0
    LE_SNAPSET_SEQ = 1


@struct(1)
class ParentImageSpec:
    """What a clone was made of."""

    pool_id: i64
    pool_namespace: text
    image_id: text
    snap_id: u64

    @property
    def exists(self) -> bool:
        return self.pool_id >= 0 and self.image_id != "" and self.snap_id != NOSNAP


NO_PARENT: Final = ParentImageSpec(-1, "", "", NOSNAP)


@struct(2, 2)
class StoredParent:
    """Header key `parent`. `head_overlap` is absent where only snapshots still depend on the parent.

    Version 1 (before Nautilus) had no namespace and is not read here.
    """

    pool_id: i64 = since(2)
    pool_namespace: text
    image_id: text
    snap_id: u64
    head_overlap: u64 | None

    @property
    def spec(self) -> ParentImageSpec:
        return ParentImageSpec(self.pool_id, self.pool_namespace, self.image_id, self.snap_id)


@struct(2)
class ChildImageSpec:
    """A clone, as its parent knows it. The order of the fields is not that of :class:`ParentImageSpec`."""

    pool_id: i64
    image_id: text
    pool_namespace: text = since(2, default="")

    @property
    def sort_key(self) -> tuple[int, bytes, bytes]:
        namespace = self.pool_namespace.encode("utf-8", "surrogateescape")
        return self.pool_id, namespace, self.image_id.encode("utf-8", "surrogateescape")


@struct(2)
class TrashImageSpec:
    """`deferment_end`: until when only a forced removal works."""

    source: Annotated[TrashImageSource, u8]
    name: text
    deletion_time: utime
    deferment_end: utime
    state: Annotated[TrashImageState, u8] = since(2, default=TrashImageState.NORMAL)


@struct(3)
class MigrationSpec:
    """Header key `migration`, of both ends of a live migration; the other end is what it names.

    `snap_seqs`: snapshot ids of the source to those of the destination. `overlap`: bytes still read from the
    source.
    """

    header_type: Annotated[MigrationHeaderType, u8]
    pool_id: i64
    pool_namespace: text
    image_name: text
    image_id: text
    snap_seqs: dict[u64, u64]
    overlap: u64
    flatten: boolean
    mirroring: boolean
    state: Annotated[MigrationState, u8]
    state_description: text
    mirror_image_mode: Annotated[MirrorImageMode, u8] = since(2, default=MirrorImageMode.JOURNAL)
    source_spec: text = since(3, default="")

    def wire_version(self) -> tuple[int, int]:
        # A reader that cannot follow a source spec must not believe that pool and image id name the source.
        return 3, 3 if self.source_spec else 1
