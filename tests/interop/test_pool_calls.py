"""What is asked of a pool as a whole, judged by librbd: namespaces, metadata, options, statistics.

A known difference, which the calls keep away from: librbd's binding forgets keys and values that are empty when it lists
metadata, so that later values come under wrong keys, and most pairs of a long list.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import rbd as real
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import rbd_native as rbd
from tests.cluster import CephCluster
from tests.interop.twins import Outcome, Twins, agree, outcome
from tests.releases import TRASH_FROM_THE_START, told

pytestmark = pytest.mark.ceph

# Shrinking on a real cluster takes longer than a test may; a script is short enough to be read as it is.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
QUICK = settings(max_examples=15, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
MIB = 1 << 20


@pytest.fixture(scope="module")
def twins(ceph: CephCluster) -> Iterator[Twins]:
    twins = Twins(ceph, "pool")
    yield twins
    twins.close()


SPACES = ["", "a", "b", "é"]


def forget(twins: Twins) -> None:
    for ioctx in twins.ioctxs:
        for space in [*SPACES, "a/b", "x"]:
            ioctx.set_namespace(space)
            for found in list(ioctx.list_objects()):
                ioctx.remove_object(found.key)
        ioctx.set_namespace("")


def within(space: str, method: str, arguments: tuple[Any, ...]) -> Any:
    """A call of a method of class RBD with the ioctx set to a namespace."""

    def do(module: Any, ioctx: Any, side: int) -> Any:
        ioctx.set_namespace(space)
        try:
            found = getattr(module.RBD(), method)(ioctx, *arguments)
            return [entry["name"] for entry in found] if method == "trash_list" else found
        finally:
            ioctx.set_namespace("")

    return do


# --- namespaces ------------------------------------------------------------------------------------------------------

spaces = st.sampled_from(SPACES)
targets = st.sampled_from(["a", "a", "b", "é", "", "x", "a/b", b"b\0c", "n" * 300, None])
SPACE_CALLS = {
    "namespace_create": st.tuples(targets),
    "namespace_remove": st.tuples(targets),
    "namespace_exists": st.tuples(targets),
    "namespace_list": st.just(()),
    "create": st.tuples(st.sampled_from(["i", "j"]), st.just(MIB)),
    "remove": st.tuples(st.sampled_from(["i", "j"])),
    "rename": st.just(("i", "j")),
    "trash_move": st.tuples(st.sampled_from(["i", "j"])),
    "trash_purge": st.just(()),
    "trash_list": st.just(()),
    "list": st.just(()),
    "pool_stats_get": st.just(()),
}
space_calls = st.sampled_from([*SPACE_CALLS, "namespace_create", "namespace_remove", "create", "create"]).flatmap(
    lambda name: st.tuples(spaces, st.just(name), SPACE_CALLS[name])
)


@QUICK
@given(script=st.lists(space_calls, min_size=6, max_size=20))
def test_namespaces(twins: Twins, script: list[tuple[str, str, tuple[Any, ...]]]) -> None:
    try:
        twins.both(within("", "namespace_create", ("a",)))
        for call in script:
            twins.both(within(*call))
        for space in [*SPACES, "x"]:
            twins.both(within(space, "namespace_exists", (space or "x",)))
            twins.stored(space)
    finally:
        forget(twins)


@pytest.mark.parametrize("mode", [rbd.RBD_MIRROR_MODE_IMAGE, rbd.RBD_MIRROR_MODE_POOL])
def test_remove_a_namespace_with_all_that_is_no_image(twins: Twins, mode: int) -> None:
    def fill(module: Any, ioctx: Any, side: int) -> None:
        real.RBD().namespace_create(ioctx, "a")
        real.RBD().mirror_mode_set(ioctx, mode)
        ioctx.set_namespace("a")
        try:
            real.RBD().mirror_mode_set(ioctx, mode)
            real.RBD().group_create(ioctx, "group")
            module.RBD().pool_metadata_set(ioctx, "key", "value")
            module.RBD().create(ioctx, "i", MIB, features=1)
            module.RBD().trash_move(ioctx, "i")
            module.RBD().trash_purge(ioctx)
        finally:
            ioctx.set_namespace("")

    try:
        assert twins.both(fill).raised is None
        assert twins.both(within("", "namespace_remove", ("a",))).raised is None
        for ioctx in twins.ioctxs:
            ioctx.set_namespace("a")
            left = {found.key.split(".")[0] for found in ioctx.list_objects()}
            assert left == {"rbd_group_header"}  # of a group that nobody can name any more; librbd leaves it as well
    finally:
        for ioctx in twins.ioctxs:
            ioctx.set_namespace("")
        forget(twins)


# --- metadata and options --------------------------------------------------------------------------------------------

keys = st.sampled_from(
    ["k", "k", "é", b"bytes", "n\0ul", "conf_", "conf_rbd_cache", "conf_rbd_nonsense", "conf_rbd_op_threads", "k" * 300]
)
values = st.sampled_from(["x", "true", b"12", "é", "n\0ul", "y" * 9000])
options = st.sampled_from(["rbd_cache", "rbd_default_order", "rbd_op_threads", "rbd_nonsense", "conf_rbd_cache", ""])
METADATA_CALLS = {
    "pool_metadata_set": st.tuples(keys | st.none(), values | st.just(5)),
    "pool_metadata_get": st.tuples(keys | st.none()),
    "pool_metadata_remove": st.tuples(keys | st.just(5)),
    "pool_metadata_list": st.just(()),
    "config_set": st.tuples(options | st.just(b"rbd_cache"), values | st.none() | st.just("20")),
    "config_get": st.tuples(options | st.none()),
    "config_remove": st.tuples(options | st.just(5)),
    "config_list": st.just(()),
}
metadata_calls = st.sampled_from([*METADATA_CALLS, "pool_metadata_set", "config_set"]).flatmap(
    lambda name: st.tuples(st.sampled_from(["", "", "a"]), st.just(name), METADATA_CALLS[name])
)


def anonymous(what: Outcome, pool: str) -> Outcome:
    """Without the name of the pool, which some errors tell."""
    return what._replace(words=what.words.replace(pool, "<pool>"))


@QUICK
@given(script=st.lists(metadata_calls, min_size=6, max_size=20))
def test_metadata(twins: Twins, script: list[tuple[str, str, tuple[Any, ...]]]) -> None:
    try:
        for call in script:
            theirs, mine = (
                anonymous(outcome(partial(within(*call), module, ioctx, side)), pool)
                for side, (module, ioctx, pool) in enumerate(zip((real, rbd), twins.ioctxs, twins.pools, strict=True))
            )
            assert agree(theirs, mine), f"librbd: {theirs}, ours: {mine}"
        for space in ("", "a"):
            twins.stored(space)
    finally:
        forget(twins)


def test_a_long_list_of_metadata(twins: Twins) -> None:
    pairs = {f"key{number:03}": f"{number}" for number in range(130)}
    try:
        for ioctx in twins.ioctxs:
            for key, value in pairs.items():
                rbd.RBD().pool_metadata_set(ioctx, key, value)
        assert dict(twins.both(within("", "pool_metadata_list", ())).value) == pairs
    finally:
        forget(twins)


def test_options_reach_those_who_run(twins: Twins, ceph: CephCluster) -> None:
    """An option that we give the pool is in effect for librbd, and clients that run are told to look."""
    ioctx = twins.ioctxs[1]
    try:
        name = "rbd_config_pool_override_update_timestamp"
        ceph.command("config rm", who="global", name=name)
        rbd.RBD().config_set(ioctx, "rbd_default_order", "20")
        (signal,) = [entry for entry in ceph.command("config dump") if entry["name"] == name]
        assert signal["section"] == "global"
        assert 0 <= time.time() - int(signal["value"]) < 60
        assert [e for e in real.RBD().config_list(ioctx) if e["source"] == real.RBD_CONFIG_SOURCE_POOL] == [
            {"name": "rbd_default_order", "value": "20", "source": real.RBD_CONFIG_SOURCE_POOL}
        ]
        real.RBD().create(ioctx, "theirs", MIB)
        rbd.RBD().create(ioctx, "ours", MIB)
        for name in ("theirs", "ours"):
            with rbd.Image(ioctx, name) as image:
                assert image.stat()["order"] == 20
    finally:
        forget(twins)


# --- statistics and the pool itself ----------------------------------------------------------------------------------


def test_statistics(twins: Twins) -> None:
    def grow(module: Any, ioctx: Any, side: int) -> None:
        for number, features in enumerate((1, 5, 61)):
            name = f"image{number}"
            module.RBD().create(ioctx, name, 5 * MIB, features=features)
            with module.Image(ioctx, name) as image:
                for size in (9, 20, 3)[:number]:
                    image.resize(size * MIB)
                    image.create_snap(f"at{size}")
                image.resize(2 * MIB)
        module.RBD().trash_move(ioctx, "image1", 100)
        module.RBD().create(ioctx, "headless", MIB)
        with module.Image(ioctx, "headless") as image:
            header = f"rbd_header.{image.id()}"
        ioctx.remove_object(header)

    try:
        assert twins.both(grow).raised is None
        stats = twins.both(within("", "pool_stats_get", ())).value
        assert (stats["image_count"], stats["image_snap_count"], stats["trash_snap_count"]) == (3, 2, 1)
        assert stats["image_max_provisioned_bytes"] == (2 + 20) * MIB
        assert stats["trash_max_provisioned_bytes"] == 9 * MIB
    finally:
        forget(twins)


@pytest.mark.parametrize("kind", ["new", "ours", "theirs", "pool snapshots"])
@pytest.mark.parametrize("force", [False, True])
def test_pool_init(ceph: CephCluster, kind: str, force: Any) -> None:
    outcomes = []
    for module in (real, rbd):
        name = f"init-{module.__name__}"
        client = ceph.rados()
        ceph.command("osd pool create", pool=name, pg_num=1)
        try:
            client.wait_for_latest_osdmap()
            if kind in ("ours", "theirs"):
                app = "rbd" if kind == "ours" else "cephfs"
                ceph.command("osd pool application enable", pool=name, app=app)
            with client.open_ioctx(name) as ioctx:
                if kind == "pool snapshots":
                    ioctx.create_snap("snap")
                try:
                    module.RBD().pool_init(ioctx, force)
                    raised = None
                except module.Error as error:
                    raised = type(error).__name__, error.errno, str(error)
                kept = {found.key: ioctx.read(found.key) for found in ioctx.list_objects()}
                if not told(TRASH_FROM_THE_START):
                    kept.pop("rbd_trash", None)
            outcomes.append((raised, kept, ceph.command("osd pool application get", pool=name)))
        finally:
            client.shutdown()
            ceph.remove_pool(name)
    assert outcomes[0] == outcomes[1]
