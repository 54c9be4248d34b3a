"""Class `rbd` on data objects."""

from __future__ import annotations

from typing import Annotated

from rbd_native.cls_client import READ_WRITE, method
from rbd_native.encoding import blob, boolean, rest, u8, u64
from rbd_native.types import AssertSnapcSeqState


@method("rbd", READ_WRITE)
def copyup(data: rest) -> None:
    """Write the parent's data from offset 0 on, if the object does not exist; otherwise nothing."""


@method("rbd", READ_WRITE)
def sparse_copyup(extents: dict[u64, u64], data: blob) -> None:
    """As copyup, by offset and length, `data` being those extents one behind the other. No extent: an empty
    object.
    """


@method("rbd", READ_WRITE)
def assert_snapc_seq(seq: u64, state: Annotated[AssertSnapcSeqState, u8]) -> None:
    """ERANGE unless the object was last written under an older snapshot sequence than `seq` (or, by `state`,
    not).
    """


@method("rbd", READ_WRITE)
def sparsify(sparse_size: u64, remove_empty: boolean) -> None:
    """Turn zeros, in units of `sparse_size` bytes, into holes; an object of zeros alone is emptied or
    removed.
    """
