"""The end of a program, and threads that do not know of it.

What was left open is closed when the program ends. A daemon thread that is at work on it then did nothing wrong: like all
such threads it ends where it is, with nobody told, in place of an error that it would print.
"""

from __future__ import annotations

from rbd_native.native import threading


class _Ending:
    begun = False


def begin() -> None:
    """What is left open is closed from here on."""
    _Ending.begun = True


def stop_daemon() -> None:
    """Return, unless the program is at its end and this is a daemon thread."""
    if _Ending.begun and threading.current_thread().daemon:
        threading.Event().wait()
