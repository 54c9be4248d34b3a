"""Writes to a cluster's file without end, and has a forked child that does nothing: to be killed.

    python -m tests.embedded.orphaning PATH

Says the child's process id, and then a line when it has written.
"""

import os
import sys
import threading
import time

from rbd_native import embedded
from rbd_native.rados.port import Write


def main(path: str) -> None:
    io = embedded.Cluster(path).connect().io(1)
    written = threading.Event()

    def write() -> None:
        while True:
            io.write("filler", [Write(0, bytes(1 << 20))]).block()
            written.set()

    threading.Thread(target=write, daemon=True).start()
    written.wait()
    pid = os.fork()
    if pid == 0:
        os.close(1)
        time.sleep(600)
    print(pid, flush=True)
    written.clear()
    written.wait()
    print("writes", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
