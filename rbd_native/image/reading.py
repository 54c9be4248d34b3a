"""Reads of an open image: image extents become reads of its data objects, and of its parent's where it has none.

What lies in no object reads as what the parent has there, within the overlap; everything else as zeros. A request that
reaches beyond the end of the image is cut there; one that begins beyond it is EINVAL.

A request within one object, the common case, is one operation and nothing more.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Generator, Iterator, Sequence
from types import coroutine
from typing import Any

from rbd_native.engine import for_each
from rbd_native.image.context import ImageContext
from rbd_native.rados.port import Buffer, RadosError, Read, ReadInto, Reply
from rbd_native.striping import ObjectExtent

FANOUT = 32
"""How many objects of one request are under way at once."""


def clip(image: ImageContext, offset: int, length: int) -> int:
    """The length that lies within the image. EINVAL where a request that is not empty begins beyond its end, ENOENT where
    the snapshot that the handle is set to is gone."""
    if image.snap_gone:
        raise RadosError(errno.ENOENT, f"{image.name}: the snapshot was removed")
    size = image.size
    if length and offset >= size:
        raise RadosError(errno.EINVAL, f"offset {offset} of {size}")
    return min(length, max(size - offset, 0))


async def read(image: ImageContext, offset: int, length: int) -> bytes:
    """The bytes of `offset`, `length`; fewer at the end of the image."""
    epoch = image.reading.count()
    try:
        if image.stale:
            await image.fresh()
        if image.snap_gone or offset + length > image.size:
            length = clip(image, offset, length)
        image.timestamps.read()
        if image.ahead is not None and length:
            fetched = await image.ahead.read(offset, length)
            if fetched is not None:
                return fetched
        return await read_now(image, offset, length)
    finally:
        image.reading.leave(epoch)


def read_now(image: ImageContext, offset: int, length: int) -> Awaitable[bytes]:
    """The same of a range that is known to lie within the image, by asking the cluster."""
    place = image.layout.place(offset, length)
    if place is None:
        return _assembled(image, offset, length)
    objectno, start = place
    if image.cache is not None and image.cache.has(objectno):
        return read_object(image, objectno, start, length)
    return _stored(image, objectno, Read(start, length), length)


async def _assembled(image: ImageContext, offset: int, length: int) -> bytes:
    """From several objects."""
    out = bytearray(length)
    await _fill(image, offset, memoryview(out))
    return bytes(out)


async def read_into(image: ImageContext, offset: int, room: memoryview) -> int:
    """As :func:`read`, into bytes of the caller's; how many. What lies behind them stays as it was. Releases the view."""
    epoch = image.reading.count()
    try:
        with _lent(room):
            if image.stale:
                await image.fresh()
            length = clip(image, offset, len(room))
            image.timestamps.read()
            fetched = await image.ahead.read(offset, length) if image.ahead is not None and length else None
            if fetched is not None:
                room[:length] = fetched
            elif length:
                with _lent(room[:length]) as part:
                    await _fill(image, offset, part)
            return length
    finally:
        image.reading.leave(epoch)


@contextlib.contextmanager
def _lent(view: memoryview) -> Iterator[memoryview]:
    """Whose buffer it is may do with it what they like as soon as they hear that it was read into: also before the last who
    refers to the view, maybe in another thread, has forgotten it."""
    try:
        yield view
    finally:
        with contextlib.suppress(BufferError):
            view.release()


async def _fill(image: ImageContext, offset: int, room: memoryview) -> None:
    place = image.layout.place(offset, len(room))
    if place is not None:
        await _fill_from(image, *place, room)
        return

    async def fetch(extent: ObjectExtent) -> None:
        if len(extent.buffer_extents) == 1:
            ((position, size),) = extent.buffer_extents
            with _lent(room[position : position + size]) as part:
                await _fill_from(image, extent.objectno, extent.offset, part)
            return
        data = memoryview(await read_object(image, extent.objectno, extent.offset, extent.length))
        for position, size in extent.buffer_extents:
            room[position : position + size] = data[:size]
            data = data[size:]

    await for_each(map(fetch, image.layout.extents(offset, len(room))), FANOUT)


async def _fill_from(image: ImageContext, objectno: int, start: int, room: memoryview) -> None:
    """A part of one object, as the image shows it."""
    cached = _cached(image, objectno, start, len(room))
    if len(cached) == 1 and len(cached[0][1]) == len(room):
        room[:] = cached[0][1]
        return
    found: int = await _stored(image, objectno, ReadInto(start, room))
    if found < len(room):
        room[found:] = bytes(len(room) - found)
    for at, data in cached:
        room[at - start : at - start + len(data)] = data


def _padded(data: bytes, length: int) -> bytes:
    return data if len(data) == length else data.ljust(length, b"\0")


async def _find(image: ImageContext, offset: int, length: int) -> bytes:
    """What there is, without the zeros that may follow it: nothing, where nothing is stored."""
    place = image.layout.place(offset, length)
    if place is not None:
        return await find_object(image, *place, length)
    extents = image.layout.extents(offset, length)
    out = bytearray(length)
    view = memoryview(out)
    end = 0

    async def fetch(extent: ObjectExtent) -> None:
        nonlocal end
        data = memoryview(await find_object(image, extent.objectno, extent.offset, extent.length))
        taken = 0
        for position, size in extent.buffer_extents:
            piece = data[taken : taken + size]
            if not piece:
                return
            view[position : position + len(piece)] = piece
            end = max(end, position + len(piece))
            taken += size

    await for_each(map(fetch, extents), FANOUT)
    return bytes(view[:end])


async def read_object(image: ImageContext, objectno: int, offset: int, length: int) -> bytes:
    """A part of one object, as the image shows it."""
    return _padded(await find_object(image, objectno, offset, length), length)


async def find_object(image: ImageContext, objectno: int, offset: int, length: int) -> bytes:
    """The same without the zeros that may follow it: nothing, where nothing is stored."""
    cached = _cached(image, objectno, offset, length)
    if len(cached) == 1 and len(cached[0][1]) == length:
        return bytes(cached[0][1])
    stored: bytes = await _stored(image, objectno, Read(offset, length))
    if not cached:
        return stored
    shown = bytearray(_padded(stored, length))
    for start, data in cached:
        shown[start - offset : start - offset + len(data)] = data
    return bytes(shown)


def _cached(image: ImageContext, objectno: int, offset: int, length: int) -> Sequence[tuple[int, Buffer]]:
    """What the cache has of it."""
    if image.cache is None or image.snap is not None:
        return ()
    return image.cache.pieces(objectno, offset, offset + length)


@coroutine
def _stored(
    image: ImageContext, objectno: int, step: Read | ReadInto, whole: int = 0
) -> Generator[Any, Any, Any]:
    """The step's output, from a data object as the cluster has it, the parent's data included; with the zeros that follow
    it, up to the length `whole`. A generator, and so nearer to whoever drives it: nearly every read comes by here."""
    # Both as of now: a clone may be flattened in the meantime, but what was missing before it was, the parent has.
    state = image.state
    overlap, parent = state.overlap, state.parent
    keeper = image.head_map if state.snapshot is None else image.snap_map
    if keeper is None or keeper.may_exist(objectno):
        oid = image.object_name(objectno)
        reply: Reply = yield image.data_io.read(oid, (step,), snap=state.read_snap)
        if reply.rv >= 0:
            return reply.outs[0].ljust(whole, b"\0") if whole else reply.outs[0]
        if reply.rv != -errno.ENOENT:
            raise RadosError(-reply.rv, oid, reply)
        if state.snapshot is not None:
            image.snap_map.missed()
    data = b""
    if overlap and parent is not None:
        length = step.length if isinstance(step, Read) else len(step.room)
        data = yield from find_in_parent(image, parent, objectno, step.offset, length, overlap).__await__()
    if isinstance(step, Read):
        return data.ljust(whole, b"\0")
    step.room[: len(data)] = data
    return len(data)


async def find_in_parent(
    image: ImageContext, parent: ImageContext, objectno: int, offset: int, length: int, overlap: int
) -> bytes:
    """What the parent has where a part of an object of the image lies, without the zeros that may follow it."""
    pieces = covered(image, objectno, offset, length, overlap)
    if len(pieces) == 1 and not pieces[0][1]:
        start, _, size = pieces[0]
        return await find(parent, start, size)
    found: list[tuple[int, bytes]] = []

    async def fetch(start: int, position: int, size: int) -> None:
        found.append((position, await find(parent, start, size)))

    await for_each((fetch(*piece) for piece in pieces), FANOUT)
    out = bytearray()
    for position, data in sorted(found):
        if data:
            out += bytes(position - len(out))
            out += data
    return bytes(out)


async def find(image: ImageContext, offset: int, length: int) -> bytes:
    """As :func:`read`, without the zeros at the end: nothing, where nothing is stored."""
    epoch = image.reading.count()
    try:
        if image.stale:
            await image.fresh()
        length = clip(image, offset, length)
        image.timestamps.read()
        return await _find(image, offset, length)
    finally:
        image.reading.leave(epoch)


def covered(
    image: ImageContext, objectno: int, offset: int, length: int, overlap: int
) -> list[tuple[int, int, int]]:
    """The parts of an object's range that the parent has: (image offset, offset from the range's start, length)."""
    pieces: list[tuple[int, int, int]] = []
    position = 0
    shared = max(image.layout.object_extent_in(overlap, objectno) - offset, 0)
    for start, size in image.layout.image_extents(objectno, offset, min(length, shared)):
        pieces.append((start, position, size))
        position += size
    return pieces
