"""A RADOS in this process: the same observable semantics and the same bytes as a real cluster, kept in SQLite.

:class:`Cluster` is one such cluster, in memory or in a file. The rest of this module has the shape of python-rados,
so that a program's own lines work with ``from rbd_native import embedded as rados``; what it has not, it does not
pretend to have.
"""

from rbd_native.embedded.cluster import Cluster
from rbd_native.embedded.rados_base import LIBRADOS_OPERATION_NOFLAG
from rbd_native.embedded.rados_errors import (
    MAX_ERRNO,
    ConnectionShutdown,
    Error,
    ExtendMismatch,
    InProgress,
    InterruptedOrTimeoutError,
    InvalidArgumentError,
    IoctxStateError,
    IOError,  # noqa: A004  (the binding's own name)
    IsConnected,
    LogicError,
    NoData,
    NoSpace,
    NotConnected,
    ObjectBusy,
    ObjectExists,
    ObjectNotFound,
    ObjectStateError,
    OSError,  # noqa: A004
    PermissionDeniedError,
    PermissionError,  # noqa: A004
    RadosStateError,
    TimedOut,
)
from rbd_native.embedded.rados_ioctx import LIBRADOS_ALL_NSPACES, Ioctx
from rbd_native.embedded.rados_module import Rados, Version
from rbd_native.embedded.rados_object import Object, ObjectIterator
from rbd_native.embedded.rados_ops import (
    LIBRADOS_CMPXATTR_OP_EQ,
    LIBRADOS_CREATE_EXCLUSIVE,
    LIBRADOS_CREATE_IDEMPOTENT,
    LIBRADOS_OP_FLAG_FAILOK,
    Completion,
    OmapIterator,
    OpCtx,
    ReadOp,
    ReadOpCtx,
    WriteOp,
    WriteOpCtx,
    XattrIterator,
)
from rbd_native.embedded.rados_watch import Watch
from rbd_native.embedded.store import ForkedError

__all__ = [
    "ADMIN_AUID",
    "ANONYMOUS_AUID",
    "LIBRADOS_ALL_NSPACES",
    "LIBRADOS_CMPXATTR_OP_EQ",
    "LIBRADOS_CREATE_EXCLUSIVE",
    "LIBRADOS_CREATE_IDEMPOTENT",
    "LIBRADOS_OPERATION_BALANCE_READS",
    "LIBRADOS_OPERATION_IGNORE_CACHE",
    "LIBRADOS_OPERATION_IGNORE_OVERLAY",
    "LIBRADOS_OPERATION_LOCALIZE_READS",
    "LIBRADOS_OPERATION_NOFLAG",
    "LIBRADOS_OPERATION_ORDER_READS_WRITES",
    "LIBRADOS_OPERATION_SKIPRWLOCKS",
    "LIBRADOS_OP_FLAG_EXCL",
    "LIBRADOS_OP_FLAG_FADVISE_DONTNEED",
    "LIBRADOS_OP_FLAG_FADVISE_NOCACHE",
    "LIBRADOS_OP_FLAG_FADVISE_RANDOM",
    "LIBRADOS_OP_FLAG_FADVISE_SEQUENTIAL",
    "LIBRADOS_OP_FLAG_FADVISE_WILLNEED",
    "LIBRADOS_OP_FLAG_FAILOK",
    "LIBRADOS_SNAP_HEAD",
    "MAX_ERRNO",
    "Cluster",
    "Completion",
    "ConnectionShutdown",
    "Error",
    "ExtendMismatch",
    "ForkedError",
    "IOError",
    "InProgress",
    "InterruptedOrTimeoutError",
    "InvalidArgumentError",
    "Ioctx",
    "IoctxStateError",
    "IsConnected",
    "LogicError",
    "NoData",
    "NoSpace",
    "NotConnected",
    "OSError",
    "Object",
    "ObjectBusy",
    "ObjectExists",
    "ObjectIterator",
    "ObjectNotFound",
    "ObjectStateError",
    "OmapIterator",
    "OpCtx",
    "PermissionDeniedError",
    "PermissionError",
    "Rados",
    "RadosStateError",
    "ReadOp",
    "ReadOpCtx",
    "TimedOut",
    "Version",
    "Watch",
    "WriteOp",
    "WriteOpCtx",
    "XattrIterator",
]

LIBRADOS_SNAP_HEAD = 2**64 - 2
ANONYMOUS_AUID = 2**64 - 1
ADMIN_AUID = 0

# Hints: accepted wherever python-rados takes flags, and without effect.
LIBRADOS_OP_FLAG_EXCL = 1
LIBRADOS_OP_FLAG_FADVISE_RANDOM = 4
LIBRADOS_OP_FLAG_FADVISE_SEQUENTIAL = 8
LIBRADOS_OP_FLAG_FADVISE_WILLNEED = 16
LIBRADOS_OP_FLAG_FADVISE_DONTNEED = 32
LIBRADOS_OP_FLAG_FADVISE_NOCACHE = 64
LIBRADOS_OPERATION_BALANCE_READS = 1
LIBRADOS_OPERATION_LOCALIZE_READS = 2
LIBRADOS_OPERATION_ORDER_READS_WRITES = 4
LIBRADOS_OPERATION_IGNORE_CACHE = 8
LIBRADOS_OPERATION_SKIPRWLOCKS = 16
LIBRADOS_OPERATION_IGNORE_OVERLAY = 32
