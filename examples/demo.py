"""A file system in an RBD image, without Ceph: `python examples/demo.py [DIRECTORY]`.

A RADOS cluster in one file is made, an image is created on it, and a real ext4 file system, made by mke2fs
with some files in it, is written into the image. Then everything is closed, opened again, read back and
compared; and e2fsck and debugfs have the last word on what came back.
"""

import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rbd_native as rbd
from rbd_native import embedded as rados

SIZE = 64 << 20
CHUNK = 1 << 20
POOL, IMAGE = "rbd", "disk"
GREETING = "This file was read from a file system in an RBD image.\n"


def main(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    original, copy, cluster = directory / "original.ext4", directory / "copy.ext4", directory / "cluster"

    files = make_file_system(original, directory / "files")
    told(f"made {original}: ext4, {SIZE >> 20} MiB, with {files} files")

    began = time.perf_counter()
    with pool_of(cluster) as ioctx:
        rbd.RBD().create(ioctx, IMAGE, SIZE)
        with rbd.Image(ioctx, IMAGE) as image:
            written = write(image, original)
    told(f"created {POOL}/{IMAGE} on {cluster}, wrote {written >> 20} MiB that are not zeros{since(began)}")

    began = time.perf_counter()
    with pool_of(cluster) as ioctx:
        told(f"opened it again: the pool has {rbd.RBD().list(ioctx)}")
        with rbd.Image(ioctx, IMAGE, read_only=True) as image:
            read(image, copy)
    told(f"read all of it back into {copy}{since(began)}")

    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (original, copy)]
    if sums[0] != sums[1]:
        raise SystemExit(f"the copy differs: {sums}")
    told(f"sha256 of both: {sums[0]}")
    run("e2fsck", "-fn", str(copy))
    told("e2fsck finds the copy clean")
    if run("debugfs", "-R", "cat /greeting", str(copy)) != GREETING:
        raise SystemExit("the file in the copy has another content")
    told(f"and /greeting in it says: {GREETING.strip()}")

    print(f"\nNow try it yourself:\n{SUGGESTION.format(cluster=cluster.resolve())}")


SUGGESTION = """
    .venv/bin/python
    >>> import rbd_native as rbd
    >>> from rbd_native import embedded as rados
    >>> cluster = rados.Rados(conf={{"embedded_path": "{cluster}"}}); cluster.connect()
    >>> ioctx = cluster.open_ioctx("rbd")
    >>> image = rbd.Image(ioctx, "disk")
    >>> image.stat()
    >>> image.read(0x438, 2)     # the magic number of ext4, 0xEF53

On a machine with a Ceph cluster, `import rados` and `rados.Rados(conffile="/etc/ceph/ceph.conf")` instead: what follows
stays as it is."""


def make_file_system(image: Path, files: Path) -> int:
    """An ext4 file system in a file, with some files in it; their number."""
    (files / "deep" / "er").mkdir(parents=True)
    (files / "greeting").write_text(GREETING)
    (files / "deep" / "er" / "random").write_bytes(random.Random(0).randbytes(3_000_000))
    for number in range(100):
        (files / "deep" / f"{number}.txt").write_text(f"{number}\n" * number)
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    run("mke2fs", "-q", "-t", "ext4", "-d", str(files), str(image))
    return sum(path.is_file() for path in files.rglob("*"))


@contextmanager
def pool_of(path: Path) -> Iterator[rados.Ioctx]:
    """An ioctx of the pool, of a cluster in a file (made where it is missing) that is open only as long as this."""
    with (
        rados.Cluster(path) as shared,
        rados.Rados(cluster=shared) as client,
        client.open_ioctx(POOL) as ioctx,
    ):
        yield ioctx


def write(image: rbd.Image, source: Path) -> int:
    """Write a file to an image, but for its zeros, which a new image has anyway; the bytes written."""
    written = 0
    with source.open("rb") as stream:
        for offset in range(0, SIZE, CHUNK):
            data = stream.read(CHUNK)
            if data.count(0) != len(data):
                written += image.write(data, offset)
    return written


def read(image: rbd.Image, target: Path) -> None:
    """Read all of an image into a file."""
    with target.open("wb") as stream:
        for offset in range(0, image.size(), CHUNK):
            stream.write(image.read(offset, CHUNK))


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def told(line: str) -> None:
    print(f"- {line}", flush=True)


def since(began: float) -> str:
    return f" ({time.perf_counter() - began:.2f} s)"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out"))
