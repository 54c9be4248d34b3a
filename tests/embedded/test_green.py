"""Programs whose threads eventlet or gevent has replaced, and which call us in real ones, as they do with librbd."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WAYS = {
    "eventlet": """
import warnings
warnings.simplefilter("ignore")
import eventlet
eventlet.monkey_patch()
from eventlet import tpool
apart, spawn, sleep = tpool.execute, eventlet.spawn, eventlet.sleep
wait = lambda green: green.wait()
""",
    "gevent": """
import gevent.monkey
gevent.monkey.patch_all()
import gevent
spawn, sleep = gevent.spawn, gevent.sleep
wait = lambda green: green.get()
def apart(function, *arguments, **named):
    return gevent.get_hub().threadpool.apply(function, arguments, named)
""",
}

PROGRAM = """
import faulthandler, sys
faulthandler.dump_traceback_later(60, exit=True)
import rbd_native as rbd
from rbd_native import embedded as rados

path = sys.argv[1] if len(sys.argv) > 1 else ""
ticks = 0
def tick():
    global ticks
    while ticks >= 0:
        ticks += 1
        sleep(0.001)
ticking = spawn(tick)

client = rados.Rados(conf={"embedded_path": path})
apart(client.connect)
ioctx = apart(client.open_ioctx, "rbd")
apart(rbd.RBD().create, ioctx, "volume", 1 << 24)
image = apart(rbd.Image, ioctx, "volume")
other = apart(rbd.Image, ioctx, "volume")

def write(image, place):
    for number in range(20):
        apart(image.write, b"%04d" % number, place)

# Two handles pass the lock to and fro: notifications, callbacks and waiting, in real threads and from green ones.
for green in [spawn(write, image, 0), spawn(write, other, 4096)]:
    wait(green)
image.write(b"here", 8192)  # in the green thread itself, which may be slow but must not hang
apart(image.create_snap, "snap")
assert apart(other.read, 0, 4) == b"0019" and apart(image.read, 4096, 4) == b"0019"
done = []
apart(image.aio_write, b"aio", 0, lambda completion: done.append(completion.get_return_value())).wait_for_complete_and_cb()
assert done == [0], done
apart(image.close)
apart(other.close)
apart(client.shutdown)
seen, ticks = ticks, -1
assert seen > 10
print("closed")
"""


@pytest.mark.parametrize("where", ["in memory", "in a file"])
@pytest.mark.parametrize("way", WAYS)
def test_a_whole_life(tmp_path: Path, way: str, where: str) -> None:
    command = [sys.executable, "-c", WAYS[way] + PROGRAM, *([str(tmp_path / "cluster")] if where == "in a file" else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr
