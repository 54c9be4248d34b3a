"""Every block of Python in the README and the guides runs, word for word, each in a process and a directory of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import CephCluster

ROOT = Path(__file__).parents[2]
REAL = "/etc/ceph/ceph.conf"


def blocks() -> list[tuple[str, str]]:
    """(where, code)"""
    found = []
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append((f"{document.name}:{text.count(chr(10), 0, match.start()) + 1}", match[1]))
    return found


def _name(value: str) -> str:
    return value[:20]


def run(code: str, directory: Path) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", code]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_there_are_some() -> None:
    assert len(blocks()) >= 6


@pytest.mark.parametrize(("where", "code"), [block for block in blocks() if REAL not in block[1]], ids=_name)
def test_without_a_cluster(where: str, code: str, tmp_path: Path) -> None:
    run(code, tmp_path)


@pytest.mark.ceph
@pytest.mark.parametrize(("where", "code"), [block for block in blocks() if REAL in block[1]], ids=_name)
def test_with_a_cluster(where: str, code: str, tmp_path: Path, ceph: CephCluster, pool: str) -> None:
    run(code.replace(REAL, str(ceph.conf)).replace('open_ioctx("rbd")', f'open_ioctx("{pool}")'), tmp_path)
