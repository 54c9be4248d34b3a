"""Any sequence of reads, writes, discards, zeroes and resizes against a bytearray, over many layouts and both clusters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import rbd_native as rbd
from tests.image.room import Room

GRANULARITY = 65536
TOP = 3 << 20

LAYOUTS: dict[str, dict[str, Any]] = {
    "order 12": {"order": 12, "features": 1},
    "order 12 with map": {"order": 12, "features": 61},
    "order 16": {"order": 16, "features": 61},
    "order 22": {"order": 22, "features": 61},
    "striped 64K x 4": {"order": 18, "features": 1, "stripe_unit": 65536, "stripe_count": 4},
    "striped 4K x 3 with map": {"order": 16, "features": 61, "stripe_unit": 4096, "stripe_count": 3},
    "striped 512 x 7": {"order": 13, "features": 5, "stripe_unit": 512, "stripe_count": 7},
    "data pool": {"order": 17, "features": 61, "data_pool": True},
}

offsets = st.integers(0, TOP) | st.builds(
    lambda block, unit, by: max(block * unit + by, 0),
    st.integers(0, 48),
    st.sampled_from([512, 4096, 65536]),
    st.integers(-2, 2),
)
lengths = st.integers(0, 300_000) | st.sampled_from([1, 512, 4096, 65536, 131_072, 262_144, TOP])
sizes = offsets


class Model:
    """The bytes of an image, by the book."""

    def __init__(self, size: int, layout: dict[str, Any]) -> None:
        self.data = np.zeros(size, np.uint8)
        self.object_size = 1 << layout["order"]
        self.unit = layout.get("stripe_unit") or self.object_size
        self.count = layout.get("stripe_count") or 1

    def resize(self, size: int) -> None:
        kept = self.data[:size]
        self.data = np.zeros(size, np.uint8)
        self.data[: len(kept)] = kept

    def discard(self, offset: int, length: int) -> None:
        """Of each object the part that lies within, rounded inward."""
        within = np.arange(offset, min(offset + length, len(self.data)))
        stripe, stripe_position = np.divmod(within // self.unit, self.count)
        object_set, row = np.divmod(stripe, self.object_size // self.unit)
        objectno = object_set * self.count + stripe_position
        place = row * self.unit + within % self.unit
        granularity = min(GRANULARITY, self.object_size)
        for number in np.unique(objectno):
            mine = objectno == number
            start, end = int(place[mine].min()), int(place[mine].max()) + 1
            if granularity < self.object_size or end < self.object_size:
                start, end = -(-start // granularity) * granularity, end // granularity * granularity
            self.data[within[mine & (place >= start) & (place < end)]] = 0


class Comparison(RuleBasedStateMachine):
    """One image and its model."""

    new_image: Callable[[int], tuple[Any, str]]  # (its size) -> (ioctx, name)
    layout: dict[str, Any]

    @initialize(size=sizes)
    def create(self, size: int) -> None:
        self.ioctx, self.name = type(self).new_image(size)
        self.image = rbd.Image(self.ioctx, self.name)
        self.model = Model(size, self.layout)
        self.turn = 0

    @rule(offset=offsets, length=lengths)
    def write(self, offset: int, length: int) -> None:
        self.turn += 1
        data: Any = np.random.default_rng(self.turn).integers(1, 256, length, np.uint8)
        room = len(self.model.data) - offset
        if length and room <= 0:
            with pytest.raises(rbd.InvalidArgument):
                self.image.write(data, offset)
        elif length > max(room, 0):
            with pytest.raises(rbd.IncompleteWriteError):
                self.image.write(data, offset)
            self.model.data[offset:] = data[:room]
        else:
            assert self.image.write(data, offset) == length
            self.model.data[offset : offset + length] = data

    @rule(offset=offsets, length=lengths)
    def read(self, offset: int, length: int) -> None:
        if length and offset >= len(self.model.data):
            with pytest.raises(rbd.InvalidArgument):
                self.image.read(offset, length)
        else:
            assert self.image.read(offset, length) == self.model.data[offset : offset + length].tobytes()

    @rule(offset=offsets, length=lengths)
    def discard(self, offset: int, length: int) -> None:
        if length and offset >= len(self.model.data):
            with pytest.raises(rbd.InvalidArgument):
                self.image.discard(offset, length)
        else:
            self.image.discard(offset, length)
            self.model.discard(offset, length)

    @rule(offset=offsets, length=lengths, thick=st.booleans())
    def zero(self, offset: int, length: int, thick: bool) -> None:
        if length and offset >= len(self.model.data):
            with pytest.raises(rbd.InvalidArgument):
                self.image.write_zeroes(offset, length, int(thick))
        else:
            self.image.write_zeroes(offset, length, int(thick))
            self.model.data[offset : offset + length] = 0

    @rule(size=sizes)
    def resize(self, size: int) -> None:
        self.image.resize(size)
        self.model.resize(size)

    @rule(read_only=st.booleans())
    def open_again(self, read_only: bool) -> None:
        if read_only:
            self.image.flush()  # else another handle need not see it
            with rbd.Image(self.ioctx, self.name, read_only=True) as other:
                assert other.read(0, len(self.model.data)) == self.model.data.tobytes()
        else:
            self.image.close()
            self.image = rbd.Image(self.ioctx, self.name)

    @rule()
    def flush(self) -> None:
        self.image.flush()

    @invariant()
    def size_is_the_same(self) -> None:
        if hasattr(self, "image"):
            assert self.image.size() == len(self.model.data)

    def teardown(self) -> None:
        if hasattr(self, "image"):
            try:
                assert self.image.read(0, len(self.model.data)) == self.model.data.tobytes()
            finally:
                self.image.close()
            rbd.RBD().remove(self.ioctx, self.name)
            assert not rbd.RBD().list(self.ioctx)


CACHES: dict[str, dict[str, str]] = {
    "none": {"rbd_cache": "false"},
    "as it comes": {},
    "writearound": {"rbd_cache_writethrough_until_flush": "false"},
    "writeback": {"rbd_cache_writethrough_until_flush": "false", "rbd_cache_policy": "writeback"},
    "small": {
        "rbd_cache_writethrough_until_flush": "false",
        "rbd_cache_policy": "writeback",
        "rbd_cache_max_dirty": "200000",
        "rbd_cache_target_dirty": "70000",
    },
}


@pytest.mark.parametrize(
    ("layout", "cache"),
    [*((layout, "as it comes") for layout in LAYOUTS), *(("order 16", cache) for cache in CACHES),
     *(("striped 4K x 3 with map", cache) for cache in ("none", "writearound", "small"))],
)  # fmt: skip
def test_against_a_bytearray(room: Room, layout: str, cache: str) -> None:
    arguments = dict(LAYOUTS[layout])
    ioctx = room.ioctx(cluster=room.connect(**CACHES[cache]))
    if arguments.get("data_pool"):
        arguments["data_pool"] = room.create_pool()

    def new_image(size: int) -> tuple[Any, str]:
        rbd.RBD().create(ioctx, "image", size, **arguments)
        return ioctx, "image"

    machine = type("Machine", (Comparison,), {"new_image": staticmethod(new_image), "layout": arguments})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=7, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)),
    )
