"""The trash, judged by librbd: whatever the order of the calls, both answer alike and leave the same bytes behind.

Known and meant differences, which the sequences keep away from: librbd 16 moves members of a group to the trash (releases
since 20 do not, nor do we), and its binding cannot list entries of the sources MIGRATION and USER_PARENT.
"""

import datetime
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import rados
import rbd as real
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import rbd_native as rbd
from tests.cluster import CephCluster
from tests.interop.twins import Outcome, Twins
from tests.releases import TIMES_IN_UTC, told

pytestmark = pytest.mark.ceph

MIB = 1 << 20


@pytest.fixture(scope="module")
def twins(ceph: CephCluster) -> Iterator[Twins]:
    twins = Twins(ceph, "trash")
    yield twins
    twins.close()


def forget(twins: Twins) -> None:
    for ioctx in twins.ioctxs:
        for found in list(ioctx.list_objects()):
            ioctx.remove_object(found.key)


class Pair:
    """The same images on both sides. They are named by their number, in the order in which they were made."""

    def __init__(self, twins: Twins) -> None:
        self._twins = twins
        self.ids: tuple[list[str], list[str]] = ([], [])
        self.handles: list[list[Any]] = [[], []]

    def call(self, method: str, *arguments: Any) -> Outcome:
        return self._twins.both(lambda module, ioctx, side: getattr(module.RBD(), method)(ioctx, *arguments))

    def on_entry(self, method: str, number: int, *arguments: Any) -> Outcome:
        """A method that takes the id of an image."""

        def do(module: Any, ioctx: Any, side: int) -> Any:
            return getattr(module.RBD(), method)(ioctx, self.identifier(side, number), *arguments)

        return self._twins.both(do)

    def identifier(self, side: int, number: int) -> str:
        ids = self.ids[side]
        return ids[number % len(ids)] if ids else "nobody"

    def numbers(self) -> list[dict[str, str]]:
        """The images by id, as their numbers: several may have had the same name."""
        return [{identifier: str(number) for number, identifier in enumerate(ids)} for ids in self.ids]

    def image(self, module: Any, ioctx: Any, side: int, number: int) -> Any:
        """Open it by its id, which no error tells."""
        try:
            return module.Image(ioctx, image_id=self.identifier(side, number))
        except module.ImageNotFound as error:
            raise module.ImageNotFound(f"image {number}", errno=error.errno) from None

    # --- what a script is made of ---

    def create(self, name: str, features: int) -> None:
        def do(module: Any, ioctx: Any, side: int) -> None:
            module.RBD().create(ioctx, name, MIB, features=features)
            with module.Image(ioctx, name) as image:
                self.ids[side].append(image.id())

        self._twins.both(do)

    def snap(self, name: str) -> None:
        def do(module: Any, ioctx: Any, side: int) -> None:
            with module.Image(ioctx, name) as image:
                image.create_snap("snap")

        self._twins.both(do)

    def unsnap(self, number: int) -> None:
        def do(module: Any, ioctx: Any, side: int) -> None:
            with self.image(module, ioctx, side, number) as image:
                image.remove_snap("snap")

        self._twins.both(do)

    def open(self, number: int) -> None:
        """It stays open, and watched, until the next step that closes them all."""

        def do(module: Any, ioctx: Any, side: int) -> None:
            self.handles[side].append(self.image(module, ioctx, side, number))

        self._twins.both(do)

    def close(self) -> None:
        for handles in self.handles:
            while handles:
                handles.pop().close()

    def entries(self) -> None:
        self._twins.both(lambda module, ioctx, side: sorted(map(self._shown(side), module.RBD().trash_list(ioctx))))
        listed = [entry["id"] for entry in rbd.RBD().trash_list(self._twins.ioctxs[1])]
        assert listed == sorted(listed)

    def entry(self, number: int) -> None:
        def do(module: Any, ioctx: Any, side: int) -> Any:
            return self._shown(side)(module.RBD().trash_get(ioctx, self.identifier(side, number)))

        self._twins.both(do)

    def _shown(self, side: int) -> Any:
        def show(entry: dict[str, Any]) -> tuple[Any, ...]:
            put, until = entry["deletion_time"], entry["deferment_end_time"]
            now = datetime.datetime.now(datetime.UTC).replace(tzinfo=put.tzinfo)
            assert abs(now - put) < datetime.timedelta(minutes=5)
            assert put.tzinfo == (datetime.UTC if side or told(TIMES_IN_UTC) else None)
            kept = "for ever" if until.year == 2106 else (until - put).total_seconds()
            return self.ids[side].index(entry["id"]), entry["name"], entry["source"], kept, sorted(entry)

        return show

    def purge(self, days: int | None, threshold: float) -> None:
        self.close()  # of several that cannot go, which is named depends on their ids
        when = days and datetime.datetime.now() + datetime.timedelta(days=days)
        self.call("trash_purge", when, threshold)

    def listed(self) -> None:
        self.call("list")

    def stats(self) -> None:
        self.call("pool_stats_get")

    def option(self, name: str, value: str) -> None:
        self.call("config_set", f"rbd_move_to_trash_on_remove{name}", value)


names = st.sampled_from(["a", "a", "b", "b", "c"])
numbers = st.integers(0, 4)
delays = st.sampled_from([0, 0, 0, 5000, 10**6, 2**32, 2**40])
STEPS = {
    "create": st.tuples(names, st.sampled_from([1, 5, 61])),
    "snap": st.tuples(names),
    "unsnap": st.tuples(numbers),
    "open": st.tuples(numbers),
    "close": st.just(()),
    "trash_move": st.tuples(names, delays) | st.tuples(names),
    "trash_restore": st.tuples(numbers, st.sampled_from(["", "", "a", "b", "x", b"c\0d", "n" * 5000])),
    "trash_remove": st.tuples(numbers) | st.tuples(numbers, st.booleans()),
    "entry": st.tuples(numbers),
    "entries": st.just(()),
    "listed": st.just(()),
    "remove": st.tuples(names),
    "rename": st.tuples(names, names),
    "purge": st.tuples(st.sampled_from([None, None, -3, 1, 20]), st.just(-1)),
    "stats": st.just(()),
    "option": st.sampled_from([("", "true"), ("", "false"), ("_expire_seconds", "0"), ("_expire_seconds", "700")]),
}
ON_ENTRIES = ("trash_restore", "trash_remove")
OFTEN = ["create", "create", "trash_move", "trash_move", "trash_move", "trash_restore", "trash_remove", "entries"]
steps = st.sampled_from([*OFTEN, *OFTEN, *STEPS]).flatmap(lambda name: st.tuples(st.just(name), STEPS[name]))


# Shrinking on a real cluster takes longer than a test may; a script is short enough to be read as it is.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@settings(max_examples=10, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(script=st.lists(steps, min_size=8, max_size=24))
def test_sequences(twins: Twins, script: list[tuple[str, tuple[Any, ...]]]) -> None:
    pair = Pair(twins)
    try:
        pair.create("a", 61)
        for name, arguments in script:
            if name in ON_ENTRIES:
                pair.on_entry(name, *arguments)
            elif hasattr(pair, name):
                getattr(pair, name)(*arguments)
            else:
                pair.call(name, *arguments)
        pair.entries()
        pair.close()
        twins.stored(names=pair.numbers())
    finally:
        pair.close()
        forget(twins)


FAULTY = [
    ("trash_move", ("nobody",)), ("trash_move", ("",)), ("trash_move", (None,)), ("trash_move", ("a", -1)),
    ("trash_move", ("a", 2**64)), ("trash_move", ("a", "1")), ("trash_move", ("a", None)), ("trash_move", (5,)),
    ("trash_get", ("nobody",)), ("trash_get", (None,)), ("trash_get", ("",)),
    ("trash_remove", ("nobody",)), ("trash_remove", (None,)), ("trash_remove", ("nobody", "yes")),
    ("trash_remove", ("nobody", 2**31)), ("trash_restore", ("nobody", "x")), ("trash_restore", (None, "x")),
    ("trash_restore", ("nobody", None)), ("trash_purge", (None, 1.1)), ("trash_purge", (None, -0.5)),
    ("trash_purge", (None, "0.5")), ("trash_purge", (None, None)), ("trash_purge", (None, 1)), ("trash_purge", (0, -1)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "arguments"), FAULTY)
def test_faulty_arguments(twins: Twins, method: str, arguments: tuple[Any, ...]) -> None:
    Pair(twins).call(method, *arguments)


# --- entries in every state ------------------------------------------------------------------------------------------


def rewrite(ioctx: Any, identifier: str, source: int, state: int) -> None:
    """Make a trash entry one of another source and in another state."""
    key = f"id_{identifier}"
    with rados.ReadOpCtx() as read:
        pairs, _ = ioctx.get_omap_vals_by_keys(read, (key,))
        ioctx.operate_read_op(read, "rbd_trash")
        entry = bytearray(dict(pairs)[key])
    entry[6], entry[-1] = source, state
    with rados.WriteOpCtx() as write:
        ioctx.set_omap(write, (key,), (bytes(entry),))
        ioctx.operate_write_op(write, "rbd_trash")


@pytest.mark.parametrize("call", [("trash_restore", ""), ("trash_remove",)])
@pytest.mark.parametrize("state", range(4))
@pytest.mark.parametrize("source", range(6))
def test_every_source_and_state(twins: Twins, source: int, state: int, call: tuple[Any, ...]) -> None:
    pair = Pair(twins)
    try:
        pair.create("a", 61)
        pair.call("trash_move", "a", 0)
        for ioctx, (identifier,) in zip(twins.ioctxs, pair.ids, strict=True):
            rewrite(ioctx, identifier, source, state)
        pair.on_entry(call[0], 0, *call[1:])
        pair.listed()
        twins.stored()
    finally:
        forget(twins)


def begin_move(ioctx: Any, identifier: str, source: int, state: int, *, hidden: bool) -> None:
    """Leave image "a" as a client that died while it moved it: the entry is there, and the name, `hidden` in part."""
    times = struct.pack("<IIII", 1, 0, 1, 0)
    entry = b"\2\1\x17\0\0\0" + bytes((source,)) + struct.pack("<I", 1) + b"a" + times + bytes((state,))
    with rados.WriteOpCtx() as write:
        ioctx.set_omap(write, (f"id_{identifier}",), (entry,))
        ioctx.operate_write_op(write, "rbd_trash")
    if hidden:
        ioctx.remove_object("rbd_id.a")


@pytest.mark.parametrize(
    ("call", "source", "state"),
    [("trash_move", 0, 0), ("trash_move", 0, 1), ("remove", 0, 0), ("remove", 0, 1), ("remove", 3, 0), ("remove", 3, 1)],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_moves_that_did_not_end(twins: Twins, hidden: bool, call: str, source: int, state: int) -> None:
    pair = Pair(twins)
    try:
        pair.create("a", 61)
        for ioctx, (identifier,) in zip(twins.ioctxs, pair.ids, strict=True):
            begin_move(ioctx, identifier, source, state, hidden=hidden)
        assert pair.call(call, "a").raised is None
        pair.listed()
        assert (f"rbd_header.{pair.ids[1][0]}" in held(twins)) == (call == "trash_move")
    finally:
        forget(twins)


def held(twins: Twins) -> set[str]:
    """The names of the objects on our side."""
    return {found.key for found in twins.ioctxs[1].list_objects()}


@pytest.mark.parametrize(("source", "state"), [(0, 2), (0, 3), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("hidden", [False, True])
def test_moved_for_another_reason(twins: Twins, hidden: bool, source: int, state: int) -> None:
    """Here librbd leaves the entry as it was: not to be found, not to be restored, or fails. With us, what is moved to the
    trash is in the trash, and librbd can restore it."""
    pair = Pair(twins)
    try:
        pair.create("a", 61)
        ioctx, identifier = twins.ioctxs[1], pair.ids[1][0]
        begin_move(ioctx, identifier, source, state, hidden=hidden)
        rbd.RBD().trash_move(ioctx, "a", 100)
        (entry,) = real.RBD().trash_list(ioctx)
        assert (entry["id"], entry["source"]) == (identifier, "USER")
        real.RBD().trash_restore(ioctx, identifier, "")
        assert real.RBD().list(ioctx) == ["a"]
    finally:
        forget(twins)


@pytest.mark.parametrize("name", ["", "a"])
def test_restore_to_a_name_that_is_taken(twins: Twins, name: str) -> None:
    """The entry is left as it was, to be restored under another name or removed."""
    pair = Pair(twins)
    try:
        pair.create("a", 61)
        pair.call("trash_move", "a")
        pair.create("a", 61)
        assert pair.on_entry("trash_restore", 0, name).raised == "ImageExists"
        twins.stored(names=pair.numbers())
        assert pair.on_entry("trash_remove", 0).raised is None
    finally:
        forget(twins)


# --- what clones need ------------------------------------------------------------------------------------------------


class Family:
    """A parent whose only snapshot was removed, and its clones of format 2, on both sides."""

    def __init__(self, twins: Twins, clones: int) -> None:
        self._twins = twins
        for client in (twins.client_of(ioctx) for ioctx in twins.ioctxs):
            client.conf_set("rbd_default_clone_format", "2")
        twins.both(lambda module, ioctx, side: self._raise(module, ioctx, clones))

    @staticmethod
    def _raise(module: Any, ioctx: Any, clones: int) -> None:
        module.RBD().create(ioctx, "parent", MIB, features=61)
        with module.Image(ioctx, "parent") as image:
            image.write(b"x" * 8192, 0)
            image.create_snap("snap")
        for number in range(clones):
            module.RBD().clone(ioctx, "parent", "snap", ioctx, f"clone{number}", features=61)
        with module.Image(ioctx, "parent") as image:
            image.remove_snap("snap")

    def flatten(self, name: str) -> None:
        def do(module: Any, ioctx: Any, side: int) -> None:
            with module.Image(ioctx, name) as image:
                image.flatten()

        self._twins.both(do)


@pytest.mark.parametrize("end", ["remove", "flatten", "trash"])
@pytest.mark.parametrize("keep", ["false", "true"])
def test_parent_waits_for_its_clones(twins: Twins, keep: str, end: str) -> None:
    pair = Pair(twins)
    try:
        family = Family(twins, 2)
        pair.call("config_set", "rbd_move_parent_to_trash_on_remove", keep)
        assert pair.call("remove", "parent").raised == (None if keep == "true" else "ImageHasSnapshots")
        twins.stored()
        for number in range(2):
            if end == "flatten":
                family.flatten(f"clone{number}")
            elif end == "remove":
                pair.call("remove", f"clone{number}")
            else:
                pair.call("trash_move", f"clone{number}", 0)
            pair.listed()
            twins.stored()
        pair.call("trash_purge")
        pair.call("pool_stats_get")
        kept = {name for name in twins.stored() if name.startswith("rbd_header")}
        assert ("rbd_header.<parent>" in kept) == (keep == "false")
    finally:
        forget(twins)


def test_a_group_keeps_its_members(twins: Twins) -> None:
    """As releases from 20 on have it; 16 moves them, and then neither removes them nor shows them in the group."""
    ioctx = twins.ioctxs[1]
    try:
        real.RBD().group_create(ioctx, "group")
        real.RBD().create(ioctx, "member", MIB)
        real.Group(ioctx, "group").add_image(ioctx, "member")
        with pytest.raises(rbd.ImageMemberOfGroup):
            rbd.RBD().trash_move(ioctx, "member")
        assert rbd.RBD().list(ioctx) == ["member"]
    finally:
        forget(twins)


@pytest.mark.parametrize("module", [real, rbd], ids=["librbd", "ours"])
def test_whoever_keeps_the_lock_keeps_the_image(twins: Twins, ceph: CephCluster, module: Any) -> None:
    """Taken by hand, by a client of either kind; without that, it is given up, and the image is moved while it is open."""
    ioctx = twins.ioctxs[1]
    client = ceph.rados()
    try:
        real.RBD().create(ioctx, "image", MIB, features=61)
        with client.open_ioctx(twins.pools[1]) as other, module.Image(other, "image") as image:
            image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
            with pytest.raises(rbd.ImageBusy):
                rbd.RBD().trash_move(ioctx, "image")
            assert rbd.RBD().list(ioctx) == ["image"]
        with client.open_ioctx(twins.pools[1]) as other, module.Image(other, "image") as image:
            image.write(b"before", 0)
            rbd.RBD().trash_move(ioctx, "image")
            image.write(b"after", 0)
            with pytest.raises(rbd.ImageBusy):
                rbd.RBD().trash_remove(ioctx, image.id())
            identifier = image.id()
        rbd.RBD().trash_remove(ioctx, identifier)
        assert list(rbd.RBD().trash_list(ioctx)) == []
    finally:
        client.shutdown()
        forget(twins)
