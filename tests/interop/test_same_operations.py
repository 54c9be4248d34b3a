"""What the OSD is asked for on data objects, by its own record: the same as librbd asks for, step by step."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rbd as real

import rbd_native as rbd
from tests.cluster import CephCluster

pytestmark = pytest.mark.ceph

ORDER = 22
OBJECT = 1 << ORDER


class Record:
    """The operations that an OSD has done, which it keeps for a time."""

    def __init__(self, ceph: CephCluster) -> None:
        (socket,) = (ceph.root / "run").glob("osd.0.*.asok")
        self._ask = lambda *command: ceph.cli("ceph", "--admin-daemon", str(socket), *command)
        self._ask("config", "set", "osd_op_history_size", "5000")
        self._ask("config", "set", "osd_op_history_duration", "3600")

    def read(self, ioctx: Any) -> list[str]:
        """All of them in order, the last one on a pool included."""
        ioctx.write_full("the last", b"")  # they are entered in order, but some time after they were done
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = json.loads(self._ask("dump_historic_ops"))["ops"]
            ordered = [operation["description"] for operation in sorted(found, key=lambda found: found["initiated_at"])]
            if any("the last" in description for description in ordered):
                return ordered
        raise AssertionError("the OSD keeps no record")


def on_objects(record: list[str], prefix: str) -> list[str]:
    """The number of the object and the steps of those on objects with a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\S+ \[.*\]) snapc")
    return [match[1] for match in map(pattern.search, record) if match]


@pytest.fixture(scope="module")
def record(ceph: CephCluster) -> Iterator[Record]:
    record = Record(ceph)
    yield record
    record._ask("config", "set", "osd_op_history_size", "20")


def some_of_each(image: Any) -> None:
    image.write(b"x" * 4096, 0)
    image.write(b"y" * 4096, 8192)
    image.write(b"y" * 4096, OBJECT - 2048)
    image.write(b"z" * OBJECT, 2 * OBJECT)
    image.write(b"z" * OBJECT, 2 * OBJECT)
    image.write_zeroes(0, 4096)
    image.discard(2 * OBJECT, OBJECT // 4)
    image.discard(8192, OBJECT)
    image.discard(2 * OBJECT, OBJECT)
    image.read(0, 100)


def with_snapshots(image: Any) -> None:
    image.write(b"x" * 4096, 0)
    image.write(b"x" * OBJECT, OBJECT)
    image.create_snap("s")
    image.write(b"y" * 4096, 100)
    image.write(b"z" * 4096, 5000)
    image.discard(OBJECT, OBJECT)
    image.write(b"z" * 4096, OBJECT)


CALLS: dict[str, Callable[[Any], None]] = {"some of each": some_of_each, "with snapshots": with_snapshots}


@pytest.mark.parametrize(
    "options", [{}, {"rbd_enable_alloc_hint": "false"}, {"rbd_compression_hint": "incompressible"}], ids=str
)
def test_same_steps(ceph: CephCluster, pool: str, record: Record, options: dict[str, str]) -> None:
    cluster = ceph.rados(rbd_cache="false", **options)
    prefixes: dict[tuple[int, str], list[str]] = {}
    with cluster.open_ioctx(pool) as ioctx:
        for features, calls, module in itertools.product((1, 5, 13, 61), CALLS, (real, rbd)):
            name = f"{features}-{calls}-{module.__name__}"
            real.RBD().create(ioctx, name, 16 << 20, order=ORDER, old_format=False, features=features)
            with module.Image(ioctx, name) as image:
                CALLS[calls](image)
                prefixes.setdefault((features, calls), []).append(image.block_name_prefix())
        asked = record.read(ioctx)
    cluster.shutdown()
    for key, (theirs, ours) in prefixes.items():
        expected = on_objects(asked, theirs)
        assert len(expected) >= 6, key
        assert on_objects(asked, ours) == expected, key
