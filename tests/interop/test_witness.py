"""A real file system goes in through one client and comes out through the other, bit for bit.

64 MiB of ext4, made by mke2fs with files in it: written by us, `rbd export` must give the same sha256; imported by `rbd`,
we must read the same.
"""

import hashlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rbd_native as rbd
from tests.cluster import CephCluster

SIZE = 64 << 20
PIECE = 4 << 20
STRIPED = {"stripe_unit": 64 << 10, "stripe_count": 4}
DEFAULT = 61


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ext4")
    files = root / "files"
    files.mkdir()
    rng = random.Random(1)
    for number in range(60):
        (files / f"file{number}").write_bytes(rng.randbytes(rng.randrange(700_000)))
    program = shutil.which("mke2fs", path="/sbin:/usr/sbin:/usr/bin:/bin")
    assert program, "mke2fs is needed"
    image = root / "image.ext4"
    command = [program, "-q", "-t", "ext4", "-d", str(files), str(image), f"{SIZE >> 20}M"]
    subprocess.run(command, check=True, timeout=60)
    return image


@pytest.fixture
def data_pool(ceph: CephCluster, pool: str) -> Iterator[str]:
    name = f"{pool}-data"
    ceph.create_pool(name)
    yield name
    ceph.remove_pool(name)


LAYOUTS = [
    pytest.param({"features": 1}, id="layering"),
    pytest.param({"features": 1 | 2, **STRIPED}, id="striped"),
    pytest.param({"features": 1, "data_pool": True}, id="data-pool"),
    pytest.param({"features": 1, "order": 12}, id="order-12"),
    pytest.param({"features": 1, "order": 25}, id="order-25"),
    pytest.param({"features": DEFAULT}, id="default-features"),
    pytest.param({"features": DEFAULT | 2, "order": 20, **STRIPED}, id="all"),
]


def pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        offset = 0
        while piece := file.read(PIECE):
            yield offset, piece
            offset += len(piece)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ours_then_export(
    ceph: CephCluster, pool: str, ioctx: Any, data_pool: str, ext4: Path, tmp_path: Path, layout: dict[str, Any]
) -> None:
    options = layout | ({"data_pool": data_pool} if "data_pool" in layout else {})
    rbd.RBD().create(ioctx, "disk", SIZE, **options)
    with rbd.Image(ioctx, "disk") as image:
        for offset, piece in pieces(ext4):
            if piece.strip(b"\0"):
                assert image.write(piece, offset) == len(piece)
    copy = tmp_path / "copy"
    ceph.cli("rbd", "export", "--no-progress", f"{pool}/disk", str(copy))
    assert digest(copy) == digest(ext4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_import_then_ours(
    ceph: CephCluster, pool: str, ioctx: Any, data_pool: str, ext4: Path, layout: dict[str, Any]
) -> None:
    arguments = [f"--object-size={1 << layout.get('order', 22)}B"]
    if "stripe_unit" in layout:
        arguments += [f"--stripe-unit={layout['stripe_unit']}B", f"--stripe-count={layout['stripe_count']}"]
    if "data_pool" in layout:
        arguments += ["--data-pool", data_pool]
    names = rbd.RBD().features_to_string(layout["features"] & ~2).split(",")
    arguments += [word for name in names for word in ("--image-feature", name)]
    ceph.cli("rbd", "import", "--no-progress", *arguments, str(ext4), f"{pool}/disk")
    found = hashlib.sha256()
    with rbd.Image(ioctx, "disk") as image:
        assert image.size() == SIZE
        for offset in range(0, SIZE, PIECE):
            found.update(image.read(offset, PIECE))
    assert found.hexdigest() == digest(ext4)
