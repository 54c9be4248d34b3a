"""Opening and closing: by name, by id, at a snapshot, read-only; what an open image says of itself."""

import errno
import gc
import threading
import time
from typing import Any

import pytest

import rbd_native as rbd
from tests.image.room import Room

MIB = 1 << 20


@pytest.fixture
def ioctx(room: Room) -> Any:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", 4 * MIB, 16)
    return ioctx


def watchers(image: rbd.Image) -> int:
    return len(list(image.watchers_list()))


def test_by_name_and_by_id(ioctx: Any) -> None:
    with rbd.Image(ioctx, "image") as image:
        identifier = image.id()
        image.write(b"data", 0)
    for how in ({"name": b"image"}, {"image_id": identifier}, {"image_id": identifier.encode()}, {"name": "image\0tail"}):
        with rbd.Image(ioctx, **how) as image:
            assert (image.id(), image.get_name(), image.read(0, 4)) == (identifier, "image", b"data")


@pytest.mark.parametrize("how", [{"name": "none"}, {"image_id": "0123456789abcd"}, {"name": ""}, {"image_id": ""}])
@pytest.mark.parametrize("read_only", [False, True])
def test_not_found(ioctx: Any, how: dict[str, Any], read_only: bool) -> None:
    with pytest.raises(rbd.ImageNotFound) as caught:
        rbd.Image(ioctx, read_only=read_only, **how)
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value).startswith("[errno 2] RBD image not found (error opening image b'")


@pytest.mark.parametrize("how", [{}, {"name": "image", "image_id": "x"}, {"name": 5}, {"image_id": []}, {"name": None}])
def test_wrong_arguments(ioctx: Any, how: dict[str, Any]) -> None:
    with pytest.raises(rbd.InvalidArgument) as caught:
        rbd.Image(ioctx, **how)
    assert caught.value.errno is None


@pytest.mark.parametrize("wrong", [None, 5, "ioctx", object()])
def test_no_ioctx(wrong: Any) -> None:
    """librbd's binding crashes here."""
    for call in (lambda: rbd.Image(wrong, "image"), lambda: rbd.RBD().list(wrong), lambda: rbd.RBD().create(wrong, "x", 1)):
        with pytest.raises(TypeError):
            call()


def test_read_only(ioctx: Any) -> None:
    with rbd.Image(ioctx, "image") as image:
        image.write(b"data", 0)
        image.metadata_set("key", "value")
    with rbd.Image(ioctx, "image", read_only=True) as image:
        assert image.read(0, 4) == b"data"
        assert image.metadata_get("key") == "value"
        image.flush()
        for change in (
            lambda: image.write(b"x", 0),
            lambda: image.discard(0, 65536),
            lambda: image.write_zeroes(0, 1),
            lambda: image.resize(MIB),
            lambda: image.metadata_set("key", "x"),
            lambda: image.metadata_remove("key"),
            lambda: image.config_set("rbd_cache", "true"),
        ):
            with pytest.raises(rbd.ReadOnlyImage):
                change()
    with rbd.Image(ioctx, "image") as image:
        assert (image.read(0, 4), image.size()) == (b"data", 4 * MIB)
        assert list(image.metadata_list()) == [("key", "value")]


def test_at_a_snapshot(ioctx: Any) -> None:
    with rbd.Image(ioctx, "image") as image:
        image.write(b"then", 0)
        image.create_snap("snap")
        image.write(b"now!", 0)
        image.resize(MIB)
        number = image.snap_get_id("snap")
    for how in ("snap", b"snap", number):
        with rbd.Image(ioctx, "image", how) as image:
            assert (image.read(0, 4), image.size(), image.stat()["size"]) == (b"then", 4 * MIB, 4 * MIB)
            with pytest.raises(rbd.ReadOnlyImage):
                image.write(b"x", 0)
    for wrong in ("none", number + 1):
        with pytest.raises(rbd.ImageNotFound):
            rbd.Image(ioctx, "image", wrong)
    with rbd.Image(ioctx, "image") as image:
        assert (image.read(0, 4), image.size()) == (b"now!", MIB)
        assert watchers(image) == 1  # those that could not be opened do not watch
        image.remove_snap("snap")


def test_close_twice_and_use_after(ioctx: Any) -> None:
    image = rbd.Image(ioctx, "image")
    image.close()
    image.close()
    assert image.closed
    for use in (
        image.stat, image.size, image.id, image.get_name, image.features, image.flags, image.flush, image.stripe_unit,
        image.old_format, image.block_name_prefix, image.data_pool_id, image.create_timestamp, image.modify_timestamp,
        image.metadata_list, image.config_list, image.require_not_closed,
        lambda: image.read(0, 1), lambda: image.write(b"x", 0), lambda: image.discard(0, 1), lambda: image.resize(1),
        lambda: image.write_zeroes(0, 1), lambda: image.metadata_get("k"), lambda: image.config_get("rbd_cache"),
    ):  # fmt: skip
        with pytest.raises(rbd.InvalidArgument, match="image is closed"):
            use()


def test_context_manager_closes_whatever_happens(ioctx: Any) -> None:
    with pytest.raises(ZeroDivisionError), rbd.Image(ioctx, "image") as image:
        raise ZeroDivisionError
    assert image.closed
    with rbd.Image(ioctx, "image") as image:
        image.close()
    assert image.closed


def test_repr(ioctx: Any) -> None:
    with rbd.Image(ioctx, "image") as image:
        assert repr(image) == "rbd.Image(ioctx, b'image')"


def test_an_image_nobody_holds_is_given_up(ioctx: Any) -> None:
    forgotten = rbd.Image(ioctx, "image")
    forgotten.write(b"x", 0)
    with rbd.Image(ioctx, "image") as image:
        assert watchers(image) == 2
        del forgotten
        gc.collect()
        deadline = time.monotonic() + 10
        while watchers(image) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert watchers(image) == 1
        image.write(b"y", 0)


def test_a_reader_does_not_watch_and_a_writer_does(ioctx: Any) -> None:
    with rbd.Image(ioctx, "image") as image:
        with rbd.Image(ioctx, "image", read_only=True):
            assert watchers(image) == 1
        with rbd.Image(ioctx, "image"):
            assert watchers(image) == 2
        assert watchers(image) == 1


def test_others_see_what_changes(room: Room, ioctx: Any) -> None:
    """Size and metadata that one client changes, another that has the image open sees."""
    with rbd.Image(ioctx, "image") as one, rbd.Image(room.ioctx(cluster=room.connect()), "image") as two:
        one.write(b"data", 0)
        one.resize(8 * MIB)
        assert two.size() == 8 * MIB
        assert two.stat()["num_objs"] == 128
        two.metadata_set("key", "value")
        assert one.metadata_get("key") == "value"
        assert two.read(0, 4) == b"data"
        two.resize(MIB)
        assert one.size() == MIB
        with pytest.raises(rbd.InvalidArgument):
            one.write(b"beyond", MIB)


def test_modification_time_moves(room: Room, ioctx: Any) -> None:
    """It is written at most every rbd_mtime_update_interval seconds; 0 switches that off."""
    with rbd.Image(ioctx, "image") as image:
        image.config_set("rbd_mtime_update_interval", "1")
        before = image.modify_timestamp()
        time.sleep(1.1)
        image.write(b"x", 0)
        image.flush()
    with rbd.Image(ioctx, "image", read_only=True) as image:
        assert image.modify_timestamp() > before
        assert image.create_timestamp() <= before


def test_many_threads_use_one_image(room: Room, ioctx: Any) -> None:
    """Each thread writes and reads its own part, in pieces that cross objects, while the others do theirs."""
    parts, part = 8, 512 << 10
    failures: list[BaseException] = []

    def work(image: rbd.Image, number: int) -> None:
        try:
            for turn in range(6):
                content = bytes([number * 16 + turn + 1]) * 50_000
                for offset in range(number * part, (number + 1) * part - 50_000, 50_000):
                    assert image.write(content, offset) == 50_000
                    assert image.read(offset, 50_000) == content
                image.flush()
        except BaseException as error:
            failures.append(error)

    with rbd.Image(ioctx, "image") as image:
        threads = [threading.Thread(target=work, args=(image, number)) for number in range(parts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        for number in range(parts):
            assert image.read(number * part, 500_000) == bytes([number * 16 + 6]) * 500_000
    assert len(room.data_objects()) == 64


def test_many_images_are_open_at_once(ioctx: Any) -> None:
    for number in range(12):
        rbd.RBD().create(ioctx, f"image-{number}", MIB, 16)
    images = [rbd.Image(ioctx, f"image-{number}") for number in range(12)]
    for number, image in enumerate(images):
        image.write(b"%2d" % number, number)
    for number, image in enumerate(images):
        assert image.read(number, 2) == b"%2d" % number
        image.close()


def test_refused_features(room: Room, ioctx: Any) -> None:
    """What cannot be kept up is refused, and nothing is left behind by the attempt."""
    with rbd.Image(ioctx, "image") as image:
        identifier = image.id()
    header = f"rbd_header.{identifier}"
    set_features(ioctx, header, 61 | rbd.RBD_FEATURE_JOURNALING)
    with pytest.raises(rbd.FunctionNotSupported):
        rbd.Image(ioctx, "image")
    with rbd.Image(ioctx, "image", read_only=True) as image:
        assert image.features() == 125
    set_features(ioctx, header, 61 | rbd.RBD_FEATURE_MIGRATING)
    for read_only in (False, True):
        with pytest.raises(rbd.FunctionNotSupported):
            rbd.Image(ioctx, "image", read_only=read_only)
    set_features(ioctx, header, 61)
    with rbd.Image(ioctx, "image") as image:
        assert watchers(image) == 1


def set_features(ioctx: Any, header: str, features: int) -> None:
    """Into the omap itself, past every check."""
    with writing(ioctx) as operation:
        ioctx.set_omap(operation, ("features",), (features.to_bytes(8, "little"),))
        ioctx.operate_write_op(operation, header)


def writing(ioctx: Any) -> Any:
    import importlib

    module = "rados" if type(ioctx).__module__ == "rados" else "rbd_native.embedded"
    return importlib.import_module(module).WriteOpCtx()


def test_what_looks_like_format_1_takes_a_name(ioctx: Any) -> None:
    ioctx.write_full("old.rbd", b"<<< Rados Block Device Image >>>\n")
    with pytest.raises(rbd.IOError):
        rbd.Image(ioctx, "old")
    with pytest.raises(rbd.ImageExists):
        rbd.RBD().create(ioctx, "old", MIB)
    with pytest.raises(rbd.ImageExists):
        rbd.RBD().rename(ioctx, "image", "old")
