"""rbd_native and librbd take turns on one image, or several rbd_native do on an embedded cluster in a file: after every
operation its content is that of a bytearray.

Each client is a process of its own. Every write, discard or resize by another client than the last moves the exclusive
lock, the size and the object map from one to the other.
"""

import hashlib
import itertools
import time
from typing import Any

import pytest

from tests.sharing.conftest import Arena
from tests.sharing.maps import judge
from tests.sharing.model import MIB, Dice, Model
from tests.sharing.players import Player, players

FEATURES = 61  # layering, exclusive-lock, object-map, fast-diff, deep-flatten
LARGEST = 64 * MIB
ORDERS = [16, 17, 18, 22, 16]

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(("seed", "order"), list(enumerate(ORDERS)))
def test_one_operation_at_a_time(arena: Arena, seed: int, order: int, full: bool) -> None:
    dice = Dice(seed, LARGEST, order)
    with players(arena.kinds * 2, arena.where, arena.options) as clients:
        name, model = _new_image(clients, f"turns-{seed}", dice, order)
        for _ in range(2000 if full else 150):
            client = dice.random.choice(clients)
            operation = dice.operation(model.size)
            wanted = getattr(model, operation[0])(*operation[1:])
            found = client.call(*operation)
            if operation[0] in ("read", "write"):
                assert found == wanted, (client.client, operation[0], operation[-1])
            if operation[0] == "resize":
                _all_know_size(clients, model)
        _end_well(arena, clients, name, model)


@pytest.mark.parametrize(("seed", "order"), list(enumerate([16, 18, 22], 100)))
def test_all_at_once(arena: Arena, seed: int, order: int, full: bool) -> None:
    """Each client works on a range of its own, several operations under way; the lock goes round among them."""
    dice = Dice(seed, LARGEST, order)
    with players(arena.kinds * 2, arena.where, arena.options) as clients:
        name, model = _new_image(clients, f"crowd-{seed}", dice, order)
        for turn in range(120 if full else 6):
            quarter = model.size // len(clients)
            batches = [_batch(dice, place * quarter, (place + 1) * quarter) for place in range(len(clients))]
            began = time.monotonic()
            for client, batch in zip(clients, batches, strict=True):
                client.begin("batch", [_asynchronous(operation) for operation in batch])
            for client, batch in zip(clients, batches, strict=True):
                for operation, found in zip(batch, client.end(), strict=True):
                    wanted = getattr(model, operation[0])(*operation[1:])
                    assert found == (wanted if operation[0] == "read" else 0), (turn, client.client, operation[0])
            assert time.monotonic() - began < 9, "somebody was told that the lock would be given up, and it was not"
            if turn % 3 == 2:
                new = dice.operation(model.size)
                while new[0] != "resize":
                    new = dice.operation(model.size)
                model.resize(new[1])
                dice.random.choice(clients).call(*new)
                _all_know_size(clients, model)
        _end_well(arena, clients, name, model)


def _new_image(clients: list[Player], name: str, dice: Dice, order: int) -> tuple[str, Model]:
    model = Model(dice.random.randrange(LARGEST // 4, LARGEST), order)
    dice.random.choice(clients).call("create", name, model.size, order, FEATURES)
    for client in clients:
        client.call("open", name)
    return name, model


def _all_know_size(clients: list[Player], model: Model) -> None:
    # librbd cuts a request off at the size it knew before it hears of a new one: so it is made to hear of it here.
    assert [client.call("size") for client in clients] == [model.size] * len(clients)


def _batch(dice: Dice, start: int, end: int) -> list[tuple[Any, ...]]:
    """Operations that do not touch each other."""
    cuts = sorted(dice.random.sample(range(start, end), 9))
    found: list[tuple[Any, ...]] = []
    for low, high in itertools.pairwise([start, *cuts, end]):
        offset, length = dice.extent(low, high)
        kind = dice.random.choice(["write", "write", "discard", "write_zeroes", "read"])
        found.append((kind, dice.random.randbytes(length), offset) if kind == "write" else (kind, offset, length))
    return found


def _asynchronous(operation: tuple[Any, ...]) -> tuple[Any, ...]:
    return (f"aio_{operation[0]}", *operation[1:])


def _end_well(arena: Arena, clients: list[Player], name: str, model: Model) -> None:
    """All see the same, nothing is left behind, and the object map is exactly true."""
    wanted = hashlib.sha256(model.data).hexdigest()
    for client in clients:
        client.begin("digest")
    assert [client.end() for client in clients] == [wanted] * len(clients)
    for client in clients:
        client.call("close")
    assert judge(arena.onlooker, name, exact=True) == 0
    arena.check_map(name)
    assert judge(arena.onlooker, name, exact=True) == 0
    for client in clients:
        assert client.noted() == b"", client.client
