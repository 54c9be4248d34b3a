"""What random families meet too seldom, one case after the other, by every library and read back by every one."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import rbd as librbd

import rbd_native
from tests.backend import Backend

OBJECT = 1 << 16
SIZE = 8 * OBJECT
DEEP, SHALLOW, PLAIN = 61, 29, 1

Library = tuple[Any, Any]  # module, ioctx


@pytest.fixture
def libraries(backend: Backend) -> list[Library]:
    """Ours, and on a real cluster librbd's, each with a client of its own."""
    modules = [rbd_native, librbd] if backend.kind == "ceph" else [rbd_native]
    clients = [(module, backend.connect()) for module in modules]
    for _, client in clients:
        client.conf_set("rbd_default_clone_format", "2")
    return [(module, backend.ioctx(cluster=client)) for module, client in clients]


@pytest.fixture
def turns(libraries: list[Library]) -> Iterator[Library]:
    return itertools.cycle(libraries)


def pattern(letter: bytes, size: int = SIZE) -> bytes:
    return letter * size


def raise_clone(library: Library, features: int, data: bytes | None = None) -> None:
    """parent@s, of which child is a clone."""
    module, ioctx = library
    content = pattern(b"p") if data is None else data
    module.RBD().create(ioctx, "parent", len(content), order=16, old_format=False, features=features)
    with module.Image(ioctx, "parent") as parent:
        parent.write(content, 0)
        parent.create_snap("s")
    module.RBD().clone(ioctx, "parent", "s", ioctx, "child", features=features)


def do(library: Library, method: str, *arguments: Any) -> None:
    module, ioctx = library
    with module.Image(ioctx, "child") as image:
        getattr(image, method)(*arguments)


def must_be(libraries: list[Library], head: bytes, **snapshots: bytes) -> None:
    for module, ioctx in libraries:
        with module.Image(ioctx, "child", read_only=True) as image:
            assert image.read(0, image.size()) == head, module.__name__
            for name, data in snapshots.items():
                image.set_snap(name)
                assert image.read(0, image.size()) == data, (module.__name__, name)


@pytest.mark.parametrize("features", [DEEP, SHALLOW, PLAIN])
def test_shrunk_and_grown_again(libraries: list[Library], turns: Iterator[Library], features: int) -> None:
    """The wide snapshot keeps the parent's data; neither the head nor a later snapshot gets it back by any write."""
    raise_clone(next(turns), features)
    do(next(turns), "create_snap", "wide")
    do(next(turns), "resize", 2 * OBJECT + 100)
    do(next(turns), "resize", SIZE)
    do(next(turns), "create_snap", "narrow")
    narrow = pattern(b"p", 2 * OBJECT + 100) + bytes(SIZE - 2 * OBJECT - 100)
    must_be(libraries, narrow, wide=pattern(b"p"), narrow=narrow)
    head = bytearray(narrow)
    for offset in (10, 2 * OBJECT + 50, 2 * OBJECT + 5000, 5 * OBJECT + 10):
        do(next(turns), "write", b"x" * 20, offset)
        head[offset : offset + 20] = b"x" * 20
    must_be(libraries, bytes(head), wide=pattern(b"p"), narrow=narrow)
    do(next(turns), "flatten")
    must_be(libraries, bytes(head), wide=pattern(b"p"), narrow=narrow)
    do(next(turns), "remove_snap", "narrow")
    do(next(turns), "rollback_to_snap", "wide")
    must_be(libraries, pattern(b"p"), wide=pattern(b"p"))


@pytest.mark.parametrize("features", [DEEP, SHALLOW, PLAIN])
@pytest.mark.parametrize("first", [0, 1])
def test_flattened_with_snapshots(libraries: list[Library], features: int, first: int) -> None:
    """Whether flattening was deep or not, and though the parent is gone where it was, snapshots keep its data."""
    turns = itertools.cycle(libraries[first % len(libraries) :] + libraries[: first % len(libraries)])
    raise_clone(next(turns), features)
    do(next(turns), "create_snap", "before")
    do(next(turns), "write", b"x" * 10, 0)
    do(next(turns), "discard", OBJECT, OBJECT)
    do(next(turns), "write_zeroes", 2 * OBJECT + 10, 10)
    do(next(turns), "resize", 6 * OBJECT)
    head = bytearray(pattern(b"p", 6 * OBJECT))
    head[:10] = b"x" * 10
    head[OBJECT : 2 * OBJECT] = bytes(OBJECT)
    head[2 * OBJECT + 10 : 2 * OBJECT + 20] = bytes(10)
    do(next(turns), "flatten")
    must_be(libraries, bytes(head), before=pattern(b"p"))
    module, ioctx = next(turns)
    if features == DEEP:
        with module.Image(ioctx, "parent") as parent:
            parent.remove_snap("s")
            assert list(parent.list_snaps()) == []
        module.RBD().remove(ioctx, "parent")
    must_be(libraries, bytes(head), before=pattern(b"p"))
    do(next(turns), "rollback_to_snap", "before")
    must_be(libraries, pattern(b"p"), before=pattern(b"p"))


@pytest.mark.parametrize("features", [DEEP, PLAIN])
def test_parent_removed_under_open_clones(libraries: list[Library], turns: Iterator[Library], features: int) -> None:
    """Its snapshot goes to the trash while clones are open, and away with the last of them; open handles go on."""
    raise_clone(next(turns), features)
    images = [module.Image(ioctx, "child") for module, ioctx in libraries]
    module, ioctx = next(turns)
    with module.Image(ioctx, "parent") as parent:
        parent.remove_snap("s")
        parent.write(pattern(b"n"), 0)
        assert len(list(parent.list_snaps())) == 1
    assert all(image.read(0, SIZE) == pattern(b"p") for image in images)
    images[0].flatten()
    for image in images:
        assert image.overlap() == 0
        assert image.read(0, SIZE) == pattern(b"p")
        image.close()
    with module.Image(ioctx, "parent") as parent:
        assert list(parent.list_snaps()) == []
    must_be(libraries, pattern(b"p"))


@pytest.mark.parametrize("features", [DEEP, PLAIN])
@pytest.mark.parametrize("snapshot", [False, True])
def test_many_threads_and_one_missing_object(libraries: list[Library], features: int, snapshot: bool) -> None:
    """Eight threads write to parts of the same objects, none of which is there: all of it arrives, on the parent's data."""
    raise_clone(libraries[0], features)
    if snapshot:
        do(libraries[0], "create_snap", "before")
    module, ioctx = libraries[0]
    head = bytearray(pattern(b"p"))
    with module.Image(ioctx, "child") as image:
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for base in range(0, SIZE, OBJECT):
                    image.write(bytes([65 + number]) * 100, base + 1000 * number)
                    image.write_zeroes(base + 1000 * number + 200, 100)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
    for base, number in itertools.product(range(0, SIZE, OBJECT), range(8)):
        at = base + 1000 * number
        head[at : at + 100] = bytes([65 + number]) * 100
        head[at + 200 : at + 300] = bytes(100)
    must_be(libraries, bytes(head), **({"before": pattern(b"p")} if snapshot else {}))


def test_a_clone_of_a_removed_snapshot_is_let_go(libraries: list[Library], turns: Iterator[Library]) -> None:
    """Flattened without deep-flatten, it is bound by its snapshot alone, and parts from the parent with that."""
    raise_clone(next(turns), SHALLOW)
    do(next(turns), "create_snap", "before")
    do(next(turns), "flatten")
    module, ioctx = next(turns)
    with module.Image(ioctx, "parent") as parent:
        assert len(list(parent.list_children2())) == 1
        parent.remove_snap("s")
        assert len(list(parent.list_snaps())) == 1
    do(libraries[0], "remove_snap", "before")
    with module.Image(ioctx, "parent") as parent:
        assert list(parent.list_snaps()) == []
    must_be(libraries, pattern(b"p"))
