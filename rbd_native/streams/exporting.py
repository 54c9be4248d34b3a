"""Images into streams: many reads under way, written in order, with no more in memory than those.

What is zeros is found where the bytes are at hand, and nowhere is it read where maps say that there is nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from rbd_native.header import Snapshot
from rbd_native.image.context import ImageContext
from rbd_native.image.reading import read, read_into
from rbd_native.operations import diff, metadata
from rbd_native.operations.progress import Progress
from rbd_native.pipeline import in_order
from rbd_native.streams.codec import (
    DiffHeader,
    Extent,
    ImageHeader,
    encode_diff_end,
    encode_diff_header,
    encode_extent,
    encode_image_header,
)
from rbd_native.streams.files import PIECE, Sink
from rbd_native.types import ProtectionStatus, UserSnapshotNamespace
from rbd_native.zeros import filled_runs

WINDOW: Final = 6
"""How many pieces are under way at once."""
_BLOCK: Final = 64 << 10


def is_zero(data: bytes) -> bool:
    return not filled_runs(data, _BLOCK)


# --- differences -----------------------------------------------------------------------------------------------------


async def export_diff(
    image: ImageContext,
    sink: Sink,
    since: str | int | None,
    *,
    version: int,
    whole_object: bool,
    include_parent: bool,
    progress: Progress,
) -> None:
    """From a snapshot, or nothing, to what the handle is set to. ENOENT, EINVAL (the snapshot is newer)."""
    if image.stale:
        await image.fresh()
    start = None if since is None else diff.snapshot_of(image, since)
    await _write_diff(image, sink, start, version, whole_object, include_parent, _Share(progress, 0, image.size))
    sink.finish()


class _Share:
    """A part of the work: `total` bytes of which lie before it."""

    def __init__(self, progress: Progress, before: int, total: int) -> None:
        self._progress = progress
        self._before = before
        self._total = total

    def update(self, done: int) -> None:
        self._progress.update(self._before + done, self._total)


async def _write_diff(
    image: ImageContext,
    sink: Sink,
    since: Snapshot | None,
    version: int,
    whole_object: bool,
    include_parent: bool,
    share: _Share,
) -> None:
    at = image.snap
    header = DiffHeader(
        from_snap=None if since is None else since.info.name,
        to_snap=None if at is None else at.info.name,
        size=image.size,
        protected=None if at is None else at.protection == ProtectionStatus.PROTECTED,
    )
    sink.write(encode_diff_header(header, version))
    if image.size:
        key = None if since is None else since.info.id
        found = diff.changes(image, 0, image.size, key, include_parent=include_parent, whole_object=whole_object)
        async with aclosing(found) as batches, aclosing(in_order(_reads(image, batches), WINDOW)) as pieces:
            writer = _ExtentWriter(sink, version)
            async for piece in pieces:
                writer.take(piece)
                share.update(piece.offset)
    sink.write(encode_diff_end())


class _Piece(NamedTuple):
    """Bytes of an extent from `offset` on; an extent of zeros has a single one, without any."""

    extent: Extent
    offset: int
    data: bytes


async def _reads(
    image: ImageContext, batches: AsyncIterable[list[diff.Extent]]
) -> AsyncGenerator[Coroutine[Any, Any, _Piece], None]:
    async for batch in batches:
        for offset, length, exists in batch:
            extent = Extent(offset, length, exists)
            if exists:
                for start, end in _cut(offset, extent.end):
                    yield _piece(image, extent, start, end - start)
            else:
                yield _nothing(extent)


def _cut(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Pieces that end where multiples of PIECE do."""
    while start < end:
        stop = min(end, start - start % PIECE + PIECE)
        yield start, stop
        start = stop


async def _piece(image: ImageContext, extent: Extent, offset: int, length: int) -> _Piece:
    return _Piece(extent, offset, await _read(image, offset, length))


async def _nothing(extent: Extent) -> _Piece:
    return _Piece(extent, extent.offset, b"")


async def _read(image: ImageContext, offset: int, length: int) -> bytes:
    """The image may have shrunk meanwhile: what it has not got any more is zeros."""
    data = await read(image, offset, min(length, max(image.size - offset, 0)))
    return data if len(data) == length else data.ljust(length, b"\0")


class _ExtentWriter:
    """Writes extents as their pieces come. One that turns out to be all zeros is told as zeros: so its record is begun only
    at the first piece that is not, and the zeros before it need not be kept."""

    def __init__(self, sink: Sink, version: int) -> None:
        self._sink = sink
        self._version = version
        self._begun = False
        self._zeros = 0

    def take(self, piece: _Piece) -> None:
        extent, offset, data = piece
        if not self._begun and is_zero(data):
            self._zeros += len(data)
        else:
            if not self._begun:
                self._begin(extent)
            self._sink.write(data)
        if not extent.data or offset + len(data) == extent.end:
            if not self._begun:
                self._sink.write(encode_extent(extent._replace(data=False), self._version))
            self._begun, self._zeros = False, 0

    def _begin(self, extent: Extent) -> None:
        self._sink.write(encode_extent(extent, self._version))
        self._sink.zeros(self._zeros)
        self._begun = True


# --- images ----------------------------------------------------------------------------------------------------------


async def export_raw(image: ImageContext, sink: Sink, progress: Progress) -> None:
    """The bytes; what is zeros becomes a hole, where the file can have holes."""
    if image.stale:
        await image.fresh()
    size = image.size
    at = 0

    rooms = deque(memoryview(bytearray(min(PIECE, size))) for _ in range(WINDOW + 1))

    async def reads() -> AsyncGenerator[Coroutine[Any, Any, tuple[int, memoryview]], None]:
        async with aclosing(diff.occupied(image)) as ranges:
            async for start, end in ranges:
                for low, high in _cut(start, min(end, size)):
                    yield placed(low, high - low)

    async def placed(offset: int, length: int) -> tuple[int, memoryview]:
        # In turn: a piece has been written when the next one but WINDOW is drawn.
        rooms.rotate()
        room = rooms[0][:length]
        found = await read_into(image, offset, room[: max(image.size - offset, 0)])
        if found < length:  # the image may have shrunk meanwhile: what it has not got any more is zeros
            room[found:] = bytes(length - found)
        return offset, room

    async with aclosing(in_order(reads(), WINDOW)) as pieces:
        async for offset, data in pieces:
            sink.hole(offset - at)
            _write_sparse(sink, data)
            at = offset + len(data)
            progress.update(offset, size)
    sink.hole(size - at)
    sink.finish()


def _write_sparse(sink: Sink, data: memoryview) -> None:
    at = 0
    for start, end in filled_runs(data, _BLOCK):
        sink.hole(start - at)
        sink.write(data[start:end])
        at = end
    sink.hole(len(data) - at)


async def export_with_snapshots(
    image: ImageContext, sink: Sink, *, include_parent: bool, progress: Progress
) -> None:
    """The image and the users' snapshots, up to what the handle is set to."""
    if image.stale:
        await image.fresh()
    taken = [
        snapshot
        for snapshot in reversed(image.header.snapshots)
        if snapshot.info.id <= image.read_snap and isinstance(snapshot.info.namespace, UserSnapshotNamespace)
    ]
    sink.write(encode_image_header(await _image_header(image), len(taken) + 1))
    total = sum(snapshot.info.image_size for snapshot in taken) + image.size
    before = 0
    since: Snapshot | None = None
    for snapshot in taken:
        there = await image.open_relative(image.io, image.id, snapshot.info.id, read_only=True)
        try:
            await _write_diff(there, sink, since, 2, False, include_parent, _Share(progress, before, total))
        finally:
            await there.close()
        since = snapshot
        before += snapshot.info.image_size
    await _write_last(image, sink, since, include_parent, _Share(progress, before, total))
    sink.finish()


async def _write_last(
    image: ImageContext, sink: Sink, since: Snapshot | None, include_parent: bool, share: _Share
) -> None:
    """What the image is itself; at a snapshot, which was written as that, nothing more."""
    if image.snap is None or since is None:
        await _write_diff(image, sink, since, 2, False, include_parent, share)
        return
    header = DiffHeader(from_snap=since.info.name, size=image.size)
    sink.write(encode_diff_header(header, 2) + encode_diff_end())


async def _image_header(image: ImageContext) -> ImageHeader:
    layout = image.layout
    pairs = await metadata.listing(image)
    encoded = {key.encode("utf-8", "surrogateescape"): value for key, value in pairs.items()}
    return ImageHeader(
        layout.order, image.header.features, layout.stripe_unit, layout.stripe_count, dict(sorted(encoded.items()))
    )
