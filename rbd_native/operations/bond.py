"""The bond between a clone and its parent, made and cut.

A clone names its parent in its own header. The parent knows its clones in one of two ways: clones of format 2 are listed in
its header, those of format 1 in the object `rbd_children` of the clone's pool.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from rbd_native import cls_rbd, names
from rbd_native.cls_client import ClassCall, mutate
from rbd_native.constants import RBD_FEATURE_LAYERING, RBD_OPERATION_FEATURE_CLONE_CHILD
from rbd_native.image.context import ImageContext
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import ChildImageSpec, ParentImageSpec
from rbd_native.watch_notify import HeaderUpdate, encode_message

_NOTIFY_TIMEOUT_MS = 5000
_NONE: Final[Mapping[str, bytes]] = MappingProxyType({})


async def attach(
    child: ChildImageSpec,
    io: Io,
    features: int,
    spec: ParentImageSpec,
    overlap: int,
    metadata: Mapping[str, bytes] = _NONE,
    *,
    old: bool,
) -> None:
    """Bind a new image to its parent, the child's side first: from then on its removal clears away all of it.

    `io`: where the child lies. `features`: of the child. `metadata`: what it is given at the same time. ENOSYS without the
    feature layering.
    """
    if not features & RBD_FEATURE_LAYERING:
        raise RadosError(errno.ENOSYS, "a clone needs the feature layering")
    steps: list[ClassCall[Any]] = [cls_rbd.parent_attach(spec, overlap)]
    if not old:
        steps.append(cls_rbd.op_features_set(RBD_OPERATION_FEATURE_CLONE_CHILD, RBD_OPERATION_FEATURE_CLONE_CHILD))
    if metadata:
        steps.append(cls_rbd.metadata_set(dict(metadata)))
    await mutate(io, names.header(child.image_id), *steps)
    if old:
        entry = cls_rbd.add_child(spec.pool_id, spec.image_id, spec.snap_id, child.image_id)
        await mutate(io, names.CHILDREN, entry)
        return
    parent = io.cluster.io(spec.pool_id, spec.pool_namespace)
    await mutate(parent, names.header(spec.image_id), cls_rbd.child_attach(spec.snap_id, child))
    await _tell(parent, spec.image_id)


async def detach(child: ImageContext, spec: ParentImageSpec) -> None:
    """Take a clone off its parent's list. Where that was done before, nothing is left to do."""
    io = child.io
    if child.header.op_features & RBD_OPERATION_FEATURE_CLONE_CHILD:
        parent = io.cluster.io(spec.pool_id, spec.pool_namespace)
        steps = [cls_rbd.child_detach(spec.snap_id, spec_of(child.io, child.id)).step]
        reply = await parent.write(names.header(spec.image_id), steps).bare()
        if reply.rv == 0:
            await _tell(parent, spec.image_id)
    else:
        entry = cls_rbd.remove_child(spec.pool_id, spec.image_id, spec.snap_id, child.id)
        reply = await io.write(names.CHILDREN, [entry.step]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, f"parent of {child.name}")


def spec_of(io: Io, identifier: str) -> ChildImageSpec:
    """How a parent lists a clone."""
    return ChildImageSpec(io.pool_id, identifier, io.namespace)


async def _tell(io: Io, identifier: str) -> None:
    """The parent's header has changed."""
    await io.notify(names.header(identifier), encode_message(HeaderUpdate()), _NOTIFY_TIMEOUT_MS)
