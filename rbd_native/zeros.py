"""Runs of zeros in data: what need not be stored. Looked for in whole blocks, many at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_WORD: Final = 8


def filled_runs(data: bytes | memoryview, block: int) -> list[tuple[int, int]]:
    """(start, end) of what is not zeros, in whole blocks of so many bytes (a multiple of 8) from the beginning; the last
    block may be shorter."""
    if not len(data):
        return []
    whole, rest = divmod(len(data), block)
    blocks = _filled(data, whole, block)
    if whole and not rest and blocks.all():
        return [(0, len(data))]
    filled = np.zeros(whole + 1, np.bool_)
    filled[:whole] = blocks
    filled[whole] = rest > 0 and bytes(data[whole * block :]).count(0) < rest
    edges = np.flatnonzero(np.diff(filled, prepend=False, append=False)) * block
    found = [(start, end) for start, end in edges.reshape(-1, 2).tolist()]
    if filled[whole]:
        found[-1] = (found[-1][0], len(data))
    return found


def _filled(data: bytes | memoryview, blocks: int, block: int) -> npt.NDArray[np.bool_]:
    """For each block, whether it has anything but zeros. Most tell by their first word."""
    words = np.frombuffer(data, np.uint64, blocks * block // _WORD).reshape(blocks, block // _WORD)
    filled: npt.NDArray[np.bool_] = words[:, 0] != 0
    if filled.all():
        return filled
    doubtful = np.flatnonzero(~filled)
    if len(doubtful):
        rest = words if len(doubtful) == blocks else words[doubtful]
        filled[doubtful] = np.bitwise_or.reduce(rest, axis=1) != 0
    return filled
