"""A client of its own process for tests of sharing: it does what comes down a pipe, one request at a time.

    {"client": "librbd", "conf": "/.../ceph.conf", "pool": "rbd", "options": {}}

is a setup, with which it is started by :mod:`tests.sharing.nursery`. `client` is "librbd" or "ours"; a cluster is a `conf`
of a real one, or the `file` of an embedded one. Requests and answers are pickles, each behind its length. A request is the
name of a method of :class:`Worker`, or else of the open image, and its arguments; an answer is ("ok", value) or ("error",
class name, errno, words).
"""

import faulthandler
import hashlib
import importlib
import itertools
import os
import pickle
import random
import signal
import struct
import sys
import threading
import time
from typing import Any, NoReturn

from tests.sharing.scribe import ScribeMethods

LENGTH = struct.Struct("<I")
CHUNK = 4 << 20
BLOCK = 4096
RECORD = struct.Struct("<IIBB")
"""Of a hammer's operation: number, block, 0 when it begins and 1 when it is done, 1 for a discard of a granule."""


def block_of(seed: int, number: int) -> bytes:
    """The content of a block of :data:`BLOCK` bytes: it tells which write it was."""
    return struct.pack("<QQ", seed, number) * (BLOCK // 16)


class Worker(ScribeMethods):
    def __init__(
        self, client: str, pool: str, options: dict[str, str], records: int, conf: str = "", file: str = ""
    ) -> None:
        self.records = records
        self.rbd = importlib.import_module("rbd" if client == "librbd" else "rbd_native")
        self.cluster = _connect(conf, file, options)
        self.ioctx = self.cluster.open_ioctx(pool)
        self.image: Any = None

    def do(self, method: str, arguments: tuple[Any, ...]) -> Any:
        mine = getattr(self, method, None)
        return mine(*arguments) if mine is not None else getattr(self.image, method)(*arguments)

    def instance(self) -> int:
        return int(self.cluster.get_instance_id())

    def open(self, name: str, read_only: bool = False) -> None:
        self.image = self.rbd.Image(self.ioctx, name, read_only=read_only)

    def close(self) -> None:
        image, self.image = self.image, None
        if image is not None:
            image.close()

    def create(self, name: str, size: int, order: int, features: int) -> None:
        self.rbd.RBD().create(self.ioctx, name, size, order=order, old_format=False, features=features)

    def rename(self, source: str, destination: str) -> None:
        self.rbd.RBD().rename(self.ioctx, source, destination)

    def items(self, method: str, *arguments: Any) -> list[Any]:
        """All of what a method iterates over."""
        return list(getattr(self.image, method)(*arguments))

    def digest(self) -> str:
        """Of the whole content."""
        whole = hashlib.sha256()
        size = self.image.size()
        for offset in range(0, size, CHUNK):
            whole.update(self.image.read(offset, min(CHUNK, size - offset)))
        return whole.hexdigest()

    def timed(self, method: str, *arguments: Any) -> tuple[Any, float]:
        """And how many seconds it took."""
        began = time.perf_counter()
        value = self.do(method, arguments)
        return value, time.perf_counter() - began

    def batch(self, operations: list[tuple[Any, ...]]) -> list[Any]:
        """All at once: what the reads read, and the return values of the others."""
        results: list[Any] = [None] * len(operations)
        completions = []
        for place, (method, *arguments) in enumerate(operations):

            def done(completion: Any, data: Any = None, place: int = place) -> None:
                results[place] = completion.get_return_value() if data is None else data

            if method == "aio_write":
                data, offset = arguments
                completions.append(self.image.aio_write(data, offset, done))
            else:
                completions.append(getattr(self.image, method)(*arguments, done))
        for completion in completions:
            completion.wait_for_complete_and_cb()
        return results

    def hammer(self, seed: int, first: int, blocks: int, depth: int, seconds: float, granule: int) -> int:
        """Write, and now and then discard, single blocks until the time is over or the process is killed.

        Every operation is announced in the records before it begins and after it was acknowledged.
        Blocks under way are left alone. Returns the number of the next operation.
        """
        return _Hammer(self, seed, first, blocks, granule).run(depth, seconds)


class _Hammer:
    def __init__(self, worker: Worker, seed: int, first: int, blocks: int, granule: int) -> None:
        self.image, self.records = worker.image, worker.records
        self.seed, self.first, self.blocks, self.granule = seed, first, blocks, granule
        self.busy: set[int] = set()
        self.guard = threading.Lock()
        self.failed: list[int] = []

    def tell(self, number: int, block: int, done: int, discard: int) -> None:
        os.write(self.records, RECORD.pack(number, block, done, discard))

    def run(self, depth: int, seconds: float) -> int:
        dice = random.Random(self.seed)
        places = threading.Semaphore(depth)
        until = time.monotonic() + seconds
        for number in itertools.count(self.first):
            places.acquire()
            if self.failed or time.monotonic() > until:
                break
            discard = dice.random() < 0.15
            mine = self._pick(dice, discard)

            def done(completion: Any, number: int = number, mine: range = mine, discard: bool = discard) -> None:
                if completion.get_return_value() < 0:
                    self.failed.append(completion.get_return_value())
                else:
                    self.tell(number, mine.start, 1, discard)
                with self.guard:
                    self.busy.difference_update(mine)
                places.release()

            self.tell(number, mine.start, 0, discard)
            if discard:
                self.image.aio_discard(mine.start * BLOCK, len(mine) * BLOCK, done)
            else:
                self.image.aio_write(block_of(self.seed, number), mine.start * BLOCK, done)
        for _ in range(depth - 1):
            places.acquire()
        if self.failed:
            raise OSError(-self.failed[0], "an operation failed")
        return number

    def _pick(self, dice: Any, discard: bool) -> range:
        while True:
            block = dice.randrange(self.blocks)
            mine = range(block, block + 1)
            if discard:
                start = block - block % self.granule
                mine = range(start, min(start + self.granule, self.blocks))
            with self.guard:
                if self.busy.isdisjoint(mine):
                    self.busy.update(mine)
                    return mine
            time.sleep(0.001)


def _connect(conf: str, file: str, options: dict[str, str]) -> Any:
    if file:
        from rbd_native import embedded

        cluster: Any = embedded.Rados(conf={"embedded_path": file, **options})
    else:
        import rados

        cluster = rados.Rados(conffile=conf, conf=options)
    cluster.connect()
    return cluster


def _read(length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.read(0, min(length - len(data), 1 << 20))
        if not piece:
            os._exit(0)  # the test is over, or gone: there is nobody to say good-bye to
        data += piece
    return data


def work(setup: dict[str, Any]) -> NoReturn:
    """Until there is nobody to work for."""
    faulthandler.register(signal.SIGUSR1)
    worker = Worker(**setup)
    while True:
        method, arguments = pickle.loads(_read(*LENGTH.unpack(_read(LENGTH.size))))
        try:
            answer: tuple[Any, ...] = "ok", worker.do(method, arguments)
        except Exception as error:
            answer = "error", type(error).__name__, getattr(error, "errno", None), str(error)
        raw = pickle.dumps(answer)
        sys.stdout.buffer.write(LENGTH.pack(len(raw)) + raw)
        sys.stdout.buffer.flush()
