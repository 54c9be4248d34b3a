"""What is measured: rbd_native, librbd, and RADOS without either.

A `Disk` is an image that is open (or, for RADOS itself, the objects that one would have): `submit_*` return at once and
call `done` later, in any thread; `read` and `write` block, the latter until its bytes are accepted.
"""

from __future__ import annotations

import random
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

Done = Callable[[int], None]  # called with a return value, negative for an error

ORDER = 22
LAYERING = 1
MAPPED = 1 | 4 | 8 | 16  # with exclusive-lock, object-map and fast-diff
NO_COMPRESSION = random.Random(0).randbytes(1 << ORDER)


class Disk(ABC):
    """An open image, or what it would be made of."""

    @abstractmethod
    def submit_read(self, offset: int, length: int, done: Done) -> None: ...

    def submit_read_into(self, offset: int, room: bytearray, done: Done) -> None:
        """The same into memory that is used again, where there is such a read."""
        self.submit_read(offset, len(room), done)

    @abstractmethod
    def submit_write(self, data: bytes, offset: int, done: Done) -> None: ...

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes: ...

    @abstractmethod
    def write(self, data: bytes, offset: int) -> None: ...

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything written is in RADOS."""

    @abstractmethod
    def close(self) -> None: ...


class Subject(ABC):
    """One implementation, on a pool of its own. `rbd`: its module, None for RADOS itself."""

    rbd: Any = None

    def __init__(self, name: str, ioctx: Any, close: Callable[[], None]) -> None:
        self.name = name
        self.ioctx = ioctx
        self._close = close

    @abstractmethod
    def disk(self, name: str, size: int) -> Disk:
        """A new one."""

    def close(self) -> None:
        self.ioctx.close()
        self._close()


class ImageDisk(Disk):
    """An image of either binding: their API is the same."""

    def __init__(self, image: Any) -> None:
        self.image = image

    def submit_read(self, offset: int, length: int, done: Done) -> None:
        self.image.aio_read(offset, length, lambda completion, data: done(completion.get_return_value()))

    def submit_read_into(self, offset: int, room: bytearray, done: Done) -> None:
        if not hasattr(self.image, "aio_readinto"):
            self.submit_read(offset, len(room), done)
            return
        self.image.aio_readinto(offset, room, lambda completion: done(completion.get_return_value()))

    def submit_write(self, data: bytes, offset: int, done: Done) -> None:
        self.image.aio_write(data, offset, lambda completion: done(completion.get_return_value()))

    def read(self, offset: int, length: int) -> bytes:
        data: bytes = self.image.read(offset, length)
        return data

    def write(self, data: bytes, offset: int) -> None:
        self.image.write(data, offset)

    def flush(self) -> None:
        self.image.flush()

    def close(self) -> None:
        self.image.close()


class Images(Subject):
    """A binding: `rbd` is the module, `ioctx` of whichever rados it takes. `tool`: runs the rbd program, for what is no
    method of the binding; None for rbd_native, whose library does it."""

    def __init__(
        self,
        name: str,
        rbd: Any,
        ioctx: Any,
        close: Callable[[], None],
        pool: str = "",
        tool: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(name, ioctx, close)
        self.rbd = rbd
        self._pool = pool
        self._tool = tool

    def create(self, name: str, size: int, features: int = LAYERING) -> None:
        self.rbd.RBD().create(self.ioctx, name, size, order=ORDER, old_format=False, features=features)

    def open(self, name: str, snapshot: str | None = None, *, read_only: bool = False) -> Any:
        return self.rbd.Image(self.ioctx, name, snapshot, read_only)

    def remove(self, name: str) -> None:
        self.rbd.RBD().remove(self.ioctx, name)

    def disk(self, name: str, size: int) -> Disk:
        self.create(name, size)
        return ImageDisk(self.open(name))

    def export(self, name: str, path: Path) -> None:
        if self._tool is not None:
            self._tool("rbd", "export", "--no-progress", f"{self._pool}/{name}", str(path))
            return
        from rbd_native import streams

        with self.open(name, read_only=True) as image, path.open("wb") as file:
            streams.export_image(image, file)

    def import_(self, path: Path, name: str) -> None:
        if self._tool is not None:
            self._tool("rbd", "import", "--no-progress", str(path), f"{self._pool}/{name}")
            return
        from rbd_native import streams

        with path.open("rb") as file:
            streams.import_image(self.ioctx, name, file)


def tool(conf: Path) -> Callable[..., Any]:
    """Runs programs of Ceph on the cluster of a configuration file."""
    return lambda program, *arguments: subprocess.run(
        [program, "-c", str(conf), *arguments], check=True, capture_output=True
    )


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

    def read(self, offset: int, length: int) -> bytes:
        oid, at = self._object(offset)
        data: bytes = self._ioctx.read(oid, length, at)
        return data

    def write(self, data: bytes, offset: int) -> None:
        oid, at = self._object(offset)
        self._ioctx.write(oid, data, at)

    def flush(self) -> None:
        """Nothing to do: what has completed is in RADOS."""

    def close(self) -> None:
        """Nothing to do: the ioctx is the subject's."""


class Objects(Subject):
    """RADOS itself through python-rados: the floor under any client of images."""

    def disk(self, name: str, size: int) -> Disk:
        return ObjectsDisk(self.ioctx, name)
