"""Ends a throw-away cluster when its owner is gone, however it went.

Run as ``python watchdog.py ROOT`` with a pipe on standard input that only the owner holds open. At the
end of the pipe (the owner closed it, exited, or was killed) every daemon with a pid file under ROOT/run is
killed, and ROOT is removed. Standard library only.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def daemons(root: Path) -> list[int]:
    """The pids of the daemons of this cluster that are alive."""
    alive = []
    for path in root.glob("run/*.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            # A pid may be a stranger's by now: only a command line that names the directory counts.
            if os.fsencode(f"{root}/") in Path(f"/proc/{pid}/cmdline").read_bytes():
                alive.append(pid)
    return alive


def end(root: Path, patience: float = 20.0) -> None:
    """Kill the daemons (they hold nothing worth a clean stop), see them gone, remove the directory."""
    deadline = time.monotonic() + patience
    while (pids := daemons(root)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    end(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
