"""deep_copy: it keeps the rules of every clone, changes nobody's handle, and its copy tells of the same changes."""

import errno
import io as files
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import names, streams
from rbd_native.engine import run
from rbd_native.object_map import BitVector
from rbd_native.operations import clone, copy, create, deep_copy
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Progress
from rbd_native.rados.connect import port_for
from rbd_native.rados.faults import Faults
from rbd_native.rados.port import Exec, Io, RadosError
from rbd_native.rados.wrapper import Request, wrap
from rbd_native.streams.files import Source
from rbd_native.streams.importing import import_raw, import_with_snapshots
from tests.backend import Backend
from tests.image.test_copies import content, judge
from tests.stored import contents

SIZE = 4 << 14


def family(backend: Backend, ioctx: Any, *, protected: bool = False) -> None:
    """parent@s, and its clone of format 2."""
    images = rbd.RBD()
    images.create(ioctx, "parent", SIZE, order=14, features=61)
    with rbd.Image(ioctx, "parent") as parent:
        parent.write(b"p" * SIZE, 0)
        parent.create_snap("s")
        if protected:
            parent.protect_snap("s")
        parent.metadata_set("of", "parent")
    images.clone(ioctx, "parent", "s", ioctx, "clone", clone_format=2)
    with rbd.Image(ioctx, "clone") as image:
        image.metadata_remove("of")
        image.write(b"c" * 100, 5)


def refused(backend: Backend, ioctx: Any, error: type[rbd.Error], code: int, **how: Any) -> None:
    """Deep copies of the clone are, and nothing is made."""
    before = contents(backend.rados_module, ioctx)
    with rbd.Image(ioctx, "clone", read_only=True) as image:
        with pytest.raises(error) as caught:
            image.deep_copy(how.pop("dest", ioctx), "copy", **how)
        assert getattr(caught.value, "errno", None) == code
    assert contents(backend.rados_module, ioctx) == before


# --- the rules of clones ---------------------------------------------------------------------------------------------


def test_format_1_needs_a_protected_snapshot(backend: Backend) -> None:
    ioctx = backend.ioctx()
    family(backend, ioctx)
    refused(backend, ioctx, rbd.InvalidArgument, errno.EINVAL, clone_format=1)


def test_so_it_does_by_configuration(backend: Backend) -> None:
    ioctx = backend.ioctx(cluster=backend.connect(rbd_default_clone_format="1"))
    family(backend, ioctx)
    refused(backend, ioctx, rbd.InvalidArgument, errno.EINVAL)
    with rbd.Image(ioctx, "clone") as image:
        image.deep_copy(ioctx, "copy", clone_format=2)
    assert content(rbd, ioctx, "copy") == content(rbd, ioctx, "clone")


def test_an_unknown_format(backend: Backend) -> None:
    ioctx = backend.ioctx()
    family(backend, ioctx)
    refused(backend, ioctx, rbd.InvalidArgument, errno.EINVAL, clone_format=9)


def test_a_clone_needs_layering(backend: Backend) -> None:
    ioctx = backend.ioctx()
    family(backend, ioctx)
    refused(backend, ioctx, rbd.FunctionNotSupported, errno.ENOSYS, features=4, clone_format=2)


def test_format_1_stays_in_its_namespace(backend: Backend) -> None:
    ioctx = backend.ioctx()
    rbd.RBD().namespace_create(ioctx, "space")
    family(backend, ioctx, protected=True)
    other = backend.ioctx(namespace="space")
    refused(backend, ioctx, rbd.OSError, errno.EXDEV, clone_format=1, dest=other)
    assert list(rbd.RBD().list(other)) == []


def test_format_1_of_a_protected_snapshot(backend: Backend) -> None:
    """It is a clone like any other: the parent knows it, and what the parent has for its clones it has, too."""
    ioctx = backend.ioctx()
    family(backend, ioctx, protected=True)
    with rbd.Image(ioctx, "clone") as image:
        image.metadata_set("own", "yes")
        image.deep_copy(ioctx, "copy", clone_format=1)
    rbd.RBD().remove(ioctx, "clone")
    with rbd.Image(ioctx, "parent") as parent:
        parent.set_snap("s")
        assert list(parent.list_children()) == [(backend.pool, "copy")]
        parent.set_snap(None)
        with pytest.raises(rbd.ImageBusy):
            parent.unprotect_snap("s")
    with rbd.Image(ioctx, "copy") as copied:
        assert dict(copied.metadata_list()) == {"of": "parent", "own": "yes"}
        assert copied.parent_info() == (backend.pool, "parent", "s")
    judge(backend, "copy", {None: b"p" * 5 + b"c" * 100 + b"p" * (SIZE - 105)}, 61)


def test_protection_that_the_copy_could_not_have(backend: Backend) -> None:
    ioctx = backend.ioctx()
    family(backend, ioctx, protected=True)
    before = contents(backend.rados_module, ioctx)
    with rbd.Image(ioctx, "parent") as parent, pytest.raises(rbd.FunctionNotSupported):
        parent.deep_copy(ioctx, "copy", features=4)
    assert contents(backend.rados_module, ioctx) == before


# --- what fails leaves nothing ---------------------------------------------------------------------------------------

Verb = Callable[[Io], Coroutine[Any, Any, None]]


async def _open_and(io: Io, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    image = await open_image(io, name="clone", read_only=True)
    try:
        await work(image)
    finally:
        await image.close()


def verbs(stream: bytes) -> dict[str, Verb]:
    wish = create.Wish(0)
    return {
        "copy": lambda io: _open_and(io, lambda image: copy.copy(image, io, "new", wish)),
        "deep copy": lambda io: _open_and(io, lambda image: deep_copy.deep_copy(image, io, "new", wish)),
        "format 1": lambda io: _open_and(io, lambda image: deep_copy.deep_copy(image, io, "new", wish, clone_format=1)),
        "flat": lambda io: _open_and(io, lambda image: deep_copy.deep_copy(image, io, "new", wish, flatten=True)),
        "clone": lambda io: clone.clone(io, "parent", "s", io, "new", wish, 2),
        "clone of format 1": lambda io: clone.clone(io, "parent", "s", io, "new", wish, 1),
        "import": lambda io: import_raw(io, "new", Source(files.BytesIO(b"x" * 99999)), wish, Progress()),
        "import 2": lambda io: import_with_snapshots(io, "new", Source(files.BytesIO(stream)), wish, Progress()),
    }


def of_the_image(request: Request) -> bool:
    """What is done to it, but not to its lock: who cannot give that back keeps others from removing the image, too."""
    return request.kind == "write" and not any(isinstance(step, Exec) and step.cls == "lock" for step in request.steps)


@pytest.mark.parametrize("verb", verbs(b""))
def test_what_fails_leaves_nothing(backend: Backend, verb: str) -> None:
    """Whichever of its changes fails: either it goes on without it, or nothing is left of the new image."""
    ioctx = backend.ioctx()
    family(backend, ioctx, protected=True)
    with rbd.Image(ioctx, "clone") as image:
        image.create_snap("one")
        image.protect_snap("one")
        image.write(b"d" * 20000, 9)
        stream = files.BytesIO()
        streams.export_image(image, stream, export_format=2)
    work = verbs(stream.getvalue())[verb]
    before = left(backend, ioctx)
    at, done = 0, False
    while not done:
        faults = Faults(of_the_image)
        faults.fail(errno.EIO, at)
        raised = None
        try:
            run(work(wrap(port_for(ioctx), faults)))
        except RadosError as error:
            raised = error.errno
        done = faults.sent <= at
        if raised is None:
            rid(ioctx)
        assert left(backend, ioctx) == before, (at, raised)
        assert raised in (None, errno.EIO)
        at += 1 if backend.kind == "embedded" else 7
    assert at > 4


def left(backend: Backend, ioctx: Any) -> dict[str, dict[str, bytes]]:
    """All objects with what they list, but for those of the pool that list nothing."""
    kept = contents(backend.rados_module, ioctx)
    return {name: one.omap for name, one in kept.items() if one.omap or name.startswith(("rbd_data.", "rbd_id."))}


def rid(ioctx: Any) -> None:
    with rbd.Image(ioctx, "new") as image:
        for snap in list(image.list_snaps()):
            if image.is_protected_snap(snap["name"]):
                image.unprotect_snap(snap["name"])
            image.remove_snap(snap["name"])
    rbd.RBD().remove(ioctx, "new")


@pytest.mark.parametrize("verb", ["copy", "deep_copy"])
def test_who_ends_it_finds_nothing(backend: Backend, verb: str) -> None:
    ioctx = backend.ioctx()
    family(backend, ioctx)
    before = left(backend, ioctx)
    with rbd.Image(ioctx, "parent", read_only=True) as image, pytest.raises(rbd.Error) as caught:
        getattr(image, verb)(ioctx, "new", on_progress=lambda done, total: -errno.ECANCELED)
    assert getattr(caught.value, "errno", None) == errno.ECANCELED
    assert left(backend, ioctx) == before


# --- the caller's handle ---------------------------------------------------------------------------------------------


def test_others_use_the_handle_meanwhile(backend: Backend) -> None:
    """Reads see the present, and writes are accepted, at any moment of it."""
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "image", SIZE, order=14, features=61)
    seen: list[bytes] = []
    written: list[int] = []
    with rbd.Image(ioctx, "image") as image:
        image.write(b"o" * SIZE, 0)
        for number in range(3):
            image.create_snap(f"s{number}")
            image.write(b"%d" % number * 100, 0)
        asked: list[Any] = []

        def meanwhile(done: int, total: int) -> None:
            asked.append(image.aio_read(0, 100, lambda _, data: seen.append(data)))
            asked.append(image.aio_write(b"w", SIZE - 1, lambda completion: written.append(completion.get_return_value())))

        image.deep_copy(ioctx, "copy", on_progress=meanwhile)
        for completion in asked:
            completion.wait_for_complete_and_cb()
        assert len(seen) == len(written) >= 6
        assert set(seen) == {b"2" * 100}
        assert set(written) <= {0, 1}
        assert image.read(0, 100) == b"2" * 100
        image.write(b"x", 0)
    assert content(rbd, ioctx, "copy")["s1"] == b"0" * 100 + b"o" * (SIZE - 100)


# --- maps and changes ------------------------------------------------------------------------------------------------


def maps(ioctx: Any, name: str) -> dict[str | None, list[int]]:
    """By snapshot."""
    with rbd.Image(ioctx, name, read_only=True) as image:
        identifier = image.id()
        taken = {None: None, **{snap["name"]: snap["id"] for snap in image.list_snaps()}}
    found: dict[str | None, list[int]] = {}
    for snapshot, snap in taken.items():
        oid = names.object_map(identifier, snap)
        bits = BitVector.decode(ioctx.read(oid, 1 << 20))
        found[snapshot] = bits.unpack(0, len(bits)).tolist()
    return found


def must_be_true(backend: Backend, ioctx: Any, name: str) -> None:
    """The maps are those that are made anew from the objects themselves; librbd finds nothing either."""
    told = maps(ioctx, name)
    judge(backend, name, content(rbd, ioctx, name), 61)
    with rbd.Image(ioctx, name) as image:
        for snapshot in told:
            image.set_snap(snapshot)
            assert image.flags() == 0
            image.rebuild_object_map()
    assert maps(ioctx, name) == told


def diff(ioctx: Any, name: str, since: str | None, until: str | None) -> list[tuple[int, int, bool]]:
    found: list[tuple[int, int, bool]] = []
    with rbd.Image(ioctx, name, until, read_only=True) as image:
        image.diff_iterate(0, image.size(), since, lambda *extent: found.append(extent))
    return found


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"order": 20, "stripe_unit": 8192, "stripe_count": 3},
    {"order": 14, "stripe_unit": 1 << 14, "stripe_count": 1},
    {"order": 17, "stripe_unit": 4096, "stripe_count": 2},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_maps_and_changes(backend: Backend, layout: dict[str, Any]) -> None:
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "source", 200_000, order=16, features=61)
    with rbd.Image(ioctx, "source") as image:
        image.write(b"a" * 200_000, 0)
        image.create_snap("s1")
        image.write(b"b", 199_000)
        image.create_snap("s2")
        image.resize(65536)
        image.discard(0, 65536)
        image.create_snap("s3")
        image.write(b"c", 0)
        image.create_snap("s4")
        image.resize(150_000)
        image.write(b"d" * 10, 100_000)
        image.deep_copy(ioctx, "copy", features=61, **layout)
    assert content(rbd, ioctx, "copy") == content(rbd, ioctx, "source")
    assert diff(ioctx, "copy", "s1", "s2") == [(199_000, 1, True)]
    assert diff(ioctx, "copy", "s3", "s4") == [(0, 1, True)]
    assert sum(length for _, length, data in diff(ioctx, "copy", "s4", None) if data) >= 10
    must_be_true(backend, ioctx, "copy")


@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=str)
def test_nothing_stays_beyond_the_end(backend: Backend, layout: dict[str, Any]) -> None:
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "source", 200_000, order=14, features=1)
    with rbd.Image(ioctx, "source") as image:
        image.write(b"a" * 160_000, 40_000)
        image.create_snap("s1")
        image.discard(60_000, 100_000)
        image.create_snap("s2")
        image.resize(1)
        image.write(b"b", 0)
        image.deep_copy(ioctx, "copy", **layout)
    with rbd.Image(ioctx, "copy") as copied:
        prefix = copied.block_name_prefix()
        for snap in ("s1", "s2"):
            copied.remove_snap(snap)
    assert content(rbd, ioctx, "copy") == {None: b"b"}
    present = {entry.key for entry in ioctx.list_objects() if entry.key.startswith(prefix)}
    if backend.kind == "embedded":  # a real one lists what waits for the trimming of snapshots
        assert present == {f"{prefix}.{0:016x}"}


def grow(image: rbd.Image, rng: random.Random) -> None:
    """A few changes of every kind: single bytes, whole objects, zeros, sizes."""
    for _ in range(rng.randrange(6)):
        size = image.size()
        what = rng.randrange(10)
        if what == 9 or not size:
            image.resize(rng.choice((0, 1, 4096, 65536, 100_000, 200_000, 300_000)))
            continue
        offset = rng.randrange(size)
        if rng.random() < 0.4:
            offset -= offset % 4096
        length = min(rng.choice((1, 10, 512, 4096, 8192, 16384, 30_000, 65536, 200_000)), size - offset)
        if what < 5:
            zeros = rng.choice((0, 0, length, length // 2))
            image.write(rng.randbytes(length - zeros) + bytes(zeros), offset)
        elif what < 8:
            image.discard(offset, length)
        else:
            image.write_zeroes(offset, length)


@pytest.mark.parametrize("features", [1, 61])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_any_history(backend: Backend, seed: int, layout: dict[str, Any], features: int) -> None:
    rng = random.Random(seed)
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "source", 200_000, order=15, features=features)
    with rbd.Image(ioctx, "source") as image:
        for number in range(4):
            grow(image, rng)
            image.create_snap(f"s{number}")
        grow(image, rng)
        image.deep_copy(ioctx, "copy", **layout)
    assert content(rbd, ioctx, "copy") == content(rbd, ioctx, "source")
    snaps: list[str | None] = [None, *(f"s{number}" for number in range(4))]
    for place, since in enumerate(snaps):
        for until in [*snaps[place + 1 :], None] if not layout else []:
            assert diff(ioctx, "copy", since, until) == diff(ioctx, "source", since, until), (since, until)
    if features == 61:
        must_be_true(backend, ioctx, "copy")
