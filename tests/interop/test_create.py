"""Create, judged by librbd: the same is accepted, refused with the same error whatever else is wrong besides, and laid
out the same byte for byte."""

from collections.abc import Iterator
from typing import Any

import pytest
import rbd as real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rbd_native as rbd
from tests.cluster import CephCluster
from tests.interop.twins import Twins

pytestmark = pytest.mark.ceph

TAKEN, TAKEN_BY_FORMAT_1 = "taken", "old"
FEATURES = [
    rbd.RBD_FEATURE_LAYERING,
    rbd.RBD_FEATURE_STRIPINGV2,
    rbd.RBD_FEATURE_EXCLUSIVE_LOCK,
    rbd.RBD_FEATURE_OBJECT_MAP,
    rbd.RBD_FEATURE_FAST_DIFF,
    rbd.RBD_FEATURE_DEEP_FLATTEN,
    rbd.RBD_FEATURE_DATA_POOL,
    rbd.RBD_FEATURE_OPERATIONS,
    rbd.RBD_FEATURE_MIGRATING,
    rbd.RBD_FEATURE_NON_PRIMARY,
    2048,
    1 << 12,
    1 << 40,
]

names = st.sampled_from(["", "new", TAKEN, TAKEN_BY_FORMAT_1, "a/b", "a@b", "é", b"bytes", "x\0y", "l" * 400, "n" * 5000])
sizes = st.sampled_from([0, 1, 4096, 1 << 22, (1 << 22) + 1, 1 << 40, 1 << 63])
orders = st.none() | st.sampled_from([0, -1, 1, 11, 12, 13, 22, 25, 26, 64, 255, 256, 272, -(2**31)])
masks = st.none() | st.lists(st.sampled_from(FEATURES), max_size=4).map(lambda bits: sum(set(bits)))
units = st.none() | st.sampled_from([0, 1, 3, 256, 512, 4096, 65536, 1 << 22, 1 << 23, 1 << 63, 2**64 - 1])
counts = st.none() | st.sampled_from([0, 1, 2, 5, 1_000_000])
data_pools = st.sampled_from([None, "", "no-such-pool", b"no-such-pool", "own", "data"])


@pytest.fixture(scope="module")
def twins(ceph: CephCluster) -> Iterator[Twins]:
    twins = Twins(ceph, "create")
    twins.both(lambda module, ioctx, side: module.RBD().create(ioctx, "first", 1 << 20))
    twins.stored()
    for ioctx in twins.ioctxs:
        ioctx.write_full(f"rbd_id.{TAKEN}", b"taken")
        ioctx.write_full(f"{TAKEN_BY_FORMAT_1}.rbd", b"taken")
    yield twins
    twins.close()


def forget(twins: Twins) -> None:
    """Away with what was created, the quick way: some are too large to be removed object by object."""
    for ioctx in twins.ioctxs:
        for found in list(ioctx.list_objects()):
            if found.key not in ("rbd_info", f"rbd_id.{TAKEN}", f"{TAKEN_BY_FORMAT_1}.rbd"):
                ioctx.remove_object(found.key)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(names, sizes, orders, st.booleans(), masks, units, counts, data_pools)
def test_same_outcome_and_same_bytes(
    twins: Twins,
    name: str | bytes,
    size: int,
    order: int | None,
    old_format: bool,
    features: int | None,
    unit: int | None,
    count: int | None,
    data_pool: str | bytes | None,
) -> None:
    def create(module: Any, ioctx: Any, side: int) -> None:
        pool = {"own": twins.pools[side], "data": twins.data_pools[side]}.get(data_pool, data_pool)  # type: ignore[arg-type]
        module.RBD().create(ioctx, name, size, order, old_format, features, unit, count, pool)

    if twins.both(create).raised is None:
        try:
            twins.stored()
        finally:
            forget(twins)


@pytest.mark.parametrize("features", [None, 0, 1, 5, 13, 29, 61, 33, 37])
@pytest.mark.parametrize(
    ("order", "unit", "count", "with_data_pool"),
    [(None, None, None, False), (12, None, None, True), (22, 65536, 4, False), (25, 1 << 25, 3, True)],
)
def test_layout_of_every_feature_set(
    twins: Twins, features: int | None, order: int | None, unit: int | None, count: int | None, with_data_pool: bool
) -> None:
    def create(module: Any, ioctx: Any, side: int) -> None:
        pool = twins.data_pools[side] if with_data_pool else None
        module.RBD().create(ioctx, "new", 10 << 20, order, False, features, unit, count, pool)

    try:
        assert twins.both(create).raised is None
        kept = {name for name in twins.stored() if not name.startswith("data:")}
    finally:
        forget(twins)
    has_map = features is None or features & rbd.RBD_FEATURE_OBJECT_MAP
    assert {"rbd_header.<new>", "rbd_id.new", "rbd_directory"} <= kept
    assert ("rbd_object_map.<new>" in kept) == bool(has_map)


@pytest.mark.parametrize("faults", [{}, {"order": 99}, {"features": 8}, {"features": 1 << 40}, {"data_pool": "none"}])
@pytest.mark.parametrize("name", ["new", "", "n" * 5000])
def test_in_a_namespace_that_is_not_there(twins: Twins, faults: dict[str, Any], name: str) -> None:
    def create(module: Any, ioctx: Any, side: int) -> None:
        ioctx.set_namespace("nowhere")
        try:
            module.RBD().create(ioctx, name, 1 << 20, **faults)
        finally:
            ioctx.set_namespace("")

    assert twins.both(create).raised is not None


def test_in_a_namespace(twins: Twins) -> None:
    for ioctx in twins.ioctxs:
        real.RBD().namespace_create(ioctx, "somewhere")
        ioctx.set_namespace("somewhere")
    try:
        for pools in (None, twins.data_pools):
            name = "plain" if pools is None else "split"
            create = twins.both(
                lambda module, ioctx, side, name=name, pools=pools: module.RBD().create(
                    ioctx, name, 1 << 20, data_pool=pools and pools[side]
                )
            )
            assert create.raised is None
        assert {"rbd_id.plain", "rbd_id.split"} <= set(twins.stored("somewhere"))
        twins.clean()
    finally:
        for ioctx in twins.ioctxs:
            ioctx.set_namespace("")


CONFIGURATIONS = [
    {"rbd_default_features": "1"},
    {"rbd_default_features": "layering,exclusive-lock"},
    {"rbd_default_features": "8"},
    {"rbd_default_order": "16"},
    {"rbd_default_order": "99"},
    {"rbd_default_stripe_unit": "65536", "rbd_default_stripe_count": "3"},
    {"rbd_default_stripe_unit": "65536"},
    {"rbd_default_data_pool": "no-such-pool"},
]


@pytest.mark.parametrize("where", ["pool", "client"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("given", [{}, {"order": 20}, {"features": 1}, {"stripe_unit": 4096, "stripe_count": 2}])
def test_defaults(twins: Twins, ceph: CephCluster, where: str, configuration: dict[str, str], given: Any) -> None:
    """What is not given comes from the pool's configuration or the client's."""

    def create(module: Any, ioctx: Any, side: int) -> None:
        if where == "pool":
            module.RBD().create(ioctx, "new", 10 << 20, **given)
            return
        client = ceph.rados(**configuration)
        with client.open_ioctx(twins.pools[side]) as own:
            module.RBD().create(own, "new", 10 << 20, **given)
        client.shutdown()

    if where == "pool":
        for ioctx in twins.ioctxs:
            for key, value in configuration.items():
                real.RBD().pool_metadata_set(ioctx, f"conf_{key}", value)
    try:
        if twins.both(create).raised is None:
            twins.stored()
    finally:
        forget(twins)
        if where == "pool":
            for ioctx in twins.ioctxs:
                for key in configuration:
                    real.RBD().pool_metadata_remove(ioctx, f"conf_{key}")
