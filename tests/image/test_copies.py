"""copy and deep_copy: the same bytes, the same snapshots, holes kept; librbd agrees where it can look."""

import random
from typing import Any

import pytest

import rbd_native as rbd
from tests.backend import Backend

SIZE = 1 << 20
LAYOUTS = [
    {"features": 1, "order": 14},
    {"features": 61, "order": 14},
    {"features": 1, "order": 14, "stripe_unit": 4096, "stripe_count": 3},
]


def grow(image: rbd.Image, rng: random.Random) -> None:
    """Some of everything that changes an image."""
    for _ in range(6):
        size = image.size()
        if not size:
            image.resize(SIZE)
            continue
        offset = rng.randrange(size)
        length = min(rng.choice((1, 500, 4096, 30_000, 200_000)), size - offset)
        match rng.randrange(6):
            case 0 | 1 | 2:
                image.write(rng.randbytes(length), offset)
            case 3:
                image.discard(offset, length)
            case 4:
                image.write_zeroes(offset, length)
            case 5:
                image.resize(rng.randrange(SIZE // 2, SIZE * 2))


def history(image: rbd.Image, rng: random.Random, snapshots: int) -> dict[str | None, bytes]:
    """Content by snapshot name; None is the present."""
    seen: dict[str | None, bytes] = {}
    for number in range(snapshots):
        grow(image, rng)
        image.create_snap(f"s{number}")
        seen[f"s{number}"] = image.read(0, image.size())
    grow(image, rng)
    seen[None] = image.read(0, image.size())
    return seen


def content(module: Any, ioctx: Any, name: str) -> dict[str | None, bytes]:
    found: dict[str | None, bytes] = {}
    with module.Image(ioctx, name) as image:
        for snapshot in [None, *(snap["name"] for snap in image.list_snaps())]:
            image.set_snap(snapshot)
            found[snapshot] = image.read(0, image.size())
    return found


def judge(backend: Backend, name: str, expected: dict[str | None, bytes], features: int) -> None:
    """What librbd sees, and whether it finds the object maps true."""
    if backend.cli is None:
        return
    import rbd as librbd

    ioctx = backend.ioctx(cluster=backend.connect())
    assert content(librbd, ioctx, name) == expected
    if features & rbd.RBD_FEATURE_OBJECT_MAP:
        for snapshot in expected:
            spec = f"{backend.pool}/{name}" + (f"@{snapshot}" if snapshot else "")
            backend.cli("rbd", "object-map", "check", "--no-progress", spec)
        with librbd.Image(ioctx, name) as image:
            assert image.flags() == 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
@pytest.mark.parametrize("seed", range(2))
def test_deep_copy(backend: Backend, layout: dict[str, Any], seed: int) -> None:
    rng = random.Random(seed)
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "source", SIZE, **layout)
    with rbd.Image(ioctx, "source") as source:
        expected = history(source, rng, 3)
        source.protect_snap("s1")
        source.deep_copy(ioctx, "target")
        source.deep_copy(ioctx, "other", features=61, order=16)
        source.set_snap("s1")
        source.deep_copy(ioctx, "early")
    for name, features in (("target", layout["features"]), ("other", 61)):
        assert content(rbd, ioctx, name) == expected
        judge(backend, name, expected, features)
    early = {name: expected[name] for name in ("s0", "s1")} | {None: expected["s1"]}
    assert content(rbd, ioctx, "early") == early
    with rbd.Image(ioctx, "target") as target:
        assert target.is_protected_snap("s1")
        assert not target.is_protected_snap("s0")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_copy(backend: Backend, layout: dict[str, int]) -> None:
    rng = random.Random(7)
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "source", SIZE, **layout)  # type: ignore[arg-type]
    with rbd.Image(ioctx, "source") as source:
        expected = history(source, rng, 2)
        source.metadata_set("who", "me")
        done: list[tuple[int, int]] = []
        source.copy(ioctx, "target", on_progress=lambda at, total: done.append((at, total)))
        source.set_snap("s0")
        source.copy(ioctx, "early", features=61, order=13, stripe_unit=8192, stripe_count=1)
    assert done
    assert content(rbd, ioctx, "target") == {None: expected[None]}
    assert content(rbd, ioctx, "early") == {None: expected["s0"]}
    judge(backend, "target", {None: expected[None]}, layout["features"])
    judge(backend, "early", {None: expected["s0"]}, 61)
    with rbd.Image(ioctx, "target") as target:
        assert target.metadata_get("who") == "me"


def test_holes_stay_holes(backend: Backend) -> None:
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "source", 64 << 14, order=14, features=1)
    with rbd.Image(ioctx, "source") as source:
        source.write(b"x" * (1 << 14), 5 << 14)
        source.write(bytes(1 << 14), 6 << 14)
        source.copy(ioctx, "target")
    with rbd.Image(ioctx, "target", read_only=True) as target:
        prefix = target.block_name_prefix()
    held = [entry.key for entry in ioctx.list_objects() if entry.key.startswith(prefix)]
    assert held == [f"{prefix}.{5:016x}"]


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("features", [1, 61])
def test_deep_copy_of_a_clone(backend: Backend, features: int, flatten: bool) -> None:
    rng = random.Random(3)
    ioctx = backend.ioctx()
    images = rbd.RBD()
    images.create(ioctx, "parent", SIZE, order=14, features=features)
    with rbd.Image(ioctx, "parent") as parent:
        parent.write(rng.randbytes(SIZE), 0)
        parent.create_snap("base")
        parent.protect_snap("base")
    images.clone(ioctx, "parent", "base", ioctx, "child", features=features)
    with rbd.Image(ioctx, "child") as child:
        expected = history(child, rng, 2)
        child.deep_copy(ioctx, "target", flatten=flatten)
    assert content(rbd, ioctx, "target") == expected
    judge(backend, "target", expected, features)
    with rbd.Image(ioctx, "target") as target:
        if flatten:
            with pytest.raises(rbd.ImageNotFound):
                target.parent_info()
        else:
            assert target.parent_info() == (backend.pool, "parent", "base")


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("features", [1, 61])
def test_zeros_that_hide_what_the_parent_has(backend: Backend, features: int, flatten: bool) -> None:
    """In an object that the clone got after its first snapshot, at which the parent's data was to be seen."""
    ioctx = backend.ioctx()
    images = rbd.RBD()
    images.create(ioctx, "parent", 4 << 14, order=14, features=features)
    with rbd.Image(ioctx, "parent") as parent:
        parent.write(b"p" * (4 << 14), 0)
        parent.create_snap("base")
        parent.protect_snap("base")
    images.clone(ioctx, "parent", "base", ioctx, "child", features=features)
    with rbd.Image(ioctx, "child") as child:
        child.create_snap("s")
        child.write_zeroes(0, 8192)
        child.write_zeroes(1 << 14, 1 << 14)
        child.deep_copy(ioctx, "target", flatten=flatten)
    before, after = b"p" * (4 << 14), bytes(8192) + b"p" * 8192 + bytes(1 << 14) + b"p" * (2 << 14)
    assert content(rbd, ioctx, "target") == {None: after, "s": before}
    judge(backend, "target", {None: after, "s": before}, features)


def test_refusals(backend: Backend) -> None:
    ioctx = backend.ioctx()
    rbd.RBD().create(ioctx, "source", SIZE, features=1)
    with rbd.Image(ioctx, "source", read_only=True) as source:
        for verb in (source.copy, source.deep_copy):
            with pytest.raises(rbd.ImageExists):
                verb(ioctx, "source")
            with pytest.raises(rbd.InvalidArgument):
                verb(ioctx, "")
