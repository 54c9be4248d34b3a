"""Work that overlaps while its results come in order.

Unlike :func:`rbd_native.engine.for_each`, which goes on in whichever thread a completion comes, everything here is drawn
and yielded where the caller runs: in his own thread, if :func:`rbd_native.engine.run` drives him. There, between two
results, he may block: read a file, or call back a user.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, TypeVar

from rbd_native.engine import Task

T = TypeVar("T")


async def in_order(
    coroutines: Iterable[Coroutine[Any, Any, T]] | AsyncGenerator[Coroutine[Any, Any, T], None], limit: int
) -> AsyncGenerator[T, None]:
    """Yield the results in the order of the coroutines, `limit` (> 0) of which are begun and not yet yielded at most.

    They are drawn only as places come free. After the first failure in order no more are; it is raised, and whoever stops
    in the middle closes the generator (``contextlib.aclosing``), once those under way have ended.
    """
    under_way: deque[Task[T]] = deque()
    try:
        async with contextlib.aclosing(_drawn(coroutines)) as source:
            async for coroutine in source:
                under_way.append(Task(coroutine).launch())
                if len(under_way) >= limit:
                    yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            with contextlib.suppress(Exception):  # one failure has been told already
                await task


async def _drawn(items: Iterable[T] | AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    if isinstance(items, AsyncGenerator):
        async with contextlib.aclosing(items):
            async for item in items:
                yield item
    else:
        for item in items:
            yield item
