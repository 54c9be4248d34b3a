"""Ends a throw-away cluster when its owner is gone, however it went.

Run as ``python watchdog.py ROOT`` with a pipe on standard input that only the owner holds open. At the end of the
pipe (the owner closed it, exited, or was killed) every daemon that was started for ROOT is killed, and ROOT is
removed. Standard library only.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PROGRAMS = (b"ceph-mon", b"ceph-mgr", b"ceph-osd", b"monmaptool")


def daemons(root: Path) -> list[int]:
    """The pids of all that runs for this cluster.

    Found by its own command line, not by pid files: a daemon that is just starting has written none yet, and the
    pid in one may have gone to a stranger since.
    """
    alive = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            program, *arguments = path.read_bytes().split(b"\0")
            of_this_root = any(os.fsencode(f"{root}/") in argument for argument in arguments)
            if of_this_root and os.path.basename(program) in PROGRAMS:  # noqa: PTH119  (bytes)
                alive.append(int(path.parent.name))
    return alive


def end(root: Path, patience: float = 20.0, quiet: float = 0.1) -> None:
    """Kill the daemons (they hold nothing worth a clean stop), see them gone, remove the directory.

    Gone means that none has been seen for `quiet` seconds: one may have been about to start another.
    """
    now = time.monotonic()
    deadline, seen = now + patience, now
    while now < min(deadline, seen + quiet):
        for pid in daemons(root):
            seen = now
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        now = time.monotonic()
    shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    end(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
