"""Groups: sets of images whose snapshots are taken together.

`rbd_group_directory` leads from a name to an id, `rbd_group_header.<id>` has the members and the group's snapshots. A
client that dies while it makes or removes a group leaves a name without a header, which can be removed as any other.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable
from typing import TypeVar

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call_optional, mutate, mutate_present
from rbd_native.operations import group_members, group_snapshots
from rbd_native.operations.erase import gone
from rbd_native.rados.port import Create, Io, RadosError

T = TypeVar("T")

_PAGE = 1024


async def create(io: Io, name: str) -> None:
    """EEXIST, EINVAL ("")."""
    identifier = names.new_id(io.cluster.instance_id())
    await mutate(io, names.GROUP_DIRECTORY, cls_rbd.group_dir_add(name, identifier))
    try:
        await io.write(names.group_header(identifier), [Create()])
    except RadosError:
        with contextlib.suppress(RadosError):  # the reason is the error above; removing the group ends it too
            await mutate(io, names.GROUP_DIRECTORY, cls_rbd.group_dir_remove(name, identifier))
        raise


async def listing(io: Io) -> list[str]:
    """By their bytes."""
    found: list[str] = []
    while True:
        after = found[-1] if found else ""
        empty: dict[str, str] = {}
        page = await call_optional(io, names.GROUP_DIRECTORY, cls_rbd.group_dir_list(after, _PAGE), empty)
        found += page
        if len(page) < _PAGE:
            return found


async def rename(io: Io, source: str, destination: str) -> None:
    """ENOENT, EEXIST (also where it has that name), EINVAL ("")."""
    identifier = await group_members.identify(io, source)
    # Where it has gone since then, librbd has nothing to say either.
    await mutate_present(io, names.GROUP_DIRECTORY, cls_rbd.group_dir_rename(source, destination, identifier))


async def remove(io: Io, name: str) -> None:
    """With its snapshots, those of the members included; the images stay. Nothing where there is no such group."""
    identifier = await call_optional(io, names.GROUP_DIRECTORY, cls_rbd.dir_get_id(name), None)
    if identifier is None:
        return
    for record in await _where_headed(group_snapshots.records(io, identifier)):
        await group_snapshots.remove_record(io, identifier, record)
    for link in await _where_headed(group_members.links(io, identifier)):
        await group_members.detach(io, identifier, link.spec)
    await gone(io, names.group_header(identifier))
    await mutate_present(io, names.GROUP_DIRECTORY, cls_rbd.group_dir_remove(name, identifier))


async def _where_headed(listing: Awaitable[list[T]]) -> list[T]:
    """Nothing where the group has no header: a client died before it had made it, or after it had removed it."""
    try:
        return await listing
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
