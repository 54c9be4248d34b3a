"""The checksum of RBD's formats: CRC-32C with initial value 0 and no final xor.

That is not what libraries call crc32c (they begin with and xor with ffffffff). Object maps and journal entries
carry it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import crcmod

# Castagnoli's polynomial, with the leading 1 that crcmod asks for; bits are taken lowest first.
_POLYNOMIAL: Final = 0x11EDC6F41

#: crc32c(data, crc=0): the checksum of a bytes-like object; `crc` is that of what came before it.
crc32c: Final[Callable[..., int]] = crcmod.mkCrcFun(_POLYNOMIAL, initCrc=0, xorOut=0, rev=True)
