"""Calls of class RBD and the opening of images, judged by librbd: the same results and errors, the same objects left."""

from collections.abc import Iterator
from typing import Any

import pytest
import rbd as real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster import CephCluster
from tests.interop.twins import Twins
from tests.stored import Stored

pytestmark = pytest.mark.ceph


@pytest.fixture(scope="module")
def twins(ceph: CephCluster) -> Iterator[Twins]:
    twins = Twins(ceph, "rbd-calls")
    yield twins
    twins.close()


good_names = st.sampled_from(["a", "b", b"c", "é", "a\0b"])
names = good_names | st.sampled_from(["", "none", "n" * 5000])
# By the last two no image is opened, nor at a snapshot's number: librbd's binding crashes.
things = names | st.sampled_from([None, 5])
targets = things | st.just("old")  # an image of format 1, or so it seems
booleans = st.booleans()


def create(module: Any, ioctx: Any, name: Any, features: int | None) -> None:
    module.RBD().create(ioctx, name, 200_000, 16, features=features)


def write(module: Any, ioctx: Any, name: Any) -> int:
    with module.Image(ioctx, name) as image:
        return image.write(b"x" * 100_000, 50_000)  # type: ignore[no-any-return]


def rename(module: Any, ioctx: Any, source: Any, destination: Any) -> None:
    module.RBD().rename(ioctx, source, destination)


def remove(module: Any, ioctx: Any, name: Any) -> None:
    module.RBD().remove(ioctx, name)


def list_names(module: Any, ioctx: Any) -> list[str]:
    return module.RBD().list(ioctx)  # type: ignore[no-any-return]


def list2(module: Any, ioctx: Any) -> list[str]:
    return [image["name"] for image in module.RBD().list2(ioctx)]


def open_by_name(module: Any, ioctx: Any, name: Any, snapshot: Any, read_only: bool) -> str:
    with module.Image(ioctx, name, snapshot, read_only) as image:
        return image.get_name()  # type: ignore[no-any-return]


def open_by_id(module: Any, ioctx: Any, name: Any, both: bool) -> str:
    with module.Image(ioctx, name) as image:
        identifier = image.id()
    with module.Image(ioctx, name if both else None, image_id=identifier) as image:
        return image.get_name()  # type: ignore[no-any-return]


def remove_and_listen(module: Any, ioctx: Any, name: Any) -> list[int]:
    heard: set[int] = set()

    def on_progress(done: int, total: int) -> int:
        heard.add(total)
        return 0  # librbd's binding does not do without

    module.RBD().remove(ioctx, name, on_progress=on_progress)
    return sorted(heard)


CALLS: list[Any] = [
    st.tuples(st.just(create), good_names, st.sampled_from([0, 1, 5, 61])),
    st.tuples(st.just(create), good_names, st.sampled_from([1, 61])),
    st.tuples(st.just(create), targets, st.sampled_from([None, 61])),
    st.tuples(st.just(write), good_names),
    st.tuples(st.just(rename), good_names, good_names),
    # Not to "": librbd refuses, as it should, but leaves an object `rbd_id.` behind.
    st.tuples(st.just(rename), things, targets.filter(lambda name: name != "")),
    st.tuples(st.just(remove), things),
    st.tuples(st.just(remove_and_listen), good_names),
    st.tuples(st.just(list_names)),
    st.tuples(st.just(list2)),
    st.tuples(st.just(open_by_name), names, st.sampled_from([None, None, "none", ""]), booleans),
    st.tuples(st.just(open_by_id), names, booleans),
]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=st.lists(st.one_of(CALLS), min_size=8, max_size=20))
def test_sequences(twins: Twins, script: list[tuple[Any, ...]]) -> None:
    for ioctx in twins.ioctxs:
        ioctx.write_full("old.rbd", b"format 1")
    try:
        for call, *arguments in script:
            twins.both(lambda module, ioctx, side, call=call, given=arguments: call(module, ioctx, *given))
        directories_are_true(twins.stored())
    finally:
        twins.clean()
    left = twins.stored()
    assert set(left) <= {"rbd_directory", "rbd_info", "rbd_trash", "old.rbd", "data:rbd_info"}
    assert not left.get("rbd_trash", Stored(b"", {}, {})).omap


def directories_are_true(pool: dict[str, Stored]) -> None:
    """Every name leads to an id with a header, and no other header is there."""
    entries = pool.get("rbd_directory", Stored(b"", {}, {})).omap
    named = [key.removeprefix("name_") for key in entries if key.startswith("name_")]
    assert sorted(f"rbd_id.{name}" for name in named) == sorted(key for key in pool if key.startswith("rbd_id."))
    assert len(named) == sum(key.startswith("rbd_header.") for key in pool)


@pytest.mark.parametrize(
    ("features", "held"),
    [(1, "reader"), (1, "writer"), (1, "user lock"), (61, "reader"), (61, "writer"), (61, "owner"), (61, "manual owner")],
)
@pytest.mark.parametrize("action", ["remove", "rename"])
def test_while_somebody_has_it_open(twins: Twins, ceph: CephCluster, held: str, features: int, action: str) -> None:
    """The one who has it open is librbd on both sides. (A user lock where there is an exclusive lock makes librbd wait.)"""

    def do(module: Any, ioctx: Any, side: int) -> None:
        if action == "remove":
            module.RBD().remove(ioctx, "held")
        else:
            module.RBD().rename(ioctx, "held", "held")  # never works: the image stays what it is
        raise AssertionError("neither may be done")

    if held == "reader" and action == "remove":
        return  # nobody knows of a reader
    client = ceph.rados()
    try:
        ioctxs = [client.open_ioctx(pool) for pool in twins.pools]
        for ioctx in ioctxs:
            real.RBD().create(ioctx, "held", 1 << 20, features=features)
        images = [real.Image(ioctx, "held", read_only=held == "reader") for ioctx in ioctxs]
        for image in images:
            if held == "owner":
                image.write(b"x", 0)
            elif held == "manual owner":
                image.lock_acquire(real.RBD_LOCK_MODE_EXCLUSIVE)
            elif held == "user lock":
                image.lock_exclusive("cookie")
        try:
            assert twins.both(do).raised == {"remove": "ImageBusy", "rename": "ImageExists"}[action]
        finally:
            for image in images:
                if held == "user lock":
                    image.unlock("cookie")
                image.close()
    finally:
        client.shutdown()
        twins.clean()


TEXTS = ["layering", "layering,striping", " layering", "layering,,", ",", "61", "0x3d", "-1", "4096", "9" * 20, "nonsense"]


@pytest.mark.parametrize("text", [*TEXTS, "LAYERING", "1,4", "", "journaling,dirty-cache"])
def test_names_of_features(twins: Twins, text: str) -> None:
    twins.both(lambda module, ioctx, side: module.RBD().features_from_string(text))


@pytest.mark.parametrize("mask", [0, 1, 61, 2047, 2048, 4095, 4096, 1 << 40, 2**64 - 1, 2**64, -1, None, "1", 1.5])
def test_features_by_name(twins: Twins, mask: Any) -> None:
    twins.both(lambda module, ioctx, side: module.RBD().features_to_string(mask))
