"""The exceptions of the `rbd` binding, and the one place where an errno becomes one of them.

Contract
    Every exception a user meets derives from `Error`; those that stand for an errno derive from this module's
    own `OSError` (which is not the builtin one) and carry it, positive, in `.errno` (None where the binding
    itself found the fault). `str()` is ``[errno N] <what the class stands for> (<message>)``, without the
    bracket where there is no errno.

    Layers below raise whatever carries an errno; `make_ex` is called at the public boundary only.

Source: the binding of releases 16 to 20, introspected; the two tables are compared with its own in the tests.
They differ where an image's words would mislead: a group's absence is an object's, not an image's.
"""

import errno as _errno
from collections.abc import Mapping
from typing import ClassVar


class Error(Exception):
    """Base of everything this package raises on its own account."""


class OSError(Error):
    """A failed operation.

    message: what was attempted, in words. errno: a positive errno, or None.
    """

    _stands_for: ClassVar[str] = ""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(f"{self._stands_for} ({message})" if self._stands_for else message)
        self._message = message
        self.errno = errno

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.errno is None else f"[errno {self.errno}] {text}"

    def __reduce__(self) -> tuple[type["OSError"], tuple[str, int | None]]:
        # The arguments of the constructor, not the composed text: an exception has to survive pickling.
        return type(self), (self._message, self.errno)


class PermissionError(OSError):
    _stands_for = "RBD permission error"


class ImageNotFound(OSError):
    _stands_for = "RBD image not found"


class ObjectNotFound(OSError):
    _stands_for = "RBD object not found"


class ImageExists(OSError):
    _stands_for = "RBD image already exists"


class ObjectExists(OSError):
    _stands_for = "RBD object already exists"


class IOError(OSError):
    _stands_for = "RBD I/O error"


class NoSpace(OSError):
    _stands_for = "RBD insufficient space available"


class IncompleteWriteError(OSError):
    _stands_for = "RBD incomplete write"


class InvalidArgument(OSError):
    _stands_for = "RBD invalid argument"


class LogicError(OSError):
    _stands_for = "RBD logic error"


class ReadOnlyImage(OSError):
    _stands_for = "RBD read-only image"


class ImageBusy(OSError):
    _stands_for = "RBD image is busy"


class ImageHasSnapshots(OSError):
    _stands_for = "RBD image has snapshots"


class ImageMemberOfGroup(OSError):
    _stands_for = "RBD image is member of group"


class FunctionNotSupported(OSError):
    _stands_for = "RBD function not supported"


class ArgumentOutOfRange(OSError):
    _stands_for = "RBD arguments out of range"


class ConnectionShutdown(OSError):
    _stands_for = "RBD connection was shutdown"


class Timeout(OSError):
    _stands_for = "RBD operation timeout"


class DiskQuotaExceeded(OSError):
    _stands_for = "RBD disk quota exceeded"


class OperationNotSupported(OSError):
    _stands_for = "RBD operation not supported"


class OperationCanceled(OSError):
    _stands_for = "RBD operation canceled"


ExceptionMap = Mapping[int, type[OSError]]

errno_to_exception: ExceptionMap = {
    _errno.EPERM: PermissionError,
    _errno.ENOENT: ImageNotFound,
    _errno.EIO: IOError,
    _errno.EBUSY: ImageBusy,
    _errno.EEXIST: ImageExists,
    _errno.EINVAL: InvalidArgument,
    _errno.ENOSPC: NoSpace,
    _errno.EROFS: ReadOnlyImage,
    _errno.EMLINK: ImageMemberOfGroup,
    _errno.EDOM: ArgumentOutOfRange,
    _errno.ENOSYS: FunctionNotSupported,
    _errno.ENOTEMPTY: ImageHasSnapshots,
    _errno.EOPNOTSUPP: OperationNotSupported,
    _errno.ESHUTDOWN: ConnectionShutdown,
    _errno.ETIMEDOUT: Timeout,
    _errno.EDQUOT: DiskQuotaExceeded,
    _errno.ECANCELED: OperationCanceled,
}

group_errno_to_exception: ExceptionMap = {
    **errno_to_exception,
    _errno.ENOENT: ObjectNotFound,
    _errno.EEXIST: ObjectExists,
}


def make_ex(ret: int, msg: str, exception_map: ExceptionMap = errno_to_exception) -> OSError:
    """The exception for a return code.

    ret: an errno of either sign. msg: what was attempted. An errno that the map does not name becomes a plain
    `OSError` that carries it.
    """
    code = abs(ret)
    return exception_map.get(code, OSError)(msg, errno=code)
