"""How long the exclusive lock takes from hand to hand: `python -m benchmarks.pingpong [ROUNDS]`.

Two handles of one image with the default features write in turn, so that each write has to wait for the lock. The pairs
are librbd with librbd, ours with librbd, and ours with ours, each in turns on one cluster; the time is that of a write,
the cache of librbd is off. Prints medians and their ratio to librbd among itself.
"""

import statistics
import sys
import time
from typing import Any

import rbd as librbd

import rbd_native
from tests.cluster import CephCluster

PAIRS = {
    "librbd, librbd": (librbd, librbd),
    "ours, librbd": (rbd_native, librbd),
    "ours, ours": (rbd_native, rbd_native),
}
BATCH = 20


def play(images: tuple[Any, Any], rounds: int) -> list[float]:
    """Seconds of each write that had to wait for the lock."""
    took = []
    for turn in range(rounds):
        for image in images:
            began = time.perf_counter()
            image.write(b"x" * 4096, turn * 4096)
            took.append(time.perf_counter() - began)
    return took[2:]


def main(rounds: int) -> None:
    with CephCluster() as ceph:
        ceph.create_pool("pingpong")
        ioctxs = [ceph.rados(rbd_cache="false").open_ioctx("pingpong") for _ in range(2)]
        took: dict[str, list[float]] = {pair: [] for pair in PAIRS}
        for number in range(rounds // BATCH):
            for pair, modules in PAIRS.items():
                name = f"{pair} {number}"
                librbd.RBD().create(ioctxs[0], name, 64 << 20)
                images = [module.Image(ioctx, name) for module, ioctx in zip(modules, ioctxs, strict=True)]
                took[pair] += play((images[0], images[1]), BATCH)
                for image in images:
                    image.close()
        floor = statistics.median(took["librbd, librbd"])
        for pair, seconds in took.items():
            median = statistics.median(seconds)
            print(f"{pair:16} {median * 1e3:7.2f} ms   {median / floor:5.2f} of librbd among itself")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
