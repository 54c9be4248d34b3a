"""Images of format 1, judged by librbd: whatever the order of the calls, both answer alike and leave the same bytes behind;
and both may have one image open at once.

Known and meant differences, which the sequences keep away from: librbd 16 loses metadata, limit of snapshots and locks of
an image that it renames, and says that all went well where the directory cannot be changed; it does not heed the options
that such an image has in its metadata; and it dies of an unknown snapshot id.
"""

import datetime
import random
from collections.abc import Iterator
from typing import Any

import pytest
import rados
import rbd as real
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import rbd_native as rbd
from tests.cluster import CephCluster
from tests.interop import test_image_calls as format2
from tests.interop.twins import Outcome, Twins
from tests.stored import contents

pytestmark = pytest.mark.ceph

SIZE, ORDER = 300_000, 16
FORCE = "RBD_FORCE_ALLOW_V1"
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@pytest.fixture(scope="module", autouse=True)
def allowed() -> Iterator[None]:
    """Neither library makes images of format 1 without being told to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FORCE, "1")
        yield


@pytest.fixture(scope="module", params=["ceph", "embedded"])
def twins(ceph: CephCluster, request: pytest.FixtureRequest) -> Iterator[Twins]:
    twins = Twins(ceph, f"old-{request.param}", embedded=request.param == "embedded", rbd_default_format="1")
    yield twins
    twins.close()


def forget(twins: Twins) -> None:
    for ioctx in twins.ioctxs:
        for found in list(ioctx.list_objects()):
            if found.key != "rbd_info":
                try:
                    ioctx.remove_object(found.key)
                except Exception as error:  # of either module: what only snapshots have is listed too
                    if type(error).__name__ != "ObjectNotFound":
                        raise


def when(stamp: datetime.datetime) -> str | datetime.datetime:
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=stamp.tzinfo)
    return "now" if abs(now - stamp) < datetime.timedelta(minutes=5) else stamp.replace(tzinfo=None)


class Pair:
    """Images of the same names on both sides, and on each side one handle."""

    def __init__(self, twins: Twins) -> None:
        self._twins = twins
        self.handles: list[Any] = [None, None]

    def on_pool(self, method: str, *arguments: Any) -> Outcome:
        return self._twins.both(lambda module, ioctx, side: getattr(module.RBD(), method)(ioctx, *arguments))

    def call(self, method: str, *arguments: Any) -> Outcome:
        """Of the handle, if there is one."""
        if self.handles[0] is None:
            return Outcome(None, None)
        return self._twins.both(lambda module, ioctx, side: getattr(self.handles[side], method)(*arguments))

    def all(self, script: list[tuple[str, tuple[Any, ...]]]) -> None:
        for name, arguments in script:
            (getattr(self, name) if hasattr(self, name) else lambda *a, name=name: self.call(name, *a))(*arguments)

    def open(self, name: str = "image", **how: Any) -> None:
        def do(module: Any, ioctx: Any, side: int) -> None:
            self.handles[side] = module.Image(ioctx, name, **how)

        self.close()
        self._twins.both(do)

    def close(self) -> None:
        for side, handle in enumerate(self.handles):
            if handle is not None:
                handle.close()
                self.handles[side] = None

    # --- what a script is made of, where it is not the name of a method of an image ---

    def stamps(self) -> None:
        def do(module: Any, ioctx: Any, side: int) -> Any:
            handle = self.handles[side]
            return [when(getattr(handle, f"{what}_timestamp")()) for what in ("create", "access", "modify")]

        self._twins.both(do)

    def stat(self) -> None:
        def do(module: Any, ioctx: Any, side: int) -> Any:
            stat = self.handles[side].stat()
            assert stat.pop("block_name_prefix") == self.handles[side].block_name_prefix()
            return stat

        self._twins.both(do)

    def lockers(self) -> None:
        def do(module: Any, ioctx: Any, side: int) -> Any:
            found = self.handles[side].list_lockers()
            return found and (found["tag"], found["exclusive"], [cookie for _, cookie, _ in found["lockers"]])

        self._twins.both(do)

    def watchers(self) -> None:
        self._twins.both(lambda module, ioctx, side: len(list(self.handles[side].watchers_list())))

    def of_snap(self, method: str, name: str) -> None:
        """A method that takes a snapshot's id, if it has one."""

        def do(module: Any, ioctx: Any, side: int) -> Any:
            value = getattr(self.handles[side], method)(self.handles[side].snap_get_id(name))
            return when(value) if isinstance(value, datetime.datetime) else value

        self._twins.both(do)

    def diff(self, since: str | None) -> None:
        def do(module: Any, ioctx: Any, side: int) -> Any:
            found: list[Any] = []
            handle = self.handles[side]
            handle.diff_iterate(0, handle.size(), since, lambda *extent: found.append(extent))
            return found

        self._twins.both(do)

    def aio(self, method: str, *arguments: Any) -> None:
        def do(module: Any, ioctx: Any, side: int) -> Any:
            found: list[Any] = []
            completion = getattr(self.handles[side], method)(*arguments, lambda _, *data: found.append(data))
            completion.wait_for_complete_and_cb()
            return completion.get_return_value(), found

        self._twins.both(do)

    def copy(self, method: str, *arguments: Any) -> None:
        self._twins.both(lambda module, ioctx, side: getattr(self.handles[side], method)(ioctx, *arguments))

    def whole(self) -> None:
        """The content, and that of each snapshot."""

        def do(module: Any, ioctx: Any, side: int) -> Any:
            handle = self.handles[side]
            found = [handle.read(0, handle.size())]
            for snap in list(handle.list_snaps()):
                handle.set_snap(snap["name"])
                found.append((snap["name"], handle.size(), handle.read(0, handle.size())))
            handle.set_snap(None)
            return found

        self._twins.both(do)

    def snaps(self) -> None:
        """All but their ids, which count what a pool has seen."""

        def do(module: Any, ioctx: Any, side: int) -> Any:
            return [{key: value for key, value in snap.items() if key != "id"} for snap in self.handles[side].list_snaps()]

        self._twins.both(do)


# --- calls of an image -----------------------------------------------------------------------------------------------

snaps = st.sampled_from(["a", "a", "b", "b", "c", b"bytes", "é", "n\0ul", ""])
NOTHING = (
    "size features op_features flags stripe_unit stripe_count id get_name old_format group overlap parent_info flush "
    "list_children get_snap_limit remove_snap_limit is_exclusive_lock_owner lock_get_owners rebuild_object_map flatten "
    "lock_release invalidate_cache snaps stat stamps lockers watchers metadata_list config_list whole"
).split()
CALLS = format2.CALLS | {
    "write": st.tuples(st.sampled_from([0, 1, 512, 4096, 9000]).map(format2.content), format2.offsets),
    "create_snap": st.tuples(snaps),
    "remove_snap": st.tuples(snaps),
    "remove_snap2": st.tuples(snaps, st.sampled_from([0, 1, 2, 3])),
    "rename_snap": st.tuples(snaps, snaps),
    "rollback_to_snap": st.tuples(snaps),
    "set_snap": st.tuples(snaps | st.none()),
    "snap_exists": st.tuples(snaps),
    "protect_snap": st.tuples(snaps),
    "unprotect_snap": st.tuples(snaps),
    "is_protected_snap": st.tuples(snaps),
    "of_snap": st.tuples(
        st.sampled_from([
            "get_snap_timestamp", "snap_get_name", "snap_get_namespace_type", "snap_get_group_namespace",
            "snap_get_trash_namespace", "snap_get_mirror_namespace", "remove_snap_by_id", "set_snap_by_id",
        ]),
        st.sampled_from(["a", "b"]),
    ),
    "set_snap_limit": st.tuples(st.sampled_from([0, 1, 2, 3, 2**64 - 1])),
    "update_features": st.tuples(st.sampled_from([0, 1, 4, 8, 61, 1 << 40]), st.booleans()),
    "lock_exclusive": st.tuples(st.sampled_from(["", "me"])),
    "lock_shared": st.tuples(st.sampled_from(["", "me"]), st.sampled_from(["", "tag"])),
    "unlock": st.tuples(st.sampled_from(["", "me"])),
    "break_lock": st.tuples(st.sampled_from(["client.987654321", "me"]), st.sampled_from(["", "me"])),
    "lock_acquire": st.tuples(st.sampled_from([0, 1])),
    "lock_break": st.tuples(st.sampled_from([0, 1]), st.just("nobody")),
    "sparsify": st.tuples(st.sampled_from([4096, 65536, 4095, 1 << 17])),
    "diff": st.tuples(st.sampled_from([None, "a", "b"])),
    "aio": st.sampled_from([
        ("aio_write", b"x" * 5000, 63_000), ("aio_read", 0, 70_000), ("aio_discard", 0, 1 << 17), ("aio_flush",),
        ("aio_write_zeroes", 4096, 1 << 16),
    ]),
    **{name: st.just(()) for name in NOTHING},
}  # fmt: skip
OFTEN = ["read", "write", "write", "discard", "write_zeroes", "resize", "create_snap", "create_snap", "remove_snap"]
calls = st.sampled_from([*OFTEN, *OFTEN, *CALLS]).flatmap(lambda name: st.tuples(st.just(name), CALLS[name]))


@settings(max_examples=20, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(script=st.lists(calls, min_size=10, max_size=30))
def test_sequences(twins: Twins, script: list[tuple[str, tuple[Any, ...]]]) -> None:
    pair = Pair(twins)
    try:
        pair.on_pool("create", "image", SIZE, ORDER, True)
        pair.open()
        pair.all(script)
        pair.all([("set_snap", (None,)), ("whole", ()), ("unlock", ("",)), ("unlock", ("me",))])
        pair.close()
        twins.stored()
    finally:
        pair.close()
        forget(twins)


# --- calls of a pool -------------------------------------------------------------------------------------------------


class Pool(Pair):
    """Images of both formats, by name."""

    def create(self, name: str, *arguments: Any) -> None:
        self.on_pool("create", name, SIZE, ORDER, *arguments)

    def on_image(self, name: str, method: str, *arguments: Any) -> None:
        def do(module: Any, ioctx: Any, side: int) -> Any:
            with module.Image(ioctx, name) as image:
                return getattr(image, method)(*arguments)

        self._twins.both(do)

    def clone(self, name: str, child: str, *arguments: Any) -> None:
        def do(module: Any, ioctx: Any, side: int) -> None:
            module.RBD().clone(ioctx, name, "snap", ioctx, child, *arguments)

        self._twins.both(do)

    def group(self, method: str, name: str) -> None:
        def do(module: Any, ioctx: Any, side: int) -> None:
            getattr(module.Group(ioctx, "group"), method)(ioctx, name)

        self._twins.both(do)

    def listed(self) -> None:
        self.on_pool("list")
        self._twins.both(lambda module, ioctx, side: [(i["name"], bool(i["id"])) for i in module.RBD().list2(ioctx)])

    def open(self, name: str = "image", **how: Any) -> None:
        """Another handle of it, which stays open until the next is asked for; if there is such an image."""
        self.close()
        modules = zip((real, rbd), self._twins.ioctxs, strict=True)
        theirs, mine = (name in module.RBD().list(ioctx) for module, ioctx in modules)
        assert theirs == mine
        if theirs:
            super().open(name, **how)


names = st.sampled_from(["a", "a", "b", "b", "c", "é", b"d", "n\0ul"])
POOL_CALLS = {
    "create": st.tuples(names, st.sampled_from([True, True, True, False])) | st.tuples(names, st.just(True), st.just(1)),
    "rename": st.tuples(names, names),
    "remove": st.tuples(names),
    "trash_move": st.tuples(names),
    "listed": st.just(()),
    "open": st.tuples(st.sampled_from(["a", "b"])),
    "close": st.just(()),
    "clone": st.tuples(names, names, st.just(1)) | st.tuples(names, names),
    "group": st.tuples(st.sampled_from(["add_image", "remove_image"]), names),
    "on_image": st.tuples(
        names,
        st.sampled_from([
            ("create_snap", "snap"), ("remove_snap", "snap"), ("protect_snap", "snap"), ("unprotect_snap", "snap"),
            ("resize", SIZE // 2), ("resize", SIZE * 2),
        ]),
    ).map(lambda drawn: (drawn[0], *drawn[1])),
    "copied": st.tuples(names, st.sampled_from(["copy", "deep_copy"]), names),
}  # fmt: skip
OFTEN_POOL = ["create", "create", "create", "rename", "rename", "remove", "on_image"]
pool_calls = st.sampled_from([*OFTEN_POOL, *OFTEN_POOL, *POOL_CALLS]).flatmap(
    lambda name: st.tuples(st.just(name), POOL_CALLS[name])
)


@settings(max_examples=15, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(script=st.lists(pool_calls, min_size=10, max_size=24))
def test_sequences_of_a_pool(twins: Twins, script: list[tuple[str, tuple[Any, ...]]]) -> None:
    pool = Pool(twins)
    try:
        pool.on_pool("group_create", "group")
        for name, arguments in script:
            if name == "copied":
                image, method, target = arguments
                twins.both(lambda module, ioctx, side, call=(image, method, target): copied(module, ioctx, *call))
            elif hasattr(pool, name):
                getattr(pool, name)(*arguments)
            else:
                pool.on_pool(name, *arguments)
        pool.listed()
        pool.close()
        pool.on_pool("group_remove", "group")
        twins.stored()
    finally:
        pool.close()
        forget(twins)


def copied(module: Any, ioctx: Any, name: Any, method: str, target: Any) -> None:
    with module.Image(ioctx, name) as image:
        getattr(image, method)(ioctx, target)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("namespace", ["", "space"])
def test_create(twins: Twins, monkeypatch: pytest.MonkeyPatch, told: bool, namespace: str) -> None:
    def create(module: Any, ioctx: Any, name: str, order: int | None) -> None:
        ioctx.set_namespace(namespace)
        try:
            module.RBD().create(ioctx, name, 2**64 - 1, order, True)
        finally:
            ioctx.set_namespace("")

    try:
        pool = Pool(twins)
        pool.create("taken", False, 1)
        pool.create("old", True)
        twins.both(lambda module, ioctx, side: module.RBD().namespace_create(ioctx, "space"))
        if not told:
            monkeypatch.delenv(FORCE)
        for name in ("new", "taken", "old"):
            for order in (None, 0, 11, 12, 25, 26):
                twins.both(lambda module, ioctx, side, name=name, order=order: create(module, ioctx, name, order))
        twins.stored()
    finally:
        forget(twins)


# --- both at one image -----------------------------------------------------------------------------------------------


@pytest.fixture
def ioctx(ceph: CephCluster) -> Iterator[Any]:
    ceph.create_pool("old-shared", pg_num=4)
    client = ceph.rados(rbd_default_format="1")
    with client.open_ioctx("old-shared") as found:
        yield found
    client.shutdown()
    ceph.remove_pool("old-shared")


def sides(first: Any) -> list[Any]:
    return [first, rbd if first is real else real]


@pytest.mark.parametrize("maker", [real, rbd], ids=["librbd", "ours"])
def test_turns(ioctx: Any, maker: Any) -> None:
    """A model of the image and its snapshots; both write to it, open at once, and both see what the other has done."""
    dice = random.Random(maker.__name__)
    taken: dict[str, bytes] = {}
    maker.RBD().create(ioctx, "image", SIZE, ORDER, True)
    content = bytearray(SIZE)
    with real.Image(ioctx, "image") as theirs, rbd.Image(ioctx, "image") as mine:
        for turn in range(120):
            one, other = dice.sample([theirs, mine], 2)
            verb = dice.choice(["write", "write", "discard", "resize", "snap", "unsnap", "rollback", "rename"])
            size = len(content)
            offset = dice.randrange(size)
            length = min(dice.randrange(1, 100_000), size - offset)
            if verb == "write":
                data = dice.randbytes(length)
                one.write(data, offset)
                content[offset : offset + length] = data
            elif verb == "discard":
                one.write_zeroes(offset, length)
                content[offset : offset + length] = bytes(length)
            elif verb == "resize":
                new = dice.randrange(1, 2 * SIZE)
                one.resize(new)
                content = content[:new].ljust(new, b"\0")
                assert other.size() == new
            elif verb == "snap":
                one.create_snap(f"s{turn}")
                taken[f"s{turn}"] = bytes(content)
                other.write(b"!", 0)  # with the snapshot: what it holds must not change
                content[0:1] = b"!"
            elif taken:
                name = dice.choice(list(taken))
                if verb == "unsnap":
                    one.remove_snap(name)
                    del taken[name]
                elif verb == "rollback":
                    one.rollback_to_snap(name)
                    content = bytearray(taken[name])
                else:
                    one.rename_snap(name, f"r{turn}")
                    taken[f"r{turn}"] = taken.pop(name)
            assert {snap["name"]: snap["size"] for snap in other.list_snaps()} == {n: len(d) for n, d in taken.items()}
            assert other.read(0, len(content)) == content
        for module in (real, rbd):
            for name, data in taken.items():
                with module.Image(ioctx, "image", snapshot=name) as image:
                    assert image.read(0, image.size()) == data
        for name in taken:
            mine.remove_snap(name)
    sides(maker)[1].RBD().remove(ioctx, "image")
    assert set(contents(rados, ioctx)) <= {"rbd_directory", "rbd_info"}


# --- handles that stay open until the last test ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["writable", "read-only", "snapshot", "closed"])
@settings(max_examples=60, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(call=calls)
def test_which_error_comes_first(
    twins: Twins, states: dict[str, Pair], state: str, call: tuple[str, tuple[Any, ...]]
) -> None:
    states[state].all([call])


@pytest.fixture(scope="module")
def states(twins: Twins) -> Iterator[dict[str, Pair]]:
    """Images whose handles are what the key says."""
    hows: dict[str, dict[str, Any]] = {"read-only": {"read_only": True}, "snapshot": {"snapshot": "a"}}
    pairs = {name: Pair(twins) for name in ("writable", "read-only", "snapshot", "closed")}
    for name, pair in pairs.items():
        pair.on_pool("create", name, SIZE, ORDER, True)
        pair.open(name)
        pair.all([("write", (b"then", 0)), ("create_snap", ("a",)), ("write", (b"now", 0))])
        pair.open(name, **hows.get(name, {}))
    for handle in pairs["closed"].handles:
        handle.close()
    yield pairs
    for pair in pairs.values():
        pair.close()
    forget(twins)
