"""Namespaces of a pool: each has images, trash and groups of its own.

They are listed in `rbd_namespace` of the pool's default namespace; a state in a namespace's own directory says that images
may be made there. What is asked of one namespace is asked of the pool, whatever namespace it is asked from. A client that
dies while it makes or removes one leaves a name in the list that does not exist as a namespace: removing it ends that.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Final

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call_optional, mutate
from rbd_native.operations import mirror_pool, trash
from rbd_native.operations.erase import gone
from rbd_native.rados.port import Io, RadosError, Remove
from rbd_native.types import DirectoryState, MirrorMode

_PAGE = 1024
_OBJECTS: Final = (
    names.CHILDREN,
    names.GROUP_DIRECTORY,
    names.INFO,
    names.MIRRORING,
    names.TASKS,
    names.TRASH,
    names.DIRECTORY,
)
"""What a namespace that holds no image may have besides."""


def _named(name: str) -> str:
    if not name:
        raise RadosError(errno.EINVAL, "the default namespace is always there")
    return name


async def create(io: Io, name: str) -> None:
    """EINVAL for "", EEXIST."""
    default, inside = io.in_namespace(""), io.in_namespace(_named(name))
    await mutate(default, names.NAMESPACES, cls_rbd.namespace_add(name))
    try:
        await trash.make(inside)
        await mutate(inside, names.DIRECTORY, cls_rbd.dir_state_set(DirectoryState.READY))
    except RadosError:
        with contextlib.suppress(RadosError):  # the reason is the error above; removing the namespace ends it too
            await mutate(default, names.NAMESPACES, cls_rbd.namespace_remove(name))
        raise


async def exists(io: Io, name: str) -> bool:
    """Whether images may be made there. EINVAL for ""."""
    request = cls_rbd.dir_state_assert(DirectoryState.READY)
    absent = object()
    return await call_optional(io.in_namespace(_named(name)), names.DIRECTORY, request, absent) is not absent


async def listing(io: Io) -> list[str]:
    """By their bytes, without the default one."""
    default, found = io.in_namespace(""), list[str]()
    while True:
        after = found[-1] if found else ""
        empty: list[str] = []
        page = await call_optional(default, names.NAMESPACES, cls_rbd.namespace_list(after, _PAGE), empty)
        found += page
        if len(page) < _PAGE:
            return found


async def remove(io: Io, name: str) -> None:
    """EINVAL for "", ENOENT; EBUSY where it has images, also in the trash, or is mirrored to somewhere."""
    default, inside = io.in_namespace(""), io.in_namespace(_named(name))
    await _close(inside)
    try:
        await _empty(inside)
    except RadosError:
        await mutate(inside, names.DIRECTORY, cls_rbd.dir_state_set(DirectoryState.READY))
        raise
    for oid in _OBJECTS:
        await gone(inside, oid)
    await mutate(default, names.NAMESPACES, cls_rbd.namespace_remove(name))


async def _close(inside: Io) -> None:
    """From here on no image can be made: at once where there is none, else EBUSY."""
    state = cls_rbd.dir_state_set(DirectoryState.ADD_DISABLED)
    reply = await inside.write(names.DIRECTORY, [state.step, Remove()]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, names.DIRECTORY, reply)


async def _empty(inside: Io) -> None:
    nothing: dict[str, object] = {}
    if await call_optional(inside, names.TRASH, cls_rbd.trash_list("", 1), nothing):
        raise RadosError(errno.EBUSY, "there are images in the trash")
    await mirror_pool.set_mode(inside, MirrorMode.DISABLED)
