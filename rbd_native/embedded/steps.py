"""The steps of operations, as the embedded OSD takes them: one table for reads, one for writes."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from rbd_native.cls_client import Access
from rbd_native.embedded import context, objects
from rbd_native.embedded.change import Change, Refusal, check_extent
from rbd_native.embedded.objclass import Entity
from rbd_native.embedded.objects import State
from rbd_native.rados import port
from rbd_native.rados.port import Buffer

MAX_MESSAGE: Final = 90 << 20
"""Bytes of data that one operation may carry (osd_max_write_size)."""


# --- reads -----------------------------------------------------------------------------------------------------------


class Look:
    """A read operation on one state of an object."""

    __slots__ = ("client", "db", "oid", "seq", "state")

    def __init__(self, db: sqlite3.Connection, oid: str, state: State, seq: int, client: Entity) -> None:
        self.db = db
        self.oid = oid
        self.state = state
        self.seq = seq
        self.client = client


def _read(look: Look, step: port.Read) -> bytes:
    if step.offset < 0 or step.length < 0:
        raise Refusal(-errno.EINVAL)
    return objects.read(look.db, look.state, step.offset, step.length or look.state.size)


def _into(look: Look, step: port.ReadInto) -> int:
    data = _read(look, port.Read(step.offset, len(step.room)))
    step.room[: len(data)] = data
    return len(data)


def _stat(look: Look, step: port.Stat) -> port.ObjectStat:
    return port.ObjectStat(look.state.size, look.state.mtime / 1e9)


def _exec(look: Look, step: port.Exec) -> bytes:
    reader = context.ReadContext(look.db, look.oid, look.state, look.seq, look.client)
    return context.run(context.handler_of(step), reader, step.data)


def _get_xattr(look: Look, step: port.GetXattr) -> bytes:
    value = objects.xattr(look.db, look.state, step.name)
    if value is None:
        raise Refusal(-errno.ENODATA)
    return value


def _omap_get(look: Look, step: port.OmapGet) -> port.OmapPage:
    return objects.omap_page(look.db, look.state, step.after, step.limit, step.prefix)


def _omap_get_by_keys(look: Look, step: port.OmapGetByKeys) -> dict[bytes, bytes]:
    found = {key: objects.omap(look.db, look.state, key) for key in sorted(set(step.keys))}
    return {key: value for key, value in found.items() if value is not None}


def _is_there(look: Look, step: port.AssertExists) -> None:
    """Only states that exist are read at all."""


def _has_version(look: Look, step: port.AssertVersion) -> None:
    compare_version(look.state.version, step.version)


def _has_data(look: Look, step: port.CmpExt) -> None:
    data = flat(step.data)
    compare_extent(objects.read(look.db, look.state, step.offset, len(data)), data)


READS: Final[dict[type, Callable[[Look, Any], Any]]] = {
    port.Read: _read,
    port.ReadInto: _into,
    port.Stat: _stat,
    port.Exec: _exec,
    port.GetXattr: _get_xattr,
    port.OmapGet: _omap_get,
    port.OmapGetByKeys: _omap_get_by_keys,
    port.AssertExists: _is_there,
    port.AssertVersion: _has_version,
    port.CmpExt: _has_data,
}


def look(at: Look, step: Any) -> Any:
    """The output of one step of a read."""
    take = READS.get(type(step))
    if take is None:
        raise TypeError(f"not a step of a read, or one that must be alone: {step!r}")
    return take(at, step)


# --- writes ----------------------------------------------------------------------------------------------------------


def _write(change: Change, step: port.Write) -> None:
    change.write(step.offset, flat(step.data))


def _append(change: Change, step: port.Append) -> None:
    change.write(change.size, flat(step.data))


def _write_same(change: Change, step: port.WriteSame) -> None:
    data = flat(step.data)
    if not step.length:
        return
    if not len(data) or step.length % len(data):
        raise Refusal(-errno.EINVAL)
    check_extent(step.offset, step.length)
    change.write(step.offset, bytes(data) * (step.length // len(data)))


def _assert_version(change: Change, step: port.AssertVersion) -> None:
    compare_version(change.version, step.version)


def _cmp_ext(change: Change, step: port.CmpExt) -> None:
    data = flat(step.data)
    compare_extent(change.read(step.offset, len(data)), data)


def _omap_cmp(change: Change, step: port.OmapCmp) -> None:
    change.demand()
    value = None
    if change.has_omap:
        if change.row is None:  # it gets one in this operation: a real OSD looks for it, and finds no object
            raise Refusal(-errno.ENOENT)
        value = objects.omap(change.db, change.before, step.key) if change.before is not None else None
    if (value or b"") != step.value:
        raise Refusal(-errno.ECANCELED)


def _call(change: Change, step: port.Exec) -> bytes:
    # Within a write, a method that only reads comes to a missing object too.
    handler = context.handler_of(step)
    writes = Access.WRITE in handler.method.access
    kind = context.WriteContext if writes else context.LookContext
    return context.run(handler, kind(change), step.data)


def _fail_ok(change: Change, step: port.FailOk) -> None:
    try:
        WRITES[type(step.step)](change, step.step)
    except Refusal:
        # What it had noted before it failed stays, as on a real OSD.
        return


def _hint(change: Change, step: port.AllocHint) -> None:
    """It creates the object, like any write."""
    change.touch()


WRITES: Final[dict[type, Callable[[Change, Any], Any]]] = {
    port.Create: lambda change, step: change.create(step.exclusive),
    port.Write: _write,
    port.WriteFull: lambda change, step: change.write_full(flat(step.data)),
    port.Append: _append,
    port.WriteSame: _write_same,
    port.Zero: lambda change, step: change.zero(step.offset, step.length),
    port.Truncate: lambda change, step: change.truncate(step.size),
    port.Remove: lambda change, step: change.remove(),
    port.Exec: _call,
    port.CmpExt: _cmp_ext,
    port.SetXattr: lambda change, step: change.set_xattr(step.name, bytes(step.value)),
    port.RmXattr: lambda change, step: change.remove_xattr(step.name),
    port.OmapSet: lambda change, step: change.set_omap(step.values),
    port.OmapRemove: lambda change, step: change.remove_omap(step.keys),
    port.OmapRemoveRange: lambda change, step: change.remove_omap_range(step.first, step.last),
    port.OmapClear: lambda change, step: change.clear_omap(),
    port.OmapCmp: _omap_cmp,
    port.AssertExists: lambda change, step: change.demand(),
    port.AssertVersion: _assert_version,
    port.AllocHint: _hint,
    port.FailOk: _fail_ok,
}

_CONDITIONS: Final = frozenset((port.CmpExt, port.OmapCmp, port.AssertExists, port.AssertVersion))


def survey(steps: tuple[Any, ...]) -> bool:
    """Whether a write operation changes anything at all: one that only asks is refused where there is no object.

    Raises Refusal(-EOPNOTSUPP) for an unknown method, -EMSGSIZE for more data than one operation may carry, and
    TypeError for a step that is none of a write.
    """
    writes = False
    carried = 0
    for step in steps:
        inner = step.step if type(step) is port.FailOk else step
        kind = type(inner)
        if kind is port.Exec:
            writes |= Access.WRITE in context.handler_of(inner).method.access
        elif kind not in WRITES:
            raise TypeError(f"not a step of a write: {inner!r}")
        elif kind not in _CONDITIONS:
            writes = True
        carried += _weight(inner)
    if carried > MAX_MESSAGE:
        raise Refusal(-errno.EMSGSIZE)
    return writes


def _weight(step: Any) -> int:
    """Bytes of data that a step sends along."""
    if type(step) is port.OmapSet:
        return sum(len(key) + len(value) for key, value in step.values.items())
    if type(step) is port.SetXattr:
        return len(step.value)
    return memoryview(step.data).nbytes if hasattr(step, "data") else 0


# --- common ----------------------------------------------------------------------------------------------------------


def flat(data: Buffer) -> Buffer:
    """Any buffer as one whose length is its bytes."""
    return data if type(data) is bytes else memoryview(data).cast("B")


def compare_version(actual: int, wanted: int) -> None:
    if wanted == 0:
        raise Refusal(-errno.EINVAL)
    if wanted < actual:
        raise Refusal(-errno.ERANGE)
    if wanted > actual:
        raise Refusal(-errno.EOVERFLOW)


def compare_extent(actual: bytes, wanted: Buffer) -> None:
    """Missing bytes are zeros."""
    padded = actual.ljust(len(wanted), b"\0")
    if padded != wanted:
        raise Refusal(-(4095 + _first_difference(padded, bytes(wanted))))


def _first_difference(mine: bytes, yours: bytes) -> int:
    block = next(at for at in range(0, len(mine), 4096) if mine[at : at + 4096] != yours[at : at + 4096])
    return next(at for at in range(block, len(mine)) if mine[at] != yours[at])
