"""Which objects of a range an image may have: what goes through all of them leaves out the others.

An object map that is believed tells it. Without one, each object has to be asked, unless the range is so long that listing
the pool is less work, which takes as long as the pool is full, however large the image says it is. Either shows what is
there now: what only snapshots still have does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from rbd_native.image.context import ImageContext
from rbd_native.object_map import BitVector, ObjectState
from rbd_native.rados.port import PoolStats

_LISTING_PAYS: Final = 16
"""Listing an object of the pool costs about this much less than asking for one of the image."""
_LONG: Final = 1 << 16
"""Of so few objects, each is asked."""


async def candidates(image: ImageContext, start: int, end: int) -> Iterator[int]:
    """The numbers of the objects in the range that may be there, ascending."""
    keeper = image.head_map
    if keeper is not None and keeper.trusted:
        return _by_map(keeper.bits, start, end)
    if end - start > _LONG and await listing_pays(image, end - start):
        return iter(await listed(image, start, end))
    return iter(range(start, end))


async def shared(image: ImageContext, end: int) -> Iterable[int]:
    """The numbers of a clone's first `end` objects of which the parent may have something, ascending."""
    parent = image.parent
    if parent is None or parent.layout != image.layout:
        return range(end)
    bits = await parent.snap_map.whole()
    return range(end) if bits is None else _by_map(bits, 0, end)


def _by_map(bits: BitVector, start: int, end: int) -> Iterator[int]:
    known = max(min(end, len(bits)), start)
    if start < known:
        for first, states in bits.chunks(start, known):
            yield from ((states != ObjectState.NONEXISTENT).nonzero()[0] + first).tolist()
    yield from range(known, end)


async def listing_pays(image: ImageContext, count: int) -> bool:
    """Whether the pool is sooner listed than so many objects are asked for."""
    stats: PoolStats = await image.io.cluster.pool_stats(image.data_io.pool_id)
    return stats.objects < count * _LISTING_PAYS


async def listed(image: ImageContext, start: int, end: int) -> list[int]:
    """The numbers of the objects of a range that the pool has, ascending."""
    prefix = image.fixed.prefix + "."
    found: list[int] = []
    async for name in image.data_io.list_objects():
        if name.startswith(prefix):
            try:
                objectno = int(name.removeprefix(prefix), 16)
            except ValueError:
                continue
            if start <= objectno < end and image.object_name(objectno) == name:
                found.append(objectno)
    return sorted(found)
