"""Sides: who answers. rbd_native on either kind of cluster, and librbd, which says what is right."""

import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rbd_native
from tests.backend import Backend, ceph_backend, embedded_backend
from tests.releases import NEWEST, release, told

_numbers = itertools.count(1)


class Side:
    """One client of a pool of its own. `rbd`: rbd_native, or the real binding. Clones are of format 2."""

    def __init__(self, kind: str, backend: Backend, rbd: Any) -> None:
        self.kind = kind
        self.backend = backend
        self.rbd = rbd
        self.client = self.connect()
        self.ioctx = backend.ioctx(cluster=self.client)

    def connect(self) -> Any:
        return self.backend.connect(rbd_default_clone_format="2")

    def other_ioctx(self) -> Any:
        """Of another client."""
        return self.backend.ioctx(cluster=self.connect())

    @property
    def ours(self) -> bool:
        return self.rbd is rbd_native

    @property
    def cluster_release(self) -> int:
        """Of the OSDs and the monitor: the embedded cluster is as the newest."""
        return NEWEST if self.kind == "embedded" else release()

    def told(self, behaviour: str) -> Any:
        """What is right here: of us what the newest release says."""
        return told(behaviour, NEWEST if self.ours else release())

    def create(self, name: str, features: int = 61, *, size: int = 1 << 22, order: int = 20) -> None:
        self.rbd.RBD().create(self.ioctx, name, size, order, old_format=False, features=features)

    def image(self, name: str, **how: Any) -> Any:
        return self.rbd.Image(self.ioctx, name, **how)

    def answer(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
        """What it returns, shown, or the class of what it raises."""
        try:
            return repr(call(*arguments, **named))
        except Exception as error:
            return type(error).__name__


OURS = ("embedded", pytest.param("ceph", marks=pytest.mark.ceph))
_SIDES = (*OURS, pytest.param("librbd", marks=pytest.mark.ceph))


@pytest.fixture(params=_SIDES)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "embedded":
        with embedded_backend() as embedded:
            yield Side("embedded", embedded, rbd_native)
        return
    module = importlib.import_module("rbd" if request.param == "librbd" else "rbd_native")
    with ceph_backend(request.getfixturevalue("ceph"), f"faults-{next(_numbers)}") as real:
        yield Side(request.param, real, module)
