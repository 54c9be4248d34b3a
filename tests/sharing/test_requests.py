"""Maintenance of an image that another client owns: asked of it, done by it, and told to the one who asked.

Each request is made by rbd_native of a librbd that owns the lock, the other way round, and among rbd_native itself. What
an owner answers to requests as such is compared, message by message, with what librbd answers.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call
from rbd_native.engine import First, Signal, run
from rbd_native.rados.connect import port_for
from rbd_native.types import UserSnapshotNamespace
from rbd_native.watch_notify import (
    AsyncComplete,
    AsyncRequestId,
    ClientId,
    Message,
    MetadataUpdate,
    RebuildObjectMap,
    Rename,
    RequestLock,
    Resize,
    SnapCreate,
    SnapProtect,
    SnapRemove,
    SnapRename,
    Sparsify,
    UpdateFeatures,
    acknowledgements,
    decode_message,
    encode_message,
    response,
)
from tests.cluster import CephCluster
from tests.sharing.maps import judge
from tests.sharing.model import MIB
from tests.sharing.players import Player, Refused, players

PAIRS = [("librbd", "ours"), ("ours", "librbd"), ("ours", "ours")]
OBJECT = 1 << 16
SIZE = 8 * MIB
FEATURES = 61
FAST_DIFF, DEEP_FLATTEN = 16, 32
# Who asked waits so long for a sign of life of the owner.
OPTIONS = {"rbd_request_timed_out_seconds": "4"}

pytestmark = [pytest.mark.ceph, pytest.mark.timeout(300)]
_numbers = itertools.count(1)


class Pair:
    """An image, the client that owns it, and another."""

    def __init__(self, owner: Player, asker: Player, onlooker: Any) -> None:
        self.owner, self.asker, self.onlooker = owner, asker, onlooker
        self.name = f"asked-{next(_numbers)}"
        self.owner.call("create", self.name, SIZE, 16, FEATURES)
        self.owner.call("open", self.name)
        self.asker.call("open", self.name)
        self.owner.call("write", b"data", 0)

    def ask(self, method: str, *arguments: Any) -> Any:
        """It is done, and the owner is still the owner."""
        value = self.asker.call(method, *arguments)
        self.still_owned()
        return value

    def still_owned(self) -> None:
        assert self.owner.call("is_exclusive_lock_owner")
        assert not self.asker.call("is_exclusive_lock_owner")

    def see(self, method: str, *arguments: Any) -> Any:
        """What both see."""
        seen = self.owner.call(method, *arguments)
        assert self.asker.call(method, *arguments) == seen
        return seen


@pytest.fixture(scope="module", params=PAIRS, ids=["-owner-asked-by-".join(pair) for pair in PAIRS])
def clients(hasty: CephCluster, request: pytest.FixtureRequest) -> Iterator[list[Player]]:
    with players(request.param, {"conf": str(hasty.conf), "pool": "rbd"}, OPTIONS) as started:
        yield started


@pytest.fixture
def pair(clients: list[Player], onlooker: Any) -> Iterator[Pair]:
    owner, asker = clients
    pair = Pair(owner, asker, onlooker)
    yield pair
    for client in clients:
        client.call("close")
        assert client.noted() == b""


# --- each operation --------------------------------------------------------------------------------------------------


def test_resize(pair: Pair) -> None:
    pair.ask("resize", 2 * SIZE)
    assert pair.see("size") == 2 * SIZE
    pair.owner.call("write", b"far", 2 * SIZE - 3)
    pair.still_owned()
    pair.ask("resize", SIZE // 2)
    assert pair.see("size") == SIZE // 2
    assert pair.asker.call("read", 0, 4) == b"data"
    assert judge(pair.onlooker, pair.name, exact=True) == 0


def test_rename(pair: Pair) -> None:
    new = pair.name + "-renamed"
    pair.asker.call("rename", pair.name, new)
    assert pair.owner.call("is_exclusive_lock_owner")
    with pytest.raises(Refused, match="ImageNotFound"):
        pair.asker.call("rename", pair.name, "other")
    pair.owner.call("write", b"DATA", 0)
    pair.asker.call("close")
    pair.asker.call("open", new)
    assert pair.asker.call("read", 0, 4) == b"DATA"


def test_metadata(pair: Pair) -> None:
    pair.ask("metadata_set", "key", "wörth")
    assert pair.see("metadata_get", "key") == "wörth"
    pair.ask("metadata_set", "conf_rbd_cache", "false")
    pair.ask("metadata_remove", "key")
    assert pair.see("items", "metadata_list") == [("conf_rbd_cache", "false")]
    with pytest.raises(Refused, match="KeyError"):
        pair.asker.call("metadata_remove", "key")


def test_rebuild_object_map(pair: Pair) -> None:
    damage(pair)
    assert pair.see("flags") == 3
    pair.ask("rebuild_object_map")
    assert pair.see("flags") == 0
    pair.owner.call("write", b"more", 5 * OBJECT)
    pair.still_owned()
    assert judge(pair.onlooker, pair.name, exact=True) == 0


def damage(pair: Pair) -> None:
    """As when an owner has found the map wanting."""
    io = port_for(pair.onlooker)
    identifier = pair.owner.call("id")
    run(_flag(io, names.header(identifier)))


async def _flag(io: Any, header: str) -> None:
    from rbd_native.watch_notify import HeaderUpdate

    await io.write(header, [cls_rbd.set_flags(3, 3).step])
    await io.notify(header, encode_message(HeaderUpdate()), 5000)


def test_sparsify(pair: Pair) -> None:
    pair.owner.call("write", bytes(3 * OBJECT), OBJECT)
    pair.owner.call("write", b"x", OBJECT)
    assert pair.owner.call("is_exclusive_lock_owner")
    pair.ask("sparsify", 4096)
    assert pair.asker.call("read", OBJECT, 2) == b"x\0"
    assert judge(pair.onlooker, pair.name, exact=True) == 0
    _, _, found, _ = _look(pair)
    assert found == {0, 1}


def _look(pair: Pair) -> Any:
    from tests.sharing.maps import look

    return run(look(port_for(pair.onlooker), pair.name))


def test_update_features(pair: Pair) -> None:
    """librbd does it itself, without the lock; the owner must not go on as before."""
    pair.ask("update_features", FAST_DIFF, False)
    assert pair.see("features") == DEEP_FLATTEN | 5
    pair.owner.call("write", b"without", 7 * OBJECT)
    assert pair.see("flags") == 0
    pair.asker.call("update_features", FAST_DIFF, True)
    assert pair.see("features") == FEATURES
    assert pair.see("flags") == 3
    pair.owner.call("write", b"with", 9 * OBJECT)
    pair.asker.call("rebuild_object_map")
    assert pair.see("flags") == 0
    pair.owner.call("write", b"with", 11 * OBJECT)
    pair.asker.call("write", b"with", 12 * OBJECT)
    assert judge(pair.onlooker, pair.name, exact=True) == 0


def test_the_lock_itself(pair: Pair) -> None:
    pair.asker.call("update_features", 4 | 8 | 16, False)
    assert pair.see("features") == DEEP_FLATTEN | 1
    pair.owner.call("write", b"one", 0)
    pair.asker.call("write", b"two", 3)
    assert pair.see("read", 0, 6) == b"onetwo"
    pair.asker.call("update_features", 4, True)
    # A librbd that has seen the feature come back does not always take the lock, not even among its own kind.
    for client in (pair.owner, pair.asker):
        client.call("close")
        client.call("open", pair.name)
    pair.owner.call("write", b"One", 0)
    pair.asker.call("write", b"Two", 3)
    assert pair.see("read", 0, 6) == b"OneTwo"
    assert pair.asker.call("is_exclusive_lock_owner")


def test_snapshots(pair: Pair) -> None:
    pair.ask("create_snap", "one")
    pair.owner.call("write", b"DATA", 0)
    pair.still_owned()
    pair.ask("create_snap", "two")
    with pytest.raises(Refused, match="ImageExists"):
        pair.asker.call("create_snap", "two")
    pair.ask("rename_snap", "two", "three")
    pair.ask("protect_snap", "one")
    with pytest.raises(Refused, match="ImageBusy"):
        pair.asker.call("remove_snap", "one")
    pair.ask("unprotect_snap", "one")
    assert [snap["name"] for snap in pair.see("items", "list_snaps")] == ["one", "three"]
    pair.ask("remove_snap", "one")
    assert [snap["name"] for snap in pair.see("items", "list_snaps")] == ["three"]
    with pytest.raises(Refused, match="ImageNotFound"):
        pair.asker.call("remove_snap", "one")
    pair.asker.call("set_snap", "three")
    assert pair.asker.call("read", 0, 4) == b"DATA"
    pair.asker.call("set_snap", None)
    assert judge(pair.onlooker, pair.name, exact=True) == 0


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_error_comes_back(pair: Pair) -> None:
    """Only the owner looks whether an object map can be so large."""
    with pytest.raises(Refused, match="InvalidArgument") as caught:
        pair.asker.call("resize", 1 << 45)
    assert caught.value.code == 22
    pair.still_owned()
    assert pair.see("size") == SIZE


def test_kept_by_hand(pair: Pair) -> None:
    """Who has taken the lock by hand does not give it up, but maintains the image for others."""
    pair.owner.call("lock_acquire", 0)
    for attempt in (("write", b"x", 0), ("discard", 0, SIZE), ("write_zeroes", 0, OBJECT)):
        with pytest.raises(Refused, match="ReadOnlyImage") as caught:
            pair.asker.call(*attempt)
        assert caught.value.code == 30
    pair.ask("resize", 2 * SIZE)
    pair.ask("metadata_set", "a", "b")
    pair.ask("create_snap", "snap")
    pair.ask("sparsify", 4096)
    assert pair.see("read", 0, 4) == b"data"
    pair.owner.call("lock_release")
    pair.asker.call("write", b"mine", 0)
    with pytest.raises(Refused, match="ReadOnlyImage"):
        pair.owner.call("write", b"x", 0)
    pair.owner.call("resize", SIZE)
    assert pair.see("size") == SIZE


def test_many_at_once(pair: Pair, hasty: CephCluster) -> None:
    """Both want the lock while the owner is being asked for things. Never two of librbd: of its own kind, librbd may miss
    the result of what it asked for while the lock went from hand to hand, and then asks for ever."""
    with players(["ours"], {"conf": str(hasty.conf), "pool": "rbd"}, OPTIONS) as (third,):
        third.call("open", pair.name)
        for turn in range(6):
            pair.asker.begin("resize", SIZE + (turn + 1) * OBJECT)
            third.begin("metadata_set", f"key-{turn}", "value")
            pair.owner.begin("write", b"%d" % turn, turn)
            pair.owner.end()
            third.end()
            pair.asker.end()
            third.begin("write", b"%d" % turn, 100 + turn)
            pair.asker.begin("create_snap", f"snap-{turn}")
            pair.owner.begin("discard", SIZE // 2, SIZE // 4)
            third.end()
            pair.asker.end()
            pair.owner.end()
        assert pair.see("size") == SIZE + 6 * OBJECT
        assert pair.see("read", 0, 6) == b"012345"
        assert pair.see("read", 100, 6) == b"012345"
        assert len(pair.see("items", "list_snaps")) == len(pair.see("items", "metadata_list")) == 6
        third.call("close")
    assert judge(pair.onlooker, pair.name, exact=True) == 0


def test_owner_dies_at_work(onlooker: Any, where: dict[str, str]) -> None:
    """Who asked does it himself once the owner is seen to be dead. All pairs at once: they wait together."""
    verbs: dict[str, list[int]] = {"resize": [SIZE // 2 + 5], "sparsify": [4096], "rebuild_object_map": []}
    content = b"\1" + bytes(MIB - 1)
    with players(itertools.chain(*PAIRS * len(verbs)), where, OPTIONS) as clients:
        pairs = [Pair(owner, asker, onlooker) for owner, asker in zip(clients[::2], clients[1::2], strict=True)]
        at_work = [(pairs.pop(), method) for method in verbs for _ in PAIRS]
        for pair, method in at_work:
            for offset in range(0, SIZE, MIB):
                pair.owner.call("write", content, offset)
            pair.asker.begin(method, *verbs[method])
            time.sleep(0.03)
            pair.owner.kill()
        for pair, method in at_work:
            size = SIZE // 2 + 5 if method == "resize" else SIZE
            pair.asker.end()
            assert pair.asker.call("size") == size
            for offset in range(0, size, MIB):
                length = min(MIB, size - offset)
                assert pair.asker.call("read", offset, length) == content[:length]
            pair.asker.call("write", b"alive", 0)
            assert judge(onlooker, pair.name, exact=False) == 0
            if method == "sparsify":
                assert _look(pair)[2] == set(range(0, SIZE // OBJECT, MIB // OBJECT))


# --- message by message ----------------------------------------------------------------------------------------------


class Requester:
    """Somebody who sends requests without having the image open."""

    def __init__(self, onlooker: Any, identifier: str) -> None:
        self.io = port_for(onlooker)
        self.header = names.header(identifier)
        self.client = ClientId(self.io.cluster.instance_id(), 4711)
        self.results: dict[AsyncRequestId, list[int]] = {}
        self.told = Signal()
        self.watch = run(self._watch())

    async def _watch(self) -> Any:
        return await self.io.watch(self.header, self._hear, lambda code: None)

    def _hear(self, client: int, notify_id: int, payload: bytes) -> bytes:
        message = decode_message(payload)
        if isinstance(message, AsyncComplete):
            self.results.setdefault(message.request, []).append(message.result)
            self.told.set()
        return b""

    def send(self, payload: bytes) -> list[int]:
        """What is answered at once."""

        async def send() -> list[int]:
            return acknowledgements(await self.io.notify(self.header, payload, 5000))

        return run(send())

    def ask(self, message: Any) -> tuple[list[int], int | None]:
        """The answer, and the result that follows, if it does within a second."""
        answers = self.send(encode_message(message))
        if answers != [0]:
            return answers, None
        return answers, self.result(message.request)

    def result(self, request: AsyncRequestId, patience: float = 1.0) -> int | None:
        until = time.monotonic() + patience
        while request not in self.results and time.monotonic() < until:
            self.told.clear()
            if request not in self.results:
                run(self._wait(until - time.monotonic()))
        return self.results.get(request, [None])[0]

    async def _wait(self, seconds: float) -> None:
        await First(self.told.wait(), self.io.cluster.sleep(max(seconds, 0.0)))

    def request(self, number: int) -> AsyncRequestId:
        return AsyncRequestId(self.client, number)

    def close(self) -> None:
        async def close() -> None:
            await self.watch.close()

        run(close())


USER = UserSnapshotNamespace()


def conversation(asker: Requester, name: str) -> Iterator[Any]:
    """Requests, good and bad."""
    number = map(asker.request, itertools.count(1))
    yield Resize(2 * SIZE, next(number))
    yield Resize(SIZE, next(number), False)
    yield Resize(SIZE, next(number))
    yield Resize(1 << 45, next(number))
    yield SnapCreate("one", USER, next(number))
    yield SnapCreate("one", USER, next(number))
    yield SnapProtect("one", USER, next(number))
    yield SnapRemove("one", USER, next(number))
    yield SnapRemove("none", USER, next(number))
    yield SnapRename(1 << 40, "two", USER, next(number))
    yield Rename(name + "-new", next(number))
    yield Rename(name + "-new", next(number))
    yield MetadataUpdate("key", "value", next(number))
    yield MetadataUpdate("key", None, next(number))
    yield MetadataUpdate("key", None, next(number))
    yield Sparsify(next(number), 4096)
    yield RebuildObjectMap(next(number))
    yield UpdateFeatures(FAST_DIFF, False, next(number))
    yield UpdateFeatures(FAST_DIFF, False, next(number))
    yield UpdateFeatures(1, True, next(number))
    yield RebuildObjectMap(next(number))


@pytest.mark.parametrize("manual", [False, True])
def test_answers_as_librbd(hasty: CephCluster, onlooker: Any, where: dict[str, str], manual: bool) -> None:
    heard = []
    with players(["librbd", "ours"], where) as clients:
        for owner in clients:
            name = f"talk-{owner.client}-{manual}"
            owner.call("create", name, SIZE, 16, FEATURES)
            owner.call("open", name)
            if manual:
                owner.call("lock_acquire", 0)
            else:
                owner.call("write", b"data", 0)
            asker = Requester(onlooker, owner.call("id"))
            told = [(type(message).__name__, *asker.ask(message)) for message in conversation(asker, name)]
            unknown = bytes((7, 1)) + (4).to_bytes(4, "little") + (99).to_bytes(4, "little")
            told.append(("unknown", asker.send(unknown), None))
            told.append(("wanted", asker.send(encode_message(RequestLock(asker.client))), None))
            heard.append(told)
            asker.close()
            owner.call("close")
    theirs, mine = heard
    assert mine == theirs
    assert ("Resize", [0], 0) in theirs
    assert ("SnapRemove", [0], -16) in theirs


@pytest.mark.parametrize("kind", ["librbd", "ours"])
def test_asked_twice_done_once(onlooker: Any, where: dict[str, str], kind: str) -> None:
    with players([kind], where) as (owner,):
        name = f"twice-{kind}"
        owner.call("create", name, SIZE, 16, FEATURES)
        owner.call("open", name)
        owner.call("write", b"data", 0)
        asker = Requester(onlooker, owner.call("id"))
        first, second, third = map(asker.request, (1, 2, 3))
        create = encode_message(SnapCreate("snap", USER, first))
        assert asker.send(create) == [0]
        assert asker.send(create) == [0]
        assert asker.result(first) == 0
        assert asker.send(create) == [0]
        assert len(owner.call("items", "list_snaps")) == 1
        assert asker.ask(SnapCreate("snap", USER, second)) == ([0], -17)
        time.sleep(0.2)  # librbd tells of the result before it writes it down
        assert asker.send(encode_message(SnapCreate("snap", USER, second))) == [-17]
        assert asker.ask(SnapRemove("snap", USER, third)) == ([0], 0)
        assert asker.send(create) == [0]
        assert owner.call("items", "list_snaps") == []
        asker.close()


def test_who_has_not_heard_is_told_again(onlooker: Any, where: dict[str, str]) -> None:
    """Ours only: librbd says nothing more to who asks again, and lets him wait until he asks yet again."""
    with players(["ours"], where) as (owner,):
        owner.call("create", "again", SIZE, 16, FEATURES)
        owner.call("open", "again")
        owner.call("write", b"data", 0)
        asker = Requester(onlooker, owner.call("id"))
        message = MetadataUpdate("key", "value", asker.request(1))
        assert asker.ask(message) == ([0], 0)
        asker.results.clear()
        assert asker.ask(message) == ([0], 0)
        asker.close()


async def _size(io: Any, identifier: str) -> int:
    return (await call(io, names.header(identifier), cls_rbd.get_size(2**64 - 2)))[1]


def test_own_request_is_given_back(onlooker: Any, where: dict[str, str]) -> None:
    """A request under the owner's own name was made before it became the owner: it is to begin again."""
    with players(["librbd", "ours"], where) as clients:
        for owner in clients:
            name = f"own-{owner.client}"
            owner.call("create", name, SIZE, 16, FEATURES)
            owner.call("open", name)
            owner.call("write", b"data", 0)
            asker = Requester(onlooker, owner.call("id"))
            (watcher,) = [w for w in owner.call("items", "watchers_list") if w["id"] != asker.client.client]
            own = AsyncRequestId(ClientId(watcher["id"], watcher["cookie"]), 1)
            assert asker.send(encode_message(Resize(2 * SIZE, own))) == [-85]
            assert run(_size(asker.io, owner.call("id"))) == SIZE
            asker.close()


def test_not_the_owner(onlooker: Any, where: dict[str, str]) -> None:
    """Who does not own the lock answers nothing that is asked of an owner."""
    with players(["librbd", "ours"], where) as clients:
        for client in clients:
            name = f"bystander-{client.client}"
            client.call("create", name, SIZE, 16, FEATURES)
            client.call("open", name)
            asker = Requester(onlooker, client.call("id"))
            messages: list[Message] = [Resize(2 * SIZE, asker.request(1)), RequestLock(asker.client)]
            for message in messages:
                assert asker.send(encode_message(message)) == []
            assert client.call("size") == SIZE
            asker.close()


def test_response_is_one_struct() -> None:
    assert response(-30) == bytes.fromhex("0101 04000000 e2ffffff")
