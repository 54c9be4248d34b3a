"""What an image may have that this release does not keep up yet: such an image is refused, never half served.

Each row goes when the module that keeps the feature up arrives.
"""

from __future__ import annotations

from rbd_native.constants import (
    RBD_FEATURE_JOURNALING,
    RBD_FEATURE_MIGRATING,
)
from rbd_native.header import Header

# Reading needs none of these: their upkeep is what a writer owes.
_WHEN_WRITING = {
    RBD_FEATURE_JOURNALING: "journaling",
}
_ALWAYS = {RBD_FEATURE_MIGRATING: "migrating"}


def reason(header: Header, *, read_only: bool) -> str | None:
    """Why the image cannot be opened, or None."""
    refused = _ALWAYS if read_only else _ALWAYS | _WHEN_WRITING
    missing = [name for bit, name in refused.items() if header.features & bit]
    if missing:
        return f"not supported yet{'' if read_only else ' for writing'}: {', '.join(missing)}"
    return None
