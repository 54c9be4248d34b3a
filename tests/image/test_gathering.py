"""Writes that wait for the one before them go out together, and fail together; others wait for nobody."""

import random
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.engine import Signal, Task, run
from rbd_native.image import io as writing
from rbd_native.image.reading import read
from rbd_native.operations import create
from rbd_native.operations.open import open_image
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import Operation, RadosError, Write, WriteFull
from rbd_native.rados.wrapper import Interceptor, Request, wrap
from tests.image.room import Room

PIECE = 4096
UNCACHED = {"rbd_cache": "false"}


class Noting(Interceptor):
    """Notes the pieces of each write of data, and refuses the one it is told to."""

    def __init__(self) -> None:
        self.writes: list[list[tuple[int, int]]] = []
        self.refuse = -1

    def operation(self, request: Request, inner: Operation) -> Operation:
        pieces = [step for step in request.steps if type(step) in (Write, WriteFull)]
        if pieces and request.oid.startswith("rbd_data"):
            self.writes.append([(getattr(step, "offset", 0), len(step.data)) for step in pieces])
            if len(self.writes) - 1 == self.refuse:
                raise RadosError(28, request.oid)
        return inner


async def _open(port: Any, features: int = 1) -> Any:
    await create.create(port, "image", create.Wish(1 << 20, order=18, features=features))
    return await open_image(port, name="image")


def _first_waits(image: Any, offsets: list[int]) -> list[Task[int]]:
    """Writes begun while the first one is on its way: its completion comes only once all have begun."""
    going = Signal()
    store = image.gathering._store
    first = True

    async def held(image: Any, objectno: int, steps: Any) -> None:
        nonlocal first
        if first:
            first = False
            await going.wait()
        await store(image, objectno, steps)

    image.gathering._store = held
    tasks = [Task(writing.write(image, offset, b"%c" % (65 + n) * PIECE)).launch() for n, offset in enumerate(offsets)]
    going.set()
    return tasks


@pytest.mark.parametrize(
    ("offsets", "groups"),
    [
        ([0, 1, 2, 3], [[(0, 1)], [(1, 3)]]),
        ([0, 2, 3, 4], [[(2, 1)], [(0, 1)], [(3, 2)]]),
        ([5, 4, 3], [[(4, 1)], [(3, 1)], [(5, 1)]]),
        ([0, 1, 9, 2], [[(9, 1)], [(2, 1)], [(0, 1)], [(1, 1)]]),
    ],
)
def test_what_goes_together(room: Room, offsets: list[int], groups: list[list[tuple[int, int]]]) -> None:
    noting = Noting()
    image = run(_open(wrap(port_for(room.ioctx(cluster=room.connect(**UNCACHED))), noting)))
    tasks = _first_waits(image, [offset * PIECE for offset in offsets])

    async def ends() -> None:
        for task in tasks:
            assert await task == PIECE
        for place, offset in enumerate(offsets):
            assert await read(image, offset * PIECE, PIECE) == b"%c" % (65 + place) * PIECE
        await image.close()

    run(ends())
    together = sorted([(start // PIECE, length // PIECE) for start, length in pieces] for pieces in noting.writes)
    assert together == sorted(groups)


def test_all_hear_of_the_error(room: Room) -> None:
    noting = Noting()
    noting.refuse = 1
    image = run(_open(wrap(port_for(room.ioctx(cluster=room.connect(**UNCACHED))), noting)))
    first, *others = _first_waits(image, [0, PIECE, 2 * PIECE])

    async def ends() -> None:
        assert await first == PIECE
        for task in others:
            with pytest.raises(RadosError) as caught:
                await task
            assert caught.value.errno == 28
        assert await writing.write(image, PIECE, b"x" * PIECE) == PIECE
        await image.close()

    run(ends())


@pytest.mark.parametrize("scheduler", ["simple", "none"])
@pytest.mark.parametrize("layout", [{"features": 1, "order": 16}, {"features": 61, "order": 14}], ids=["plain", "map"])
def test_runs_of_writes(room: Room, scheduler: str, layout: dict[str, Any]) -> None:
    """Several runs side by side, in pieces of any size."""
    dice = random.Random(1)
    size = 1 << 20
    content = dice.randbytes(size)
    ioctx = room.ioctx(cluster=room.connect(rbd_io_scheduler=scheduler, **UNCACHED))
    rbd.RBD().create(ioctx, "image", size, **layout)
    with rbd.Image(ioctx, "image") as image:
        ends = [(start, start + size // 4) for start in range(0, size, size // 4)]
        waiting = []
        while ends:
            start, end = ends.pop(dice.randrange(len(ends)))
            length = min(dice.choice((512, 1000, PIECE, PIECE, 20_000)), end - start)
            waiting.append(image.aio_write(content[start : start + length], start, lambda completion: None))
            if start + length < end:
                ends.append((start + length, end))
        for completion in waiting:
            completion.wait_for_complete_and_cb()
            assert completion.get_return_value() == 0
        assert image.read(0, size) == content
    with rbd.Image(room.ioctx(), "image", read_only=True) as image:
        assert image.read(0, size) == content
