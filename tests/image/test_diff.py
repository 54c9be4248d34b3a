"""diff_iterate on either kind of cluster: what it tells makes one version of the other; how a callback ends it."""

import random
from typing import Any

import pytest

import rbd_native as rbd
from tests.backend import Backend

ORDER = 14
SIZE = 10 << ORDER
MAPPED = (
    rbd.RBD_FEATURE_LAYERING
    | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    | rbd.RBD_FEATURE_OBJECT_MAP
    | rbd.RBD_FEATURE_FAST_DIFF
    | rbd.RBD_FEATURE_DEEP_FLATTEN
)
Extents = list[tuple[int, int, bool]]


def told(image: Any, since: Any = None, offset: int = 0, length: int = 2**63, **how: Any) -> Extents:
    extents: Extents = []
    image.diff_iterate(offset, length, since, lambda *extent: extents.append(extent), **how)
    return extents


def create(ioctx: Any, name: str, features: int = MAPPED, **layout: Any) -> rbd.Image:
    rbd.RBD().create(ioctx, name, SIZE, ORDER, old_format=False, features=features, **layout)
    return rbd.Image(ioctx, name)


@pytest.mark.parametrize("features", [rbd.RBD_FEATURE_LAYERING, MAPPED], ids=["plain", "mapped"])
@pytest.mark.parametrize("layout", [{}, {"stripe_unit": 4096, "stripe_count": 3}], ids=["", "striped"])
def test_what_is_told_makes_the_later_of_the_earlier(backend: Backend, features: int, layout: dict[str, int]) -> None:
    chance = random.Random(7)
    contents: dict[Any, bytes] = {}
    with create(backend.ioctx(), "image", features, **layout) as image:
        for number in range(4):
            for _ in range(3):
                at = chance.randrange(SIZE - 9000)
                image.write(bytes([chance.randrange(1, 256)]) * chance.randrange(1, 9000), at)
                image.write_zeroes(chance.randrange(SIZE // 2), chance.randrange(1, SIZE // 4))
            contents[f"s{number}"] = image.read(0, SIZE)
            image.create_snap(f"s{number}")
        image.write_zeroes(0, SIZE // 2)
        contents[None] = image.read(0, SIZE)
        names = list(contents)
        for place, until in enumerate(names):
            image.set_snap(until)
            for since in [None, *names[:place]]:
                for whole in (False, True):
                    made = bytearray(contents[since] if since is not None else bytes(SIZE))
                    end = 0
                    for offset, length, exists in told(image, since, whole_object=whole):
                        assert offset >= end, "they ascend"
                        end = offset + length
                        made[offset:end] = contents[until][offset:end] if exists else bytes(length)
                    assert made == contents[until], (since, until, whole)


def test_by_the_id_of_a_snapshot_too(backend: Backend) -> None:
    with create(backend.ioctx(), "image") as image:
        image.write(b"a", 0)
        image.create_snap("one")
        image.write(b"b", 3 << ORDER)
        by_id = told(image, image.snap_get_id("one"))
        assert by_id == told(image, "one") == [(3 << ORDER, 1, True)]
        with pytest.raises(rbd.ImageNotFound):
            told(image, 2**40)


def test_what_maps_know_is_asked_of_nobody_else(backend: Backend) -> None:
    """An object that the map does not have costs no operation: an image of a tebibyte is as quick as what it holds."""
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "large", 1 << 40, 22, old_format=False, features=MAPPED)
    with rbd.Image(ioctx, "large") as image:
        for number in (0, 70_000, 262_143):
            image.write(b"data", number << 22)
        exact = [(number << 22, 4, True) for number in (0, 70_000, 262_143)]
        assert told(image) == exact
        assert told(image, whole_object=True) == [(offset, 1 << 22, True) for offset, _, _ in exact]


def test_an_invalid_map_is_not_believed(backend: Backend) -> None:
    """Also by a handle that was opened before it became so, and only reads."""
    ioctx = backend.ioctx()
    with create(ioctx, "image") as image, rbd.Image(ioctx, "image", read_only=True) as reader:
        image.write(b"a", 0)
        image.write(b"b", 2 << ORDER)
        ioctx.write_full(f"rbd_object_map.{image.id()}", b"damaged")
        with rbd.Image(ioctx, "image") as other:
            image.close()
            other.write(b"c", 5 << ORDER)  # finds the map damaged, flags it, and makes an empty one
            expected = [(0, 1, True), (2 << ORDER, 1, True), (5 << ORDER, 1, True)]
            assert told(other) == told(reader) == expected
            assert told(reader, whole_object=True) == [(offset, 1 << ORDER, True) for offset, _, _ in expected]


def test_a_range_is_cut_to_the_image(backend: Backend) -> None:
    with create(backend.ioctx(), "image") as image:
        image.write(b"a" * SIZE, 0)
        assert told(image, None, 100, 200) == [(100, 200, True)]
        assert told(image, None, SIZE - 5, 2**64 - 1) == [(SIZE - 5, 5, True)]
        assert told(image, None, SIZE, 0) == told(image, None, 2**60, 0) == []
        with pytest.raises(rbd.InvalidArgument):
            told(image, None, SIZE, 1)


def test_the_earlier_must_be_earlier(backend: Backend) -> None:
    with create(backend.ioctx(), "image") as image:
        image.create_snap("one")
        image.write(b"a", 0)
        image.create_snap("two")
        image.set_snap("one")
        assert told(image, "one") == []
        with pytest.raises(rbd.InvalidArgument, match="snapshot two"):
            told(image, "two")
        with pytest.raises(rbd.ImageNotFound, match="snapshot three"):
            told(image, "three")


@pytest.mark.parametrize("whole", [False, True])
def test_a_callback_ends_it(backend: Backend, whole: bool) -> None:
    class Enough(Exception):
        pass

    with create(backend.ioctx(), "image") as image:
        image.write(b"a" * SIZE, 0)
        seen: Extents = []

        def ending(result: Any) -> Any:
            seen.clear()

            def callback(*extent: Any) -> Any:
                seen.append(extent)
                if isinstance(result, BaseException):
                    raise result
                return result

            image.diff_iterate(0, SIZE, None, callback, whole_object=whole)

        for going_on in (None, 0, 7, True):
            ending(going_on)
            assert len(seen) == 10
        for raised, result in [(rbd.IOError, -5), (Enough, Enough()), (TypeError, "x"), (OverflowError, 2**31)]:
            with pytest.raises(raised):
                ending(result)
            assert len(seen) == 1
        with pytest.raises(rbd.OSError) as caught:
            ending(-9000)
        assert caught.value.errno == 9000
        assert image.read(0, 1) == b"a"


def test_a_callback_may_use_the_image(backend: Backend) -> None:
    with create(backend.ioctx(), "image") as image:
        image.write(b"abc", 4 << ORDER)
        found: list[bytes] = []
        image.diff_iterate(0, SIZE, None, lambda offset, length, exists: found.append(image.read(offset, length)))
        assert found == [b"abc"]


def test_of_a_clone(backend: Backend) -> None:
    ioctx = backend.ioctx()
    with create(ioctx, "parent") as parent:
        parent.write(b"p", 0)
        parent.write(b"p", 4 << ORDER)
        parent.create_snap("base")
        parent.protect_snap("base")
    rbd.RBD().clone(ioctx, "parent", "base", ioctx, "child", features=MAPPED)
    with rbd.Image(ioctx, "child") as child:
        child.write(b"c", 2 << ORDER)
        own = [(2 << ORDER, 1, True)]
        assert told(child, include_parent=False) == own
        assert told(child) == [(0, 1, True), *own, (4 << ORDER, 1, True)]
        assert [offset >> ORDER for offset, _, _ in told(child, whole_object=True)] == [0, 2, 4]


def test_what_a_clone_gave_up_is_not_the_parents_again(backend: Backend) -> None:
    """Shrunk and grown again, it shares less with the parent."""
    ioctx = backend.ioctx()
    with create(ioctx, "parent") as parent:
        parent.write(b"p" * SIZE, 0)
        parent.create_snap("base")
        parent.protect_snap("base")
    rbd.RBD().clone(ioctx, "parent", "base", ioctx, "child", features=MAPPED)
    with rbd.Image(ioctx, "child") as child:
        child.resize((2 << ORDER) + 100)
        child.resize(SIZE)
        for whole in (False, True):
            extents = told(child, whole_object=whole)
            assert extents == [(0, 1 << ORDER, True), (1 << ORDER, 1 << ORDER, True), (2 << ORDER, 100, True)]


def test_arguments(backend: Backend) -> None:
    with create(backend.ioctx(), "image") as image:
        for error, arguments in [
            (OverflowError, (-1, 1, None, print)),
            (OverflowError, (0, 2**64, None, print)),
            (OverflowError, (0, 1, None, print, 256)),
            (TypeError, (0, 1, None, print, None)),
            (TypeError, (0, 1, None, print, True, "x")),
            (TypeError, (0, 1, 1.5, print)),
        ]:
            with pytest.raises(error):
                image.diff_iterate(*arguments)  # type: ignore[arg-type]
    with pytest.raises(rbd.InvalidArgument, match="closed"):
        image.diff_iterate(0, 1, None, print)
