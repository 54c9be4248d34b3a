"""diff_iterate, judged by librbd: for any history of an image, the same extents in the same order, from every snapshot to
every later one.

Before release 18 librbd's lists are others: there it is what they say that is compared, by what the versions hold."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import rbd as real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rbd_native as ours
from tests.cluster import CephCluster
from tests.releases import CUT_OFF
from tests.releases import told as release_told

pytestmark = pytest.mark.ceph

PLAIN = ours.RBD_FEATURE_LAYERING
LOCKED = PLAIN | ours.RBD_FEATURE_EXCLUSIVE_LOCK
MAPPED = LOCKED | ours.RBD_FEATURE_OBJECT_MAP | ours.RBD_FEATURE_FAST_DIFF
DEEP = MAPPED | ours.RBD_FEATURE_DEEP_FLATTEN
OBJECTS = 6

Extents = list[tuple[int, int, bool]]


class Layout(NamedTuple):
    """Stripe unit 0: none."""

    order: int
    unit: int
    stripes: int


layouts = st.builds(
    lambda order, unit, count: Layout(order, 1 << order - unit if count > 1 else 0, count if count > 1 else 0),
    st.integers(12, 16),
    st.integers(0, 2),
    st.integers(1, 3),
)
# Offsets and lengths in 64ths of an image of OBJECTS objects: they hit the edges of objects, units and blocks.
places = st.tuples(st.integers(0, 63), st.integers(1, 24))
steps = st.one_of(
    st.tuples(st.just("write"), places),
    st.tuples(st.just("discard"), places),
    st.tuples(st.just("zero"), places),
    st.tuples(st.just("resize"), st.integers(1, 96)),
    st.tuples(st.just("snap"), st.none()),
    st.tuples(st.just("forget"), st.integers(0, 5)),
    st.tuples(st.just("back"), st.integers(0, 5)),
)
histories = st.lists(steps, min_size=2, max_size=14)
features = st.sampled_from([PLAIN, LOCKED, MAPPED, DEEP])


class Pool:
    """A pool, and a client that discards small pieces too."""

    def __init__(self, ceph: CephCluster) -> None:
        ceph.create_pool("diffs", pg_num=4)
        self._ceph = ceph
        self._client = ceph.rados(rbd_discard_granularity_bytes="4096", rbd_default_clone_format="2")
        self.ioctx = self._client.open_ioctx("diffs")
        self._numbers = itertools.count()

    def new_name(self) -> str:
        return f"image-{next(self._numbers)}"

    def create(self, layout: Layout, mask: int) -> str:
        name = self.new_name()
        real.RBD().create(
            self.ioctx, name, OBJECTS << layout.order, layout.order, False, mask, layout.unit, layout.stripes
        )
        return name

    def clone(self, parent: str, snapshot: str, layout: Layout, mask: int) -> str:
        name = self.new_name()
        real.RBD().clone(
            self.ioctx, parent, snapshot, self.ioctx, name, mask, layout.order, layout.unit, layout.stripes
        )
        return name

    def close(self) -> None:
        self.ioctx.close()
        self._client.shutdown()
        self._ceph.remove_pool("diffs")


@pytest.fixture(scope="module")
def images(ceph: CephCluster) -> Iterator[Pool]:
    pool = Pool(ceph)
    yield pool
    pool.close()


def live(image: Any, history: list[Any], taken: Iterator[int]) -> None:
    """Go through a history. What cannot be done now is left out."""
    for verb, argument in history:
        size = image.size()
        names = [snapshot["name"] for snapshot in image.list_snaps()]
        if verb == "resize":
            image.resize(max(1, argument * (OBJECTS << image.stat()["order"]) // 64))
        elif verb == "snap":
            image.create_snap(argument or f"s{next(taken)}")
        elif verb in ("forget", "back"):
            if argument < len(names):
                (image.remove_snap if verb == "forget" else image.rollback_to_snap)(names[argument])
        else:
            start, length = (part * size // 64 for part in argument)
            length = min(max(length, 1), size - start)
            if verb == "write":
                image.write(bytes([next(taken) % 255 + 1]) * length, start)
            elif verb == "discard":
                image.discard(start, length)
            else:
                image.write_zeroes(start, length)


def told(image: Any, since: str | None, offset: int, length: int, **how: bool) -> Extents:
    extents: Extents = []
    image.diff_iterate(offset, length, since, lambda *extent: extents.append(extent), **how)
    return extents


def content(image: Any, version: str | None) -> bytes:
    image.set_snap(version)
    data: bytes = image.read(0, image.size())
    return data


def compare(ioctx: Any, name: str, part: tuple[int, int]) -> int:
    """Every pair of versions, every mode, the whole image and a part of it. How many extents there were."""
    seen = 0
    with ours.Image(ioctx, name) as mine, real.Image(ioctx, name) as theirs:
        versions = [snapshot["name"] for snapshot in theirs.list_snaps()]
        contents: dict[str | None, bytes] = {None: b"", **{name: content(mine, name) for name in versions}}
        now = content(mine, None)
        for place, until in enumerate([*versions, None]):
            mine.set_snap(until)
            theirs.set_snap(until)
            size = theirs.size()
            start = part[0] * size // 64
            ranges = [(0, size), (start, min(max(part[1] * size // 64, 1), size - start))]
            for since in [None, *versions[:place]]:
                for (offset, length), whole, parent in itertools.product(ranges, (False, True), (True, False)):
                    if length:
                        how = {"whole_object": whole, "include_parent": parent}
                        expected = told(theirs, since, offset, length, **how)
                        found = told(mine, since, offset, length, **how)
                        case = (since, until, offset, length, how)
                        if release_told(CUT_OFF):
                            assert same(found, expected, contents[since], now if until is None else contents[until]), case
                        else:
                            assert found == expected, case
                        seen += len(expected)
    return seen


def same(mine: Extents, theirs: Extents, before: bytes, after: bytes) -> bool:
    """Whether both say the same of what the two versions do not have in common, and nothing false."""
    size = max(len(before), len(after))
    old, new = (np.frombuffer(content.ljust(size, b"\0"), np.uint8) for content in (before, after))
    marks = []
    for extents in (mine, theirs):
        mark = np.zeros(size, bool)
        for offset, length, exists in extents:
            mark[offset : offset + length] = True
            if not exists and new[offset : offset + length].any():
                return False
        marks.append(mark & (old != new))
    return bool((marks[0] == marks[1]).all())


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(layouts, features, histories, st.booleans(), places)
def test_same_extents(
    images: Pool, layout: Layout, mask: int, history: list[Any], by_librbd: bool, part: tuple[int, int]
) -> None:
    name = images.create(layout, mask)
    with (real if by_librbd else ours).Image(images.ioctx, name) as image:
        live(image, history, itertools.count())
    compare(images.ioctx, name, part)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(layouts, layouts, features, features, histories, histories, st.booleans(), st.booleans(), places)
def test_same_extents_of_clones(
    images: Pool,
    parent_layout: Layout,
    layout: Layout,
    parent_mask: int,
    mask: int,
    before: list[Any],
    history: list[Any],
    by_librbd: bool,
    flatten: bool,
    part: tuple[int, int],
) -> None:
    parent = images.create(parent_layout, parent_mask)
    taken = itertools.count()
    with real.Image(images.ioctx, parent) as image:
        live(image, before, taken)
        image.create_snap("base")
        live(image, [step for step in before if step[0] not in ("forget", "back")][:2], taken)
    name = images.clone(parent, "base", layout, mask)
    with (real if by_librbd else ours).Image(images.ioctx, name) as image:
        live(image, history, taken)
        if flatten and image.overlap():
            image.flatten()
            live(image, before[2:3], taken)
    compare(images.ioctx, name, part)
