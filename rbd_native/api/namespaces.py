"""The methods of class RBD about the namespaces of a pool."""

from __future__ import annotations

from typing import Any

from rbd_native.api.boundary import drive, name_text, shown
from rbd_native.operations import namespaces
from rbd_native.rados.connect import port_for


class NamespaceMethods:
    """What class RBD has of them. They act on the pool, whatever namespace the ioctx is set to."""

    def namespace_create(self, ioctx: Any, name: str | bytes) -> None:
        """Raises ImageExists; InvalidArgument for ""."""
        text = name_text(name, "name")
        drive(namespaces.create(port_for(ioctx), text), "error creating namespace")

    def namespace_remove(self, ioctx: Any, name: str | bytes) -> None:
        """Raises ImageNotFound, ImageBusy (it has images, if only in the trash); InvalidArgument for ""."""
        text = name_text(name, "name")
        drive(namespaces.remove(port_for(ioctx), text), "error removing namespace")

    def namespace_exists(self, ioctx: Any, name: str | bytes) -> bool:
        """Raises InvalidArgument for ""."""
        text = name_text(name, "name")
        return drive(namespaces.exists(port_for(ioctx), text), "error verifying namespace")

    def namespace_list(self, ioctx: Any) -> list[str]:
        """The names, by their bytes."""
        return [shown(name) for name in drive(namespaces.listing(port_for(ioctx)), "error listing namespaces")]
