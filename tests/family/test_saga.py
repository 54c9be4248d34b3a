"""Families of clones raised by librbd and rbd_native in turn, or by rbd_native alone on the embedded cluster.

After every operation the image it was done to, after every few operations every image and snapshot, is read
back by all of them: content, size, overlap with the parent, snapshots and clones are those of a model. At the
end librbd finds every object map true, all is removed, and no object of it is left.
"""

import contextlib
import errno
import time
from collections.abc import Iterator
from typing import Any

import pytest
import rbd as librbd

import rbd_native
from rbd_native.constants import RBD_FEATURE_OBJECT_MAP
from rbd_native.engine import run
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import ListSnaps
from tests.backend import Backend
from tests.cluster import CephCluster
from tests.family.saga import Saga
from tests.family.sides import Side
from tests.stored import data_objects, stored

ROWS = [
    # features, order of the objects, images are kept open
    (61, 14, False),
    (29, 13, True),
    (13, 12, False),
    (5, 15, True),
    (1, 13, False),
    (63, 13, True),  # with striping
    (1, 12, True),
    (31, 16, False),
]
TRIMMING_SECONDS = 30
EMPTY = ("rbd_directory", "rbd_children", "rbd_trash")

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))


@pytest.fixture
def sides(backend: Backend) -> Iterator[list[Side]]:
    """Filled by the test; closed at the end."""
    filled: list[Side] = []
    yield filled
    for side in filled:
        side.close()


@pytest.mark.parametrize(("seed", "row"), list(enumerate(ROWS)))
def test_family(
    backend: Backend, sides: list[Side], request: pytest.FixtureRequest, seed: int, row: tuple[int, int, bool], full: bool
) -> None:
    features, order, keeps = row
    pools = [backend.pool, backend.create_pool()]
    data_pool = backend.create_pool()
    sides.append(Side(rbd_native, backend.connect(), pools, keeps=keeps))
    if backend.kind == "ceph":
        # By default an OSD rests for five seconds after each state that it gives up.
        request.getfixturevalue("ceph").command("config set", who="osd", name="osd_snap_trim_sleep_hdd", value="0")
        sides.append(Side(librbd, backend.connect(), pools, keeps=keeps))
    saga = Saga(seed, sides, pools, data_pool, features, order, thorough=20 if full else 15)
    try:
        saga.run(1000 if full else 45)
        if backend.kind == "ceph":
            _object_maps(request.getfixturevalue("ceph"), saga, most=1000 if full else 4)
        saga.end()
    except Exception as error:
        error.add_note(saga.story())
        raise
    for pool in (*pools, data_pool):
        _nothing_left(backend, pool)


def _object_maps(ceph: CephCluster, saga: Saga, most: int) -> None:
    """What librbd finds wrong with one, it flags."""
    specs = [
        spec
        for member in saga.family.members
        if member.features & RBD_FEATURE_OBJECT_MAP
        for name in (f"{member.pool}/{member.name}",)
        for spec in (name, *(f"{name}@{snap.name}" for snap in member.users))
    ]
    for spec in saga.random.sample(specs, min(most, len(specs))):
        ceph.cli("rbd", "object-map", "check", "--no-progress", spec)
    saga.check_all()


def _nothing_left(backend: Backend, pool: str) -> None:
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
