"""A namespace in a pool that other tests use too: made in milliseconds, where a pool takes a good part of a second."""

import contextlib
from typing import Any

from tests.backend import Backend
from tests.stored import Stored, contents, data_objects


class Room:
    """What a `tests.backend.Backend` is, in one namespace of it. What is kept for a whole pool is shared: its
    configuration above all."""

    def __init__(self, backend: Backend, namespace: str) -> None:
        self.backend = backend
        self.namespace = namespace
        self.kind = backend.kind
        self.rados_module = backend.rados_module
        self.pool = backend.pool
        self._closing = contextlib.ExitStack()
        text = len(namespace).to_bytes(4, "little") + namespace.encode()
        with backend.cluster.open_ioctx(backend.pool) as whole:
            whole.execute("rbd_namespace", "rbd", "namespace_add", text)
        self.ioctx().execute("rbd_directory", "rbd", "dir_state_set", bytes(4))

    def connect(self, **conf: str) -> Any:
        """One more client."""
        return self.backend.connect(**conf)

    def create_pool(self) -> str:
        """One more pool; its name."""
        return self.backend.create_pool()

    def ioctx(self, pool: str | None = None, cluster: Any = None) -> Any:
        """An ioctx in the namespace, closed at the end of the test."""
        ioctx = (cluster or self.backend.cluster).open_ioctx(pool or self.pool)
        self._closing.callback(ioctx.close)
        ioctx.set_namespace(self.namespace)
        return ioctx

    def contents(self, pool: str | None = None) -> dict[str, Stored]:
        """All objects."""
        return contents(self.rados_module, self.ioctx(pool))

    def data_objects(self, pool: str | None = None) -> list[str]:
        """The names of the objects with image data."""
        return data_objects(self.rados_module, self.ioctx(pool))

    def close(self) -> None:
        """Close what the test opened."""
        self._closing.close()
