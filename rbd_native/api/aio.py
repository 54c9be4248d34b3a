"""The aio_* methods of an image: each begins at once, and calls back when it has ended."""

from __future__ import annotations

from rbd_native.api.boundary import buffer, room, uint64
from rbd_native.api.completion import Completion, OnComplete
from rbd_native.constants import RBD_WRITE_ZEROES_FLAG_THICK_PROVISION
from rbd_native.image import io
from rbd_native.image.context import ImageContext
from rbd_native.image.reading import read, read_into
from rbd_native.interrupts import DEFERRED
from rbd_native.rados.port import Buffer

_EINVAL = 22


class AioMethods:
    """What class Image has of them. `oncomplete` is called with the :class:`Completion` in a thread of this module."""

    closed: bool

    @property
    def _image(self) -> ImageContext:
        raise NotImplementedError

    def aio_read(self, offset: int, length: int, oncomplete: OnComplete, fadvise_flags: int = 0) -> Completion:
        """As :meth:`Image.read`; oncomplete(completion, data), with None for data where it failed."""
        return Completion(read(self._image, uint64(offset), uint64(length)), oncomplete, data=True)

    def aio_readinto(self, offset: int, buffer: bytearray | memoryview, oncomplete: OnComplete) -> Completion:
        """As :meth:`Image.readinto`; oncomplete(completion), whose return value is the number of bytes. The buffer is to be
        left alone until then. Beyond what the binding has."""
        return Completion(read_into(self._image, uint64(offset), room(buffer)), oncomplete, counts=True)

    def aio_write(self, data: Buffer, offset: int, oncomplete: OnComplete, fadvise_flags: int = 0) -> Completion:
        """As :meth:`Image.write`, but what reaches beyond the end is cut off without a word. The data must not change
        before it has completed."""
        return Completion(io.write(self._image, uint64(offset), buffer(data)), oncomplete)

    def aio_discard(self, offset: int, length: int, oncomplete: OnComplete) -> Completion:
        """As :meth:`Image.discard`, of any length."""
        work = io.discard(self._image, uint64(offset), uint64(length), limited=False)
        return Completion(work, oncomplete)

    def aio_write_zeroes(self, offset: int, length: int, oncomplete: OnComplete, zero_flags: int = 0) -> Completion:
        """As :meth:`Image.write_zeroes`."""
        start, size = uint64(offset), uint64(length)
        thick = bool(zero_flags & RBD_WRITE_ZEROES_FLAG_THICK_PROVISION)
        unknown = zero_flags & ~RBD_WRITE_ZEROES_FLAG_THICK_PROVISION
        work = io.refuse(_EINVAL) if unknown else io.write_zeroes(self._image, start, size, thick=thick)
        return Completion(work, oncomplete)

    def aio_flush(self, oncomplete: OnComplete) -> Completion:
        """Completes when every write that was begun before it is on stable storage."""
        return Completion(io.flush_of_user(self._image), oncomplete)

    def aio_close(self, oncomplete: OnComplete) -> Completion:
        """As :meth:`Image.close`."""
        with DEFERRED:
            image = self._image
            self.closed = True
            return Completion(image.close(), oncomplete)
