"""The exceptions of the `rados` binding, and the one place where an errno becomes one of them.

Source: python-rados 16.2.15, introspected; the tests compare names, bases, texts and attributes with the installed
one.
"""

from __future__ import annotations

import errno as _errno
from typing import Any, ClassVar, Final

MAX_ERRNO: Final = 4095


class Error(Exception):
    """Base of all. `errno` is positive, or None where the binding itself found the fault."""

    _stands_for: ClassVar[str] = ""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(f"{self._stands_for} ({message})" if self._stands_for else message)
        self.errno = errno

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.errno is None else f"[errno {self.errno}] {text}"

    def __reduce__(self) -> Any:
        # Not through the constructor, which would compose the text a second time.
        return _restored, (type(self), self.args, dict(self.__dict__))


def _restored(kind: type[Error], args: tuple[Any, ...], attributes: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class OSError(Error):
    """An errno without a class of its own, and base of those that have one."""


class InterruptedOrTimeoutError(OSError):
    _stands_for = "RADOS interrupted or timeout"


class PermissionError(OSError):
    _stands_for = "RADOS permission error"


class PermissionDeniedError(OSError):
    _stands_for = "RADOS permission denied"


class ObjectNotFound(OSError):
    _stands_for = "RADOS object not found"


class NoData(OSError):
    _stands_for = "RADOS no data"


class ObjectExists(OSError):
    _stands_for = "RADOS object exists"


class ObjectBusy(OSError):
    _stands_for = "RADOS object busy"


class IOError(OSError):
    _stands_for = "RADOS I/O error"


class NoSpace(OSError):
    _stands_for = "RADOS no space"


class NotConnected(OSError):
    _stands_for = "RADOS not connected"


class ConnectionShutdown(OSError):
    _stands_for = "RADOS connection was shutdown"


class TimedOut(OSError):
    _stands_for = "RADOS timed out"


class InvalidArgumentError(Error):
    _stands_for = "RADOS invalid argument"


class InProgress(Error):
    _stands_for = "RADOS in progress error"


class IsConnected(Error):
    _stands_for = "RADOS is connected error"


class RadosStateError(Error):
    _stands_for = "RADOS rados state"


class IoctxStateError(Error):
    _stands_for = "RADOS Ioctx state error"


class ObjectStateError(Error):
    _stands_for = "RADOS object state error"


class LogicError(Error):
    _stands_for = "RADOS logic error"


class ExtendMismatch(Error):
    """A comparison failed at byte `offset`."""

    _stands_for = "object content does not match"

    def __init__(self, message: str, errno: int, offset: int) -> None:
        super().__init__(message, errno)
        self.offset = offset


_CLASSES: Final[dict[int, type[Error]]] = {
    _errno.EPERM: PermissionError,
    _errno.ENOENT: ObjectNotFound,
    _errno.EINTR: InterruptedOrTimeoutError,
    _errno.EIO: IOError,
    _errno.EACCES: PermissionDeniedError,
    _errno.EBUSY: ObjectBusy,
    _errno.EEXIST: ObjectExists,
    _errno.EINVAL: InvalidArgumentError,
    _errno.ENOSPC: NoSpace,
    _errno.ENODATA: NoData,
    _errno.EISCONN: IsConnected,
    _errno.ENOTCONN: NotConnected,
    _errno.ESHUTDOWN: ConnectionShutdown,
    _errno.ETIMEDOUT: TimedOut,
    _errno.EINPROGRESS: InProgress,
}


def make_ex(rv: int, message: str) -> Error:
    """The exception for a return value, negative or positive."""
    code = abs(rv)
    if code > MAX_ERRNO:
        return ExtendMismatch(message, code, code - MAX_ERRNO)
    return _CLASSES.get(code, OSError)(message, errno=code)
