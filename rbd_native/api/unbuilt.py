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
    "aio_mirror_image_create_snapshot": "(flags, oncomplete)",
    "aio_mirror_image_get_info": "(oncomplete)",
    "aio_mirror_image_get_mode": "(oncomplete)",
    "encryption_format": "(format, passphrase, cipher_alg=RBD_ENCRYPTION_ALGORITHM_AES256)",
    "encryption_load": "(format, passphrase)",
    "encryption_load2": "(specs)",
    "migration_source_spec": "()",
    "mirror_image_create_snapshot": "(flags=0)",
    "mirror_image_demote": "()",
    "mirror_image_disable": "(force)",
    "mirror_image_enable": "(mode=RBD_MIRROR_IMAGE_MODE_JOURNAL)",
    "mirror_image_get_info": "()",
    "mirror_image_get_instance_id": "()",
    "mirror_image_get_mode": "()",
    "mirror_image_get_status": "()",
    "mirror_image_promote": "(force)",
    "mirror_image_resync": "()",
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
    "mirror_image_info_list": "(ioctx, mode_filter=None)",
    "mirror_image_instance_id_list": "(ioctx)",
    "mirror_image_status_list": "(ioctx)",
    "mirror_image_status_summary": "(ioctx)",
    "mirror_mode_get": "(ioctx)",
    "mirror_mode_set": "(ioctx, mirror_mode)",
    "mirror_peer_add": "(ioctx, site_name, client_name, direction=RBD_MIRROR_PEER_DIRECTION_RX_TX)",
    "mirror_peer_bootstrap_create": "(ioctx)",
    "mirror_peer_bootstrap_import": "(ioctx, direction, token)",
    "mirror_peer_get_attributes": "(ioctx, uuid)",
    "mirror_peer_list": "(ioctx)",
    "mirror_peer_remove": "(ioctx, uuid)",
    "mirror_peer_set_attributes": "(ioctx, uuid, attributes)",
    "mirror_peer_set_client": "(ioctx, uuid, client_name)",
    "mirror_peer_set_cluster": "(ioctx, uuid, cluster_name)",
    "mirror_peer_set_name": "(ioctx, uuid, site_name)",
    "mirror_remote_namespace_get": "(ioctx)",
    "mirror_remote_namespace_set": "(ioctx, remote_namespace)",
    "mirror_site_name_get": "(rados)",
    "mirror_site_name_set": "(rados, site_name)",
    "mirror_uuid_get": "(ioctx)",
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
