"""What becomes of embedded clusters when their process forks.

SQLite must not be carried over a fork. Its table of locks comes over with it, so that the child's next connection to the
same file believes in locks that the kernel gave to the parent alone; and what another thread was doing in it when the
process forked nobody ends in the child. So none is carried over: a fork waits until no thread is within the store
(:func:`enter`, :func:`leave`), closes what is open (:meth:`Quiet.before_fork`), and both sides open anew what they need.

What a child may do with what was opened before:

- a cluster in a file: everything; its clients (connections, ioctxs, images, watches) are the parent's, though. Using one
  of those raises ForkedError, closing one does nothing.
- a cluster in memory: nothing, for it is its parent's. ForkedError; closing it does nothing.

A fork that Python was not told of (one made by a library in C), or one made by a signal handler while its own thread was
within the store, cannot be prepared. In its child everything that was opened before raises ForkedError, and so does
opening one of those files again: it would look like working, and lose data.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from pathlib import Path
from typing import Any, Protocol

from rbd_native.embedded.rados_errors import Error
from rbd_native.interrupts import DEFERRED
from rbd_native.native import threading


class ForkedError(Error, RuntimeError):
    """A process that was forked uses what its parent opened: a client, or a cluster that cannot be shared."""


class Quiet(Protocol):
    """What has to prepare itself for a fork."""

    def before_fork(self) -> None:
        """Close what must not be carried over. No thread is within the store, but perhaps the one that forks."""

    def in_child(self, prepared: bool) -> None:
        """Let go of what is the parent's. Not `prepared`: nothing was closed, and nothing of it may be used or closed."""


_pid = os.getpid()
_known: weakref.WeakSet[Any] = weakref.WeakSet()
_changed = threading.Condition(threading.Lock())
_inside: list[int] = []
"""The threads that are within the store, each as often as it has entered."""
_forking = 0
"""The thread that is about to fork, or 0."""
_closed = False
"""Whether everything has been closed for the fork that is under way."""
_lost: set[tuple[int, int]] = set()
"""Files, as (device, inode), that this process must not open."""


def watch_over(what: Quiet) -> None:
    """Have it prepared for forks for as long as it lives."""
    with _changed:
        _known.add(what)


def notice() -> None:
    """See whether this is the child of a fork that Python was not told of."""
    if os.getpid() != _pid:
        _in_child()


def enter() -> None:
    """Before this thread uses a connection: wait for the end of a fork that is under way, and hold up the next one."""
    me = threading.get_ident()
    with _changed:
        while _forking and me != _forking and me not in _inside:
            _changed.wait()
        _inside.append(me)


def leave() -> None:
    """After it."""
    me = threading.get_ident()
    with _changed:
        if me in _inside:  # not in a child that was forked in between
            _inside.remove(me)
        if _forking:
            _changed.notify_all()


def refuse_lost(path: str | os.PathLike[str]) -> None:
    """ForkedError for a file that this process must not open."""
    notice()
    if _lost:
        try:
            found = Path(path).stat()
        except FileNotFoundError:
            return
        if (found.st_dev, found.st_ino) in _lost:
            raise ForkedError(f"{os.fspath(path)} was in use when this process was forked unprepared: exec() a new program")


def lose(path: str | os.PathLike[str], connections: list[Any]) -> None:
    """See to it that a file is not opened, and that connections to it are never closed, not even at the end."""
    for connection in connections:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return
    _lost.add((found.st_dev, found.st_ino))


def _before() -> None:
    with DEFERRED:
        _prepare(threading.get_ident())


def _prepare(me: int) -> None:
    global _forking, _closed
    with _changed:
        while _forking:
            _changed.wait()
        _forking = me
        _closed = False
        while any(thread != me for thread in _inside):
            _changed.wait()
        if _inside:  # a signal handler that forks: the operation that it has interrupted needs its connections
            return
        known = list(_known)
    for what in known:
        what.before_fork()
    _closed = True


def _in_parent() -> None:
    global _forking, _closed
    with _changed:
        if _forking == threading.get_ident():
            _forking, _closed = 0, False
            _changed.notify_all()


def _in_child() -> None:
    global _pid, _changed, _forking, _closed
    prepared, _closed = _closed, False
    _pid = os.getpid()
    _changed = threading.Condition(threading.Lock())
    _forking = 0
    _inside.clear()
    for what in list(_known):
        what.in_child(prepared)


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
