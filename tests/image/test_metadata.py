"""Metadata and options of an image on either cluster."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

import rbd_native as rbd
from tests.backend import Backend
from tests.image.room import Room

MIB = 1 << 20


@pytest.fixture(params=[1, 61])
def image(request: pytest.FixtureRequest, room: Room) -> Any:
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "image", MIB, 16, features=request.param)
    with rbd.Image(ioctx, "image") as image:
        yield image


def test_set_get_list_remove(image: rbd.Image) -> None:
    assert list(image.metadata_list()) == []
    pairs = {"a": "1", "é": "ö", "b c": "x" * 5000, "": "the empty key", "k" * 300: "long", "empty": ""}
    for key, value in pairs.items():
        image.metadata_set(key, value)
    for key, value in pairs.items():
        assert image.metadata_get(key) == value
    del pairs[""]  # a listing begins behind it, with librbd too
    assert list(image.metadata_list()) == sorted(pairs.items(), key=lambda pair: pair[0].encode())
    image.metadata_set(b"a", b"2")
    assert image.metadata_get(b"a") == "2"
    image.metadata_remove("a")
    with pytest.raises(KeyError):
        image.metadata_get("a")
    assert "a" not in dict(image.metadata_list())


def test_absent_keys(image: rbd.Image) -> None:
    absent: Callable[[Any], Any]
    for absent in (image.metadata_get, image.metadata_remove):
        with pytest.raises(KeyError, match=r"no metadata b'key' for image b'image'"):
            absent("key")
    for absent in (image.config_get, image.config_remove):
        with pytest.raises(KeyError, match=r"no config rbd_cache for image b'image'"):
            absent("rbd_cache")


def test_wrong_types(image: rbd.Image) -> None:
    nothings: list[Any] = [None, 5, [], bytearray(b"k")]
    for wrong in nothings:
        for call in (image.metadata_get, image.metadata_remove, lambda wrong: image.metadata_set(wrong, "v")):
            with pytest.raises(rbd.InvalidArgument) as caught:
                call(wrong)
            assert caught.value.errno is None
        with pytest.raises(rbd.InvalidArgument):
            image.metadata_set("k", wrong)
        with pytest.raises(TypeError):
            image.config_get(wrong)


def test_what_ends_at_a_nul(image: rbd.Image) -> None:
    image.metadata_set("key\0tail", "value\0tail")
    assert list(image.metadata_list()) == [("key", "value")]


@pytest.mark.parametrize("number", [63, 64, 65, 200])
def test_more_than_a_page(image: rbd.Image, number: int) -> None:
    """They are read 64 at a time; options among them count."""
    pairs = {f"key-{index:03}": str(index) for index in range(number)}
    for key, value in pairs.items():
        image.metadata_set(key, value)
    image.config_set("rbd_cache", "false")
    image.metadata_set("zzz", "last")
    assert dict(image.metadata_list()) == pairs | {"conf_rbd_cache": "false", "zzz": "last"}
    assert image.config_get("rbd_cache") == "false"


def test_options(image: rbd.Image) -> None:
    def listed(name: str) -> tuple[str, int]:
        (found,) = (option for option in image.config_list() if option["name"] == name)
        assert set(found) == {"name", "value", "source"}
        return found["value"], found["source"]

    assert listed("rbd_discard_granularity_bytes") == ("65536", rbd.RBD_CONFIG_SOURCE_CONFIG)
    image.config_set("rbd_discard_granularity_bytes", "4096")
    assert image.config_get("rbd_discard_granularity_bytes") == "4096"
    assert image.metadata_get("conf_rbd_discard_granularity_bytes") == "4096"
    assert listed("rbd_discard_granularity_bytes") == ("4096", rbd.RBD_CONFIG_SOURCE_IMAGE)
    image.config_remove("rbd_discard_granularity_bytes")
    assert listed("rbd_discard_granularity_bytes") == ("65536", rbd.RBD_CONFIG_SOURCE_CONFIG)
    names = [option["name"] for option in image.config_list()]
    assert names == sorted(set(names)) and len(names) > 70


def test_options_take_effect(image: rbd.Image) -> None:
    image.write(b"x" * 65536, 0)
    image.discard(0, 8192)
    assert image.read(0, 8192) == b"x" * 8192  # smaller than a useful piece
    image.config_set("rbd_discard_granularity_bytes", "4096")
    image.discard(0, 8192)
    assert image.read(0, 8192) == bytes(8192)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rbd_no_such", "1"), ("rbd_default_order", "20"), ("rbd_cache", "maybe"), ("rbd_cache_size", "-1")],
)
def test_options_that_are_none(image: rbd.Image, key: str, value: str) -> None:
    for set_option in (lambda: image.config_set(key, value), lambda: image.metadata_set("conf_" + key, value)):
        with pytest.raises(rbd.InvalidArgument) as caught:
            set_option()
        assert caught.value.errno == errno.EINVAL
    assert list(image.metadata_list()) == []


def test_options_of_the_pool(backend: Backend) -> None:
    """What a pool says holds for all its images, less than what they say themselves."""
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "image", MIB)
    key, value = "conf_rbd_discard_granularity_bytes", "8192"
    entry = b"".join(len(text).to_bytes(4, "little") + text.encode() for text in (key, value))
    ioctx.execute("rbd_info", "rbd", "metadata_set", (1).to_bytes(4, "little") + entry)
    with rbd.Image(ioctx, "image") as image:
        found = {option["name"]: (option["value"], option["source"]) for option in image.config_list()}
        assert found["rbd_discard_granularity_bytes"] == ("8192", rbd.RBD_CONFIG_SOURCE_POOL)
        with pytest.raises(KeyError):
            image.config_get("rbd_discard_granularity_bytes")
        image.config_set("rbd_discard_granularity_bytes", "16384")
        found = {option["name"]: (option["value"], option["source"]) for option in image.config_list()}
        assert found["rbd_discard_granularity_bytes"] == ("16384", rbd.RBD_CONFIG_SOURCE_IMAGE)
