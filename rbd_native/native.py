"""The operating system's threads, also where eventlet or gevent has put its own in the place of Python's.

What is waited for here comes from real threads (librados', or those of an embedded cluster), and programs that use such
libraries call us in real threads, too (eventlet's tpool, gevent's threadpool), as they have to call librbd: a green lock
would be let go in another thread than the one whose loop is to be told. So the modules that wait take `threading`,
`queue`, `socket` and `time` from here. Whoever patches does so before importing us, as these libraries demand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["queue", "socket", "threading", "time"]


def _from_eventlet() -> Callable[[str], ModuleType] | None:
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is None or not any(map(patcher.is_monkey_patched, ("thread", "socket", "time"))):
        return None
    original: Callable[[str], ModuleType] = patcher.original
    return original


_BUILT_ON: tuple[str, ...] = ("_thread", "threading", "time", "select")


def _from_gevent() -> Callable[[str], ModuleType] | None:
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.saved:
        return None

    def original(name: str) -> ModuleType:
        """Python's module, executed anew, while those that it builds on are as they were."""
        put_aside = {inner: sys.modules[inner] for inner in _BUILT_ON if inner in sys.modules}
        try:
            for inner in put_aside:
                sys.modules[inner] = _restored(inner, monkey.saved)
            return _executed(name) if name in ("queue", "socket", "threading") else sys.modules[name]
        finally:
            sys.modules.update(put_aside)

    return original


def _restored(name: str, saved: dict[str, dict[str, Any]]) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update({**vars(sys.modules[name]), **saved.get(name, {})})
    return module


def _executed(name: str) -> ModuleType:
    import importlib.util

    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    import queue
    import socket
    import threading
    import time
else:
    import importlib

    _original = _from_eventlet() or _from_gevent() or importlib.import_module
    threading, queue, socket, time = map(_original, ("threading", "queue", "socket", "time"))
