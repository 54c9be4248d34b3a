"""Where workers come from: a process that has loaded all that they need, and becomes one by forking.

    python -m tests.sharing.nursery FD

A new interpreter would take most of a second of a core to be one; this takes milliseconds. It never connects to anything
itself: who has must not fork. FD is a socket: down come the setups of workers (see :mod:`tests.sharing.worker`) as JSON,
each with what is to be its standard input, output and error, and the file of its records; up go their pids, each with a
descriptor of the process.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

HOME = Path(__file__).parent.parent.parent
LOADED = ("rbd_native.embedded", "rados", "rbd", "tests.sharing.worker")
_MOST = 1 << 16


class Child:
    """A worker, from without."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.alive = True
        self._descriptor = descriptor

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """With -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        gone, _, _ = select.select([self._descriptor], [], [], 60)
        assert gone, f"process {self.pid} cannot be killed"
        os.close(self._descriptor)
        self.alive = False


class Nursery:
    """The process, from without."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.sharing.nursery", str(theirs.fileno())],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # threads are not forked
                cwd=HOME,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interrupt from the keyboard is not for it
            )

    def bear(self, setup: dict[str, Any], stdin: int, stdout: int, stderr: int, records: int) -> Child:
        """A new worker with these descriptors; the caller's own stay open."""
        socket.send_fds(self._socket, [json.dumps(setup).encode()], [stdin, stdout, stderr, records])
        pid, descriptors, _, _ = socket.recv_fds(self._socket, _MOST, 1)
        if not pid:
            raise EOFError("the process that is forked to make workers is gone")
        return Child(int(pid), *descriptors)

    def close(self) -> None:
        self._socket.close()  # that is the word to end
        self._process.wait(60)


@functools.cache
def nursery() -> Nursery:
    """One for all tests of this process."""
    made = Nursery()
    atexit.register(made.close)
    return made


def main() -> None:
    for name in LOADED:
        importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: it cannot be forked"
    with socket.socket(fileno=int(sys.argv[1])) as callers:
        while True:
            setup, descriptors, _, _ = socket.recv_fds(callers, _MOST, 4)
            if not setup:
                return
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            pid = os.fork()
            if pid == 0:
                callers.close()
                _become(json.loads(setup), descriptors)
            descriptor = os.pidfd_open(pid)
            socket.send_fds(callers, [str(pid).encode()], [descriptor])
            for one in [descriptor, *descriptors]:
                os.close(one)


def _become(setup: dict[str, Any], descriptors: list[int]) -> NoReturn:
    from tests.sharing import worker

    try:
        os.setsid()
        *standard, records = descriptors
        for number, one in enumerate(standard):
            os.dup2(one, number)
            os.close(one)
        worker.work(setup | {"records": records})
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
