"""Random values for any declared type: drawn by hypothesis, or, faster and evenly, from a seed.

:class:`Values` walks an annotation of :mod:`rbd_native.encoding` and asks a :class:`Source` at each choice.
With `domains` it draws from so few values that calls meet each other's state: what a number or name may be is
then decided by the name of its parameter or field.
"""

import dataclasses
import enum
import random
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rbd_native.encoding import Codec, EncodeError, UTime, codec_of
from rbd_native.types import AddressType, EntityAddress, EntityName, EntityType, SnapshotNamespace
from rbd_native.types import UnknownSnapshotNamespace as Unknown


class Source:
    """Where choices come from: hypothesis' `draw`."""

    def __init__(self, draw: Callable[[SearchStrategy[Any]], Any]) -> None:
        self._draw = draw

    def pick(self, options: Sequence[Any]) -> Any:
        return self._draw(st.sampled_from(options))

    def integer(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def binary(self, length: int) -> bytes:
        return bytes(self._draw(st.binary(max_size=length)))


class Seeded(Source):
    """The same choices for the same seed."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)

    def pick(self, options: Sequence[Any]) -> Any:
        return self.random.choice(options)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def binary(self, length: int) -> bytes:
        return self.random.randbytes(self.random.randint(0, length))


def values_of(hint: Any) -> SearchStrategy[Any]:
    """All that a type can hold."""

    @st.composite
    def values(draw: Callable[[SearchStrategy[Any]], Any]) -> Any:
        return Values(Source(draw)).of(hint)

    return values()


class Values:
    """Values of declared types. `domains`: name of a parameter, of a field or "class.field" to what it may be."""

    def __init__(self, source: Source, domains: Mapping[str, Sequence[Any]] | None = None) -> None:
        self.source = source
        self._domains = domains
        self._several = 4 if domains is None else 2

    def of(self, hint: Any, name: str = "") -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            return self._leaf(arguments[0], codec_of(hint), name)
        if dataclasses.is_dataclass(hint):
            return self._struct(hint)
        if origin is tuple:
            return tuple(self.of(argument, name) for argument in arguments)
        if origin in (typing.Union, types.UnionType):
            return self.of(arguments[0], name) if self.source.pick([True, False]) else None
        many = range(self.source.integer(0, self._several))
        if origin is dict:
            return {self.of(arguments[0], name): self.of(arguments[1], name) for _ in many}
        if origin in (list, set):
            return origin(self.of(arguments[0], name) for _ in many)
        raise TypeError(f"no values for {hint!r}")

    def _struct(self, kind: Any) -> Any:
        if kind is EntityAddress:
            nonce, sockaddr = self.source.integer(0, 2**32 - 1), self.source.binary(30)
            return EntityAddress(self.source.pick(list(AddressType)), nonce, sockaddr)
        if kind is EntityName and self._domains is not None:
            return EntityName(EntityType.CLIENT, self.source.pick(self._domains["client"]))
        hints = typing.get_type_hints(kind, include_extras=True)
        names = {field.name: f"{kind.__name__}.{field.name}" for field in dataclasses.fields(kind)}
        known = self._domains or {}
        return kind(**{name: self.of(hints[name], full if full in known else name) for name, full in names.items()})

    def _leaf(self, base: Any, codec: Codec, name: str) -> Any:
        if base == SnapshotNamespace:
            kinds = typing.get_args(base)
            kind = self.source.pick([*kinds, kinds[0]])
            return self._struct(kind) if kind is not Unknown else Unknown(self.source.integer(4, 90), b"\7" * 9)
        fitting = [value for value in (self._domains or {}).get(name, ()) if _fits(value, base, codec)]
        if fitting:
            return self.source.pick(fitting)
        if isinstance(base, type) and issubclass(base, enum.IntFlag):
            return base(self.source.pick([0, *base, 3]))
        if isinstance(base, type) and issubclass(base, enum.IntEnum):
            return self.source.pick([*base, *base, 77])
        if self._domains is None:
            return self._any(base, codec)
        return self.source.pick(_FEW[base])

    def _any(self, base: Any, codec: Codec) -> Any:
        if base is int:
            return self.source.integer(*integer_range(codec))
        if base is str:
            return self.source.binary(12).decode("utf-8", "surrogateescape")
        if base is UTime:
            return UTime(self.source.integer(0, 2**32 - 1), self.source.integer(0, 2**32 - 1))
        return self.source.pick([True, False]) if base is bool else self.source.binary(20)


_FEW: dict[Any, list[Any]] = {
    int: [0, 1, 2, 3],
    str: ["", "a", "b", "c1"],
    bytes: [b"", b"x", b"value"],
    bool: [False, True],
    UTime: [UTime(), UTime(1000, 5), UTime(2000, 999_999_999)],
}


def _fits(value: Any, base: Any, codec: Codec) -> bool:
    if type(value) is not base:
        return False
    try:
        codec.write(value, bytearray())
    except EncodeError:
        return False
    return True


def integer_range(codec: Codec) -> tuple[int, int]:
    """What an integer codec can hold."""
    bits = 8 * codec.smallest
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if _fits(-1, int, codec) else (0, 2**bits - 1)
