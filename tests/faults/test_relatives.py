"""Clones are looked for in every pool: those that are deleted meanwhile have none."""

import struct
from typing import Any

import pytest

from rbd_native.rados.connect import port_for
from tests.faults.conftest import OURS, Side


@pytest.fixture
def parent(side: Side) -> Any:
    """With a protected snapshot `s`, and a clone of it."""
    side.create("parent")
    with side.image("parent") as image:
        image.create_snap("s")
        image.protect_snap("s")
        side.rbd.RBD().clone(side.ioctx, "parent", "s", side.ioctx, "child", features=61)
        yield image


def remove_pool(side: Side, name: str) -> None:
    side.client.delete_pool(name)
    side.client.wait_for_latest_osdmap()


def listed(side: Side, image: Any) -> list[Any]:
    """By each of the calls that list clones."""
    return [
        [name for _, name in image.list_children()],
        [child["image"] for child in image.list_children2()],
        [child["image"] for child in image.list_descendants()],
    ]


@pytest.mark.parametrize("side", OURS, indirect=True)
def test_a_pool_that_is_deleted_after_it_was_listed(side: Side, parent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = side.backend.create_pool()
    side.client.wait_for_latest_osdmap()
    number = side.client.pool_lookup(other)
    remove_pool(side, other)
    cluster = type(port_for(side.ioctx).cluster)
    pools = cluster.pools

    async def as_before(self: Any) -> dict[int, str]:
        return {number: other, **await pools(self)}

    monkeypatch.setattr(cluster, "pools", as_before)
    assert listed(side, parent) == [["child"]] * 3
    parent.unprotect_snap("s")
    parent.protect_snap("s")
    parent.remove_snap2("s", 3)  # flattens the clones, unprotects
    assert list(parent.list_snaps()) == []


def test_a_clone_whose_pool_was_deleted(side: Side, parent: Any) -> None:
    """Its parent does not hear of that: it goes on showing it, without names, as librbd does."""
    pool = side.backend.create_pool()
    side.client.wait_for_latest_osdmap()
    there = side.backend.ioctx(pool, cluster=side.client)
    side.rbd.RBD().clone(side.ioctx, "parent", "s", there, "far", features=61)
    assert listed(side, parent) == [["child", "far"]] * 3
    (identifier,) = [child["id"] for child in parent.list_children2() if child["image"] == "far"]
    there.close()
    remove_pool(side, pool)
    assert listed(side, parent) == [["", "child"]] * 3
    gone = next(iter(parent.list_children2()))
    assert gone == {"pool": "", "pool_namespace": "", "image": "", "id": identifier, "trash": False}


def test_a_clone_that_is_nowhere_is_an_error(side: Side, parent: Any) -> None:
    """Else a snapshot might be taken for one that nobody needs."""
    spec = struct.pack("<q", side.client.pool_lookup(side.backend.pool)) + _text("nobody") + _text("")
    body = struct.pack("<QBBI", parent.snap_get_id("s"), 2, 1, len(spec)) + spec
    side.ioctx.execute(f"rbd_header.{parent.id()}", "rbd", "child_attach", body)
    with side.image("parent") as image:
        for call in (image.list_children, image.list_children2, image.list_descendants):
            assert side.answer(call) == "ImageNotFound"
        assert side.answer(image.remove_snap2, "s", 3) == "ImageNotFound"
        assert image.is_protected_snap("s")
    side.ioctx.execute(f"rbd_header.{parent.id()}", "rbd", "child_detach", body)
    with side.image("parent") as image:
        assert listed(side, image) == [["child"]] * 3


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()
