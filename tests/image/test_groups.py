"""Groups, on both kinds of cluster; a real one's librbd agrees (tests/interop)."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import cls_lock, cls_rbd, names
from rbd_native.cls_client import mutate
from rbd_native.engine import run
from rbd_native.image.context import ImageContext
from rbd_native.operations import group, group_members, group_snapshots
from rbd_native.operations.hold import hold
from rbd_native.operations.open import open_image
from rbd_native.rados.connect import port_for
from rbd_native.rados.faults import Faults, touching
from rbd_native.rados.port import Exec, RadosError
from rbd_native.rados.wrapper import Request, wrap
from rbd_native.types import GroupSnapshot, GroupSnapshotState, ImageSnapshotSpec
from rbd_native.watch_notify import Quiesce, Unquiesce, decode_message, response
from tests.backend import Backend
from tests.image.room import Room

MIB = 1 << 20
RBD = rbd.RBD()


class Place:
    """A namespace in two pools, three images in both, and a group in the first."""

    def __init__(self, room: Room, second: str, features: int = 61) -> None:
        self.room = room
        self.home = room.ioctx()
        self.other = room.ioctx(second)
        self.other.execute("rbd_directory", "rbd", "dir_state_set", bytes(4))  # images may be made there
        self.members = [(self.home, "a"), (self.other, "b"), (self.home, "c")]
        RBD.group_create(self.home, "group")
        self.group = rbd.Group(self.home, "group")
        for ioctx, name in self.members:
            RBD.create(ioctx, name, MIB, 18, features=features)
            self.group.add_image(ioctx, name)

    def write(self, data: bytes) -> None:
        for ioctx, name in self.members:
            with rbd.Image(ioctx, name) as image:
                image.write(data, 0)
                image.write(data, 3 << 18)

    def contents(self) -> list[bytes]:
        found = []
        for ioctx, name in self.members:
            with rbd.Image(ioctx, name) as image:
                found.append(image.read(0, image.size()))
        return found

    def parts(self) -> list[int]:
        """How many snapshots each member has."""
        found = []
        for ioctx, name in self.members:
            with rbd.Image(ioctx, name) as image:
                found.append(len(list(image.list_snaps())))
        return found


    def elsewhere(self) -> Any:
        """The first pool, of another client."""
        return self.room.ioctx(cluster=self.room.connect())


@pytest.fixture(scope="module")
def second(house: Backend) -> str:
    """A second pool for all tests."""
    return house.create_pool()


@pytest.fixture
def place(room: Room, second: str) -> Place:
    return Place(room, second)


def refused(kind: type[rbd.OSError], code: int | None, call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert caught.value.errno == code


def test_what_it_says(place: Place) -> None:
    pools = [ioctx.get_pool_id() for ioctx, _ in place.members]
    with rbd.Group(place.home, b"group") as same:
        identifier = same.id()
        found = sorted((member["name"], member["pool"], member["state"]) for member in same.list_images())
        assert found == [(name, pool, 0) for pool, (_, name) in zip(pools, place.members, strict=True)]
    place.group.create_snap("one")
    place.group.create_snap("two", rbd.RBD_SNAP_CREATE_SKIP_QUIESCE)
    RBD.group_rename(place.home, "group", "new")
    refused(rbd.ObjectNotFound, errno.ENOENT, place.group.id)
    renamed = rbd.Group(place.home, "new")
    assert renamed.id() == identifier
    listed = {snap["name"]: snap for snap in renamed.list_snaps()}
    assert set(listed) == {"one", "two"}
    info = renamed.get_snap_info("two")
    assert listed["two"] == info
    assert info["state"] == rbd.RBD_GROUP_SNAP_STATE_COMPLETE
    assert info["namespace_type"] == rbd.RBD_GROUP_SNAP_NAMESPACE_TYPE_USER
    assert info["image_snap_name"] == f".group.{pools[0]:x}_{identifier}_{info['id']}"
    parts = {part["image_name"]: part for part in info["image_snaps"]}
    for pool, (ioctx, name) in zip(pools, place.members, strict=True):
        with rbd.Image(ioctx, name) as image:
            assert image.group() == {"pool": pools[0], "name": "new"}
            snap = next(snap for snap in image.list_snaps() if snap["id"] == parts[name]["snap_id"])
            whole = {"pool": pools[0], "name": "new", "snap_name": "two"}
            assert parts[name]["pool_id"] == pool
            assert (snap["name"], snap["namespace"]) == (info["image_snap_name"], rbd.RBD_SNAP_NAMESPACE_TYPE_GROUP)
            assert snap["group"] == image.snap_get_group_namespace(snap["id"]) == whole
    refused(rbd.ObjectNotFound, errno.ENOENT, renamed.get_snap_info, "none")


def test_there_and_back(place: Place) -> None:
    place.write(b"before")
    before = place.contents()
    place.group.create_snap("snap")
    place.write(b"after!")
    with rbd.Image(place.other, "b") as image:
        image.resize(3 * MIB)
    seen: list[tuple[int, int]] = []

    def hear(done: int, total: int) -> None:
        seen.append((done, total))

    place.group.rollback_to_snap("snap", hear)
    assert place.contents() == before
    assert seen and seen == sorted(set(seen)) and {total for _, total in seen} == {12}
    place.group.remove_snap("snap")
    assert place.parts() == [0, 0, 0]


def test_the_progress_callback_ends_it(place: Place) -> None:
    place.group.create_snap("snap")
    refused(rbd.OSError, 77, place.group.rollback_to_snap, "snap", lambda done, total: -77)


def test_members_are_kept(place: Place) -> None:
    refused(rbd.ImageMemberOfGroup, errno.EMLINK, RBD.remove, place.home, "a")
    refused(rbd.ImageMemberOfGroup, errno.EMLINK, RBD.trash_move, place.home, "a")
    place.group.create_snap("snap")
    refused(rbd.ImageHasSnapshots, errno.ENOTEMPTY, RBD.remove, place.home, "a")
    place.group.remove_image(place.home, "a")
    refused(rbd.ImageHasSnapshots, errno.ENOTEMPTY, RBD.remove, place.home, "a")
    place.group.remove_snap("snap")
    RBD.remove(place.home, "a")
    RBD.group_create(place.home, "second")
    refused(rbd.ObjectExists, errno.EEXIST, rbd.Group(place.home, "second").add_image, place.other, "b")
    RBD.group_remove(place.home, "group")
    rbd.Group(place.home, "second").add_image(place.other, "b")
    assert RBD.group_list(place.home) == ["second"]


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_more_than_a_page(place: Place, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for module, size in ((group, 1), (group_members, 2), (group_snapshots, 4)):
        monkeypatch.setattr(module, "_PAGE", size)
    RBD.group_create(place.home, "second")
    assert RBD.group_list(place.home) == ["group", "second"]
    assert len(list(place.group.list_images())) == 3
    group_id = place.group.id()
    io = port_for(place.home)
    wanted = [f"{number:04}" for number in range(count)]
    for name in wanted:
        record = GroupSnapshot(name, f"snap{name}", GroupSnapshotState.COMPLETE, [])
        run(mutate(io, names.group_header(group_id), cls_rbd.group_snap_set(record)))
    assert [snap["id"] for snap in place.group.list_snaps()] == wanted


def test_oldest_first_where_the_cluster_knows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of release 20 answers; those before do not know the call."""
    for name in ("first", "second", "third", "fourth"):
        place.group.create_snap(name)
    ids = {snap["id"]: snap["name"] for snap in place.group.list_snaps()}
    backwards = {identifier: len(ids) - number for number, identifier in enumerate(ids)}
    asked: list[str] = []

    async def answer(io: Any, oid: str, request: Any, absent: Any, *errnos: int) -> Any:
        after, number = request.method.decode_request(request.step.data)
        asked.append(after)
        return dict(sorted((key, age) for key, age in backwards.items() if key > after)[:number])

    monkeypatch.setattr(group_snapshots, "call_optional", answer)
    monkeypatch.setattr(group_snapshots, "_PAGE", 3)
    assert [snap["name"] for snap in place.group.list_snaps()] == list(reversed(ids.values()))
    assert asked == ["", sorted(ids)[2]]


def test_a_clone_of_a_part(place: Place) -> None:
    """It keeps the part, in the trash, until it goes itself."""
    place.write(b"parent")
    place.group.create_snap("snap")
    parts = {part["image_name"]: part["snap_id"] for part in place.group.get_snap_info("snap")["image_snaps"]}
    RBD.clone(place.home, "a", parts["a"], place.home, "clone", clone_format=2)
    place.write(b"later!")
    place.group.remove_snap("snap")
    assert (list(place.group.list_snaps()), place.parts()) == ([], [1, 0, 0])
    with rbd.Image(place.home, "a") as image:
        (snap,) = image.list_snaps()
        assert snap["trash"]["original_namespace_type"] == rbd.RBD_SNAP_NAMESPACE_TYPE_GROUP
    with rbd.Image(place.home, "clone") as image:
        assert image.read(0, 6) == b"parent"
    RBD.remove(place.home, "clone")
    assert place.parts() == [0, 0, 0]


# --- all or nothing --------------------------------------------------------------------------------------------------


def test_a_member_may_have_no_more(place: Place) -> None:
    with rbd.Image(place.other, "b") as image:
        image.create_snap("own")
        image.set_snap_limit(1)
    refused(rbd.DiskQuotaExceeded, errno.EDQUOT, place.group.create_snap, "snap")
    assert (list(place.group.list_snaps()), place.parts()) == ([], [0, 1, 0])


def test_a_lock_is_kept_by_hand(place: Place) -> None:
    place.group.create_snap("before")
    with rbd.Image(place.elsewhere(), "c") as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        refused(rbd.ReadOnlyImage, errno.EROFS, place.group.create_snap, "snap")
        refused(rbd.ReadOnlyImage, errno.EROFS, place.group.rollback_to_snap, "before")
    assert ([snap["name"] for snap in place.group.list_snaps()], place.parts()) == (["before"], [1, 1, 1])
    place.group.create_snap("snap")


FAILING = [
    ("rbd_header.*", cls_rbd.snapshot_add),
    ("rbd_group_header.*", cls_rbd.group_snap_set),
    ("rbd_group_header.*", cls_rbd.group_image_list),
]


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize(("oid", "method"), FAILING)
def test_whatever_fails(place: Place, oid: str, method: Any, at: int) -> None:
    """Nothing is left, and the next one succeeds."""

    def calls(request: Request) -> bool:
        return any(isinstance(step, Exec) and step.method == method.name for step in request.steps)

    faults = Faults(calls)
    faults.fail(errno.EIO, at=at, when=touching(oid))
    try:
        run(group_snapshots.create(wrap(port_for(place.home), faults), "group", "snap"))
    except RadosError as error:
        assert error.errno == errno.EIO
        assert (list(place.group.list_snaps()), place.parts()) == ([], [0, 0, 0])
    else:
        assert faults.sent <= at
        place.group.remove_snap("snap")
    place.group.create_snap("snap")
    assert place.parts() == [1, 1, 1]


class Holding:
    """Watches an image's header and answers when it is asked to hold still."""

    def __init__(self, ioctx: Any, identifier: str, answer: int) -> None:
        self.answer = answer
        self.heard: list[type] = []
        self.watch = run(_made(port_for(ioctx).watch(names.header(identifier), self._hear, lambda code: None)))

    def _hear(self, client: int, notify_id: int, payload: bytes) -> bytes:
        message = decode_message(payload)
        if not isinstance(message, Quiesce | Unquiesce):
            return b""
        self.heard.append(type(message))
        return response(self.answer)


async def _made(watch: Any) -> Any:
    return await watch


@pytest.fixture
def holding(place: Place) -> Iterator[Callable[[int], list[Holding]]]:
    made: list[Holding] = []

    def begin(answer: int) -> list[Holding]:
        for number, (ioctx, name) in enumerate(place.members):
            with rbd.Image(ioctx, name) as image:
                made.append(Holding(ioctx, image.id(), answer if number == 1 else 0))
        return made

    yield begin
    for one in made:
        run(_made(one.watch.close()))


def test_all_hold_still(place: Place, holding: Callable[[int], list[Holding]]) -> None:
    watchers = holding(0)
    place.group.create_snap("snap")
    assert [one.heard for one in watchers] == [[Quiesce, Unquiesce]] * 3
    place.group.create_snap("quick", rbd.RBD_SNAP_CREATE_SKIP_QUIESCE)
    assert [one.heard for one in watchers] == [[Quiesce, Unquiesce]] * 3


def test_one_does_not_hold_still(place: Place, holding: Callable[[int], list[Holding]]) -> None:
    watchers = holding(-errno.EINVAL)
    refused(rbd.InvalidArgument, errno.EINVAL, place.group.create_snap, "snap")
    assert [one.heard for one in watchers] == [[Quiesce, Unquiesce]] * 3
    assert (list(place.group.list_snaps()), place.parts()) == ([], [0, 0, 0])
    place.group.create_snap("snap", rbd.RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR)
    assert [one.heard for one in watchers] == [[Quiesce, Unquiesce] * 2] * 3
    assert place.parts() == [1, 1, 1]


# --- what a client that died has left --------------------------------------------------------------------------------


def _incomplete(place: Place, *images: tuple[int, str]) -> None:
    record = GroupSnapshot("abc", "snap", GroupSnapshotState.INCOMPLETE, [ImageSnapshotSpec(*image, 0) for image in images])
    header = names.group_header(place.group.id())
    run(mutate(port_for(place.home), header, cls_rbd.group_snap_set(record)))


def test_an_incomplete_snapshot(place: Place) -> None:
    """Of an image that is gone since, too."""
    _incomplete(place, (place.home.get_pool_id(), "gone"))
    (snap,) = place.group.list_snaps()
    assert (snap["state"], snap["image_snaps"][0]["image_name"]) == (rbd.RBD_GROUP_SNAP_STATE_INCOMPLETE, "")
    refused(rbd.InvalidArgument, errno.EINVAL, place.group.rollback_to_snap, "snap")
    place.group.remove_snap("snap")
    assert list(place.group.list_snaps()) == []


def test_a_group_without_a_header(place: Place) -> None:
    place.home.remove_object(names.group_header(place.group.id()))
    refused(rbd.ObjectNotFound, errno.ENOENT, place.group.create_snap, "snap")
    assert list(place.group.list_images()) == []
    RBD.group_remove(place.home, "group")
    assert RBD.group_list(place.home) == []


# --- locks -----------------------------------------------------------------------------------------------------------


async def _held(io: Any, wait: Callable[[], Any]) -> None:
    image = await open_image(io, name="a")
    image.serving = False
    async with hold([image]):
        wait()
    await image.close()


def test_nothing_comes_in_between(place: Place) -> None:
    """While the locks are held, writes and requests of others wait, and neither is lost."""
    ioctx = place.elsewhere()
    done: list[str] = []

    def others() -> None:
        with rbd.Image(ioctx, "a") as image:
            began.set()
            image.resize(2 * MIB)
            done.append("resize")
            image.write(b"x", 0)
            done.append("write")

    began = threading.Event()
    thread = threading.Thread(target=others)

    def wait() -> None:
        thread.start()
        began.wait()
        time.sleep(0.3)
        assert done == []

    run(_held(port_for(place.home), wait))
    thread.join()
    assert done == ["resize", "write"]


async def _robbed(io: Any, rob: Callable[[ImageContext], Any]) -> None:
    image = await open_image(io, name="a")
    try:
        async with hold([image]) as held:
            await held.check()
            await rob(image)
            await held.check()
    finally:
        await image.close()


def test_a_lock_is_taken_away(place: Place) -> None:
    """By a user who breaks it: what was done in the belief that all were held is not to be taken for consistent."""

    async def rob(image: ImageContext) -> None:
        assert image.lock is not None
        owner = await image.lock.locker()
        assert owner is not None
        await mutate(image.io, image.header_oid, cls_lock.break_lock(names.LOCK_NAME, owner[0].name, owner[0].cookie))

    with pytest.raises(RadosError) as caught:
        run(_robbed(port_for(place.home), rob))
    assert caught.value.errno == errno.EBUSY


def test_who_has_no_parent_open_flattens_nothing(place: Place) -> None:
    """A handle that was opened without its parent, for a short while, may own the lock; others may want it to flatten."""
    with rbd.Image(place.home, "a") as image:
        image.write(b"parent" * 1000, 0)
        image.create_snap("snap")
        image.protect_snap("snap")
    RBD.clone(place.home, "a", "snap", place.home, "clone", features=61)
    parentless = run(_parentless(port_for(place.home)))
    with rbd.Image(place.elsewhere(), "clone") as image:
        thread = threading.Thread(target=image.flatten)
        thread.start()
        time.sleep(0.3)
        run(parentless.close())
        thread.join()
        assert image.read(0, 6000) == b"parent" * 1000


async def _parentless(io: Any) -> ImageContext:
    image = await open_image(io, name="clone", with_parent=False)
    assert image.lock is not None
    await image.lock.acquire()
    return image
