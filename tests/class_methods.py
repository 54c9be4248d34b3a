"""Random calls of object-class methods, and one place where they run: what the differential test compares.

A :class:`Kind` is a sort of object, the methods that make sense on it, and what their arguments are drawn
from. A :class:`Target` runs calls on one cluster and tells the state of an object, with all that must differ
between two clusters (clocks, random uuids, who the client is) replaced by the same words.
"""

import contextlib
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rbd_native import cls_lock, cls_rbd
from rbd_native.cls_client import Access, ClassCall, Method
from rbd_native.encoding import concatenate, encode
from rbd_native.rados.port import Create, Exec, GetXattr, Io, OmapGet, Read, Stat
from rbd_native.types import AddressType, EntityAddress, EntityName, EntityType
from tests.releases import GROUP_SNAP_ORDER, LISTED_TOO_SOON, NEWEST, told
from tests.values import Seeded, Values

METHODS = {
    (value.cls, value.name): value
    for module in (cls_rbd, cls_lock)
    for value in vars(module).values()
    if isinstance(value, Method)
}
"""All that are declared, by class and name."""

SELF = 0x5E1F_5E1F_5E1F  # in arguments: the global id of whoever calls

Calls = tuple[Exec, ...]


class Kind(NamedTuple):
    """A sort of object.

    domains: name of a parameter, of a field, "method.parameter" or "class.field" to the values to draw from. begin: calls
    one of which most sequences start with. compound: also two calls as one write. watched: some objects are
    watched by the caller. often: names of methods that are tried more than others. inputs: by method,
    requests drawn as a whole.
    """

    methods: tuple[Method[Any, Any], ...]
    domains: Mapping[str, Sequence[Any]]
    begin: tuple[ClassCall[Any], ...] = ()
    often: tuple[str, ...] = ()
    inputs: Mapping[str, Callable[[Seeded], bytes]] = {}
    compound: bool = True
    watched: bool = False


class State(NamedTuple):
    size: int
    data: bytes
    omap: dict[bytes, bytes]
    xattrs: dict[str, bytes]


def sequence(kind: Kind, seed: str, length: int) -> list[Calls]:
    """Operations on one object: mostly one call, sometimes two as one write."""
    source = Seeded(seed)
    often = [method for method in kind.methods if method.name in kind.often]
    methods = [*kind.methods, *often * (len(kind.methods) // (2 * len(often) + 1) + 1)]
    writing = [method for method in methods if Access.WRITE in method.access]
    begin = source.pick([(), *kind.begin, *kind.begin])
    made: list[Calls] = [(begin.step,)] if begin else []
    for _ in range(length):
        first = source.pick(methods)
        if kind.compound and source.integer(1, 12) == 1:
            made.append((_call(kind, source.pick(writing), source), _call(kind, first, source)))
        else:
            made.append((_call(kind, first, source),))
    return made


def _call(kind: Kind, method: Method[Any, Any], source: Seeded) -> Exec:
    return Exec(method.cls, method.name, _input(kind, method, source))


def _input(kind: Kind, method: Method[Any, Any], source: Seeded) -> bytes:
    if method.name in kind.inputs:
        return kind.inputs[method.name](source)
    arguments = {}
    for parameter in method.parameters:
        own = kind.domains.get(f"{method.name}.{parameter.name}")
        drawing = Values(source, {**kind.domains, parameter.name: own} if own else kind.domains)
        arguments[parameter.name] = drawing.of(method.hints[parameter.name], parameter.name)
    data = method.encode_request(**arguments)
    match source.integer(1, 20):
        case 1:
            return data[: source.integer(0, len(data))]
        case 2:
            return data + b"more"
        case 3 | 4 if not method.envelope:
            # A release that did not know the optional arguments yet.
            needed = [parameter for parameter in method.parameters if not parameter.optional]
            return concatenate([p.codec for p in needed], [arguments[p.name] for p in needed])
    return data


def shortest(calls: list[Calls], fails: Callable[[list[Calls]], bool]) -> list[Calls]:
    """Leave out of a failing sequence whatever it fails without."""
    size = len(calls) // 2
    while size:
        for start in range(len(calls) - size, -1, -size):
            fewer = calls[:start] + calls[start + size :]
            if fails(fewer):
                calls = fewer
        size //= 2
    return calls


# What the embedded OSD does as the newest release does it, and the installed one does otherwise.
_UNKNOWN_KEYS = () if told(GROUP_SNAP_ORDER) else (b"snap_order_", b"snap_max_order")
_LISTED_TOO_SOON = {-told(LISTED_TOO_SOON, NEWEST): -told(LISTED_TOO_SOON)}


class Target:
    """One cluster."""

    def __init__(self, io: Io) -> None:
        self.io = io
        self._gid = struct.pack("<q", io.cluster.instance_id())
        self._words = _Words(io)

    def run(self, oid: str, calls: Calls) -> tuple[int, bytes]:
        """The errno (negative) and the output; that of several calls is lost."""
        steps = tuple(step._replace(data=step.data.replace(_SELF, self._gid)) for step in calls)
        if len(steps) > 1:
            return _LISTED_TOO_SOON.get(answer := self.io.write(oid, steps).block().rv, answer), b""
        reads = METHODS[steps[0].cls, steps[0].method].access == Access.READ
        operation = self.io.read(oid, steps) if reads else self.io.execute(oid, steps[0])
        reply = operation.block()
        return reply.rv, self._words.replace(reply.outs[0]) if reply.rv >= 0 and reply.outs else b""

    @contextlib.contextmanager
    def watching(self, oid: str) -> Iterator[None]:
        """The object, made and watched."""
        assert self.io.write(oid, [Create()]).block().rv == 0
        watch = self.io.watch(oid, lambda client, notify_id, payload: b"", lambda error: None).block()
        assert watch.rv == 0
        yield
        watch.value.close().block()

    def state(self, oid: str, xattrs: Iterable[str] = ()) -> State | None:
        reply = self.io.read(oid, [Stat(), Read(0, 0), OmapGet()]).block()
        if reply.rv == -2:
            return None
        assert reply.rv == 0
        stat, data, page = reply.outs
        assert not page.more
        replace = self._words.replace
        omap = {replace(key): replace(value) for key, value in page.values.items() if not key.startswith(_UNKNOWN_KEYS)}
        found = {name: self.io.read(oid, [GetXattr(name)]).block() for name in xattrs}
        kept = {name: replace(reply.outs[0]) for name, reply in found.items() if reply.rv >= 0}
        return State(stat.size, data, omap, kept)


_SELF = struct.pack("<q", SELF)
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_WINDOW = 600  # seconds that a test may last
LONG = 100_000  # seconds: the one duration that locks may have


class _Words:
    """Replaces what is a cluster's own by words of the same length."""

    def __init__(self, io: Io) -> None:
        start = int(time.time()) - 5
        moments = [start + shift + second for shift in (0, LONG) for second in range(_WINDOW)]
        seconds = b"|".join(re.escape(struct.pack("<I", moment)) for moment in moments)
        self._clock = re.compile(b"(?:" + seconds + b")....", re.DOTALL)
        self._start = start
        name = EntityName(EntityType.CLIENT, io.cluster.instance_id())
        self._identity = {encode(name): b"<caller>"}
        for kind in AddressType:
            address = encode(EntityAddress.parse(io.cluster.address(), kind))
            self._identity[address] = b"<address %d>" % kind

    def replace(self, data: bytes) -> bytes:
        for mine, word in self._identity.items():
            data = data.replace(mine, word)
        return self._clock.sub(self._moment, _UUID.sub(b"uuid" * 9, data))

    def _moment(self, match: re.Match[bytes]) -> bytes:
        (second,) = struct.unpack("<I", match[0][:4])
        return b"<later!>" if second - self._start > _WINDOW else b"<-now-->"


def show(calls: Calls) -> str:
    """Calls as a person reads them."""
    return " + ".join(_show(step) for step in calls)


def _show(step: Exec) -> str:
    try:
        arguments = METHODS[step.cls, step.method].decode_request(step.data)
    except ValueError:
        return f"{step.method}[{step.data.hex()}]"
    return f"{step.method}({', '.join(map(repr, arguments))})"


def explain(mine: State | None, theirs: State | None) -> dict[str, Any]:
    """Where two states differ: (embedded, real)."""
    if mine is None or theirs is None:
        return {"exists": (mine is not None, theirs is not None)}
    found: dict[str, Any] = {}
    for field in ("size", "data"):
        if getattr(mine, field) != getattr(theirs, field):
            found[field] = getattr(mine, field), getattr(theirs, field)
    for field in ("omap", "xattrs"):
        left, right = getattr(mine, field), getattr(theirs, field)
        for key in left.keys() | right.keys():
            if left.get(key) != right.get(key):
                found[f"{field} {key!r}"] = left.get(key), right.get(key)
    return found
