"""What class methods get of their object: :class:`ObjectContext`, in a read and in a write."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

from rbd_native.embedded import objects, watches
from rbd_native.embedded.change import NO_SNAPS, Change, Refusal
from rbd_native.embedded.objclass import HANDLERS, ClassError, Entity, Handler, ObjectContext
from rbd_native.embedded.objects import State
from rbd_native.encoding import UTime
from rbd_native.rados.port import Exec, Watcher


def handler_of(step: Exec) -> Handler:
    """What runs a method; -EOPNOTSUPP where there is no such class or method."""
    _load_classes()
    handler = HANDLERS.get((step.cls, step.method))
    if handler is None:
        raise Refusal(-errno.EOPNOTSUPP)
    return handler


def _load_classes() -> None:
    import rbd_native.embedded.classes  # noqa: F401  (late: the classes import this package)


def run(handler: Handler, context: ObjectContext, data: bytes) -> bytes:
    """The output of a method; its refusal as one of the step."""
    try:
        return handler(context, bytes(data))
    except ClassError as error:
        raise Refusal(-error.errno) from None


class _NoChanges(ObjectContext):
    """For methods that were declared to read only: whatever they try to change is EIO."""

    def _refuse(self, *_: object) -> NoReturn:
        raise ClassError(errno.EIO)

    def create(self, exclusive: bool = False) -> None:
        self._refuse()

    def write(self, offset: int, data: bytes) -> None:
        self._refuse()

    def write_full(self, data: bytes) -> None:
        self._refuse()

    def truncate(self, size: int) -> None:
        self._refuse()

    def remove(self) -> None:
        self._refuse()

    def set_xattr(self, name: str, value: bytes) -> None:
        self._refuse()

    def set_omap(self, values: Mapping[bytes, bytes]) -> None:
        self._refuse()

    def remove_omap(self, keys: Iterable[bytes]) -> None:
        self._refuse()


class ReadContext(_NoChanges):
    """An object, or one of its clones, that nobody changes."""

    def __init__(self, db: sqlite3.Connection, oid: str, state: State, seq: int, client: Entity) -> None:
        self.oid = oid
        self.entity = client
        self.snapc = NO_SNAPS
        self._db = db
        self._state = state
        self._seq = seq

    def exists(self) -> bool:
        return True

    def size(self) -> int:
        return self._state.size

    def read(self, offset: int, length: int) -> bytes:
        return objects.read(self._db, self._state, offset, length or self._state.size)

    def xattr(self, name: str) -> bytes | None:
        return objects.xattr(self._db, self._state, name)

    def xattrs(self) -> dict[str, bytes]:
        return objects.xattrs(self._db, self._state)

    def omap(self, key: bytes) -> bytes | None:
        return objects.omap(self._db, self._state, key)

    def omap_page(self, after: bytes, limit: int, prefix: bytes = b"") -> tuple[dict[bytes, bytes], bool]:
        return objects.omap_page(self._db, self._state, after, limit, prefix)

    def snapset_seq(self) -> int | None:
        return self._seq

    def watchers(self) -> list[Watcher]:
        return watches.watchers(self._db, self._state.obj)

    def now(self) -> UTime:
        return UTime(*divmod(time.time_ns(), 10**9))


class WriteContext(ObjectContext):
    """An object within a write operation."""

    def __init__(self, change: Change) -> None:
        self.oid = change.oid
        self.entity = change.client
        self.snapc = change.snapc
        self._change = change
        self._db = change.db
        self._before = change.before

    def exists(self) -> bool:
        return self._change.exists

    def size(self) -> int:
        if not self._change.exists:
            raise ClassError(errno.ENOENT)
        return self._change.size

    def read(self, offset: int, length: int) -> bytes:
        if self._before is None or not self._change.exists:
            raise ClassError(errno.ENOENT)
        return self._change.read(offset, length or self._change.size)

    def xattr(self, name: str) -> bytes | None:
        return None if self._remains else objects.xattr(self._db, self._stored(), name)

    def xattrs(self) -> dict[str, bytes]:
        return {} if self._remains else objects.xattrs(self._db, self._stored())

    def omap(self, key: bytes) -> bytes | None:
        if self._before is None or not self._change.exists:
            return None
        return objects.omap(self._db, self._before, key)

    def omap_page(self, after: bytes, limit: int, prefix: bytes = b"") -> tuple[dict[bytes, bytes], bool]:
        if not self._change.exists or self._remains:
            return {}, False
        if self._before is None:
            raise ClassError(errno.EIO)
        return objects.omap_page(self._db, self._before, after, limit, prefix)

    @property
    def _remains(self) -> bool:
        """It was not there, but for what is left of a deleted object for the sake of snapshots: that has no attributes,
        which is not to be missing."""
        return self._before is None and self._change.row is not None

    def _stored(self) -> State:
        """The object as it was before the operation; ENOENT where it was not."""
        if self._before is None:
            raise ClassError(errno.ENOENT)
        return self._before

    def snapset_seq(self) -> int | None:
        if self._change.row is not None:
            return self._change.row.seq
        return 0 if self._change.exists else None

    def watchers(self) -> list[Watcher]:
        return watches.watchers(self._db, self._before.obj) if self._before is not None else []

    def now(self) -> UTime:
        return UTime(*divmod(time.time_ns(), 10**9))

    def create(self, exclusive: bool = False) -> None:
        if exclusive and self._change.exists:
            raise ClassError(errno.EEXIST)
        self._change.touch()

    def write(self, offset: int, data: bytes) -> None:
        self._change.write(offset, data)

    def write_full(self, data: bytes) -> None:
        self._change.write_full(data)

    def truncate(self, size: int) -> None:
        self._change.truncate(size)

    def remove(self) -> None:
        self._change.remove()

    def set_xattr(self, name: str, value: bytes) -> None:
        self._change.set_xattr(name, value)

    def set_omap(self, values: Mapping[bytes, bytes]) -> None:
        self._change.set_omap(dict(values))

    def remove_omap(self, keys: Iterable[bytes]) -> None:
        self._change.remove_omap(list(keys))


class LookContext(_NoChanges, WriteContext):
    """An object within a write operation, for a method that only reads."""
