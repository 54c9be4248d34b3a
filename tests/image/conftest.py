"""Rooms: what most tests of images need of a cluster, quickly to be had."""

import itertools
from collections.abc import Iterator

import pytest

from tests.backend import Backend, ceph_backend, embedded_backend
from tests.image.room import Room

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["embedded", pytest.param("ceph", marks=pytest.mark.ceph)])
def house(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A pool of each kind of cluster for all tests of a module."""
    if request.param == "embedded":
        with embedded_backend() as embedded:
            yield embedded
    else:
        with ceph_backend(request.getfixturevalue("ceph"), f"house-{next(_numbers)}") as real:
            yield real


@pytest.fixture
def room(house: Backend) -> Iterator[Room]:
    """A namespace of the test's own, of either kind of cluster."""
    room = Room(house, f"room-{next(_numbers)}")
    yield room
    room.close()
