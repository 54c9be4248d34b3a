"""Operations and completions of the `rados`-shaped face: lists of the port's steps under python-rados' names.

`WriteOp.zero` is left out: python-rados sends its two arguments swapped, and there is no telling what a program
means.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, Final

from rbd_native.embedded.rados_errors import make_ex
from rbd_native.interrupts import DEFERRED
from rbd_native.native import queue, threading
from rbd_native.rados import port

LIBRADOS_OP_FLAG_FAILOK: Final = 2
LIBRADOS_CMPXATTR_OP_EQ: Final = 1
LIBRADOS_CREATE_EXCLUSIVE: Final = 1
LIBRADOS_CREATE_IDEMPOTENT: Final = 0


# --- arguments -------------------------------------------------------------------------------------------------------


def text(value: Any, name: str) -> str:
    """TypeError unless it is a str. As a C string, it ends where a NUL is."""
    if value is None:
        raise TypeError(f"{name} must be a string")
    if not isinstance(value, str):
        raise TypeError(f"Argument '{name}' has incorrect type (expected str, got {type(value).__name__})")
    return value.partition("\0")[0] if "\0" in value else value


def blob(value: Any, name: str) -> bytes:
    """TypeError unless it is exactly bytes, as the binding demands."""
    if type(value) is not bytes:
        raise TypeError(f"Argument '{name}' has incorrect type (expected bytes, got {type(value).__name__})")
    return value


def unsigned(value: Any) -> int:
    """OverflowError unless it fits 64 bits without a sign."""
    if not isinstance(value, int):
        raise TypeError(f"an integer is required, got {type(value).__name__}")
    if value < 0:
        raise OverflowError("can't convert negative value to uint64_t")
    if value >= 2**64:
        raise OverflowError("Python int too large to convert to C unsigned long")
    return value


def small(value: Any, bits: int) -> int:
    """OverflowError unless it fits so few bits without a sign. What is behind a point is cut off, as the binding does."""
    if not isinstance(value, int | float):
        raise TypeError("an integer is required")
    if value < 0:
        raise OverflowError(f"can't convert negative value to uint{bits}_t")
    if value >= 2**bits:
        raise OverflowError(f"value too large to convert to uint{bits}_t")
    return int(value)


def seconds(value: Any) -> int:
    """Of a duration, as they are sent: 32 bits. OverflowError unless they fit 64 bits with a sign."""
    if not isinstance(value, int | float):
        raise TypeError("an integer is required")
    if not -(2**63) <= value < 2**63:
        raise OverflowError("Python int too large to convert to C long")
    return int(value) % 2**32


# --- operations ------------------------------------------------------------------------------------------------------


class _Op:
    """Steps that are gathered, and sent by an Ioctx, which leaves the operation empty."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def create(self) -> Any:
        self.steps = []
        return self

    def release(self) -> None:
        self.steps = []

    def send(self) -> tuple[Any, ...]:
        """The steps, to be sent: they are the operation's no more, whatever becomes of them."""
        steps, self.steps = self.steps, []
        return tuple(steps)

    def set_flags(self, flags: int = 0) -> None:
        """Of the last step. LIBRADOS_OP_FLAG_FAILOK: it may fail. The others are hints."""
        if flags & LIBRADOS_OP_FLAG_FAILOK and self.steps:
            self.steps[-1] = port.FailOk(self.steps[-1])

    def cmpext(self, cmp_buf: bytes, offset: int = 0) -> None:
        self.steps.append(port.CmpExt(unsigned(offset), blob(cmp_buf, "cmp_buf")))


class WriteOp(_Op):
    def new(self, exclusive: int | None = None) -> None:
        if not isinstance(exclusive, int):
            raise TypeError("an integer is required")
        self.steps.append(port.Create(exclusive == LIBRADOS_CREATE_EXCLUSIVE))

    def append(self, to_write: bytes) -> None:
        self.steps.append(port.Append(blob(to_write, "to_write")))

    def write_full(self, to_write: bytes) -> None:
        self.steps.append(port.WriteFull(blob(to_write, "to_write")))

    def write(self, to_write: bytes, offset: int = 0) -> None:
        self.steps.append(port.Write(unsigned(offset), blob(to_write, "to_write")))

    def writesame(self, to_write: bytes, write_len: int, offset: int = 0) -> None:
        self.steps.append(port.WriteSame(unsigned(offset), unsigned(write_len), blob(to_write, "to_write")))

    def assert_version(self, version: int) -> None:
        self.steps.append(port.AssertVersion(unsigned(version)))

    def remove(self) -> None:
        self.steps.append(port.Remove())

    def truncate(self, offset: int) -> None:
        self.steps.append(port.Truncate(unsigned(offset)))

    def set_xattr(self, xattr_name: str, xattr_value: bytes) -> None:
        self.steps.append(port.SetXattr(text(xattr_name, "xattr_name"), blob(xattr_value, "xattr_value")))

    def rm_xattr(self, xattr_name: str) -> None:
        self.steps.append(port.RmXattr(text(xattr_name, "xattr_name")))

    def execute(self, cls: str, method: str, data: bytes) -> None:
        self.steps.append(port.Exec(text(cls, "cls"), text(method, "method"), blob(data, "data")))

    def omap_cmp(self, key: str, val: str, cmp_op: int = LIBRADOS_CMPXATTR_OP_EQ) -> None:
        if cmp_op != LIBRADOS_CMPXATTR_OP_EQ:
            raise make_ex(errno.EOPNOTSUPP, "an embedded cluster compares omap values for equality only")
        self.steps.append(port.OmapCmp(text(key, "key").encode(), text(val, "val").encode()))


class ReadOp(_Op):
    def __init__(self) -> None:
        super().__init__()
        self.takers: list[Callable[[Any], None] | None] = []
        self.sent: list[Callable[[Any], None] | None] = []

    def create(self) -> Any:
        self.takers = []
        return super().create()

    def add(self, step: Any, taker: Callable[[Any], None]) -> None:
        """A step, and who takes its output."""
        self.takers += [None] * (len(self.steps) - len(self.takers))
        self.steps.append(step)
        self.takers.append(taker)

    def send(self) -> tuple[Any, ...]:
        self.sent, self.takers = self.takers, []
        return super().send()

    def take(self, outs: tuple[Any, ...]) -> None:
        """The outputs of the steps that were sent last."""
        for taker, output in zip(self.sent, outs, strict=False):
            if taker is not None:
                taker(output)


class OpCtx:
    """Releases an operation at the end of a `with`."""

    def __enter__(self: Any) -> Any:
        return self.create()

    def __exit__(self: Any, type: Any, msg: Any, traceback: Any) -> None:
        self.release()


class WriteOpCtx(WriteOp, OpCtx):
    """write operation context manager"""


class ReadOpCtx(ReadOp, OpCtx):
    """read operation context manager"""


class OmapIterator(Iterator[tuple[str, bytes | None]]):
    """Keys and values of an omap, once the operation has been done. An empty value comes as None."""

    def __init__(self, ioctx: Any) -> None:
        self.ioctx = ioctx
        self._entries: Iterator[tuple[bytes, bytes]] = iter(())

    def fill(self, values: dict[bytes, bytes]) -> None:
        self._entries = iter(values.items())

    def __next__(self) -> tuple[str, bytes | None]:
        key, value = next(self._entries)
        return key.decode(), value or None


class XattrIterator(Iterator[tuple[str, bytes]]):
    """Names and values of an object's xattrs."""

    def __init__(self, ioctx: Any, oid: str, values: dict[str, bytes]) -> None:
        self.ioctx = ioctx
        self.oid = oid
        self._entries = iter(values.items())

    def __next__(self) -> tuple[str, bytes]:
        return next(self._entries)


# --- completions -----------------------------------------------------------------------------------------------------


class Dispatcher:
    """The thread that runs a client's callbacks, one after the other; it exists once there is one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def post(self, callback: Callable[[], None]) -> None:
        if self._thread is None:
            with self._guard:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()
        self._queue.put(callback)

    def _run(self) -> None:
        while (callback := self._queue.get()) is not None:
            run_callback(callback)
            del callback  # what it holds must not live until the next one comes

    def stop(self) -> None:
        """Run what was posted, then end."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            if thread.ident != threading.get_ident():
                thread.join()


def run_callback(callback: Callable[[], Any]) -> None:
    """Run a program's callback, whatever it raises."""
    try:
        callback()
    except BaseException as error:
        report(error)


def report(error: BaseException) -> None:
    """Hand an exception to Python's hook for those that end in a thread of their own."""
    import threading as patched  # perhaps: the hook is the program's, the threads are not

    seen = (type(error), error, error.__traceback__, patched.current_thread())
    patched.excepthook(patched.ExceptHookArgs(seen))


class Completion:
    """completion object"""

    def __init__(self, ioctx: Any, oncomplete: Callable[..., Any] | None, onsafe: Callable[..., Any] | None = None) -> None:
        self.ioctx = ioctx
        self.oncomplete = oncomplete
        self.onsafe = onsafe
        self._value = 0
        self._complete_event = threading.Event()
        self._called = threading.Event()

    def is_safe(self) -> bool:
        return self.is_complete()

    def is_complete(self) -> bool:
        return self._complete_event.is_set()

    def wait_for_safe(self) -> None:
        self.wait_for_complete()

    def wait_for_complete(self) -> None:
        with DEFERRED:
            self._complete_event.wait()

    def wait_for_safe_and_cb(self) -> None:
        self.wait_for_complete_and_cb()

    def wait_for_complete_and_cb(self) -> None:
        with DEFERRED:
            self._called.wait()

    def get_return_value(self) -> int:
        return self._value

    def finish(self, value: int, *outputs: Any) -> None:
        """It is over: to be called once, in the thread that runs callbacks."""
        self._value = value
        self._complete_event.set()
        try:
            for callback in (self.oncomplete, self.onsafe):
                if callback is not None:
                    run_callback(lambda callback=callback: callback(self, *outputs))  # type: ignore[misc]
        finally:
            self._called.set()
