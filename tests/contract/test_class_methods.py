"""The object classes of the embedded OSD do what those of a real one do.

Every declared method runs in random sequences, with random arguments of few values and with damaged input, on
the same objects of a real and of an embedded cluster. Outputs, errnos and what is stored must be the same
bytes after each operation. The sequences are the same in every run.
"""

import contextlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from rbd_native import cls_lock, cls_rbd, embedded
from rbd_native import constants as c
from rbd_native.cls_client import Access, Method
from rbd_native.embedded import classes  # noqa: F401  (registers the handlers)
from rbd_native.embedded.objclass import HANDLERS
from rbd_native.encoding import UTime
from rbd_native.object_map import HEADER_SIZE, BitVector
from rbd_native.rados import librados
from rbd_native.rados.port import Remove
from rbd_native.types import (
    LockType,
    MirrorImage,
    MirrorImageMode,
    MirrorImageState,
    MirrorImageStatusState,
    MirrorMode,
    MirrorPeerDirection,
)
from tests.class_methods import LONG, METHODS, SELF, Calls, Kind, Target, explain, sequence, shortest, show
from tests.cluster import CephCluster
from tests.releases import GROUP_SNAP_ORDER, INIT_ONLY, REMOTE_NAMESPACE, STATUS_OF_NEW, told
from tests.values import Seeded

SINCE = {
    "group_snap_list_order": GROUP_SNAP_ORDER,
    "mirror_remote_namespace_get": REMOTE_NAMESPACE,
    "mirror_remote_namespace_set": REMOTE_NAMESPACE,
}
"""Methods that not every release has."""

HUGE = 2**64 - 1
LISTS = {"after": ["", "a", "b"], "max_return": [0, 1, 2, 100, HUGE]}


def _of(module: Any) -> tuple[Method[Any, Any], ...]:
    return tuple(value for value in vars(module).values() if isinstance(value, Method))


def _named(*names: str) -> tuple[Method[Any, Any], ...]:
    return tuple(METHODS["rbd", name] for name in names)


_SNAPSHOTS = tuple(method for method in _of(cls_rbd.snapshots) if not method.name.startswith("snap_"))
_HEADER_DOMAINS: dict[str, Sequence[Any]] = {
    **LISTS,  # type: ignore[dict-item]
    "snap_id": [1, 2, 3, 4, c.NOSNAP, c.MAXSNAP],
    "size": [0, 4096, 1 << 20, 1 << 22],
    "order": [12, 22],
    "features": [0, 1, 0x21, 0x3D, 0x43, 0x80, 0x100, 0x200, 0x1000, HUGE],
    "mask": [1, 4, 8, 0x20, 0x40, 0x100, 0xC5C, 0x1000, HUGE],
    "op_features": [0, 1, 2, 15],
    "object_prefix": ["p", ""],
    "stripe_unit": [0, 1024, 3000, 4096, 1 << 22, 1 << 23],
    "stripe_count": [0, 1, 16],
    "limit": [0, 1, 2, 3, HUGE],
    "pool_id": [-1, 1, 2],
    "data_pool_id": [-1, -1, 5],
    "image_id": ["", "i1", "i2"],
    "pool_namespace": ["", "", "ns"],
    "overlap": [0, 4096, 1 << 21],
    "mirror_peer_uuids": ["p1", "p2"],
    "peer_uuid": ["p1", "p2"],
    "group_id": ["", "g1"],
    "name": ["a", "b"],
    "original_name": ["a", "b"],
    "source_spec": ["", "{}"],
    "values": ["a", "b", "conf_x", "", b"", b"1"],
    "key": ["a", "b", "conf_x", ""],
}
HEADER = Kind(
    methods=(
        *_of(cls_rbd.header),
        *_named("snapshot_add", "snapshot_remove", "snapshot_get", "get_snapcontext", "snapshot_set_limit"),
    ),
    domains=_HEADER_DOMAINS,
    begin=(
        cls_rbd.create(1 << 20, 22, 1, "p"),
        cls_rbd.create(1 << 22, 22, 0x3D, "p"),
        cls_rbd.create(1 << 22, 12, 0xC3, "p", 5),
        cls_rbd.create(1 << 22, 12, 0x201, "p"),
    ),
    often=("snapshot_add", "migration_set", "image_group_add"),
)
CLONE = Kind(
    methods=(*_SNAPSHOTS, *_named("set_size", "set_features", "op_features_set", "set_flags", "get_flags")),
    domains={
        **_HEADER_DOMAINS,
        "snap_id": [1, 2, 3, c.NOSNAP],
        "pool_id": [-1, 1, 1, 1],
        "image_id": ["", "i1", "i1", "i1"],
        "pool_namespace": ["", "", "", "ns"],
    },
    begin=HEADER.begin,
    often=("snapshot_add", "parent_attach", "child_attach", "child_detach", "children_list"),
)
"""A header whose snapshots, parent and children get in each other's way."""

MIRROR_SNAPSHOT = Kind(
    methods=_named(
        "snapshot_add", "snapshot_remove", "snapshot_trash_add", "snapshot_get", "snapshot_rename",
        "mirror_image_snapshot_unlink_peer", "mirror_image_snapshot_set_copy_progress",
    ),
    domains={**_HEADER_DOMAINS, "snap_id": [1, 2, 3], "name": ["a", "b", "c"]},
    begin=HEADER.begin,
    often=("snapshot_add", "mirror_image_snapshot_unlink_peer"),
)  # fmt: skip

DIRECTORY = Kind(
    methods=_named(
        "dir_get_id", "dir_get_name", "dir_list", "dir_add_image", "dir_remove_image", "dir_rename_image",
        "dir_state_assert", "dir_state_set", "get_all_features",
    ),
    domains={
        **LISTS,  # type: ignore[dict-item]
        "name": ["", "a", "b", "\u00e9", "\udcff"],
        "source": ["a", "b"],
        "destination": ["", "a", "b", "c"],
        "image_id": ["i1", "i2", "", "not valid", "\u00e9"],
    },
)  # fmt: skip
GROUP_DIRECTORY = DIRECTORY._replace(
    methods=_named("group_dir_list", "group_dir_add", "group_dir_remove", "group_dir_rename", "dir_get_id"),
    domains={**DIRECTORY.domains, "group_id": DIRECTORY.domains["image_id"]},
)
TRASH = Kind(
    methods=_named("trash_add", "trash_remove", "trash_list", "trash_get", "trash_state_set"),
    domains={**LISTS, "image_id": ["i1", "i2", "a", "", "not valid"], "name": ["a"]},  # type: ignore[dict-item]
)
NAMESPACE = Kind(
    methods=_named("namespace_add", "namespace_remove", "namespace_list"),
    domains={**LISTS, "name": ["a", "b", "c", ""]},  # type: ignore[dict-item]
)
CHILDREN = Kind(
    methods=_named("add_child", "remove_child", "get_children"),
    domains={"pool_id": [1, 200], "image_id": ["a"], "snap_id": [1, 255], "child_id": ["x", "y", ""]},
)
# compound=False: methods that write the whole object and read it again in one operation make a real OSD take it for
# damaged (the checksum is already that of the new data), and it never answers.
IDENTIFIER = Kind(
    methods=_named("get_id", "set_id", "copyup"),
    compound=False,
    domains={"image_id": ["abc", "0", "", "no!"], "data": [b"", b"ab", b"\1\0\0\0x"]},
)
GROUP_HEADER = Kind(
    methods=_named(
        "group_image_set", "group_image_remove", "group_image_list", "group_snap_set", "group_snap_remove",
        "group_snap_get_by_id", "group_snap_list", "group_snap_list_order",
    ),
    domains={
        **LISTS,  # type: ignore[dict-item]
        "pool_id": [-1, 1, 2, 255, -2],
        "image_id": ["", "i1", "i2", "a_b"],
        "id": ["s1", "s2", "s3", ""],
        "snap_id": ["s1", "s2", "s3", "", 1],
        "name": ["a", "b", "c", ""],
    },
)  # fmt: skip


def _format1_header() -> bytes:
    text = b"<<< Rados Block Device Image >>>\n".ljust(40, b"\0")
    name = b"rb.0.1234.567".ljust(24, b"\0")
    fixed = b"RBD\0" + b"001.005\0" + bytes((22, 0, 0, 0))
    return text + name + fixed + struct.pack("<QQIIQ", 1 << 20, 0, 0, 0, 0)


FORMAT1 = Kind(
    methods=_named(
        "snap_list", "snap_add", "snap_remove", "snap_rename", "snapshot_set_limit", "snapshot_get_limit",
        "migration_set", "migration_get", "migration_set_state", "migration_remove", "metadata_set",
        "set_modify_timestamp", "get_modify_timestamp",
    ),
    domains={**_HEADER_DOMAINS, "snap_id": [1, 2, 3, 4], "name": ["a", "b", "cc", ""]},
    begin=(cls_rbd.copyup(_format1_header()),),
    compound=False,
)  # fmt: skip


def _extents(source: Seeded) -> bytes:
    # No empty extents: one behind the end leaves a real OSD with a checksum that is not that of the object.
    extents = {source.pick([0, 1, 4, 10, 64]): source.integer(1, 10) for _ in range(source.integer(0, 3))}
    return cls_rbd.sparse_copyup.encode_request(extents, source.random.randbytes(source.integer(0, 30)))


DATA = Kind(
    methods=_named("copyup", "sparse_copyup", "assert_snapc_seq", "sparsify"),
    compound=False,
    inputs={"sparse_copyup": _extents},
    domains={
        "data": [b"", b"x" * 10, bytes(20), bytes(8) + b"x" * 4 + bytes(20), b"x" * 8 + bytes(56) + b"x" * 8],
        "seq": [0, 1, 5],
        "sparse_size": [1, 4, 16, 64],
    },
)
PEERS = Kind(
    methods=tuple(
        method for method in _of(cls_rbd.mirror) if method.name.startswith(("mirror_uuid_", "mirror_mode_", "mirror_peer_"))
    ),
    domains={
        "uuid": ["p1", "p1", "p2", "p3"],
        "mirror_uuid_set.uuid": ["mine", "p1", ""],
        "site_name": ["s1", "s1", "s2", ""],
        "mirror_peer_ping.site_name": [
            "s1",
            "s1",
            "s1",
            "",
        ],  # so that at most one peer has a random uuid, which orders them
        "mirror_uuid": ["m1", "m2", ""],
        "client_name": ["", "client.x", "client.x"],
        "pool_id": [-1],
        "mode": [MirrorMode.IMAGE, MirrorMode.IMAGE, MirrorMode.POOL, MirrorMode.DISABLED, MirrorMode.INIT_ONLY],
        "MirrorPeer.uuid": ["p1", "p2", "p3", "mine", ""],
        "MirrorPeer.site_name": ["s1", "s1", "s2", "s3", ""],
        "MirrorPeer.client_name": ["client.x"] * 5 + [""],
        "MirrorPeer.mirror_uuid": ["", "m1", "m2"],
        "MirrorPeer.direction": [MirrorPeerDirection.RX, MirrorPeerDirection.RX_TX, MirrorPeerDirection.TX],
        "mirror_peer_ping.direction": [*MirrorPeerDirection, *[MirrorPeerDirection.TX] * 4],
    },
    begin=(cls_rbd.mirror_uuid_set("mine"),),
    often=("mirror_mode_set", "mirror_peer_add", "mirror_peer_ping"),
)
IMAGES = Kind(
    methods=tuple(
        method
        for method in _of(cls_rbd.mirror)
        if method.name.startswith(("mirror_image_", "mirror_remote_"))
        and "snapshot" not in method.name
        and "map" not in method.name
    ),
    domains={
        **LISTS,  # type: ignore[dict-item]
        "mirror_uuid": ["m1", "m1", "m2", "", ""],
        "MirrorPeer.mirror_uuid": ["m1", "m1", "m2"],
        "MirrorPeer.direction": [*MirrorPeerDirection, MirrorPeerDirection.TX],
        "image_id": ["a", "b"],
        "global_id": ["g1", "g2"],
        "MirrorImageSiteStatus.state": [
            MirrorImageStatusState.ERROR,
            MirrorImageStatusState.SYNCING,
            MirrorImageStatusState.STOPPED,
        ],
    },
    begin=(cls_rbd.mirror_image_set("a", MirrorImage("g1", MirrorImageState.ENABLED, MirrorImageMode.SNAPSHOT)),),
    often=("mirror_image_set", "mirror_image_status_set", "mirror_image_status_get_summary"),
    watched=True,
)
LEADER = Kind(
    methods=tuple(
        method for method in _of(cls_rbd.mirror) if method.name.startswith(("mirror_instances_", "mirror_image_map_"))
    ),
    domains={**LISTS, "instance_id": ["1", "2", ""], "global_id": ["a", "b", ""]},  # type: ignore[dict-item]
)
LOCK = Kind(
    methods=_of(cls_lock),
    domains={
        "name": ["l1", "l2", ""],
        "cookie": ["x", "y"],
        "new_cookie": ["x", "y", "z"],
        "tag": ["", "", "t"],
        "type": [LockType.NONE, LockType.EXCLUSIVE, LockType.EXCLUSIVE, LockType.SHARED],
        "duration": [UTime(), UTime(), UTime(LONG, 0), UTime(0, 1)],
        "client": [SELF, 999_999],
    },
    often=("lock", "assert_locked"),
)
# Removed and made again within one operation, an object of a real OSD keeps some of what it had.
EPHEMERAL_LOCK = LOCK._replace(
    domains={**LOCK.domains, "type": [LockType.EXCLUSIVE, LockType.SHARED, LockType.EXCLUSIVE_EPHEMERAL]}, compound=False
)


def _maps(source: Seeded) -> bytes:
    """An object map, with checksums or without, or some of it damaged."""
    vector = BitVector.pack([source.integer(0, 3) for _ in range(source.integer(0, 9))])
    raw = bytearray(vector.encode(with_crcs=source.pick([True, True, False])))
    match source.integer(1, 10):
        case 1:
            return bytes(raw[: source.integer(0, len(raw))])
        case 2 if len(raw) > HEADER_SIZE:
            # The number of entries stays: the OSD would make room for whatever it says.
            raw[source.integer(HEADER_SIZE, len(raw) - 1)] ^= source.integer(1, 255)
    return bytes(raw)


OBJECT_MAP = Kind(
    methods=(*_of(cls_rbd.object_map), cls_rbd.copyup),
    domains={
        "object_count": [0, 1, 3, 4, 5, 9, 13, 256_000_001],
        "default_state": [0, 1, 2, 3, 77],
        "start": [0, 1, 2, 4, 8],
        "end": [0, 1, 3, 4, 5, 9, 13],
        "state": [0, 1, 2, 3, 6],
        "expected": [0, 1, 2, 3, 7],
    },
    begin=(cls_rbd.object_map_resize(9, 0), cls_rbd.object_map_resize(5, 1)),
    compound=False,
    inputs={"object_map_save": _maps, "object_map_snap_remove": _maps, "copyup": _maps},
)
KINDS = {
    "header": HEADER,
    "clone": CLONE,
    "mirror_snapshot": MIRROR_SNAPSHOT,
    "directory": DIRECTORY,
    "group_directory": GROUP_DIRECTORY,
    "trash": TRASH,
    "namespace": NAMESPACE,
    "children": CHILDREN,
    "id": IDENTIFIER,
    "group_header": GROUP_HEADER,
    "format1": FORMAT1,
    "data": DATA,
    "peers": PEERS,
    "images": IMAGES,
    "leader": LEADER,
    "object_map": OBJECT_MAP,
    "lock": LOCK,
    "ephemeral_lock": EPHEMERAL_LOCK,
}
LOCK_XATTRS = ("lock.l1", "lock.l2")

_numbers = itertools.count()


@pytest.fixture(scope="module")
def targets(ceph: CephCluster) -> Iterator[tuple[Target, Target]]:
    """An embedded and a real cluster."""
    ceph.create_pool("class-methods")
    client = ceph.rados()
    ioctx = client.open_ioctx("class-methods")
    with embedded.Cluster() as cluster:
        yield Target(cluster.connect().io(1)), Target(librados.adapt(ioctx))
    ioctx.close()
    client.shutdown()


SEQUENCES = 30
ENOUGH = 15  # but for the long run, if each method has succeeded by then
LENGTH = 60


@pytest.mark.ceph
@pytest.mark.parametrize("name", KINDS)
def test_same_as_real(name: str, targets: tuple[Target, Target], full: bool) -> None:
    kind = _known(KINDS[name])
    wanted = {method.name for method in kind.methods}
    succeeded: set[str] = set()
    for number in range(SEQUENCES):
        if number >= ENOUGH and wanted <= succeeded and not full:
            break
        watched = kind.watched and number % 2 == 0
        calls = sequence(kind, f"{name} {number}", LENGTH)
        found = difference(targets, calls, watched, succeeded)
        if found:
            pytest.fail(_shortest_difference(targets, calls, watched) or f"not every time: {found}")
    # Otherwise the comparison says little about what a method does.
    assert wanted <= succeeded


def _known(kind: Kind) -> Kind:
    """Without what the installed OSD does not know."""
    methods = tuple(method for method in kind.methods if method.name not in SINCE or told(SINCE[method.name]))
    domains = dict(kind.domains)
    if "mode" in domains and not told(INIT_ONLY):
        domains["mode"] = [mode for mode in domains["mode"] if mode != MirrorMode.INIT_ONLY]
    if not told(STATUS_OF_NEW):
        known = [state for state in MirrorImageState if state != MirrorImageState.CREATING]
        domains["MirrorImage.state"] = [*known, MirrorImageState.ENABLED, MirrorImageState.ENABLED]
    return kind._replace(methods=methods, domains=domains)


def _shortest_difference(targets: tuple[Target, Target], calls: list[Calls], watched: bool) -> str | None:
    def fails(fewer: list[Calls]) -> bool:
        return difference(targets, fewer, watched) is not None

    return difference(targets, shortest(calls, fails), watched)


def difference(
    targets: tuple[Target, Target], calls: list[Calls], watched: bool, succeeded: set[str] | None = None
) -> str | None:
    """Run operations on a new object of both clusters; what differs first, as text. Adds the names of what succeeded."""
    oid = f"object-{next(_numbers)}"
    with contextlib.ExitStack() as watches:
        for target in targets if watched else ():
            watches.enter_context(target.watching(oid))
        for position, operation in enumerate(calls):
            mine, theirs = [target.run(oid, operation) for target in targets]
            my_state = their_state = None
            if any(METHODS[step.cls, step.method].access != Access.READ for step in operation):
                xattrs = LOCK_XATTRS if operation[0].cls == "lock" else ()
                my_state, their_state = [target.state(oid, xattrs) for target in targets]
            if (mine, my_state) != (theirs, their_state):
                history = "\n".join(show(done) for done in calls[: position + 1])
                return f"embedded {mine}, real {theirs}; {explain(my_state, their_state)} after\n{history}"
            if succeeded is not None and mine[0] >= 0:
                succeeded.update(step.method for step in operation)
    for target in targets:
        target.io.write(oid, [Remove()]).block()
    return None


def test_complete() -> None:
    assert HANDLERS.keys() == METHODS.keys()
    tried = {(method.cls, method.name) for kind in KINDS.values() for method in kind.methods}
    assert tried == METHODS.keys()
