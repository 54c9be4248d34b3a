"""What of the binding's surface is built: `python -m scripts.coverage` writes docs/coverage.md.

A method is built unless it is one of those that :mod:`rbd_native.api.unbuilt` makes, which refuse with
FunctionNotSupported.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import rbd_native
from scripts.surface import ITERATORS, LATER, SURFACE

PAGE: Final = Path(__file__).parent.parent / "docs" / "coverage.md"

_HEAD: Final = """\
# What of the `rbd` binding is built

Made by `python -m scripts.coverage`; a test fails where it is not up to date. Every method of the binding's releases 16
to 20 is here, under its name and with its parameters. What is not built yet refuses, with FunctionNotSupported: it never
pretends.
"""

_BEYOND: Final = """
## Beyond the binding

| method | parameters | |
|---|---|---|
"""


def is_built(owner: str, name: str) -> bool:
    """AttributeError where the method is neither built nor refused."""
    method: Any = getattr(getattr(rbd_native, owner), name)
    return not getattr(method, "unbuilt", False)


def page() -> str:
    """The text of docs/coverage.md."""
    parts = [_HEAD]
    for owner, methods in SURFACE.items():
        built = sum(is_built(owner, name) for name in methods)
        parts.append(f"\n## {owner}: {built} of {len(methods)}\n\n| method | parameters | |\n|---|---|---|\n")
        parts += [_row(owner, name, parameters) for name, parameters in methods.items()]
    there = [name for name in ITERATORS if hasattr(rbd_native, name)]
    parts.append(f"\n## Iterators: {len(there)} of {len(ITERATORS)}\n\n| class | |\n|---|---|\n")
    parts += [f"| `{name}` | {'built' if name in there else 'not built'} |\n" for name in ITERATORS]
    return "".join([*parts, _BEYOND, *_beyond()])


def _beyond() -> Iterator[str]:
    for owner, methods in SURFACE.items():
        for name, method in inspect.getmembers(getattr(rbd_native, owner), inspect.isfunction):
            if not name.startswith("_") and name not in methods:
                parameters = ", ".join(list(inspect.signature(method).parameters)[1:])
                what = " ".join((method.__doc__ or "").partition("\n\n")[0].split())
                yield f"| `{owner}.{name}` | `({parameters})` | {what} |\n"


def _row(owner: str, name: str, parameters: str) -> str:
    later = " (since 17 or later)" if f"{owner}.{name}" in LATER else ""
    state = "built" if is_built(owner, name) else "refused"
    return f"| `{name}`{later} | `{parameters}` | {state} |\n"


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
