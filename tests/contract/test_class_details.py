"""What single calls with few arguments do not reach: long listings, snapshot sequences, several calls in one write.

As in test_class_methods, an embedded and a real cluster must answer alike.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rbd_native import cls_lock, cls_rbd, embedded
from rbd_native.cls_client import ClassCall
from rbd_native.encoding import UTime
from rbd_native.rados import librados
from rbd_native.rados.port import Create, Exec, Io, Remove, SnapContext, Write
from rbd_native.types import (
    AssertSnapcSeqState,
    GroupImageLinkState,
    GroupImageSpec,
    GroupImageStatus,
    GroupSnapshot,
    GroupSnapshotState,
    LockType,
    MirrorImage,
    MirrorImageMap,
    MirrorImageState,
    MirrorMode,
    MirrorPeer,
    MirrorPeerDirection,
    TrashImageSource,
    TrashImageSpec,
)
from tests.class_methods import Target
from tests.cluster import CephCluster

pytestmark = pytest.mark.ceph

OID = "details"
ENTRIES = 130  # two pages of a real OSD, and a bit
LIMITS = (0, 1, 63, 64, 65, 128, 129, 1000, 2**64 - 1)


@pytest.fixture
def targets(ceph: CephCluster, ioctx: Any) -> Iterator[tuple[Target, Target]]:
    """An embedded and a real cluster, without objects."""
    with embedded.Cluster() as cluster:
        yield Target(cluster.connect().io(1)), Target(librados.adapt(ioctx))


def _both(targets: tuple[Target, Target], *calls: ClassCall[Any]) -> tuple[int, bytes]:
    """Errno and output, which are the same on both clusters, as is the object afterwards."""
    steps: tuple[Exec, ...] = tuple(call.step for call in calls)
    mine, theirs = [target.run(OID, steps) for target in targets]
    assert mine == theirs
    assert targets[0].state(OID) == targets[1].state(OID)
    return mine


def _spec() -> TrashImageSpec:
    return TrashImageSpec(TrashImageSource.USER, "n", UTime(1, 2), UTime(3, 4))


def _status(name: str) -> GroupImageStatus:
    return GroupImageStatus(GroupImageSpec(name, 7), GroupImageLinkState.ATTACHED)


def _group_snapshot(name: str) -> GroupSnapshot:
    return GroupSnapshot(name, name, GroupSnapshotState.INCOMPLETE, [])


LISTS: dict[str, tuple[Callable[[str], ClassCall[Any]], Callable[[str, int], ClassCall[Any]]]] = {
    "dir": (lambda name: cls_rbd.dir_add_image(name, name), cls_rbd.dir_list),
    "group_dir": (lambda name: cls_rbd.group_dir_add(name, name), cls_rbd.group_dir_list),
    "namespace": (cls_rbd.namespace_add, cls_rbd.namespace_list),
    "metadata": (lambda name: cls_rbd.metadata_set({name: b"value"}), cls_rbd.metadata_list),
    "trash": (lambda name: cls_rbd.trash_add(name, _spec()), cls_rbd.trash_list),
    "group_image": (
        lambda name: cls_rbd.group_image_set(_status(name)),
        lambda after, limit: cls_rbd.group_image_list(_status(after).spec if after else GroupImageSpec("", -1), limit),
    ),
    "group_snap": (
        lambda name: cls_rbd.group_snap_set(_group_snapshot(name)),
        lambda after, limit: cls_rbd.group_snap_list(_group_snapshot(after), limit),
    ),
    "mirror_image": (
        lambda name: cls_rbd.mirror_image_set(name, MirrorImage(name, MirrorImageState.ENABLED)),
        cls_rbd.mirror_image_list,
    ),
    "mirror_image_map": (
        lambda name: cls_rbd.mirror_image_map_update(name, MirrorImageMap("1", UTime(5, 6), b"")),
        cls_rbd.mirror_image_map_list,
    ),
    "mirror_instances": (cls_rbd.mirror_instances_add, lambda after, limit: cls_rbd.mirror_instances_list()),
}


@pytest.mark.parametrize("name", LISTS)
def test_long_listings(name: str, targets: tuple[Target, Target]) -> None:
    add, listing = LISTS[name]
    names = [f"e{number:03}" for number in range(ENTRIES)]
    for target in targets:
        for entry in names:
            assert target.run(OID, (add(entry).step,))[0] == 0
    answers = [len(_both(targets, listing("", limit))[1]) for limit in LIMITS]
    assert answers[-1] == answers[-2] >= answers[1]
    for after in ("e000", "e063", "e064", "e1", names[-1], "f"):
        for limit in (1, 64, 1000):
            assert _both(targets, listing(after, limit))[0] == 0


def test_long_mirror_status_listings(targets: tuple[Target, Target]) -> None:
    for number in range(70):
        image = MirrorImage(f"g{number:02}", MirrorImageState.ENABLED)
        for target in targets:
            target.run(OID, (cls_rbd.mirror_image_set(f"i{number:02}", image).step,))
    for limit in LIMITS:
        _both(targets, cls_rbd.mirror_image_status_list("", limit))
        _both(targets, cls_rbd.mirror_image_instance_list("i03", limit))
    assert _both(targets, cls_rbd.mirror_image_status_get_summary([MirrorPeer("u", "s", "c", mirror_uuid="m")]))[0] == 0


def test_many_snapshots(targets: tuple[Target, Target]) -> None:
    _both(targets, cls_rbd.create(1 << 20, 22, 1, "p"))
    for number in range(1, 100):
        for target in targets:
            assert target.run(OID, (cls_rbd.snapshot_add(f"s{number}", number).step,))[0] == 0
    _, output = _both(targets, cls_rbd.get_snapcontext())
    assert cls_rbd.get_snapcontext.decode_reply(output) == (99, list(range(99, 0, -1)))
    assert _both(targets, cls_rbd.snapshot_set_limit(98))[0] < 0
    assert _both(targets, cls_rbd.snapshot_set_limit(99))[0] == 0
    assert _both(targets, cls_rbd.snapshot_add("more", 100))[0] < 0


def _write(io: Io, snapc: SnapContext, *steps: Any) -> int:
    return io.write(OID, list(steps), snapc=snapc).block().rv  # type: ignore[no-any-return]


def test_assert_snapc_seq(targets: tuple[Target, Target]) -> None:
    """It looks at the sequence under which the object was written, not at that of the operation it is part of."""
    ids = []
    for target in targets:
        # The ids of two clusters differ; what is compared is where they stand to each other.
        older, newer = [target.io.snap_create().block().value for _ in range(2)]
        ids.append((older, newer))
        before, after = SnapContext(older, (older,)), SnapContext(newer, (newer, older))
        assert _write(target.io, before, Write(0, b"first")) == 0
    answers = []
    for target, (older, newer) in zip(targets, ids, strict=True):
        before, after = SnapContext(older, (older,)), SnapContext(newer, (newer, older))
        calls = [
            cls_rbd.assert_snapc_seq(seq, state).step
            for seq in (0, older - 1, older, newer, newer + 1)
            for state in AssertSnapcSeqState
        ]
        found = [_write(target.io, after, call) for call in calls]
        found += [_write(target.io, after, call, Write(0, b"x")) for call in calls]
        found += [_write(target.io, before, call) for call in calls]
        found += [_write(target.io, before, Remove())]
        found += [_write(target.io, after, call) for call in calls]
        answers.append(found)
    assert answers[0] == answers[1]
    assert 0 in answers[0]
    assert any(rv < 0 for rv in answers[0])


def test_create_and_set_id(targets: tuple[Target, Target]) -> None:
    """Existence and size are those of the moment; everything else is that of before the operation."""
    replies = []
    for target in targets:
        create = Create(exclusive=True)
        first = target.io.write(OID, [create, cls_rbd.set_id("abc").step]).block()
        again = target.io.write(OID, [create, cls_rbd.set_id("abc").step]).block()
        twice = target.io.write("other", [create, cls_rbd.set_id("abc").step, cls_rbd.set_id("abc").step]).block()
        replies.append((first.rv, again.rv, twice.rv, target.state(OID), target.state("other")))
    assert replies[0] == replies[1]
    assert replies[0][0] == 0


def test_two_calls_in_one_write(targets: tuple[Target, Target]) -> None:
    """The second does not see what the first has written, but whether it has made the object."""
    lock = cls_lock.lock("l", LockType.EXCLUSIVE, "c", "t")
    assert_locked = cls_lock.assert_locked("l", LockType.EXCLUSIVE, "c", "t")
    assert _both(targets, lock, assert_locked)[0] < 0
    assert _both(targets, lock)[0] == 0
    assert _both(targets, assert_locked, cls_rbd.metadata_set({"a": b"1"}))[0] == 0
    assert _both(targets, cls_rbd.dir_add_image("a", "i1"), cls_rbd.dir_add_image("a", "i2"))[0] == 0
    assert _both(targets, cls_rbd.dir_add_image("b", "i3"), cls_rbd.dir_add_image("", "i4"))[0] < 0
    assert _both(targets, cls_rbd.metadata_set({"a": b"2"}), cls_rbd.metadata_get("a"))[0] == 0


def _peer(uuid: str, site_name: str, mirror_uuid: str, direction: MirrorPeerDirection) -> MirrorPeer:
    return MirrorPeer(uuid, site_name, "client.x", direction=direction, mirror_uuid=mirror_uuid)


@pytest.mark.parametrize("known", ["", "m1", "m3"])
@pytest.mark.parametrize("pinged", [("s1", "m1"), ("s1", "m2"), ("s2", "m1"), ("s3", "m2")])
def test_which_peer_was_pinged(known: str, pinged: tuple[str, str], targets: tuple[Target, Target]) -> None:
    """Two peers, the first with and without a mirror uuid: which of them a ping by name and uuid is taken for."""
    calls = (
        cls_rbd.mirror_uuid_set("mine"),
        cls_rbd.mirror_mode_set(MirrorMode.IMAGE),
        cls_rbd.mirror_peer_add(_peer("p1", "s1", known, MirrorPeerDirection.RX)),
        cls_rbd.mirror_peer_add(_peer("p2", "s2", "m2" if known == "m1" else "m1", MirrorPeerDirection.RX_TX)),
    )
    for call in calls:
        assert _both(targets, call)[0] == 0
    assert _both(targets, cls_rbd.mirror_peer_ping(*pinged, MirrorPeerDirection.TX))[0] == 0
    assert _both(targets, cls_rbd.mirror_peer_list())[0] == 0
