"""The page that says what is built tells the truth, and nothing of the binding's surface is missing or named otherwise."""

import inspect

import pytest

import rbd_native
from rbd_native.api.unbuilt import signature_of
from scripts.coverage import PAGE, is_built, page
from scripts.surface import SURFACE

METHODS = [(owner, name) for owner, methods in SURFACE.items() for name in methods]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m scripts.coverage"


@pytest.mark.parametrize(("owner", "name"), METHODS)
def test_signature(owner: str, name: str) -> None:
    """The binding's parameters, by name, order and default; ours may come behind them if they may be left out."""
    expected = list(signature_of(SURFACE[owner][name]).parameters.values())
    found = list(inspect.signature(getattr(getattr(rbd_native, owner), name)).parameters.values())
    assert [(p.name, p.default) for p in found[: len(expected)]] == [(p.name, p.default) for p in expected]
    assert all(p.default is not p.empty for p in found[len(expected) :])


@pytest.mark.parametrize(("owner", "name"), [row for row in METHODS if not is_built(*row)])
def test_what_is_not_built_refuses(owner: str, name: str) -> None:
    method = getattr(getattr(rbd_native, owner), name)
    required = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
    with pytest.raises(rbd_native.FunctionNotSupported):
        method(*required)


@pytest.mark.ceph
@pytest.mark.parametrize("owner", SURFACE)
def test_the_table_has_all_that_the_binding_has(owner: str) -> None:
    """Of the binding that is installed here, whatever its release."""
    import rbd

    theirs = {name for name, value in vars(getattr(rbd, owner)).items() if callable(value) and not name.startswith("_")}
    assert theirs <= set(SURFACE[owner])
