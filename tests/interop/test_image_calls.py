"""Calls of an open image, judged by librbd: whatever the order and the arguments, both come out the same, and leave the
same objects with the same bytes behind."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import rbd as real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster import CephCluster
from tests.interop.twins import Outcome, Twins

pytestmark = pytest.mark.ceph

_numbers = itertools.count(1)


class Shape(NamedTuple):
    """How an image is made. `size` in bytes."""

    size: int
    order: int
    features: int
    stripe_unit: int | None = None
    stripe_count: int | None = None
    split: bool = False


SHAPES = {
    "plain": Shape(300_000, 16, 1),
    "lock": Shape(300_000, 16, 5),
    "map": Shape(300_000, 16, 61),
    "striped": Shape(700_001, 17, 1, 16384, 3),
    "striped with map": Shape(1 << 20, 18, 61, 65536, 4),
    "data pool": Shape(300_000, 16, 61, None, None, True),
    "large objects": Shape(9 << 20, 22, 61),
    "small objects": Shape(40_960, 12, 29),
    "empty": Shape(0, 16, 61),
}


@pytest.fixture(scope="module")
def twins(ceph: CephCluster) -> Iterator[Twins]:
    twins = Twins(ceph, "calls")
    yield twins
    twins.close()


class Pair:
    """One image on either side, and the handles that are open on them."""

    def __init__(self, twins: Twins, shape: Shape) -> None:
        self._twins = twins
        self.name = f"image-{next(_numbers)}"
        self.handles: list[Any] = [None, None]
        self.call_module(
            lambda module, ioctx, side: module.RBD().create(
                ioctx, self.name, shape.size, shape.order, False, shape.features, shape.stripe_unit, shape.stripe_count,
                twins.data_pools[side] if shape.split else None,
            )
        )  # fmt: skip

    def call_module(self, call: Any) -> Outcome:
        return self._twins.both(call)

    def open(self, **how: Any) -> Outcome:
        """Open it anew on both sides; True where that worked."""

        def do(module: Any, ioctx: Any, side: int) -> bool:
            self.handles[side] = module.Image(ioctx, self.name, **how)
            return True

        self.close()
        return self._twins.both(do)

    def call(self, method: str, *arguments: Any) -> Outcome:
        return self._twins.both(lambda module, ioctx, side: getattr(self.handles[side], method)(*arguments))

    def close(self) -> None:
        for side, handle in enumerate(self.handles):
            if handle is not None:
                handle.close()
                self.handles[side] = None

    def remove(self) -> None:
        self.close()
        self._twins.both(lambda module, ioctx, side: module.RBD().remove(ioctx, self.name))


EDGES = [0, 1, 511, 4095, 4096, 12_288, 16_384, 40_960, 65_535, 65_536, 65_537, 131_072, 262_144, 300_000, 1 << 20]
offsets = st.sampled_from([*EDGES, (1 << 22) - 1, 1 << 22, (9 << 20) - 1, 9 << 20, 1 << 62, 2**64 - 2])
lengths = st.sampled_from([0, 1, 512, 4096, 65_535, 65_536, 65_537, 131_072, 262_144, 1 << 20, (4 << 20) + 5])
discards = lengths | st.sampled_from([2**31 - 1, 2**31, 2**40])
sizes = st.sampled_from([*EDGES, 300_001, (4 << 20) + 1, 9 << 20, 10 << 20])
huge = sizes | st.sampled_from([1 << 62, 2**64 - 2**23])  # only where there is a map, which refuses them
keys = st.sampled_from(["", "a", "é", b"bytes", "n\0ul", "conf_", "conf_rbd_cache", "conf_rbd_nonsense", "k" * 300])
values = st.sampled_from(["x", "true", b"12", "é", "n\0ul"])
options = st.sampled_from(["rbd_cache", "rbd_cache_size", "rbd_default_order", "rbd_nonsense", "", "conf_rbd_cache"])


def content(length: int) -> bytes:
    return bytes(range(1, 252)) * (length // 251) + bytes(range(1, 1 + length % 251))


CALLS = {
    "read": st.tuples(offsets, lengths),
    "write": st.tuples(lengths.map(content), offsets),
    "discard": st.tuples(offsets, discards),
    "write_zeroes": st.tuples(offsets, lengths) | st.tuples(offsets, lengths, st.sampled_from([0, 1, 2, 3])),
    "resize": st.tuples(sizes) | st.tuples(sizes, st.booleans()),
    "flush": st.just(()),
    "stat": st.just(()),
    "metadata_set": st.tuples(keys, values),
    "metadata_get": st.tuples(keys),
    "metadata_remove": st.tuples(keys),
    "metadata_list": st.just(()),
    "config_set": st.tuples(options, values),
    "config_get": st.tuples(options),
    "config_remove": st.tuples(options),
    "config_list": st.just(()),
}
OFTEN = ["read", "write", "write", "write", "discard", "discard", "write_zeroes", "write_zeroes", "resize"]
calls = st.sampled_from([*OFTEN, *OFTEN, *CALLS]).flatmap(lambda name: st.tuples(st.just(name), CALLS[name]))


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=st.lists(calls, min_size=6, max_size=18))
def test_sequences(twins: Twins, shape: str, script: list[tuple[str, tuple[Any, ...]]]) -> None:
    pair = Pair(twins, SHAPES[shape])
    try:
        pair.open()
        for name, arguments in script:
            if name == "stat":
                assert_same_stat(pair)
            elif name == "resize" and SHAPES[shape].order == 12:  # thousands of objects take their time
                pair.call(name, min(arguments[0], 300_001), *arguments[1:])
            else:
                pair.call(name, *arguments)
        size = pair.call("size").value
        if size <= 16 << 20:
            pair.call("read", 0, size)
        pair.close()
        twins.stored()
    finally:
        drop(twins)


def drop(twins: Twins) -> None:
    """Forget all images the quick way: some are too large for their removal."""
    for pools in (twins.pools, twins.data_pools):
        for ioctx, pool in zip(twins.ioctxs, pools, strict=True):
            empty(twins, ioctx, pool)


def empty(twins: Twins, ioctx: Any, pool: str) -> None:
    with twins.client_of(ioctx).open_ioctx(pool) as own:
        for found in list(own.list_objects()):
            if found.key != "rbd_info":
                own.remove_object(found.key)


def assert_same_stat(pair: Pair) -> None:
    theirs, mine = (handle.stat() for handle in pair.handles)
    for stat, handle in ((theirs, pair.handles[0]), (mine, pair.handles[1])):
        shown = stat.pop("block_name_prefix")  # librbd's has room for 23 characters
        assert handle.block_name_prefix().startswith(shown) and len(shown) >= min(23, len(handle.block_name_prefix()))
    assert mine == theirs


FAULTY = st.one_of(
    st.tuples(st.just("read"), st.tuples(offsets, st.sampled_from([0, 1, 4096]))),
    st.tuples(
        st.just("write"), st.tuples(st.sampled_from([b"", b"x", b"y" * 5000, "text", None, 5]), offsets | st.just(-1))
    ),
    st.tuples(st.just("discard"), st.tuples(offsets | st.sampled_from([-1, None, "1"]), discards)),
    st.tuples(st.just("write_zeroes"), st.tuples(offsets, lengths, st.sampled_from([0, 1, 2, None, 2**31]))),
    st.tuples(st.just("resize"), st.tuples(huge | st.sampled_from([-1, None, 2**64]), st.booleans())),
    st.tuples(st.just("metadata_set"), st.tuples(keys | st.none() | st.just(5), values | st.none())),
    st.tuples(st.just("metadata_remove"), st.tuples(keys | st.none())),
    st.tuples(st.just("metadata_get"), st.tuples(keys | st.none())),
    st.tuples(st.just("config_set"), st.tuples(options | st.none(), values | st.none())),
    st.tuples(st.just("config_remove"), st.tuples(options | st.none())),
    st.tuples(st.just("config_get"), st.tuples(options | st.none())),
    st.tuples(st.sampled_from(["flush", "size", "features", "flags", "old_format", "__repr__"]), st.just(())),
)


@pytest.mark.parametrize("state", ["writable", "read-only", "snapshot", "closed"])
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=FAULTY)
def test_which_error_comes_first(
    twins: Twins, states: dict[str, Pair], state: str, call: tuple[str, tuple[Any, ...]]
) -> None:
    states[state].call(call[0], *call[1])


@pytest.fixture(scope="module")
def states(twins: Twins) -> Iterator[dict[str, Pair]]:
    """Images whose handles are what the key says."""
    pairs = {name: Pair(twins, SHAPES["map"]) for name in ("writable", "read-only", "snapshot", "closed")}
    hows: list[dict[str, Any]] = [{}, {"read_only": True}, {"snapshot": "snap"}, {}]
    for pair, how in zip(pairs.values(), hows, strict=True):
        for ioctx in twins.ioctxs:
            with real.Image(ioctx, pair.name) as image:
                image.create_snap("snap")
        assert pair.open(**how).value
    for handle in pairs["closed"].handles:
        handle.close()
    yield pairs
    for pair in pairs.values():
        pair.close()
    drop(twins)


@pytest.mark.parametrize("how", [{"read_only": True}, {"snapshot": "s"}, {}], ids=["read-only", "snapshot", "writing"])
def test_owners_by_handle(twins: Twins, how: dict[str, Any]) -> None:
    """Only a handle that could have the lock tells who has it."""
    pair = Pair(twins, SHAPES["map"])
    try:
        pair.open()
        pair.call("create_snap", "s")
        pair.open(**how)
        assert (pair.call("lock_get_owners").raised is None) == (not how)
    finally:
        pair.open()
        pair.call("remove_snap", "s")
        pair.remove()
