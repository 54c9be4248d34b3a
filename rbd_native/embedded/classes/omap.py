"""Typed access to the omap of an object, shared by the handlers.

A value that cannot be read is EIO, as on a real OSD. What is written here is not seen by later reads of the
same operation.
"""

from __future__ import annotations

import errno
import re
from typing import Any

from rbd_native.embedded.objclass import ClassError, ObjectContext
from rbd_native.encoding import DecodeError, decode, encode

_HEX = re.compile(rb"[0-9a-fA-F]+")


def key(prefix: bytes, name: str) -> bytes:
    """Names are bytes on the wire; `name` stands for them."""
    return prefix + name.encode("utf-8", "surrogateescape")


def name_of(prefix: bytes, entry: bytes) -> str:
    return entry[len(prefix) :].decode("utf-8", "surrogateescape")


def number(entry: bytes) -> int:
    """The hexadecimal number that a key, or the rest of one, begins with: 0 for none, at most 2**64 - 1."""
    digits = _HEX.match(entry)
    return min(int(digits[0], 16), 2**64 - 1) if digits else 0


def parse(hint: Any, raw: bytes) -> Any:
    try:
        return decode(hint, raw)
    except DecodeError:
        raise ClassError(errno.EIO) from None


def find(context: ObjectContext, entry: bytes, hint: Any, default: Any = None) -> Any:
    """The value of a key, or `default` where there is none."""
    raw = context.omap(entry)
    return default if raw is None else parse(hint, raw)


def need(context: ObjectContext, entry: bytes, hint: Any) -> Any:
    """The value of a key; ENOENT where there is none."""
    raw = context.omap(entry)
    if raw is None:
        raise ClassError(errno.ENOENT)
    return parse(hint, raw)


def put(context: ObjectContext, entry: bytes, value: Any, hint: Any = None) -> None:
    context.set_omap({entry: encode(value, hint)})


def put_raw(context: ObjectContext, entry: bytes, value: bytes = b"") -> None:
    context.set_omap({entry: value})


def drop(context: ObjectContext, *entries: bytes) -> None:
    """Remove keys, whether they are there or not. ENOENT on a missing object."""
    require_object(context)
    context.remove_omap(entries)


def discard(context: ObjectContext, *entries: bytes) -> None:
    """Remove keys, whether they or the object are there or not."""
    if context.exists():
        context.remove_omap(entries)


def listing(context: ObjectContext, prefix: bytes, after: str, limit: int) -> dict[str, bytes]:
    """Up to `limit` entries of a prefix from behind the name `after`, without the prefix, ascending."""
    found: dict[str, bytes] = {}
    last, more = key(prefix, after), True
    while more and len(found) < limit:
        page, more = context.omap_page(last, min(limit - len(found), 1024), prefix)
        for last, value in page.items():
            found[name_of(prefix, last)] = value
    return found


def entries(context: ObjectContext, prefix: bytes) -> dict[str, bytes]:
    """All entries of a prefix, as a listing gives them: without one that is named by the bare prefix."""
    return listing(context, prefix, "", 2**64 - 1)


def entries_so_far(context: ObjectContext, prefix: bytes) -> dict[str, bytes]:
    """As :func:`entries`; none on an object that this operation has created."""
    try:
        return entries(context, prefix)
    except ClassError as error:
        if error.errno != errno.ENOENT:
            raise
        return {}


def require_object(context: ObjectContext) -> None:
    if not context.exists():
        raise ClassError(errno.ENOENT)


def data(context: ObjectContext, length: int = 0) -> bytes:
    """The object's data up to `length` (0: all of it); nothing where the object is missing or empty."""
    return context.read(0, length) if context.exists() and context.size() else b""
