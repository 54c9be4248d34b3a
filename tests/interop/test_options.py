"""The table of options and the order of places, judged by librbd on a real cluster."""

import struct
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import rbd as real

from rbd_native import option_types, options
from rbd_native.options import Level, OptionError, Settings
from tests.cluster import CephCluster
from tests.releases import EXCLUDE_OPS, told

pytestmark = pytest.mark.ceph

TYPES = {
    "bool": option_types.FLAG,
    "int": option_types.INT,
    "uint": option_types.UINT,
    "size": option_types.SIZE,
    "float": option_types.FLOAT,
    "str": option_types.TEXT,
}
KNOWN = {
    level: [name for name in names if name != "rbd_qos_exclude_ops" or told(EXCLUDE_OPS)]
    for level, names in options.NAMES.items()
}
SETS = {"rbd_default_features": option_types.FEATURES, "rbd_qos_exclude_ops": option_types.OPERATIONS}
"""Texts to the monitor, sets of names to librbd."""


@pytest.fixture
def image(ioctx: Any) -> Any:
    real.RBD().create(ioctx, "image", 1 << 20)
    with real.Image(ioctx, "image") as image:
        yield image


def test_the_table(ceph: CephCluster) -> None:
    """Every option of this release is known, with its type, default, limits and allowed texts."""
    names = [name for name in ceph.command("config ls") if name.startswith("rbd_")]
    assert sorted(names) == KNOWN[Level.CLIENT]
    for name in names:
        theirs, ours = ceph.command("config help", key=name), options.OPTIONS[name]
        if name in SETS:
            assert (theirs["type"], ours.kind) == ("str", SETS[name])
            assert ours.parse(theirs["default"]) == ours.default
            continue
        assert ours.kind == TYPES[theirs["type"]], name
        assert ours.default == ours.parse(str(theirs["default"])), name
        limits = [None if limit == "" else float(limit) for limit in (theirs["min"], theirs["max"])]
        # A minimum of 0 says nothing about an unsigned number.
        assert [ours.minimum or None, ours.maximum] == [limits[0] or None, limits[1]], name
        assert sorted(ours.allowed) == sorted(theirs.get("enum_values", [])), name


def test_the_levels(ioctx: Any, image: Any) -> None:
    assert [entry["name"] for entry in real.RBD().config_list(ioctx)] == KNOWN[Level.POOL]
    assert [entry["name"] for entry in image.config_list()] == KNOWN[Level.IMAGE]


@pytest.mark.parametrize("level", [Level.POOL, Level.IMAGE])
def test_what_may_be_set(level: Level, ioctx: Any, image: Any) -> None:
    """Every option, of either level and of none, with texts of every type: accepted or refused alike."""
    if level == Level.POOL:
        config_set = partial(real.RBD().config_set, ioctx)
        config_remove = partial(real.RBD().config_remove, ioctx)
    else:
        config_set, config_remove = image.config_set, image.config_remove
    for name in [*KNOWN[Level.CLIENT], "rbd_no_such_option", "debug_rbd"]:
        for text in ["true", "1", "4096", "1.5", "1Ki", "none", "layering"]:
            theirs = accepted(config_set, name, text)
            assert accepted(options.validate, name, text, level) == theirs, (name, text)
            if theirs:
                config_remove(name)


def test_metadata_keys(ioctx: Any, image: Any) -> None:
    """Which metadata keys stand for options, and are checked."""
    pool_metadata_set = partial(real.RBD().pool_metadata_set, ioctx)
    keys = ("conf_", "conf_rbd_cache", "conf_rbd_default_order", "conf_rbd_tracing", "conf_x", "Conf_x")
    for key, text in product(keys, ("true", "20", "x")):
        for level, metadata_set in ((Level.POOL, pool_metadata_set), (Level.IMAGE, image.metadata_set)):
            ours = accepted(options.validate_metadata, key, text, level)
            assert ours == accepted(metadata_set, key, text), (key, text, level)


def accepted(call: Callable[..., None], *arguments: Any) -> bool:
    try:
        call(*arguments)
    except (real.InvalidArgument, OptionError):
        return False
    return True


def test_listings(ceph: CephCluster, pool: str) -> None:
    """Overrides at every level, good ones and bad ones, are shown with the same text and source."""
    in_client = {
        "rbd_cache_max_dirty": "1K",
        "rbd_cache_max_dirty_age": "2",
        "rbd_default_features": "striping",
    }
    in_pool = {
        "rbd_cache": b"0",
        "rbd_cache_size": b"1K",
        "rbd_default_order": b"no number",
        "rbd_tracing": b"true",
        "rbd_of_the_future": b"1",
    }
    in_image = {
        "rbd_cache_size": b"2Ki",
        "rbd_cache_policy": b"nonsense",
        "rbd_default_order": b"21",
        "rbd_persistent_cache_path": b"",
        "rbd_of_the_future": b"1",
    }
    cluster = ceph.rados(**in_client)
    ioctx = cluster.open_ioctx(pool)
    real.RBD().create(ioctx, "image", 1 << 20)
    with real.Image(ioctx, "image") as image:
        identifier = image.id()
    set_unchecked(ioctx, "rbd_info", in_pool)
    set_unchecked(ioctx, f"rbd_header.{identifier}", in_image)
    shown = [(entry["name"], entry["value"], entry["source"]) for entry in real.RBD().config_list(ioctx)]
    assert listing(Settings(cluster.conf_get, in_pool)) == shown
    with real.Image(ioctx, "image") as image:
        shown = [(entry["name"], entry["value"], entry["source"]) for entry in image.config_list()]
    assert listing(Settings(cluster.conf_get, in_pool, in_image)) == shown
    ioctx.close()
    cluster.shutdown()


def listing(settings: Settings) -> list[tuple[str, str, int]]:
    return [entry for entry in settings.listing() if entry[0] in KNOWN[Level.CLIENT]]


def set_unchecked(ioctx: Any, oid: str, texts: dict[str, bytes]) -> None:
    """Set `conf_` metadata by the class method itself, past librbd's check."""
    entries = b"".join(sized(f"conf_{name}".encode()) + sized(text) for name, text in sorted(texts.items()))
    ioctx.execute(oid, "rbd", "metadata_set", struct.pack("<I", len(texts)) + entries)


def sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data
