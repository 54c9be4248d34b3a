"""The pieces of an object that a write cache keeps: beside a plain array of bytes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rbd_native.engine import Task, awaited, run
from rbd_native.image.gate import WriteGate
from rbd_native.image.pieces import Pieces

SIZE = 64
extents = st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE)).map(lambda e: (e[0], min(e[1], SIZE - e[0])))


def laid(puts: list[tuple[int, int]]) -> tuple[Pieces, list[int | None]]:
    """What is kept after writes that each have a byte of their own, and the same in an array."""
    pieces, plain = Pieces(), list[int | None]([None] * SIZE)
    for number, (start, length) in enumerate(puts):
        byte = number % 256
        pieces.put(start, bytes([byte]) * length)
        plain[start : start + length] = [byte] * length
    return pieces, plain


def spread(found: list[tuple[int, bytes]]) -> list[int | None]:
    shown = list[int | None]([None] * SIZE)
    for start, data in found:
        assert shown[start : start + len(data)] == [None] * len(data), "pieces overlap"
        shown[start : start + len(data)] = data
    return shown


@given(st.lists(extents, max_size=30))
def test_later_over_earlier(puts: list[tuple[int, int]]) -> None:
    pieces, plain = laid(puts)
    assert pieces.size == sum(byte is not None for byte in plain)
    assert spread([(start, bytes(data)) for start, data in pieces.within(0, SIZE)]) == plain
    runs = [(start, bytes(data)) for start, data in pieces.runs()]
    assert spread(runs) == plain
    assert all(a + len(data) < b for (a, data), (b, _) in itertools.pairwise(runs)), "neighbours are joined"


@given(st.lists(extents, max_size=20), extents)
def test_within(puts: list[tuple[int, int]], part: tuple[int, int]) -> None:
    pieces, plain = laid(puts)
    start, length = part
    shown = spread([(at, bytes(data)) for at, data in pieces.within(start, start + length)])
    assert shown == [byte if start <= at < start + length else None for at, byte in enumerate(plain)]


def test_run_of_writes_is_one() -> None:
    pieces, _ = laid([(place, 4) for place in range(0, SIZE, 4)])
    assert len(list(pieces.runs())) == 1


def test_a_share_holds_the_gate_that_is_closing() -> None:
    """Bytes that a writer inside leaves behind are waited for, though the closing began before it left them."""
    gate = WriteGate()
    epoch = run(gate.enter())
    closing = Task(awaited(gate.close())).launch()
    gate.share(epoch)
    gate.leave(epoch)
    assert not closing.finished
    gate.leave(epoch)
    assert closing.finished
