"""Ceph's wire encoding: a type is declared once, and both encodes and decodes.

Everything is little endian and of fixed width. A string or buffer is a u32 length and its bytes; a list, set
or map is a u32 count and its elements (sets and maps in ascending order of their keys); an optional is a
presence byte and the value; a time stamp is u32 seconds and u32 nanoseconds.

A declaration is an ordinary annotation. The aliases below (``u8`` ... ``i64``, ``boolean``, ``text``,
``blob``, ``rest``, ``utime``) are plain Python types that carry a codec, and ``list[X]``, ``set[X]``,
``dict[K, V]``, ``tuple[X, Y]`` and ``X | None`` are built from them. A dataclass decorated with
:func:`struct` is the concatenation of its fields; with a version, it is wrapped in Ceph's envelope: u8
version of the writer, u8 oldest reader that can decode, u32 length of the body. A reader skips what a newer
writer appended, gives the defaults of the fields that an older one did not know, and refuses what it is told
it cannot understand.

Malformed input raises :class:`DecodeError` before anything is allocated for it: a length or count is first
held against the bytes that are left. Nothing here does I/O.

Source of the format: Ceph's documentation of its encoding (doc/dev/encoding), checked against a running
cluster.
"""

from __future__ import annotations

import dataclasses
import enum
import struct as _struct
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

__all__ = [
    "Codec",
    "DecodeError",
    "EncodeError",
    "Reader",
    "UTime",
    "blob",
    "boolean",
    "codec_of",
    "concatenate",
    "decode",
    "encode",
    "i32",
    "i64",
    "rest",
    "since",
    "struct",
    "tagged",
    "text",
    "u8",
    "u16",
    "u32",
    "u64",
    "utime",
]

T = TypeVar("T")


class DecodeError(ValueError):
    """The bytes are not what their type says: truncated, out of range, or from an incompatible writer."""


class EncodeError(ValueError):
    """The value does not fit its declared type."""


class Reader:
    """A window on a buffer with a position; every access is checked against the end of the window."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int = 0, end: int | None = None) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.end - self.pos

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        start = self.pos
        stop = start + length
        if stop > self.end:
            raise DecodeError(f"{length} bytes wanted at offset {start}, {self.end - start} left")
        self.pos = stop
        return self.data[start:stop]

    def window(self, length: int) -> Reader:
        """A reader of the next `length` bytes; this one moves behind them."""
        start = self.pos
        if length > self.end - start:
            raise DecodeError(f"{length} bytes wanted at offset {start}, {self.end - start} left")
        self.pos = start + length
        return Reader(self.data, start, start + length)

    def unpack(self, form: _struct.Struct) -> Any:
        """The one value of a precompiled struct."""
        start = self.pos
        stop = start + form.size
        if stop > self.end:
            raise DecodeError(f"{form.size} bytes wanted at offset {start}, {self.end - start} left")
        self.pos = stop
        return form.unpack_from(self.data, start)[0]

    def count(self, smallest: int) -> int:
        """A u32 element count that the bytes left can hold, `smallest` being the size of the smallest
        element.
        """
        number: int = self.unpack(_U32)
        if number * max(smallest, 1) > self.left:
            raise DecodeError(f"{number} elements announced, {self.left} bytes left")
        return number


class Codec:
    """How one type goes to bytes and back. `smallest` is the least number of bytes a value takes."""

    smallest: int = 0

    def write(self, value: Any, out: bytearray) -> None:
        raise NotImplementedError

    def read(self, reader: Reader) -> Any:
        raise NotImplementedError


_U8 = _struct.Struct("<B")
_U32 = _struct.Struct("<I")
_ENVELOPE = _struct.Struct("<BBI")


class _Integer(Codec):
    def __init__(self, form: str) -> None:
        self._form = _struct.Struct(form)
        self.smallest = self._form.size

    def write(self, value: Any, out: bytearray) -> None:
        try:
            out += self._form.pack(value)
        except _struct.error as error:
            raise EncodeError(f"{value!r} as {self._form.format}: {error}") from None

    def read(self, reader: Reader) -> int:
        number: int = reader.unpack(self._form)
        return number


class _Boolean(Codec):
    smallest = 1

    def write(self, value: Any, out: bytearray) -> None:
        out.append(1 if value else 0)

    def read(self, reader: Reader) -> bool:
        return bool(reader.unpack(_U8))


class _Blob(Codec):
    smallest = 4

    def write(self, value: Any, out: bytearray) -> None:
        out += _U32.pack(len(value))
        out += value

    def read(self, reader: Reader) -> bytes:
        return reader.take(reader.unpack(_U32))


class _Text(Codec):
    # Names are bytes on the wire and need not be UTF-8: surrogateescape gives every byte string a str, and
    # back.
    smallest = 4

    def write(self, value: Any, out: bytearray) -> None:
        try:
            raw = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise EncodeError(f"{value!r} stands for no bytes: {error}") from None
        out += _U32.pack(len(raw))
        out += raw

    def read(self, reader: Reader) -> str:
        return reader.take(reader.unpack(_U32)).decode("utf-8", "surrogateescape")


class _Rest(Codec):
    def write(self, value: Any, out: bytearray) -> None:
        out += value

    def read(self, reader: Reader) -> bytes:
        return reader.take(reader.left)


class UTime(NamedTuple):
    """A moment of the cluster's clock: UTC seconds since 1970 and nanoseconds."""

    sec: int = 0
    nsec: int = 0


class _Time(Codec):
    smallest = 8
    _form = _struct.Struct("<II")

    def write(self, value: Any, out: bytearray) -> None:
        try:
            out += self._form.pack(*value)
        except _struct.error as error:
            raise EncodeError(f"{value!r} as time stamp: {error}") from None

    def read(self, reader: Reader) -> UTime:
        return UTime(*self._form.unpack(reader.take(8)))


class _Optional(Codec):
    smallest = 1

    def __init__(self, inner: Codec) -> None:
        self._inner = inner

    def write(self, value: Any, out: bytearray) -> None:
        out.append(0 if value is None else 1)
        if value is not None:
            self._inner.write(value, out)

    def read(self, reader: Reader) -> Any:
        return self._inner.read(reader) if reader.unpack(_U8) else None


class _List(Codec):
    smallest = 4

    def __init__(self, inner: Codec) -> None:
        self._inner = inner

    def write(self, value: Any, out: bytearray) -> None:
        out += _U32.pack(len(value))
        for item in value:
            self._inner.write(item, out)

    def read(self, reader: Reader) -> Any:
        read = self._inner.read
        return [read(reader) for _ in range(reader.count(self._inner.smallest))]


class _Set(_List):
    def write(self, value: Any, out: bytearray) -> None:
        super().write(sorted(value, key=_order), out)

    def read(self, reader: Reader) -> Any:
        return set(super().read(reader))


class _Map(Codec):
    smallest = 4

    def __init__(self, key: Codec, value: Codec) -> None:
        self._key = key
        self._value = value

    def write(self, value: Any, out: bytearray) -> None:
        out += _U32.pack(len(value))
        for key in sorted(value, key=_order):
            self._key.write(key, out)
            self._value.write(value[key], out)

    def read(self, reader: Reader) -> Any:
        count = reader.count(self._key.smallest + self._value.smallest)
        return {self._key.read(reader): self._value.read(reader) for _ in range(count)}


class _Tuple(Codec):
    def __init__(self, items: list[Codec], build: Callable[..., Any] | None = None) -> None:
        self._items = items
        self._build = build
        self.smallest = sum(item.smallest for item in items)

    def write(self, value: Any, out: bytearray) -> None:
        for codec, item in zip(self._items, value, strict=True):
            codec.write(item, out)

    def read(self, reader: Reader) -> Any:
        values = tuple(codec.read(reader) for codec in self._items)
        return self._build(*values) if self._build else values


class _Enum(Codec):
    # A value this client does not know is kept as a number: what another release stored is not malformed.
    def __init__(self, kind: type[enum.IntEnum], width: Codec) -> None:
        self._kind = kind
        self._width = width
        self.smallest = width.smallest

    def write(self, value: Any, out: bytearray) -> None:
        self._width.write(int(value), out)

    def read(self, reader: Reader) -> int:
        number: int = self._width.read(reader)
        try:
            return self._kind(number)
        except ValueError:
            return number


def _order(item: Any) -> Any:
    """The C++ ordering of container keys: bytewise for strings, by `sort_key` for structs that say so."""
    if isinstance(item, str):
        return item.encode("utf-8", "surrogateescape")
    return getattr(item, "sort_key", item)


u8 = Annotated[int, _Integer("<B")]
u16 = Annotated[int, _Integer("<H")]
u32 = Annotated[int, _Integer("<I")]
u64 = Annotated[int, _Integer("<Q")]
i32 = Annotated[int, _Integer("<i")]
i64 = Annotated[int, _Integer("<q")]
boolean = Annotated[bool, _Boolean()]
blob = Annotated[bytes, _Blob()]
text = Annotated[str, _Text()]
rest = Annotated[bytes, _Rest()]
"""All bytes up to the end of the message, without a length."""
utime = Annotated[UTime, _Time()]


class _Struct(Codec):
    def __init__(self, kind: type[Any], version: int, compat: int) -> None:
        self._kind = kind
        self._version = version
        self._compat = compat
        # A class whose layout depends on its value says so by a method `wire_version` -> (version, compat).
        self._choose: Callable[[Any], tuple[int, int]] | None = getattr(kind, "wire_version", None)
        hints = typing.get_type_hints(kind, include_extras=True)
        self._fields = [
            (field.name, codec_of(hints[field.name]), field.metadata.get("since", 0))
            for field in dataclasses.fields(kind)
        ]
        needed = [
            f for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING
        ]
        self._oldest = max((field.metadata.get("since", 0) for field in needed), default=0)
        bare = sum(codec.smallest for _, codec, _ in self._fields)
        self.smallest = _ENVELOPE.size if version else bare

    def write(self, value: Any, out: bytearray) -> None:
        if not self._version:
            self._write_fields(value, out, 1)
            return
        version, compat = self._choose(value) if self._choose else (self._version, self._compat)
        with _envelope(out, version, compat):
            self._write_fields(value, out, version)

    def _write_fields(self, value: Any, out: bytearray, version: int) -> None:
        for name, codec, since in self._fields:
            if since <= version:
                codec.write(getattr(value, name), out)

    def read(self, reader: Reader) -> Any:
        if not self._version:
            return self._kind(*[codec.read(reader) for _, codec, _ in self._fields])
        version, body = _open_envelope(reader, self._version, self._kind.__name__)
        if version < self._oldest:
            raise DecodeError(f"{self._kind.__name__} of version {version}: read from {self._oldest} on")
        known = [(name, codec) for name, codec, since in self._fields if since <= version]
        return self._kind(**{name: codec.read(body) for name, codec in known})


class _Tagged(Codec):
    def __init__(self, width: Codec, variants: Collection[Any], unknown: type[Any], version: int) -> None:
        self._width = width
        self._variants = {int(variant.type): codec_of(variant) for variant in variants}
        self._unknown = unknown
        self._version = version
        self.smallest = width.smallest + (_ENVELOPE.size if version else 0)

    def write(self, value: Any, out: bytearray) -> None:
        if not self._version:
            self._write_body(value, out)
            return
        with _envelope(out, self._version, 1):
            self._write_body(value, out)

    def _write_body(self, value: Any, out: bytearray) -> None:
        self._width.write(int(value.type), out)
        if isinstance(value, self._unknown):
            out += value.body
        else:
            self._variants[int(value.type)].write(value, out)

    def read(self, reader: Reader) -> Any:
        body = _open_envelope(reader, self._version, "union")[1] if self._version else reader
        tag: int = self._width.read(body)
        variant = self._variants.get(tag)
        return variant.read(body) if variant else self._unknown(tag, body.take(body.left))


@contextmanager
def _envelope(out: bytearray, version: int, compat: int) -> Iterator[None]:
    """What is written inside becomes the body of an envelope."""
    start = len(out)
    out += _ENVELOPE.pack(version, compat, 0)
    yield
    _U32.pack_into(out, start + 2, len(out) - start - _ENVELOPE.size)


def _open_envelope(reader: Reader, known: int, what: str) -> tuple[int, Reader]:
    """The writer's version and a reader of the body; `reader` moves behind it."""
    version, compat, length = _ENVELOPE.unpack(reader.take(_ENVELOPE.size))
    if compat > known:
        raise DecodeError(f"{what} needs a reader of version {compat}, this one knows {known}")
    return version, reader.window(length)


def tagged(width: Any, variants: Collection[Any], unknown: type[Any], version: int = 0) -> Codec:
    """A union: the number that each variant has as its class variable `type`, then that variant's fields.

    A number that none has is read into `unknown`, a class of two fields: `type` and `body`, the bytes that
    follow. With `version`, all of it is inside an envelope.
    """
    return _Tagged(codec_of(width), variants, unknown, version)


def since(version: int, *, default: Any = dataclasses.MISSING, factory: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that envelopes have from `version` on; older ones give the default."""
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata={"since": version})
    return dataclasses.field(default=default, metadata={"since": version})


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, since))
def struct(version: int = 0, compat: int = 1) -> Callable[[type[T]], type[T]]:
    """Class decorator: a frozen dataclass whose fields are encoded in order; with `version`, inside an
    envelope.
    """

    def decorate(kind: type[T]) -> type[T]:
        made = dataclasses.dataclass(frozen=True, slots=True)(kind)
        _STRUCTS[made] = (version, compat)
        return made

    return decorate


_STRUCTS: dict[type[Any], tuple[int, int]] = {}
_CONTAINERS: dict[Any, type[Codec]] = {list: _List, set: _Set, dict: _Map}


@cache
def codec_of(hint: Any) -> Codec:
    """The codec that an annotation declares. TypeError where it declares none."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _annotated(hint)
    if hint in _STRUCTS:
        return _Struct(hint, *_STRUCTS[hint])
    if isinstance(hint, type) and issubclass(hint, Wire):
        return hint.codec
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        hints = typing.get_type_hints(hint, include_extras=True)
        return _Tuple([codec_of(hints[name]) for name in hint._fields], hint)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](*[codec_of(arg) for arg in typing.get_args(hint)])
    if origin is tuple:
        return _Tuple([codec_of(arg) for arg in typing.get_args(hint)])
    if origin in (typing.Union, types.UnionType):
        (inner,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _Optional(codec_of(inner))
    raise TypeError(f"{hint!r} declares no encoding")


def _annotated(hint: Any) -> Codec:
    base, *extras = typing.get_args(hint)
    for extra in extras:
        if isinstance(extra, Codec):
            return extra
        # Annotated[SomeIntEnum, u8]: an enumeration of the given width.
        if typing.get_origin(extra) is Annotated:
            return _Enum(base, codec_of(extra))
    raise TypeError(f"{hint!r} declares no encoding")


class Wire:
    """Base of hand-written types: a class that names its own codec (unions, addresses)."""

    codec: ClassVar[Codec]


def encode(value: Any, hint: Any = None) -> bytes:
    """The bytes of `value`, by `hint` or by its own declared class."""
    out = bytearray()
    kind: Any = type(value) if hint is None else hint
    codec_of(kind).write(value, out)
    return bytes(out)


def decode(hint: Any, data: bytes) -> Any:
    """The value at the start of `data`; bytes behind it are ignored, as Ceph's own readers do."""
    return codec_of(hint).read(Reader(data))


def concatenate(codecs: Iterable[Codec], values: Iterable[Any]) -> bytes:
    """The fields of a message without an envelope, one behind the other."""
    out = bytearray()
    for codec, value in zip(codecs, values, strict=True):
        codec.write(value, out)
    return bytes(out)
