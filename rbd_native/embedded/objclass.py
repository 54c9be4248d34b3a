"""What a method of an object class may do to its object, on the embedded OSD.

A class method runs inside one operation on one object. As on a real OSD, data, xattrs and omap read as they
were before that operation, whatever its earlier steps wrote; existence and size are live. What the method
changes becomes part of the operation: all of it is applied, or, where any step fails, nothing.

Methods refuse by raising :class:`ClassError` with a positive errno.
"""

from __future__ import annotations

import errno
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from rbd_native.cls_client import Method
from rbd_native.encoding import DecodeError, EncodeError, UTime
from rbd_native.rados.port import SnapContext, Watcher

P = ParamSpec("P")
R = TypeVar("R")


class ClassError(Exception):
    """The method's own refusal; `errno` is positive."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode.get(code, str(code)))
        self.errno = code


class Entity(NamedTuple):
    """The client that sent the operation: global id, and address as "ip:port/nonce"."""

    client: int
    address: str


class ObjectContext(ABC):
    """One object, as a class method sees and changes it."""

    oid: str
    entity: Entity
    snapc: SnapContext

    # existence and size are live
    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def size(self) -> int:
        """ClassError(ENOENT) where the object does not exist."""

    # Data, xattrs and omap: as before the operation. What the operation itself has created has none of them yet.
    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Length 0: to the end. ClassError(ENOENT) on a missing object, and on a new one."""

    @abstractmethod
    def xattr(self, name: str) -> bytes | None:
        """ClassError(ENOENT) where there was no object, even if there is one by now."""

    @abstractmethod
    def xattrs(self) -> dict[str, bytes]:
        """ClassError(ENOENT) where there was no object, even if there is one by now."""

    @abstractmethod
    def omap(self, key: bytes) -> bytes | None:
        """None on a missing object too."""

    @abstractmethod
    def omap_page(self, after: bytes, limit: int, prefix: bytes = b"") -> tuple[dict[bytes, bytes], bool]:
        """Entries with keys after `after`, ascending, at most `limit`, and whether there are more.

        None on a missing object; ClassError(EIO) on a new one.
        """

    def omap_all(self, prefix: bytes) -> dict[bytes, bytes]:
        """Every entry whose key starts with `prefix`, ascending."""
        found, more = self.omap_page(b"", 1024, prefix)
        while more:
            page, more = self.omap_page(next(reversed(found)), 1024, prefix)
            found.update(page)
        return found

    @abstractmethod
    def snapset_seq(self) -> int | None:
        """The newest snapshot the object was written under, 0 for none; None where there is neither object nor clone."""

    @abstractmethod
    def watchers(self) -> list[Watcher]: ...

    @abstractmethod
    def now(self) -> UTime: ...

    # changes
    @abstractmethod
    def create(self, exclusive: bool = False) -> None: ...

    @abstractmethod
    def write(self, offset: int, data: bytes) -> None: ...

    @abstractmethod
    def write_full(self, data: bytes) -> None: ...

    @abstractmethod
    def truncate(self, size: int) -> None: ...

    @abstractmethod
    def remove(self) -> None: ...

    @abstractmethod
    def set_xattr(self, name: str, value: bytes) -> None: ...

    @abstractmethod
    def set_omap(self, values: Mapping[bytes, bytes]) -> None:
        """Creates the object where it is missing."""

    @abstractmethod
    def remove_omap(self, keys: Iterable[bytes]) -> None: ...


class Handler(NamedTuple):
    """A declared method and what the embedded OSD does for it."""

    method: Method[Any, Any]
    run: Callable[..., Any]
    must_exist: bool

    def __call__(self, context: ObjectContext, data: bytes) -> bytes:
        """Decode the request, run, encode the reply. Input that cannot be read is EINVAL, as on a real OSD."""
        if self.must_exist and not context.exists():
            raise ClassError(errno.ENOENT)
        try:
            arguments = self.method.decode_request(data)
        except DecodeError:
            raise ClassError(errno.EINVAL) from None
        value = self.run(context, *arguments)
        try:
            return self.method.encode_reply(value)
        except EncodeError:
            raise ClassError(errno.EIO) from None


HANDLERS: dict[tuple[str, str], Handler] = {}
"""Every method the embedded OSD knows, by class and name."""


def handles(
    method: Method[Any, R], *, must_exist: bool = False
) -> Callable[[Callable[Concatenate[ObjectContext, P], R]], Callable[Concatenate[ObjectContext, P], R]]:
    """Register a function as the embedded OSD's side of a declared method: the object, then the arguments in
    order.

    The declaration's defaults are already filled in. TypeError where the number of arguments differs. With
    `must_exist`, a missing object is ENOENT even where the request cannot be read.
    """

    def register(function: Callable[Concatenate[ObjectContext, P], R]) -> Callable[Concatenate[ObjectContext, P], R]:
        if len(inspect.signature(function).parameters) != len(method.parameters) + 1:
            raise TypeError(f"{function} takes other arguments than {method}")
        HANDLERS[method.cls, method.name] = Handler(method, function, must_exist)
        return function

    return register
