"""Runs scripts on a cluster: each in a pool of its own, by the same processes, which are started anew after one that
failed."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.fuzz.final import Final
from tests.fuzz.plan import CAPACITY, CLIENTS
from tests.fuzz.stage import Finding, Stage
from tests.fuzz.world import Step, World

OPTIONS = {
    "rbd_request_timed_out_seconds": "5",
    "rbd_mtime_update_interval": "0",
    "rbd_atime_update_interval": "0",
    "rbd_default_clone_format": "2",
}


@dataclass
class Script:
    """What is run, and what came of it."""

    seed: int
    features: int
    cached: bool
    steps: list[Step]
    finding: dict[str, str] | None = None

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text("utf-8")))


@dataclass
class Runner:
    """conf: of the cluster. package: a folder whose rbd_native is to be used, None for this one."""

    conf: Path
    package: str | None = None
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    steps_done: int = 0
    stage: Stage | None = None
    numbers: Any = field(default_factory=itertools.count)
    admin: Any = None

    def close(self) -> None:
        self._end_stage()
        if self.admin is not None:
            self.admin.shutdown()
            self.admin = None

    def _end_stage(self) -> None:
        if self.stage is not None:
            self.stage.close()
            self.stage = None

    def command(self, prefix: str, **arguments: Any) -> Any:
        """A command of the monitor."""
        if self.admin is None:
            import rados

            self.admin = rados.Rados(conffile=str(self.conf))
            self.admin.connect(timeout=30)
        status, answer, words = self.admin.mon_command(json.dumps({"prefix": prefix, "format": "json", **arguments}), b"")
        if status:
            raise RuntimeError(f"{prefix}: {status} {words}")
        return answer

    def cli(self, program: str, *arguments: str, raw: bool = False, errors: bool = False) -> Any:
        """What a program of Ceph says, or what it says of errors. Finding where it fails."""
        done = subprocess.run([program, "-c", str(self.conf), *arguments], capture_output=True, timeout=60)
        if done.returncode:
            raise Finding(
                "tool",
                f"{program} {' '.join(arguments)}: {done.returncode} {done.stderr.decode('utf-8', 'replace')[-500:]}",
            )
        return done.stdout if raw else (done.stderr if errors else done.stdout).decode("utf-8", "replace")

    def run(self, script: Script) -> Finding | None:
        """What must not be, if anything."""
        pool = f"fuzz-{next(self.numbers)}"
        self.command("osd pool create", pool=pool, pg_num=4)
        self.command("osd pool application enable", pool=pool, app="rbd")
        self.log = []
        try:
            self._run(script, pool)
        except Finding as finding:
            self._end_stage()
            return finding
        except BaseException:
            self._end_stage()
            raise
        finally:
            self.command("osd pool delete", pool=pool, pool2=pool, yes_i_really_really_mean_it=True)
        return None

    def _run(self, script: Script, pool: str) -> None:
        setup = {"conf": str(self.conf), "package": self.package, "options": OPTIONS}
        if self.stage is None:
            self.stage = Stage(setup, CLIENTS)
        world = World(self.stage, self.command, script.cached, CAPACITY, pool, counts=self.counts, log=self.log)
        for client in CLIENTS:
            made = world.connect(client)
            if made.err:
                raise RuntimeError(str(made))
        self.stage.one("j", "RBD.mirror_mode_set", {"ioctx": None}, 1)
        for number, step in enumerate(script.steps):
            self.log.append(f"{number}: {'look' if 'look' in step else step.get('fence', '')}")
            world.run(step)
            self.steps_done += 1
        Final(world, self.cli, pool).check()
        for client in CLIENTS:
            if self.stage.one(client, "client.shutdown").err:
                raise Finding("shutdown", client)
