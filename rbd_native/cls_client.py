"""Calls of object classes: a method is declared once, for the client that calls it and the embedded OSD that
runs it.

A declaration is a function without a body; its annotations are the wire format::

    @method("rbd", READ)
    def get_size(snap_id: u64) -> tuple[u8, u64]:
        "Order and size in bytes."

The arguments are encoded one behind the other, without an envelope; so is a tuple that is returned.
Parameters with a default are the optional ones that later releases appended: always sent, and absent in short
input. A method of class `lock` takes one versioned struct instead (`envelope=1`).

Calling the declaration makes a :class:`ClassCall`: a step for a compound operation that knows how to decode
its output.

    reply = await io.read(header, [get_size(HEAD).step, get_flags(HEAD).step])
    order, size = await call(io, header, get_size(HEAD))
"""

from __future__ import annotations

import errno
import inspect
import typing
from collections.abc import Callable, Sequence
from enum import Flag, auto
from functools import cached_property
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from rbd_native.encoding import Codec, DecodeError, Reader, codec_of
from rbd_native.rados.port import HEAD, Exec, Io, RadosError, Reply, SnapContext, WriteStep

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Access(Flag):
    """What a method does to its object; it decides whether the OSD runs it on a missing one."""

    READ = auto()
    WRITE = auto()


READ = Access.READ
WRITE = Access.WRITE
READ_WRITE = READ | WRITE


class _Parameter(NamedTuple):
    name: str
    codec: Codec
    default: Any

    @property
    def optional(self) -> bool:
        return self.default is not inspect.Parameter.empty


class ClassCall(NamedTuple, Generic[R]):
    """One call: `step` goes into an operation, `decode` reads what came out. DecodeError where that is
    malformed.
    """

    method: Method[Any, R]
    step: Exec

    def decode(self, output: bytes) -> R:
        return self.method.decode_reply(output)


class Method(Generic[P, R]):
    """A declared method: its name, class and access, and the codecs of its request and reply."""

    def __init__(self, declaration: Callable[P, R], cls: str, access: Access, envelope: int = 0) -> None:
        self.cls = cls
        self.name = declaration.__name__
        self.access = access
        self.envelope = envelope
        self.__doc__ = declaration.__doc__
        self._declaration = declaration

    def __repr__(self) -> str:
        return f"<method {self.cls}.{self.name}>"

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self._declaration, include_extras=True)

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self._declaration)

    @cached_property
    def parameters(self) -> tuple[_Parameter, ...]:
        hints = self._hints
        return tuple(_Parameter(p.name, codec_of(hints[p.name]), p.default) for p in self.signature.parameters.values())

    @property
    def hints(self) -> dict[str, Any]:
        """The annotations by parameter name, `return` included: what a test draws random requests from."""
        return self._hints

    @cached_property
    def _reply(self) -> Codec | None:
        hint = self._hints["return"]
        return None if hint is type(None) else codec_of(hint)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ClassCall[R]:
        return ClassCall(self, Exec(self.cls, self.name, self.encode_request(*args, **kwargs)))

    def encode_request(self, *args: Any, **kwargs: Any) -> bytes:
        parameters = self.parameters
        if kwargs or len(args) != len(parameters):  # seldom: telling what is what takes longer than all the rest
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args = bound.args
        out = bytearray()
        for parameter, value in zip(parameters, args, strict=True):
            parameter.codec.write(value, out)
        return _wrap(out, self.envelope) if self.envelope else bytes(out)

    def decode_request(self, data: bytes) -> list[Any]:
        """The arguments, for the embedded OSD; DecodeError where input is short."""
        if self.envelope:
            # One version, all of whose fields are always there; defaults are the client's convenience.
            body = _unwrap(Reader(data), self.envelope)
            return [p.codec.read(body) for p in self.parameters]
        reader = Reader(data)
        return [p.default if p.optional and not reader.left else p.codec.read(reader) for p in self.parameters]

    def encode_reply(self, value: Any) -> bytes:
        out = bytearray()
        if self._reply is not None:
            self._reply.write(value, out)
        return bytes(out)

    def decode_reply(self, output: bytes) -> R:
        value: R = self._reply.read(Reader(output)) if self._reply is not None else None  # type: ignore[assignment]
        return value


def _wrap(body: bytearray, version: int) -> bytes:
    return bytes((version, 1)) + len(body).to_bytes(4, "little") + body


def _unwrap(reader: Reader, version: int) -> Reader:
    _, compat = reader.take(2)
    if compat > version:
        raise DecodeError(f"needs a reader of version {compat}, this one knows {version}")
    return reader.window(int.from_bytes(reader.take(4), "little"))


def method(cls: str, access: Access, envelope: int = 0) -> Callable[[Callable[P, R]], Method[P, R]]:
    """Declare a method of object class `cls`; with `envelope`, its request is one struct of that version."""

    def declare(declaration: Callable[P, R]) -> Method[P, R]:
        return Method(declaration, cls, access, envelope)

    return declare


async def call(io: Io, oid: str, request: ClassCall[R], *, snap: int = HEAD) -> R:
    """Run one method that only reads. RadosError with its errno, EIO where its output is malformed."""
    reply = await io.read(oid, [request.step], snap=snap)
    return decoded(request, reply.outs[0], oid)


async def call_optional(io: Io, oid: str, request: ClassCall[R], absent: T, *errnos: int) -> R | T:
    """Like :func:`call`, with `absent` where the errno is one of `errnos` (ENOENT alone by default)."""
    try:
        return await call(io, oid, request)
    except RadosError as error:
        if error.errno not in (errnos or (errno.ENOENT,)):
            raise
        return absent


async def call_all(io: Io, oid: str, requests: Sequence[ClassCall[Any]]) -> list[Any]:
    """Run several reading methods as one operation."""
    reply = await io.read(oid, [request.step for request in requests])
    return [decoded(request, output, oid) for request, output in zip(requests, reply.outs, strict=True)]


async def mutate(io: Io, oid: str, *calls: ClassCall[Any], snapc: SnapContext | None = None) -> Reply:
    """Run methods that write, as one operation."""
    steps: list[WriteStep] = [request.step for request in calls]
    return await io.write(oid, steps, snapc=snapc)


async def mutate_present(io: Io, oid: str, request: ClassCall[Any]) -> bool:
    """Like :func:`mutate`, for what need not be there: False where the errno is ENOENT."""
    reply = await io.write(oid, [request.step]).bare()
    if reply.rv < 0 and reply.rv != -errno.ENOENT:
        raise RadosError(-reply.rv, oid, reply)
    return bool(reply.rv == 0)


def decoded(request: ClassCall[R], output: bytes, oid: str) -> R:
    """The decoded output; what an OSD sent and cannot be read is an I/O error to the caller."""
    try:
        return request.decode(output)
    except DecodeError as error:
        raise RadosError(errno.EIO, f"{oid}: {request.method.name}: {error}") from error
