"""A process that is killed loses nothing that was acknowledged, leaves no operation half done, and holds nobody up."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_many_kills(tmp_path: Path, full: bool) -> None:
    kills = 200 if full else 80
    command = [sys.executable, "-m", "tests.embedded.killing", str(tmp_path / "cluster"), str(kills), "20240607"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=115, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5 * kills  # that much was under way, in all
