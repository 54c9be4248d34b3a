"""`python -m benchmarks`: rbd_native beside librbd and RADOS itself, on a cluster started for it.

Every subject is measured in turn, case by case, several rounds, every other one in the opposite order; the table shows
medians, and what is written to the output every single figure. A ratio is the median of those of the rounds, each of two
figures taken one right after the other: the machine's speed drops out, as far as it lasts that long; beside it stand the
least and the largest. Absolute figures tell of the machine, and of its other work, more than of anything else.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.cases import IMAGES
from benchmarks.data import ALSO_ON_RADOS, CLONES, DATA, Bench, Case
from benchmarks.measure import Figure
from benchmarks.subjects import Images, Objects, Subject, tool
from tests.cluster import CephCluster, ensure_packages

OURS, LIBRBD, FLOOR = "rbd_native", "librbd", "rados"
IN_MEMORY, IN_FILE = "embedded, memory", "embedded, file"
POOL = "bench"


class Part(NamedTuple):
    """A table: what is measured of whom."""

    title: str
    cases: dict[str, Case]
    subjects: Callable[[], Any]


@contextmanager
def on_ceph(*, cached: bool) -> Iterator[list[Subject]]:
    """Each subject with a pool and a client of its own, on one cluster."""
    import rbd as librbd

    import rbd_native

    with CephCluster() as ceph:

        def pool_of_its_own(number: int) -> tuple[Any, Callable[[], None]]:
            ceph.create_pool(f"{POOL}-{number}", pg_num=32)
            client = ceph.rados(rbd_cache=str(cached).lower())
            return client.open_ioctx(f"{POOL}-{number}"), client.shutdown

        yield [
            Images(OURS, rbd_native, *pool_of_its_own(1)),
            Images(LIBRBD, librbd, *pool_of_its_own(2), pool=f"{POOL}-2", tool=tool(ceph.conf)),
            Objects(FLOOR, *pool_of_its_own(3)),
        ]


@contextmanager
def on_embedded() -> Iterator[list[Subject]]:
    """rbd_native on the embedded cluster, in memory and in a file."""
    import rbd_native
    from rbd_native import embedded

    def pool_of(cluster: Any) -> tuple[Any, Callable[[], None]]:
        client = embedded.Rados(cluster=cluster, conf={"rbd_cache": "false"})
        client.connect()
        client.create_pool(POOL)
        return client.open_ioctx(POOL), client.shutdown

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        memory = stack.enter_context(closing(embedded.Cluster()))
        file = stack.enter_context(closing(embedded.Cluster(directory / "cluster")))
        yield [
            Images(IN_MEMORY, rbd_native, *pool_of(memory)),
            Images(IN_FILE, rbd_native, *pool_of(file)),
        ]


PARTS = {
    "uncached": Part("without a cache (rbd_cache false)", DATA | CLONES, lambda: on_ceph(cached=False)),
    "cached": Part("with the cache, as it comes", DATA | CLONES, lambda: on_ceph(cached=True)),
    "images": Part("images (rbd_cache as it comes)", IMAGES, lambda: on_ceph(cached=True)),
    "embedded": Part("on the embedded cluster", DATA | CLONES | IMAGES, on_embedded),
}

Figures = dict[str, dict[str, list[Figure]]]  # case -> subject -> one a round


def measure(
    subjects: list[Subject], cases: dict[str, Case], size: int, seconds: float, rounds: int, scratch: Path
) -> Figures:
    figures: Figures = {case: {} for case in cases}
    with ExitStack() as stack:
        benches = [stack.enter_context(closing(Bench(subject, size, seconds, scratch))) for subject in subjects]
        for number in range(1, rounds + 1):
            click.echo(f"round {number} of {rounds}", err=True)
            for name, case in cases.items():
                for bench in benches if number % 2 else reversed(benches):
                    if bench.subject.rbd is not None or name in ALSO_ON_RADOS:
                        figures[name].setdefault(bench.subject.name, []).append(case(bench))
    return figures


def _shown(rate: float) -> str:
    return f"{rate:,.{0 if rate >= 100 else 1}f}"


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Of each round; none where only one of them was measured."""
    return [mine / other for mine, other in zip(ours, theirs, strict=False)]


def table(figures: Figures) -> str:
    """One row a case: the rate of each subject, and, where there are others, what ours is of theirs, round by round; and
    what RADOS itself is of librbd, which no client by way of librados can surpass by much."""
    subjects = list(dict.fromkeys(subject for row in figures.values() for subject in row))
    others = [subject for subject in subjects if OURS in subjects and subject != OURS]
    head = ["per second", *subjects]
    for other in others:
        head += [f"/ {other}", "from - to"]
    if LIBRBD in others:
        head.append("CPU / librbd")
    if LIBRBD in others and FLOOR in others:
        head.append(f"{FLOOR} / {LIBRBD}")
    rows = [head]
    for case, row in figures.items():
        rates = {subject: statistics.median(figure.rate for figure in found) for subject, found in row.items()}
        shown = [_shown(rates[subject]) if subject in row else "" for subject in subjects]
        for other in others:
            ratios = _ratios([f.rate for f in row[OURS]], [f.rate for f in row.get(other, ())])
            shown += [f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} - {max(ratios):.2f}"] if ratios else ["", ""]
        if LIBRBD in others:
            by_tool = case.startswith(("export", "import"))  # in another process
            cpu = _ratios([f.cpu for f in row[OURS]], [f.cpu for f in row[LIBRBD]])
            shown.append("" if by_tool else f"{statistics.median(cpu):.2f}")
        if LIBRBD in others and FLOOR in others:
            most = _ratios([f.rate for f in row.get(FLOOR, ())], [f.rate for f in row[LIBRBD]])
            shown.append(f"{statistics.median(most):.2f}" if most else "")
        rows.append([case, *shown])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in cells).rstrip()
        for cells in (enumerate(zip(row, widths, strict=True)) for row in rows)
    )


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
        "ceph": subprocess.run(["ceph", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
    }


@click.command()
@click.option("--size", default=256, show_default=True, help="Size of the images that are read and written, in MiB.")
@click.option("--seconds", default=0.5, show_default=True, help="Time for a case, in a round, of a subject.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; the tables show their medians.")
@click.option("--part", "wanted", multiple=True, type=click.Choice(list(PARTS)), help="Only these tables.")
@click.option("--case", "pattern", default="", help="Only the cases in whose names this regular expression is found.")
@click.option("--output", type=click.Path(path_type=Path), help="Write every figure to a file, as JSON.")
def main(
    size: int, seconds: float, rounds: int, wanted: tuple[str, ...], pattern: str, output: Path | None
) -> None:
    """Measure rbd_native beside librbd and RADOS itself, and on the embedded cluster."""
    ensure_packages()
    results: dict[str, Any] = {"environment": environment()}
    for name, part in PARTS.items():
        cases = {case: run for case, run in part.cases.items() if re.search(pattern, case)}
        if (wanted and name not in wanted) or not cases:
            continue
        with part.subjects() as subjects, tempfile.TemporaryDirectory() as scratch:
            figures = measure(subjects, cases, size << 20, seconds, rounds, Path(scratch))
        results[name] = figures
        click.echo(f"\n{part.title}\n\n{table(figures)}\n")
    if output is not None:
        output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
