"""What the binding has and this release does not: each name with its signature, refusing with FunctionNotSupported.

A row leaves its table when the method is written. The coverage table in docs/ is made from these.
"""

from __future__ import annotations

import ast
import errno
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rbd_native import constants
from rbd_native.errors import FunctionNotSupported

T = TypeVar("T")

_LAYOUT = "features=None, order=None, stripe_unit=None, stripe_count=None, data_pool=None"

IMAGE = {
    "encryption_format": "(format, passphrase, cipher_alg=RBD_ENCRYPTION_ALGORITHM_AES256)",
    "encryption_load": "(format, passphrase)",
    "encryption_load2": "(specs)",
    "migration_source_spec": "()",
}

RBD = {
    "migration_abort": "(ioctx, image_name, on_progress=None)",
    "migration_commit": "(ioctx, image_name, on_progress=None)",
    "migration_execute": "(ioctx, image_name, on_progress=None)",
    "migration_prepare": (
        f"(ioctx, image_name, dest_ioctx, dest_image_name, {_LAYOUT}, clone_format=None, flatten=False)"
    ),
    "migration_prepare_import": f"(source_spec, dest_ioctx, dest_image_name, {_LAYOUT})",
    "migration_status": "(ioctx, image_name)",
}


def lacks(table: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """Class decorator: add a refusing method for each row of the table."""

    def decorate(kind: type[T]) -> type[T]:
        for name, parameters in table.items():
            if hasattr(kind, name):
                raise TypeError(f"{kind.__name__}.{name} is built: its row has to go")
            setattr(kind, name, _refusal(kind.__name__, name, parameters))
        return kind

    return decorate


def not_built(what: str) -> FunctionNotSupported:
    return FunctionNotSupported(f"{what} is not built yet", errno=errno.ENOSYS)


def _refusal(owner: str, name: str, parameters: str) -> Callable[..., Any]:
    signature = signature_of(parameters)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        signature.bind(*args, **kwargs)
        raise not_built(f"{owner}.{name}")

    refuse.__name__ = name
    refuse.__qualname__ = f"{owner}.{name}"
    refuse.__doc__ = "Not built yet: raises FunctionNotSupported."
    refuse.__signature__ = signature  # type: ignore[attr-defined]
    refuse.unbuilt = True  # type: ignore[attr-defined]
    return refuse


def signature_of(parameters: str) -> inspect.Signature:
    """Of a method, from its parameters as they are written in the tables, without self."""
    (function,) = ast.parse(f"def f{parameters}: ...").body
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args.args
    required = len(arguments) - len(function.args.defaults)
    defaults = [inspect.Parameter.empty] * required + [_constant(node) for node in function.args.defaults]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = [inspect.Parameter(a.arg, kind, default=d) for a, d in zip(arguments, defaults, strict=True)]
    return inspect.Signature([inspect.Parameter("self", kind), *named])


def _constant(node: ast.expr) -> Any:
    return getattr(constants, node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)
