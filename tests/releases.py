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

OTHER_MEMBERS: Final = "rollback to a group snapshot of other members"
MODE_OF_NONE: Final = "mirror_image_get_mode of an image that is not mirrored"
NOT_MIRRORED: Final = "promote and resync of an image that is not mirrored"
NAMELESS_PARTS: Final = "image_snap_name of a group snapshot without members"
TRANSIENT: Final = "lock mode EXCLUSIVE_TRANSIENT"
DEEP_COPYING: Final = "what deep_copy calls itself in its errors"
EXCLUDE_OPS: Final = "option rbd_qos_exclude_ops"
FROM_BYTES: Final = "diff_iterate from a snapshot given as bytes"
FROM_ZERO: Final = "diff_iterate from snapshot id 0"
CUT_OFF: Final = "diff_iterate: a range that neither version has"
PARENT_BY_ID: Final = "clone of a snapshot given by its id"
FORMAT_ZERO: Final = "clone_format=0"
STATUS_OF_NEW: Final = "class rbd: mirror_image_status_set of an image that is just being made"
TRASH_FROM_THE_START: Final = "pool_init and namespace_create make rbd_trash"
REMOVAL_TAKES_AN_ID: Final = "removing a self-managed snapshot uses up an id of the pool"
KEY_LENGTH: Final = "characters of a key of cephx, in base64"
SIZE_UNITS: Final = "an option's size is spelt 1K, 1Ki, 1KB or 1KiB; before: 1K and any one character"
TIMES_IN_UTC: Final = "times have a time zone, UTC"
MEMBER_OF_GROUP: Final = "an exception ImageMemberOfGroup"
MODE_OF_LOCK_FIRST: Final = "lock_acquire looks at the mode before it looks whether the image can be locked"
NOT_UTF8: Final = "text that is not UTF-8"
VERSION_AS_BYTES: Final = "diff_iterate's errors show the name of the snapshot as bytes"
HANGS_IN_CLONE: Final = "clone, with odd arguments one after the other, hangs or aborts now and then"
LISTING_SNAPS_OF_NO_GROUP: Final = "list_snaps of a group that does not exist ends the process"

DIFFERENCES: Final[dict[str, dict[int, Any]]] = {
    # What an OSD does. Class methods that it does not know are EOPNOTSUPP.
    GROUP_SNAP_ORDER: {16: False, 20: True},
    REMOTE_NAMESPACE: {16: False, 20: True},
    INIT_ONLY: {16: False, 20: True},
    LISTED_TOO_SOON: {16: errno.ENOENT, 20: errno.EIO},
    STATUS_OF_NEW: {16: False, 20: True},
    REMOVAL_TAKES_AN_ID: {16: True, 20: False},
    KEY_LENGTH: {16: 40, 20: 60},
    # What librbd and its binding answer: a value, or an exception by its name.
    TRASH_FROM_THE_START: {16: False, 18: True},
    HANGS_IN_CLONE: {16: False, 18: True, 20: False},
    SIZE_UNITS: {16: False, 20: True},
    TIMES_IN_UTC: {16: False, 20: True},
    MEMBER_OF_GROUP: {16: False, 20: True},
    MODE_OF_LOCK_FIRST: {16: True, 20: False},
    NOT_UTF8: {16: "UnicodeDecodeError"},  # shown by us, in all
    VERSION_AS_BYTES: {16: True, 18: False},
    LISTING_SNAPS_OF_NO_GROUP: {16: False, 20: True},
    OTHER_MEMBERS: {16: "None", 18: "InvalidArgument"},
    MODE_OF_NONE: {16: 0, 20: "InvalidArgument"},
    NOT_MIRRORED: {16: "ImageNotFound", 20: "InvalidArgument"},
    NAMELESS_PARTS: {16: None, 20: ""},  # there is none before
    TRANSIENT: {16: False, 20: True},
    DEEP_COPYING: {16: "error copying", 18: "error deep copying"},
    EXCLUDE_OPS: {16: False, 17: True},
    FROM_BYTES: {16: True, 18: "TypeError"},
    FROM_ZERO: {16: False, 18: True},
    CUT_OFF: {16: True, 18: False},
    PARENT_BY_ID: {16: False, 20: True},
    FORMAT_ZERO: {16: None, 18: "None", 20: "InvalidArgument"},  # there is no such argument in 16's binding
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
