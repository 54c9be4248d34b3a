"""The methods of an image that copy it."""

from __future__ import annotations

import errno
from typing import Any

from rbd_native.api.boundary import c_int, drive, name_bytes, name_text, uint64, wish
from rbd_native.errors import make_ex
from rbd_native.image.context import ImageContext
from rbd_native.operations import clone, copy, deep_copy
from rbd_native.operations.progress import Callback, Progress
from rbd_native.rados.connect import port_for


class CopyMethods:
    """What class Image has of them. What is None is as the image has it."""

    name: bytes | str

    @property
    def _image(self) -> ImageContext:
        raise NotImplementedError

    def copy(
        self,
        dest_ioctx: Any,
        dest_name: str | bytes,
        features: int | None = None,
        order: int | None = None,
        stripe_unit: int | None = None,
        stripe_count: int | None = None,
        data_pool: str | bytes | None = None,
        on_progress: Callback | None = None,
    ) -> None:
        """Copy what the image holds, or held at the snapshot it is set to, into a new image. Raises ImageExists.

        on_progress(done, total) in bytes, which the binding does not have.
        """
        wanted = wish(0, order, features, stripe_unit, stripe_count, data_pool)
        target = name_text(dest_name, "dest_name")
        work = copy.copy(self._image, port_for(dest_ioctx), target, wanted, Progress(on_progress))
        drive(work, "error copying image %s to %s", self.name, name_bytes(dest_name, "dest_name"))

    def deep_copy(
        self,
        dest_ioctx: Any,
        dest_name: str | bytes,
        features: int | None = None,
        order: int | None = None,
        stripe_unit: int | None = None,
        stripe_count: int | None = None,
        data_pool: str | bytes | None = None,
        clone_format: int | None = None,
        flatten: bool = False,
        on_progress: Callback | None = None,
    ) -> None:
        """Copy the image with its snapshots, up to the one it is set to. A clone becomes another clone of its parent,
        in `clone_format`, unless `flatten`. Raises ImageExists.

        on_progress(done, total) in changed objects, which the binding does not have.
        """
        wanted = wish(0, order, features, stripe_unit, stripe_count, data_pool)
        chosen = None if clone_format is None else uint64(clone_format)
        message = "error deep copying image %s to %s"
        if not clone.is_format(chosen):
            raise make_ex(errno.EINVAL, message % (self.name, name_bytes(dest_name, "dest_name")))
        work = deep_copy.deep_copy(
            self._image,
            port_for(dest_ioctx),
            name_text(dest_name, "dest_name"),
            wanted,
            clone_format=chosen or 0,
            flatten=bool(c_int(flatten)),
            progress=Progress(on_progress),
        )
        drive(work, message, self.name, name_bytes(dest_name, "dest_name"))
