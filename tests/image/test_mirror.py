"""Mirroring by snapshots on both kinds of cluster: an image that is handed over, what its snapshots say, who may write."""

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native.encoding import Reader, codec_of
from rbd_native.types import ImageState, ImageStateHeader
from tests.backend import Backend
from tests.releases import REMOTE_NAMESPACE, told

MIB = 1 << 20
RBD = rbd.RBD()
PRIMARY, DEMOTED = rbd.RBD_SNAP_MIRROR_STATE_PRIMARY, rbd.RBD_SNAP_MIRROR_STATE_PRIMARY_DEMOTED


def refused(kind: type[rbd.OSError], code: int | None, call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert caught.value.errno == code


def mirrored(ioctx: Any, name: str = "image", features: int = 61, peers: int = 1) -> list[str]:
    """A pool that is mirrored image by image, and an image of it that is; the uuids of the peers."""
    RBD.mirror_mode_set(ioctx, rbd.RBD_MIRROR_MODE_IMAGE)
    uuids = [RBD.mirror_peer_add(ioctx, f"site{number}", "client.x") for number in range(peers)]
    RBD.create(ioctx, name, MIB, 18, features=features)
    with rbd.Image(ioctx, name) as image:
        image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT)
    return uuids


def states(image: Any) -> list[tuple[int, list[str]]]:
    """Of the mirror snapshots, oldest first: the state, and who has not got it yet."""
    found = [snap["mirror"] for snap in image.list_snaps() if "mirror" in snap]
    return [(snap["state"], snap["mirror_peer_uuids"]) for snap in found]


def state_objects(backend: Backend, ioctx: Any) -> list[str]:
    return sorted(found.key for found in ioctx.list_objects() if found.key.startswith("rbd_mirror_snapshot."))


@pytest.mark.parametrize("features", [1, 61])
def test_hand_over(backend: Backend, features: int) -> None:
    """Who writes hears of it at once, and writes again when it is primary again."""
    ioctx, other = backend.ioctx(), backend.ioctx(cluster=backend.connect())
    peers = mirrored(ioctx, features=features)
    with rbd.Image(other, "image") as writer, rbd.Image(ioctx, "image") as image:
        writer.write(b"before", 0)
        image.mirror_image_demote()
        assert image.features() & rbd.RBD_FEATURE_NON_PRIMARY
        for handle in (image, writer):
            refused(rbd.ReadOnlyImage, errno.EROFS, handle.write, b"x", 0)
            refused(rbd.ReadOnlyImage, errno.EROFS, handle.discard, 0, MIB)
            refused(rbd.ReadOnlyImage, errno.EROFS, handle.resize, 2 * MIB)
            refused(rbd.ReadOnlyImage, errno.EROFS, handle.create_snap, "s")
            assert handle.read(0, 6) == b"before"
            assert not handle.mirror_image_get_info()["primary"]
        writer.mirror_image_promote(False)
        for number, handle in enumerate((image, writer)):
            assert handle.write(b"after%d" % number, 0) == 6
            assert handle.mirror_image_get_info()["primary"]
        assert image.read(0, 6) == b"after1"
        assert not image.features() & rbd.RBD_FEATURE_NON_PRIMARY
        assert states(image) == [(PRIMARY, peers), (DEMOTED, peers), (PRIMARY, peers)]
        image.mirror_image_disable(False)
        assert states(image) == [] == state_objects(backend, ioctx)
        assert image.read(0, 6) == b"after1"


def test_demote_through_a_handle_that_only_reads(backend: Backend) -> None:
    """Refused before anything is changed."""
    ioctx = backend.ioctx()
    mirrored(ioctx)
    with rbd.Image(ioctx, "image", read_only=True) as image:
        refused(rbd.ReadOnlyImage, errno.EROFS, image.mirror_image_demote)
    with rbd.Image(ioctx, "image") as image:
        assert image.features() == 61
        assert image.write(b"x", 0) == 1


def test_demoted_image_is_left_alone(backend: Backend) -> None:
    """It can be neither removed nor moved to the trash, and mirroring it ends only by force; the name and data stay."""
    ioctx = backend.ioctx()
    mirrored(ioctx)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"data", 0)
        image.mirror_image_demote()
        refused(rbd.InvalidArgument, errno.EINVAL, image.mirror_image_disable, False)
    for method in (RBD.remove, RBD.trash_move):
        refused(rbd.InvalidArgument, errno.EINVAL, method, ioctx, "image")
    with rbd.Image(ioctx, "image") as image:
        assert image.read(0, 4) == b"data"
        image.mirror_image_disable(True)
        assert image.write(b"more", 0) == 4
    RBD.remove(ioctx, "image")
    assert state_objects(backend, ioctx) == []


def test_state_in_pieces(backend: Backend) -> None:
    """What the other site needs to know is spread over as many objects as it takes; all of them go with the snapshot."""
    ioctx = backend.ioctx()
    RBD.config_set(ioctx, "rbd_default_order", "12")
    mirrored(ioctx)
    values = {f"key {number:02}": str(number) * 700 for number in range(20)}
    with rbd.Image(ioctx, "image") as image:
        for key, value in values.items():
            image.metadata_set(key, value)
        image.create_snap("user")
        image.protect_snap("user")
        snap = image.mirror_image_create_snapshot()
        objects = [oid for oid in state_objects(backend, ioctx) if f".{snap}." in oid]
        assert objects == [f"rbd_mirror_snapshot.{image.id()}.{snap}.{index}" for index in range(6)]
        reader = Reader(b"".join(ioctx.read(oid, 1 << 16) for oid in objects))
        header: ImageStateHeader = codec_of(ImageStateHeader).read(reader)
        state: ImageState = codec_of(ImageState).read(reader)
        assert (header.object_count, reader.left) == (len(objects), 0)
        assert {key: value.decode() for key, value in state.metadata.items()} == values
        assert [(one.name, one.protection_status) for one in state.snapshots.values()] == [("user", 2)]
        assert (state.name, state.features, state.snap_limit) == ("image", 45, 2**64 - 1)
        image.mirror_image_disable(False)
    assert state_objects(backend, ioctx) == []


@pytest.mark.parametrize("limit", [3, 5])
def test_limit(backend: Backend, limit: int) -> None:
    """A peer that is behind is left the oldest snapshots and the newest one."""
    ioctx = backend.ioctx()
    peers = mirrored(ioctx, peers=2)
    with rbd.Image(ioctx, "image") as image:
        image.config_set("rbd_mirroring_max_mirroring_snapshots", str(limit))
        taken = [image.mirror_image_create_snapshot() for _ in range(limit + 3)]
        left = [snap["id"] for snap in image.list_snaps()]
        assert left[-1] == taken[-1]
        assert left[1:-1] == taken[: limit - 2]
        assert len(left) == limit
        RBD.mirror_peer_remove(ioctx, sorted(peers)[0])
        assert states(rbd.Image(ioctx, "image")) == [(PRIMARY, sorted(peers)[1:])] * limit
        RBD.mirror_peer_remove(ioctx, sorted(peers)[1])
        assert states(image) == [(PRIMARY, [])]  # by the newest one its state is told


def test_one_asks_the_other(backend: Backend) -> None:
    """Whoever owns the lock takes the snapshot."""
    ioctx, other = backend.ioctx(), backend.ioctx(cluster=backend.connect())
    mirrored(ioctx)
    with rbd.Image(other, "image") as owner, rbd.Image(ioctx, "image") as image:
        owner.write(b"data", 0)
        assert owner.is_exclusive_lock_owner()
        snap = image.mirror_image_create_snapshot(rbd.RBD_SNAP_CREATE_SKIP_QUIESCE)
        assert owner.is_exclusive_lock_owner()
        assert [found["id"] for found in image.list_snaps()][-1] == snap
        assert f"rbd_mirror_snapshot.{image.id()}.{snap}.0" in state_objects(backend, ioctx)
        assert f"rbd_object_map.{image.id()}.{snap:016x}" in [found.key for found in ioctx.list_objects()]
        with rbd.Image(ioctx, image_id=image.id(), read_only=True) as then:
            then.set_snap_by_id(snap)
            assert then.read(0, 4) == b"data"


@pytest.mark.parametrize("features", [1, 61])
def test_many_at_once(backend: Backend, features: int) -> None:
    """Each has its snapshot, or one that is newer; what is left is whole, and has its state."""
    ioctx = backend.ioctx()
    mirrored(ioctx, features=features)
    clients = [backend.ioctx(cluster=backend.connect()) for _ in range(3)]

    def work(number: int) -> list[int]:
        with rbd.Image(clients[number], "image") as image:
            taken = []
            for turn in range(6):
                image.write(b"%d" % turn, number * 100)
                taken.append(image.mirror_image_create_snapshot(turn % 3))
            return taken

    with ThreadPoolExecutor(3) as threads:
        taken = list(threads.map(work, range(3)))
    assert all(ids == sorted(ids) for ids in taken)
    with rbd.Image(ioctx, "image") as image:
        left = list(image.list_snaps())
        assert all(snap["mirror"]["complete"] for snap in left)
        assert left[-1]["id"] == max(max(ids) for ids in taken)
        expected = sorted(f"rbd_mirror_snapshot.{image.id()}.{snap['id']}.0" for snap in left)
        assert state_objects(backend, ioctx) == expected
        image.mirror_image_create_snapshot()
        assert len(list(image.list_snaps())) <= 5


def test_asynchronously(backend: Backend) -> None:
    ioctx = backend.ioctx()
    mirrored(ioctx)
    answers: list[Any] = []
    with rbd.Image(ioctx, "image") as image:
        begun = [
            image.aio_mirror_image_get_info(lambda completion, info: answers.append(info)),
            image.aio_mirror_image_get_mode(lambda completion, mode: answers.append(mode)),
            image.aio_mirror_image_create_snapshot(0, lambda completion, snap: answers.append(snap)),
            image.aio_mirror_image_create_snapshot(77, lambda completion, snap: answers.append(snap)),
        ]
        for completion in begun:
            completion.wait_for_complete_and_cb()
        assert [completion.get_return_value() for completion in begun] == [0, 0, 0, -errno.EINVAL]
        newest = [snap["id"] for snap in image.list_snaps()][-1]
        assert sorted(answers, key=repr) == sorted([image.mirror_image_get_info(), 1, newest, None], key=repr)


def test_journals_are_refused(backend: Backend) -> None:
    """In a word, and without anything having been changed."""
    ioctx = backend.ioctx()
    RBD.mirror_mode_set(ioctx, rbd.RBD_MIRROR_MODE_IMAGE)
    RBD.create(ioctx, "image", MIB, 18)
    with rbd.Image(ioctx, "image") as image:
        refused(rbd.FunctionNotSupported, errno.ENOSYS, image.mirror_image_enable)
        assert image.mirror_image_get_info() == {"global_id": "", "state": rbd.RBD_MIRROR_IMAGE_DISABLED, "primary": False}
        assert image.features() == 61


def test_remote_namespace(backend: Backend) -> None:
    """A cluster older than release 20 has none to set; then it is the namespace of the same name."""
    ioctx = backend.ioctx(namespace="space")
    assert RBD.mirror_remote_namespace_get(ioctx) == "space"
    if backend.kind == "embedded" or told(REMOTE_NAMESPACE):
        RBD.mirror_remote_namespace_set(ioctx, "other")
        assert RBD.mirror_remote_namespace_get(ioctx) == "other"
        assert RBD.mirror_remote_namespace_get(backend.ioctx()) == ""
    else:
        refused(rbd.OperationNotSupported, errno.EOPNOTSUPP, RBD.mirror_remote_namespace_set, ioctx, "other")
