"""Work that overlaps while its results come in order."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from rbd_native.engine import Task

T = TypeVar("T")


async def in_order(
    coroutines: Iterable[Coroutine[Any, Any, T]], limit: int, consume: Callable[[T], object]
) -> None:
    """Run them, `limit` (> 0) begun and not yet consumed at most, and give each result to `consume`, in order.

    `consume` is called where this coroutine runs, in the caller's own thread if :func:`~rbd_native.engine.run` drives
    it: there it may block. What it raises, or the first failure in order, ends everything, once those under way have
    ended. The coroutines are drawn only as places come free.
    """
    under_way: deque[Task[T]] = deque()
    try:
        for coroutine in coroutines:
            under_way.append(Task(coroutine).launch())
            if len(under_way) >= limit:
                consume(await under_way.popleft())
        while under_way:
            consume(await under_way.popleft())
    finally:
        for task in under_way:
            with contextlib.suppress(Exception):  # one failure has been told already
                await task
