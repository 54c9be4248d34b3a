"""Deep copies of ours and of librbd: librbd tells the same of both, whatever the history and the layout."""

import random
from typing import Any

import pytest
import rbd as librbd

import rbd_native as rbd
from tests.backend import Backend, ceph_backend
from tests.cluster import CephCluster
from tests.faults.test_deep_copy import grow
from tests.image.test_copies import content, judge
from tests.interop.differences import differences

pytestmark = pytest.mark.ceph


def layout(rng: random.Random) -> dict[str, Any]:
    order = rng.choice((14, 15, 16, 17))
    if rng.random() < 0.4:
        return {"order": order, "stripe_unit": 1 << order, "stripe_count": 1}
    return {"order": order, "stripe_unit": rng.choice((4096, 8192, 1 << order)), "stripe_count": rng.choice((1, 2, 3, 5))}


def clear(ioctx: Any, *images: str) -> None:
    for name in images:
        with rbd.Image(ioctx, name) as image:
            for snap in list(image.list_snaps()):
                image.remove_snap(snap["name"])
        rbd.RBD().remove(ioctx, name)


def compare(backend: Backend, conf: str, seed: int) -> None:
    rng = random.Random(seed)
    ioctx = backend.ioctx()
    features = rng.choice((1, 5, 13, 61))
    rbd.RBD().create(ioctx, "source", rng.choice((65536, 200_000, 100_001)), features=features, **layout(rng))
    with rbd.Image(ioctx, "source") as image:
        for number in range(rng.randrange(1, 5)):
            grow(image, rng)
            image.create_snap(f"s{number}")
        grow(image, rng)
    how: dict[str, Any] = rng.choice(({}, layout(rng), layout(rng)))
    how |= rng.choice(({}, {"features": 61}, {"features": 1}))
    for module, name in ((librbd, "theirs"), (rbd, "ours")):
        with module.Image(ioctx, "source", read_only=True) as image:
            image.deep_copy(ioctx, name, **how)
    expected = content(rbd, ioctx, "source")
    judge(backend, "ours", expected, how.get("features", features))
    ours, theirs = (differences(conf, backend.pool, name) for name in ("ours", "theirs"))
    assert ours == theirs, (seed, features, how)
    clear(ioctx, "source", "theirs", "ours")


@pytest.fixture(scope="module")
def real(ceph: CephCluster) -> Any:
    with ceph_backend(ceph, "deep-copies") as backend:
        yield backend


@pytest.mark.parametrize("first", range(0, 24, 4))
def test_any_history(ceph: CephCluster, real: Backend, full: bool, first: int) -> None:
    for seed in range(first, first + 4):
        for more in range(0, 1000 if full else 100, 100):
            compare(real, str(ceph.conf), seed + more)


def test_what_the_copy_of_a_clone_gets(real: Backend) -> None:
    """Metadata of the parent, as a clone does."""
    ioctx = real.ioctx()
    rbd.RBD().create(ioctx, "parent", 1 << 16, 14, features=61)
    with rbd.Image(ioctx, "parent") as parent:
        parent.metadata_set("of", "parent")
        parent.create_snap("s")
    rbd.RBD().clone(ioctx, "parent", "s", ioctx, "source", clone_format=2)
    with rbd.Image(ioctx, "source") as image:
        image.metadata_remove("of")
    seen = []
    for module, name in ((librbd, "theirs"), (rbd, "ours")):
        cluster = real.connect(rbd_default_clone_format="2")
        with module.Image(real.ioctx(cluster=cluster), "source", read_only=True) as image:
            image.deep_copy(real.ioctx(cluster=cluster), name)
        with librbd.Image(ioctx, name, read_only=True) as image:
            seen.append((dict(image.metadata_list()), image.overlap(), image.op_features(), image.features()))
    assert seen[0] == seen[1]
    clear(ioctx, "source", "theirs", "ours", "parent")
