"""The contract of a RADOS: what rbd_native needs of an object store, with operations as data.

An adapter implements :class:`Cluster`, :class:`Io` and :class:`Watch`. Everything that waits is a
:class:`rbd_native.engine.Suspension`; the adapter's own outcome is a :class:`Reply` (or, for the few other calls, an
:class:`Outcome`), whose `rv` is 0 or a negative errno. An adapter raises only for misuse; awaiting an operation turns a
negative `rv` into :class:`RadosError` unless the caller asked for the bare reply.

- An operation on an object is a tuple of steps, applied in order, all or none. Within one write, omap, xattr and data
  are read as they were before it; existence and size as they are at that step.
- The snapshot context and the snapshot to read are arguments of each operation, never state of an Io.
- An Io is one pool and one namespace, immutable, and may be used from any thread.
- Buffers handed in (bytes, bytearray, memoryview, anything with the buffer protocol) must stay unchanged until the
  operation has completed; outputs are `bytes`.

What every adapter keeps true is written down as tests, in tests/contract.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from enum import IntFlag
from types import coroutine
from typing import Any, Final, NamedTuple

from rbd_native.engine import Resume, Suspension
from rbd_native.rados.clock import Sleep

HEAD: Final = 2**64 - 2
"""The snapshot id that means "no snapshot": the object as it is now."""

Buffer = bytes | bytearray | memoryview


class RadosError(Exception):
    """An operation was refused. `errno` is positive; `reply` is the whole answer where there was one."""

    def __init__(self, code: int, what: str = "", reply: Reply | None = None) -> None:
        super().__init__(f"[errno {code}] {os.strerror(code)}" + (f" ({what})" if what else ""))
        self.errno = code
        self.reply = reply

    @property
    def unanswered(self) -> bool:
        """Whether it may have been done all the same, now or later: no answer came. Then nothing may be undone that must
        not be undone where it was done."""
        return self.errno == errno.ETIMEDOUT


class Capability(IntFlag):
    """What an adapter cannot do everywhere. Without it the steps or calls named raise or answer -EOPNOTSUPP."""

    COMPOUND_READ = 1  # several steps in one read are one atomic operation
    ZERO = 2
    ALLOC_HINT = 4
    LIST_SNAPS = 8
    LIST_WATCHERS = 16  # exact; without it watchers are found by a HEADER_UPDATE that they acknowledge
    BINARY_NOTIFY = 32
    ALL = 63


# --- steps of a read -------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """Output: up to `length` bytes from `offset`; fewer at the end of the object. Length 0 means up to the end."""

    offset: int
    length: int


class ReadInto(NamedTuple):
    """Output: how many bytes from `offset` on were read into `room`, which is bytes that may be written to, contiguous and
    not empty; fewer than fit at the end of the object. What lies in it behind them is unspecified. The view may be released
    once the reply is there."""

    offset: int
    room: memoryview


class Stat(NamedTuple):
    """Output: :class:`ObjectStat`."""


class Exec(NamedTuple):
    """A method of an object class. Output in a read: its bytes. In a write, outputs are lost."""

    cls: str
    method: str
    data: bytes = b""


class GetXattr(NamedTuple):
    """Output: the value. -ENODATA where there is none."""

    name: str


class OmapGet(NamedTuple):
    """Output: :class:`OmapPage`: at most `limit` entries, keys after `after` (bytewise) that start with `prefix`."""

    after: bytes = b""
    limit: int = 1024
    prefix: bytes = b""


class OmapGetByKeys(NamedTuple):
    """Output: dict of those of the keys that exist."""

    keys: tuple[bytes, ...]


class ListSnaps(NamedTuple):
    """Output: :class:`SnapSet`. The only step of its operation; the `snap` argument is ignored."""


class ListWatchers(NamedTuple):
    """Output: list of :class:`Watcher`. The only step of its operation."""


# --- steps of a write (and, marked +, of a read) ---------------------------------------------------------------------


class AssertExists(NamedTuple):
    """+ -ENOENT where the object does not exist."""


class AssertVersion(NamedTuple):
    """+ -ERANGE where the object's version is newer, -EOVERFLOW where it is older."""

    version: int


class CmpExt(NamedTuple):
    """+ -(4095 + n) where byte n of the extent is the first that differs; missing bytes compare as zeros.

    A missing object compares as zeros in a write that changes something, and is -ENOENT otherwise. Never behind a step
    that changes the data: OSDs of release 16 may then take the object for damaged, and do not answer any more.
    """

    offset: int
    data: Buffer


class OmapCmp(NamedTuple):
    """-ECANCELED unless the value of `key` is equal to `value`."""

    key: bytes
    value: bytes


class Create(NamedTuple):
    exclusive: bool = True


class Write(NamedTuple):
    """Of no data, at offset 0 only: further on, it would leave the object with a wrong checksum (release 16)."""

    offset: int
    data: Buffer


class WriteFull(NamedTuple):
    data: Buffer


class Append(NamedTuple):
    data: Buffer


class WriteSame(NamedTuple):
    """Repeat `data` over `offset`, `length`; length must be a multiple of its size."""

    offset: int
    length: int
    data: Buffer


class Zero(NamedTuple):
    """Zeros over `offset`, `length` as far as the object reaches; it neither grows nor comes into being.

    Reaching the end, it cuts the object off at `offset`. Length 0 does nothing.
    """

    offset: int
    length: int


class Truncate(NamedTuple):
    """Set the size; no effect on a missing object."""

    size: int


class Remove(NamedTuple):
    """-ENOENT where there is none."""


class SetXattr(NamedTuple):
    name: str
    value: bytes


class RmXattr(NamedTuple):
    name: str


class OmapSet(NamedTuple):
    values: Mapping[bytes, bytes]


class OmapRemove(NamedTuple):
    keys: tuple[bytes, ...]


class OmapRemoveRange(NamedTuple):
    """Remove the keys from `first` up to, not including, `last`; none where `last` comes first."""

    first: bytes
    last: bytes


class OmapClear(NamedTuple):
    pass


class AllocHint(NamedTuple):
    """The size this object is expected to reach, and that of its writes. `flags`: LIBRADOS_ALLOC_HINT_FLAG_*."""

    object_size: int
    write_size: int
    flags: int = 0


class FailOk(NamedTuple):
    """This step may fail without failing the operation."""

    step: Any


ReadStep = (
    Read | ReadInto | Stat | Exec | GetXattr | OmapGet | OmapGetByKeys | ListSnaps | ListWatchers
    | AssertExists | AssertVersion | CmpExt
)  # fmt: skip
WriteStep = (
    Create | Write | WriteFull | Append | WriteSame | Zero | Truncate | Remove | Exec | CmpExt | SetXattr | RmXattr
    | OmapSet | OmapRemove | OmapRemoveRange | OmapClear | OmapCmp | AssertExists | AssertVersion | AllocHint | FailOk
)  # fmt: skip


# --- outputs ---------------------------------------------------------------------------------------------------------


class ObjectStat(NamedTuple):
    """Size in bytes; modification time in seconds since 1970."""

    size: int
    mtime: float


class OmapPage(NamedTuple):
    values: dict[bytes, bytes]
    more: bool


class Clone(NamedTuple):
    """One state of an object that snapshots keep, or its head (`id` is HEAD).

    `snaps`: the snapshots it serves, ascending. `overlap`: what it shares with the next newer one, as (offset, length).
    """

    id: int
    snaps: tuple[int, ...]
    overlap: tuple[tuple[int, int], ...]
    size: int

    @property
    def is_head(self) -> bool:
        return self.id == HEAD


class SnapSet(NamedTuple):
    """All clones of an object, oldest first, the head last where it exists."""

    clones: tuple[Clone, ...]
    seq: int


class Watcher(NamedTuple):
    """`address`: "ip:port/nonce" of the client; `client`: its global id; `cookie`: its own number for the watch."""

    address: str
    client: int
    cookie: int
    timeout: int


class NotifyReply(NamedTuple):
    """Who answered what, as (client, cookie, payload), and who did not in time, as (client, cookie)."""

    acks: list[tuple[int, int, bytes]]
    timeouts: list[tuple[int, int]]


class Reply(NamedTuple):
    """`rv`: 0 or the negative errno of the operation. `outs`: one output per step, None for steps without one.
    `version`: of the object, after the operation; 0 where unknown."""

    rv: int
    outs: tuple[Any, ...] = ()
    version: int = 0


class Outcome(NamedTuple):
    """Of calls that are not operations on an object: 0 or a negative errno, and a value."""

    rv: int
    value: Any = None


class SnapContext(NamedTuple):
    """The snapshots a write must preserve: ids descending, and the newest id that ever was (>= all of them)."""

    seq: int
    ids: tuple[int, ...]


# --- suspensions -----------------------------------------------------------------------------------------------------


class Operation(Suspension):
    """An operation that an adapter has been asked for. Awaiting it gives a :class:`Reply` or raises RadosError.

    Nothing is sent before it is awaited. `await op.bare()` gives the reply, whatever its `rv`.
    """

    __slots__ = ("oid",)

    def __init__(self, oid: str) -> None:
        self.oid = oid

    def __await__(self) -> Generator[Suspension, Any, Reply]:
        reply: Reply = yield self
        if reply.rv < 0:
            raise RadosError(-reply.rv, self.oid, reply)
        return reply

    @coroutine
    def bare(self) -> Generator[Suspension, Any, Reply]:
        reply: Reply = yield self
        return reply


class Bare(Suspension):
    """An operation whose failure is the caller's to look at."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Suspension) -> None:
        self._inner = inner

    def start(self, resume: Resume) -> Any:
        return self._inner.start(resume)

    def block(self) -> Any:
        return self._inner.block()

    def __await__(self) -> Generator[Suspension, Any, Any]:
        return (yield self)


class Call(Suspension):
    """Another call of the port. Awaiting it gives the value of its :class:`Outcome` or raises RadosError."""

    __slots__ = ()

    what = ""

    def __await__(self) -> Generator[Suspension, Any, Any]:
        outcome: Outcome = yield self
        if outcome.rv < 0:
            raise RadosError(-outcome.rv, self.what)
        return outcome.value


# --- the port --------------------------------------------------------------------------------------------------------

OnNotify = Callable[[int, int, bytes], bytes]
"""(notifier's client id, notify id, payload) -> reply. It must return at once and may not wait for RADOS."""

OnWatchError = Callable[[int], None]
"""(errno): the watch is lost. -ENOTCONN and -ESHUTDOWN come as positive numbers."""


class Watch(ABC):
    """A registered watch. One callback at a time."""

    cookie: int
    """The number by which the OSD knows it: what a lock cookie names."""

    @abstractmethod
    def check(self) -> Outcome:
        """Value: seconds since the watch was last confirmed; negative errno where it is lost."""

    @abstractmethod
    def close(self) -> Call:
        """Unwatch. After it, no callback comes."""


class Io(ABC):
    """One namespace of one pool."""

    cluster: Cluster
    pool_id: int
    namespace: str

    @abstractmethod
    def read(self, oid: str, steps: Sequence[ReadStep], *, snap: int = HEAD) -> Operation: ...

    @abstractmethod
    def write(self, oid: str, steps: Sequence[WriteStep], *, snapc: SnapContext | None = None) -> Operation: ...

    @abstractmethod
    def execute(self, oid: str, step: Exec) -> Operation:
        """A class method that writes and whose output matters: sent alone, no snapshot context. Output: its bytes."""

    @abstractmethod
    def watch(self, oid: str, on_notify: OnNotify, on_error: OnWatchError, timeout: int = 0) -> Call:
        """Value: :class:`Watch`. Timeout in seconds, 0 for the cluster's default."""

    @abstractmethod
    def notify(self, oid: str, payload: bytes, timeout_ms: int) -> Call:
        """Value: :class:`NotifyReply`, also when some did not answer in time (then `rv` is 0 and `timeouts` is not
        empty)."""

    @abstractmethod
    def snap_create(self) -> Call:
        """Value: a new self-managed snapshot id of this pool."""

    @abstractmethod
    def snap_remove(self, snap: int) -> Call: ...

    @abstractmethod
    def rollback(self, oid: str, snap: int, snapc: SnapContext) -> Call:
        """Make the head what the object was at `snap`; remove it where it was absent."""

    @abstractmethod
    def list_objects(self) -> AsyncIterator[str]:
        """The names of all objects of this namespace, in no order; also of those that only snapshots still have."""

    @abstractmethod
    def in_namespace(self, namespace: str) -> Io:
        """The same pool, another namespace."""


class PoolStats(NamedTuple):
    """Bytes and objects."""

    bytes_used: int
    objects: int
    max_available: int


class Cluster(ABC):
    """A connection: one client, with an id and an address."""

    capabilities: Capability

    @abstractmethod
    def instance_id(self) -> int:
        """The global id of this client."""

    @abstractmethod
    def address(self) -> str:
        """This client as the OSDs see it: "ip:port/nonce"."""

    @abstractmethod
    def fsid(self) -> str: ...

    @abstractmethod
    def conf_get(self, name: str) -> str | None: ...

    @abstractmethod
    def conf_set(self, name: str, value: str) -> None: ...

    @abstractmethod
    def pools(self) -> Call:
        """Value: dict of pool id -> name."""

    @abstractmethod
    def pool_lookup(self, name: str) -> Call:
        """Value: the id; -ENOENT."""

    @abstractmethod
    def pool_name(self, pool_id: int) -> Call:
        """Value: the name; -ENOENT."""

    @abstractmethod
    def pool_stats(self, pool_id: int) -> Call:
        """Value: :class:`PoolStats`."""

    @abstractmethod
    def application_enable(self, pool_id: int, app: str, force: bool = False) -> Call: ...

    @abstractmethod
    def application_metadata(self, pool_id: int, app: str) -> Call:
        """Value: dict of str; -ENOENT where the application is not enabled on the pool."""

    @abstractmethod
    def io(self, pool_id: int, namespace: str = "") -> Io: ...

    @abstractmethod
    def mon_command(self, command: Mapping[str, Any], data: bytes = b"") -> Call:
        """Value: the output bytes."""

    @abstractmethod
    def blocklist_add(self, address: str, seconds: int) -> Call: ...

    @abstractmethod
    def wait_for_latest_map(self) -> Call: ...

    @abstractmethod
    def connect(self, client: str, conf: Mapping[str, str]) -> Call:
        """Connect to another cluster, as a client of that name without its type, and with this configuration alone: options
        mon_host and key say where and with what. Value: a Cluster, to be given back with :meth:`disconnect`."""

    @abstractmethod
    def disconnect(self) -> Call:
        """End a connection that came from :meth:`connect`; others are their users'."""

    def sleep(self, seconds: float) -> Suspension:
        """Time, as this client knows it. Whoever drives clients through a schedule of his own replaces it."""
        return Sleep(seconds)


def failure(code: int) -> Reply:
    """The reply of an operation that was refused as a whole."""
    return Reply(-code)


NOT_SUPPORTED: Final = failure(errno.EOPNOTSUPP)
