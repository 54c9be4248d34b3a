"""All images described without opening them, judged by librbd, which opens each; and by `rbd ls -l`, which does, too."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import rados
import rbd as real

import rbd_native as ours
from tests.backend import Backend, ceph_backend
from tests.bad_headers import BORNE, BROKEN, REFUSED, Header
from tests.cluster import CephCluster
from tests.gallery import Gallery, by_opening, without_zones
from tests.stored import contents

pytestmark = pytest.mark.ceph


@pytest.fixture(scope="module", params=[real, ours], ids=["librbd's images", "ours"])
def house(ceph: CephCluster, request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A pool of images, made with either library."""
    with pytest.MonkeyPatch.context() as patch, ceph_backend(ceph, f"details-{request.param.__name__}") as house:
        patch.setenv("RBD_FORCE_ALLOW_V1", "1")
        gallery = Gallery(request.param, lambda **conf: house.ioctx(cluster=house.connect(**conf)), house.create_pool())
        yield house
        gallery.close()


def test_each_value(house: Backend) -> None:
    ioctx = house.ioctx()
    before = contents(rados, ioctx)
    found = list(ours.RBD().list_details(ioctx))
    assert contents(rados, ioctx) == before
    listed = list(real.RBD().list2(ioctx))
    assert [(row["id"], row["name"]) for row in found] == [(entry["id"], entry["name"]) for entry in listed]
    assert len(found) > 25
    for row, entry in zip(found, listed, strict=True):
        assert without_zones(row) == by_opening(real, rados, ioctx, entry)


def test_the_images_are_of_all_sorts(house: Backend) -> None:
    """Else the other tests say little."""
    rows = {row["name"]: row for row in ours.RBD().list_details(house.ioctx())}
    kinds = {snap["namespace"] for row in rows.values() for snap in row["snapshots"]}
    assert kinds == {
        real.RBD_SNAP_NAMESPACE_TYPE_USER, real.RBD_SNAP_NAMESPACE_TYPE_GROUP, real.RBD_SNAP_NAMESPACE_TYPE_TRASH
    }  # fmt: skip
    with_parent = {name for name, row in rows.items() if row["parent"]}
    assert with_parent == {"clone", "shrunk", "all snapshots", "clone 2", "grandchild"}
    assert rows["shrunk"]["parent"]["overlap"] == 100_000
    assert {name for name, row in rows.items() if row["lock"]} == {"locked", "shared", "held", "old"}
    assert len(rows["shared"]["lock"]["lockers"]) == 2
    assert [name for name, row in rows.items() if row["old_format"]] == ["old", "older"]
    assert [name for name, row in rows.items() if row["group"]] == ["member"]
    assert {row["flags"] for row in rows.values()} == {0, 3}
    assert len({row["data_pool_id"] for row in rows.values()}) == 2


def test_the_program(house: Backend, ceph: CephCluster) -> None:
    """But for the parents of snapshots, which it tells too."""
    rows = list(ours.RBD().list_details(house.ioctx()))
    names = {row["id"]: row["name"] for row in rows}
    snapshots = {(row["id"], snap["id"]): snap["name"] for row in rows for snap in row["snapshots"]}
    mine: list[dict[str, Any]] = []
    for row in rows:
        common = {"image": row["name"], "id": row["id"], "format": 1 if row["old_format"] else 2}
        image = common | {"size": row["size"]}
        if spec := row["parent"]:
            image["parent"] = {
                "pool": house.pool,
                "pool_namespace": spec["pool_namespace"],
                "image": names[spec["image_id"]],
                "snapshot": snapshots[spec["image_id"], spec["snap_id"]],
            }
        if row["lock"]:
            image["lock_type"] = "exclusive" if row["lock"]["exclusive"] else "shared"
        mine.append(image)
        mine += [
            common | {"size": snap["size"], "snapshot": snap["name"], "snapshot_id": snap["id"]}
            | {"protected": str(snap["protected"]).lower()}
            for snap in row["snapshots"]
            if snap["namespace"] == real.RBD_SNAP_NAMESPACE_TYPE_USER
        ]  # fmt: skip
    theirs = json.loads(ceph.cli("rbd", "ls", "-l", house.pool, "--format", "json"))
    for row in theirs:
        if "snapshot" in row:
            row.pop("parent", None)
    assert mine == theirs


TOLD = [
    *(case for case in BROKEN if case != "garbled order"),
    *("snap_seq below the ids", "snap_seq of the head", "greatest snap_seq", "prefix that ends too soon"),
]
ALIKE = (
    "data pool that is not,empty prefix,no stripe count,no stripe unit,overlap,size 2**44,size 2**44 map invalid,"
    "size 2**60 wide stripes,size 2**63,size 2**63 lock,size of snapshots,small stripe unit,snap_seq far ahead,"
    "unknown feature,unknown flags"
).split(",")
"""With most others librbd crashes, hangs, or opens an image whose numbers it does not understand."""


def test_bad_headers(ceph: CephCluster) -> None:
    """The same error, or the same values."""
    spoils = {case.replace(",", ""): spoil for case, (_, spoil) in REFUSED.items()} | BROKEN
    spoils |= {case.replace(",", ""): spoil for case, spoil in BORNE.items()}
    with ceph_backend(ceph, "details-bad") as house:
        ioctx = house.ioctx()
        ours.RBD().create(ioctx, "0 parent", 1 << 20, 16, features=61)
        with ours.Image(ioctx, "0 parent") as image:
            image.create_snap("s")
            image.protect_snap("s")
        for case in (*TOLD, *ALIKE):
            ours.RBD().clone(ioctx, "0 parent", "s", ioctx, case, features=61)
            with ours.Image(ioctx, case) as image:
                image.create_snap("s")
                spoils[case](Header(rados, ioctx, image.id()))
        rows = {row["name"]: row for row in ours.RBD().list_details(ioctx)}
        for case in TOLD:
            with pytest.raises(real.OSError) as caught:
                real.Image(ioctx, case, read_only=True)
            assert rows[case] == {"id": rows[case]["id"], "name": case, "error": caught.value.errno}
        for case in ALIKE:
            assert without_zones(rows[case]) == by_opening(real, rados, ioctx, rows[case])
