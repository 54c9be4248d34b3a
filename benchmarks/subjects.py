"""What is measured: rbd_native, librbd, and RADOS without either, all through the same few calls.

A `Disk` is an image that is open (or, for RADOS itself, the objects that one would have). It either has
completions (`submit_*` return at once and call `done` later, in any thread) or blocks (`read`, `write`); `blocking`
tells which, and `measure` keeps as many operations under way either way.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

Done = Callable[[int], None]  # called with a return value, negative for an error

ORDER = 22
LAYERING = 1
MAPPED = 1 | 4 | 8 | 16  # with exclusive-lock, object-map and fast-diff
DEPTH = 16

SPARSE_SIZE = 1 << 40  # 262,144 objects, of which so many are written:
SPARSE_OBJECTS = 1000


class Disk(ABC):
    """An open image of `size` bytes."""

    blocking = False

    @abstractmethod
    def submit_read(self, offset: int, length: int, done: Done) -> None: ...

    @abstractmethod
    def submit_write(self, data: bytes, offset: int, done: Done) -> None: ...

    def read(self, offset: int, length: int) -> None:
        raise NotImplementedError

    def write(self, data: bytes, offset: int) -> None:
        raise NotImplementedError

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything written is in RADOS."""

    @abstractmethod
    def close(self) -> None: ...


class Subject(ABC):
    """One implementation, on a pool of its own."""

    has_images = True

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def disk(self, name: str) -> Disk: ...

    def create(self, name: str, size: int) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def diff(self) -> int:
        """Tell the changes of a large, sparse image (see `SPARSE_SIZE`), object by object; how many there are."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None: ...


class ImageDisk(Disk):
    """An image of either binding: their API is the same."""

    def __init__(self, image: Any, blocking: bool) -> None:
        self.image = image
        self.blocking = blocking

    def submit_read(self, offset: int, length: int, done: Done) -> None:
        self.image.aio_read(offset, length, lambda completion, data: done(completion.get_return_value()))

    def submit_write(self, data: bytes, offset: int, done: Done) -> None:
        self.image.aio_write(data, offset, lambda completion: done(completion.get_return_value()))

    def read(self, offset: int, length: int) -> None:
        self.image.read(offset, length)

    def write(self, data: bytes, offset: int) -> None:
        self.image.write(data, offset)

    def flush(self) -> None:
        self.image.flush()

    def close(self) -> None:
        self.image.close()


class Images(Subject):
    """A binding: `rbd` is the module (rbd_native or librbd's), `ioctx` of whichever rados it takes."""

    def __init__(self, name: str, rbd: Any, ioctx: Any, close: Callable[[], None]) -> None:
        super().__init__(name)
        self._rbd = rbd
        self._ioctx = ioctx
        self._close = close
        self._sparse: Any = None

    def create(self, name: str, size: int) -> None:
        self._rbd.RBD().create(self._ioctx, name, size, order=ORDER, old_format=False, features=LAYERING)

    def remove(self, name: str) -> None:
        self._rbd.RBD().remove(self._ioctx, name)

    def disk(self, name: str) -> Disk:
        image = self._rbd.Image(self._ioctx, name)
        return ImageDisk(image, blocking=not self._has_completions(image))

    def diff(self) -> int:
        if self._sparse is None:
            rbd = self._rbd
            rbd.RBD().create(self._ioctx, "sparse", SPARSE_SIZE, order=ORDER, old_format=False, features=MAPPED)
            self._sparse = rbd.Image(self._ioctx, "sparse")
            for number in random.Random(0).sample(range(SPARSE_SIZE >> ORDER), SPARSE_OBJECTS):
                self._sparse.write(b"data", number << ORDER)
        extents: list[tuple[int, int, bool]] = []
        self._sparse.diff_iterate(0, SPARSE_SIZE, None, lambda *extent: extents.append(extent), whole_object=True)
        return len(extents)

    def _has_completions(self, image: Any) -> bool:
        try:
            image.aio_read(0, 1, lambda completion, data: None).wait_for_complete_and_cb()
        except self._rbd.FunctionNotSupported:
            return False
        return True

    def close(self) -> None:
        if self._sparse is not None:
            self._sparse.close()
        self._ioctx.close()
        self._close()


class ObjectsDisk(Disk):
    """The data objects that an image would have; no operation crosses one."""

    def __init__(self, ioctx: Any, name: str) -> None:
        self._ioctx = ioctx
        self._name = name

    def _object(self, offset: int) -> tuple[str, int]:
        return f"{self._name}.{offset >> ORDER:016x}", offset & ((1 << ORDER) - 1)

    def submit_read(self, offset: int, length: int, done: Done) -> None:
        oid, at = self._object(offset)
        self._ioctx.aio_read(oid, length, at, lambda completion, data: done(completion.get_return_value()))

    def submit_write(self, data: bytes, offset: int, done: Done) -> None:
        oid, at = self._object(offset)
        self._ioctx.aio_write(oid, data, at, lambda completion: done(completion.get_return_value()))

    def flush(self) -> None:
        """Nothing to do: what has completed is in RADOS."""

    def close(self) -> None:
        """Nothing to do: the ioctx is the subject's."""


class Objects(Subject):
    """RADOS itself through python-rados: the floor under any client of images."""

    has_images = False

    def __init__(self, name: str, ioctx: Any, close: Callable[[], None]) -> None:
        super().__init__(name)
        self._ioctx = ioctx
        self._close = close

    def disk(self, name: str) -> Disk:
        return ObjectsDisk(self._ioctx, name)

    def close(self) -> None:
        self._ioctx.close()
        self._close()
