"""How much of a cluster something asks for: in place of a clock, which a busy machine turns into chance."""

from typing import Any

from rbd_native.rados.port import Call, Operation
from rbd_native.rados.wrapper import Interceptor, Request


class TooMuch(Exception):
    """More was asked for than should be."""


class Labour(Interceptor):
    """Counts what is asked for, since the last :meth:`rest`; TooMuch from `most` on."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.done = 0

    def rest(self) -> None:
        self.done = 0

    def _count(self) -> None:
        self.done += 1
        if self.done > self._most:
            raise TooMuch(self.done)

    def operation(self, request: Request, inner: Operation) -> Operation:
        self._count()
        return inner

    def call(self, request: Request, inner: Call) -> Call:
        if request.kind not in ("unwatch", "disconnect"):  # which whoever did too much is still to do
            self._count()
        return inner

    def watched(self, ioctx: Any) -> Any:
        """The ioctx, with all that is asked of it counted."""
        from tests.faults.held import wrapped

        return wrapped(ioctx, self)
