"""`python -m benchmarks`: rbd_native beside librbd and RADOS itself, on a cluster started for it.

Every subject is measured in turn, case by case, several rounds; the table shows medians, in operations per second,
and the JSON after it every single figure. Ratios are of medians of the same run: the machine's speed drops out.
"""

import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.cases import DATA_CASES, IMAGE_CASES, Bench
from benchmarks.subjects import DEPTH, Images, Objects, Subject
from tests.cluster import CephCluster, ensure_packages

OURS, CACHED, UNCACHED, FLOOR = "rbd_native", "librbd, cache", "librbd, no cache", "rados"
IN_MEMORY, IN_FILE = "embedded, memory", "embedded, file"
POOL = "bench"

Figures = dict[str, dict[str, list[float]]]  # case -> subject -> one rate a round


@contextmanager
def ceph_subjects() -> Iterator[list[Subject]]:
    """Each subject with a pool and a client of its own, on one cluster."""
    import rbd as librbd

    import rbd_native

    with CephCluster() as ceph:

        def pool_of_its_own(number: int, **conf: str) -> tuple[Any, Callable[[], None]]:
            ceph.create_pool(f"{POOL}-{number}", pg_num=32)
            client = ceph.rados(**conf)
            return client.open_ioctx(f"{POOL}-{number}"), client.shutdown

        yield [
            Images(OURS, rbd_native, *pool_of_its_own(1)),
            Images(CACHED, librbd, *pool_of_its_own(2, rbd_cache="true")),
            Images(UNCACHED, librbd, *pool_of_its_own(3, rbd_cache="false")),
            Objects(FLOOR, *pool_of_its_own(4)),
        ]


@contextmanager
def embedded_subjects() -> Iterator[list[Subject]]:
    """rbd_native on the embedded cluster, in memory and in a file."""
    import rbd_native
    from rbd_native import embedded

    def pool_of(cluster: Any) -> tuple[Any, Callable[[], None]]:
        client = embedded.Rados(cluster=cluster)
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


def measure(subjects: list[Subject], size: int, seconds: float, rounds: int) -> tuple[Figures, dict[str, str]]:
    """The figures, and how each subject's operations were kept under way."""
    figures: Figures = {case: {} for case in (*IMAGE_CASES, *DATA_CASES)}
    with ExitStack() as stack:
        benches = [stack.enter_context(closing(Bench(subject, size, seconds))) for subject in subjects]
        for number in range(1, rounds + 1):
            click.echo(f"round {number} of {rounds}", err=True)
            for name, case in (*IMAGE_CASES.items(), *DATA_CASES.items()):
                for bench in benches:
                    if bench.subject.has_images or name in DATA_CASES:
                        figures[name].setdefault(bench.subject.name, []).append(case(bench))
        drivers = {
            bench.subject.name: f"{DEPTH} threads" if bench.disk.blocking else "completions" for bench in benches
        }
    return figures, drivers


def medians(figures: Figures) -> dict[str, dict[str, float]]:
    return {
        case: {subject: statistics.median(rates) for subject, rates in subjects.items()}
        for case, subjects in figures.items()
    }


def table(rates: dict[str, dict[str, float]]) -> str:
    """One row a case: the rate of each subject, and, where both are there, what ours is of the others'."""
    subjects = list(dict.fromkeys(subject for row in rates.values() for subject in row))
    others = [subject for subject in subjects if OURS in subjects and subject != OURS]
    rows = [["op/s", *subjects, *(f"ours / {other}" for other in others)]]
    for case, row in rates.items():
        shown = [f"{row[subject]:,.0f}" if subject in row else "-" for subject in subjects]
        ratios = [f"{row[OURS] / row[other]:.2f}" if other in row else "-" for other in others]
        rows.append([case, *shown, *ratios])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in cells)
        for cells in (enumerate(zip(row, widths, strict=True)) for row in rows)
    )


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "ceph": subprocess.run(["ceph", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "depth": DEPTH,
    }


@click.command()
@click.option("--size", default=256, show_default=True, help="Size of the images, in MiB.")
@click.option("--seconds", default=1.0, show_default=True, help="Time for a case, in a round, of a subject.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; the table shows their medians.")
@click.option("--only", type=click.Choice(["ceph", "embedded"]), help="Only one of the two tables.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the JSON to a file, not after the table.")
def main(size: int, seconds: float, rounds: int, only: str | None, output: Path | None) -> None:
    """Measure rbd_native beside librbd and RADOS itself, and on the embedded cluster."""
    ensure_packages()
    results: dict[str, Any] = {"environment": environment()}
    parts = {"ceph": ceph_subjects, "embedded": embedded_subjects}
    for name, subjects_of in parts.items():
        if only in (None, name):
            with subjects_of() as subjects:
                figures, drivers = measure(subjects, size << 20, seconds, rounds)
            results[name] = {"drivers": drivers, "medians": medians(figures), "figures": figures}
            click.echo(f"\n{table(medians(figures))}")
            click.echo("driven by " + "; ".join(f"{subject}: {driver}" for subject, driver in drivers.items()) + "\n")
    text = json.dumps(results, indent=2)
    if output is None:
        click.echo(text)
    else:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
