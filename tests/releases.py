"""Where the releases of Ceph differ, in one table, and which of them the tests run beside.

Newest is right: rbd_native and the embedded cluster do what release 20 does. A test that holds them against an older
librbd or OSD asks here what that one does instead; what is not in the table must be the same.
"""

import errno
import functools
import re
import subprocess
from typing import Any, Final

NEWEST: Final = 20

GROUP_SNAP_ORDER: Final = "class rbd: group_snap_list_order, and a key snap_order_ for each snapshot"
REMOTE_NAMESPACE: Final = "class rbd: mirror_remote_namespace_get and mirror_remote_namespace_set"
INIT_ONLY: Final = "class rbd: mirror_mode_set to INIT_ONLY"
LISTED_TOO_SOON: Final = "errno of listing the omap of an object that the same operation has made"

DIFFERENCES: Final[dict[str, dict[int, Any]]] = {
    # What an OSD does. Class methods that it does not know are EOPNOTSUPP.
    GROUP_SNAP_ORDER: {16: False, 20: True},
    REMOTE_NAMESPACE: {16: False, 20: True},
    INIT_ONLY: {16: False, 20: True},
    LISTED_TOO_SOON: {16: errno.ENOENT, 20: errno.EIO},
}
"""What is differently done: the value for each release from which on it holds."""


@functools.cache
def release() -> int:
    """The major number of the release that is installed: of librbd, of its binding and of the cluster alike."""
    words = subprocess.run(["rbd", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"ceph version (\d+)\.", words)
    assert found, words
    return int(found[1])


def told(behaviour: str, of: int | None = None) -> Any:
    """What release `of` (default: the installed one) does there."""
    values = DIFFERENCES[behaviour]
    return values[max(since for since in values if since <= (of or release()))]
