"""`rados.Object`, an object that reads and writes like a file, and the listing that yields them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from rbd_native.embedded.rados_errors import ObjectStateError
from rbd_native.embedded.rados_ops import XattrIterator

P = ParamSpec("P")
R = TypeVar("R")


def _on_object(method: Callable[Concatenate[Object, Any, P], R]) -> Callable[Concatenate[Object, P], R]:
    """Run a method on the Ioctx of the object's own namespace."""

    def run(self: Object, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.require_object_exists()
        ioctx = self.ioctx.dup()
        if self.nspace is not None:
            ioctx.set_namespace(self.nspace)
        return method(self, ioctx, *args, **kwargs)

    run.__name__ = method.__name__
    return run


class Object:
    """Rados object wrapper, makes the object look like a file"""

    def __init__(self, ioctx: Any, key: str, locator_key: str | None = None, nspace: str | None = None) -> None:
        self.key = key
        self.ioctx = ioctx
        self.offset = 0
        self.state = "exists"
        self.locator_key = locator_key
        self.nspace = "" if nspace is None else nspace

    def __str__(self) -> str:
        return f"rados.Object(ioctx={self.ioctx},key={self.key},nspace={self.nspace},locator={self.locator_key})"

    def require_object_exists(self) -> None:
        if self.state != "exists":
            raise ObjectStateError(f"The object is {self.state}")

    @_on_object
    def read(self, ioctx: Any, length: int = 1024 * 1024) -> bytes:
        data: bytes = ioctx.read(self.key, length, self.offset)
        self.offset += len(data)
        return data

    @_on_object
    def write(self, ioctx: Any, string_to_write: bytes) -> int:
        rv: int = ioctx.write(self.key, string_to_write, self.offset)
        self.offset += len(string_to_write)
        return rv

    @_on_object
    def remove(self, ioctx: Any) -> None:
        ioctx.remove_object(self.key)
        self.state = "removed"

    @_on_object
    def stat(self, ioctx: Any) -> tuple[int, time.struct_time]:
        found: tuple[int, time.struct_time] = ioctx.stat(self.key)
        return found

    def seek(self, position: int) -> None:
        self.require_object_exists()
        self.offset = position

    @_on_object
    def get_xattr(self, ioctx: Any, xattr_name: str) -> bytes:
        value: bytes = ioctx.get_xattr(self.key, xattr_name)
        return value

    @_on_object
    def get_xattrs(self, ioctx: Any) -> XattrIterator:
        found: XattrIterator = ioctx.get_xattrs(self.key)
        return found

    @_on_object
    def set_xattr(self, ioctx: Any, xattr_name: str, xattr_value: bytes) -> bool:
        done: bool = ioctx.set_xattr(self.key, xattr_name, xattr_value)
        return done

    @_on_object
    def rm_xattr(self, ioctx: Any, xattr_name: str) -> bool:
        done: bool = ioctx.rm_xattr(self.key, xattr_name)
        return done


class ObjectIterator(Iterator[Object]):
    """rados.Ioctx Object iterator"""

    def __init__(self, ioctx: Any, names: Iterator[tuple[str, str]]) -> None:
        self.ioctx = ioctx
        self._names = names

    def __next__(self) -> Object:
        namespace, name = next(self._names)
        return Object(self.ioctx, name, nspace=namespace)
