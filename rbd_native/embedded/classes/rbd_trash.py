"""Class `rbd`, `rbd_trash`: keys `id_<image id>`."""

from __future__ import annotations

import dataclasses
import errno

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.classes.rbd_directory import is_valid_id
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.types import TrashImageSpec, TrashImageState

_PREFIX = b"id_"


@handles(cls_rbd.trash_add)
def trash_add(context: ObjectContext, image_id: str, spec: TrashImageSpec) -> None:
    if not is_valid_id(image_id):
        raise ClassError(errno.EINVAL)
    if context.omap(omap.key(_PREFIX, image_id)) is not None:
        raise ClassError(errno.EEXIST)
    omap.put(context, omap.key(_PREFIX, image_id), spec)


@handles(cls_rbd.trash_remove)
def trash_remove(context: ObjectContext, image_id: str) -> None:
    trash_get(context, image_id)
    omap.drop(context, omap.key(_PREFIX, image_id))


@handles(cls_rbd.trash_list)
def trash_list(context: ObjectContext, after: str, max_return: int) -> dict[str, TrashImageSpec]:
    entries = omap.listing(context, _PREFIX, after, max_return)
    return {image_id: omap.parse(TrashImageSpec, raw) for image_id, raw in entries.items()}


@handles(cls_rbd.trash_get)
def trash_get(context: ObjectContext, image_id: str) -> TrashImageSpec:
    found: TrashImageSpec = omap.need(context, omap.key(_PREFIX, image_id), TrashImageSpec)
    return found


@handles(cls_rbd.trash_state_set)
def trash_state_set(context: ObjectContext, image_id: str, state: TrashImageState, expected: TrashImageState) -> None:
    spec = trash_get(context, image_id)
    if spec.state == expected:
        omap.put(context, omap.key(_PREFIX, image_id), dataclasses.replace(spec, state=state))
    elif spec.state != state:
        raise ClassError(errno.ESTALE)
