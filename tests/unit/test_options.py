"""Options: types, defaults and places, judged by librados' own parser (a client that never connects)."""

import re
import string
from collections.abc import Mapping

import pytest
import rados
from hypothesis import example, given
from hypothesis import strategies as st

from rbd_native import options
from rbd_native.option_types import SIZE
from rbd_native.options import Level, OptionError, Settings
from tests.releases import EXCLUDE_OPS, SIZE_UNITS, told

# One option of every type, with and without limits.
SAMPLES = (
    "rbd_cache",
    "rbd_cache_max_dirty_object",
    "rbd_concurrent_management_ops",
    "rbd_discard_granularity_bytes",
    "rbd_mirror_perf_stats_prio",
    "rbd_cache_size",
    "rbd_cache_max_dirty_age",
    "rbd_mirror_memory_expected_fragmentation",
    "rbd_persistent_cache_path",
    "rbd_cache_policy",
    "rbd_default_features",
)
# Words, and texts with blanks in them.
ODD = [
    *"true True TRUE tRue t yes no on off 1 0 2 -1 00 01 +1 -0 +0 0x10 010 1.5 1e3 .5 5. . 0x".split(),
    *"0x.8 0x1p3 0x1p 1_0 inf -inf INF infinity infinit nan NaN -nan nan(abc) nan( 1e308".split(),
    *"1.8e308 1e-310 4.9e-324 0e999 1e+ 1d5 1K 1k 1Ki 1KiB 1KB 1kb 1M 1G 1T 1P 1E 16E 15E 18E".split(),
    *"19E 1B 1Bi 1BB 1KK 1Kx 1i iB 1b 1Z 1.5K K -1K -0K +1K 9223372036854775807".split(),
    *"9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615".split(),
    *"18446744073709551616 18446744073709551K 18446744073709552K 18014398509481983K".split(),
    *"18014398509481984K 9007199254740993K 2147483647 2147483648 -2147483648 -2147483649 1+1".split(),
    *"--1 abc 1abc 4095 4096 4097 33554433 11 12 writeback WriteBack layering".split(),
    *"layering,exclusive-lock layering,bogus layering, , layering,layering Layering operations".split(),
    *"dirty-cache 61 255 256 1024 -18446744073709551615 1,layering default".split(),
    *("", " ", " 1", "1 ", "\t1", "\v1", "1\n", "1 K", " 1K", "1K ", " true", "true "),
    *("layering, striping", " 61 ", "writeback "),
]
TEXTS = st.one_of(
    st.sampled_from(ODD),
    st.text(string.digits + "+-.eExXKMGTPEBi ,\t_", max_size=24),
    st.text(max_size=6).filter(lambda text: "\0" not in text),
    st.integers(-(2**65), 2**65).map(str),
    st.floats().map(str),
    st.lists(st.sampled_from(["layering", "striping", " journaling ", "x"]), max_size=4).map(",".join),
)


CLIENT = rados.Rados()
KNOWN = [name for name in options.NAMES[Level.CLIENT] if name != "rbd_qos_exclude_ops" or told(EXCLUDE_OPS)]
DEFAULTS = {name: CLIENT.conf_get(name) for name in KNOWN}


def theirs(name: str, text: str) -> str | None:
    """What Ceph makes of a text: its own rendering of the value, None if it refuses."""
    if not told(SIZE_UNITS) and options.OPTIONS[name].kind == SIZE and re.fullmatch("[0-9]+[KMGTPE](iB|[^iB])", text):
        return ours(name, text)
    CLIENT.conf_set(name, DEFAULTS[name])
    try:
        CLIENT.conf_set(name, text)
    except rados.InvalidArgumentError:
        return None
    return str(CLIENT.conf_get(name))


def ours(name: str, text: str) -> str | None:
    try:
        return options.render(name, options.parse(name, text))
    except OptionError:
        return None


@pytest.mark.parametrize("name", SAMPLES)
def test_odd_texts(name: str) -> None:
    assert {text: ours(name, text) for text in ODD} == {text: theirs(name, text) for text in ODD}


@given(st.sampled_from(SAMPLES), TEXTS)
@example("rbd_cache_size", "1\u00e9")
@example("rbd_cache_max_dirty_age", "0x1p-1074")
def test_any_text(name: str, text: str) -> None:
    assert ours(name, text) == theirs(name, text)


@pytest.mark.parametrize("name", KNOWN)
def test_defaults(name: str) -> None:
    option = options.OPTIONS[name]
    assert option.render(option.default) == DEFAULTS[name]
    assert option.parse(option.render(option.default)) == option.default


@pytest.mark.parametrize("name", KNOWN)
def test_limits(name: str) -> None:
    """Both sides of every limit, and every allowed text, of every option."""
    option = options.OPTIONS[name]
    texts = ["-1", "0", "1", "2", "11", "12", "1.0", "true", "x", *option.allowed]
    for limit in (option.minimum, option.maximum):
        if limit is not None:
            texts += [str(int(limit) + step) for step in (-1, 0, 1)]
    assert {text: ours(name, text) for text in texts} == {text: theirs(name, text) for text in texts}


def settings(
    pool: Mapping[str, bytes] | None = None, image: Mapping[str, bytes] | None = None, **client: str
) -> Settings:
    return Settings(client.get, pool, image)


def test_the_most_specific_place_wins() -> None:
    name = "rbd_cache_size"
    assert settings()[name] == (32 << 20, "33554432", 0)
    assert settings(rbd_cache_size="4096")[name] == (4096, "4096", 0)
    assert settings({name: b"1K"}, rbd_cache_size="4096")[name] == (1024, "1K", 1)
    assert settings({name: b"1K"}, {name: b"2Ki"}, rbd_cache_size="4096")[name] == (2048, "2Ki", 2)


def test_what_is_no_value_is_shown_but_passed_over() -> None:
    name = "rbd_cache"
    assert settings({name: b"0"}, {name: b"maybe"})[name] == (False, "maybe", 2)
    assert settings({name: b"\xff"}, {}, rbd_cache="false")[name] == (False, "\udcff", 1)
    assert settings(rbd_cache="maybe")[name] == (True, "maybe", 0)


def test_each_level_has_its_own_options() -> None:
    image_too_low = settings({"rbd_default_order": b"20"}, {"rbd_default_order": b"21"})
    assert image_too_low["rbd_default_order"] == (20, "20", 1)
    assert settings({"rbd_validate_pool": b"false"})["rbd_validate_pool"] == (True, "true", 0)


def test_typed_values() -> None:
    some = settings({"rbd_journal_commit_age": b"1.5"}, {"rbd_cache": b"2", "rbd_cache_policy": b"writeback"})
    assert some.flag("rbd_cache") is True
    assert some.real("rbd_journal_commit_age") == 1.5
    assert some.text("rbd_cache_policy") == "writeback"
    assert some.integer("rbd_default_features") == 61


def test_listing() -> None:
    pool = settings({"rbd_default_order": b"20"}).listing()
    assert [name for name, _, _ in pool] == list(options.NAMES[Level.POOL])
    assert ("rbd_default_order", "20", 1) in pool
    image = settings({"rbd_default_order": b"20"}, {"rbd_cache": b"1"}).listing()
    assert [name for name, _, _ in image] == list(options.NAMES[Level.IMAGE])
    assert ("rbd_cache", "1", 2) in image
    assert ("rbd_cache_max_dirty_age", "1.000000", 0) in image


def test_unknown_option() -> None:
    with pytest.raises(KeyError):
        settings()["rbd_no_such_option"]
    with pytest.raises(OptionError, match="no such option"):
        options.parse("rbd_no_such_option", "1")


@pytest.mark.parametrize(
    ("key", "text", "level", "fine"),
    [
        ("conf_rbd_cache", "true", Level.IMAGE, True),
        ("conf_rbd_cache", "yes", Level.IMAGE, False),
        ("conf_rbd_default_order", "20", Level.IMAGE, False),
        ("conf_rbd_default_order", "20", Level.POOL, True),
        ("conf_rbd_validate_pool", "true", Level.POOL, False),
        ("conf_rbd_no_such_option", "1", Level.POOL, False),
        ("conf_debug_rbd", "20", Level.IMAGE, False),
        ("conf_", "yes", Level.IMAGE, True),
        ("CONF_rbd_cache", "yes", Level.IMAGE, True),
        ("plain", "yes", Level.IMAGE, True),
    ],
)
def test_metadata(key: str, text: str, level: Level, fine: bool) -> None:
    if fine:
        options.validate_metadata(key, text, level)
    else:
        with pytest.raises(OptionError):
            options.validate_metadata(key, text, level)
