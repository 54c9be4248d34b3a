"""Streams that do not wait: what has not come yet is not taken for the end."""

import io
import os
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import streams
from tests.backend import Backend


class Hesitant(io.RawIOBase):
    """Gives nothing the first times, or takes nothing."""

    def __init__(self, data: bytes = b"", before: int = 0) -> None:
        self._data = io.BytesIO(data)
        self._before = before

    def read(self, size: int = -1) -> Any:
        self._before -= 1
        return None if self._before == 0 else self._data.read(min(size, 1000))

    def write(self, data: Any) -> Any:
        return None


@pytest.mark.parametrize("before", [1, 2, 5])
def test_nothing_yet_is_not_the_end(backend: Backend, before: int) -> None:
    ioctx = backend.ioctx()
    with pytest.raises(BlockingIOError):
        streams.import_image(ioctx, "image", Hesitant(os.urandom(8192), before))
    assert rbd.RBD().list(ioctx) == []
    streams.import_image(ioctx, "image", io.BytesIO(bytes(8192)))
    with rbd.Image(ioctx, "image") as image:
        with pytest.raises(BlockingIOError):
            streams.import_diff(image, Hesitant(b"rbd diff v1\n", 2))
        with pytest.raises(BlockingIOError):
            streams.export_image(image, Hesitant())
