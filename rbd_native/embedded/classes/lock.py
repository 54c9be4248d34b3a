"""Class `lock`: the state of lock NAME is the xattr `lock.NAME`, a LockInfo. It outlasts its last holder."""

from __future__ import annotations

import dataclasses
import errno

from rbd_native import cls_lock
from rbd_native.cls_lock import LockNames
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles
from rbd_native.encoding import DecodeError, UTime, decode, encode
from rbd_native.types import (
    AddressType,
    EntityAddress,
    EntityName,
    EntityType,
    Locker,
    LockerId,
    LockFlag,
    LockInfo,
    LockType,
)

_PREFIX = "lock."
_EXCLUSIVE = (LockType.EXCLUSIVE, LockType.EXCLUSIVE_EPHEMERAL)
_VALID = (*_EXCLUSIVE, LockType.SHARED)
_NEVER_LOCKED = LockInfo({}, LockType.NONE, "")
_BOTH_FLAGS = LockFlag.MAY_RENEW | LockFlag.MUST_RENEW


def _caller(context: ObjectContext, cookie: str) -> LockerId:
    return LockerId(EntityName(EntityType.CLIENT, context.entity.client), cookie)


def _load(context: ObjectContext, name: str) -> LockInfo:
    """Without the lockers that have lapsed. The object of an ephemeral lock goes with the last of them."""
    raw = context.xattr(_PREFIX + name)
    if raw is None:
        return _NEVER_LOCKED
    try:
        info: LockInfo = decode(LockInfo, raw)
    except DecodeError:
        raise ClassError(errno.EIO) from None
    now = context.now()
    alive = {holder: locker for holder, locker in info.lockers.items() if not locker.expired(now)}
    if not alive and info.type == LockType.EXCLUSIVE_EPHEMERAL:
        context.remove()
    return dataclasses.replace(info, lockers=alive)


def _load_or_new(context: ObjectContext, name: str) -> LockInfo:
    try:
        return _load(context, name)
    except ClassError as error:
        if error.errno != errno.ENOENT:
            raise
        return _NEVER_LOCKED


def _save(context: ObjectContext, name: str, info: LockInfo) -> None:
    context.set_xattr(_PREFIX + name, encode(info))


@handles(cls_lock.lock)
def lock(
    context: ObjectContext,
    name: str,
    type: LockType,
    cookie: str,
    tag: str,
    description: str,
    duration: UTime,
    flags: LockFlag,
) -> None:
    if type not in _VALID or not name or flags & _BOTH_FLAGS == _BOTH_FLAGS:
        raise ClassError(errno.EINVAL)
    info = _load_or_new(context, name)
    if info.lockers and info.tag != tag:
        raise ClassError(errno.EBUSY)
    me = _caller(context, cookie)
    if me in info.lockers and not flags & _BOTH_FLAGS:
        raise ClassError(errno.EEXIST)
    if me not in info.lockers and flags & LockFlag.MUST_RENEW:
        raise ClassError(errno.ENOENT)
    others = {holder: locker for holder, locker in info.lockers.items() if holder != me}
    if others and (type in _EXCLUSIVE or type != info.type):
        raise ClassError(errno.EBUSY)
    expiration = _later(context.now(), duration) if duration != UTime() else UTime()
    # The type of the address is not part of who the client is.
    address = EntityAddress.parse(context.entity.address, AddressType.LEGACY)
    lockers = {**others, me: Locker(expiration, address, description)}
    _save(context, name, LockInfo(lockers, type, tag))


def _later(moment: UTime, duration: UTime) -> UTime:
    carry, nsec = divmod(moment.nsec + duration.nsec, 1_000_000_000)
    return UTime((moment.sec + duration.sec + carry) & 0xFFFFFFFF, nsec)


@handles(cls_lock.unlock)
def unlock(context: ObjectContext, name: str, cookie: str) -> None:
    _release(context, name, _caller(context, cookie))


@handles(cls_lock.break_lock)
def break_lock(context: ObjectContext, name: str, locker: EntityName, cookie: str) -> None:
    _release(context, name, LockerId(locker, cookie))


def _release(context: ObjectContext, name: str, holder: LockerId) -> None:
    info = _load(context, name)
    if holder not in info.lockers:
        raise ClassError(errno.ENOENT)
    if info.type == LockType.EXCLUSIVE_EPHEMERAL:
        context.remove()
        return
    lockers = {other: locker for other, locker in info.lockers.items() if other != holder}
    _save(context, name, dataclasses.replace(info, lockers=lockers))


@handles(cls_lock.get_info)
def get_info(context: ObjectContext, name: str) -> LockInfo:
    return _load(context, name)


@handles(cls_lock.list_locks)
def list_locks(context: ObjectContext) -> LockNames:
    return LockNames([name.removeprefix(_PREFIX) for name in sorted(context.xattrs()) if name.startswith(_PREFIX)])


def _held(context: ObjectContext, name: str, type: LockType, cookie: str, tag: str) -> tuple[LockInfo, LockerId]:
    """The lock, if the caller holds it just so; EBUSY otherwise."""
    if type not in _VALID or not name:
        raise ClassError(errno.EINVAL)
    info = _load(context, name)
    me = _caller(context, cookie)
    if me not in info.lockers or info.type != type or info.tag != tag:
        raise ClassError(errno.EBUSY)
    return info, me


@handles(cls_lock.assert_locked)
def assert_locked(context: ObjectContext, name: str, type: LockType, cookie: str, tag: str) -> None:
    _held(context, name, type, cookie, tag)


@handles(cls_lock.set_cookie)
def set_cookie(context: ObjectContext, name: str, type: LockType, cookie: str, tag: str, new_cookie: str) -> None:
    info, me = _held(context, name, type, cookie, tag)
    renamed = _caller(context, new_cookie)
    if renamed in info.lockers:
        raise ClassError(errno.EBUSY)
    lockers = dict(info.lockers)
    lockers[renamed] = lockers.pop(me)
    _save(context, name, dataclasses.replace(info, lockers=lockers))
