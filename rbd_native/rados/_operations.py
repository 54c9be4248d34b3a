"""Operations on objects, as librados runs them.

Lone reads and writes have calls of their own in librados; everything else is built as an operation of steps. In either
form `start` submits with a completion, and `block` is the synchronous call in this thread, which saves the way through
librados' callback thread.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from ctypes import c_void_p
from typing import Any, Final

from rbd_native.engine import Resume
from rbd_native.rados._buffers import Pin, blank, pinned
from rbd_native.rados._session import Context, Flight
from rbd_native.rados._steps import READERS, WRITERS, Output, Unsupported, Xattr
from rbd_native.rados.composed import ComposedOperation
from rbd_native.rados.port import Buffer, Io, Operation, Read, ReadInto, ReadStep, Reply

_SHUT_DOWN: Final = Reply(-errno.ESHUTDOWN)
_ROOM: Final = 65536


class Settled(Operation):
    """An operation whose reply is known without sending it."""

    __slots__ = ("_reply",)

    def __init__(self, oid: str, reply: Reply) -> None:
        super().__init__(oid)
        self._reply = reply

    def start(self, resume: Resume) -> Reply:
        return self._reply

    def block(self) -> Reply:
        return self._reply


class _Sent(Flight, Operation):
    """What the kinds of operation have in common."""

    __slots__ = ("_name", "_resume", "context")

    def __init__(self, context: Context, oid: str, name: bytes) -> None:
        self.oid = oid
        self.context = context
        self._name = name

    def operate(self, pointer: int) -> int:
        """Run it in this thread."""
        raise NotImplementedError

    def block(self) -> Reply:
        context = self.context
        session = context.session
        if not session.alive:
            return _SHUT_DOWN
        pointer = context.take()
        rv, version = -errno.EOPNOTSUPP, 0
        reply: Reply
        try:
            rv = self.operate(pointer)
            if rv >= 0:
                version = session.library.get_last_version(pointer)
        except Unsupported:
            pass  # the reply says so
        finally:
            context.give(pointer)
            reply = self.result(rv, version)
        return reply


class ReadOne(_Sent):
    """A lone read."""

    __slots__ = ("_buffer", "_length", "_offset")

    def __init__(self, context: Context, oid: str, name: bytes, step: Read) -> None:
        self.oid = oid
        self.context = context
        self._name = name
        self._offset, self._length = step

    def submit(self, pointer: int, completion: c_void_p) -> int:
        length = self._length
        self._buffer = blank(length)
        rv: int = self.context.session.library.aio_read(pointer, self._name, completion, self._buffer, length, self._offset)
        return rv

    def operate(self, pointer: int) -> int:
        length = self._length
        self._buffer = blank(length)
        rv: int = self.context.session.library.read(pointer, self._name, self._buffer, length, self._offset)
        return rv

    def result(self, rv: int, version: int) -> Reply:
        if rv < 0:
            return Reply(rv)
        buffer = self._buffer
        # What lies behind the bytes that were read was never written to.
        return Reply(0, (buffer if rv == self._length else buffer[:rv],), version)


class ReadOneInto(_Sent):
    """A lone read into memory of the caller's."""

    __slots__ = ("_offset", "_pin", "_room")

    def __init__(self, context: Context, oid: str, name: bytes, step: ReadInto) -> None:
        super().__init__(context, oid, name)
        self._offset, self._room = step
        self._pin: Pin | None = None

    def submit(self, pointer: int, completion: c_void_p) -> int:
        send = self.context.session.library.aio_read
        self._pin = Pin(self._room, writable=True)
        rv: int = send(pointer, self._name, completion, self._pin.address, self._pin.length, self._offset)
        return rv

    def operate(self, pointer: int) -> int:
        self._pin = Pin(self._room, writable=True)
        rv: int = self.context.session.library.read(pointer, self._name, self._pin.address, self._pin.length, self._offset)
        return rv

    def result(self, rv: int, version: int) -> Reply:
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.release()
        return Reply(rv) if rv < 0 else Reply(0, (rv,), version)


class WriteOne(_Sent):
    """A lone write at an offset, or (`offset` None) of the whole content."""

    __slots__ = ("_data", "_rest")

    def __init__(self, context: Context, oid: str, name: bytes, data: Buffer, offset: int | None) -> None:
        self.oid = oid
        self.context = context
        self._name = name
        self._data = data
        self._rest = () if offset is None else (offset,)

    def submit(self, pointer: int, completion: c_void_p) -> int:
        library = self.context.session.library
        send = library.aio_write if self._rest else library.aio_write_full
        name, data, rest = self._name, self._data, self._rest
        rv: int
        if type(data) is bytes:
            rv = send(pointer, name, completion, data, len(data), *rest)
        else:
            rv = pinned(data, lambda place, length: send(pointer, name, completion, place, length, *rest))
        return rv

    def operate(self, pointer: int) -> int:
        library = self.context.session.library
        send = library.write if self._rest else library.write_full
        name, rest = self._name, self._rest
        data = self._data
        rv: int
        if type(data) is bytes:
            rv = send(pointer, name, data, len(data), *rest)
        else:
            rv = pinned(data, lambda place, length: send(pointer, name, place, length, *rest))
        return rv

    def result(self, rv: int, version: int) -> Reply:
        return Reply(rv) if rv < 0 else Reply(0, (None,), version)


class RemoveOne(_Sent):
    """A lone removal."""

    __slots__ = ()

    def submit(self, pointer: int, completion: c_void_p) -> int:
        rv: int = self.context.session.library.aio_remove(pointer, self._name, completion)
        return rv

    def operate(self, pointer: int) -> int:
        rv: int = self.context.session.library.remove(pointer, self._name)
        return rv

    def result(self, rv: int, version: int) -> Reply:
        return Reply(rv) if rv < 0 else Reply(0, (None,), version)


class _Compound(_Sent):
    """Steps, built into an operation when it is sent; nothing is allocated before."""

    __slots__ = ("_operation", "_outputs", "_steps")

    def __init__(self, context: Context, oid: str, name: bytes, steps: Sequence[Any]) -> None:
        self.oid = oid
        self.context = context
        self._name = name
        self._steps = steps
        self._operation = 0
        self._outputs: list[Output | None] = []


class CompoundRead(_Compound):
    __slots__ = ()

    def _build(self) -> int:
        tools = self.context.session.tools
        operation: int = tools.library.create_read_op()
        self._operation = operation
        for step in self._steps:
            self._outputs.append(READERS[type(step)](tools, operation, step))
        return operation

    def submit(self, pointer: int, completion: c_void_p) -> int:
        send = self.context.session.library.aio_read_op_operate
        rv: int = send(self._build(), pointer, completion, self._name, 0)
        return rv

    def operate(self, pointer: int) -> int:
        rv: int = self.context.session.library.read_op_operate(self._build(), pointer, self._name, 0)
        return rv

    def result(self, rv: int, version: int) -> Reply:
        outputs, self._outputs = self._outputs, []
        try:
            # Also where the operation failed: then it was at a later step.
            if any(type(output) is Xattr and output.absent for output in outputs):
                return Reply(-errno.ENODATA)
            if rv < 0:
                return Reply(rv)
            outs = tuple(None if output is None else output.take() for output in outputs)
        finally:
            for output in outputs:
                if output is not None:
                    output.free()
            if self._operation:
                self.context.session.library.release_read_op(self._operation)
                self._operation = 0
        return Reply(0, outs, version)


class CompoundWrite(_Compound):
    __slots__ = ()

    def _build(self) -> int:
        tools = self.context.session.tools
        operation: int = tools.library.create_write_op()
        self._operation = operation
        for step in self._steps:
            WRITERS[type(step)](tools, operation, step)
        return operation

    def submit(self, pointer: int, completion: c_void_p) -> int:
        send = self.context.session.library.aio_write_op_operate
        rv: int = send(self._build(), pointer, completion, self._name, None, 0)
        return rv

    def operate(self, pointer: int) -> int:
        rv: int = self.context.session.library.write_op_operate2(self._build(), pointer, self._name, None, 0)
        return rv

    def result(self, rv: int, version: int) -> Reply:
        if self._operation:
            self.context.session.library.release_write_op(self._operation)
            self._operation = 0
        return Reply(rv) if rv < 0 else Reply(0, (None,) * len(self._steps), version)


def whole_read(io: Io, oid: str, steps: Sequence[ReadStep], snap: int) -> Operation:
    """A read with a step of unknown length: librados wants to be told how much room to make.

    It is read with some room, and again, all of it, with more, until some is left over.
    """

    def with_room(step: ReadStep, room: int) -> ReadStep:
        return Read(step.offset, room) if type(step) is Read and not step.length else step

    async def read() -> Reply:
        room = _ROOM
        while True:
            sized = [with_room(step, room) for step in steps]
            reply = await io.read(oid, sized, snap=snap).bare()
            outs = zip(steps, sized, reply.outs, strict=False)
            if all(len(out) < room for step, sent, out in outs if sent is not step):
                return reply
            room *= 16

    return ComposedOperation(oid, read)
