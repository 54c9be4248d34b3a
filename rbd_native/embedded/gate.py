"""The lock file beside a cluster's file: its holder may write.

Not SQLite's own locks, whose waiters poll: these are woken. The kernel opens the gate again when its holder dies, and a
forked child lets go of it at once, so that nobody waits for the children of the dead.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from rbd_native.native import time

_PAUSE: Final = 0.002
"""Seconds between two tries of one who waits for a limited time: the kernel has no such wait."""


class Gate:
    """Of one database. `made`: whether its file is new."""

    def __init__(self, path: Path) -> None:
        """OSError."""
        self.path = path.with_name(path.name + "-lock")
        self.made = False
        self._handle: int | None = None
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            self._handle = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            self.made = True
        except FileExistsError:
            self._handle = os.open(self.path, flags | os.O_CREAT, 0o666)

    def enter(self, until: float | None = None) -> None:
        """Wait, at most to that time of the monotonic clock. TimeoutError."""
        if until is None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            return
        while not self._try():
            if time.monotonic() >= until:
                raise TimeoutError(f"{self.path}: another process holds it")
            time.sleep(_PAUSE)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    @property
    def _file(self) -> int:
        if self._handle is None:
            self._open()
        assert self._handle is not None
        return self._handle

    def is_current(self) -> bool:
        """Whether the file is still there: one who failed to make a cluster takes it away again."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._file))

    def close(self) -> None:
        """Let go of it; it is opened again where it is entered again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
