"""What a client asks of RADOS, written down: to be read, measured, and done again.

    trace = Trace(open("run.trace", "wb"))
    io = wrap(io, trace)
    ...
    records = list(read_trace(open("run.trace", "rb")))
    results = await replay(other_io, records)

A trace is a stream of msgpack arrays, one a request, in the order in which they ended, with the fields of :class:`Record`;
a step is an array of its name and its fields. So a trace holds all the data that was written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, NamedTuple, get_args

import msgpack

from rbd_native.engine import PENDING, Resume
from rbd_native.rados import port
from rbd_native.rados.port import Call, Io, Operation, Reply, SnapContext
from rbd_native.rados.wrapper import Interceptor, Request

_STEPS: Final[Mapping[str, type]] = {step.__name__: step for step in (*get_args(port.ReadStep), *get_args(port.WriteStep))}


class Record(NamedTuple):
    """One request and its result. `began` and `took` are microseconds, the former since the trace began."""

    kind: str
    pool_id: int
    namespace: str
    oid: str
    steps: tuple[Any, ...]
    snap: int
    snapc: SnapContext | None
    rv: int
    began: int
    took: int


class Trace(Interceptor):
    """Writes to a stream, or, without one, keeps what it would have written in `records`."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self.records: list[Record] = []
        self._stream = stream
        self._zero = time.perf_counter_ns()

    def operation(self, request: Request, inner: Operation) -> Operation:
        return _TracedOperation(self, request, inner)

    def call(self, request: Request, inner: Call) -> Call:
        return _TracedCall(self, request, inner)

    def note(self, request: Request, rv: int, began: int) -> None:
        """Write down that a request that began at `began` (perf_counter_ns) has just ended."""
        now = time.perf_counter_ns()
        kind, oid, steps, snap, snapc, pool_id, namespace, _ = request
        # Data is the caller's again once the request has ended: a record has its own.
        mine = tuple(_own(_plain(step)) for step in steps)
        since, took = (began - self._zero) // 1000, (now - began) // 1000
        record = Record(kind, pool_id, namespace, oid, mine, snap, snapc, rv, since, took)
        if self._stream is None:
            self.records.append(record)
        else:
            self._stream.write(pack(record))


class _Traced:
    """What operations and calls have in common; they add `start` and `block` of a suspension."""

    __slots__ = ()

    _trace: Trace
    _request: Request
    _inner: Any

    def start(self, resume: Resume) -> Any:
        began = time.perf_counter_ns()

        def ended(result: Any) -> None:
            self._note(result, began)
            resume(result)

        result = self._inner.start(ended)
        if result is not PENDING:
            self._note(result, began)
        return result

    def block(self) -> Any:
        began = time.perf_counter_ns()
        result = self._inner.block()
        self._note(result, began)
        return result

    def _note(self, result: Any, began: int) -> None:
        rv = getattr(result, "rv", None)
        if rv is not None:  # else it failed without an answer
            self._trace.note(self._request, rv, began)


class _TracedOperation(_Traced, Operation):
    __slots__ = ("_inner", "_request", "_trace")

    def __init__(self, trace: Trace, request: Request, inner: Operation) -> None:
        super().__init__(request.oid)
        self._trace = trace
        self._request = request
        self._inner = inner


class _TracedCall(_Traced, Call):
    __slots__ = ("_inner", "_request", "_trace", "what")

    def __init__(self, trace: Trace, request: Request, inner: Call) -> None:
        self._trace = trace
        self._request = request
        self._inner = inner
        self.what = inner.what


# --- the format ------------------------------------------------------------------------------------------------------


def pack(record: Record) -> bytes:
    """A record as it lies in a trace."""
    packed: bytes = msgpack.packb(
        record._replace(steps=[_packed(step) for step in record.steps]),  # type: ignore[arg-type]
        unicode_errors="surrogateescape",
    )
    return packed


def read_trace(stream: BinaryIO) -> Iterator[Record]:
    """The records of a trace, as they were. An incomplete one at the end, of a client that was killed, is left out."""
    fields: list[Any]
    # Keys of an omap are bytes; a record may hold as much data as an operation.
    for fields in msgpack.Unpacker(stream, strict_map_key=False, max_buffer_size=0, unicode_errors="surrogateescape"):
        record = Record(*fields)
        steps = tuple(_unpacked(step) for step in record.steps)
        snapc = None if record.snapc is None else SnapContext(record.snapc[0], tuple(record.snapc[1]))
        yield record._replace(steps=steps, snapc=snapc)


def _plain(step: Any) -> Any:
    """Where something was read into is nobody's business."""
    return port.Read(step.offset, len(step.room)) if type(step) is port.ReadInto else step


def _own(value: Any) -> Any:
    """The same value, with data that is nobody else's."""
    if isinstance(value, tuple):
        items = [_own(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, Mapping):
        return dict(value)
    return value if isinstance(value, (bytes, str, bool, int, type(None))) else bytes(value)


def _packed(step: Any) -> Any:
    if isinstance(step, port.FailOk):
        return ["FailOk", _packed(step.step)]
    return [type(step).__name__, *step] if hasattr(step, "_fields") else step


def _unpacked(step: Any) -> Any:
    if not isinstance(step, list):
        return step
    name, *fields = step
    if name == "FailOk":
        return port.FailOk(_unpacked(fields[0]))
    return _STEPS[name](*(tuple(field) if isinstance(field, list) else field for field in fields))


# --- doing it again --------------------------------------------------------------------------------------------------


async def replay(io: Io, records: Iterable[Record]) -> list[Reply]:
    """Do the operations on objects again, one after the other, in the pool and namespace of `io`: their replies.

    Snapshots and watches are not made again: where the operations name snapshots, they must be there.
    """
    verbs: dict[str, Callable[[Record], Operation]] = {
        "read": lambda record: io.read(record.oid, record.steps, snap=record.snap),
        "write": lambda record: io.write(record.oid, record.steps, snapc=record.snapc),
        "execute": lambda record: io.execute(record.oid, record.steps[0]),
    }
    return [await verbs[record.kind](record).bare() for record in records if record.kind in verbs]
