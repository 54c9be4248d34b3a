"""class Image: one open image."""

from __future__ import annotations

import atexit
import datetime
import errno
import logging
import os
import time
import weakref
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Literal, Self

from rbd_native.api import ending, unbuilt
from rbd_native.api.aio import AioMethods
from rbd_native.api.boundary import (
    buffer,
    c_int,
    c_string,
    drive,
    drive_present,
    moment,
    name_bytes,
    name_text,
    room,
    shown,
    shown_value,
    uint64,
)
from rbd_native.api.completion import Completion
from rbd_native.api.copies import CopyMethods
from rbd_native.api.diffs import DiffMethods
from rbd_native.api.family import FamilyMethods
from rbd_native.api.locks import LockMethods
from rbd_native.api.mirror_image import MirrorImageMethods
from rbd_native.api.snapshots import SnapshotMethods
from rbd_native.callbacks import acquire
from rbd_native.constants import RBD_WRITE_ZEROES_FLAG_THICK_PROVISION
from rbd_native.engine import PENDING, Task, may_block
from rbd_native.errors import Error, IncompleteWriteError, InvalidArgument, make_ex
from rbd_native.header import Fixed
from rbd_native.image import io
from rbd_native.image.context import ImageContext
from rbd_native.image.reading import read, read_into
from rbd_native.interrupts import DEFERRED
from rbd_native.native import threading
from rbd_native.operations import membership, metadata, rebuild_object_map, resize, sparsify
from rbd_native.operations.features import update as update_features
from rbd_native.operations.open import open_image
from rbd_native.operations.progress import Callback, Progress
from rbd_native.options import METADATA_PREFIX
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import Buffer, RadosError

_NO_POOL = 2**64 - 1


log = logging.getLogger(__name__)

_images: weakref.WeakSet[Image] = weakref.WeakSet()


_ABANDONED_SECONDS = 30.0
"""For so long a close that nobody asked for is waited for: a cluster that is gone must not keep a program from ending."""


def _close_at_exit(image: Image) -> None:
    """Have it closed where the program ends with it open: before its connection is, which by now has registered its own
    end, and what was registered last comes first."""
    _images.add(image)
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    """The program ends with images open."""
    ending.begin()
    _abandon([image for image in list(_images) if not image.closed])


def _abandon(images: list[Image]) -> None:
    """Close what nobody else will: what has been kept is written out, as by a program that closes its images."""
    ended = threading.Semaphore(0)
    waiting = 0
    for image in images:
        with DEFERRED:
            image.closed = True
            if image._process == os.getpid():  # else it is the parent's, to which its connection belongs
                task = Task(_closed(image._context, image.name)).launch()
                waiting += task.start(lambda outcome: ended.release()) is PENDING
    until = time.monotonic() + _ABANDONED_SECONDS
    while waiting and may_block() and acquire(ended, max(until - time.monotonic(), 0)):
        waiting -= 1


async def _closed(context: ImageContext, name: str | bytes) -> None:
    try:
        await context.close()
    except RadosError as error:
        log.warning("close of image %r, which nobody closed: %s", name, error)


@unbuilt.lacks(unbuilt.IMAGE)
class Image(AioMethods, CopyMethods, DiffMethods, FamilyMethods, LockMethods, MirrorImageMethods, SnapshotMethods):
    """An open image, for reading and writing, closed by :meth:`close` or at the end of a `with` block.

    Every method raises InvalidArgument once it is closed. Offsets and lengths are bytes.
    """

    def __init__(
        self,
        ioctx: Any,
        name: str | bytes | None = None,
        snapshot: str | bytes | int | None = None,
        read_only: bool = False,
        image_id: str | bytes | None = None,
        _oncomplete: Any = None,
    ) -> None:
        """Open by name or by id, at a snapshot (name or id) if one is given.

        Raises ImageNotFound, and FunctionNotSupported for a feature that this release does not keep up.
        """
        self.closed = True
        if name is None and image_id is None:
            raise InvalidArgument("image name or image id was not specified")
        if name is not None and image_id is not None:
            raise InvalidArgument("only need to specify image name or image id")
        by_name = name is not None
        given = name_bytes(name, "name") if by_name else name_bytes(image_id, "image_id")
        self.name: bytes | str = given
        key = name_text(given, "name")
        work = self._open(
            open_image(
                port_for(ioctx),
                name=key if by_name else None,
                identifier=None if by_name else key,
                snapshot=_snapshot(snapshot),
                read_only=bool(read_only),
            ),
            by_name,
        )
        if _oncomplete is None:
            drive(work, "error opening image %s at snapshot %s", given, _as_given(snapshot))
        else:
            self._opening = Completion(work, lambda completion: _oncomplete(completion, self))

    async def _open(self, opening: Coroutine[Any, Any, ImageContext], by_name: bool) -> None:
        self._context = await opening
        self.closed = False
        self._process = os.getpid()
        _close_at_exit(self)
        if not by_name:  # the id served to find it; from here on it has a name
            self.name = shown(self._context.name)

    def opening(self) -> Completion:
        """Of an image that :meth:`RBD.aio_open_image` opens: when it is open. To be asked once: the image does not keep it,
        and what it holds on to, for as long as it is open."""
        completion = self._opening
        del self._opening
        return completion

    @property
    def _image(self) -> ImageContext:
        if self.closed:
            self.require_not_closed()
        return self._context

    def require_not_closed(self) -> None:
        """InvalidArgument if the image is closed."""
        if self.closed:
            ending.stop_daemon()
            raise InvalidArgument("image is closed")

    def close(self) -> None:
        """Release everything; closing twice does no harm."""
        with DEFERRED:  # what is closed in name is closed in fact
            if not self.closed:
                self.closed = True
                if self._process == os.getpid():  # else it is the parent's, to which its connection belongs
                    drive(self._context.close(), "error while closing image %s", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        try:
            self.close()
        except Error as closing:
            if error is None:
                raise
            log.warning("close of image %r, after %r: %s", self.name, error, closing)  # it must not hide what came first
        return False

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            _abandon([self])

    def __repr__(self) -> str:
        return f"rbd.Image(ioctx, {self.name!r})"

    # --- what it is ---

    def _current(self) -> ImageContext:
        """The open image with its state up to date; of a client that was fenced, what it knows."""
        image = self._image
        if image.stale:
            drive(_refreshed(image), "error refreshing image %s", self.name)
        return image

    def _at_snapshot(self, what: str) -> ImageContext:
        """The image, current, for something that depends on its snapshot: ImageNotFound where that is gone."""
        image = self._current()
        if image.snap_gone:
            raise make_ex(errno.ENOENT, f"error getting {what} for image {self.name!r}")
        return image

    def stat(self) -> dict[str, Any]:
        """size, obj_size, num_objs, order, block_name_prefix; parent_pool and parent_name are kept for old programs."""
        image = self._current()
        return extent_and_objects(image.size, image.fixed) | {"parent_pool": _NO_POOL, "parent_name": b""}

    def size(self) -> int:
        """Bytes, at the snapshot the image is set to."""
        return self._current().size

    def id(self) -> str:
        """The image id, which stays when the name changes. InvalidArgument for format 1, which has none."""
        image = self._image
        if image.old_format:
            raise make_ex(errno.EINVAL, f"error getting id for image {self.name!r}")
        return image.id

    def get_name(self) -> str:
        """The name it was opened by or had when it was opened by id."""
        return shown(self._image.name)

    def block_name_prefix(self) -> str:
        """What the names of its data objects start with."""
        return shown(self._image.fixed.prefix)

    def features(self) -> int:
        """Bit mask of RBD_FEATURE_*."""
        return self._current().header.features

    def op_features(self) -> int:
        """Bit mask of RBD_OPERATION_FEATURE_*."""
        return self._current().header.op_features

    def flags(self) -> int:
        """Bit mask of RBD_FLAG_*, at the snapshot the image is set to."""
        return self._at_snapshot("flags").flags

    def stripe_unit(self) -> int:
        """Bytes."""
        return self._image.layout.stripe_unit

    def stripe_count(self) -> int:
        """Objects in a stripe."""
        return self._image.layout.stripe_count

    def data_pool_id(self) -> int:
        """The id of the pool that holds the data objects."""
        return self._image.data_io.pool_id

    def old_format(self) -> bool:
        """Whether the image has format 1."""
        return self._image.old_format

    def create_timestamp(self) -> datetime.datetime:
        return moment(self._image.fixed.created)

    def access_timestamp(self) -> datetime.datetime:
        return moment(self._current().timestamps.accessed)

    def modify_timestamp(self) -> datetime.datetime:
        return moment(self._current().timestamps.modified)

    def group(self) -> dict[str, Any]:
        """Keys pool (the id of the pool of the group it is in, -1 for none) and name ("" for none)."""
        found = drive(membership.group(self._image), "error getting group for image %s", self.name)
        return {"pool": found.pool_id, "name": shown(found.name)}

    # --- data ---

    def read(self, offset: int, length: int, fadvise_flags: int = 0) -> bytes:
        """The bytes of the range, fewer at the end of the image. InvalidArgument where it begins beyond the end."""
        image, start, size = self._image, uint64(offset), uint64(length)
        if fadvise_flags != 0:
            c_int(fadvise_flags)
        return drive(read(image, start, size), "error reading %s %d~%d", self.name, start, size)

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> int:
        """As :meth:`read`, into a contiguous buffer of the caller's, numpy's arrays, too; how many bytes, fewer than fit
        only at the end of the image. Beyond what the binding has."""
        image, start = self._image, uint64(offset)
        return drive(read_into(image, start, room(buffer)), "error reading %s %d", self.name, start)

    def write(self, data: Buffer, offset: int, fadvise_flags: int = 0) -> int:
        """Write bytes, a bytearray, a memoryview or any other contiguous buffer; the number of bytes written.

        InvalidArgument where it begins beyond the end, IncompleteWriteError where it reached beyond it, ReadOnlyImage.
        """
        image, data = self._image, buffer(data)
        start = uint64(offset)
        if fadvise_flags != 0:
            c_int(fadvise_flags)
        written = drive(io.write(image, start, data), "error writing to %s", self.name)
        if written < len(data):
            raise IncompleteWriteError(f"Wrote only {written} out of {len(data)} bytes")
        return written

    def discard(self, offset: int, length: int) -> None:
        """Give up a range: it reads as zeros, but for edges smaller than rbd_discard_granularity_bytes."""
        image, start, size = self._image, uint64(offset), uint64(length)
        drive(io.discard(image, start, size), "error discarding region %d~%d", start, size)

    def write_zeroes(self, offset: int, length: int, zero_flags: int = 0) -> None:
        """Make a range read as zeros; with RBD_WRITE_ZEROES_FLAG_THICK_PROVISION by writing them."""
        image, start, size = self._image, uint64(offset), uint64(length)
        if c_int(zero_flags) & ~RBD_WRITE_ZEROES_FLAG_THICK_PROVISION:
            raise make_ex(22, f"error zeroing region {start}~{size}")
        work = io.write_zeroes(image, start, size, thick=bool(zero_flags))
        drive(work, "error zeroing region %d~%d", start, size)

    def flush(self) -> None:
        """Wait until every write that was begun is on stable storage."""
        drive(io.flush_of_user(self._image), "error flushing image")

    def resize(self, size: int, allow_shrink: bool = True, on_progress: Callback | None = None) -> None:
        """Set the size in bytes. InvalidArgument where it would shrink and may not.

        on_progress(done, total), which the binding does not have, hears of the objects that a shrink gives up.
        """
        image = self._current()
        if not allow_shrink and size < image.size:
            raise InvalidArgument("error allow_shrink is False but old_size > new_size")
        wanted = uint64(size)
        work = resize.resize(image, wanted, allow_shrink=bool(allow_shrink), progress=Progress(on_progress))
        drive(work, "error resizing image %s", self.name)

    def sparsify(self, sparse_size: int) -> None:
        """Make holes of zeros, in runs of `sparse_size` bytes: a power of two from 4096 to the size of an object."""
        drive(sparsify.sparsify(self._image, uint64(sparse_size)), "error sparsifying %s", self.name)

    def invalidate_cache(self) -> None:
        """Drop what is cached, after writing it out: nothing else is."""
        drive(io.flush(self._image), "error invalidating cache for image %s", self.name)

    # --- upkeep ---

    def update_features(self, features: int, enabled: bool) -> None:
        """Turn features on or off. InvalidArgument for those that cannot be changed, or are so already."""
        work = update_features(self._image, uint64(features), enabled=bool(enabled))
        drive(work, "error updating features for image %s", self.name)

    def rebuild_object_map(self) -> None:
        """Make the object map anew from the objects. InvalidArgument where the image has none."""
        drive(rebuild_object_map.rebuild(self._image), "error rebuilding object map %s", self.name)

    # --- metadata and options ---

    def metadata_get(self, key: str | bytes) -> str:
        """The value of a key; KeyError where there is none."""
        image, text, given = self._image, name_text(key, "key"), name_bytes(key, "key")
        absent, message = f"no metadata {given!r} for image {self.name!r}", "error getting metadata %s for image %s"
        return shown_value(drive_present(metadata.get(image, text), absent, message, given, self.name))

    def metadata_set(self, key: str | bytes, value: str | bytes) -> None:
        """Set a pair. InvalidArgument for a conf_ key that is no option of an image, or a value it cannot have."""
        image, text, raw = self._image, name_text(key, "key"), c_string(value, "value")
        message = "error setting metadata %s for image %s"
        drive(metadata.put(image, text, raw), message, name_bytes(key, "key"), self.name)

    def metadata_remove(self, key: str | bytes) -> None:
        """KeyError where there is none."""
        image, text, given = self._image, name_text(key, "key"), name_bytes(key, "key")
        absent, message = f"no metadata {given!r} for image {self.name!r}", "error removing metadata %s for image %s"
        drive_present(metadata.remove(image, text), absent, message, given, self.name)

    def metadata_list(self) -> MetadataIterator:
        """Iterate over (key, value), ascending by key."""
        self.require_not_closed()
        return MetadataIterator(self)

    def config_get(self, key: str) -> str:
        """The value the image itself gives an option; KeyError where it gives none."""
        image, stored = self._image, name_text(METADATA_PREFIX + key, "key")
        absent, message = f"no config {key} for image {self.name!r}", "error getting config %s for image %s"
        return shown_value(drive_present(metadata.get(image, stored), absent, message, key, self.name))

    def config_set(self, key: str, value: str | bytes) -> None:
        """InvalidArgument where an image has no such option, or the option no such value."""
        image = self._image
        stored, raw = name_text(METADATA_PREFIX + key, "key"), c_string(value, "value")
        drive(metadata.put(image, stored, raw), "error setting config %s for image %s", key, self.name)

    def config_remove(self, key: str) -> None:
        """KeyError where the image does not give the option a value."""
        image, stored = self._image, name_text(METADATA_PREFIX + key, "key")
        absent, message = f"no config {key} for image {self.name!r}", "error removing config %s for image %s"
        drive_present(metadata.remove(image, stored), absent, message, key, self.name)

    def config_list(self) -> ConfigImageIterator:
        """Iterate over all options of the image as dicts with keys name, value, source (RBD_CONFIG_SOURCE_*)."""
        self.require_not_closed()
        return ConfigImageIterator(self)


async def _refreshed(image: ImageContext) -> None:
    try:
        await image.fresh()
    except RadosError as error:
        if error.errno != errno.ESHUTDOWN:
            raise


class MetadataIterator:
    """The metadata of an image, as they were when it was made: pairs of key and value."""

    def __init__(self, image: Image) -> None:
        self._pairs = drive(metadata.listing(image._image), "error listing metadata for image %s", image.name)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for key, value in self._pairs.items():
            yield shown(key), shown_value(value)


class ConfigImageIterator:
    """The options of an image and where their values come from."""

    def __init__(self, image: Image) -> None:
        self._listing = image._current().settings.listing()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for name, value, source in self._listing:
            yield {"name": name, "value": value, "source": source}


def extent_and_objects(size: int, fixed: Fixed) -> dict[str, Any]:
    """What :meth:`Image.stat` tells of an image of so many bytes."""
    return {
        "size": size,
        "obj_size": fixed.layout.object_size,
        "num_objs": fixed.layout.object_count(size),
        "order": fixed.layout.order,
        "block_name_prefix": shown(fixed.prefix),
    }


def _snapshot(given: str | bytes | int | None) -> str | int | None:
    """As the layers below take it. "" is none, as in the binding."""
    return given if given is None or isinstance(given, int) else name_text(given, "snapshot") or None


def _as_given(snapshot: str | bytes | int | None) -> bytes | int | None:
    return snapshot if snapshot is None or isinstance(snapshot, int) else name_bytes(snapshot, "snapshot")
