"""The types of Ceph's options: which texts are a value, and how a value is written.

Contract
    A `Kind` is a pair of pure functions. `parse` takes a text and gives the value or raises ValueError;
    `render` writes a value as Ceph's `conf get` does. Both take and give what librbd does, oddities included,
    because what it refuses we must not store, and what it stores we must understand alike:

    - numbers are decimal, may have blanks in front, never behind (except where a unit lets anything follow);
    - the units of a plain number are powers of 1000 (`1K` is 1000), those of a size powers of 1024, also
      spelt `1Ki`, `1KB`, `1KiB`; bytes may be `1B` and `1BB` (sic);
    - a flag is true, false, or any number of 32 bits;
    - a feature set is a number without the internal bits, or names, whose bits are added up (sic);
      so is a set of kinds of operations.

Source: 20.2.4's behaviour, compared over generated texts in the tests.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rbd_native.constants import FEATURE_NAMES, RBD_FEATURES_DEFAULT

Value = bool | int | float | str


class Kind(NamedTuple):
    parse: Callable[[str], Value]
    render: Callable[[Value], str]


_BLANKS = " \t\n\v\f\r"
_INTEGER = re.compile(rf"[{_BLANKS}]*([+-]?[0-9]+)")
_REAL = re.compile(
    rf"""[{_BLANKS}]*(?P<number>[+-]?(?:
        (?P<decimal>(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)
        |(?P<hex>0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?)
        |inf(?:inity)?
        |(?P<nan>nan)(?:\([0-9a-z_]*\))?
    ))""",
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)
_SI_UNITS: dict[str, int] = {unit: 1000**power for power, unit in enumerate("KMGTPE", start=1)}
_IEC_UNITS: dict[str, int] = {"B": 1} | {unit: 1024**power for power, unit in enumerate("KMGTPE", start=1)}
_SIZE_UNIT = re.compile("B{0,2}|[KMGTPE]i?B?")
_OPERATIONS = {"read": 1, "write": 2, "discard": 4, "write_same": 8, "compare_and_write": 16}
_NUMERIC_FEATURES = 0xFF  # newer bits can be asked for by name only


def _integer(text: str, bits: int = 64) -> int:
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise ValueError(f"not a number: {text!r}")
    return _within(int(match[1]), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError(f"{value} is not between {low} and {high}")
    return value


def _parse_flag(text: str) -> bool:
    named = {"true": True, "false": False}.get(text.lower())
    return bool(_integer(text, bits=32)) if named is None else named


def _parse_scaled(text: str) -> int:
    if re.fullmatch("[0-9+-]+", text):
        return _integer(text)
    scale = _SI_UNITS.get(text[-1:])
    if scale is None:
        raise ValueError(f"not a number with a unit: {text!r}")
    return _integer(text[:-1]) * scale


def _parse_int(text: str) -> int:
    return _within(_parse_scaled(text), -(1 << 63), (1 << 63) - 1)


def _parse_uint(text: str) -> int:
    return _within(_parse_scaled(text), 0, (1 << 64) - 1)


def _parse_size(text: str) -> int:
    digits = text[: len(text) - len(text.lstrip("0123456789+-"))]
    unit = text[len(digits) :]
    if not _SIZE_UNIT.fullmatch(unit):
        raise ValueError(f"not a size: {text!r}")
    return _within(_integer(digits) * _IEC_UNITS[unit[:1] or "B"], 0, (1 << 64) - 1)


def _parse_float(text: str) -> float:
    match = _REAL.fullmatch(text)
    if match is None:
        raise ValueError(f"not a number: {text!r}")
    if match["nan"]:
        return -float("nan") if match["number"].startswith("-") else float("nan")
    try:
        value = float.fromhex(match["number"]) if match["hex"] else float(match["number"])
    except OverflowError as error:
        raise ValueError(f"out of range: {text!r}") from error
    if match["decimal"]:
        # C reports an underflow wherever the result is not exact; decimal numbers that small never are.
        underflow = abs(value) < sys.float_info.min and re.search("[1-9]", match["digits"])
        if underflow or math.isinf(value):
            raise ValueError(f"out of range: {text!r}")
    return value


def _parse_mask(text: str, bits: Mapping[str, int], highest: int, empty: int) -> int:
    """`highest`: of those that are given as a number. `empty`: what no text at all means."""
    text = text.strip(_BLANKS)
    if not text:
        return empty
    if re.fullmatch("[+-]?[0-9]+", text):
        magnitude = _within(int(text.lstrip("+-")), 0, (1 << 64) - 1)
        return _within(-magnitude % (1 << 64) if text[0] == "-" else magnitude, 0, highest)
    names = [name.strip(_BLANKS) for name in text.split(",")]
    unknown = [name for name in names if name not in bits]
    if unknown:
        raise ValueError(f"not known: {', '.join(unknown)}")
    return sum(bits[name] for name in names)


def _parse_features(text: str) -> int:
    return _parse_mask(text, FEATURE_NAMES, _NUMERIC_FEATURES, RBD_FEATURES_DEFAULT)


def _parse_operations(text: str) -> int:
    return _parse_mask(text, _OPERATIONS, sum(_OPERATIONS.values()), 0)


def _render_flag(value: Value) -> str:
    return "true" if value else "false"


def _render_float(value: Value) -> str:
    number = float(value)
    sign = "-" if math.isnan(number) and math.copysign(1, number) < 0 else ""  # Python drops that of a NaN
    return f"{sign}{number:f}"


FLAG = Kind(_parse_flag, _render_flag)
INT = Kind(_parse_int, str)
UINT = Kind(_parse_uint, str)
SIZE = Kind(_parse_size, str)
FLOAT = Kind(_parse_float, _render_float)
TEXT = Kind(str, str)
FEATURES = Kind(_parse_features, str)
OPERATIONS = Kind(_parse_operations, str)
