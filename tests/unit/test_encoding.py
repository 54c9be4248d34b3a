"""The wire encoding: every declared type there and back, bytes seen on a real cluster, and input that is hostile."""

import dataclasses
import inspect
import struct
import time
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbd_native import cls_lock, cls_rbd, types
from rbd_native.cls_client import Method
from rbd_native.constants import NOSNAP
from rbd_native.encoding import (
    DecodeError,
    EncodeError,
    Reader,
    UTime,
    blob,
    boolean,
    codec_of,
    concatenate,
    decode,
    encode,
    i32,
    i64,
    rest,
    since,
    text,
    u8,
    u16,
    u32,
    u64,
    utime,
)
from rbd_native.encoding import struct as wire
from rbd_native.types import (
    NO_PARENT,
    AddressType,
    ChildImageSpec,
    EntityAddress,
    EntityInstance,
    EntityName,
    EntityType,
    GroupSnapshotNamespace,
    Locker,
    LockerId,
    LockInfo,
    LockType,
    MigrationHeaderType,
    MigrationSpec,
    MigrationState,
    MirrorImage,
    MirrorImageSiteStatus,
    MirrorImageState,
    MirrorImageStatus,
    MirrorImageStatusState,
    MirrorPeer,
    SnapshotInfo,
    SnapshotNamespaceType,
    StoredParent,
    StoredSnapshot,
    TrashImageSource,
    TrashImageSpec,
    TrashImageState,
    TrashSnapshotNamespace,
    UnknownSnapshotNamespace,
    UserSnapshotNamespace,
    snapshot_namespace,
)
from tests.values import values_of

METHODS = [method for module in (cls_rbd, cls_lock) for method in vars(module).values() if isinstance(method, Method)]
STRUCTS = [kind for kind in vars(types).values() if inspect.isclass(kind) and hasattr(kind, "__dataclass_fields__")]
SCALARS = [u8, u16, u32, u64, i32, i64, boolean, text, blob, utime, rest]
CONTAINERS = [
    list[u8],
    list[text],
    set[u64],
    set[ChildImageSpec],
    dict[text, blob],
    dict[u64, list[u16]],
    tuple[u8, text],
    u64 | None,
    text | None,
    tuple[u64, list[tuple[u64, text]]],
]
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
REPLIES = {method.name: method.hints["return"] for method in METHODS if method.hints["return"] is not type(None)}
HINTS: dict[str, Any] = {
    **{kind.__name__: kind for kind in STRUCTS},
    **{f"scalar {number}": hint for number, hint in enumerate(SCALARS)},
    **{f"container {number}": hint for number, hint in enumerate(CONTAINERS)},
    **{f"reply of {name}": hint for name, hint in REPLIES.items()},
    "snapshot_namespace": snapshot_namespace,
}


def hexed(words: str) -> bytes:
    """Hex digits, and text in double quotes."""
    parts = words.split('"')
    return b"".join(part.encode() if number % 2 else bytes.fromhex(part) for number, part in enumerate(parts))


# --- there and back


@pytest.mark.parametrize("name", HINTS)
def test_round_trip(name: str) -> None:
    hint = HINTS[name]

    @QUICK
    @given(values_of(hint))
    def run(value: Any) -> None:
        raw = encode(value, hint)
        assert decode(hint, raw) == value
        assert encode(decode(hint, raw), hint) == raw
        assert len(raw) >= codec_of(hint).smallest

    run()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.cls}.{method.name}")
def test_requests_round_trip(method: Method[Any, Any]) -> None:
    hints = [method.hints[parameter.name] for parameter in method.parameters]

    @QUICK
    @given(st.tuples(*[values_of(hint) for hint in hints]))
    def run(arguments: tuple[Any, ...]) -> None:
        assert method.decode_request(method.encode_request(*arguments)) == list(arguments)

    run()


# --- bytes of a real cluster


SNAPSHOT_KEY = """
    0808 3e000000 2500000000000000 02000000 6373 0000800000000000 00 0000000000000000
    0101 04000000 00000000 dc57036b f5e7a114 00000000 01 0000800000000000
"""
LOCK_STATE = """
    0101 6d000000 01000000 0101 21000000 08 8712000000000000 14000000 "auto 139930302944416" 0101 2f000000
    0000000000000000 01 0101 1c000000 01000000 0826e334 10000000 0200 0000 7f000001 0000000000000000 00000000 01
    08000000 "internal"
"""
EXAMPLES: list[tuple[str, Any, Any]] = [
    ('0c000000 "102180017743"', text, "102180017743"),
    ("3d00000000000000", u64, 61),
    ("2e52036b 5b134736", utime, UTime(0x6B03522E, 0x3647135B)),
    ("2500000000000000 01000000 2500000000000000", tuple[u64, list[u64]], (0x25, [0x25])),
    (
        SNAPSHOT_KEY,
        StoredSnapshot,
        StoredSnapshot(
            0x25, "cs", 8 << 20, types.ProtectionStatus.UNPROTECTED, 0, UserSnapshotNamespace(),
            UTime(0x6B0357DC, 0x14A1E7F5), 0, 8 << 20,
        ),
    ),
    (
        '0101 0e000000 02000000 02000000 "ps" 00000000',
        snapshot_namespace,
        TrashSnapshotNamespace("ps", SnapshotNamespaceType.USER),
    ),
    (
        '0202 2d000000 0200000000000000 00000000 0c000000 "1146439eb7f6" 2400000000000000 01 0000800000000000',
        StoredParent,
        StoredParent(2, "", "1146439eb7f6", 0x24, 8 << 20),
    ),
    ("00", u64 | None, None),
    ("01 0000800000000000", u64 | None, 8 << 20),
    (
        '01000000 0201 1c000000 0200000000000000 0c000000 "1146c174e855" 00000000',
        set[ChildImageSpec],
        {ChildImageSpec(2, "1146c174e855")},
    ),
    (
        '0200000000000000 0c000000 "107babf23f4d" 1000000000000000',
        tuple[u64, text, u64],
        (2, "107babf23f4d", 16),
    ),
    ('01000000 0c000000 "107d9eeb48a0"', set[text], {"107d9eeb48a0"}),
    (
        LOCK_STATE,
        LockInfo,
        LockInfo(
            {
                LockerId(EntityName(EntityType.CLIENT, 0x1287), "auto 139930302944416"): Locker(
                    UTime(), EntityAddress.parse("127.0.0.1:0/887301640"), ""
                )
            },
            LockType.EXCLUSIVE,
            "internal",
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "hint", "value"), EXAMPLES)
def test_bytes_of_a_cluster(words: str, hint: Any, value: Any) -> None:
    assert decode(hint, hexed(words)) == value
    assert encode(value, hint) == hexed(words)


REQUESTS: list[tuple[Any, str]] = [
    (
        cls_rbd.create(64 << 20, 22, 61, "rbd_data.102180017743"),
        '0000000400000000 16 3d00000000000000 15000000 "rbd_data.102180017743" ffffffffffffffff',
    ),
    (cls_rbd.snapshot_add("a", 5), "01000000 61 0500000000000000 0101 04000000 00000000"),
    (
        cls_rbd.trash_add(
            "106bcfbec04b",
            TrashImageSpec(
                TrashImageSource.USER, "t1", UTime(0x6B03557C, 0x395BA58F), UTime(0x6B03557C, 0x395BA58F),
                TrashImageState.MOVING,
            ),
        ),
        '0c000000 "106bcfbec04b" 0201 18000000 00 02000000 "t1" 7c55036b8fa55b39 7c55036b8fa55b39 01',
    ),
    (cls_lock.get_info("rbd_lock"), '0101 0c000000 08000000 "rbd_lock"'),
    (cls_rbd.get_features(NOSNAP, True), "feffffffffffffff 01"),
    (cls_rbd.copyup(b"raw"), '"raw"'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "words"), REQUESTS, ids=lambda value: getattr(value, "method", None) and value.method.name
)
def test_requests_of_a_cluster(call: Any, words: str) -> None:
    assert call.step.data == hexed(words)


def test_order_of_containers() -> None:
    """Ascending, strings bytewise, children by pool, namespace and id."""
    assert encode({"b": b"", "a": b"", "\u00e9": b"", "B": b""}, dict[text, blob]) == encode(
        {"\u00e9": b"", "B": b"", "a": b"", "b": b""}, dict[text, blob]
    )
    names = {"\udcff": 1, "\U0001f600": 2, "z": 3}
    assert list(decode(dict[text, u8], encode(names, dict[text, u8]))) == ["z", "\U0001f600", "\udcff"]
    raw = encode(
        {ChildImageSpec(1, "a", "z"), ChildImageSpec(1, "b", ""), ChildImageSpec(0, "z", "z")}, set[ChildImageSpec]
    )
    assert decode(list[ChildImageSpec], raw) == [
        ChildImageSpec(0, "z", "z"), ChildImageSpec(1, "b", ""), ChildImageSpec(1, "a", "z"),
    ]  # fmt: skip


def test_names_are_bytes() -> None:
    assert decode(text, b"\2\0\0\0\xff\xfe") == "\udcff\udcfe"
    assert encode("\udcff\udcfe", text) == b"\2\0\0\0\xff\xfe"
    with pytest.raises(EncodeError):
        encode("\ud800", text)


# --- versions


@wire(1)
class Old:
    a: u8


@wire(2)
class Newer:
    a: u8
    b: text = since(2, default="none")


@wire(9, 5)
class Incompatible:
    a: u8


@wire(2)
class Needy:
    a: u8
    b: u8 = since(2)


def test_a_reader_skips_what_a_newer_writer_appended() -> None:
    raw = encode([Newer(1, "x"), Newer(2, "y")], list[Newer])
    assert decode(list[Old], raw) == [Old(1), Old(2)]


def test_a_reader_fills_in_what_an_older_writer_did_not_know() -> None:
    assert decode(list[Newer], encode([Old(1), Old(2)], list[Old])) == [Newer(1, "none"), Newer(2, "none")]


def test_a_reader_refuses_what_it_cannot_understand() -> None:
    with pytest.raises(DecodeError, match="version 5"):
        decode(Newer, encode(Incompatible(1)))
    with pytest.raises(DecodeError):
        decode(Needy, encode(Old(1)))
    with pytest.raises(DecodeError):
        decode(snapshot_namespace, b"\2\2\4\0\0\0\0\0\0\0")


def test_fields_may_not_reach_behind_their_envelope() -> None:
    with pytest.raises(DecodeError):
        decode(Newer, b"\2\1\1\0\0\0" + b"\1" + b"\1\0\0\0x")


def test_a_layout_that_depends_on_the_value() -> None:
    status = MirrorImageSiteStatus("", MirrorImageStatusState.REPLAYING, "d", UTime(1, 2), True)
    remote = MirrorImageSiteStatus("uuid", MirrorImageStatusState.REPLAYING, "d", UTime(1, 2), True)
    assert encode(status)[:2] == b"\1\1"
    assert encode(remote)[:2] == b"\2\2"
    assert decode(MirrorImageSiteStatus, encode(status)) == status
    assert decode(MirrorImageSiteStatus, encode(remote)) == remote
    spec = MigrationSpec(
        MigrationHeaderType.SRC, 1, "", "n", "i", {1: 2}, 3, False, False, MigrationState.PREPARED, "d",
    )  # fmt: skip
    assert encode(spec)[:2] == b"\3\1"
    assert encode(dataclasses.replace(spec, source_spec="{}"))[:2] == b"\3\3"


def test_optional_arguments() -> None:
    short = struct.pack("<Q", NOSNAP)
    assert cls_rbd.get_features.decode_request(short) == [NOSNAP, False]
    assert cls_rbd.get_features.decode_request(short + b"\1tail") == [NOSNAP, True]
    assert cls_rbd.snapshot_add.decode_request(encode("a", text) + encode(1, u64)) == ["a", 1, UserSnapshotNamespace()]
    # The arguments of class lock are one struct of one version: what the client may leave out is there all the same.
    with pytest.raises(DecodeError):
        cls_lock.lock.decode_request(b"\1\1\x0a\0\0\0" + encode("a", text) + b"\1" + encode("", text))


def test_values_that_are_not_known_are_kept() -> None:
    raw = encode(MirrorImage("g", MirrorImageState.ENABLED))
    assert decode(MirrorImage, raw[:11] + b"\x4d" + raw[12:]).state == 77
    unknown = decode(snapshot_namespace, b"\1\1\6\0\0\0\x07\0\0\0xy")
    assert unknown == UnknownSnapshotNamespace(7, b"xy")
    assert encode(unknown, snapshot_namespace) == b"\1\1\6\0\0\0\x07\0\0\0xy"
    assert decode(MirrorPeer, encode(Old(0))[:2] + b"\x14\0\0\0" + bytes(12) + struct.pack("<q", -1)) == MirrorPeer(
        "", "", ""
    )


# --- hostile input


@pytest.mark.parametrize("name", [name for name, hint in HINTS.items() if hint not in (rest, UnknownSnapshotNamespace)])
def test_truncation(name: str) -> None:
    """Cut off anywhere, a value is malformed, unless it is all that is left, however much that is."""
    hint = HINTS[name]

    @QUICK
    @given(values_of(hint))
    def run(value: Any) -> None:
        raw = encode(value, hint)
        for length in range(len(raw)):
            with pytest.raises(DecodeError):
                decode(hint, raw[:length])

    run()


@pytest.mark.parametrize("name", HINTS)
def test_random_bytes(name: str) -> None:
    """Whatever comes in, the outcome is a value or DecodeError."""
    hint = HINTS[name]

    @QUICK
    @given(st.binary(max_size=60))
    def run(raw: bytes) -> None:
        try:
            decode(hint, raw)
        except DecodeError:
            return

    run()


@pytest.mark.parametrize("hint", [list[u8], list[text], set[u64], dict[u64, u64], text, blob, list[tuple[u8, u8]]])
@pytest.mark.parametrize("count", [2, 1000, 0xFFFFFFFF])
def test_absurd_counts(hint: Any, count: int) -> None:
    """A count is held against what is left before the first element is read."""
    raw = struct.pack("<I", count) + bytes(min(count, 8 << 20) - 1)
    began = time.perf_counter()
    with pytest.raises(DecodeError):
        decode(hint, raw)
    assert time.perf_counter() - began < 0.1


def test_absurd_lengths() -> None:
    for length in (5, 0xFFFFFFFF):
        with pytest.raises(DecodeError):
            decode(Old, b"\1\1" + struct.pack("<I", length) + b"\1")
    with pytest.raises(DecodeError):
        decode(EntityAddress, b"\0" + bytes(40))


@pytest.mark.parametrize(("hint", "value"), [(u8, 256), (u8, -1), (u64, -1), (i32, 2**31), (utime, UTime(-1, 0))])
def test_values_that_do_not_fit(hint: Any, value: Any) -> None:
    with pytest.raises(EncodeError):
        encode(value, hint)


@pytest.mark.parametrize("hint", [int, str, Annotated[int, "no codec"], bytes])
def test_what_declares_nothing(hint: Any) -> None:
    with pytest.raises(TypeError):
        codec_of(hint)


# --- the rest


def test_reader() -> None:
    reader = Reader(b"abcdef", 1, 5)
    inner = reader.window(2)
    assert (inner.take(2), inner.left, reader.take(2), reader.left) == (b"bc", 0, b"de", 0)
    for read in (lambda: inner.take(1), lambda: reader.window(1), lambda: Reader(b"").count(1)):
        with pytest.raises(DecodeError):
            read()


def test_concatenate() -> None:
    assert concatenate([codec_of(u8), codec_of(text)], [1, "a"]) == b"\1\1\0\0\0a"
    with pytest.raises(ValueError, match="shorter"):
        concatenate([codec_of(u8), codec_of(text)], [1])


@pytest.mark.parametrize("address", ["127.0.0.1:6789/42", "[2001:db8::1]:0/4294967295", "10.0.0.1:0/0"])
def test_addresses(address: str) -> None:
    parsed = EntityAddress.parse(address, AddressType.ANY)
    assert str(parsed) == address
    assert decode(EntityAddress, encode(parsed)) == parsed
    assert str(EntityInstance(EntityName(EntityType.CLIENT, 7), parsed).name) == "client.7"


def test_statuses_of_all_sites() -> None:
    local = MirrorImageSiteStatus("", MirrorImageStatusState.SYNCING, "l", UTime(1, 0), True)
    remote = MirrorImageSiteStatus("m", MirrorImageStatusState.ERROR, "r", UTime(2, 0), False)
    for sites in ([local], [remote], [local, remote]):
        assert decode(MirrorImageStatus, encode(MirrorImageStatus.of(sites))).sites == sites


def test_what_counts_as_there() -> None:
    assert not NO_PARENT.exists
    assert types.ParentImageSpec(0, "", "i", 0).exists
    assert not types.NO_GROUP.is_valid
    assert types.SnapshotInfo is SnapshotInfo
    assert GroupSnapshotNamespace(1, "g", "s").type == SnapshotNamespaceType.GROUP
