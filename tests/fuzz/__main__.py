"""See :mod:`tests.fuzz`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scripts.surface import SURFACE
from tests.cluster import CephCluster
from tests.fuzz.plan import THEMES
from tests.fuzz.plan_more import FullPlan
from tests.fuzz.runner import Runner, Script
from tests.fuzz.shorten import Shortener
from tests.fuzz.stage import Finding, told

HASTY = {"osd client watch timeout": "4", "objecter tick interval": "0.5"}
RUNS_A_CLUSTER = 40


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument(
        "--conf", type=Path, help="ceph.conf of a cluster with short watch timeouts; default: one of its own"
    )
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--minutes", type=float, default=0, help="new seeds until then; default: one seed")
    parser.add_argument("--steps", type=int, default=80, help="of each script")
    parser.add_argument("--features", type=int, nargs="+", default=[61])
    parser.add_argument("--cached", choices=["yes", "no", "both"], default="no")
    parser.add_argument("--clients", default="abecd", help="which take part: a, b, e are ours, c, d librbd's")
    parser.add_argument("--themes", nargs="+", choices=sorted(THEMES), help="only these")
    parser.add_argument("--package-path", help="a folder whose rbd_native is to be used")
    parser.add_argument("--replay", type=Path, help="a script that was saved")
    parser.add_argument("--times", type=int, default=1, help="how often it is replayed")
    parser.add_argument("--save", type=Path, default=Path(), help="where scripts that fail are saved")
    parser.add_argument("--keep-going", action="store_true", help="after a finding, too")
    parser.add_argument("--no-shorten", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="all calls and answers of a script that fails")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def cluster(options: argparse.Namespace) -> Iterator[Path]:
    if options.conf is not None:
        yield options.conf
        return
    with CephCluster(options=HASTY) as ceph:
        yield ceph.conf


def scripts(options: argparse.Namespace) -> Iterator[Script]:
    if options.replay is not None:
        for _ in range(options.times):
            yield Script.load(options.replay)
        return
    deadline = time.monotonic() + options.minutes * 60
    themes = {name: THEMES[name] for name in options.themes} if options.themes else None
    for seed in range(options.seed, 1 << 31):
        features = options.features[seed % len(options.features)]
        cached = options.cached == "yes" or (options.cached == "both" and seed % 2 == 1)
        steps = FullPlan(seed, features, clients=options.clients, themes=themes).make(options.steps)
        yield Script(seed, features, cached, steps)
        if time.monotonic() > deadline:
            return


def shown(script: Script) -> str:
    lines = []
    for step in script.steps:
        extra = {name: value for name, value in step.items() if name != "lanes"}
        calls = [" ; ".join(map(told, lane)) for lane in step.get("lanes", [])]
        lines.append("  " + "\n  | ".join(calls) + (f"  {extra}" if extra else ""))
    return "\n".join(lines)


class Session:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.findings: list[tuple[Script, Finding]] = []
        self.of_librbd: list[tuple[Script, Finding]] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.runs = self.steps = 0

    def run(self) -> int:
        everything = scripts(self.options)
        more = True
        while more:
            with cluster(self.options) as conf:
                more = self._on(Runner(conf, self.options.package_path), everything)
        self._report()
        return 1 if self.findings else 0

    def _on(self, runner: Runner, everything: Iterator[Script]) -> bool:
        """Whether there is more to be run, on another cluster."""
        try:
            for number, script in enumerate(everything, 1):
                began = time.monotonic()
                finding = runner.run(script)
                self.runs += 1
                print(
                    f"seed {script.seed} features {script.features} cached {script.cached}: {len(script.steps)} steps, "
                    f"{time.monotonic() - began:.1f} s{f': {finding.kind}' if finding else ''}",
                    flush=True,
                )
                if finding is not None:
                    self._found(runner, script, finding)
                    if finding.ours and not self.options.keep_going:
                        return False
                if number == RUNS_A_CLUSTER:
                    return True
            return False
        finally:
            self.counts.update(runner.counts)
            self.steps += runner.steps_done
            runner.close()

    def _found(self, runner: Runner, script: Script, finding: Finding) -> None:
        (self.findings if finding.ours else self.of_librbd).append((script, finding))
        print(f"FOUND {'' if finding.ours else '(librbd) '}{finding}", flush=True)
        if self.options.verbose:
            print("\n".join(runner.log), flush=True)
        if finding.ours and not self.options.no_shorten and self.options.replay is None:
            script = self._shortened(runner, script, finding)
        script.finding = {"kind": finding.kind, "words": finding.words[:4000]}
        if self.options.replay is None:
            path = self.options.save / f"found-{script.seed}-{script.features}.json"
            script.save(path)
            print(f"saved: {path}\n{shown(script)}", flush=True)

    def _shortened(self, runner: Runner, script: Script, finding: Finding) -> Script:
        def fails(steps: list[dict[str, object]]) -> bool:
            found = runner.run(Script(script.seed, script.features, script.cached, steps))
            return found is not None and found.kind == finding.kind

        shortener = Shortener(fails)
        steps = shortener.shorten(script.steps)
        print(f"shortened from {len(script.steps)} to {len(steps)} steps in {shortener.runs} runs", flush=True)
        return Script(script.seed, script.features, script.cached, steps)

    def _report(self) -> None:
        found = f"{len(self.findings)} findings, {len(self.of_librbd)} of librbd alone"
        print(f"\n{self.runs} scripts, {self.steps} steps; {found}")
        print("calls of the public API, by ours / by librbd:")
        for group, methods in SURFACE.items():
            if group == "Completion":
                continue
            told = [
                f"{name} {self.counts['rbd_native', f'{group}.{name}']}/{self.counts['rbd', f'{group}.{name}']}"
                for name in methods
            ]
            print(f"  {group}: {', '.join(told)}")
        never = [
            f"{group}.{name}"
            for group, methods in SURFACE.items()
            for name in methods
            if group != "Completion" and not self.counts["rbd_native", f"{group}.{name}"]
        ]
        print(f"never by ours: {', '.join(never)}")


if __name__ == "__main__":
    sys.exit(Session(parsed(sys.argv[1:])).run())
