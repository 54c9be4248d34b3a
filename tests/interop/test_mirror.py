"""Mirroring control, judged by librbd: whatever the order of the calls, it, we, and we on an embedded cluster answer alike
and leave the same bytes behind.

Known and meant differences, which the sequences keep away from: what has to do with journals is refused; site names and
attributes of peers with quotes or backslashes in them, which librbd 16 cannot store or stores as something else, are stored
as they are; a handle that was opened before its image was demoted cannot take the lock by hand any more, and its next write
fails, where the first one of librbd still reaches the demoted image.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.cluster import CephCluster
from tests.interop.mirror_sides import MIB, Side, Sides, come_from_elsewhere
from tests.interop.twins import Outcome
from tests.releases import KEY_LENGTH, NEWEST, told

pytestmark = pytest.mark.ceph

# Shrinking on a real cluster takes longer than a test may; a script is short enough to be read as it is.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@pytest.fixture(scope="module")
def shared(ceph: CephCluster) -> Iterator[Sides]:
    sides = Sides(ceph, "mirror")
    yield sides
    sides.close()


@pytest.fixture
def sides(shared: Sides) -> Iterator[Sides]:
    yield shared
    shared.forget()


class Script:
    """The steps that a sequence is made of."""

    def __init__(self, sides: Sides) -> None:
        self._sides = sides

    def rbd(self, method: str, *arguments: Any) -> None:
        self._sides.rbd(method, *arguments)

    def image(self, name: str, method: str, *arguments: Any) -> None:
        self._sides.image(name, method, *arguments)

    def peer(self, site: str, method: str, *arguments: Any) -> None:
        sides = self._sides
        sides.all(lambda side: getattr(side.module.RBD(), method)(side.ioctx, sides.peer(side, site), *arguments))

    def elsewhere(self, name: str, complete: bool) -> None:
        """Only of an image that is there and mirrored."""
        there = self._sides.image(name, "mirror_image_get_info")
        if there.raised is None and there.value["state"] == 1:
            self._sides.all(lambda side: come_from_elsewhere(side, name, complete=complete))

    def watched(self, name: str, method: str) -> None:
        """While another handle, which has written, is open; which then can write, or not."""

        def do(side: Side) -> Any:
            with side.module.Image(side.ioctx, name) as held, side.module.Image(side.ioctx, name) as image:
                try:
                    held.write(b"first", 0)
                    held.flush()
                except side.module.ReadOnlyImage:
                    pass
                arguments = (True,) if method == "mirror_image_promote" else ()
                getattr(image, method)(*arguments)
                held.stat()
                held.write(b"second", 0)
                held.flush()
                return held.read(0, 6)

        self._sides.all(do)


names = st.sampled_from(["a", "a", "a", "b"])
sites = st.sampled_from(["x", "x", "y", "nobody"])
flags = st.sampled_from([0, 0, 1, 2, 3, 8])
IMAGE = {
    "mirror_image_enable": st.sampled_from([(1,), (1,), (1,), (7,)]),
    "mirror_image_disable": st.tuples(st.booleans()),
    "mirror_image_promote": st.tuples(st.booleans()),
    "mirror_image_demote": st.just(()),
    "mirror_image_resync": st.just(()),
    "mirror_image_create_snapshot": st.tuples(flags),
    "mirror_image_get_info": st.just(()),
    "mirror_image_get_mode": st.just(()),
    "mirror_image_get_status": st.just(()),
    "mirror_image_get_instance_id": st.just(()),
    "list_snaps": st.just(()),
    "features": st.just(()),
    "write": st.sampled_from([(b"data", 0), (b"more", MIB - 4), (b"x" * 8192, 70000)]),
    "resize": st.sampled_from([(MIB,), (2 * MIB,)]),
    "create_snap": st.sampled_from([("s",), ("t", 1), ("t", 2), ("t", 3)]),
    "remove_snap": st.sampled_from([("s",), ("t",)]),
    "protect_snap": st.just(("s",)),
    "unprotect_snap": st.just(("s",)),
    "metadata_set": st.sampled_from([("key", "value"), ("conf_rbd_mirroring_max_mirroring_snapshots", "3")]),
    "set_snap_limit": st.sampled_from([(3,), (9,), (2**64 - 1,)]),
    "update_features": st.sampled_from([(24, True), (24, False)]),
}
RBD = {
    "mirror_mode_set": st.sampled_from([(0,), (1,), (1,), (2,), (3,)]),
    "mirror_mode_get": st.just(()),
    "mirror_uuid_get": st.just(()),
    "mirror_peer_add": st.sampled_from([("x", "client.x"), ("y", "client.y", 0), ("y", "c"), ("z", "c", 1), ("ceph", "c")]),
    "mirror_peer_list": st.just(()),
    "mirror_image_status_list": st.just(()),
    "mirror_image_status_summary": st.just(()),
    "mirror_image_instance_id_list": st.just(()),
    "mirror_image_info_list": st.sampled_from([(), (1,), (0,)]),
    "create": st.sampled_from([("a", MIB, 18), ("b", MIB, 18)]),
    "remove": st.tuples(names),
    "trash_move": st.tuples(names),
    "trash_purge": st.just(()),
    "list": st.just(()),
}
PEER = {
    "mirror_peer_remove": st.just(()),
    "mirror_peer_set_client": st.sampled_from([("client.new",), ("",)]),
    "mirror_peer_set_name": st.sampled_from([("x",), ("y",), ("ceph",)]),
    "mirror_peer_set_attributes": st.sampled_from([({},), ({"mon_host": "1.2.3.4", "key": "k"},), ({"b": "é", "a": ""},)]),
    "mirror_peer_get_attributes": st.just(()),
}


def calls(kind: str, subject: Any, table: dict[str, Any]) -> Any:
    """(kind, subject, method, arguments): any of a table's."""
    method = st.sampled_from(sorted(table))
    return method.flatmap(lambda name: st.tuples(st.just(kind), subject, st.just(name), table[name]))


OFTEN = ["mirror_image_enable", "mirror_image_create_snapshot", "mirror_image_demote", "mirror_image_promote"]
steps = st.one_of(
    calls("image", names, {name: IMAGE[name] for name in OFTEN}),
    calls("image", names, IMAGE),
    calls("image", names, IMAGE),
    calls("rbd", st.none(), RBD),
    calls("peer", sites, PEER),
    st.tuples(st.just("elsewhere"), names, st.none(), st.tuples(st.booleans())),
    st.tuples(st.just("watched"), names, st.sampled_from(OFTEN[1:]), st.just(())),
)


@settings(max_examples=8, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(features=st.sampled_from([1, 5, 61, 61]), peers=st.integers(0, 2), script=st.lists(steps, min_size=8, max_size=24))
def test_sequences(shared: Sides, features: int, peers: int, script: list[Any]) -> None:
    sides, step = shared, Script(shared)
    try:
        sides.rbd("mirror_mode_set", 1)
        for site in ("x", "y")[:peers]:
            sides.rbd("mirror_peer_add", site, f"client.{site}")
        sides.rbd("create", "a", MIB, 18, False, features)
        sides.image("a", "mirror_image_enable", 1)
        for kind, subject, method, arguments in script:
            before = [subject] if subject is not None else []
            getattr(step, kind)(*before, *([method] if method is not None else []), *arguments)
        sides.rbd("mirror_image_status_list")
        for name in sides.rbd("list").value:
            sides.image(name, "mirror_image_get_info")
            sides.image(name, "list_snaps")
        sides.stored(rolled_back=any(kind == "elsewhere" for kind, *_ in script))
    finally:
        sides.forget()


FAULTY: list[tuple[str, tuple[Any, ...]]] = [
    ("mirror_mode_set", (-1,)), ("mirror_mode_set", (2**32,)), ("mirror_mode_set", ("1",)), ("mirror_mode_set", (None,)),
    ("mirror_mode_set", (9,)), ("mirror_peer_add", ("x", "c", -1)), ("mirror_peer_add", ("x", "c", 256)),
    ("mirror_peer_add", ("x", "c", 7)), ("mirror_peer_add", ("", "c")), ("mirror_peer_add", ("x", "")),
    ("mirror_peer_add", (None, "c")), ("mirror_peer_add", ("x", 5)), ("mirror_peer_add", (b"x\0y", "c")),
    ("mirror_peer_remove", (None,)), ("mirror_peer_set_client", ("nobody", "c")), ("mirror_peer_set_client", (1, "c")),
    ("mirror_peer_set_name", ("nobody", "c")), ("mirror_peer_set_cluster", ("nobody", "c")),
    ("mirror_peer_get_attributes", ("nobody",)), ("mirror_peer_set_attributes", ("nobody", {"key": "k"})),
    ("mirror_peer_set_attributes", ("nobody", {"key": 1})), ("mirror_peer_set_attributes", ("nobody", {1: "k"})),
    ("mirror_image_info_list", ("x",)), ("mirror_image_info_list", (-1,)), ("mirror_image_info_list", (9,)),
    ("mirror_peer_bootstrap_import", (0, None)), ("mirror_peer_bootstrap_import", (1, "")),
    ("mirror_peer_bootstrap_import", (9, "")), ("mirror_peer_bootstrap_import", (0, "")),
    ("mirror_peer_bootstrap_import", (0, "====")), ("mirror_peer_bootstrap_import", (0, "e30=")),
    ("mirror_peer_bootstrap_import", (0, "e30")), ("mirror_peer_bootstrap_import", (0, "W10=")),
    ("mirror_peer_bootstrap_import", (2, base64.b64encode(b'{"fsid":"a","client_id":"b","key":1,"mon_host":"c"}'))),
]  # fmt: skip


@pytest.mark.parametrize("on", [False, True])
def test_faulty_arguments(sides: Sides, on: bool) -> None:
    if on:
        sides.rbd("mirror_mode_set", 1)
    for method, arguments in FAULTY:
        sides.rbd(method, *arguments)


FAULTY_OF_IMAGES: list[tuple[str, tuple[Any, ...]]] = [
    ("mirror_image_enable", (-1,)), ("mirror_image_enable", ("1",)), ("mirror_image_enable", (2**32,)),
    ("mirror_image_enable", (7,)), ("mirror_image_disable", ("x",)), ("mirror_image_disable", (None,)),
    ("mirror_image_promote", ("x",)), ("mirror_image_promote", (2,)), ("mirror_image_create_snapshot", (-1,)),
    ("mirror_image_create_snapshot", (2**32,)), ("mirror_image_create_snapshot", ("x",)),
    ("mirror_image_create_snapshot", (16,)),
]  # fmt: skip


@pytest.mark.parametrize("how", [{}, {"read_only": True}, {"snapshot": "s"}])
def test_faulty_arguments_of_images(sides: Sides, how: dict[str, Any]) -> None:
    sides.rbd("create", "a", MIB, 18)
    sides.image("a", "create_snap", "s")
    for mode in (0, 1):
        sides.rbd("mirror_mode_set", mode)
        for method, arguments in FAULTY_OF_IMAGES:

            def do(side: Side, method: str = method, arguments: Any = arguments) -> Any:
                with side.module.Image(side.ioctx, "a", **how) as image:
                    return getattr(image, method)(*arguments)

            sides.all(do)
    sides.stored()


@pytest.mark.parametrize("how", [{"read_only": True}, {"snapshot": "s"}, {"snapshot": "s", "read_only": True}])
def test_handles_that_do_not_write(sides: Sides, how: dict[str, Any]) -> None:
    """Demoting is left out: through a handle that only reads, librbd fails halfway, and nobody may write any more. After
    a mirror snapshot was removed through one that is set to a snapshot, librbd does not believe the head's map any more."""
    sides.rbd("mirror_mode_set", 1)
    sides.rbd("mirror_peer_add", "x", "client.x")
    sides.rbd("create", "a", MIB, 18)
    sides.image("a", "create_snap", "s")
    for mirrored in (False, True):
        if mirrored:
            sides.image("a", "mirror_image_enable", 1)
        for method, arguments in [
            ("enable", (1,)), ("create_snapshot", ()), ("promote", (True,)), ("resync", ()), ("get_info", ()),
            ("get_status", ()), ("disable", (False,)),
        ]:  # fmt: skip

            def do(side: Side, method: str = method, arguments: Any = arguments) -> Any:
                with side.module.Image(side.ioctx, "a", **how) as image:
                    return getattr(image, f"mirror_image_{method}")(*arguments)

            sides.all(do)
    if "read_only" in how:
        sides.stored()


@pytest.mark.parametrize(
    ("whole", "force"),
    [([True], False), ([True], True), ([False], True), ([True, False], True), ([False, True, False, False], True)],
)
def test_promote_what_came_from_elsewhere(sides: Sides, whole: list[bool], force: bool) -> None:
    """What was copied in part is rolled back to what came whole."""
    sides.rbd("mirror_mode_set", 1)
    sides.rbd("mirror_peer_add", "x", "client.x")
    sides.rbd("create", "a", MIB, 18)
    sides.image("a", "write", b"before", 0)
    sides.image("a", "mirror_image_enable", 1)
    sides.image("a", "mirror_image_demote")

    def copied(side: Side) -> None:
        for number, complete in enumerate(whole):
            come_from_elsewhere(side, "a", complete=complete)
            with side.module.Image(side.ioctx, "a", read_only=True) as image:
                oid = f"{image.block_name_prefix()}.{0:016x}"
                snaps = [snap["id"] for snap in image.list_snaps()][::-1]
            with side.client.open_ioctx2(side.ioctx.get_pool_id()) as ioctx:
                ioctx.set_self_managed_snap_write(snaps)
                ioctx.write(oid, b"copy %d" % number)

    sides.all(copied)
    sides.image("a", "mirror_image_get_info")
    sides.image("a", "mirror_image_promote", force)
    sides.image("a", "mirror_image_get_info")
    sides.image("a", "read", 0, 10)
    sides.image("a", "list_snaps")
    sides.stored(rolled_back=True)


@pytest.mark.parametrize("clone_mirrored", [False, True])
def test_clones(sides: Sides, clone_mirrored: bool) -> None:
    """A clone is mirrored only if its parent is, and keeps the parent mirrored."""
    sides.rbd("mirror_mode_set", 1)
    sides.rbd("create", "a", MIB, 18)
    sides.image("a", "create_snap", "s")
    sides.image("a", "protect_snap", "s")
    sides.all(lambda side: side.module.RBD().clone(side.ioctx, "a", "s", side.ioctx, "b"))
    assert sides.image("b", "mirror_image_enable", 1).raised == "InvalidArgument"
    sides.image("a", "mirror_image_enable", 1)
    if clone_mirrored:
        sides.image("b", "mirror_image_enable", 1)
    expected = "ImageBusy" if clone_mirrored else None
    assert sides.image("a", "mirror_image_disable", False).raised == expected
    sides.image("a", "mirror_image_get_info")
    for mode in (2, 0):
        sides.rbd("mirror_mode_set", mode)
    sides.rbd("mirror_mode_get")
    sides.stored()


def test_a_namespace(sides: Sides) -> None:
    """Of its own, but with the peers and the uuid of the pool."""

    def within(method: str, *arguments: Any) -> Outcome:
        def do(side: Side) -> Any:
            side.ioctx.set_namespace("space")
            try:
                if not method.startswith("mirror_image"):
                    return getattr(side.module.RBD(), method)(side.ioctx, *arguments)
                with side.module.Image(side.ioctx, "a") as image:
                    return getattr(image, method)(*arguments)
            finally:
                side.ioctx.set_namespace("")

        return sides.all(do)

    sides.rbd("namespace_create", "space")
    within("mirror_mode_set", 1)
    within("create", "a", MIB, 18)
    assert within("mirror_image_enable", 1).raised == "ImageNotFound"  # the pool itself never was mirrored
    sides.rbd("mirror_mode_set", 1)
    sides.rbd("mirror_peer_add", "x", "client.x")
    within("mirror_image_enable", 1)
    within("mirror_image_create_snapshot", 0)
    within("mirror_uuid_get")
    within("mirror_peer_list")
    sides.all(lambda side: side.module.RBD().mirror_peer_remove(side.ioctx, sides.peer(side, "x")))
    sides.stored("space")
    within("mirror_image_demote")
    within("mirror_image_resync")
    within("mirror_image_promote", False)
    within("mirror_image_disable", False)
    within("remove", "a")
    within("mirror_mode_set", 0)
    sides.rbd("mirror_mode_set", 0)
    sides.stored("space")
    sides.stored()


# --- sites and tokens ------------------------------------------------------------------------------------------------


def test_site_name(sides: Sides) -> None:
    def call(method: str, *arguments: Any) -> Outcome:
        return sides.all(lambda side: getattr(side.module.RBD(), method)(side.client, *arguments))

    call("mirror_site_name_get")  # the id of the cluster
    for name in ("site", " a b ", "é", b"x\0y", "", "", None, 5):
        call("mirror_site_name_set", name)
        call("mirror_site_name_get")


def test_token(sides: Sides) -> None:
    """What is in it is what librbd says; only the address of an embedded cluster is one that no other can have."""
    assert sides.rbd("mirror_peer_bootstrap_create").raised == "InvalidArgument"
    sides.rbd("mirror_mode_set", 1)
    tokens = []
    for side in sides.sides:
        tokens += [side.module.RBD().mirror_peer_bootstrap_create(side.ioctx) for _ in range(2)]
    theirs, again, mine, mine_again, fake, fake_again = tokens
    assert theirs == again == mine == mine_again
    assert fake == fake_again
    fields = [list(json.loads(base64.b64decode(token)).items()) for token in (theirs, fake)]
    assert [name for name, _ in fields[0]] == [name for name, _ in fields[1]]
    assert [len(dict(each)["key"]) for each in fields] == [told(KEY_LENGTH), told(KEY_LENGTH, NEWEST)]
    for side, token in zip(sides.sides, (theirs, mine, fake), strict=True):
        with pytest.raises(side.module.InvalidArgument):  # a site is not its own peer
            side.module.RBD().mirror_peer_bootstrap_import(side.ioctx, 2, token)
