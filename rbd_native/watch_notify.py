"""The messages that clients of one image send each other through its header object: their wire format.

A message is a versioned struct: u32 operation, then the operation's own fields. A client is named by its global id and
the cookie of its watch; a request that will be answered by progress and completion messages is named by the client that
asked and a number of its own. Pure: sending, answering and what they mean are the open image's business.

Source: notifications of a running 16.2.15 cluster, held byte for byte in the tests. Every release up to 20 speaks
version 7.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar

from rbd_native.encoding import (
    Codec,
    DecodeError,
    Reader,
    boolean,
    codec_of,
    decode,
    encode,
    i32,
    rest,
    struct,
    text,
    u32,
    u64,
)
from rbd_native.rados.port import NotifyReply
from rbd_native.types import MirrorImageState, MirrorMode, TrashImageSpec, snapshot_namespace

VERSION = 7
_U32: Codec = codec_of(u32)


class Op(IntEnum):
    ACQUIRED_LOCK = 0
    RELEASED_LOCK = 1
    REQUEST_LOCK = 2
    HEADER_UPDATE = 3
    ASYNC_PROGRESS = 4
    ASYNC_COMPLETE = 5
    FLATTEN = 6
    RESIZE = 7
    SNAP_CREATE = 8
    SNAP_REMOVE = 9
    REBUILD_OBJECT_MAP = 10
    SNAP_RENAME = 11
    SNAP_PROTECT = 12
    SNAP_UNPROTECT = 13
    RENAME = 14
    UPDATE_FEATURES = 15
    MIGRATE = 16
    SPARSIFY = 17
    QUIESCE = 18
    UNQUIESCE = 19
    METADATA_UPDATE = 20


@struct()
class ClientId:
    """`client`: global id; `handle`: cookie of its watch. All zero: none."""

    client: u64 = 0
    handle: u64 = 0


@struct()
class AsyncRequestId:
    client: ClientId
    request: u64


class Message:
    """Base of the messages; `op` is its number on the wire."""

    __slots__ = ()
    op: ClassVar[Op]


@struct()
class AcquiredLock(Message):
    op = Op.ACQUIRED_LOCK
    client: ClientId


@struct()
class ReleasedLock(Message):
    op = Op.RELEASED_LOCK
    client: ClientId


@struct()
class RequestLock(Message):
    op = Op.REQUEST_LOCK
    client: ClientId
    force: boolean = False


@struct()
class HeaderUpdate(Message):
    op = Op.HEADER_UPDATE


@struct()
class AsyncProgress(Message):
    op = Op.ASYNC_PROGRESS
    request: AsyncRequestId
    offset: u64
    total: u64


@struct()
class AsyncComplete(Message):
    op = Op.ASYNC_COMPLETE
    request: AsyncRequestId
    result: i32


@struct()
class Flatten(Message):
    op = Op.FLATTEN
    request: AsyncRequestId


@struct()
class Resize(Message):
    op = Op.RESIZE
    size: u64
    request: AsyncRequestId
    allow_shrink: boolean = True


SNAP_SKIP_OBJECT_MAP = 1
SNAP_SKIP_QUIESCE = 2
SNAP_IGNORE_QUIESCE_ERROR = 4


@struct()
class SnapCreate(Message):
    """`flags`: SNAP_*, which are not those that users give."""

    op = Op.SNAP_CREATE
    name: text
    namespace: snapshot_namespace
    request: AsyncRequestId
    flags: u64 = 0


@struct()
class SnapRemove(Message):
    op = Op.SNAP_REMOVE
    name: text
    namespace: snapshot_namespace
    request: AsyncRequestId


@struct()
class RebuildObjectMap(Message):
    op = Op.REBUILD_OBJECT_MAP
    request: AsyncRequestId


@struct()
class SnapRename(Message):
    op = Op.SNAP_RENAME
    snap_id: u64
    name: text
    namespace: snapshot_namespace
    request: AsyncRequestId


@struct()
class SnapProtect(Message):
    op = Op.SNAP_PROTECT
    name: text
    namespace: snapshot_namespace
    request: AsyncRequestId


@struct()
class SnapUnprotect(Message):
    op = Op.SNAP_UNPROTECT
    name: text
    namespace: snapshot_namespace
    request: AsyncRequestId


@struct()
class Rename(Message):
    op = Op.RENAME
    name: text
    request: AsyncRequestId


@struct()
class UpdateFeatures(Message):
    op = Op.UPDATE_FEATURES
    features: u64
    enabled: boolean
    request: AsyncRequestId


@struct()
class Migrate(Message):
    op = Op.MIGRATE
    request: AsyncRequestId


@struct()
class Sparsify(Message):
    op = Op.SPARSIFY
    request: AsyncRequestId
    sparse_size: u64


@struct()
class Quiesce(Message):
    op = Op.QUIESCE
    request: AsyncRequestId


@struct()
class Unquiesce(Message):
    op = Op.UNQUIESCE
    request: AsyncRequestId


@struct()
class MetadataUpdate(Message):
    """`value` None removes the key."""

    op = Op.METADATA_UPDATE
    key: text
    value: text | None
    request: AsyncRequestId


class Unknown(Message):
    """A message of a later release."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


@struct(1)
class Response:
    """What a client answers: 0 or a negative errno."""

    result: i32


_MESSAGES: dict[int, type[Message]] = {
    kind.op: kind
    for kind in (
        AcquiredLock, ReleasedLock, RequestLock, HeaderUpdate, AsyncProgress, AsyncComplete, Flatten, Resize,
        SnapCreate, SnapRemove, RebuildObjectMap, SnapRename, SnapProtect, SnapUnprotect, Rename, UpdateFeatures,
        Migrate, Sparsify, Quiesce, Unquiesce, MetadataUpdate,
    )
}  # fmt: skip


def encode_message(message: Message) -> bytes:
    """The payload of a notification."""
    body = encode(int(message.op), u32) + encode(message)
    return bytes((VERSION, 1)) + encode(len(body), u32) + body


def decode_message(payload: bytes) -> Message:
    """The message; DecodeError where it cannot be read. An empty payload is the header update of the oldest clients."""
    if not payload:
        return HeaderUpdate()
    reader = Reader(payload)
    _, compat = reader.take(2)
    if compat > VERSION:
        raise DecodeError(f"message needs a reader of version {compat}, this one knows {VERSION}")
    body = reader.window(_U32.read(reader))
    number = _U32.read(body)
    kind: Any = _MESSAGES.get(number)
    if kind is None:
        return Unknown(number)
    message: Message = codec_of(kind).read(body)
    return message


def response(result: int) -> bytes:
    """The payload of an answer."""
    return encode(Response(result))


def acknowledgements(reply: NotifyReply) -> list[int]:
    """The results that clients answered a notification with; those that had nothing to say are left out."""
    results: list[int] = []
    for _, _, payload in reply.acks:
        if payload:
            answer: Response = decode(Response, payload)
            results.append(answer.result)
    return results


# --- the trash's own notices, on rbd_trash ---------------------------------------------------------------------------


@struct(1)
class TrashNotice:
    """`op` 0: an image was added, and `spec` is its entry. 1: it was removed, and there is no `spec`."""

    op: u32
    image_id: text
    spec: rest


def trash_added(image_id: str, spec: TrashImageSpec) -> bytes:
    return encode(TrashNotice(0, image_id, encode(spec)))


def trash_removed(image_id: str) -> bytes:
    return encode(TrashNotice(1, image_id, b""))


# --- those of mirroring, on rbd_mirroring ----------------------------------------------------------------------------


@struct(1)
class MirroringNotice:
    """`op` 0: `body` is the pool's new mode (u32). 1: the state of an image (u32), its id and its global id."""

    op: u32
    body: rest


def mirror_mode_updated(mode: MirrorMode) -> bytes:
    return encode(MirroringNotice(0, encode(int(mode), u32)))


def mirror_image_updated(state: MirrorImageState, image_id: str, global_id: str) -> bytes:
    """State DISABLED: it is not mirrored any more."""
    body = encode(int(state), u32) + encode(image_id, text) + encode(global_id, text)
    return encode(MirroringNotice(1, body))
