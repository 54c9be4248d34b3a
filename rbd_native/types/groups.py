"""Consistency groups: what a member's header and the group's own objects say."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from rbd_native.encoding import i64, struct, text, u8, u64


class GroupImageLinkState(IntEnum):
    ATTACHED = 0
    INCOMPLETE = 1


class GroupSnapshotState(IntEnum):
    INCOMPLETE = 0
    COMPLETE = 1


@struct(1)
class GroupSpec:
    """The group an image belongs to."""

    pool_id: i64
    group_id: text

    @property
    def is_valid(self) -> bool:
        return self.pool_id != -1 and self.group_id != ""


NO_GROUP: Final = GroupSpec(-1, "")


@struct(1)
class GroupImageSpec:
    """A member of a group. The fields are the other way round than in :class:`GroupSpec`."""

    image_id: text
    pool_id: i64


@struct(1)
class GroupImageStatus:
    spec: GroupImageSpec
    state: Annotated[GroupImageLinkState, u8]


@struct(1)
class ImageSnapshotSpec:
    pool_id: i64
    image_id: text
    snap_id: u64


@struct(1)
class GroupSnapshot:
    """A snapshot of a group and the image snapshots it is made of."""

    id: text
    name: text
    state: Annotated[GroupSnapshotState, u8]
    snaps: list[ImageSnapshotSpec]
