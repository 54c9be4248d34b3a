"""`python -m benchmarks.memory`: the most memory that long operations take, beyond an interpreter with an image open.

Each is done by a process of its own to a full image, on a cluster started for it; librbd does the same beside it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.subjects import NO_COMPRESSION, ORDER
from tests.cluster import CephCluster, ensure_packages

MIB = 1 << 20
POOL = "bench"
OPERATIONS = ("export", "import", "copy", "deep_copy", "flatten")


def work(client: str, conf: str, operation: str, scratch: str) -> int:
    """In the process that is measured: bytes beyond what it had before."""
    import rados

    module: Any = __import__("rbd" if client == "librbd" else "rbd_native")
    cluster = rados.Rados(conffile=conf)
    cluster.connect()
    ioctx = cluster.open_ioctx(POOL)
    name, path, new = "full", Path(scratch) / "export", f"{operation}-{client}"
    with module.Image(ioctx, name, read_only=True) as image:
        image.read(0, 1)
        before = _peak()
        if operation in ("copy", "deep_copy"):
            getattr(image, operation)(ioctx, new)
        elif operation == "export":
            from rbd_native import streams

            with path.open("wb") as file:
                streams.export_image(image, file)
        elif operation == "import":
            from rbd_native import streams

            with path.open("rb") as file:
                streams.import_image(ioctx, new, file)
        else:
            module.RBD().clone(ioctx, name, "snap", ioctx, new, features=61)
            with module.Image(ioctx, new) as child:
                child.flatten()
    return _peak() - before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def closing_client(ceph: CephCluster) -> Iterator[Any]:
    """An ioctx of a client of its own."""
    cluster = ceph.rados()
    try:
        with cluster.open_ioctx(POOL) as ioctx:
            yield ioctx
    finally:
        cluster.shutdown()


def _clear(ceph: CephCluster, name: str) -> None:
    """What an operation has made."""
    import rbd_native

    with closing_client(ceph) as ioctx:
        if name not in rbd_native.RBD().list(ioctx):
            return
        with rbd_native.Image(ioctx, name) as image:
            for snap in list(image.list_snaps()):
                if image.is_protected_snap(snap["name"]):
                    image.unprotect_snap(snap["name"])
                image.remove_snap(snap["name"])
        rbd_native.RBD().remove(ioctx, name)


def _fill(ceph: CephCluster, size: int) -> None:
    import rbd_native

    with closing_client(ceph) as ioctx:
        rbd_native.RBD().create(ioctx, "full", size, order=ORDER, features=61)
        with rbd_native.Image(ioctx, "full") as image:
            for offset in range(0, size, 1 << ORDER):
                image.write(NO_COMPRESSION, offset)
            image.create_snap("snap")
            image.protect_snap("snap")


@click.command()
@click.option("--size", default=1024, show_default=True, help="Of the image, in MiB.")
def main(size: int) -> None:
    """Print how many MiB each operation took at most."""
    ensure_packages()
    with CephCluster() as ceph, tempfile.TemporaryDirectory() as scratch:
        ceph.create_pool(POOL)
        _fill(ceph, size * MIB)
        click.echo(f"{'MiB at most':12}  rbd_native  librbd")
        for operation in OPERATIONS:
            row = []
            for client in ("rbd_native", "librbd"):
                if client == "librbd" and operation in ("export", "import"):  # those are no methods of its binding
                    row.append("")
                    continue
                job = json.dumps([client, str(ceph.conf), operation, scratch])
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.memory", job], check=True, capture_output=True, text=True
                )
                row.append(f"{int(done.stdout) / MIB:.0f}")
                _clear(ceph, f"{operation}-{client}")
            click.echo(f"{operation:12}  {row[0]:>10}  {row[1]:>6}")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        print(work(*json.loads(sys.argv[1])))
    else:
        main()
