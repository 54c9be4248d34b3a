"""Trash, namespaces and what is asked of a pool, on both kinds of cluster; a real one's librbd agrees (tests/interop)."""

import datetime
import errno
from collections.abc import Callable
from typing import Any

import pytest

import rbd_native as rbd
from tests.backend import Backend, now
from tests.stored import contents

MIB = 1 << 20
RBD = rbd.RBD()


def make(ioctx: Any, name: str, size: int = MIB, **layout: Any) -> str:
    """Create an image; its id."""
    RBD.create(ioctx, name, size, **layout)
    with rbd.Image(ioctx, name) as image:
        return image.id()


def names(ioctx: Any) -> list[str]:
    return sorted(entry["name"] for entry in RBD.trash_list(ioctx))


def refused(kind: type[rbd.OSError], code: int | None, call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert caught.value.errno == code


@pytest.mark.parametrize("features", [1, 5, 61])
def test_there_and_back(backend: Backend, features: int) -> None:
    ioctx = backend.ioctx()
    identifier = make(ioctx, "image", features=features)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"data", 4096)
        image.create_snap("snap")
    RBD.trash_move(ioctx, "image", 100)
    refused(rbd.ImageNotFound, errno.ENOENT, rbd.Image, ioctx, "image")
    (entry,) = RBD.trash_list(ioctx)
    assert entry == RBD.trash_get(ioctx, identifier)
    assert (entry["id"], entry["name"], entry["source"]) == (identifier, "image", "USER")
    assert entry["deferment_end_time"] - entry["deletion_time"] == datetime.timedelta(seconds=100)
    assert abs(now() - entry["deletion_time"]) < datetime.timedelta(minutes=1)
    with rbd.Image(ioctx, image_id=identifier) as image:
        assert (image.get_name(), image.read(4096, 4)) == ("image", b"data")
    RBD.trash_restore(ioctx, identifier, "again")
    assert (RBD.list(ioctx), names(ioctx)) == (["again"], [])
    with rbd.Image(ioctx, "again") as image:
        assert (image.id(), image.read(4096, 4)) == (identifier, b"data")
        assert [snapshot["name"] for snapshot in image.list_snaps()] == ["snap"]


def test_what_is_refused(backend: Backend) -> None:
    ioctx = backend.ioctx()
    identifier = make(ioctx, "image", features=61)
    with rbd.Image(ioctx, "image") as image:
        image.create_snap("snap")
    RBD.trash_move(ioctx, "image", 1000)
    make(ioctx, "image")
    refused(rbd.ImageNotFound, errno.ENOENT, RBD.trash_move, ioctx, "none")
    refused(rbd.ImageNotFound, errno.ENOENT, RBD.trash_get, ioctx, "none")
    refused(rbd.PermissionError, errno.EPERM, RBD.trash_remove, ioctx, identifier)
    refused(rbd.ImageHasSnapshots, errno.ENOTEMPTY, RBD.trash_remove, ioctx, identifier, True)
    refused(rbd.ImageExists, errno.EEXIST, RBD.trash_restore, ioctx, identifier, "")
    for threshold in (-0.1, 1.1):
        refused(rbd.InvalidArgument, errno.EINVAL, RBD.trash_purge, ioctx, None, threshold)
    other = backend.ioctx(cluster=backend.connect())
    with rbd.Image(other, image_id=identifier) as image:
        image.remove_snap("snap")
        refused(rbd.ImageBusy, errno.EBUSY, RBD.trash_remove, ioctx, identifier, True)
        assert image.write(b"x", 0) == 1
    RBD.trash_remove(ioctx, identifier, True)
    assert names(ioctx) == []


def test_progress_of_a_removal(backend: Backend) -> None:
    ioctx = backend.ioctx()
    identifier = make(ioctx, "image", order=16)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"x" * MIB, 0)
    RBD.trash_move(ioctx, "image")
    seen: list[tuple[int, int]] = []

    def hear(done: int, total: int) -> None:
        seen.append((done, total))

    RBD.trash_remove(ioctx, identifier, on_progress=hear)
    assert seen and seen == sorted(set(seen)) and {total for _, total in seen} == {16}
    assert set(contents(backend.rados_module, ioctx)) <= {"rbd_directory", "rbd_info", "rbd_trash"}


def test_purge_by_time(backend: Backend) -> None:
    ioctx = backend.ioctx()
    for name, delay in (("now", 0), ("soon", 1000), ("late", 100_000)):
        make(ioctx, name)
        RBD.trash_move(ioctx, name, delay)
    zone = datetime.timezone(datetime.timedelta(hours=9))
    RBD.trash_purge(ioctx, now(zone) - datetime.timedelta(seconds=100))
    assert names(ioctx) == ["late", "now", "soon"]
    RBD.trash_purge(ioctx)
    assert names(ioctx) == ["late", "soon"]
    RBD.trash_purge(ioctx, now(zone) + datetime.timedelta(seconds=2000))
    assert names(ioctx) == ["late"]
    RBD.trash_purge(ioctx, now(None) + datetime.timedelta(days=3))
    assert names(ioctx) == []


def test_purge_goes_on_behind_what_cannot_go(backend: Backend) -> None:
    ioctx = backend.ioctx()
    for name in "abcd":
        make(ioctx, name)
    with rbd.Image(ioctx, "b") as image:
        image.create_snap("snap")
    for name in "abcd":
        RBD.trash_move(ioctx, name)
    refused(rbd.ImageHasSnapshots, errno.ENOTEMPTY, RBD.trash_purge, ioctx)
    assert names(ioctx) == ["b"]


def test_namespaces(backend: Backend) -> None:
    ioctx = backend.ioctx()
    assert RBD.namespace_list(ioctx) == []
    for name in ("b", "a", "é"):
        RBD.namespace_create(ioctx, name)
    assert RBD.namespace_list(ioctx) == ["a", "b", "é"]
    refused(rbd.ImageExists, errno.EEXIST, RBD.namespace_create, ioctx, "a")
    for call in (RBD.namespace_create, RBD.namespace_remove, RBD.namespace_exists):
        refused(rbd.InvalidArgument, errno.EINVAL, call, ioctx, "")
    within = backend.ioctx(namespace="a")
    assert RBD.namespace_list(within) == ["a", "b", "é"]
    identifier = make(within, "image")
    assert (RBD.list(within), RBD.list(ioctx)) == (["image"], [])
    refused(rbd.ImageBusy, errno.EBUSY, RBD.namespace_remove, ioctx, "a")
    RBD.trash_move(within, "image")
    assert (names(within), names(ioctx)) == (["image"], [])
    refused(rbd.ImageBusy, errno.EBUSY, RBD.namespace_remove, ioctx, "a")
    assert RBD.namespace_exists(ioctx, "a")
    make(within, "other")
    RBD.remove(within, "other")
    RBD.trash_remove(within, identifier)
    RBD.namespace_remove(ioctx, "a")
    assert not RBD.namespace_exists(ioctx, "a")
    assert contents(backend.rados_module, within) == {}
    refused(rbd.ImageNotFound, errno.ENOENT, RBD.namespace_remove, ioctx, "a")
    refused(rbd.ImageNotFound, errno.ENOENT, RBD.create, within, "image", MIB)


def test_metadata_and_options_of_a_pool(backend: Backend) -> None:
    ioctx = backend.ioctx()
    assert list(RBD.pool_metadata_list(ioctx)) == []
    pairs = {f"key{number:03}": "" if number % 7 == 0 else f"{number}" for number in range(130)}
    for key, value in pairs.items():
        RBD.pool_metadata_set(ioctx, key, value)
    assert list(RBD.pool_metadata_list(ioctx)) == list(pairs.items())
    RBD.pool_metadata_remove(ioctx, "key001")
    for absent in (RBD.pool_metadata_get, RBD.pool_metadata_remove, RBD.config_get, RBD.config_remove):
        with pytest.raises(KeyError):
            absent(ioctx, "key001")
    RBD.config_set(ioctx, "rbd_default_order", "20")
    assert RBD.config_get(ioctx, "rbd_default_order") == RBD.pool_metadata_get(ioctx, "conf_rbd_default_order") == "20"
    listed = {option["name"]: option for option in RBD.config_list(ioctx)}
    assert listed["rbd_default_order"] == {"name": "rbd_default_order", "value": "20", "source": rbd.RBD_CONFIG_SOURCE_POOL}
    assert listed["rbd_cache"]["source"] == rbd.RBD_CONFIG_SOURCE_CONFIG
    make(ioctx, "image")
    with rbd.Image(ioctx, "image") as image:
        assert image.stat()["order"] == 20
    for key, value in (("rbd_default_order", "x"), ("rbd_op_threads", "1"), ("rbd_nonsense", "1")):
        refused(rbd.InvalidArgument, errno.EINVAL, RBD.config_set, ioctx, key, value)


def test_statistics(backend: Backend) -> None:
    ioctx = backend.ioctx()
    RBD.pool_init(ioctx, False)
    assert set(RBD.pool_stats_get(ioctx).values()) == {0}
    make(ioctx, "a", 5 * MIB)
    with rbd.Image(ioctx, "a") as image:
        image.create_snap("large")
        image.resize(MIB)
    make(ioctx, "b", 3 * MIB)
    RBD.trash_move(ioctx, "b")
    assert RBD.pool_stats_get(ioctx) == {
        "image_count": 1,
        "image_provisioned_bytes": MIB,
        "image_max_provisioned_bytes": 5 * MIB,
        "image_snap_count": 1,
        "trash_count": 1,
        "trash_provisioned_bytes": 3 * MIB,
        "trash_max_provisioned_bytes": 3 * MIB,
        "trash_snap_count": 0,
    }


def test_an_image_in_no_group(backend: Backend) -> None:
    ioctx = backend.ioctx()
    make(ioctx, "image")
    with rbd.Image(ioctx, "image") as image:
        image.create_snap("snap")
        assert image.group() == {"pool": -1, "name": ""}
        refused(rbd.InvalidArgument, errno.EINVAL, image.snap_get_group_namespace, image.snap_get_id("snap"))
        refused(rbd.ImageNotFound, errno.ENOENT, image.snap_get_group_namespace, 12345)
