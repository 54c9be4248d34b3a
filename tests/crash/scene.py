"""A client that dies after some of its changes, and whoever comes next."""

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, ClassVar
from unittest import mock

import rbd_native as rbd
from rbd_native import engine
from rbd_native.engine import run
from rbd_native.rados.connect import port_for
from rbd_native.rados.faults import Crashed, Faults
from rbd_native.rados.port import Io
from rbd_native.rados.wrapper import Request, wrap
from tests.backend import Backend
from tests.stored import contents

SIZE = 1 << 20
DATA = bytes(range(256)) * 64
KEPT = {"rbd_directory", "rbd_info", "rbd_trash"}
"""What a pool without images may hold."""


def changes(request: Request) -> bool:
    """Between two requests that only read nothing differs."""
    return request.kind not in ("read", "pools", "pool_lookup", "pool_name", "mon_command")


@contextlib.contextmanager
def turned(by: int) -> Iterator[None]:
    """Of what is begun at the same time, those are begun last that would be the `by` first. Of two changes each is made
    without the other, in one order or the other, and of three each and each two, in one of three orders."""
    straight = engine.for_each

    async def in_another_order(coroutines: Iterable[Coroutine[Any, Any, Any]], limit: int) -> None:
        listed = list(coroutines)
        first = by % max(len(listed), 1)
        try:
            await straight(listed[first:] + listed[:first], limit)
        finally:
            for one in listed:
                one.close()  # some may never have been begun

    with mock.patch.object(engine, "for_each", in_another_order):
        yield


class Scene:
    """One image, in a pool of its own, and a client that may die."""

    conf: ClassVar[dict[str, str]] = {}
    """The options of the clients."""

    order = 0
    """By how much what the dying client does at the same time is turned."""

    def __init__(self, backend: Backend, features: int) -> None:
        self.backend = backend
        self.ioctx = backend.ioctx(cluster=backend.connect(**self.conf)) if self.conf else backend.ioctx()
        self.lay_out(features)
        with rbd.Image(self.ioctx, "image") as image:
            image.write(DATA, 0)
            image.write(DATA, SIZE - len(DATA))
            self.id = "" if image.old_format() else image.id()

    def lay_out(self, features: int) -> None:
        """Make the image."""
        rbd.RBD().create(self.ioctx, "image", SIZE, 18, features=features)

    def cut_off(self, work: Callable[[Io], Coroutine[Any, Any, None]], at: int) -> bool:
        """Let a client do some work, and die instead of making change number `at`. False where it was done before that."""
        faults = Faults(changes)
        with self.backend.connected(**self.conf) as client, client.open_ioctx(self.backend.pool) as ioctx:
            io = port_for(ioctx)
            faults.crash(at)
            try:
                with turned(self.order):
                    run(work(wrap(io, faults)))
                return False
            except Crashed:
                # Its watches would live on for half a minute; a client that is blocklisted has none.
                ours = port_for(self.ioctx).cluster
                run(_wait(ours.blocklist_add(io.cluster.address(), 3600)))
                run(_wait(ours.wait_for_latest_map()))
                return True

    def finishers(self) -> Iterator[Any]:
        """The libraries that may come next."""
        yield rbd
        if self.backend.kind == "ceph":
            import rbd as librbd

            yield librbd

    def judge_content(self) -> None:
        """By its name, it is as it was."""
        with rbd.Image(self.ioctx, "image") as image:
            assert image.id() == self.id
            assert image.read(0, len(DATA)) == image.read(SIZE - len(DATA), len(DATA)) == DATA

    def judge_empty(self) -> None:
        assert set(contents(self.backend.rados_module, self.ioctx)) <= KEPT
        assert rbd.RBD().list(self.ioctx) == []
        assert list(rbd.RBD().trash_list(self.ioctx)) == []


async def _wait(call: Any) -> Any:
    return await call


def until_gone(call: Callable[..., Any], *arguments: Any) -> None:
    """The call again; what it is about may be gone already."""
    try:
        call(*arguments)
    except Exception as error:  # of either library
        if type(error).__name__ != "ImageNotFound":
            raise


FEATURES = [1, 61]


def everywhere(
    backend: Backend, features: int, scenario: Callable[[Scene, Any, int], bool], orders: int = 1
) -> None:
    """A scenario with a death at each place; the libraries come next in turn. The pool is empty at the end of each.

    orders: in how many orders that is done, where some changes are made at the same time: as many as the most of those. On
    a real cluster it dies at some places only, unless there are such.
    """
    modules: list[Any] = []
    for order in range(orders):
        at, alive = 0, False
        while not alive:
            scene = Scene(backend, features)
            scene.order = order
            modules = modules or list(scene.finishers())
            alive = not scenario(scene, modules[(at + order) % len(modules)], at)
            scene.judge_empty()
            at += 1 if backend.kind == "embedded" or orders > 1 else 3  # odd, so that both libraries get their turn
        assert at > 3
