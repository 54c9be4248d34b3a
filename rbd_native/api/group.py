"""class Group: images whose snapshots are taken together."""

from __future__ import annotations

from rbd_native.api import unbuilt


@unbuilt.lacks(unbuilt.GROUP)
class Group:
    """A group of images. Not built yet: every method raises FunctionNotSupported."""

    def __init__(self, ioctx: object, name: str) -> None:
        raise unbuilt.not_built("Group")
