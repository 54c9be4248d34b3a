"""Whether a pool is empty again after images with snapshots have been in it."""

import contextlib
import errno
import time
from typing import Any

from rbd_native.engine import run
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import ListSnaps
from tests.backend import Backend
from tests.cluster import CephCluster
from tests.stored import data_objects, stored

TRIMMING_SECONDS = 30
EMPTY = ("rbd_directory", "rbd_children", "rbd_trash")


def trim_at_once(ceph: CephCluster) -> None:
    """By default an OSD rests for five seconds after each state that it gives up."""
    ceph.command("config set", who="osd", name="osd_snap_trim_sleep_hdd", value="0")


def nothing_left(backend: Backend, pool: str) -> None:
    """OSDs give up in their time what they keep for snapshots that are removed. What they list after that, without a state
    at any time, is a mark of theirs that an object was removed, which nobody can take away: librbd leaves it just so."""
    ioctx = backend.ioctx(pool)
    deadline = time.monotonic() + TRIMMING_SECONDS
    while (kept := run(_kept(ioctx, data_objects(backend.rados_module, ioctx)))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not kept
    others = {found.key for found in ioctx.list_objects() if not found.key.startswith("rbd_data.")}
    assert others <= {*EMPTY, "rbd_info"}
    for name in EMPTY:
        with contextlib.suppress(backend.rados_module.ObjectNotFound):
            assert not stored(backend.rados_module, ioctx, name).omap, name


async def _kept(ioctx: Any, names: list[str]) -> dict[str, Any]:
    """Those that have a head, or states for snapshots."""
    found = {}
    for name in names:
        reply = await port_for(ioctx).read(name, [ListSnaps()]).bare()
        assert reply.rv in (0, -errno.ENOENT)
        if reply.rv == 0 and reply.outs[0].clones:
            found[name] = reply.outs[0]
    return found
