"""Writes of an open image: image extents become operations on its data objects.

A request that reaches beyond the end of the image is cut there; one that begins beyond it is EINVAL. Each write carries
the snapshot context of the moment it is submitted, and passes the gate with the lock held, where the image has one.

A request within one object, the common case, is one operation and nothing more.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from threading import get_ident
from types import coroutine
from typing import Any

from rbd_native.engine import for_each
from rbd_native.image import copyup
from rbd_native.image.context import ImageContext
from rbd_native.image.pieces import write_steps
from rbd_native.image.reading import FANOUT, clip
from rbd_native.image.write_cache import WriteCache
from rbd_native.object_map import ObjectState
from rbd_native.rados.port import (
    Buffer,
    Create,
    RadosError,
    Remove,
    Reply,
    Truncate,
    WriteSame,
    WriteStep,
    Zero,
)
from rbd_native.striping import ObjectExtent

_DISCARD_LIMIT = 2**31 - 1
_ZEROES = bytes(64 << 10)


# --- write -----------------------------------------------------------------------------------------------------------


async def write(image: ImageContext, offset: int, data: Buffer) -> int:
    """Write; the number of bytes that lay within the image."""
    writer = get_ident()
    epoch = _enter_at_once(image)
    if epoch is None:
        epoch = await enter(image)
    ahead = image.ahead
    try:
        if ahead is not None:
            ahead.changed()
        length = _clip_writable(image, offset, len(data))
        if length != len(data):
            data = memoryview(data)[:length]
        place = image.layout.place(offset, length)
        cache = image.cache
        if cache is not None and not cache.trusting:
            cache = None
        if place is None:
            await _write_all(image, offset, data, cache, epoch, writer)
        elif cache is not None:
            cache.put(*place, data, epoch, writer)
            if cache.full:
                await cache.room()
        else:
            await _write_object(image, *place, data)
        return length
    finally:
        if ahead is not None:
            ahead.changed()
        image.gate.leave(epoch)


async def _write_all(
    image: ImageContext, offset: int, data: Buffer, cache: WriteCache | None, epoch: int, writer: int
) -> None:
    """`cache`: what keeps the bytes, if anything does. `epoch`: that in which the gate was passed. `writer`: the thread."""
    extents = image.layout.extents(offset, len(data))
    view = memoryview(data)
    if cache is not None:
        for extent in extents:
            cache.put(extent.objectno, extent.offset, _piece(view, extent), epoch, writer)
        await cache.room()
    else:
        writes = (_write_object(image, e.objectno, e.offset, _piece(view, e)) for e in extents)
        await for_each(writes, FANOUT)


def _enter_at_once(image: ImageContext) -> int | None:
    """What :func:`enter` comes to, nearly always: to take nothing and to wait for nobody."""
    epoch = image.gate.try_enter()
    if epoch is None or image.may_write:
        return epoch
    image.gate.leave(epoch)
    return None


async def enter(image: ImageContext) -> int:
    """Pass the gate with a current state and the lock. The order matters: who takes either away closes the gate first."""
    waiting = image.entering.count()  # until it is counted inside: a flush waits for both
    try:
        while True:
            epoch = await image.gate.enter()
            if image.may_write or (image.frozen and not image.stale):
                return epoch
            image.gate.leave(epoch)
            if image.stale:
                await image.fresh()
            elif image.lock is not None:
                await image.lock.acquire_automatically()
    finally:
        image.entering.leave(waiting)


def _clip_writable(image: ImageContext, offset: int, length: int) -> int:
    if offset + length > image.size:
        length = clip(image, offset, length)
    if image.frozen:
        raise RadosError(errno.EROFS, image.name)
    image.timestamps.written()
    return length


async def flush_of_user(image: ImageContext) -> None:
    """Wait for the writes that have begun, also for those that still wait for the lock; once acknowledged they are on
    stable storage. Takes the lock, as a write does: EROFS where it cannot be had. ESHUTDOWN where this client is known to
    be fenced; the error of any write that was lost since its acknowledgement, if the calling thread has not heard of it.

    Who flushes shows that writes may be cached from here on."""
    if image.cache is not None:
        image.cache.trusting = True
    me = get_ident()
    epoch = await enter(image)
    image.gate.leave(epoch)
    await image.settle(me)


async def flush(image: ImageContext) -> None:
    """Wait for the writes that have begun, before something else is done to the image. The error of a write that was lost
    meanwhile; its writer is told all the same."""
    await image.entering.flush()
    await (image.gate.flush() if image.cache is None else image.cache.flush())
    if image.watch.lost:
        await image.fresh()


def _piece(view: memoryview, extent: ObjectExtent) -> Buffer:
    """The bytes of one object: a window on the caller's buffer where they are contiguous in it."""
    if len(extent.buffer_extents) == 1:
        ((position, size),) = extent.buffer_extents
        return view[position : position + size]
    return b"".join(view[position : position + size] for position, size in extent.buffer_extents)


def _write_object(image: ImageContext, objectno: int, start: int, data: Buffer) -> Coroutine[Any, Any, None]:
    if image.gathering is not None:
        return image.gathering.write(objectno, start, data)
    return apply(image, objectno, write_steps(image, objectno, [(start, data)]))


@coroutine
def apply(image: ImageContext, objectno: int, steps: tuple[WriteStep, ...]) -> Generator[Any, Any, None]:
    """One operation on a data object. What the object map says is true before and after it. A generator, and so nearer to
    whoever drives it: nearly every write comes by here."""
    if image.parent is not None and copyup.has_parent_at(image, objectno):
        yield from copyup.apply(image, objectno, steps).__await__()
        return
    keeper = image.head_map
    if keeper is not None and keeper.unaware(objectno):
        yield from keeper.will_write(objectno).__await__()
    if image.lock is None and image.stale:  # another client may have taken a snapshot, which a long write must not go into
        yield from image.fresh().__await__()
    oid = image.object_name(objectno)
    reply: Reply = yield image.data_io.write(oid, steps, snapc=image.snapc)
    if reply.rv < 0:
        raise RadosError(-reply.rv, oid, reply)
    if keeper is not None and keeper.unaware(objectno):  # a removal may have begun since, and overtaken this write
        yield from keeper.will_write(objectno).__await__()


async def _clear_object(image: ImageContext, objectno: int, start: int, end: int) -> None:
    """Zeros over a part of an object, by the cheapest means. One that does not exist is zeros already."""
    keeper = image.head_map
    size = image.layout.object_size
    if image.parent is not None and copyup.has_parent_at(image, objectno):
        await _hide(image, objectno, start, end)
    elif keeper is not None and not keeper.may_exist(objectno):
        return
    elif end < size:
        await apply(image, objectno, (Zero(start, end - start),))
    elif start:
        await apply(image, objectno, (Truncate(start),))
    else:
        await remove_object(image, objectno)


async def _hide(image: ImageContext, objectno: int, start: int, end: int) -> None:
    """Zeros over a part of an object under which the parent has data: the object must exist to hide it."""
    if end < image.layout.object_size:
        await copyup.apply(image, objectno, (Zero(start, end - start),))
    elif start or image.snapc.ids:
        await copyup.apply(image, objectno, (Truncate(start),))
    else:
        if image.head_map is not None:
            await image.head_map.will_write(objectno)
        oid = image.object_name(objectno)
        await image.data_io.write(oid, (Create(exclusive=False), Truncate(0)), snapc=image.snapc)


async def remove_object(image: ImageContext, objectno: int) -> None:
    """Remove a data object. That there is none is as good as having removed it."""
    keeper = image.head_map
    if keeper is not None:
        await keeper.update(objectno, ObjectState.PENDING)
    oid = image.object_name(objectno)
    reply = await image.data_io.write(oid, (Remove(),), snapc=image.snapc).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, oid, reply)
    if keeper is not None:
        await keeper.update(objectno, ObjectState.NONEXISTENT, ObjectState.PENDING)


# --- discard and zeroes ----------------------------------------------------------------------------------------------


async def refuse(code: int) -> None:
    """What is refused for its arguments, where the refusal is to come like any other outcome."""
    raise RadosError(code)


async def discard(image: ImageContext, offset: int, length: int, *, limited: bool = True) -> None:
    """Give up the bytes: what was discarded reads as zeros, but for the edges.

    Within each object the extent is rounded inward to `rbd_discard_granularity_bytes`; what is left of it, if anything,
    is removed, cut off or zeroed, so that no space is spent on freeing less than a useful piece. A call that must tell
    the length in a C int is limited to 2 GiB: EINVAL.
    """
    if limited and length > _DISCARD_LIMIT:
        raise RadosError(errno.EINVAL, f"discard of {length} bytes")
    size = image.layout.object_size

    async def clear(extent: ObjectExtent) -> None:
        rounds = image.settings.flag("rbd_skip_partial_discard")
        granularity = image.settings.integer("rbd_discard_granularity_bytes") if rounds else 1
        start, end = _round_inward(extent, min(granularity, size), size)
        if start < end:
            await _clear_object(image, extent.objectno, start, end)

    await _each_object(image, offset, length, clear)


async def write_zeroes(image: ImageContext, offset: int, length: int, *, thick: bool = False) -> None:
    """Zeros, without rounding. `thick` writes them out, so that the space is taken."""

    async def clear(extent: ObjectExtent) -> None:
        if thick:
            await apply(image, extent.objectno, _provision(image, extent))
        else:
            await _clear_object(image, extent.objectno, extent.offset, extent.offset + extent.length)

    await _each_object(image, offset, length, clear)


async def _each_object(
    image: ImageContext, offset: int, length: int, work: Callable[[ObjectExtent], Coroutine[Any, Any, None]]
) -> None:
    epoch = await enter(image)
    ahead = image.ahead
    try:
        if ahead is not None:
            ahead.changed()
        length = _clip_writable(image, offset, length)
        after = work if image.cache is None else partial(_after_cached, image.cache, work)
        await for_each(map(after, image.layout.iter_extents(offset, length, buffers=False)), FANOUT)
    finally:
        if ahead is not None:
            ahead.changed()
        image.gate.leave(epoch)


async def _after_cached(
    cache: WriteCache, work: Callable[[ObjectExtent], Coroutine[Any, Any, None]], extent: ObjectExtent
) -> None:
    await cache.drain(extent.objectno)
    await work(extent)


def _round_inward(extent: ObjectExtent, granularity: int, object_size: int) -> tuple[int, int]:
    """Start and end of the whole pieces. A granularity of the object's size spares tails: cutting the end
    off an object frees space whatever its length."""
    start, end = extent.offset, extent.offset + extent.length
    if granularity < object_size or end < object_size:
        start = -(-start // granularity) * granularity
        end -= end % granularity
    return start, end


def _provision(image: ImageContext, extent: ObjectExtent) -> tuple[WriteStep, ...]:
    pattern = _ZEROES[: math.gcd(extent.length, len(_ZEROES))]
    return (*image.hints, WriteSame(extent.offset, extent.length, pattern))
