"""Images of format 1 on either kind of cluster: what they can do, what they cannot, and what is stored of them."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import format1
from tests.backend import Backend
from tests.stored import contents, stored

SIZE, ORDER = 300_000, 16
HEADER = b"<<< Rados Block Device Image >>>\n"


class Scene:
    """Images of format 1 in a pool that other tests use too, and none of other tests."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.ioctx = self.client()
        self.rbd = rbd.RBD()

    def client(self) -> Any:
        return self.backend.ioctx(cluster=self.backend.connect(rbd_default_format="1"))

    def create(self, name: str = "image") -> None:
        self.rbd.create(self.ioctx, name, SIZE, ORDER, old_format=True)

    def stored(self, name: str = "image.rbd") -> Any:
        return stored(self.backend.rados_module, self.ioctx, name)

    def objects(self) -> set[str]:
        return set(contents(self.backend.rados_module, self.ioctx)) - {"rbd_directory", "rbd_info", "rbd_trash"}


@pytest.fixture
def scene(house: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("RBD_FORCE_ALLOW_V1", "1")
    scene = Scene(house)
    scene.create()
    yield scene
    for found in list(rbd.RBD().list(scene.ioctx)):
        with rbd.Image(scene.ioctx, found) as image:
            for snap in list(image.list_snaps()):
                image.remove_snap(snap["name"])
        rbd.RBD().remove(scene.ioctx, found)
    assert not scene.objects()


def test_what_is_stored(scene: Scene) -> None:
    assert [row for row in scene.rbd.list2(scene.ioctx) if not row["id"]] == [{"id": "", "name": "image"}]
    data = scene.stored().data
    assert len(data) == 112 and data.startswith(HEADER)
    with rbd.Image(scene.ioctx, "image") as image:
        prefix = image.block_name_prefix()
        assert data[40:64] == prefix.encode().ljust(24, b"\0")
        image.write(b"data", SIZE - 4)
        assert f"{prefix}.000000000004" in scene.objects()
        image.create_snap("snap")
        parsed = format1.parse_header(scene.stored().data)
        assert parsed.snaps == (format1.Snap(image.snap_get_id("snap"), SIZE, b"snap"),)
        image.metadata_set("key", "value")
        image.remove_snap("snap")
    assert scene.stored().omap["metadata_key"] == b"value"
    assert scene.stored("rbd_directory").data == bytes(4) + b"\1\0\0\0" + b"\5\0\0\0image" + bytes(4)


def test_what_it_is(scene: Scene) -> None:
    with rbd.Image(scene.ioctx, "image") as image:
        assert image.old_format() and image.features() == image.flags() == image.op_features() == 0
        assert (image.size(), image.stripe_unit(), image.stripe_count()) == (SIZE, 1 << ORDER, 1)
        assert image.create_timestamp().timestamp() == image.modify_timestamp().timestamp() == 0
        image.write(b"x", 0)
        assert image.modify_timestamp().timestamp() > 0
        assert list(image.list_children()) == [] and image.group() == {"pool": -1, "name": ""}


REFUSED: list[tuple[str, tuple[Any, ...], type[Exception]]] = [
    ("id", (), rbd.InvalidArgument), ("protect_snap", ("snap",), rbd.FunctionNotSupported),
    ("unprotect_snap", ("snap",), rbd.InvalidArgument), ("update_features", (4, True), rbd.InvalidArgument),
    ("rebuild_object_map", (), rbd.InvalidArgument), ("flatten", (), rbd.InvalidArgument),
    ("lock_acquire", (0,), rbd.InvalidArgument), ("lock_release", (), rbd.InvalidArgument),
    ("parent_info", (), rbd.ImageNotFound),
]  # fmt: skip


@pytest.mark.parametrize(("method", "arguments", "error"), REFUSED)
def test_refused(scene: Scene, method: str, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with rbd.Image(scene.ioctx, "image") as image:
        image.create_snap("snap")
        before = scene.stored()
        with pytest.raises(error):
            getattr(image, method)(*arguments)
        assert scene.stored() == before


def test_what_a_pool_refuses(scene: Scene) -> None:
    with rbd.Image(scene.ioctx, "image") as image:
        image.create_snap("snap")
        with pytest.raises(rbd.ImageHasSnapshots):
            scene.rbd.remove(scene.ioctx, "image")
        image.remove_snap("snap")
        with pytest.raises(rbd.ImageBusy):
            scene.rbd.remove(scene.ioctx, "image")
    with pytest.raises(rbd.OperationNotSupported):
        scene.rbd.trash_move(scene.ioctx, "image")
    with pytest.raises(rbd.ImageNotFound):
        scene.rbd.clone(scene.ioctx, "image", "snap", scene.ioctx, "clone", features=1)
    with pytest.raises(rbd.ImageExists):
        scene.create()
    with pytest.raises(rbd.ImageExists):
        scene.rbd.create(scene.ioctx, "image", SIZE)
    with pytest.raises(rbd.ImageExists):
        scene.rbd.rename(scene.ioctx, "image", "image")


def test_not_without_being_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBD_FORCE_ALLOW_V1")
    with pytest.raises(rbd.InvalidArgument):
        scene.create("another")
    assert scene.rbd.list(scene.ioctx) == ["image"]


def test_rename_takes_everything_along(scene: Scene) -> None:
    """librbd 16 leaves all but the header's data behind."""
    with rbd.Image(scene.ioctx, "image") as image:
        image.write(b"data", 0)
        image.create_snap("snap")
        image.set_snap_limit(3)
        for number in range(3):
            image.metadata_set(f"key-{number}", f"value-{number}")
        image.lock_shared("cookie", "tag")
    before = scene.stored()
    scene.rbd.rename(scene.ioctx, "image", "other")
    assert scene.stored("other.rbd") == before
    assert scene.rbd.list(scene.ioctx) == ["other"]
    with rbd.Image(scene.ioctx, "other") as image:
        assert dict(image.metadata_list()) == {f"key-{number}": f"value-{number}" for number in range(3)}
        assert image.get_snap_limit() == 3
        lockers: Any = image.list_lockers()
        assert lockers["tag"] == "tag"
        image.unlock("cookie")
        assert image.read(0, 4) == b"data"
        image.create_snap("later")
        image.remove_snap_limit()
    with pytest.raises(rbd.ImageNotFound):
        rbd.Image(scene.ioctx, "image")


def test_rename_goes_on_where_it_ended(scene: Scene) -> None:
    """Headers under both names, of one image: which of them counts, the directory says."""
    with rbd.Image(scene.ioctx, "image") as image:
        image.write(b"data", 0)
    header = scene.stored().data
    scene.ioctx.write_full("other.rbd", header)
    with rbd.Image(scene.ioctx, "image") as image:
        image.resize(2 * SIZE)
    scene.rbd.rename(scene.ioctx, "image", "other")  # the directory has the old name
    with rbd.Image(scene.ioctx, "other") as image:
        assert (image.size(), image.read(0, 4)) == (2 * SIZE, b"data")
    scene.ioctx.write_full("image.rbd", header)
    scene.rbd.rename(scene.ioctx, "image", "other")  # it has the new one
    assert scene.rbd.list(scene.ioctx) == ["other"] and "image.rbd" not in scene.objects()
    with rbd.Image(scene.ioctx, "other") as image:
        assert image.size() == 2 * SIZE


def test_names_that_lead_nowhere(scene: Scene) -> None:
    scene.ioctx.remove_object("image.rbd")
    assert scene.rbd.list(scene.ioctx) == ["image"]
    with pytest.raises(rbd.ImageNotFound):
        rbd.Image(scene.ioctx, "image")
    scene.rbd.remove(scene.ioctx, "image")
    assert scene.rbd.list(scene.ioctx) == []
    with pytest.raises(rbd.ImageNotFound):
        scene.rbd.remove(scene.ioctx, "image")


def test_the_directory_of_both_formats(scene: Scene) -> None:
    """Its table and its omap do not get into each other's way."""
    scene.rbd.create(scene.ioctx, "new", SIZE, ORDER, features=1)
    for name in ("z", "é", "a"):
        scene.create(name)
    assert scene.rbd.list(scene.ioctx) == ["a", "image", "z", "é", "new"]
    scene.rbd.rename(scene.ioctx, "image", "b")
    scene.rbd.remove(scene.ioctx, "z")
    assert scene.rbd.list(scene.ioctx) == ["a", "b", "é", "new"]


def test_many_at_the_directory(scene: Scene) -> None:
    """The table is written as a whole: none of those who change it at once may lose what another has entered."""
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            ioctx = ioctxs[number]
            for turn in range(4):
                rbd.RBD().create(ioctx, f"{number}-{turn}", SIZE, ORDER, old_format=True)
                rbd.RBD().create(ioctx, f"new-{number}-{turn}", SIZE, ORDER, features=1)
            rbd.RBD().remove(ioctx, f"{number}-0")
            rbd.RBD().rename(ioctx, f"{number}-1", f"{number}-9")
        except BaseException as error:
            failed.append(error)

    ioctxs = [scene.client() for _ in range(4)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    olds = {f"{number}-{turn}" for number in range(4) for turn in (2, 3, 9)}
    news = {f"new-{number}-{turn}" for number in range(4) for turn in range(4)}
    assert set(scene.rbd.list(scene.ioctx)) == olds | news | {"image"}


def test_two_clients(scene: Scene) -> None:
    """What one changes the other sees at once, and its next write keeps a new snapshot as it is."""
    with rbd.Image(scene.ioctx, "image") as one, rbd.Image(scene.client(), "image") as other:
        one.write(b"then", 0)
        assert other.read(0, 4) == b"then"
        one.create_snap("snap")
        other.write(b"now!", 0)
        assert [snap["name"] for snap in other.list_snaps()] == ["snap"]
        other.resize(2 * SIZE)
        assert one.size() == 2 * SIZE
        other.rename_snap("snap", "kept")
        one.set_snap("kept")
        assert (one.size(), one.read(0, 4)) == (SIZE, b"then")
        other.rollback_to_snap("kept")
        one.set_snap(None)
        assert one.read(0, 8) == b"then" + bytes(4)
        one.set_snap("kept")
        other.remove_snap("kept")
        assert one.size() == 0
        with pytest.raises(rbd.ImageNotFound):
            one.read(0, 4)
        one.set_snap(None)
        assert one.read(0, 4) == b"then"


def test_copies(scene: Scene) -> None:
    """Copies have format 2, whatever the source has."""
    with rbd.Image(scene.ioctx, "image") as image:
        image.write(b"then", 70_000)
        image.create_snap("snap")
        image.write(b"now!", 70_000)
        image.metadata_set("key", "value")
        image.copy(scene.ioctx, "copy", features=1)
        image.deep_copy(scene.ioctx, "deep", features=1)
        extents: list[Any] = []
        image.diff_iterate(0, SIZE, "snap", lambda *extent: extents.append(extent))
        assert extents == [(70_000, 4, True)]
    for name, snaps in (("copy", []), ("deep", ["snap"])):
        with rbd.Image(scene.ioctx, name) as image:
            assert not image.old_format() and image.read(70_000, 4) == b"now!"
            assert [snap["name"] for snap in image.list_snaps()] == snaps
            assert dict(image.metadata_list()) == {"key": "value"}
    with rbd.Image(scene.ioctx, "deep", snapshot="snap") as image:
        assert image.read(70_000, 4) == b"then"
