"""The user's file objects: anything binary with `read`, or with `write`.

Where one is a plain file, more is possible: holes of a source are not read, and holes of a target are not written.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from collections.abc import Iterator
from typing import Any, Final

from rbd_native.streams.codec import StreamError

PIECE: Final = 2 << 20
"""Bytes that are read or written at once."""
_ZEROS: Final = bytes(64 << 10)


def _plain(file: Any) -> int | None:
    """The descriptor of a regular file of which `file` is nothing but the (buffered) contents: not so a GzipFile, which has
    one, too."""
    raw = file if isinstance(file, io.FileIO) else getattr(file, "raw", None)
    if not isinstance(raw, io.FileIO):
        return None
    descriptor = raw.fileno()
    return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


class Source:
    """Reads from the file's current position on."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.taken = 0

    def take(self, length: int) -> bytes:
        """Exactly so many bytes; StreamError where the file ends before."""
        data = self.some(length)
        if len(data) < length:
            raise StreamError(f"the stream ends after {self.taken} bytes")
        return data

    def some(self, length: int) -> bytes:
        """So many bytes, or those up to the end. BlockingIOError where the file does not wait for what is to come."""
        parts: list[bytes] = []
        missing = length
        while missing:
            data = self._file.read(missing)
            if data is None:
                raise BlockingIOError(errno.EAGAIN, "the file has nothing to read yet: it must be one that blocks")
            if not data:
                break
            parts.append(bytes(data))
            missing -= len(data)
        self.taken += length - missing
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def left(self) -> int | None:
        """How many bytes there are up to the end; None where only reading them can tell."""
        try:
            if not self._file.seekable():
                return None
            here = self._file.tell()
            end: int = self._file.seek(0, os.SEEK_END)
            self._file.seek(here)
        except (AttributeError, OSError):
            return None
        return end - int(here)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """All there is, as (offset from here, bytes), without the holes where those can be told."""
        descriptor = _plain(self._file)
        if descriptor is None:
            at = 0
            while data := self.some(PIECE):
                yield at, data
                at += len(data)
        else:
            yield from self._pieces_of(descriptor)

    def _pieces_of(self, descriptor: int) -> Iterator[tuple[int, bytes]]:
        base = self._file.tell()
        size = os.fstat(descriptor).st_size
        for start, end in _data(descriptor, base, size):
            while start < end and (data := os.pread(descriptor, min(PIECE - (start - base) % PIECE, end - start), start)):
                yield start - base, data
                start += len(data)
        self._file.seek(max(base, size))


def _data(descriptor: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that are no holes."""
    while low < high:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            low = os.lseek(descriptor, low, os.SEEK_DATA)
            end = min(os.lseek(descriptor, low, os.SEEK_HOLE), high)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is no more
                return
            end = high  # a file system that does not tell
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)  # a buffered reader counts on it
        yield low, end
        low = end


class Sink:
    """Writes from the file's current position on."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._end = self._fresh_from(file)
        self._ahead = 0

    @staticmethod
    def _fresh_from(file: Any) -> int | None:
        """The position beyond which skipping makes a hole; None where there is no skipping."""
        descriptor = _plain(file)
        if descriptor is None or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            return None
        file.flush()
        return os.fstat(descriptor).st_size

    def write(self, data: bytes | memoryview) -> None:
        if self._ahead and data:
            self._file.seek(self._ahead, os.SEEK_CUR)
            self._ahead = 0
        while data:
            written = self._file.write(data)
            if written is None and isinstance(self._file, io.RawIOBase):
                raise BlockingIOError(errno.EAGAIN, "the file takes nothing now: it must be one that blocks")
            if written is None or written == len(data):
                return
            data = memoryview(data)[written:]

    def zeros(self, length: int) -> None:
        """Zeros that are written."""
        while length:
            part = min(length, len(_ZEROS))
            self.write(_ZEROS if part == len(_ZEROS) else _ZEROS[:part])
            length -= part

    def hole(self, length: int) -> None:
        """Zeros that need not be written."""
        if self._end is not None:
            here = self._file.tell() + self._ahead
            written = min(max(self._end - here, 0), length)  # over what the file already has
            self.zeros(written)
            self._ahead += length - written
        else:
            self.zeros(length)

    def finish(self) -> None:
        """What is not written yet: a hole at the end."""
        if self._ahead:
            self._file.truncate(self._file.tell() + self._ahead)
            self._file.seek(self._ahead, os.SEEK_CUR)
            self._ahead = 0
