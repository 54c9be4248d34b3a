"""A request of the lock's owner whose result goes astray: the one who asked neither waits for ever nor has it done twice.

The owner is played by the test, message by message, as librbd was seen to behave: what it has done already, it does not do
again for the same request, and of what has gone well it does not tell the result again either.
"""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import cls_lock, names
from rbd_native.cls_client import mutate
from rbd_native.engine import run, spawn
from rbd_native.rados.connect import port_for
from rbd_native.types import LockType
from rbd_native.watch_notify import (
    AcquiredLock,
    AsyncComplete,
    AsyncRequestId,
    ClientId,
    Message,
    MetadataUpdate,
    decode_message,
    encode_message,
    response,
)
from tests.backend import Backend

PATIENCE = 1


class Owner:
    """Holds the lock of an image, answers every request with 0, and tells what `results` says, one entry for each time it
    is asked."""

    def __init__(self, ioctx: Any, identifier: str, results: list[list[Message | int]]) -> None:
        self.io = port_for(ioctx)
        self.header = names.header(identifier)
        self.results = iter(results)
        self.asked: list[AsyncRequestId] = []
        self.watch = run(self._take())

    async def _take(self) -> Any:
        watch = await self.io.watch(self.header, self._hear, lambda code: None)
        self.me = ClientId(self.io.cluster.instance_id(), watch.cookie)
        lock = cls_lock.lock(names.LOCK_NAME, LockType.EXCLUSIVE, f"auto {watch.cookie}", "internal")
        await mutate(self.io, self.header, lock)
        return watch

    def _hear(self, client: int, notify_id: int, payload: bytes) -> bytes:
        message = decode_message(payload)
        if not isinstance(message, MetadataUpdate):
            return b""
        self.asked.append(message.request)
        spawn(self._tell(message.request, next(self.results)), "what the owner tells")
        return response(0)

    async def _tell(self, request: AsyncRequestId, results: list[Message | int]) -> None:
        for said in results:
            message = AsyncComplete(request, said) if isinstance(said, int) else said
            await self.io.notify(self.header, encode_message(message), 5000)

    def close(self) -> None:
        async def close() -> None:
            await self.watch.close()

        run(close())


@pytest.fixture
def image(backend: Backend) -> Iterator[rbd.Image]:
    ioctx = backend.ioctx(cluster=backend.connect(rbd_request_timed_out_seconds=str(PATIENCE)))
    rbd.RBD().create(ioctx, "image", 1 << 20, features=61)
    with rbd.Image(ioctx, "image") as image:
        yield image


def ask(backend: Backend, image: rbd.Image, results: list[list[Message | int]]) -> tuple[Owner, BaseException | None]:
    """Have metadata set by an owner that tells these results; what came of it, within reasonable time."""
    owner = Owner(backend.ioctx(cluster=backend.connect()), image.id(), results)
    outcome: list[BaseException | None] = []

    def attempt() -> None:
        try:
            image.metadata_set("key", "value")
        except rbd.Error as error:
            outcome.append(error)
        else:
            outcome.append(None)

    asking = threading.Thread(target=attempt, daemon=True)
    asking.start()
    asking.join(30)
    owner.close()
    assert outcome, "still waiting"
    return owner, outcome[0]


SOMEBODY = AcquiredLock(ClientId(1, 1))
"""To who hears this, whoever worked on his request may be gone."""


@pytest.mark.parametrize("result", [0, -5])
def test_result_behind_a_change_of_owner(backend: Backend, image: rbd.Image, result: int) -> None:
    owner, error = ask(backend, image, [[SOMEBODY, result], [], []])
    assert len(set(owner.asked)) == 1
    assert (error is None) == (result == 0)


def test_result_lost(backend: Backend, image: rbd.Image) -> None:
    """Twice under the same name, so that an owner who is merely slow does it once; then anew."""
    owner, error = ask(backend, image, [[], [], [0]])
    assert error is None
    first, second, third = owner.asked
    assert first == second != third


def test_result_of_the_last_time_of_asking(backend: Backend, image: rbd.Image) -> None:
    owner, error = ask(backend, image, [[], [0]])
    assert error is None
    assert len(owner.asked) == 2
