"""The contract of the RADOS port as tests: what every adapter must keep true, judged by a real cluster.

An adapter is put to it by subclassing the test classes with a fixture that opens it::

    from rbd_native.testing import contract

    class Mine:
        @pytest.fixture
        def new_io(self):
            ...
            return lambda: my_adapter.connect(cluster).io(pool_id)

    class TestData(Mine, contract.DataContract): ...
    class TestOmap(Mine, contract.OmapContract): ...

`contract.ALL` lists the classes. Every test runs twice: blocking, and driven by completions. What an adapter cannot do, by
its `capabilities`, is tested to be refused with EOPNOTSUPP.
"""

from __future__ import annotations

from typing import Final

from rbd_native.testing.contract.base import Contract, Do, blocking, by_completion
from rbd_native.testing.contract.client import ClassContract, ClusterContract, ListingContract
from rbd_native.testing.contract.compound import ComparisonContract, CompoundContract
from rbd_native.testing.contract.data import DataContract
from rbd_native.testing.contract.omap import OmapContract, XattrContract
from rbd_native.testing.contract.snapshots import SnapshotContract
from rbd_native.testing.contract.watches import WatchContract

__all__ = [
    "ALL",
    "ClassContract",
    "ClusterContract",
    "ComparisonContract",
    "CompoundContract",
    "Contract",
    "DataContract",
    "Do",
    "ListingContract",
    "OmapContract",
    "SnapshotContract",
    "WatchContract",
    "XattrContract",
    "blocking",
    "by_completion",
]

ALL: Final[tuple[type[Contract], ...]] = (
    ClassContract,
    ClusterContract,
    ComparisonContract,
    CompoundContract,
    DataContract,
    ListingContract,
    OmapContract,
    SnapshotContract,
    WatchContract,
    XattrContract,
)
