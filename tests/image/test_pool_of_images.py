"""class RBD on either cluster: create, list, rename, remove, and the names of features."""

import errno
import string
from typing import Any

import pytest

import rbd_native as rbd
from tests.backend import Backend, now
from tests.image.room import Room

MIB = 1 << 20


def test_create_with_defaults(room: Room) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", 10 * MIB)
    with rbd.Image(ioctx, "image") as image:
        assert image.stat() == {
            "size": 10 * MIB,
            "obj_size": 4 * MIB,
            "num_objs": 3,
            "order": 22,
            "block_name_prefix": f"rbd_data.{image.id()}",
            "parent_pool": 2**64 - 1,
            "parent_name": b"",
        }
        assert image.features() == 61
        assert (image.op_features(), image.flags(), image.old_format()) == (0, 0, False)
        assert (image.stripe_unit(), image.stripe_count()) == (4 * MIB, 1)
        assert image.data_pool_id() == ioctx.get_pool_id()
        assert set(image.id()) <= set(string.hexdigits) and 0 < len(image.id()) <= 14


@pytest.mark.parametrize("size", [0, 1, 4096, 5 * MIB + 1, 2**60])
@pytest.mark.parametrize("order", [12, 16, 22, 25])
def test_create_sizes_and_orders(room: Room, size: int, order: int) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", size, order, features=1)
    with rbd.Image(ioctx, "image") as image:
        stat = image.stat()
        assert (stat["size"], stat["order"], stat["obj_size"]) == (size, order, 2**order)
        assert stat["num_objs"] == -(-size // 2**order)
        assert image.size() == size


@pytest.mark.parametrize(
    ("asked", "kept"),
    [(0, 0), (1, 1), (5, 5), (13, 29), (4 | 8, 28), (16, 0), (61, 61), (1 | 2 | 128 | 256 | 512 | 1024, 1)],
)
def test_create_features(room: Room, asked: int, kept: int) -> None:
    """An object map brings fast-diff along; what follows from other choices is not asked for."""
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", MIB, features=asked)
    with rbd.Image(ioctx, "image") as image:
        assert image.features() == kept


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        ({"name": ""}, rbd.InvalidArgument, errno.EINVAL),
        ({"name": "taken"}, rbd.ImageExists, errno.EEXIST),
        ({"name": 5}, rbd.InvalidArgument, None),
        ({"name": None}, rbd.InvalidArgument, None),
        ({"order": 11}, rbd.ArgumentOutOfRange, errno.EDOM),
        ({"order": 26}, rbd.ArgumentOutOfRange, errno.EDOM),
        ({"features": 8}, rbd.InvalidArgument, errno.EINVAL),
        ({"features": 64}, rbd.InvalidArgument, errno.EINVAL),
        ({"features": 68}, rbd.FunctionNotSupported, errno.ENOSYS),
        ({"features": 1 << 40}, rbd.FunctionNotSupported, errno.ENOSYS),
        ({"features": 61, "size": 2**62}, rbd.InvalidArgument, errno.EINVAL),
        ({"stripe_unit": 65536}, rbd.InvalidArgument, errno.EINVAL),
        ({"stripe_count": 4}, rbd.InvalidArgument, errno.EINVAL),
        ({"stripe_unit": 3 * 4096, "stripe_count": 4}, rbd.InvalidArgument, errno.EINVAL),
        ({"stripe_unit": 8 * MIB, "stripe_count": 4}, rbd.InvalidArgument, errno.EINVAL),
        ({"stripe_unit": 256, "stripe_count": 4}, rbd.InvalidArgument, errno.EINVAL),
        ({"data_pool": "no-such-pool"}, rbd.ImageNotFound, errno.ENOENT),
        ({"old_format": True, "features": 1}, rbd.InvalidArgument, None),
        ({"size": -1}, OverflowError, None),
        ({"size": 2**64}, OverflowError, None),
        ({"size": "1"}, TypeError, None),
    ],
)
def test_create_refuses(room: Room, arguments: dict[str, Any], error: type[Exception], code: int | None) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "taken", MIB)
    before = room.contents()
    with pytest.raises(error) as caught:
        given: dict[str, Any] = {"name": "image", "size": MIB} | arguments
        rbd.RBD().create(ioctx, **given)
    assert getattr(caught.value, "errno", None) == code
    assert room.contents() == before


def test_create_on_a_data_pool(room: Room) -> None:
    data_pool = room.create_pool()
    ioctx, data = room.ioctx(), room.ioctx(data_pool)
    rbd.RBD().create(ioctx, "image", 10 * MIB, features=61, data_pool=data_pool)
    with rbd.Image(ioctx, "image") as image:
        assert image.features() == 61 | rbd.RBD_FEATURE_DATA_POOL
        assert image.data_pool_id() == data.get_pool_id()
        assert image.block_name_prefix() == f"rbd_data.{ioctx.get_pool_id()}.{image.id()}"
        image.write(b"here" * 1000, 4 * MIB - 7)
        assert image.read(4 * MIB - 7, 4000) == b"here" * 1000
    assert not room.data_objects()
    assert len(room.data_objects(data_pool)) == 2
    rbd.RBD().remove(ioctx, "image")
    assert not room.data_objects(data_pool)


def test_data_pool_of_its_own_is_none(room: Room) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", MIB, features=1, data_pool=room.pool)
    with rbd.Image(ioctx, "image") as image:
        assert image.features() == 1


def test_striping(room: Room) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", 10 * MIB, 20, features=1, stripe_unit=65536, stripe_count=5)
    with rbd.Image(ioctx, "image") as image:
        assert image.features() == 1 | rbd.RBD_FEATURE_STRIPINGV2
        assert (image.stripe_unit(), image.stripe_count()) == (65536, 5)
        assert image.stat()["num_objs"] == 10


def test_defaults_of_the_client(room: Room) -> None:
    client = room.connect(rbd_default_features="layering,exclusive-lock", rbd_default_order="16")
    ioctx = room.ioctx(cluster=client)
    rbd.RBD().create(ioctx, "image", MIB)
    rbd.RBD().create(ioctx, "other", MIB, order=18, features=1)
    with rbd.Image(ioctx, "image") as image, rbd.Image(ioctx, "other") as other:
        assert (image.features(), image.stat()["order"]) == (5, 16)
        assert (other.features(), other.stat()["order"]) == (1, 18)


def test_namespaces_do_not_meet(backend: Backend) -> None:
    default, one = backend.ioctx(), backend.ioctx(namespace="one")
    with pytest.raises(rbd.ImageNotFound):
        rbd.RBD().create(one, "image", MIB)  # there is no such namespace yet
    make_namespace(backend, "one")
    rbd.RBD().create(default, "image", MIB)
    rbd.RBD().create(one, "image", 2 * MIB)
    rbd.RBD().create(one, "only here", MIB)
    assert rbd.RBD().list(default) == ["image"]
    assert rbd.RBD().list(one) == ["image", "only here"]
    with rbd.Image(default, "image") as there, rbd.Image(one, "image") as here:
        there.write(b"there", 0)
        here.write(b"here!", 0)
        assert (there.read(0, 5), here.read(0, 5)) == (b"there", b"here!")
        assert (there.size(), here.size()) == (MIB, 2 * MIB)
    rbd.RBD().remove(one, "image")
    assert rbd.RBD().list(default) == ["image"]


def make_namespace(backend: Backend, name: str) -> None:
    """By the class methods themselves: the entry, and the directory that says the namespace is there."""
    text = len(name).to_bytes(4, "little") + name.encode()
    backend.ioctx().execute("rbd_namespace", "rbd", "namespace_add", text)
    backend.ioctx(namespace=name).execute("rbd_directory", "rbd", "dir_state_set", bytes(4))


def test_list(room: Room) -> None:
    ioctx = room.ioctx()
    assert rbd.RBD().list(ioctx) == []
    assert list(rbd.RBD().list2(ioctx)) == []
    names = ["b", "a", "é", "Z", "a/b@c d", "x" * 300]
    for name in names:
        rbd.RBD().create(ioctx, name, MIB, features=1)
    assert rbd.RBD().list(ioctx) == sorted(names, key=str.encode)
    found = list(rbd.RBD().list2(ioctx))
    assert [image["name"] for image in found] == sorted(names, key=str.encode)
    for image in found:
        assert set(image) == {"id", "name"}
        with rbd.Image(ioctx, image_id=image["id"], read_only=True) as opened:
            assert opened.get_name() == image["name"]


def test_list_is_of_the_moment(room: Room) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "a", MIB, features=1)
    listing = rbd.RBD().list2(ioctx)
    rbd.RBD().create(ioctx, "b", MIB, features=1)
    assert [image["name"] for image in listing] == ["a"]


@pytest.mark.slow
def test_list_of_more_than_a_page(room: Room) -> None:
    """The directory is read 1024 entries at a time."""
    ioctx = room.ioctx()
    entries = {f"name_{number:05}": f"id{number:05}" for number in range(2500)}
    for name, identifier in entries.items():
        key, value = sized(name.removeprefix("name_")), sized(identifier)
        ioctx.execute("rbd_directory", "rbd", "dir_add_image", key + value)
    found = list(rbd.RBD().list2(ioctx))
    assert [image["id"] for image in found] == list(entries.values())


def sized(text: str) -> bytes:
    return len(text).to_bytes(4, "little") + text.encode()


@pytest.mark.parametrize("features", [1, 61])
def test_rename(room: Room, features: int) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "old", MIB, features=features)
    with rbd.Image(ioctx, "old") as image:
        image.write(b"data", 5)
        identifier = image.id()
    rbd.RBD().rename(ioctx, "old", "new/name")
    assert rbd.RBD().list(ioctx) == ["new/name"]
    with rbd.Image(ioctx, "new/name") as image:
        assert image.id() == identifier
        assert image.get_name() == "new/name"
        assert image.read(5, 4) == b"data"
    with pytest.raises(rbd.ImageNotFound):
        rbd.Image(ioctx, "old")
    rbd.RBD().create(ioctx, "old", MIB)
    assert rbd.RBD().list(ioctx) == ["new/name", "old"]


@pytest.mark.parametrize(
    ("source", "destination", "error"),
    [
        ("none", "new", rbd.ImageNotFound),
        ("a", "b", rbd.ImageExists),
        ("a", "a", rbd.ImageExists),
        ("a", "", rbd.InvalidArgument),
        ("", "new", rbd.ImageNotFound),
        ("a", None, rbd.InvalidArgument),
        (None, "new", rbd.InvalidArgument),
    ],
)
def test_rename_refuses(room: Room, source: Any, destination: Any, error: type[Exception]) -> None:
    ioctx = room.ioctx()
    for name in "ab":
        rbd.RBD().create(ioctx, name, MIB, features=1)
    with pytest.raises(error):
        rbd.RBD().rename(ioctx, source, destination)
    assert rbd.RBD().list(ioctx) == ["a", "b"]


def test_rename_of_an_open_image(room: Room) -> None:
    """The owner of the lock does it, on behalf of the one who asks."""
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "old", MIB)
    with rbd.Image(ioctx, "old") as image:
        image.write(b"data", 0)
        rbd.RBD().rename(room.ioctx(cluster=room.connect()), "old", "new")
        assert image.read(0, 4) == b"data"
        image.write(b"more", 4)
    with rbd.Image(ioctx, "new") as image:
        assert image.read(0, 8) == b"datamore"


@pytest.mark.parametrize("features", [0, 1, 5, 29, 61])
@pytest.mark.parametrize("striping", [{}, {"stripe_unit": 4096, "stripe_count": 3}])
def test_remove_leaves_nothing(room: Room, features: int, striping: dict[str, Any]) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "stays", MIB, features=1)
    before = set(room.contents())
    rbd.RBD().create(ioctx, "goes", MIB, 14, features=features, **striping)
    with rbd.Image(ioctx, "goes") as image:
        for offset in (0, 100_000, MIB - 5000):
            image.write(b"x" * 5000, offset)
        image.metadata_set("key", "value")
    assert len(room.data_objects()) >= 3
    rbd.RBD().remove(ioctx, "goes")
    assert rbd.RBD().list(ioctx) == ["stays"]
    assert set(room.contents()) - before <= {"rbd_trash"}
    rbd.RBD().create(ioctx, "goes", MIB)


def test_remove_tells_its_progress(room: Room) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", MIB, 16, features=1)
    heard: list[tuple[int, int]] = []
    rbd.RBD().remove(ioctx, "image", on_progress=lambda done, total: heard.append((done, total)))
    assert heard
    assert {total for _, total in heard} == {16}
    assert heard == sorted(set(heard))
    assert all(0 <= done <= 16 for done, _ in heard)


def test_remove_may_be_ended_by_its_progress(room: Room) -> None:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", MIB, 12, features=1)
    with pytest.raises(rbd.OperationCanceled):
        rbd.RBD().remove(ioctx, "image", on_progress=lambda done, total: -errno.ECANCELED if done > 5 else 0)
    assert rbd.RBD().list(ioctx) == ["image"]
    rbd.RBD().remove(ioctx, "image")
    assert rbd.RBD().list(ioctx) == []
    assert not room.data_objects()


def test_remove_refuses(room: Room) -> None:
    ioctx = room.ioctx()
    with pytest.raises(rbd.ImageNotFound):
        rbd.RBD().remove(ioctx, "image")
    for features in (1, 61):
        rbd.RBD().create(ioctx, "image", MIB, features=features)
        with rbd.Image(ioctx, "image") as image:
            image.write(b"data", 0)
            for other in (ioctx, room.ioctx(cluster=room.connect())):
                with pytest.raises(rbd.ImageBusy):
                    rbd.RBD().remove(other, "image")
            assert image.read(0, 4) == b"data"
            image.create_snap("snap")
        with pytest.raises(rbd.ImageHasSnapshots):
            rbd.RBD().remove(ioctx, "image")
        with rbd.Image(ioctx, "image") as image:
            assert image.read(0, 4) == b"data"
            image.remove_snap("snap")
        rbd.RBD().remove(ioctx, "image")


def test_features_by_name() -> None:
    assert rbd.RBD().features_from_string("layering,fast-diff") == 17
    assert rbd.RBD().features_from_string("5") == 5
    assert rbd.RBD().features_from_string("") == 61
    assert rbd.RBD().features_to_string(61) == "deep-flatten,exclusive-lock,fast-diff,layering,object-map"
    assert rbd.RBD().features_to_string(0) == ""
    for wrong in ("nonsense", "layering,", "layering layering", "-1"):
        with pytest.raises(rbd.InvalidArgument) as caught:
            rbd.RBD().features_from_string(wrong)
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(rbd.InvalidArgument):
        rbd.RBD().features_to_string(1 << 50)


def test_version() -> None:
    assert all(isinstance(part, int) for part in rbd.RBD().version())


def test_time_of_creation(room: Room) -> None:
    ioctx = room.ioctx()
    before = now().replace(microsecond=0)
    rbd.RBD().create(ioctx, "image", MIB)
    with rbd.Image(ioctx, "image") as image:
        for stamp in (image.create_timestamp(), image.access_timestamp(), image.modify_timestamp()):
            assert before <= stamp <= now()
