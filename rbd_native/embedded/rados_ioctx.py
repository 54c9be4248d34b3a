"""`rados.Ioctx` over an embedded cluster: python-rados' names and signatures on the port's Io, and nothing more.

What an embedded cluster has not (pool snapshots, locator keys, and what else is missing here) is no attribute, or
raises.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

from rbd_native import cls_lock
from rbd_native.cls_client import ClassCall
from rbd_native.embedded import mon
from rbd_native.embedded.rados_aio import AioIoctx
from rbd_native.embedded.rados_base import LIBRADOS_OPERATION_NOFLAG, NO_SNAPS
from rbd_native.embedded.rados_errors import MAX_ERRNO, Error, make_ex
from rbd_native.embedded.rados_object import ObjectIterator
from rbd_native.embedded.rados_ops import (
    OmapIterator,
    ReadOp,
    WriteOp,
    XattrIterator,
    blob,
    seconds,
    small,
    text,
    unsigned,
)
from rbd_native.embedded.rados_watch import Watch
from rbd_native.encoding import UTime
from rbd_native.rados import port
from rbd_native.rados.port import RadosError, SnapContext
from rbd_native.types import LockFlag, LockType

LIBRADOS_ALL_NSPACES: Final = "\x01"


class Ioctx(AioIoctx):
    """rados.Ioctx object"""

    # --- the context itself ---

    def __enter__(self) -> Ioctx:
        return self

    def __exit__(self, type_: Any, value: Any, traceback: Any) -> Literal[False]:
        self.close()
        return False

    def close(self) -> None:
        self.state = "closed"

    def dup(self) -> Ioctx:
        """Pool and namespace, not the snapshots."""
        self.require_ioctx_open()
        return Ioctx(self.rados, self.name, self._io)

    def get_pool_id(self) -> int:
        self.require_ioctx_open()
        return self._io.pool_id

    def get_pool_name(self) -> str:
        name: str = self._mon(self._io.cluster.pool_name(self._io.pool_id), "error getting pool name")
        return name

    def get_last_version(self) -> int:
        """Of the object of the last operation, after it."""
        self.require_ioctx_open()
        return self._last_version

    def get_namespace(self) -> str:
        self.require_ioctx_open()
        return self._io.namespace

    def set_namespace(self, nspace: str) -> None:
        self.require_ioctx_open()
        self._io = self._io.in_namespace(text(nspace, "nspace"))

    def get_locator_key(self) -> str:
        self.require_ioctx_open()
        return ""

    def set_locator_key(self, loc_key: str) -> None:
        """An embedded cluster has none but the empty one."""
        self.require_ioctx_open()
        if text(loc_key, "loc_key"):
            raise make_ex(errno.EOPNOTSUPP, "an embedded cluster has no locator keys")

    def set_osdmap_full_try(self) -> None:
        """An embedded cluster is never marked full."""
        self.require_ioctx_open()

    def unset_osdmap_full_try(self) -> None:
        self.require_ioctx_open()

    def alignment(self) -> int | None:
        """None: appends need none."""
        self.require_ioctx_open()
        return None

    def get_stats(self) -> dict[str, int]:
        stats = self._mon(self._io.cluster.pool_stats(self._io.pool_id), "Ioctx.get_stats: get_stats failed")
        zeros = ("missing_on_primary", "unfound", "degraded")
        return {
            "num_bytes": stats.bytes_used,
            "num_kb": -(-stats.bytes_used // 1024),
            "num_objects": stats.objects,
            "num_object_clones": 0,
            "num_object_copies": stats.objects,
            **{f"num_objects_{name}": 0 for name in zeros},
            **dict.fromkeys(("num_rd", "num_rd_kb", "num_wr", "num_wr_kb"), 0),
        }

    # --- data ---

    def write(self, key: str, data: bytes, offset: int = 0) -> int:
        step = port.Write(unsigned(offset), blob(data, "data"))
        self._tell(text(key, "key"), step, f"Ioctx.write({self.name}): failed to write {key}")
        return 0

    def write_full(self, key: str, data: bytes) -> int:
        step = port.WriteFull(blob(data, "data"))
        self._tell(text(key, "key"), step, f"Ioctx.write_full({self.name}): failed to write {key}")
        return 0

    def writesame(self, key: str, data: bytes, write_len: int, offset: int = 0) -> None:
        step = port.WriteSame(unsigned(offset), unsigned(write_len), blob(data, "data"))
        self._tell(text(key, "key"), step, f"Ioctx.writesame({self.name}): failed to write {key}")

    def append(self, key: str, data: bytes) -> int:
        step = port.Append(blob(data, "data"))
        self._tell(text(key, "key"), step, f"Ioctx.append({self.name}): failed to append {key}")
        return 0

    def read(self, key: str, length: int = 8192, offset: int = 0) -> bytes:
        self.require_ioctx_open()
        step = port.Read(unsigned(offset), unsigned(length))
        failure = f"Ioctx.read({self.name}): failed to read {key}"
        data: bytes = self._ask(text(key, "key"), step, failure)
        if len(data) > length:  # 0 is "to the end", for which there is no room
            raise make_ex(errno.ERANGE, failure)
        return data

    def cmpext(self, key: str, cmp_buf: bytes, offset: int = 0) -> int:
        self.require_ioctx_open()
        rv = self._read(text(key, "key"), (port.CmpExt(unsigned(offset), blob(cmp_buf, "cmp_buf")),)).rv
        # The binding asserts what it should not: a difference in the very first byte is -MAX_ERRNO, too.
        if -MAX_ERRNO <= rv < 0:
            raise AssertionError(f"Ioctx.cmpext({self.name}): failed to compare {key}")
        return rv

    def stat(self, key: str) -> tuple[int, time.struct_time]:
        found: port.ObjectStat = self._ask(text(key, "key"), port.Stat(), f"Failed to stat {key!r}")
        return found.size, time.localtime(int(found.mtime))

    def trunc(self, key: str, size: int) -> int:
        step = port.Truncate(unsigned(size))
        self._tell(text(key, "key"), step, f"Ioctx.trunc({self.name}): failed to truncate {key}")
        return 0

    def remove_object(self, key: str) -> bool:
        self._tell(text(key, "key"), port.Remove(), f"Failed to remove {key!r}")
        return True

    def execute(self, key: str, cls: str, method: str, data: bytes, length: int = 8192) -> tuple[int, bytes]:
        self.require_ioctx_open()
        step = port.Exec(text(cls, "cls"), text(method, "method"), blob(data, "data"))
        failure = f"Ioctx.read({self.name}): failed to read {key}"
        output: bytes = self._ask(text(key, "key"), step, failure)
        if len(output) > length:
            raise make_ex(errno.ERANGE, failure)
        return len(output), output

    def list_objects(self) -> ObjectIterator:
        self.require_ioctx_open()
        everywhere = self._io.namespace == LIBRADOS_ALL_NSPACES
        return ObjectIterator(self, self._names(None if everywhere else self._io.namespace))

    def _names(self, namespace: str | None) -> Iterator[tuple[str, str]]:
        try:
            yield from self._io.names(namespace)
        except RadosError as error:
            raise make_ex(error.errno, "error iterating over the objects in ioctx") from error

    # --- xattrs ---

    def get_xattr(self, key: str, xattr_name: str) -> bytes:
        step = port.GetXattr(text(xattr_name, "xattr_name"))
        value: bytes = self._ask(text(key, "key"), step, f"Failed to get xattr {xattr_name!r}")
        return value

    def get_xattrs(self, oid: str) -> XattrIterator:
        self.require_ioctx_open()
        outcome = self._io.xattrs(text(oid, "oid"), self._snap).block()
        if outcome.rv < 0:
            raise make_ex(outcome.rv, f"Failed to get rados xattrs for object {oid!r}")
        return XattrIterator(self, oid, outcome.value)

    def set_xattr(self, key: str, xattr_name: str, xattr_value: bytes) -> bool:
        step = port.SetXattr(text(xattr_name, "xattr_name"), blob(xattr_value, "xattr_value"))
        self._tell(text(key, "key"), step, f"Failed to set xattr {xattr_name!r}")
        return True

    def rm_xattr(self, key: str, xattr_name: str) -> bool:
        step = port.RmXattr(text(xattr_name, "xattr_name"))
        self._tell(text(key, "key"), step, f"Failed to delete key {key!r} xattr {xattr_name!r}")
        return True

    # --- operations of several steps ---

    def create_write_op(self) -> WriteOp:
        op: WriteOp = WriteOp().create()
        return op

    def create_read_op(self) -> ReadOp:
        op: ReadOp = ReadOp().create()
        return op

    def release_write_op(self, write_op: WriteOp) -> None:
        write_op.release()

    def release_read_op(self, read_op: ReadOp) -> None:
        read_op.release()

    def operate_write_op(self, write_op: WriteOp, oid: str, mtime: int = 0, flags: int = LIBRADOS_OPERATION_NOFLAG) -> None:
        self.require_ioctx_open()
        reply = self._write(text(oid, "oid"), write_op.send(), mtime * 10**9)
        if reply.rv < 0:
            raise make_ex(reply.rv, f"Failed to operate write op for oid {oid}")

    def operate_read_op(self, read_op: ReadOp, oid: str, flag: int = LIBRADOS_OPERATION_NOFLAG) -> None:
        self.require_ioctx_open()
        reply = self._read(text(oid, "oid"), read_op.send())
        if reply.rv < 0:
            raise make_ex(reply.rv, f"Failed to operate read op for oid {oid}")
        read_op.take(reply.outs)

    def set_omap(self, write_op: WriteOp, keys: Sequence[str], values: Sequence[bytes]) -> None:
        if len(keys) != len(values):
            raise Error("Rados(): keys and values must have the same number of items")
        pairs = zip(keys, values, strict=True)
        write_op.steps.append(port.OmapSet({text(key, "keys").encode(): blob(value, "values") for key, value in pairs}))

    def remove_omap_keys(self, write_op: WriteOp, keys: Sequence[str]) -> None:
        write_op.steps.append(port.OmapRemove(tuple(text(key, "keys").encode() for key in keys)))

    def remove_omap_range2(self, write_op: WriteOp, key_begin: str, key_end: str) -> None:
        first, last = text(key_begin, "key_begin"), text(key_end, "key_end")
        write_op.steps.append(port.OmapRemoveRange(first.encode(), last.encode()))

    def clear_omap(self, write_op: WriteOp) -> None:
        write_op.steps.append(port.OmapClear())

    def get_omap_vals(
        self, read_op: ReadOp, start_after: str, filter_prefix: str, max_return: int
    ) -> tuple[OmapIterator, int]:
        after, prefix = (text(start_after or "", "start_after"), text(filter_prefix or "", "filter_prefix"))
        step = port.OmapGet(after.encode(), unsigned(max_return), prefix.encode())
        return self._omap(read_op, step, lambda page: page.values)

    def get_omap_keys(self, read_op: ReadOp, start_after: str, max_return: int) -> tuple[OmapIterator, int]:
        step = port.OmapGet(text(start_after or "", "start_after").encode(), unsigned(max_return))
        return self._omap(read_op, step, lambda page: dict.fromkeys(page.values, b""))

    def get_omap_vals_by_keys(self, read_op: ReadOp, keys: Sequence[str]) -> tuple[OmapIterator, int]:
        step = port.OmapGetByKeys(tuple(text(key, "keys").encode() for key in keys))
        return self._omap(read_op, step, lambda found: found)

    def _omap(self, read_op: ReadOp, step: Any, values: Callable[[Any], dict[bytes, bytes]]) -> tuple[OmapIterator, int]:
        iterator = OmapIterator(self)
        read_op.add(step, lambda output: iterator.fill(values(output)))
        return iterator, 0

    # --- snapshots ---

    def create_self_managed_snap(self) -> int:
        snap: int = self._mon(self._io.snap_create(), "Failed to create self-managed snapshot")
        return snap

    def remove_self_managed_snap(self, snap_id: int) -> None:
        self._mon(self._io.snap_remove(unsigned(snap_id)), "Failed to remove self-managed snapshot")

    def set_self_managed_snap_write(self, snaps: Sequence[int | str]) -> None:
        """Their order does not matter; none: no snapshot context."""
        self.require_ioctx_open()
        ids = tuple(sorted((unsigned(int(snap)) for snap in snaps), reverse=True))
        if len(set(ids)) != len(ids):
            raise make_ex(errno.EINVAL, "Failed to update snapshot write context")
        self._snapc = SnapContext(ids[0], ids) if ids else NO_SNAPS

    def rollback_self_managed_snap(self, oid: str, snap_id: int) -> None:
        call = self._io.rollback(text(oid, "oid"), unsigned(snap_id), self._snapc)
        self._mon(call, f"Failed to rollback {oid}")

    def set_read(self, snap_id: int) -> None:
        """The snapshot to read; LIBRADOS_SNAP_HEAD to read and write the object as it is."""
        self.require_ioctx_open()
        self._snap = unsigned(snap_id)

    # --- watch, notify ---

    def watch(
        self,
        obj: str,
        callback: Callable[[int, str, int, bytes], None],
        error_callback: Callable[[int], None] | None = None,
        timeout: int | None = None,
    ) -> Watch:
        self.require_ioctx_open()
        return Watch(self, text(obj, "obj"), callback, error_callback, timeout)

    def notify(self, obj: str, msg: str = "", timeout_ms: int = 5000) -> bool:
        """The time counts in whole seconds; none is the OSD's default."""
        payload = text(msg, "msg").encode()
        found = self._mon(self._notify_call(text(obj, "obj"), payload, timeout_ms), f"Failed to notify {obj!r}")
        if found.timeouts:
            raise make_ex(errno.ETIMEDOUT, f"Failed to notify {obj!r}")
        return True

    # --- locks ---

    def lock_exclusive(
        self, key: str, name: str, cookie: str, desc: str = "", duration: int | None = None, flags: int = 0
    ) -> None:
        where = f"Ioctx.rados_lock_exclusive({self.name}): failed to set lock {name} on {key}"
        self._lock(key, LockType.EXCLUSIVE, (name, cookie, ""), desc, duration, flags, where)

    def lock_shared(
        self, key: str, name: str, cookie: str, tag: str, desc: str = "", duration: int | None = None, flags: int = 0
    ) -> None:
        where = f"Ioctx.rados_lock_exclusive({self.name}): failed to set lock {name} on {key}"
        self._lock(key, LockType.SHARED, (name, cookie, text(tag, "tag")), desc, duration, flags, where)

    def _lock(
        self, key: str, kind: LockType, names: tuple[str, str, str], desc: str, duration: int | None, flags: int, where: str
    ) -> None:
        name, cookie, tag = names
        request = cls_lock.lock(
            text(name, "name"),
            kind,
            text(cookie, "cookie"),
            tag,
            text(desc, "desc"),
            UTime(seconds(duration or 0)),
            LockFlag(small(flags, 8)),
        )
        self._call(key, request, where)

    def unlock(self, key: str, name: str, cookie: str) -> None:
        request = cls_lock.unlock(text(name, "name"), text(cookie, "cookie"))
        self._call(key, request, f"Ioctx.rados_lock_exclusive({self.name}): failed to set lock {name} on {key}")

    def _call(self, key: str, request: ClassCall[Any], failure: str) -> None:
        self._tell(text(key, "key"), request.step, failure)

    # --- applications of the pool ---

    def application_enable(self, app_name: str, force: bool = False) -> None:
        call = self._io.cluster.application_enable(self._io.pool_id, text(app_name, "app_name"), force)
        self._mon(call, "error enabling application")

    def application_list(self) -> list[str]:
        call = self._io.cluster.ask("applications", lambda db: mon.applications(db, self._io.pool_id))
        names: list[str] = self._mon(call, "error listing applications")
        return names

    def application_metadata_list(self, app_name: str) -> list[tuple[str, str]]:
        call = self._io.cluster.application_metadata(self._io.pool_id, text(app_name, "app_name"))
        found: dict[str, str] = self._mon(call, "error listing application metadata")
        return list(found.items())

    def application_metadata_get(self, app_name: str, key: str) -> str:
        """KeyError, also where the application is not enabled."""
        self.require_ioctx_open()
        call = self._io.cluster.application_metadata(self._io.pool_id, text(app_name, "app_name"))
        found = (call.block().value or {}).get(text(key, "key"))
        if found is None:
            raise KeyError(f"no metadata {key} for application {app_name}")
        return str(found)

    def application_metadata_set(self, app_name: str, key: str, value: str) -> None:
        def change(db: Any) -> None:
            mon.set_application_metadata(db, self._io.pool_id, app_name, key, value)

        self._mon(self._io.cluster.tell("metadata", change), "error setting application metadata")

    def application_metadata_remove(self, app_name: str, key: str) -> None:
        def change(db: Any) -> None:
            mon.remove_application_metadata(db, self._io.pool_id, app_name, key)

        self._mon(self._io.cluster.tell("metadata", change), "error removing application metadata")
