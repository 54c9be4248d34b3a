"""Object class `lock`: advisory locks on any object, kept in its xattr `lock.<name>`.

The holder is the caller, as the OSD knows it, with a cookie of its choice. A lock that has lapsed
(`duration`) is gone for everyone who looks. Several holders of a shared lock must agree on the tag.
"""

from __future__ import annotations

from typing import Annotated, Final

from rbd_native.cls_client import READ, READ_WRITE, method
from rbd_native.encoding import UTime, struct, text, u8, utime
from rbd_native.types import EntityName, LockFlag, LockInfo, LockType

_FOREVER: Final = UTime()
_NO_FLAGS: Final = LockFlag(0)


@struct(1)
class LockNames:
    """Reply of `list_locks`."""

    names: list[text]


@method("lock", READ_WRITE, envelope=1)
def lock(
    name: text,
    type: Annotated[LockType, u8],
    cookie: text,
    tag: text,
    description: text = "",
    duration: utime = _FOREVER,
    flags: Annotated[LockFlag, u8] = _NO_FLAGS,
) -> None:
    """EBUSY where others hold it, EEXIST where the caller does (unless it may renew), EINVAL. Creates the
    object.
    """


@method("lock", READ_WRITE, envelope=1)
def unlock(name: text, cookie: text) -> None:
    """ENOENT where the caller does not hold it."""


@method("lock", READ_WRITE, envelope=1)
def break_lock(name: text, locker: EntityName, cookie: text) -> None:
    """Take it from somebody else. ENOENT."""


@method("lock", READ, envelope=1)
def get_info(name: text) -> LockInfo:
    """A lock that never was has no lockers. ENOENT where the object is missing."""


@method("lock", READ)
def list_locks() -> LockNames:
    """All that ever were on the object."""


@method("lock", READ, envelope=1)
def assert_locked(name: text, type: Annotated[LockType, u8], cookie: text, tag: text) -> None:
    """EBUSY unless the caller holds it just so."""


@method("lock", READ_WRITE, envelope=1)
def set_cookie(name: text, type: Annotated[LockType, u8], cookie: text, tag: text, new_cookie: text) -> None:
    """EBUSY unless the caller holds it just so, or where the new cookie is in use."""
