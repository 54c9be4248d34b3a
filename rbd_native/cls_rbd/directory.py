"""Class `rbd` on the objects that find images: id objects, directories, the trash, namespaces, children of
version 1.
"""

from __future__ import annotations

from typing import Annotated

from rbd_native.cls_client import READ, READ_WRITE, method
from rbd_native.encoding import text, u8, u64
from rbd_native.types import DirectoryState, TrashImageSpec, TrashImageState

# --- rbd_id.<name>


@method("rbd", READ)
def get_id() -> text:
    """The image id. ENOENT also where the object is empty."""


@method("rbd", READ_WRITE)
def set_id(image_id: text) -> None:
    """ENOENT unless the object exists (create it in the same operation), EEXIST where it has one, EINVAL."""


# --- rbd_directory


@method("rbd", READ)
def dir_get_id(name: text) -> text:
    """ENOENT."""


@method("rbd", READ)
def dir_get_name(image_id: text) -> text:
    """ENOENT."""


@method("rbd", READ)
def dir_list(after: text, max_return: u64) -> dict[text, text]:
    """Names to ids, from behind the name `after`."""


@method("rbd", READ_WRITE)
def dir_add_image(name: text, image_id: text) -> None:
    """EEXIST where the name is taken, EBADF where the id is, EINVAL."""


@method("rbd", READ_WRITE)
def dir_remove_image(name: text, image_id: text) -> None:
    """ENOENT; ESTALE where name and id do not belong together."""


@method("rbd", READ_WRITE)
def dir_rename_image(source: text, destination: text, image_id: text) -> None:
    """ENOENT, ESTALE, EEXIST."""


@method("rbd", READ)
def dir_state_assert(state: Annotated[DirectoryState, u8]) -> None:
    """ENOENT unless the directory is in that state; a directory where none was set is in no state."""


@method("rbd", READ_WRITE)
def dir_state_set(state: Annotated[DirectoryState, u8]) -> None:
    """EBUSY where adding is to be disabled and images are left."""


@method("rbd", READ)
def get_all_features() -> u64:
    """The features that this OSD knows."""


# --- rbd_children: parent (pool, id, snapshot) to the ids of its clones of version 1


@method("rbd", READ_WRITE)
def add_child(pool_id: u64, image_id: text, snap_id: u64, child_id: text) -> None:
    """EEXIST."""


@method("rbd", READ_WRITE)
def remove_child(pool_id: u64, image_id: text, snap_id: u64, child_id: text) -> None:
    """ENOENT."""


@method("rbd", READ)
def get_children(pool_id: u64, image_id: text, snap_id: u64) -> set[text]:
    """ENOENT where there are none."""


# --- rbd_trash


@method("rbd", READ_WRITE)
def trash_add(image_id: text, spec: TrashImageSpec) -> None:
    """EEXIST, EINVAL."""


@method("rbd", READ_WRITE)
def trash_remove(image_id: text) -> None:
    """ENOENT."""


@method("rbd", READ)
def trash_list(after: text, max_return: u64) -> dict[text, TrashImageSpec]:
    """Ids to entries, from behind the id `after`."""


@method("rbd", READ)
def trash_get(image_id: text) -> TrashImageSpec:
    """ENOENT."""


@method("rbd", READ_WRITE)
def trash_state_set(
    image_id: text, state: Annotated[TrashImageState, u8], expected: Annotated[TrashImageState, u8]
) -> None:
    """ENOENT; ESTALE unless the entry is in the expected state, or in the new one already."""


# --- rbd_namespace


@method("rbd", READ_WRITE)
def namespace_add(name: text) -> None:
    """EEXIST."""


@method("rbd", READ_WRITE)
def namespace_remove(name: text) -> None:
    """ENOENT."""


@method("rbd", READ)
def namespace_list(after: text, max_return: u64) -> list[text]:
    """Ascending, from behind `after`."""
