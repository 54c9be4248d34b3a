"""Which images are in a group. Both sides say so: the group's header has a link to the image, and the image's header names
the group, which makes it one of at most one.

Adding: the link first, marked as incomplete; then the image's word; then the link is complete. Removing goes the other way.
A client that dies in between leaves an incomplete link, which the listing shows; adding or removing the image again ends
it.

Members may be of any pool, but of the group's own namespace.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Final, NamedTuple

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call, mutate, mutate_present
from rbd_native.image.exclusive_lock import NOTIFY_TIMEOUT_MS
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import GroupImageLinkState, GroupImageSpec, GroupImageStatus, GroupSpec
from rbd_native.watch_notify import HeaderUpdate, encode_message

_PAGE = 1024
_BEGINNING: Final = GroupImageSpec("", -1)


class Member(NamedTuple):
    """An image of a group, as a user sees it."""

    name: str
    pool_id: int
    state: int


async def identify(io: Io, group: str) -> str:
    """The id of a group. ENOENT."""
    return await call(io, names.GROUP_DIRECTORY, cls_rbd.dir_get_id(group))


async def links(io: Io, group_id: str) -> list[GroupImageStatus]:
    """By pool and image id. ENOENT where the group has no header: whoever made it died over that."""
    found: list[GroupImageStatus] = []
    while True:
        after = found[-1].spec if found else _BEGINNING
        page = await call(io, names.group_header(group_id), cls_rbd.group_image_list(after, _PAGE))
        found += page
        if len(page) < _PAGE:
            return found


async def listing(io: Io, group: str) -> list[Member]:
    """Empty without the group, and where an image has lost its name to the trash: so it is in librbd."""
    try:
        found = await links(io, await identify(io, group))
        return [await _member(io, link) for link in found]
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return []


async def _member(io: Io, link: GroupImageStatus) -> Member:
    there = pool_of(io, link.spec.pool_id)
    name = await call(there, names.DIRECTORY, cls_rbd.dir_get_name(link.spec.image_id))
    return Member(name, link.spec.pool_id, int(link.state))


def pool_of(io: Io, pool_id: int) -> Io:
    """Where members of a pool are, from where their group is."""
    return io.cluster.io(pool_id, io.namespace)


async def add(io: Io, group: str, image_io: Io, name: str) -> None:
    """ENOENT, EEXIST (it is in another group), EINVAL (of another namespace)."""
    group_id, link = await _both(io, group, image_io, name)
    await _link(io, group_id, link, GroupImageLinkState.INCOMPLETE)
    request = cls_rbd.image_group_add(GroupSpec(io.pool_id, group_id))
    try:
        await mutate(image_io, names.header(link.image_id), request)
    except RadosError as error:
        if not error.unanswered:  # else the image may know of the group by now
            with contextlib.suppress(RadosError):  # the reason is the error above; an incomplete link can be removed
                await mutate(io, names.group_header(group_id), cls_rbd.group_image_remove(link))
        raise
    await _tell(image_io, link.image_id)
    await _link(io, group_id, link, GroupImageLinkState.ATTACHED)


async def remove(io: Io, group: str, image_io: Io, name: str) -> None:
    """Nothing where it is in no group. ENOENT, EBADF (it is in another group), EINVAL (of another namespace)."""
    group_id, link = await _both(io, group, image_io, name)
    await detach(io, group_id, link)


async def _both(io: Io, group: str, image_io: Io, name: str) -> tuple[str, GroupImageSpec]:
    if io.namespace != image_io.namespace:
        raise RadosError(errno.EINVAL, "the group and the image are in different namespaces")
    group_id = await identify(io, group)
    image_id = await call(image_io, names.DIRECTORY, cls_rbd.dir_get_id(name))
    return group_id, GroupImageSpec(image_id, image_io.pool_id)


async def detach(io: Io, group_id: str, link: GroupImageSpec) -> None:
    """Take an image out of a group. It need not exist any more. EBADF where it is in another one."""
    await _link(io, group_id, link, GroupImageLinkState.INCOMPLETE)
    there = pool_of(io, link.pool_id)
    request = cls_rbd.image_group_remove(GroupSpec(io.pool_id, group_id))
    if await mutate_present(there, names.header(link.image_id), request):
        await _tell(there, link.image_id)
    await mutate(io, names.group_header(group_id), cls_rbd.group_image_remove(link))


async def _link(io: Io, group_id: str, link: GroupImageSpec, state: GroupImageLinkState) -> None:
    await mutate(io, names.group_header(group_id), cls_rbd.group_image_set(GroupImageStatus(link, state)))


async def _tell(io: Io, image_id: str) -> None:
    """Who has the image open reads its header anew."""
    await io.notify(names.header(image_id), encode_message(HeaderUpdate()), NOTIFY_TIMEOUT_MS)
