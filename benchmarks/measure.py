"""How it is measured: a number of operations always under way, for a given time, and their rate.

Blocking calls get one thread for each operation under way; completions are counted down in whichever thread they
come. The time ends when the last operation, and a flush, have ended: nobody gains by deferring work.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks.subjects import DEPTH, ORDER, Disk, Subject

SMALL, LARGE = 4096, 1 << ORDER


class Failed(Exception):
    """An operation gave an error; measuring on would be meaningless."""


def prepare(subject: Subject, name: str, size: int) -> Disk:
    """An image full of data that do not compress, flushed once (librbd writes through until the first flush)."""
    if subject.has_images:
        subject.create(name, size)
    disk = subject.disk(name)
    data = random.Random(0).randbytes(LARGE)
    keep_under_way(disk, sequential(disk, size, data), count=size // LARGE)
    disk.flush()
    return disk


# A plan gives, for each operation, what starts it: (submit with completion, blocking call).
Operation = tuple[Callable[[Callable[[int], None]], None], Callable[[], None]]


def _reading(disk: Disk, offset: int, length: int) -> Operation:
    return lambda done: disk.submit_read(offset, length, done), lambda: disk.read(offset, length)


def _writing(disk: Disk, offset: int, data: bytes) -> Operation:
    return lambda done: disk.submit_write(data, offset, done), lambda: disk.write(data, offset)


def at_random(disk: Disk, size: int, data: bytes | None = None, seed: int = 0) -> Iterator[Operation]:
    """Aligned operations of 4 KiB: writes of `data`, or reads without it."""
    offsets = random.Random(seed)
    while True:
        offset = offsets.randrange(size // SMALL) * SMALL
        yield _reading(disk, offset, SMALL) if data is None else _writing(disk, offset, data)


def sequential(disk: Disk, size: int, data: bytes | None = None) -> Iterator[Operation]:
    """Operations of 4 MiB, one after the other, from the beginning again at the end."""
    for offset in itertools.cycle(range(0, size, LARGE)):
        yield _reading(disk, offset, LARGE) if data is None else _writing(disk, offset, data)


def keep_under_way(
    disk: Disk, plan: Iterator[Operation], *, seconds: float = float("inf"), count: int | None = None
) -> float:
    """Operations per second, DEPTH of them under way, for a time or a number of them."""
    operations = plan if count is None else itertools.islice(plan, count)
    began = time.perf_counter()
    run = _run_blocking if disk.blocking else _run_completions
    ended = run(operations, began + seconds)
    disk.flush()
    return ended / (time.perf_counter() - began)


def _run_completions(operations: Iterator[Operation], until: float) -> int:
    places = threading.Semaphore(DEPTH)
    errors: list[int] = []

    def done(result: int) -> None:
        if result < 0:
            errors.append(result)
        places.release()

    number = 0
    for submit, _ in operations:
        places.acquire()
        submit(done)
        number += 1
        if errors or time.perf_counter() >= until:
            break
    for _ in range(DEPTH):
        places.acquire()
    if errors:
        raise Failed(f"errno {-errors[0]}")
    return number


def _run_blocking(operations: Iterator[Operation], until: float) -> int:
    guard = threading.Lock()
    errors: list[Exception] = []
    numbers = [0] * DEPTH

    def work(index: int) -> None:
        try:
            while not errors and time.perf_counter() < until:
                with guard:
                    operation = next(operations, None)
                if operation is None:
                    return
                operation[1]()
                numbers[index] += 1
        except Exception as error:  # whatever it is, it ends the measurement in the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(DEPTH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise Failed("an operation failed") from errors[0]
    return sum(numbers)
