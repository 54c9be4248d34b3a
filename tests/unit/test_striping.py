"""Striping against a literal, slow reading of the formula: a byte at a time, or a stripe unit at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rbd_native.striping import MAX_IMAGE_SIZE, MAX_STRIPE_COUNT, Layout, Pieces, object_name

KIB, MIB = 1 << 10, 1 << 20
PLAIN = Layout(22, 4 * MIB, 1)
STRIPED = Layout(20, 64 * KIB, 4)
# The longest walk, in stripe units, that the oracle is asked for.
WALK = 300


def byte_home(layout, offset):
    """(object, offset in it) of one image byte, by the formula as it is published."""
    per_object = 2**layout.order // layout.stripe_unit
    blockno = offset // layout.stripe_unit
    stripeno, stripepos = blockno // layout.stripe_count, blockno % layout.stripe_count
    objsetno = stripeno // per_object
    objectno = objsetno * layout.stripe_count + stripepos
    return objectno, stripeno % per_object * layout.stripe_unit + offset % layout.stripe_unit


def walk(layout, offset, length):
    """(object, offset in it, length, image offset) of every stripe unit or part of one in a range."""
    at, end = offset, offset + length
    while at < end:
        size = min(layout.stripe_unit - at % layout.stripe_unit, end - at)
        yield (*byte_home(layout, at), size, at)
        at += size


def slow_extents(layout, offset, length):
    """The walk, merged to one row per object, in the shape of ObjectExtent."""
    merged = {}
    for objectno, start, size, at in walk(layout, offset, length):
        first, total, pieces = merged.setdefault(objectno, (start, 0, []))
        assert first + total == start, "a contiguous range gave two extents of one object"
        if pieces and sum(pieces[-1]) == at - offset:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + size)
        else:
            pieces.append((at - offset, size))
        merged[objectno] = (first, total + size, pieces)
    return [(objectno, first, total, tuple(pieces)) for objectno, (first, total, pieces) in merged.items()]


def u64(*values):
    return np.array(values, dtype=np.uint64)


def rows(pieces):
    """(request, object, object offset, length, image offset) tuples of Python integers."""
    columns = (pieces.request, pieces.objectno, pieces.object_offset, pieces.length, pieces.image_offset)
    assert [column.dtype for column in columns[1:]] == [np.uint64] * 4
    return list(zip(*(column.tolist() for column in columns), strict=True))


@st.composite
def layouts(draw):
    order = draw(st.one_of(st.sampled_from([12, 22, 25]), st.integers(12, 25)))
    unit = 1 << draw(st.one_of(st.just(order), st.integers(0, order)))
    count = draw(st.one_of(st.just(1), st.integers(1, 9), st.sampled_from([1000, MAX_STRIPE_COUNT])))
    return Layout(order, unit, count)


@st.composite
def ranges(draw, layout):
    """Ranges the oracle can walk: anywhere, near where sign and width go wrong, and near every boundary."""
    unit = layout.stripe_unit
    landmarks = [0, layout.period, 7 * layout.period, 1 << 32, 1 << 63, MAX_IMAGE_SIZE - unit, MAX_IMAGE_SIZE]
    near = draw(st.sampled_from(landmarks)) + draw(st.integers(-3 * unit, 3 * unit))
    offset = draw(st.one_of(st.just(near), st.integers(0, MAX_IMAGE_SIZE)))
    assume(0 <= offset <= MAX_IMAGE_SIZE)
    length = draw(st.one_of(st.integers(0, 2), st.integers(0, WALK * unit)))
    if draw(st.booleans()):
        length += -(offset + length) % unit
    return offset, min(length, MAX_IMAGE_SIZE - offset)


@st.composite
def layouts_and_ranges(draw):
    layout = draw(layouts())
    return layout, *draw(ranges(layout))


class TestLayout:
    @pytest.mark.parametrize(
        ("order", "unit", "count"),
        [
            (11, 2048, 1),
            (26, 1 << 26, 1),
            (22, 0, 1),
            (22, -4096, 1),
            (22, 8 * MIB, 1),
            (22, 3 * MIB, 1),
            (22, 4 * MIB, 0),
            (22, 4 * MIB, -1),
            (22, 4 * MIB, MAX_STRIPE_COUNT + 1),
        ],
    )
    def test_impossible_layouts_are_refused(self, order, unit, count):
        with pytest.raises(ValueError):
            Layout(order, unit, count)

    @pytest.mark.parametrize(
        ("order", "unit", "count", "fancy"),
        [
            (22, 4 * MIB, 1, False),
            (22, 64 * KIB, 1, True),
            (22, 4 * MIB, 2, True),
            (12, 1, 3, True),
            (25, 32 * MIB, 1, False),
            (22, 512, 1, True),
        ],
    )
    def test_fancy(self, order, unit, count, fancy):
        assert Layout(order, unit, count).fancy is fancy

    def test_create_fills_in_defaults(self):
        assert Layout.create() == PLAIN
        assert Layout.create(20, 64 * KIB, 4) == STRIPED
        assert Layout.create(16) == Layout(16, 64 * KIB, 1)

    @pytest.mark.parametrize("args", [(22, 4096, 0), (22, 0, 4), (40, 0, 0), (-1, 0, 0)])
    def test_create_refuses(self, args):
        with pytest.raises(ValueError):
            Layout.create(*args)

    def test_sizes(self):
        assert (STRIPED.object_size, STRIPED.period) == (MIB, 4 * MIB)

    def test_is_a_value(self):
        assert STRIPED == Layout(20, 64 * KIB, 4) != PLAIN
        assert hash(STRIPED) == hash(Layout(20, 64 * KIB, 4))
        assert repr(STRIPED) == "Layout(order=20, stripe_unit=65536, stripe_count=4)"
        with pytest.raises(AttributeError):
            STRIPED.order = 21


class TestExtents:
    @pytest.mark.parametrize(
        ("layout", "offset", "length", "expected"),
        [
            (PLAIN, 4194000, 1000, [(0, 4194000, 304), (1, 0, 696)]),
            (STRIPED, 0, 1, [(0, 0, 1)]),
            (STRIPED, 65000, 2000, [(0, 65000, 536), (1, 0, 1464)]),
            (STRIPED, 300000, 1, [(0, 103392, 1)]),
            (STRIPED, 262144, 524288, [(objectno, 65536, 131072) for objectno in range(4)]),
            (STRIPED, 4194304, 1, [(4, 0, 1)]),
            (STRIPED, 5000000, 1, [(4, 215872, 1)]),
        ],
    )
    def test_examples_from_a_cluster(self, layout, offset, length, expected):
        assert [extent[:3] for extent in layout.extents(offset, length)] == expected

    def test_buffer_pieces_of_a_striped_range(self):
        # From the last ten bytes of object 0's second unit to the first twenty of object 1's third one.
        assert STRIPED.extents(5 * 65536 - 10, 10 + 4 * 65536 + 20) == [
            (0, 131072 - 10, 10 + 65536, ((0, 10), (10 + 3 * 65536, 65536))),
            (1, 65536, 65536 + 20, ((10, 65536), (10 + 4 * 65536, 20))),
            (2, 65536, 65536, ((10 + 65536, 65536),)),
            (3, 65536, 65536, ((10 + 2 * 65536, 65536),)),
        ]

    @given(layouts_and_ranges())
    def test_agrees_with_the_walk(self, case):
        layout, offset, length = case
        extents = layout.extents(offset, length)
        assert extents == slow_extents(layout, offset, length)
        assert list(layout.iter_extents(offset, length)) == extents

    @given(layouts_and_ranges())
    def test_covers_the_buffer_once(self, case):
        layout, offset, length = case
        extents = layout.extents(offset, length)
        assert all(extent.length == sum(size for _, size in extent.buffer_extents) for extent in extents)
        assert len({extent.objectno for extent in extents}) == len(extents)
        assert all(0 <= extent.offset <= layout.object_size - extent.length for extent in extents)
        end = 0
        for start, size in sorted(piece for extent in extents for piece in extent.buffer_extents):
            assert start == end and size > 0
            end += size
        assert end == length

    @given(
        st.sampled_from([1, 8, 256, 4096]), st.integers(1, 5), st.integers(0, 100_000), st.integers(0, 700)
    )
    def test_agrees_with_every_byte(self, unit, count, offset, length):
        layout = Layout(12, unit, count)
        got = {}
        for extent in layout.extents(offset, length):
            at = extent.offset
            for start, size in extent.buffer_extents:
                for i in range(size):
                    got[offset + start + i] = (extent.objectno, at)
                    at += 1
        assert got == {at: byte_home(layout, at) for at in range(offset, offset + length)}

    def test_is_lazy(self):
        everything = STRIPED.iter_extents(0, MAX_IMAGE_SIZE)
        assert [next(everything).objectno for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        first = next(Layout(25, 1 << 25, MAX_STRIPE_COUNT).iter_extents(5, MAX_IMAGE_SIZE - 5))
        assert first == (0, 5, (1 << 25) - 5, first.buffer_extents)

    @pytest.mark.parametrize("layout", [PLAIN, STRIPED])
    @pytest.mark.parametrize(
        ("offset", "length"),
        [(-1, 1), (0, -1), (-5, 0), (MAX_IMAGE_SIZE, 1), (1, MAX_IMAGE_SIZE), (1 << 64, 0)],
    )
    def test_ranges_of_no_image_are_refused(self, layout, offset, length):
        for function in (layout.extents, layout.object_range, layout.object_ranges):
            with pytest.raises(ValueError):
                function(offset, length)

    def test_the_last_byte_of_the_largest_image(self):
        assert PLAIN.extents(MAX_IMAGE_SIZE - 1, 1) == [(2**42 - 1, 4 * MIB - 2, 1, ((0, 1),))]
        assert PLAIN.extents(MAX_IMAGE_SIZE, 0) == []
        assert STRIPED.extents(2**63 - 1, 2) == [
            (2**43 - 1, MIB - 1, 1, ((0, 1),)),
            (2**43, 0, 1, ((1, 1),)),
        ]


class TestMapExtents:
    @given(st.data())
    def test_agrees_with_the_scalar_path(self, data):
        layout = data.draw(layouts())
        requests = data.draw(st.lists(ranges(layout), max_size=4))
        got = rows(layout.map_extents(u64(*(r[0] for r in requests)), u64(*(r[1] for r in requests))))
        expected = []
        for request, (offset, length) in enumerate(requests):
            extents = layout.extents(offset, length)
            pieces = [
                (request, extent.objectno, at, size, offset + start)
                for extent in extents
                for (start, size), at in zip(extent.buffer_extents, object_offsets(extent), strict=True)
            ]
            expected += sorted(pieces, key=lambda piece: piece[4])
        assert got == expected

    @given(st.data(), st.integers(1, 50))
    def test_chunks_are_the_whole(self, data, limit):
        layout = data.draw(layouts())
        requests = data.draw(st.lists(ranges(layout), max_size=6))
        offsets, lengths = u64(*(r[0] for r in requests)), u64(*(r[1] for r in requests))
        chunks = list(layout.map_chunks(offsets, lengths, limit))
        assert all(0 < len(chunk) <= limit for chunk in chunks)
        assert 0 in lengths or all(len(chunk) == limit for chunk in chunks[:-1])
        assert [row for chunk in chunks for row in rows(chunk)] == rows(layout.map_extents(offsets, lengths))

    def test_a_huge_range_comes_piecemeal(self):
        layout = Layout(12, 1, 3)
        chunks = layout.map_chunks(u64(0, 5), u64(MAX_IMAGE_SIZE, 1))
        first, second = next(chunks), next(chunks)
        assert len(first) == len(second) == 1 << 16
        assert int(second.image_offset[0]) == 1 << 16
        assert byte_home(layout, 1 << 16) == (int(second.objectno[0]), int(second.object_offset[0]))

    def test_nothing_gives_nothing(self):
        assert len(PLAIN.map_extents(u64(), u64())) == 0
        assert len(PLAIN.map_extents(u64(3, MAX_IMAGE_SIZE), u64(0, 0))) == 0

    def test_signed_arrays_are_welcome_until_negative(self):
        got = PLAIN.map_extents(np.array([4194000]), np.array([1000]))
        assert rows(got) == [(0, 0, 4194000, 304, 4194000), (0, 1, 0, 696, 4194304)]

    @pytest.mark.parametrize(
        ("offsets", "lengths"),
        [
            (np.array([-1]), np.array([1])),
            (np.array([1.0]), np.array([1.0])),
            (np.array([1, 2]), np.array([1])),
            (np.array([[1]]), np.array([[1]])),
            (u64(MAX_IMAGE_SIZE), u64(1)),
            (u64(5, 1), u64(5, MAX_IMAGE_SIZE)),
        ],
    )
    def test_bad_arrays_are_refused(self, offsets, lengths):
        with pytest.raises(ValueError):
            PLAIN.map_extents(offsets, lengths)

    def test_a_chunk_of_no_rows_is_refused(self):
        with pytest.raises(ValueError):
            next(PLAIN.map_chunks(u64(1), u64(1), 0))


def object_offsets(extent):
    """Where each buffer piece of an object extent begins in the object."""
    at = extent.offset
    for _, size in extent.buffer_extents:
        yield at
        at += size


class TestInverse:
    @given(layouts_and_ranges())
    def test_round_trip(self, case):
        layout, offset, length = case
        for extent in layout.extents(offset, length):
            back = layout.image_extents(extent.objectno, extent.offset, extent.length)
            assert back == [(offset + start, size) for start, size in extent.buffer_extents]

    @given(st.data())
    def test_array_round_trip(self, data):
        layout = data.draw(layouts())
        requests = data.draw(st.lists(ranges(layout), max_size=4))
        there = layout.map_extents(u64(*(r[0] for r in requests)), u64(*(r[1] for r in requests)))
        back = layout.map_object_extents(there.objectno, there.object_offset, there.length)
        assert rows(back) == [(index, *row[1:]) for index, row in enumerate(rows(there))]

    @given(layouts_and_ranges(), st.integers(1, 20))
    def test_arrays_agree_with_the_scalar_path(self, case, limit):
        layout, offset, length = case
        extents = layout.extents(offset, length)
        arrays = (u64(*(extent[field] for extent in extents)) for field in range(3))
        chunks = list(layout.map_object_chunks(*arrays, limit))
        assert all(len(chunk) <= limit for chunk in chunks)
        got = [(row[0], row[4], row[3]) for chunk in chunks for row in rows(chunk)]
        assert got == [
            (index, *piece)
            for index, extent in enumerate(extents)
            for piece in layout.image_extents(*extent[:3])
        ]

    @given(layouts(), st.integers(0, 10**6), st.data())
    def test_a_whole_object_lies_at_home(self, layout, objectno, data):
        assume(layout.object_size // layout.stripe_unit <= WALK)
        for at, size in layout.image_extents(objectno, 0, layout.object_size):
            byte = data.draw(st.integers(0, size - 1))
            assert byte_home(layout, at + byte)[0] == objectno

    @pytest.mark.parametrize(
        "layout", [PLAIN, STRIPED, Layout(25, 1 << 25, MAX_STRIPE_COUNT), Layout(12, 1, 3)]
    )
    def test_the_end_of_what_an_image_can_hold(self, layout):
        objectno, at = byte_home(layout, MAX_IMAGE_SIZE - 1)
        assert layout.image_extents(objectno, at, 1) == [(MAX_IMAGE_SIZE - 1, 1)]
        assert rows(layout.map_object_extents(u64(objectno), u64(at), u64(1))) == [
            (0, objectno, at, 1, MAX_IMAGE_SIZE - 1)
        ]
        # One byte on, in this set or the next, there is nothing; nor where the product has wrapped.
        beyond = [(objectno, at, 2), (objectno + layout.stripe_count, 0, 1), (2**64 - 1, 0, 1)]
        for case in [case for case in beyond if sum(case[1:]) <= layout.object_size]:
            with pytest.raises(ValueError):
                layout.image_extents(*case)
            with pytest.raises(ValueError):
                layout.map_object_extents(*(u64(value) for value in case))

    @pytest.mark.parametrize(
        "case", [(-1, 0, 1), (0, -1, 1), (0, 0, -1), (0, MIB, 1), (0, 1, MIB), (0, 0, MIB + 1)]
    )
    def test_what_no_object_holds_is_refused(self, case):
        with pytest.raises(ValueError):
            STRIPED.image_extents(*case)
        with pytest.raises(ValueError):
            STRIPED.map_object_extents(*(np.array([value]) for value in case))

    def test_empty_extents(self):
        assert STRIPED.image_extents(3, MIB, 0) == []
        assert len(STRIPED.map_object_extents(u64(3, 2**64 - 1), u64(MIB, 0), u64(0, 0))) == 0


class TestObjects:
    @pytest.mark.parametrize(
        ("layout", "size", "count"),
        [
            (STRIPED, 0, 0),
            (STRIPED, 1, 1),
            (STRIPED, 4 * MIB + 100000, 6),
            (STRIPED, 4 * MIB + 300000, 8),
            (STRIPED, 64 * MIB, 64),
            (PLAIN, 4 * MIB, 1),
            (PLAIN, 4 * MIB + 1, 2),
            (PLAIN, MAX_IMAGE_SIZE, 2**42),
            (PLAIN, 2**63, 2**41),
            (Layout(12, 4096, 1), MAX_IMAGE_SIZE, 2**52),
        ],
    )
    def test_count_examples(self, layout, size, count):
        assert layout.object_count(size) == count

    @given(layouts(), st.data())
    def test_count_is_the_highest_object_and_one(self, layout, data):
        size = data.draw(st.integers(0, WALK * layout.stripe_unit))
        assert layout.object_count(size) == max((row[0] + 1 for row in walk(layout, 0, size)), default=0)

    @given(layouts(), st.integers(0, MAX_IMAGE_SIZE))
    def test_count_agrees_with_the_published_formula(self, layout, size):
        period, count = layout.stripe_count * layout.object_size, layout.stripe_count
        rest = size % period
        expected = -(-size // period) * count
        if 0 < rest < count * layout.stripe_unit:
            expected -= count - -(-rest // layout.stripe_unit)
        assert layout.object_count(size) == expected

    @given(layouts_and_ranges())
    def test_ranges_are_what_is_touched(self, case):
        layout, offset, length = case
        touched = sorted({row[0] for row in walk(layout, offset, length)})
        ranges_ = layout.object_ranges(offset, length)
        assert len(ranges_) <= 2
        assert len(ranges_) < 2 or ranges_[0].stop < ranges_[1].start
        assert [objectno for numbers in ranges_ for objectno in numbers] == touched
        hull = layout.object_range(offset, length)
        assert hull == (range(touched[0], touched[-1] + 1) if touched else range(0))

    def test_a_range_over_the_end_of_a_stripe_leaves_a_gap(self):
        assert STRIPED.object_ranges(3 * 65536 + 1, 65536) == (range(0, 1), range(3, 4))
        assert STRIPED.object_range(3 * 65536 + 1, 65536) == range(0, 4)
        assert STRIPED.object_ranges(4 * MIB - 1, 2) == (range(3, 5),)
        assert STRIPED.object_ranges(4 * MIB - 1, 2 + 4 * MIB) == (range(3, 9),)

    @given(layouts(), st.data())
    def test_extent_in_counts_the_bytes(self, layout, data):
        size = data.draw(st.integers(0, WALK * layout.stripe_unit))
        held = Counter()
        for objectno, _, length, _ in walk(layout, 0, size):
            held[objectno] += length
        numbers = [*held, layout.object_count(size), layout.object_count(size) + 5, 2**63, 2**64 - 1]
        expected = [held[objectno] for objectno in numbers]
        assert [layout.object_extent_in(size, objectno) for objectno in numbers] == expected
        vector = layout.object_extents_in(size, u64(*numbers))
        assert vector.dtype == np.uint64 and vector.tolist() == expected

    @given(layouts(), st.integers(1, MAX_IMAGE_SIZE), st.data())
    def test_extent_in_ends_where_the_image_does(self, layout, size, data):
        last, at = byte_home(layout, size - 1)
        assert layout.object_extent_in(size, last) == at + 1
        objectno = data.draw(st.one_of(st.integers(0, last + 9), st.integers(max(last - 9, 0), last + 9)))
        held = layout.object_extent_in(size, objectno)
        assert layout.object_extents_in(size, u64(objectno)).tolist() == [held]
        assert 0 <= held <= layout.object_size
        assert (held > 0) == (objectno < layout.object_count(size))
        if held:
            assert sum(layout.image_extents(objectno, held - 1, 1)[0]) <= size
        if held < layout.object_size:
            try:
                beyond = layout.image_extents(objectno, held, 1)
            except ValueError:
                return
            assert beyond[0][0] >= size

    def test_extents_of_a_shrunk_image_differ_within_a_set(self):
        size = 4 * MIB + 300000
        assert [STRIPED.object_extent_in(size, n) for n in range(3, 10)] == [
            *(MIB, 65536 + 37856, 65536, 65536, 65536, 0, 0)
        ]

    def test_bad_arguments_are_refused(self):
        for call in (
            lambda: PLAIN.object_count(-1),
            lambda: PLAIN.object_count(1 << 64),
            lambda: PLAIN.object_extent_in(1 << 64, 0),
            lambda: PLAIN.object_extent_in(5, -1),
            lambda: PLAIN.object_extents_in(5, np.array([-1])),
            lambda: PLAIN.object_extents_in(-1, u64(1)),
        ):
            with pytest.raises(ValueError):
                call()


class TestNames:
    @pytest.mark.parametrize(
        ("prefix", "objectno", "old_format", "name"),
        [
            ("rbd_data.102180017743", 0, False, "rbd_data.102180017743.0000000000000000"),
            ("rbd_data.11.102180017743", 0xAB, False, "rbd_data.11.102180017743.00000000000000ab"),
            ("rbd_data.a", 2**64 - 1, False, "rbd_data.a.ffffffffffffffff"),
            ("rb.0.1036.6b8b4567", 0x1F, True, "rb.0.1036.6b8b4567.00000000001f"),
        ],
    )
    def test_names(self, prefix, objectno, old_format, name):
        assert object_name(prefix, objectno, old_format) == name


def test_pieces_concatenate_nothing():
    empty = Pieces.concatenate([])
    assert rows(empty) == [] and empty.request.dtype == np.intp
