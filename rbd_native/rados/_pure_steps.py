"""Steps of the port in python-rados' own words, for :mod:`rbd_native.rados.pure`.

Reads are one call a step; writes add a step to a WriteOp. What cannot be said raises :class:`Refusal`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rbd_native.rados import port
from rbd_native.rados.port import ObjectStat, OmapPage, ReadStep, Reply, WriteStep

ROOM: Final = 65536
"""Bytes of output to make room for at first."""

_TRIES: Final = 32
_MOST_ROOM: Final = 1 << 28
_OMAP_PAGE: Final = 1024
_FAIL_OK: Final = 2
_EQUAL: Final = 1


class Refusal(Exception):
    """The answer is this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.errno = code


# --- reads -----------------------------------------------------------------------------------------------------------


def read(ioctx: Any, oid: str, steps: Sequence[ReadStep]) -> Reply:
    """The reply of a read; raises what python-rados raises. EAGAIN if the object never stays the same for long enough."""
    for _ in range(_TRIES):
        versions, outs = set(), []
        for step in steps:
            outs.append(_look(step)(ioctx, oid, step))
            versions.add(ioctx.get_last_version())
        if len(versions) <= 1:
            return Reply(0, tuple(outs), versions.pop() if versions else 0)
    return Reply(-errno.EAGAIN)


def _look(step: ReadStep) -> Callable[[Any, str, Any], Any]:
    look = _READERS.get(type(step))
    if look is None:
        raise Refusal(errno.EOPNOTSUPP) if type(step) is port.ListSnaps else TypeError(f"not a step of a read: {step!r}")
    return look


def _data(ioctx: Any, oid: str, step: port.Read) -> bytes:
    length = step.length or max(ioctx.stat(oid)[0] - step.offset, 1)
    data: bytes = ioctx.read(oid, length, step.offset)
    return data


def _into(ioctx: Any, oid: str, step: port.ReadInto) -> int:
    data = ioctx.read(oid, len(step.room), step.offset)
    step.room[: len(data)] = data
    return len(data)


def _stat(ioctx: Any, oid: str, step: port.Stat) -> ObjectStat:
    size, modified = ioctx.stat(oid)
    return ObjectStat(size, time.mktime(modified))


def _exec(ioctx: Any, oid: str, step: port.Exec) -> bytes:
    room = ROOM
    while True:
        try:
            output: bytes = ioctx.execute(oid, step.cls, step.method, bytes(step.data), room)[1]
        except Exception as error:
            # Too much output, unless the method itself says so: that shows when there is room for anything.
            if getattr(error, "errno", 0) != errno.ERANGE or room >= _MOST_ROOM:
                raise
            room *= 16
        else:
            return output


def _xattr(ioctx: Any, oid: str, step: port.GetXattr) -> bytes:
    value: bytes = ioctx.get_xattr(oid, step.name)
    return value


def _omap(ioctx: Any, oid: str, step: port.OmapGet) -> OmapPage:
    values = _omap_page(ioctx, oid, step.after, step.prefix, min(step.limit, _OMAP_PAGE))
    last = max(values, default=step.after)
    return OmapPage(values, bool(values) and bool(_omap_page(ioctx, oid, last, step.prefix, 1)))


def _omap_page(ioctx: Any, oid: str, after: bytes, prefix: bytes, limit: int) -> dict[bytes, bytes]:
    import rados

    with rados.ReadOpCtx() as operation:
        found, _ = ioctx.get_omap_vals(operation, _text(after), _text(prefix), limit)
        ioctx.operate_read_op(operation, oid)
        return _entries(found)


def _omap_by_keys(ioctx: Any, oid: str, step: port.OmapGetByKeys) -> dict[bytes, bytes]:
    import rados

    with rados.ReadOpCtx() as operation:
        found, _ = ioctx.get_omap_vals_by_keys(operation, tuple(map(_text, step.keys)))
        ioctx.operate_read_op(operation, oid)
        return _entries(found)


def _entries(found: Any) -> dict[bytes, bytes]:
    try:
        return {key.encode(): value or b"" for key, value in found}
    except UnicodeDecodeError:
        raise Refusal(errno.EOPNOTSUPP) from None


def _assert_exists(ioctx: Any, oid: str, step: port.AssertExists) -> None:
    ioctx.stat(oid)


def _assert_version(ioctx: Any, oid: str, step: port.AssertVersion) -> None:
    ioctx.stat(oid)
    actual = ioctx.get_last_version()
    if step.version != actual:
        code = errno.ERANGE if step.version < actual else errno.EOVERFLOW
        raise Refusal(code if step.version else errno.EINVAL)


def _compare(ioctx: Any, oid: str, step: port.CmpExt) -> None:
    wanted = bytes(step.data)
    actual = ioctx.read(oid, len(wanted), step.offset).ljust(len(wanted), b"\0") if wanted else b""
    if actual != wanted:
        raise Refusal(4095 + next(at for at, byte in enumerate(wanted) if actual[at] != byte))


_READERS: Final[Mapping[type, Callable[[Any, str, Any], Any]]] = {
    port.AssertExists: _assert_exists,
    port.AssertVersion: _assert_version,
    port.CmpExt: _compare,
    port.Exec: _exec,
    port.GetXattr: _xattr,
    port.OmapGet: _omap,
    port.OmapGetByKeys: _omap_by_keys,
    port.Read: _data,
    port.ReadInto: _into,
    port.Stat: _stat,
}


# --- writes ----------------------------------------------------------------------------------------------------------


def write(ioctx: Any, oid: str, steps: Sequence[WriteStep]) -> Reply:
    """The reply of a write; raises what python-rados raises."""
    import rados

    with rados.WriteOpCtx() as operation:
        for step in steps:
            _add(ioctx, operation, step)
        ioctx.operate_write_op(operation, oid, int(time.time()))  # else it sets the time of 1970
    return Reply(0, (None,) * len(steps), ioctx.get_last_version())


def _add(ioctx: Any, operation: Any, step: Any) -> None:
    add = _WRITERS.get(type(step))
    if add is None:
        raise TypeError(f"not a step of a write: {step!r}")
    add(ioctx, operation, step)


def _fail_ok(ioctx: Any, operation: Any, step: port.FailOk) -> None:
    _add(ioctx, operation, step.step)
    operation.set_flags(_FAIL_OK)  # of the step added last


def _zero(ioctx: Any, operation: Any, step: port.Zero) -> None:
    if step.length:
        raise Refusal(errno.EOPNOTSUPP)


def _omap_remove_range(ioctx: Any, operation: Any, step: port.OmapRemoveRange) -> None:
    # A range that ends before it begins is empty; an OSD in memory would run on, past the end.
    ioctx.remove_omap_range2(operation, _text(step.first), _text(max(step.first, step.last)))


def _omap_set(ioctx: Any, operation: Any, step: port.OmapSet) -> None:
    ioctx.set_omap(operation, tuple(map(_text, step.values)), tuple(map(bytes, step.values.values())))


_WRITERS: Final[Mapping[type, Callable[[Any, Any, Any], Any]]] = {
    port.AllocHint: lambda ioctx, operation, step: None,
    port.Append: lambda ioctx, operation, step: operation.append(bytes(step.data)),
    # What is not there compares as if it were empty, but only in an object that is there.
    port.AssertExists: lambda ioctx, operation, step: operation.omap_cmp("rbd_native.none", "", _EQUAL),
    port.AssertVersion: lambda ioctx, operation, step: operation.assert_version(step.version),
    port.CmpExt: lambda ioctx, operation, step: operation.cmpext(bytes(step.data), step.offset),
    port.Create: lambda ioctx, operation, step: operation.new(1 if step.exclusive else 0),
    port.Exec: lambda ioctx, operation, step: operation.execute(step.cls, step.method, bytes(step.data)),
    port.FailOk: _fail_ok,
    port.OmapClear: lambda ioctx, operation, step: ioctx.clear_omap(operation),
    port.OmapCmp: lambda ioctx, operation, step: operation.omap_cmp(_text(step.key), _text(step.value), _EQUAL),
    port.OmapRemove: lambda ioctx, operation, step: ioctx.remove_omap_keys(operation, tuple(map(_text, step.keys))),
    port.OmapRemoveRange: _omap_remove_range,
    port.OmapSet: _omap_set,
    port.Remove: lambda ioctx, operation, step: operation.remove(),
    port.RmXattr: lambda ioctx, operation, step: operation.rm_xattr(step.name),
    port.SetXattr: lambda ioctx, operation, step: operation.set_xattr(step.name, step.value),
    port.Truncate: lambda ioctx, operation, step: operation.truncate(step.size),
    port.Write: lambda ioctx, operation, step: operation.write(bytes(step.data), step.offset),
    port.WriteFull: lambda ioctx, operation, step: operation.write_full(bytes(step.data)),
    port.WriteSame: lambda ioctx, operation, step: operation.writesame(bytes(step.data), step.length, step.offset),
    port.Zero: _zero,
}


def _text(raw: bytes) -> str:
    """Bytes that python-rados takes only as text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refusal(errno.EOPNOTSUPP) from None
