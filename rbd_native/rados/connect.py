"""From what a user opened to the port."""

from __future__ import annotations

from typing import Any

from rbd_native.rados.port import Io


def port_for(ioctx: Any) -> Io:
    """The port of an embedded Ioctx, or of one of python-rados. TypeError for anything else."""
    port = getattr(ioctx, "rbd_native_port", None)
    if isinstance(port, Io):
        return port
    from rbd_native.rados.librados import adapt

    return adapt(ioctx)
