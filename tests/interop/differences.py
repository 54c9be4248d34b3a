"""All differences between the versions of an image, by librbd, in a process of its own.

    python -m tests.interop.differences CONF POOL IMAGE

A newer librbd may abort in diff_iterate, in a thread of its own (20.2.4: an error of a mutex), or hang: that must not end
the tests.
"""

import json
import signal
import subprocess
import sys
from typing import Any

import rbd_native as rbd

_ATTEMPTS = 8
_PATIENCE = 30.0
"""Seconds. It takes less than one."""


def differences(conf: str, pool: str, name: str) -> Any:
    """From every version to every later one: [from, to, whole objects, [[offset, length, exists], ...]]."""
    command = [sys.executable, "-m", "tests.interop.differences", conf, pool, name]
    for _ in range(_ATTEMPTS):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode not in (-signal.SIGABRT, -signal.SIGSEGV):
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)
    raise AssertionError("librbd hangs or dies again and again")


def _all(ioctx: Any, name: str) -> list[Any]:
    """By whole objects only where there are no maps: librbd 16 calls what was removed there in some maps of its copies, and
    fails an assertion for images that have shrunk."""
    import rbd as librbd

    with librbd.Image(ioctx, name, read_only=True) as image:
        snapshots = [snap["name"] for snap in image.list_snaps()]
        ways = (False,) if image.features() & rbd.RBD_FEATURE_OBJECT_MAP else (False, True)
    found: list[Any] = []
    for place, since in enumerate([None, *snapshots]):
        for until in [*snapshots[place:], None]:
            with librbd.Image(ioctx, name, until, read_only=True) as image:
                for whole in ways:
                    extents: list[Any] = []
                    image.diff_iterate(
                        0, image.size(), since, lambda *extent, to=extents: to.append(extent), whole_object=whole
                    )
                    found.append([since, until, whole, extents])
    return found


def main() -> None:
    import rados

    conf, pool, name = sys.argv[1:]
    with rados.Rados(conffile=conf) as cluster, cluster.open_ioctx(pool) as ioctx:
        json.dump(_all(ioctx, name), sys.stdout)


if __name__ == "__main__":
    main()
