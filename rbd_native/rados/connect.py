"""From what a user opened to the port.

Neither this nor anything it imports at its head needs python-rados: that is a compiled module of the distribution's
Ceph packages, and whoever works on an embedded cluster need not have it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

from rbd_native.rados.port import Cluster, Io

_HOW: Final = (
    "python-rados is not there for this Python ({}): it is on no package index, but comes with Ceph. Install it with the"
    " system's package manager (apt install python3-rados, or dnf install python3-rados), and run the system's Python,"
    " in a virtual environment if you like: /usr/bin/python3 -m venv --system-site-packages DIRECTORY."
    " Without a cluster, say for tests, there is one in this package: `from rbd_native import embedded as rados`,"
    " see docs/embedded.md"
)


def import_rados() -> ModuleType:
    """The module `rados`. ImportError which says where to get it."""
    try:
        import rados
    except ImportError as error:
        raise ImportError(_HOW.format(sys.executable), name="rados") from error
    module: ModuleType = rados
    return module


def port_for(ioctx: Any) -> Io:
    """The port of an embedded Ioctx, or of one of python-rados. TypeError for anything else.

    The ioctx must be open; it may be closed afterwards, its connection may not.
    """
    port = getattr(ioctx, "rbd_native_port", None)
    if isinstance(port, Io):
        return port
    rados = sys.modules.get("rados")
    if rados is None or not isinstance(ioctx, rados.Ioctx):
        raise TypeError(f"an open Ioctx of rados or rbd_native.embedded is wanted, not {type(ioctx).__name__}")
    from rbd_native.rados.librados import adapt

    return adapt(ioctx)


def cluster_for(connection: Any) -> Cluster:
    """The same for a connected Rados, of python-rados or embedded."""
    port = getattr(connection, "rbd_native_port", None)
    if isinstance(port, Cluster):
        return port
    rados = sys.modules.get("rados")
    if rados is None or not isinstance(connection, rados.Rados):
        raise TypeError(f"a connected Rados of rados or rbd_native.embedded is wanted, not {type(connection).__name__}")
    from rbd_native.rados.librados import adapt_connection

    return adapt_connection(connection)
