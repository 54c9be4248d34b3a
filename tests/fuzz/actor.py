"""A process of a fuzzer: it holds clients and open images, of rbd_native and of librbd, and makes the calls that it is
told.  python -m tests.fuzz.actor '{"conf": "/.../ceph.conf", "package": null, "options": {}}'  Requests come as lines of
JSON: {"id": 7, "lanes": [[CALL, ...], ...]}. The lanes run at the same time, a thread each; the calls of a lane one after
the other, but that an `aio_` call does not wait for its end: the end of the lane does. A CALL:  {"on": "a1", "do":
"Image.write", "args": [{"data": [17, 4096]}, 0], "kw": {}}  `on`: a client ("a") or an open image of it ("a1"). What is
told, as lines of JSON: {"id", "lane", "n", "t0"} when a call begins, and {"id", "lane", "n", "t0", "t1", "ok": value} or
{..., "err": [class, errno, words]} when it has ended; times are the machine's, in nanoseconds. A call whose arguments
cannot be had (an image that is not open) is told as "skip". {"id", "done": true} ends a request."""

import base64
import contextlib
import datetime
import faulthandler
import hashlib
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

TRASH = 2


class Skip(Exception):
    """What the call needs is not there."""


def pattern(number: int, length: int) -> bytes:
    """What write `number` writes: no byte of it is zero, and no two writes are alike."""
    word = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8).digest().replace(b"\0", b"\1")
    return (word * (length // 8 + 1))[:length]


def shown(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, bytes | bytearray):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [shown(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime.datetime):
        return {"time": str(value)}
    if hasattr(value, "__iter__"):
        return [shown(item) for item in value]
    return {"type": type(value).__name__}


class Client:
    """A connection to the cluster, and the library that uses it."""

    def __init__(self, module: str, setup: dict[str, Any], options: dict[str, str]) -> None:
        import rados

        self.rbd: Any = importlib.import_module(module)
        self.cluster: Any = rados.Rados(conffile=setup["conf"], conf={**setup["options"], **options})
        self.cluster.connect(timeout=30)
        self.pools: dict[str, Any] = {}
        self.images: dict[str, Any] = {}

    def ioctx(self, pool: str) -> Any:
        if pool not in self.pools:
            self.pools[pool] = self.cluster.open_ioctx(pool)
        return self.pools[pool]

    def shutdown(self) -> None:
        for ioctx in self.pools.values():
            ioctx.close()
        self.pools.clear()
        self.images.clear()
        self.cluster.shutdown()


class Actor:
    def __init__(self, setup: dict[str, Any], out: int) -> None:
        self.setup = setup
        self.pool = ""
        self.out = out
        self.clients: dict[str, Client] = {}
        self.guard = threading.Lock()

    def tell(self, words: dict[str, Any]) -> None:
        raw = (json.dumps(words) + "\n").encode()
        with self.guard:
            while raw:
                raw = raw[os.write(self.out, raw) :]

    def request(self, request: dict[str, Any]) -> None:
        """The first lane runs in this thread, always the same: what the process allocates then lies where it lay before."""
        threads = []
        first, *_ = request["lanes"]
        ready = threading.Barrier(len(request["lanes"]))
        for place, calls in enumerate(request["lanes"]):
            if calls is not first:
                lane = Lane(self, request["id"], place, calls)
                threads.append(threading.Thread(target=lane.run, args=(ready,)))
        for thread in threads:
            thread.start()
        Lane(self, request["id"], 0, first).run(ready)
        for thread in threads:
            thread.join()
        self.tell({"id": request["id"], "done": True})

    def client(self, name: str) -> Client:
        if name not in self.clients:
            raise Skip(f"no client {name}")
        return self.clients[name]

    def image(self, name: str) -> Any:
        image = self.client(name[0]).images.get(name)
        if image is None:
            raise Skip(f"{name} is not open")
        return image


class Lane:
    """Calls one after the other."""

    def __init__(self, actor: Actor, request: int, place: int, calls: list[dict[str, Any]]) -> None:
        self.actor, self.request, self.place, self.calls = actor, request, place, calls
        self.pending: list[tuple[Any, threading.Event]] = []

    def run(self, ready: threading.Barrier) -> None:
        ready.wait()
        for number, call in enumerate(self.calls):
            self.call(number, call)
        self.finish()

    def finish(self) -> None:
        for completion, over in self.pending:
            completion.wait_for_complete_and_cb()
            over.wait()
            completion.is_complete()
        self.pending.clear()

    def tell(self, number: int, **words: Any) -> None:
        self.actor.tell({"id": self.request, "lane": self.place, "n": number, **words})

    def call(self, number: int, call: dict[str, Any]) -> None:
        try:
            function = self.prepared(call)
        except Skip as skip:
            self.tell(number, skip=str(skip))
            return
        except Exception as error:  # what the arguments are made of could not be asked for
            self.tell(number, skip=f"{type(error).__name__}: {error}")
            return
        began = time.monotonic_ns()
        self.tell(number, t0=began)
        if ".aio_" in call["do"]:
            self.begin(number, began, call["do"], function)
            return
        try:
            outcome: dict[str, Any] = {"ok": shown(function())}
        except BaseException as error:
            outcome = {"err": [type(error).__name__, getattr(error, "errno", None), str(error)]}
        self.tell(number, t0=began, t1=time.monotonic_ns(), **outcome)

    def begin(self, number: int, began: int, method: str, function: Callable[..., Any]) -> None:
        over = threading.Event()

        def done(completion: Any, *values: Any) -> None:
            ended = time.monotonic_ns()
            result = completion.get_return_value()
            if result < 0:
                self.tell(number, t0=began, t1=ended, err=[None, -result, method])
            else:
                value = values[0] if method == "Image.aio_read" else result if not values else None
                self.tell(number, t0=began, t1=ended, ok=shown(value))
            over.set()

        try:
            completion = function(done)
        except BaseException as error:
            words = [type(error).__name__, getattr(error, "errno", None), str(error)]
            self.tell(number, t0=began, t1=time.monotonic_ns(), err=words)
            return
        self.pending.append((completion, over))
        if method in ("Image.aio_close", "RBD.aio_open_image"):
            self.finish()

    # --- what a call is ---

    def prepared(self, call: dict[str, Any]) -> Callable[..., Any]:
        """What makes the call; of an aio call: what begins it, given who is told of its end."""
        on, what = call["on"], call["do"]
        where, method = what.split(".", 1)
        if where == "client":
            return getattr(self, f"_{method}")(on, call)  # type: ignore[no-any-return]
        arguments = [self.value(on, one) for one in call.get("args", [])]
        keywords = {name: self.value(on, one) for name, one in call.get("kw", {}).items()}
        if what in ("Image.open", "RBD.aio_open_image"):
            return self._opening(on, what, keywords)
        if where == "Image":
            bound = self._of_image(on, method, arguments)
        elif where == "RBD":
            bound = getattr(self.actor.client(on[0]).rbd.RBD(), method)
        else:
            client = self.actor.client(on[0])
            group = client.rbd.Group(client.ioctx(self.actor.pool), arguments.pop(0))
            bound = getattr(group, method)
        if method.startswith("aio_"):
            if method == "aio_write" or method == "aio_read" or method == "aio_discard" or method == "aio_write_zeroes":
                return lambda done: bound(*arguments[:2], done, *arguments[2:])
            return lambda done: bound(*arguments, done)
        return lambda: bound(*arguments, **keywords)

    def _of_image(self, on: str, method: str, arguments: list[Any]) -> Any:
        image = self.actor.image(on)
        if method == "diff_iterate":
            return lambda offset, length, since, **how: _diff(image, offset, length, since, **how)
        if method in ("close", "aio_close"):
            self.actor.clients[on[0]].images.pop(on)
        return getattr(image, method)

    def _opening(self, on: str, what: str, keywords: dict[str, Any]) -> Callable[..., Any]:
        client = self.actor.client(on[0])
        if on in client.images:
            raise Skip(f"{on} is open")
        ioctx = client.ioctx(keywords.pop("pool", self.actor.pool))
        if what == "Image.open":

            def open_it() -> None:
                client.images[on] = client.rbd.Image(ioctx, **keywords)

            return open_it

        def begin(done: Callable[..., Any]) -> Any:
            def opened(completion: Any, image: Any) -> None:
                if completion.get_return_value() >= 0:
                    client.images[on] = image
                done(completion)

            return client.rbd.RBD().aio_open_image(opened, ioctx, **keywords)

        return begin

    def value(self, on: str, argument: Any) -> Any:
        """What an argument stands for."""
        if not isinstance(argument, dict):
            return argument
        ((kind, what),) = argument.items()
        if kind == "data":
            return pattern(*what)
        if kind == "b64":
            return base64.b64decode(what)
        if kind == "ioctx":
            return self.actor.client(on[0]).ioctx(what or self.actor.pool)
        if kind == "rados":
            return self.actor.client(on[0]).cluster
        if kind == "progress":
            return lambda done, of: 0
        return self.found(on, kind, what)

    def found(self, on: str, kind: str, what: Any) -> Any:
        """What has to be asked for first."""
        client = self.actor.client(on[0])
        if kind == "id_of":
            for snap in self.actor.image(on).list_snaps():
                if snap["name"] == what or (what == "<trash>" and snap["namespace"] == TRASH):
                    return snap["id"]
        elif kind == "owner_of":
            for owner in self.actor.image(on).lock_get_owners():
                return owner["owner"]
        elif kind == "locker_of":
            lockers = self.actor.image(on).list_lockers()
            for name, cookie, _ in lockers["lockers"] if lockers else []:
                if not cookie.startswith("auto "):  # breaking that would fence its owner
                    return name if what == "client" else cookie
        elif kind == "trash_id":
            for entry in client.rbd.RBD().trash_list(client.ioctx(self.actor.pool)):
                if entry["name"] == what:
                    return entry["id"]
        raise Skip(f"no {kind} {what}")

    # --- of clients ---

    def _connect(self, name: str, call: dict[str, Any]) -> Callable[..., Any]:
        def connect() -> int:
            self.actor.pool = call["args"][1]
            self.actor.clients[name] = Client(call["args"][0], self.actor.setup, call.get("kw", {}))
            return int(self.actor.clients[name].cluster.get_instance_id())

        return connect

    def _address(self, name: str, call: dict[str, Any]) -> Callable[..., Any]:
        return self.actor.client(name).cluster.get_addrs  # type: ignore[no-any-return]

    def _shutdown(self, name: str, call: dict[str, Any]) -> Callable[..., Any]:
        client = self.actor.client(name)
        del self.actor.clients[name]
        return client.shutdown

    def _wait(self, name: str, call: dict[str, Any]) -> Callable[..., Any]:
        return lambda: time.sleep(call["args"][0])

    def _digest(self, name: str, call: dict[str, Any]) -> Callable[..., Any]:
        """All content of the image `name`, at a snapshot: read by an opening of its own."""
        image, snap = call["args"]
        client = self.actor.client(name)

        def read() -> bytes:
            with client.rbd.Image(client.ioctx(self.actor.pool), image, snapshot=snap, read_only=True) as found:
                return bytes(found.read(0, found.size()))

        return read


def _diff(image: Any, offset: int, length: int, since: Any, **how: Any) -> list[Any]:
    extents: list[Any] = []
    image.diff_iterate(
        offset, length, since, lambda *extent: extents.append([extent[0], extent[1], bool(extent[2])]), **how
    )
    return extents


def main() -> None:
    setup = json.loads(sys.argv[1])
    out = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints gets between the answers
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    if setup["package"]:
        sys.path.insert(0, setup["package"])
    for module in ("rados", "rbd", "rbd_native"):
        importlib.import_module(module)
    actor = Actor(setup, out)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            actor.request(requests.get())

    threading.Thread(target=serve, daemon=True).start()
    actor.tell({"ready": True})
    for line in sys.stdin:
        requests.put(json.loads(line))
    with contextlib.suppress(OSError):
        os.close(out)
    os._exit(0)  # the fuzzer is done with it: nobody to say good-bye to


if __name__ == "__main__":
    main()
