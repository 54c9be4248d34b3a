"""Families of clones raised by librbd and rbd_native in turn, or by rbd_native alone on the embedded cluster.

After every operation the image it was done to, after every few operations every image and snapshot, is read
back by all of them: content, size, overlap with the parent, snapshots and clones are those of a model. At the
end librbd finds every object map true, all is removed, and no object of it is left.
"""

from collections.abc import Iterator

import pytest
import rbd as librbd

import rbd_native
from rbd_native.constants import RBD_FEATURE_OBJECT_MAP
from tests.backend import Backend
from tests.cluster import CephCluster
from tests.family.left import nothing_left, trim_at_once
from tests.family.saga import Saga
from tests.family.sides import Side

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

pytestmark = pytest.mark.timeout(3600)


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
        trim_at_once(request.getfixturevalue("ceph"))
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
        nothing_left(backend, pool)


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
