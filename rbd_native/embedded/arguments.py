"""Options among the arguments of a program, as Ceph's programs take them: `--name value`, `--name=value`, `--no-name`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rbd_native.embedded.conf import Conf, find
from rbd_native.option_types import FLAG

_SHORT: Final = {"-m": "mon_host", "--keyring": "keyring", "-k": "keyring"}


def take_options(conf: Conf, arguments: Sequence[str]) -> list[str]:
    """Set those that are options; what is none, and all that follows "--", is returned. ValueError for a bad value."""
    left: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*left, word, *rest]
        name, equals, value = word.partition("=")
        known = _SHORT.get(name) or (name[2:].replace("-", "_") if name.startswith("--") else "")
        option = find(known) if known else None
        if option is None:
            positive = known.removeprefix("no_")
            off = find(positive) if positive != known and not equals else None
            if off is None or off.kind is not FLAG:
                left.append(word)
            else:
                conf.set(positive, "false")
            continue
        if not equals:
            if option.kind is FLAG and not (rest and rest[0].lower() in ("true", "false", "0", "1")):
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise ValueError(f"option {word} without a value")
        conf.set(known, value)
    return left
