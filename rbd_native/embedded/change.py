"""One write operation on one object, before it is made: what its steps want done, and how they see the object.

Steps and class methods ask for changes here. They are only noted, and made at the end, when every step has agreed: so
a refused operation has touched nothing, and data, xattrs and omap read as they were before, as on a real OSD.
Existence and size are those that the noted changes will lead to.
"""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rbd_native.embedded import objects
from rbd_native.embedded.objclass import ClassError, Entity
from rbd_native.embedded.objects import Row, State
from rbd_native.rados.port import Buffer, SnapContext

MAX_SIZE: Final = 128 << 20
"""Of an object, in bytes (osd_max_object_size). Nothing may begin at it."""

MAX_XATTR_NAME: Final = 100

NO_SNAPS: Final = SnapContext(0, ())


class Refusal(ClassError):
    """A step does not agree; class methods see it as what their call returned.

    `rv` is what the operation returns: negative, an errno or -(4095 + offset).
    """

    def __init__(self, rv: int) -> None:
        super().__init__(-rv)
        self.rv = rv


class Change:
    """What an operation will do to `row`'s object (None: there is none, not even a deleted one with clones)."""

    __slots__ = (
        "before", "changed", "client", "db", "deleted", "dirty", "exists", "has_omap", "journal", "lost_watches", "mtime",
        "oid", "pool", "row", "size", "snapc",
    )  # fmt: skip

    def __init__(
        self,
        db: sqlite3.Connection,
        pool: int,
        oid: str,
        row: Row | None,
        client: Entity,
        snapc: SnapContext = NO_SNAPS,
        mtime: int | None = None,
    ) -> None:
        self.db = db
        self.pool = pool
        self.oid = oid
        self.row = row
        self.client = client
        self.snapc = snapc
        self.mtime = mtime
        self.before: State | None = objects.head(row)
        self.exists = self.before is not None
        self.size = self.before.size if self.before is not None else 0
        self.dirty = False
        self.deleted = False
        self.lost_watches = False
        self.has_omap = row is not None and bool(row.omap)
        self.journal: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.changed: list[tuple[int, int]] = []

    # --- looking ---

    def demand(self) -> None:
        """-ENOENT unless the object exists now."""
        if not self.exists:
            raise Refusal(-errno.ENOENT)

    @property
    def version(self) -> int:
        return self.row.version if self.row is not None else 0

    def read(self, offset: int, length: int) -> bytes:
        """Data as before the operation, but none beyond the size that the object has now."""
        if self.before is None or not self.exists:
            return b""
        return objects.read(self.db, self.before, offset, min(length, self.size - offset))

    # --- noting changes ---

    def _note(self, what: Callable[..., Any], *arguments: Any) -> None:
        self.dirty = True
        self.journal.append((what, arguments))

    def create(self, exclusive: bool = False) -> None:
        if self.exists and exclusive:
            raise Refusal(-errno.EEXIST)
        self.touch()

    def touch(self) -> None:
        """Exist, with no more than that changed."""
        self.dirty = True
        self.exists = True

    def write(self, offset: int, data: Buffer) -> None:
        length = len(data)
        check_extent(offset, length)
        self.touch()
        if length:
            self._note(objects.write, offset, data)
            self.changed.append((offset, length))
        self.size = max(self.size, offset + length)

    def write_full(self, data: Buffer) -> None:
        check_extent(0, len(data))
        if self.row is not None and not self.size and not len(data):
            self.exists = True  # but only if another step changes something, too (sic)
            return
        self.touch()
        if self.size > len(data):
            self._note(objects.truncate, len(data))
        if self.size:
            self.changed.append((0, self.size))
        if len(data):
            self._note(objects.write, 0, data)
            self.changed.append((0, len(data)))
        self.size = len(data)

    def truncate(self, size: int) -> None:
        """No effect on a missing object."""
        check_extent(size, 0)
        if not self.exists:
            return
        self.dirty = True
        if size < self.size:
            self._note(objects.truncate, size)
            self.changed.append((size, self.size - size))
        self.size = size

    def zero(self, offset: int, length: int) -> None:
        """Reaching the end cuts the object off at `offset`; beyond the end, or on no object, it does nothing."""
        if not length:
            return
        check_extent(offset, length)
        if not self.exists or offset >= self.size:
            return
        if offset + length >= self.size:
            self.truncate(offset)
        else:
            self._note(objects.zero, offset, length)
            self.changed.append((offset, length))

    @property
    def hides_snaps(self) -> bool:
        """Whether an object deleted now must be known to have been absent at a snapshot that it never saw."""
        seen = 0 if self.row is None else self.row.seq
        return bool(self.snapc.ids) and self.snapc.ids[0] > seen

    @property
    def is_remnant(self) -> bool:
        """Whether it is only what was left of a deleted object to hide snapshots, and hides none any more."""
        return self.row is not None and not self.row.alive and not self.row.top and not self.hides_snaps

    def remove(self) -> None:
        if not self.is_remnant:
            self.demand()
        self._note(objects.clear)
        if self.size:
            self.changed.append((0, self.size))
        self.exists = False
        # What stays for the sake of snapshots still counts as an object with an omap (sic).
        self.has_omap &= self.hides_snaps or bool(self.row is not None and self.row.top)
        self.deleted = True
        self.size = 0

    def set_xattr(self, name: str, value: bytes) -> None:
        if len(objects.raw(name)) > MAX_XATTR_NAME:
            raise Refusal(-errno.ENAMETOOLONG)
        self.touch()
        self._note(objects.set_xattr, name, value)

    def remove_xattr(self, name: str) -> None:
        self.demand()
        self._note(objects.remove_xattr, name)

    def set_omap(self, values: Mapping[bytes, bytes]) -> None:
        self.touch()
        self.has_omap = True
        self._note(objects.set_omap, values)

    def remove_omap(self, keys: Iterable[bytes]) -> None:
        self.demand()
        self._note(objects.remove_omap, keys)

    def remove_omap_range(self, first: bytes, last: bytes) -> None:
        """Of the keys that were there before the operation (on BlueStore, which this follows)."""
        self.demand()
        keys = objects.omap_keys(self.db, self.before, first, last) if self.before is not None else []
        self._note(objects.remove_omap, keys)

    def clear_omap(self) -> None:
        """Does nothing to an object that has no omap, which is not to have no keys any more."""
        self.demand()
        if self.has_omap:
            self.has_omap = False
            self._note(objects.clear_omap)

    def stamp(self) -> int:
        """The modification time that the object gets, in nanoseconds."""
        return time.time_ns() if self.mtime is None else self.mtime


def check_extent(offset: int, length: int) -> None:
    """-EFBIG where an extent is not within what an object can be."""
    if offset < 0 or length < 0:
        raise Refusal(-errno.EINVAL)
    if offset >= MAX_SIZE or length > MAX_SIZE - offset:
        raise Refusal(-errno.EFBIG)
