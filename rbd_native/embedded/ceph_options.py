"""Ceph's options that do not concern an embedded cluster: a program that sets one, as it would for a real cluster, may.

`ceph_options.txt` has one a line: name, kind (with "!" where it cannot be set once connected), default. Source: 16.2.15, as
its librados and its monitor show them.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final

from rbd_native.option_types import FLAG, FLOAT, INT, SIZE, TEXT, UINT, Kind
from rbd_native.options import Option

_LEVEL: Final = re.compile(r"([0-9]{1,2})(?:/([0-9]{1,2})?)?")


def _parse_level(text: str) -> str:
    """Of what is logged, and of what is kept in memory: the same where only one is given."""
    found = _LEVEL.fullmatch(text)
    if found is None:
        raise ValueError(f"no level of debugging: {text!r}")
    return f"{int(found[1])}/{int(found[2] or found[1])}"


LEVEL: Final = Kind(_parse_level, str)

_KINDS: Final = {"flag": FLAG, "float": FLOAT, "int": INT, "level": LEVEL, "size": SIZE, "text": TEXT, "uint": UINT}


@functools.cache
def _table() -> dict[str, tuple[Option, bool]]:
    """By name: the option, and whether it is fixed once connected."""
    found = {}
    for line in Path(__file__).with_name("ceph_options.txt").read_text(encoding="utf-8").splitlines():
        name, kind, default = (*line.split(" ", 2), "")[:3]
        of = _KINDS[kind.rstrip("!")]
        found[name] = Option(of, of.parse(default)), kind.endswith("!")
    return found


def names() -> frozenset[str]:
    return frozenset(_table())


def find(name: str) -> Option | None:
    known = _table().get(name)
    return None if known is None else known[0]


def is_fixed(name: str) -> bool:
    """Whether it cannot be set once connected."""
    known = _table().get(name)
    return known is not None and known[1]
