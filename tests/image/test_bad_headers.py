"""Headers of format 2 images that say what cannot be: absurd numbers, parents that are not, or in a circle.

Some images cannot be opened: then nothing is changed. With the others whatever is done asks little of the cluster, in
little memory, well or
with an error of this library; or it has to walk through all of what the image says it is: then a callback can end it.
"""

import contextlib
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import embedded
from tests.backend import embedded_client
from tests.bad_headers import BORNE, MIB, REFUSED, U64, Header
from tests.labour import Labour
from tests.stored import contents

MEMORY = 1 << 30
MOST = 70_000
"""What one verb may ask of the cluster: each object once of the widest object set, which has 65,536, and a little more."""
ENDLESS = [case for case in BORNE if any(word in case for word in ("2**", "greatest", "of all", "overlap and"))]
"""They have no end to walk to."""


class Stop(Exception):
    """What a callback raises."""


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def ioctx() -> Iterator[Any]:
    """Of a cluster with an image, a clone of it, and a snapshot of either."""
    with embedded_client(rbd_atime_update_interval="0") as client, client.open_ioctx("rbd") as ioctx:
        rbd.RBD().create(ioctx, "parent", MIB, 16, features=61)
        with rbd.Image(ioctx, "parent") as image:
            image.write(b"parent" * 50_000, 0)
            image.create_snap("s")
            image.protect_snap("s")
        rbd.RBD().clone(ioctx, "parent", "s", ioctx, "image", features=61)
        with rbd.Image(ioctx, "image") as image:
            image.write(b"image" * 20_000, 0)
            image.create_snap("s")
            image.write(b"later", 0)
        yield ioctx


def header_of(ioctx: Any, name: str = "image") -> Header:
    (identifier,) = (row["id"] for row in rbd.RBD().list2(ioctx) if row["name"] == name)
    return Header(embedded, ioctx, identifier)


Verb = Callable[[Any], Any]


def opened(do: Callable[..., Any], *, also_pool: bool = False, **how: Any) -> Verb:
    """`also_pool`: it takes the ioctx too."""

    def verb(ioctx: Any) -> None:
        with rbd.Image(ioctx, "image", **how) as image:
            do(*((image, ioctx) if also_pool else (image,)))

    return verb


def hear(*extent: Any) -> None:
    """A callback."""


def stop(*extent: Any) -> None:
    raise Stop


def diff(image: rbd.Image, since: str | None, whole: bool, end: int = U64, tell: Any = hear) -> None:
    image.diff_iterate(0, min(image.size(), end), since, tell, whole_object=whole)


def at_its_end(image: rbd.Image) -> None:
    end = max(image.size() - 10, 0)
    image.read(end, 10)
    image.write(b"0123456789", end)
    image.discard(max(image.size() - MIB, 0), MIB)


def at_the_snapshot(image: rbd.Image) -> None:
    image.set_snap("s")
    image.stat()
    image.read(0, 100)
    diff(image, None, whole=False, end=MIB)


READING: list[Verb] = [
    lambda ioctx: rbd.RBD().list2(ioctx),
    *(opened(look) for look in (rbd.Image.stat, rbd.Image.overlap, rbd.Image.parent_info, rbd.Image.flags)),
    opened(lambda image: list(image.list_snaps())),
    opened(lambda image: list(image.list_children())),
    opened(lambda image: list(image.list_descendants())),
    opened(lambda image: image.read(0, 100_000)),
    opened(lambda image: image.read(0, 100_000), read_only=True),
    opened(partial(diff, since=None, whole=False, end=MIB)),
    opened(partial(diff, since=None, whole=True, end=MIB)),
    opened(partial(diff, since="s", whole=False, end=MIB)),
    opened(at_the_snapshot),
]
WRITING: list[Verb] = [
    opened(at_its_end),
    opened(lambda image: image.write(b"x" * 1000, 65_000)),
    opened(lambda image: image.discard(0, MIB)),
    opened(lambda image: image.write_zeroes(0, 300_000)),
    opened(lambda image: image.create_snap("new")),
    opened(lambda image: image.remove_snap("new")),
    opened(lambda image: image.resize(min(image.size() + MIB, U64))),
    opened(lambda image: image.resize(max(image.size() - 2 * MIB, 0))),
    opened(lambda image: image.sparsify(4096)),
    opened(lambda image: image.rebuild_object_map()),
    opened(lambda image: image.update_features(rbd.RBD_FEATURE_OBJECT_MAP, False)),
    opened(lambda image: image.update_features(rbd.RBD_FEATURE_OBJECT_MAP, True)),
]
WALKING: list[Verb] = [
    opened(partial(diff, since=None, whole=False)),
    opened(partial(diff, since="s", whole=False)),
    opened(partial(diff, since=None, whole=True)),
    opened(lambda image, ioctx: image.copy(ioctx, "copy"), also_pool=True),
    opened(lambda image, ioctx: image.deep_copy(ioctx, "deep"), also_pool=True),
    opened(lambda image: image.flatten()),
    opened(lambda image: image.rollback_to_snap("s")),
]
ENDING: list[Verb] = [
    opened(lambda image: image.resize(4096)),
    opened(lambda image: image.remove_snap("s")),
    lambda ioctx: rbd.RBD().trash_move(ioctx, "image"),
    lambda ioctx: rbd.RBD().trash_restore(ioctx, "".join(row["id"] for row in rbd.RBD().trash_list(ioctx)), "image"),
    lambda ioctx: rbd.RBD().remove(ioctx, "image"),
]


@pytest.mark.parametrize("case", REFUSED)
def test_refused(ioctx: Any, case: str) -> None:
    code, spoil = REFUSED[case]
    spoil(header_of(ioctx))
    before = contents(embedded, ioctx)
    for verb in (*READING[1:], *WRITING, *WALKING, *ENDING[:2]):
        with pytest.raises(rbd.OSError) as caught:
            verb(Labour(MOST).watched(ioctx))
        assert caught.value.errno == code
    assert contents(embedded, ioctx) == before


@pytest.mark.parametrize("case", BORNE)
def test_borne(ioctx: Any, case: str) -> None:
    header = header_of(ioctx)
    BORNE[case](header)
    before = contents(embedded, ioctx)
    for verb in READING:
        ends(verb, ioctx)
    assert contents(embedded, ioctx) == before
    for since in (None, "s"):
        with contextlib.suppress(Stop):
            ends(opened(partial(diff, since=since, whole=False, tell=stop)), ioctx)
    for verb in () if case in ENDLESS else WALKING:
        ends(verb, ioctx)
    for verb in WRITING:
        ends(verb, ioctx)
    with contextlib.suppress(KeyError):  # it has no parent any more
        BORNE[case](header)
    for verb in ENDING:
        ends(verb, ioctx)


def ends(verb: Verb, ioctx: Any) -> None:
    labour = Labour(MOST)
    with contextlib.suppress(rbd.Error):
        verb(labour.watched(ioctx))
