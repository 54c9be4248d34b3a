"""Paging through the objects of a namespace."""

from __future__ import annotations

from ctypes import Structure, byref, c_size_t, c_void_p, string_at
from typing import Final

from rbd_native.rados._session import Context
from rbd_native.rados.port import Outcome

_PAGE: Final = 1000


class _Item(Structure):
    _fields_ = [
        ("oid_length", c_size_t),
        ("oid", c_void_p),
        ("namespace_length", c_size_t),
        ("namespace", c_void_p),
        ("locator_length", c_size_t),
        ("locator", c_void_p),
    ]


class Listing:
    """One pass over the namespace of a context; for one thread at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._library = context.session.library
        self._cursors: list[c_void_p] = []

    def page(self) -> Outcome:
        """Value: some more names, none at the end. Asks the OSDs and waits."""
        pointer, library = self._context.pointer, self._library
        if not self._cursors:
            # librados moves the second one, which must exist, to where the next page begins.
            begin, end = library.object_list_begin, library.object_list_end
            self._cursors = [c_void_p(make(pointer)) for make in (begin, begin, end)]
        at, following, end = self._cursors
        while not library.object_list_is_end(pointer, at):
            items = (_Item * _PAGE)()
            count = library.object_list(pointer, at, end, _PAGE, None, 0, items, byref(following))
            if count < 0:
                return Outcome(count)
            names = [string_at(item.oid, item.oid_length) for item in items[:count]]
            library.object_list_free(count, items)
            at, following = self._cursors[:2] = following, at
            if names:
                return Outcome(0, [name.decode("utf-8", "surrogateescape") for name in names])
        return Outcome(0, [])

    def close(self) -> None:
        """Give back the cursors."""
        cursors, self._cursors = self._cursors, []
        if self._context.session.alive:
            for cursor in cursors:
                self._library.object_list_cursor_free(self._context.pointer, cursor)
