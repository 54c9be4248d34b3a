"""A progress callback that raises: Python reports it as an exception that nobody can catch, and the operation goes on.

Each in a process of its own: a test runner's own hook takes what Python's refuses.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OPERATIONS = {
    "resize": "image.resize(1 << 22, on_progress=progress); assert image.size() == 1 << 22",
    "flatten": "clone.flatten(on_progress=progress); assert clone.read(0, 4) == b'data'",
    "copy": "image.copy(ioctx, 'copy', on_progress=progress); assert 'copy' in rbd.RBD().list(ioctx)",
    "deep copy": "image.deep_copy(ioctx, 'copy', on_progress=progress); assert 'copy' in rbd.RBD().list(ioctx)",
    "rollback": "image.write(b'new!', 0); image.rollback_to_snap('snap', progress); assert image.read(0, 4) == b'data'",
    "remove": (
        "rbd.RBD().create(ioctx, 'gone', 1 << 24); rbd.RBD().remove(ioctx, 'gone', on_progress=progress);"
        "assert 'gone' not in rbd.RBD().list(ioctx)"
    ),
    "export, import": (
        "file = io.BytesIO(); streams.export_image(image, file, progress=progress); file.seek(0);"
        "streams.import_image(ioctx, 'again', file, progress=progress); assert 'again' in rbd.RBD().list(ioctx)"
    ),
}

PROGRAM = """
import io
import rbd_native as rbd
from rbd_native import embedded as rados, streams

def progress(done, total):
    raise ValueError("from the callback")

with rados.Rados() as cluster, cluster.open_ioctx("rbd") as ioctx:
    rbd.RBD().create(ioctx, "image", 1 << 24)
    with rbd.Image(ioctx, "image") as image:
        image.write(b"data", 0)
        image.write(b"data", 9 << 20)
        image.create_snap("snap")
        image.protect_snap("snap")
        rbd.RBD().clone(ioctx, "image", "snap", ioctx, "clone")
        with rbd.Image(ioctx, "clone") as clone:
            OPERATION
print("went on")
"""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_operation_goes_on(operation: str) -> None:
    program = PROGRAM.replace("OPERATION", OPERATIONS[operation])
    command = [sys.executable, "-X", "dev", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert "Exception ignored in: <function progress at" in done.stderr
    assert "ValueError: from the callback" in done.stderr
