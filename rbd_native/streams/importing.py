"""Streams into images: read in order, written many pieces at a time.

The header of a stream is read, and everything it says is checked against the image, before the image is touched. What fails
later leaves an image that has some of the changes; the snapshot the stream ends at is taken only once all are there.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from rbd_native.image import io as writing
from rbd_native.image.context import ImageContext
from rbd_native.operations import create, metadata, resize, snapshots, unfinished
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.pipeline import in_order
from rbd_native.rados.port import Io, RadosError
from rbd_native.streams.codec import DiffHeader, DiffReader, Extent, StreamError, read_image_header
from rbd_native.streams.exporting import WINDOW
from rbd_native.streams.files import PIECE, Source
from rbd_native.zeros import filled_runs

SPARSE_SIZE: Final = 4096
"""Runs of zeros of so many bytes are not written."""


def runs(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it has data): the data cut where whole blocks of zeros begin and end."""
    at = 0
    for start, end in filled_runs(data, SPARSE_SIZE):
        if start > at:
            yield at, start, False
        yield start, end, True
        at = end
    if at < len(data):
        yield at, len(data), False


# --- differences -----------------------------------------------------------------------------------------------------


async def import_diff(image: ImageContext, source: Source, progress: Progress, version: int | None = None) -> None:
    """EINVAL where the image has not got the snapshot the difference starts from, EEXIST where it has the one it ends at;
    EROFS, StreamError."""
    reader = DiffReader(source.take, version)
    await _check(image, reader.header)
    header = reader.header
    if header.size is not None and header.size != image.size:
        await resize.resize(image, header.size)
        await image.fresh()
    await _apply(image, source, reader, progress)
    await writing.flush(image)
    if header.to_snap:
        await snapshots.create(image, header.to_snap)
        if header.protected:
            await snapshots.protect(image, header.to_snap)


async def _check(image: ImageContext, header: DiffHeader) -> None:
    if image.stale:
        await image.fresh()
    if image.frozen:
        raise RadosError(errno.EROFS, image.name)
    names = {snapshot.info.name for snapshot in image.header.snapshots if snapshot.info.namespace == snapshots.USER}
    if header.from_snap is not None and header.from_snap not in names:
        raise RadosError(errno.EINVAL, f"{image.name} has no snapshot {header.from_snap!r} to start from")
    if header.to_snap is not None and header.to_snap in names:
        raise RadosError(errno.EEXIST, f"{image.name} has a snapshot {header.to_snap!r} already")


async def _apply(image: ImageContext, source: Source, reader: DiffReader, progress: Progress) -> None:
    extents = _Ascending(iter(reader))
    while extents:
        work = (piece for extent in extents.run() for piece in _pieces(image, source, extent))
        async with aclosing(in_order(work, WINDOW)) as ends:
            async for end in ends:
                progress.update(end, image.size)


class _Ascending:
    """Extents in runs that ascend: a piece that begins before the end of another waits for it, since what comes later in
    the stream counts."""

    def __init__(self, extents: Iterator[Extent]) -> None:
        self._extents = extents
        self._next = next(extents, None)

    def __bool__(self) -> bool:
        return self._next is not None

    def run(self) -> Iterator[Extent]:
        end = 0
        while self._next is not None and self._next.offset >= end:
            extent = self._next
            end = extent.end
            yield extent  # its data are taken before the next one is read
            self._next = next(self._extents, None)


def _pieces(image: ImageContext, source: Source, extent: Extent) -> Iterator[Coroutine[Any, Any, int]]:
    if extent.end > image.size:
        raise StreamError(f"{extent.offset}~{extent.length} is beyond the end of the image")
    if not extent.data:
        yield _zero(image, extent.offset, extent.length)
        return
    at = extent.offset
    while at < extent.end:
        data = source.take(min(PIECE - at % PIECE, extent.end - at))
        yield write_piece(image, at, data, zero=True)
        at += len(data)


async def _zero(image: ImageContext, offset: int, length: int) -> int:
    await writing.write_zeroes(image, offset, length)
    return offset + length


async def write_piece(image: ImageContext, offset: int, data: bytes, *, zero: bool) -> int:
    """Write it without its runs of zeros: those are made holes (`zero`), or are so already."""
    view = memoryview(data)
    for start, end, has_data in runs(data):
        if has_data:
            if await writing.write(image, offset + start, view[start:end]) < end - start:
                raise RadosError(errno.EINVAL, f"{image.name} has shrunk")
        elif zero:
            await writing.write_zeroes(image, offset + start, end - start)
    return offset + len(data)


# --- images ----------------------------------------------------------------------------------------------------------


async def import_raw(io: Io, name: str, source: Source, wish: create.Wish, progress: Progress) -> None:
    """A new image of the bytes up to the end of the stream. What :func:`create.create` refuses."""
    size = source.left()
    async with _created(io, name, replace(wish, size=size or 0)) as image:
        end = await _copy(image, source, size, progress)
        if size is None and image.size != end:
            await resize.resize(image, end)
        await writing.flush(image)


async def _copy(image: ImageContext, source: Source, size: int | None, progress: Progress) -> int:
    """The end of what there was. Where the size is not known, the image grows as it comes: to the double, so seldom."""
    pieces = source.pieces()
    following = next(pieces, None)
    end = 0

    def fitting() -> Iterator[Coroutine[Any, Any, int]]:
        nonlocal following, end
        while following is not None and following[0] + len(following[1]) <= image.size:
            offset, data = following
            end = offset + len(data)
            yield write_piece(image, offset, data, zero=False)
            following = next(pieces, None)

    while following is not None:
        needed = following[0] + len(following[1])
        if needed > image.size:
            if size is not None:
                raise StreamError("the file has grown while it was read")
            await resize.resize(image, max(2 * image.size, needed))
            await image.fresh()
        async with aclosing(in_order(fitting(), WINDOW)) as ends:
            async for done in ends:
                progress.update(done, image.size)
    return end


async def import_with_snapshots(
    io: Io, name: str, source: Source, wish: create.Wish, progress: Progress
) -> None:
    """A new image with all its snapshots. What the wish leaves open is as the stream says."""
    header, diffs = read_image_header(source.take)
    said = {name: getattr(header, name) for name in ("order", "features", "stripe_unit", "stripe_count")}
    left_open = {name: value for name, value in said.items() if getattr(wish, name) is None}
    async with _created(io, name, replace(wish, size=0, **left_open)) as image:
        for key, value in header.metadata.items():
            await metadata.put(image, key.decode("utf-8", "surrogateescape"), value)
        for number in range(diffs):
            await import_diff(image, source, Progress(), 2)
            progress.update(number + 1, diffs)


@contextlib.asynccontextmanager
async def _created(io: Io, name: str, wish: create.Wish) -> AsyncIterator[ImageContext]:
    """A new image, open while it is filled. Half an image is of no use: what fails leaves nothing."""
    identifier = await create.create(io, name, wish)
    async with unfinished.whole_or_nothing(io, name, identifier):
        image = await open_image(io, name=name, identifier=identifier)
        try:
            yield image
        finally:
            await image.close()
