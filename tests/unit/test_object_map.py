"""Object maps: the files of a real cluster, and a slow model of the packed entries."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rbd_native import object_map
from rbd_native.constants import RBD_MAX_OBJECT_MAP_OBJECTS as LIMIT
from rbd_native.crc32c import crc32c
from rbd_native.object_map import (
    BLOCK_ENTRIES,
    BLOCK_SIZE,
    HEADER_SIZE,
    BitVector,
    ObjectMapCorrupt,
    ObjectState,
    Part,
    blocks_of,
)

NONEXISTENT, EXISTS, PENDING, CLEAN = ObjectState

# (number of objects, state of each, header after its length, data, footer), from a cluster.
FILES = [
    (0, EXISTS, "01010800000000000000 00000000", "", "08000000 52bab7ea 00000000"),
    (1, EXISTS, "01010800000001000000 00000000", "40", "0c000000 75c78ba3 01000000 bc1d7b41"),
    (4, EXISTS, "01010800000004000000 00000000", "55", "0c000000 3f38aacb 01000000 cfced464"),
    (5, EXISTS, "01010800000005000000 00000000", "5540", "0c000000 18459682 01000000 92d381dc"),
    (6, PENDING, "01010800000006000000 00000000", "aaa0", "0c000000 71c2d259 01000000 0b5f529c"),
    (10, EXISTS, "0101080000000a000000 00000000", "555550", "0c000000 c644f43a 01000000 cadf8740"),
    (16, NONEXISTENT, "01010800000010000000 00000000", "00000000", "0c000000 e6b3c16e 01000000 00000000"),
    (16, EXISTS, "01010800000010000000 00000000", "55555555", "0c000000 e6b3c16e 01000000 47bed391"),
    (17, EXISTS, "01010800000011000000 00000000", "5555555540", "0c000000 c1cefd27 01000000 55b75bd4"),
    (
        16385,
        EXISTS,
        "01010800000001400000 00000000",
        "55" * 4096 + "40",
        "10000000 0fc03cd9 02000000 7695176b bc1d7b41",
    ),
]
FIVE = bytes.fromhex("0e000000 01010800000005000000 00000000 5540 0c000000 18459682 01000000 92d381dc")


def slow_crc(data):
    """CRC-32C, seed 0, no final xor, a bit at a time."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def model_file(n, slots, crc=crc32c, block_size=BLOCK_SIZE):
    """The file of n entries; `slots` are those and what is stale after them in the last byte."""
    header = struct.pack("<BBIQ", 1, 1, 8, n)
    data = (np.array(slots, np.uint8).reshape(-1, 4) @ np.array([64, 16, 4, 1])).astype(np.uint8).tobytes()
    crcs = [crc(data[i : i + block_size]) for i in range(0, len(data), block_size)]
    footer = struct.pack(f"<II{len(crcs)}I", crc(header), len(crcs), *crcs)
    return struct.pack("<I", 14) + header + data + struct.pack("<I", len(footer)) + footer


class TestCrc:
    @pytest.mark.parametrize(
        ("data", "crc"),
        [
            ("", 0),
            ("0101080000000800000000000000", 0xA88CBE88),
            ("5400", 0x8E585659),
            (
                "93975853265941310101000000000000000000000000000000180000000501040000000200000001010800"
                "00006255036b9f4b753a",
                0xCAB35B19,
            ),
        ],
    )
    def test_values_of_a_cluster(self, data, crc):
        assert crc32c(bytes.fromhex(data)) == crc

    @given(st.binary(max_size=50), st.binary(max_size=50))
    def test_is_the_crc_and_continues(self, head, tail):
        assert crc32c(head) == slow_crc(head)
        assert crc32c(tail, crc32c(head)) == crc32c(head + tail) == crc32c(memoryview(head + tail))


class TestFilesOfACluster:
    @pytest.mark.parametrize(("n", "state", "header", "data", "footer"), FILES)
    def test_both_ways(self, n, state, header, data, footer):
        body = bytes.fromhex("0e000000" + header + data)
        vector = BitVector(n, state)
        assert vector.encode() == body + bytes.fromhex(footer)
        assert vector.encode(with_crcs=False) == body + bytes(4)
        for raw in (vector.encode(), vector.encode(with_crcs=False), vector.encode() + b"trailing"):
            assert BitVector.decode(raw) == vector
            assert BitVector.decode(raw).encode() == vector.encode()

    def test_the_first_object_is_in_the_top_bits(self):
        vector = BitVector(8)
        vector[0], vector[1] = CLEAN, EXISTS
        assert vector.encode(with_crcs=False)[HEADER_SIZE:-4].hex() == "d000"

    def test_shrinking_leaves_stale_bits_and_growing_overwrites_its_own(self):
        vector = BitVector(10, EXISTS)
        vector.resize(5, EXISTS)
        assert vector.encode().hex() == ("0e000000010108000000050000000000000055550c0000001845968201000000e1002ef9")
        vector.resize(7, CLEAN)
        assert vector.encode().hex() == ("0e0000000101080000000700000000000000557d0c00000056bfee1001000000f0d64a53")
        assert vector.set_range(5, 6, NONEXISTENT) == 1
        assert vector.encode().hex() == ("0e0000000101080000000700000000000000554d0c00000056bfee1001000000419fa963")
        assert vector.set_range(0, 7, PENDING, EXISTS) == 6
        assert vector.encode().hex() == ("0e0000000101080000000700000000000000aa890c00000056bfee1001000000190a5dc4")

    def test_a_snapshot_leaves_stale_bits_alone(self):
        vector = BitVector(10, EXISTS)
        vector.resize(5)
        assert vector.snap_add() == 5
        assert vector.encode().hex() == ("0e0000000101080000000500000000000000ffd50c000000184596820100000034d1c145")

    def test_a_snapshot_goes(self):
        mine = [a for a in range(4) for b in range(4)] + [0, 1, 2, 3] * 2
        theirs = [b for a in range(4) for b in range(4)] + [1] * 2
        short, long = BitVector.pack(mine), BitVector.pack(mine)
        assert short.snap_remove(BitVector.pack(theirs)) == 3
        assert short.unpack().tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 1, 3, 3, 0, 1, 2, 1, 0, 1, 2, 1]
        assert long.snap_remove(BitVector.pack(theirs + [2] * 20)) == 1
        assert long.unpack().tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 1, 3, 3, 0, 1, 2, 3, 0, 1, 2, 3]

    def test_stale_bits_of_a_file_are_kept(self):
        raw = FIVE[:HEADER_SIZE] + b"\x55\x7f" + bytes(4)
        vector = BitVector.decode(raw)
        assert vector.encode(with_crcs=False) == raw
        assert vector.encode().endswith(bytes.fromhex("557f 0c000000 18459682 01000000 07a671b2"))
        assert vector == BitVector(5, EXISTS)


def corrupt(*, header=FIVE[:HEADER_SIZE], data=FIVE[18:20], footer=FIVE[20:]):
    return header + data + footer


def u32(*values):
    return struct.pack(f"<{len(values)}I", *values)


HEADER_CRC, DATA_CRC = struct.unpack_from("<I4xI", FIVE, 24)


class TestCorruptFiles:
    @pytest.mark.parametrize(
        "raw",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\x0e\0\0\0", id="only a length"),
            pytest.param(FIVE[:17], id="short header"),
            pytest.param(b"garbage" * 10, id="garbage"),
            pytest.param(corrupt(header=u32(16) + FIVE[4:18] + b"zz"), id="longer header"),
            pytest.param(corrupt(header=FIVE[:6] + u32(9) + FIVE[10:18]), id="longer struct"),
            pytest.param(corrupt(header=FIVE[:4] + b"\2\2" + FIVE[6:18]), id="later version"),
            pytest.param(corrupt(header=FIVE[:10] + struct.pack("<Q", 100)), id="short data"),
            pytest.param(corrupt(header=FIVE[:10] + struct.pack("<Q", 2**60)), id="absurd n"),
            pytest.param(corrupt(header=FIVE[:10] + struct.pack("<Q", 2**64 - 1)), id="largest n"),
            pytest.param(FIVE[:20], id="no footer"),
            pytest.param(FIVE[:22], id="part of a length"),
            pytest.param(FIVE[:-1], id="short footer"),
            pytest.param(FIVE[:24], id="no checksums after the length"),
            pytest.param(corrupt(footer=u32(4, HEADER_CRC)), id="only the header's"),
            pytest.param(corrupt(footer=u32(8, HEADER_CRC, 0)), id="no checksum of the block"),
            pytest.param(corrupt(footer=u32(8, HEADER_CRC, 1, DATA_CRC)), id="L too small"),
            pytest.param(corrupt(footer=u32(11, HEADER_CRC, 1, DATA_CRC)), id="L a byte too small"),
            pytest.param(corrupt(footer=u32(13, HEADER_CRC, 1, DATA_CRC)), id="L a byte too large"),
            pytest.param(corrupt(footer=u32(2**32 - 1, HEADER_CRC, 1, DATA_CRC)), id="L beyond the end"),
            pytest.param(corrupt(data=b"\x55\x40\0\0"), id="longer data"),
        ],
    )
    def test_bad_layout(self, raw):
        with pytest.raises(ObjectMapCorrupt) as caught:
            BitVector.decode(raw)
        assert caught.value.part is Part.LAYOUT
        assert isinstance(caught.value, ValueError)

    def test_the_limit_is_the_layouts(self):
        """A file that is large enough for its number of entries, and that number still too large."""
        size = HEADER_SIZE + LIMIT // 4 + 1
        raw = np.zeros(size + 4, np.uint8)  # never touched, so it costs nothing
        raw[:HEADER_SIZE] = np.frombuffer(FIVE[:10] + struct.pack("<Q", LIMIT + 1), np.uint8)
        with pytest.raises(ObjectMapCorrupt):
            BitVector.decode(raw.data)

    @pytest.mark.parametrize(
        "raw",
        [
            pytest.param(corrupt(footer=u32(12, HEADER_CRC, 0, DATA_CRC)), id="k too small"),
            pytest.param(corrupt(footer=u32(12, HEADER_CRC, 2**32 - 1, DATA_CRC)), id="absurd k"),
            pytest.param(corrupt(footer=u32(16, HEADER_CRC, 2, DATA_CRC, 0)), id="more checksums than blocks"),
            pytest.param(corrupt(footer=u32(16, HEADER_CRC, 1, DATA_CRC, 77)), id="longer footer"),
        ],
    )
    def test_what_an_osd_takes_is_taken(self, raw):
        assert BitVector.decode(raw) == BitVector(5, EXISTS)

    @pytest.mark.parametrize("length", [0, 1, 8, 11, 12, 13, 1000, 2**32 - 1])
    def test_an_update_goes_by_the_place_of_the_checksums_alone(self, length):
        """The footers that an OSD updates, and what it makes of them."""
        raw = corrupt(footer=u32(length, 1, 7, DATA_CRC))
        vector = BitVector.decode(raw, for_update=True)
        vector.verify(0, 1)
        vector[0] = PENDING
        stored = bytearray(raw)
        for offset, piece in vector.patch(0, 1):
            stored[offset : offset + len(piece)] = piece
        assert stored == corrupt(data=b"\x95\x40", footer=u32(length, 1, 7) + bytes.fromhex("6fef55d8"))

    def test_a_header_of_a_later_writer_has_its_own_checksum(self):
        header = b"\2" + FIVE[5:18]
        raw = FIVE[:4] + header + FIVE[18:24] + u32(slow_crc(header)) + FIVE[28:]
        assert BitVector.decode(raw) == BitVector(5, EXISTS)

    def test_header_checksum(self):
        raw = FIVE[:24] + u32(HEADER_CRC ^ 1) + FIVE[28:]
        with pytest.raises(ObjectMapCorrupt) as caught:
            BitVector.decode(raw)
        assert caught.value.part is Part.HEADER_CRC
        vector = BitVector.decode(raw, for_update=True)
        vector.verify(0, 5)
        assert vector.encode() == FIVE

    @pytest.mark.parametrize("at", [18, 19, 32, 35])
    def test_data_checksum(self, at):
        raw = bytearray(FIVE)
        raw[at] ^= 0x10
        with pytest.raises(ObjectMapCorrupt) as caught:
            BitVector.decode(raw)
        assert caught.value.part is Part.DATA_CRC

    def test_the_header_is_looked_at_first_and_both_can_be_told(self):
        raw = bytes([*FIVE[:18], FIVE[18] ^ 1, *FIVE[19:24], FIVE[24] ^ 1, *FIVE[25:]])
        with pytest.raises(ObjectMapCorrupt) as caught:
            BitVector.decode(raw)
        assert caught.value.part is Part.HEADER_CRC
        with pytest.raises(ObjectMapCorrupt) as caught:
            BitVector.decode(raw, for_update=True).verify(0, 5)
        assert caught.value.part is Part.DATA_CRC

    def test_an_update_verifies_its_own_blocks_only(self):
        raw = bytearray(BitVector(BLOCK_ENTRIES + 1, EXISTS).encode())
        raw[HEADER_SIZE + BLOCK_SIZE] ^= 1
        vector = BitVector.decode(raw, for_update=True)
        vector.verify(0, BLOCK_ENTRIES)
        with pytest.raises(ObjectMapCorrupt) as caught:
            vector.verify(BLOCK_ENTRIES - 1, BLOCK_ENTRIES + 1)
        assert caught.value.part is Part.DATA_CRC
        vector[0] = PENDING
        vector.verify(0, BLOCK_ENTRIES)  # a block that was changed since has no checksum to differ from
        # As with an OSD, the damage elsewhere is still seen afterwards (checksums of its update).
        assert vector.encode()[-12:].hex() == "02000000a6fe7bb5bc1d7b41"
        with pytest.raises(ObjectMapCorrupt):
            BitVector.decode(vector.encode())

    @pytest.mark.parametrize("size", [0, 3, 4, 8, 12, 15])
    def test_an_update_needs_the_checksums(self, size):
        with pytest.raises(ObjectMapCorrupt) as caught:
            BitVector.decode(FIVE[:20] + (bytes(4) + FIVE[24:])[:size], for_update=True)
        assert caught.value.part is Part.LAYOUT

    @given(st.binary(max_size=60), st.integers(0, 40))
    def test_nothing_else_is_raised(self, garbage, keep):
        for raw in (garbage, FIVE[:keep] + garbage):
            try:
                vector = BitVector.decode(raw)
            except ObjectMapCorrupt:
                continue
            assert raw[HEADER_SIZE:].startswith(vector.encode()[HEADER_SIZE : HEADER_SIZE + -(-len(vector) // 4)])

    def test_hostile_numbers_allocate_nothing(self):
        raw = FIVE[:10] + struct.pack("<Q", LIMIT) + FIVE[18:]
        footer = corrupt(footer=u32(2**32 - 1, 0, 2**30) + bytes(100))
        tracemalloc.start()
        try:
            for case in (raw, footer):
                with pytest.raises(ObjectMapCorrupt):
                    BitVector.decode(case)
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()


class TestArguments:
    @pytest.mark.parametrize("index", [-1, 5, 6, 2**64])
    def test_entries_out_of_range(self, index):
        vector = BitVector(5)
        with pytest.raises(IndexError):
            vector[index]
        with pytest.raises(IndexError):
            vector[index] = EXISTS

    @pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 6), (6, 6)])
    def test_ranges_out_of_range(self, start, end):
        vector = BitVector(5)
        for call in (
            lambda: vector.set_range(start, end, EXISTS),
            lambda: vector.unpack(start, end),
            lambda: vector.counts(start, end),
            lambda: next(vector.chunks(start, end)),
        ):
            with pytest.raises(IndexError):
                call()

    def test_states_out_of_range(self):
        vector = BitVector(5)
        for call in (
            lambda: vector.set_range(0, 1, 4),
            lambda: vector.set_range(0, 1, -1),
            lambda: vector.set_range(0, 1, 1, 4),
            lambda: vector.resize(6, 4),
            lambda: BitVector.pack([0, 4]),
            lambda: BitVector.pack([0, -1]),
            lambda: BitVector.pack([1.0]),
        ):
            with pytest.raises(ValueError):
                call()
        assert vector == BitVector(5)

    def test_put_beyond_the_end(self):
        with pytest.raises(IndexError):
            BitVector(5).put(4, [1, 1])

    @pytest.mark.parametrize("n", [-1, LIMIT + 1, 2**64])
    def test_sizes_out_of_range(self, n):
        with pytest.raises(ValueError):
            BitVector(n)
        vector = BitVector(5, EXISTS)
        with pytest.raises(ValueError):
            vector.resize(n)
        assert vector == BitVector(5, EXISTS)

    def test_is_no_key_and_equal_only_to_its_like(self):
        assert BitVector(5) != BitVector(6)
        assert BitVector(5) != BitVector(5, EXISTS)
        assert BitVector.pack([0, 0, 0, 0, 1]) != BitVector(5)
        assert BitVector(0) != b""
        with pytest.raises(TypeError):
            hash(BitVector(5))


states = st.sampled_from(ObjectState)
expectations = st.one_of(st.none(), states)


class Model(RuleBasedStateMachine):
    """Every operation beside a list of slots.  Blocks are made small, so that a few hundred entries have many."""

    BLOCK_SIZE, CHUNK_SIZE, MOST = 8, 16, 300

    @initialize(n=st.integers(0, MOST), state=states)
    def begin(self, n, state):
        self.vector = BitVector(n, state)
        self.n, self.slots = n, [int(state)] * n + [0] * (-n % 4)

    def span(self, data):
        start, end = sorted((data.draw(st.integers(0, self.n)), data.draw(st.integers(0, self.n))))
        return start, end

    @rule(data=st.data(), state=states, expected=expectations)
    def set_range(self, data, state, expected):
        self.update_both(*self.span(data), state, expected)

    def update_both(self, start, end, state, expected):
        hits = {None: {0, 1, 2, 3}, EXISTS: {EXISTS, CLEAN}}.get(expected, {expected})
        changing = [i for i in range(start, end) if self.slots[i] in hits and self.slots[i] != state]
        for i in changing:
            self.slots[i] = int(state)
        assert self.vector.set_range(start, end, state, expected) == len(changing)

    @rule(data=st.data(), state=states)
    def set_one(self, data, state):
        if self.n:
            index = data.draw(st.integers(0, self.n - 1))
            self.slots[index] = int(state)
            self.vector[index] = state
            assert self.vector[index] is state

    @rule(data=st.data(), seed=st.integers(0, 100))
    def put(self, data, seed):
        start, end = self.span(data)
        new = np.random.default_rng(seed).integers(0, 4, end - start)
        changed = sum(a != b for a, b in zip(self.slots[start:end], new.tolist(), strict=True))
        assert self.vector.put(start, new) == changed
        self.slots[start:end] = new.tolist()

    @rule(n=st.integers(0, MOST), state=states)
    def resize(self, n, state):
        self.step_to(n, state)

    @rule(step=st.integers(-9, 9), state=states)
    def resize_a_little(self, step, state):
        self.step_to(max(self.n + step, 0), state)

    def step_to(self, n, state):
        self.vector.resize(n, state)
        size = n + -n % 4
        self.slots = (self.slots + [0] * (size - len(self.slots)))[:size]
        self.slots[self.n : n] = [int(state)] * (n - self.n)
        self.n = n

    @rule()
    def snap_add(self):
        changing = [i for i in range(self.n) if self.slots[i] == EXISTS]
        for i in changing:
            self.slots[i] = int(CLEAN)
        assert self.vector.snap_add() == len(changing)

    @rule(length=st.integers(0, MOST), seed=st.integers(0, 100))
    def snap_remove(self, length, seed):
        removed = np.random.default_rng(seed).integers(0, 4, length).tolist()
        changing = [i for i in range(self.n) if self.slots[i] == CLEAN and (i >= length or removed[i] == EXISTS)]
        for i in changing:
            self.slots[i] = int(EXISTS)
        assert self.vector.snap_remove(BitVector.pack(removed)) == len(changing)

    @rule(data=st.data())
    def ranges_are_read(self, data):
        start, end = self.span(data)
        entries = self.slots[start:end]
        assert self.vector.unpack(start, end).tolist() == entries
        assert self.vector.counts(start, end) == tuple(entries.count(state) for state in ObjectState)
        at, parts = start, []
        for first, part in self.vector.chunks(start, end):
            assert first == at and 0 < len(part) <= self.CHUNK_SIZE * 4
            at += len(part)
            parts += part.tolist()
        assert parts == entries

    @rule(data=st.data(), state=states, expected=expectations)
    def an_update_patches_a_file(self, data, state, expected):
        start, end = self.span(data)
        stored = bytearray(self.vector.encode())
        self.update_both(start, end, state, expected)
        for offset, piece in self.vector.patch(start, end):
            stored[offset : offset + len(piece)] = piece
        assert stored == self.vector.encode()

    @rule()
    def reload(self):
        self.vector = BitVector.decode(self.vector.encode())

    @invariant()
    def the_file_is_the_models(self):
        assert len(self.vector) == self.n
        assert self.vector.encode() == model_file(self.n, self.slots, block_size=self.BLOCK_SIZE)


class TestModel(Model.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=150, stateful_step_count=20)

    @pytest.fixture(autouse=True)
    def _small_blocks(self, monkeypatch):
        monkeypatch.setattr(object_map, "BLOCK_SIZE", Model.BLOCK_SIZE)
        monkeypatch.setattr(object_map, "BLOCK_ENTRIES", 4 * Model.BLOCK_SIZE)
        monkeypatch.setattr(object_map, "CHUNK_SIZE", Model.CHUNK_SIZE)


@given(st.lists(states, max_size=40))
def test_small_files_to_the_bit(entries):
    slots = [*entries, *[0] * (-len(entries) % 4)]
    vector = BitVector.pack(entries)
    assert vector.encode() == model_file(len(entries), slots, slow_crc)
    assert list(vector) == entries and all(isinstance(state, ObjectState) for state in vector)
    assert BitVector.decode(vector.encode()) == BitVector.pack(np.array(entries, np.int64)) == vector


@given(st.binary(max_size=3 * BLOCK_SIZE))
def test_any_data_survives(data):
    n = 4 * len(data)
    vector = BitVector.decode(b"\x0e\0\0\0" + struct.pack("<BBIQ", 1, 1, 8, n) + data + bytes(4))
    assert BitVector.pack(vector.unpack()).encode() == vector.encode()
    assert vector.encode()[HEADER_SIZE:].startswith(data)


class TestChecksums:
    """Those of touched blocks only are worked out again."""

    @pytest.fixture
    def counted(self, monkeypatch):
        sizes = []

        def counting(data, crc=0):
            sizes.append(len(data))
            return crc32c(data, crc)

        monkeypatch.setattr(object_map, "crc32c", counting)
        return sizes

    def test_after_an_update(self, counted):
        vector = BitVector.decode(BitVector(5 * BLOCK_ENTRIES + 1, EXISTS).encode())
        counted.clear()
        vector[BLOCK_ENTRIES] = CLEAN
        vector.set_range(3 * BLOCK_ENTRIES, 5 * BLOCK_ENTRIES, EXISTS)  # as they were
        vector.set_range(0, len(vector), PENDING, CLEAN)
        crcs = vector.block_crcs()
        assert counted == [BLOCK_SIZE]
        assert vector.block_crcs().tolist() == crcs.tolist() and counted == [BLOCK_SIZE]

    def test_after_a_resize(self, counted):
        vector = BitVector.decode(BitVector(3 * BLOCK_ENTRIES + 8, EXISTS).encode())
        counted.clear()
        vector.resize(3 * BLOCK_ENTRIES + 4)
        vector.block_crcs()
        vector.resize(3 * BLOCK_ENTRIES)
        vector.block_crcs()
        assert counted == [1]
        vector.resize(4 * BLOCK_ENTRIES + 1)
        vector.block_crcs()
        assert counted == [1, BLOCK_SIZE, 1]

    def test_blocks_of(self):
        assert blocks_of(0, 0) == blocks_of(BLOCK_ENTRIES, BLOCK_ENTRIES) == range(0)
        assert blocks_of(0, 1) == blocks_of(0, BLOCK_ENTRIES) == range(0, 1)
        assert blocks_of(BLOCK_ENTRIES - 1, BLOCK_ENTRIES + 1) == range(0, 2)
        assert blocks_of(BLOCK_ENTRIES, BLOCK_ENTRIES + 1) == range(1, 2)

    def test_a_patch_of_nothing(self):
        assert BitVector(5).patch(2, 2) == []
        assert BitVector(5, EXISTS).patch(2, 3) == [(18, b"\x55\x40"), (32, FIVE[32:])]


def test_at_the_limit_memory_is_bounded():
    vector = BitVector(LIMIT, EXISTS)
    packed = LIMIT // 4
    tracemalloc.start()
    try:
        assert vector.set_range(1, LIMIT - 1, PENDING, EXISTS) == LIMIT - 2
        assert vector.counts() == (0, 2, LIMIT - 2, 0)
        assert vector.snap_remove(vector) == 0
        assert sum(len(part) for _, part in vector.chunks(LIMIT - 3_000_000)) == 3_000_000
        assert tracemalloc.get_traced_memory()[1] < packed // 4
        assert vector.encode(with_crcs=False)[HEADER_SIZE : HEADER_SIZE + 2].hex() == "6aaa"
        assert tracemalloc.get_traced_memory()[1] < packed + packed // 4
    finally:
        tracemalloc.stop()
