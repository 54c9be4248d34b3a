"""What is taken along of the bytes that are brought, copied or exported: all that is not zeros, in whole blocks."""

from hypothesis import given
from hypothesis import strategies as st

from rbd_native.image.copyup import sparse

BLOCK = 4096
blocks = st.sampled_from([bytes(BLOCK), b"x" * BLOCK, bytes(BLOCK - 1) + b"x", b"x" + bytes(BLOCK - 1)])
tails = st.sampled_from([b"", b"\0", b"x", bytes(100) + b"x", bytes(4095), b"x" * 4095])


@given(st.lists(blocks, max_size=8), tails)
def test_against_block_by_block(whole: list[bytes], tail: bytes) -> None:
    data = b"".join(whole) + tail
    extents, packed = sparse(data)
    filled = [place for place in range(0, len(data), BLOCK) if data[place : place + BLOCK].strip(b"\0")]
    assert [place for start, length in extents.items() for place in range(start, start + length, BLOCK)] == filled
    assert packed == b"".join(data[place : place + BLOCK] for place in filled)
    assert list(extents) == sorted(extents)
    assert not any(start + length in extents for start, length in extents.items()), "neighbours are one"


def test_nothing_is_copied_of_what_is_full() -> None:
    data = b"x" * (10 * BLOCK + 5)
    assert sparse(data)[1] is data
