"""Interrupts at chosen moments: the n-th at which Python would run the handler of a signal."""

import dis
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """Raised by the handler of a signal."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted


class Moments:
    """Counts the moments in our own code at which a handler may run, and sends the signal at one of them.

    Python looks for signals where a function begins, after a call and where a loop goes round.
    """

    _BEFORE = ("RESUME", "CALL", "JUMP_BACKWARD")

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0
        self._last: dict[FrameType, str] = {}

    def local(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            before = self._last.get(frame, "")
            self._last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith(self._BEFORE):
                self.seen += 1
                if self.seen == self.at:
                    signal.raise_signal(signal.SIGUSR1)
        elif event == "return":
            self._last.pop(frame, None)
        return self.local

    def begin(self, frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if "/rbd_native/" not in path or path.endswith("interrupts.py") or _in_finalizer(frame):
            return None
        frame.f_trace_opcodes = True
        return self.local


def _in_finalizer(frame: FrameType | None) -> bool:
    """What is raised there, Python itself drops."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def interrupted(work: Callable[[], Any], at: int) -> tuple[bool, int]:
    """Do `work` with an interrupt at the moment of that number: whether it raised, and how many moments there were."""
    moments = Moments(at)
    before = signal.signal(signal.SIGUSR1, _raise)
    raised = False
    try:
        sys.settrace(moments.begin)
        try:
            work()
        finally:
            sys.settrace(None)
    except Interrupted:
        raised = True
    finally:
        signal.signal(signal.SIGUSR1, before)
    return raised, moments.seen
