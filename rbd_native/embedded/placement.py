"""The placement group that an object's name falls into: what `osd map` shows.

The hash is Bob Jenkins' of 1996 (in the public domain), which pools use by default ("rjenkins").
"""

from __future__ import annotations

from typing import Final

_GOLDEN: Final = 0x9E3779B9
_MASK: Final = 0xFFFFFFFF
_SHIFTS: Final = ((13, 8, 13), (12, 16, 5), (3, 10, 15))


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for right, left, last in _SHIFTS:
        a = ((a - b - c) & _MASK) ^ (c >> right)
        b = ((b - c - a) & _MASK) ^ ((a << left) & _MASK)
        c = ((c - a - b) & _MASK) ^ (b >> last)
    return a, b, c


def object_hash(name: bytes) -> int:
    """32 bits."""
    a = b = _GOLDEN
    c = 0
    at = 0
    while len(name) - at >= 12:
        parts = (int.from_bytes(name[at + part : at + part + 4], "little") for part in (0, 4, 8))
        a, b, c = _mix(*((word + part) & _MASK for word, part in zip((a, b, c), parts, strict=True)))
        at += 12
    rest = name[at:]
    c += len(name) + (int.from_bytes(rest[8:11], "little") << 8)
    a += int.from_bytes(rest[:4], "little")
    b += int.from_bytes(rest[4:8], "little")
    return _mix(a & _MASK, b & _MASK, c & _MASK)[2]


def stable_mod(value: int, groups: int) -> int:
    """Of so many groups, which need not be a power of two, the one that few leave when there are more."""
    mask = (1 << (groups - 1).bit_length()) - 1
    return value & mask if value & mask < groups else value & (mask >> 1)
