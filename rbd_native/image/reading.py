"""Reads of an open image: image extents become reads of its data objects, and of its parent's where it has none.

What lies in no object reads as what the parent has there, within the overlap; everything else as zeros. A request that
reaches beyond the end of the image is cut there; one that begins beyond it is EINVAL.

A request within one object, the common case, is one operation and nothing more.
"""

from __future__ import annotations

import errno

from rbd_native.engine import for_each
from rbd_native.image.context import ImageContext
from rbd_native.rados.port import RadosError, Read
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
    if image.stale:
        await image.fresh()
    length = clip(image, offset, length)
    image.timestamps.read()
    if image.ahead is not None and length:
        fetched = await image.ahead.read(offset, length)
        if fetched is not None:
            return fetched
    return await read_now(image, offset, length)


async def read_now(image: ImageContext, offset: int, length: int) -> bytes:
    """The same of a range that is known to lie within the image, by asking the cluster."""
    place = image.layout.place(offset, length)
    if place is None or image.cache is not None:
        return _padded(await _find(image, offset, length), length)
    data = await _stored(image, *place, length)
    return data if len(data) == length else data.ljust(length, b"\0")


def _padded(data: bytes, length: int) -> bytes:
    return data if len(data) == length else data.ljust(length, b"\0")


async def _find(image: ImageContext, offset: int, length: int) -> bytes:
    """What there is, without the zeros that may follow it: nothing, where nothing is stored."""
    extents = image.layout.extents(offset, length)
    if len(extents) == 1:
        extent = extents[0]
        return await find_object(image, extent.objectno, extent.offset, extent.length)
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
    cached = image.cache.pieces(objectno, offset, offset + length) if image.cache is not None and image.snap is None else ()
    if not cached:
        return await _stored(image, objectno, offset, length)
    if len(cached) == 1 and len(cached[0][1]) == length:
        return bytes(cached[0][1])
    shown = bytearray(_padded(await _stored(image, objectno, offset, length), length))
    for start, data in cached:
        shown[start - offset : start - offset + len(data)] = data
    return bytes(shown)


async def _stored(image: ImageContext, objectno: int, offset: int, length: int) -> bytes:
    """As the cluster has it, the parent's data included."""
    # Both as of now: a clone may be flattened in the meantime, but what was missing before it was, the parent has.
    overlap, parent = image.overlap, image.parent
    keeper = image.head_map if image.snap is None else None
    if keeper is None or keeper.may_exist(objectno):
        oid = image.object_name(objectno)
        reply = await image.data_io.read(oid, (Read(offset, length),), snap=image.read_snap).bare()
        if reply.rv >= 0:
            data: bytes = reply.outs[0]
            return data
        if reply.rv != -errno.ENOENT:
            raise RadosError(-reply.rv, oid, reply)
    if not overlap or parent is None:
        return b""
    return await find_in_parent(image, parent, objectno, offset, length, overlap)


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
    if image.stale:
        await image.fresh()
    length = clip(image, offset, length)
    image.timestamps.read()
    return await _find(image, offset, length)


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
