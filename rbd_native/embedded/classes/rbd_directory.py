"""Class `rbd`, names: `rbd_id.*` (data: the id), `rbd_directory` and `rbd_group_directory` (keys `name_*` and
`id_*`, each the other's value, and `state`), `rbd_namespace` (keys `name_*`).
"""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native import constants as c
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import DecodeError, decode, encode, text, u8
from rbd_native.types import DirectoryState

_NAME = b"name_"
_ID = b"id_"


def is_valid_id(identifier: str) -> bool:
    return identifier.isascii() and identifier.isalnum()


# --- rbd_id.<name>


@handles(cls_rbd.get_id)
def get_id(context: ObjectContext) -> str:
    if not context.size():
        raise ClassError(errno.ENOENT)
    try:
        found: str = decode(text, omap.data(context))
    except DecodeError:
        raise ClassError(errno.EIO) from None
    return found


@handles(cls_rbd.set_id, must_exist=True)
def set_id(context: ObjectContext, image_id: str) -> None:
    if not is_valid_id(image_id):
        raise ClassError(errno.EINVAL)
    if context.size():
        raise ClassError(errno.EEXIST)
    context.write(0, encode(image_id, text))


# --- directories, of images and of groups alike


@handles(cls_rbd.dir_get_id)
def dir_get_id(context: ObjectContext, name: str) -> str:
    found: str = omap.need(context, omap.key(_NAME, name), text)
    return found


@handles(cls_rbd.dir_get_name)
def dir_get_name(context: ObjectContext, image_id: str) -> str:
    found: str = omap.need(context, omap.key(_ID, image_id), text)
    return found


@handles(cls_rbd.dir_list)
@handles(cls_rbd.group_dir_list)
def dir_list(context: ObjectContext, after: str, max_return: int) -> dict[str, str]:
    entries = omap.listing(context, _NAME, after, max_return)
    return {name: omap.parse(text, raw) for name, raw in entries.items()}


@handles(cls_rbd.dir_add_image)
@handles(cls_rbd.group_dir_add)
def dir_add_image(context: ObjectContext, name: str, image_id: str) -> None:
    context.create()
    _add(context, name, image_id, unique_id=True)


def _add(context: ObjectContext, name: str, identifier: str, *, unique_id: bool) -> None:
    if not name or not is_valid_id(identifier):
        raise ClassError(errno.EINVAL)
    name_key, id_key = omap.key(_NAME, name), omap.key(_ID, identifier)
    if context.omap(name_key) is not None:
        raise ClassError(errno.EEXIST)
    if unique_id and context.omap(id_key) is not None:
        raise ClassError(errno.EBADF)
    context.set_omap({name_key: encode(identifier, text), id_key: encode(name, text)})


@handles(cls_rbd.dir_remove_image)
@handles(cls_rbd.group_dir_remove)
def dir_remove_image(context: ObjectContext, name: str, image_id: str) -> None:
    name_key, id_key = omap.key(_NAME, name), omap.key(_ID, image_id)
    found = omap.need(context, name_key, text), omap.need(context, id_key, text)
    if found != (image_id, name):
        raise ClassError(errno.ESTALE)
    omap.drop(context, name_key, id_key)


@handles(cls_rbd.dir_rename_image)
@handles(cls_rbd.group_dir_rename)
def dir_rename_image(context: ObjectContext, source: str, destination: str, image_id: str) -> None:
    dir_remove_image(context, source, image_id)
    # The id is taken, by the entry that is being removed.
    _add(context, destination, image_id, unique_id=False)


@handles(cls_rbd.dir_state_assert)
def dir_state_assert(context: ObjectContext, state: DirectoryState) -> None:
    if omap.need(context, b"state", u8) != state:
        raise ClassError(errno.ENOENT)


@handles(cls_rbd.dir_state_set)
def dir_state_set(context: ObjectContext, state: DirectoryState) -> None:
    if state == DirectoryState.ADD_DISABLED:
        omap.require_object(context)
        if context.omap_page(_NAME, 1, _NAME)[0]:
            raise ClassError(errno.EBUSY)
    elif state != DirectoryState.READY:
        raise ClassError(errno.EINVAL)
    omap.put(context, b"state", state, u8)


@handles(cls_rbd.get_all_features)
def get_all_features(context: ObjectContext) -> int:
    return c.RBD_FEATURES_ALL


# --- rbd_namespace


@handles(cls_rbd.namespace_add)
def namespace_add(context: ObjectContext, name: str) -> None:
    if context.omap(omap.key(_NAME, name)) is not None:
        raise ClassError(errno.EEXIST)
    omap.put_raw(context, omap.key(_NAME, name))


@handles(cls_rbd.namespace_remove)
def namespace_remove(context: ObjectContext, name: str) -> None:
    if context.omap(omap.key(_NAME, name)) is None:
        raise ClassError(errno.ENOENT)
    omap.drop(context, omap.key(_NAME, name))


@handles(cls_rbd.namespace_list)
def namespace_list(context: ObjectContext, after: str, max_return: int) -> list[str]:
    return list(omap.listing(context, _NAME, after, max_return))
