"""The exclusive lock by hand, and the advisory locks that users put on an image.

Both are one and the same lock of class `lock` on the header: while users hold it nobody takes it automatically, and the
other way round. Advisory locks keep nobody from writing who does not look at them.
"""

from __future__ import annotations

import errno
import re
from typing import Any

from rbd_native import cls_lock, names
from rbd_native.cls_client import call
from rbd_native.constants import RBD_LOCK_MODE_EXCLUSIVE, RBD_LOCK_MODE_EXCLUSIVE_TRANSIENT
from rbd_native.image.context import ImageContext
from rbd_native.image.exclusive_lock import ExclusiveLock
from rbd_native.rados.port import ListWatchers, RadosError
from rbd_native.types import EntityName, EntityType, LockerId, LockInfo, LockType

_ACQUIRABLE = (RBD_LOCK_MODE_EXCLUSIVE, RBD_LOCK_MODE_EXCLUSIVE_TRANSIENT)

# --- the exclusive lock ----------------------------------------------------------------------------------------------


async def acquire(image: ImageContext, mode: int) -> None:
    """Take it, for good, or (EXCLUSIVE_TRANSIENT) until another client asks for it: EINVAL without the feature, EOPNOTSUPP
    for another mode, EROFS where the owner keeps it."""
    lock = await _managed(image)
    if mode not in _ACQUIRABLE:
        raise RadosError(errno.EOPNOTSUPP, f"lock mode {mode}")
    lock.automatic = False
    lock.transient = mode == RBD_LOCK_MODE_EXCLUSIVE_TRANSIENT
    await lock.acquire_for_good()


async def release(image: ImageContext) -> None:
    """Give it back. Writes take it again, unless it was taken by hand before. EINVAL where it is not held."""
    lock = await _managed(image)
    if not lock.owned:
        raise RadosError(errno.EINVAL, "the exclusive lock is not held")
    await lock.release()


async def is_owner(image: ImageContext) -> bool:
    """Whether this handle has it, by the OSD's word."""
    await _current(image)
    return image.lock is not None and await image.lock.confirmed()


async def owners(image: ImageContext) -> list[str]:
    """The address of the owner, or nothing. EINVAL without the feature, or where the handle cannot write."""
    await _managed(image)
    return [str(locker.address) for locker in (await _info(image)).lockers.values()]


async def break_exclusive(image: ImageContext, mode: int, owner: str) -> None:
    """Fence the owner and take the lock from him. ENOENT where nobody has it, EBUSY where another does; EROFS, and what
    :func:`acquire` refuses."""
    if mode != RBD_LOCK_MODE_EXCLUSIVE:
        raise RadosError(errno.EOPNOTSUPP, f"lock mode {mode}")
    if image.read_only:
        raise RadosError(errno.EROFS, image.name)
    lock = await _managed(image)
    found = await lock.locker()
    if found is None:
        raise RadosError(errno.ENOENT, "nobody holds the exclusive lock")
    if str(found[1].address) != owner:
        raise RadosError(errno.EBUSY, f"{found[1].address} holds the exclusive lock")
    await lock.break_from(*found)


async def _managed(image: ImageContext) -> ExclusiveLock:
    await _current(image)
    if image.lock is None or image.frozen:
        raise RadosError(errno.EINVAL, "the image has no exclusive lock, or is not open for writing")
    return image.lock


# --- advisory locks --------------------------------------------------------------------------------------------------


async def lock_exclusive(image: ImageContext, cookie: str) -> None:
    """EEXIST where this client has it under the cookie, EBUSY where it is held otherwise."""
    await _lock(image, LockType.EXCLUSIVE, cookie, "")


async def lock_shared(image: ImageContext, cookie: str, tag: str) -> None:
    """As :func:`lock_exclusive`; others may share it who use the same tag."""
    await _lock(image, LockType.SHARED, cookie, tag)


async def _lock(image: ImageContext, kind: LockType, cookie: str, tag: str) -> None:
    await image.update_header(cls_lock.lock(names.LOCK_NAME, kind, cookie, tag))


async def unlock(image: ImageContext, cookie: str) -> None:
    """ENOENT where this client does not hold it under the cookie."""
    await image.update_header(cls_lock.unlock(names.LOCK_NAME, cookie))


async def break_lock(image: ImageContext, client: str, cookie: str) -> None:
    """Take it from a client, named as in the list of lockers, and fence it. EINVAL for no such name, ENOENT."""
    number = re.fullmatch(r"client\.(\d{1,19})", client)
    if number is None:
        raise RadosError(errno.EINVAL, f"{client!r} names no client")
    who = LockerId(EntityName(EntityType.CLIENT, int(number[1])), cookie)
    locker = (await _info(image)).lockers.get(who)
    if locker is None:
        raise RadosError(errno.ENOENT, f"{client} does not hold the lock")
    await _current(image)
    if image.settings.flag("rbd_blocklist_on_break_lock"):
        await image.fence(locker.address)
    await image.update_header(cls_lock.break_lock(names.LOCK_NAME, who.name, cookie))


Held = tuple[str, bool, list[tuple[str, str, str]]]
"""A lock that somebody holds: (tag, exclusive, [(client, cookie, address)])."""


async def lockers(image: ImageContext) -> Held | None:
    """As of the last refresh; None where nobody holds it."""
    await _current(image)
    return held(image.header.lock)


def held(info: LockInfo) -> Held | None:
    """What a header says of the lock."""
    if not info.lockers:
        return None
    rows = [(str(who.name), who.cookie, str(locker.address)) for who, locker in info.lockers.items()]
    return info.tag, info.type == LockType.EXCLUSIVE, rows


async def watchers(image: ImageContext) -> list[dict[str, Any]]:
    """Who watches the header: dicts with keys addr, id (of the client), cookie."""
    reply = await image.io.read(image.header_oid, [ListWatchers()])
    return [{"addr": w.address, "id": w.client, "cookie": w.cookie} for w in reply.outs[0]]


async def _info(image: ImageContext) -> LockInfo:
    return await call(image.io, image.header_oid, cls_lock.get_info(names.LOCK_NAME))


async def _current(image: ImageContext) -> None:
    if image.stale:
        await image.fresh()
