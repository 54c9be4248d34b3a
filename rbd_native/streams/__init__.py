"""Images as streams: exported, imported, and the differences between two of their versions.

    from rbd_native import streams

    with open("disk.raw", "xb") as file:
        streams.export_image(image, file)                    # the bytes; holes stay holes
    with open("disk.diff", "xb") as file:
        streams.export_diff(image, file, from_snapshot="monday")
    with open("disk.diff", "rb") as file:
        streams.import_diff(copy, file)

Any binary file object will do: a file, a pipe, a socket's, a GzipFile. It is read or written from where it is, in the
caller's thread, and left open. Many reads or writes of the image are under way at once, and never more than some tens of
MiB in memory, whatever the image and whatever the stream says.

The formats are those of `rbd export`, `rbd export --export-format 2`, `rbd export-diff` and `rbd merge-diff`, and can be
read by their counterparts: see :mod:`rbd_native.streams.codec`. A stream that is none raises :class:`StreamError`, which is
an InvalidArgument. `progress(done, total)` is called as in the other long operations, and ends them in the same way.
"""

from __future__ import annotations

from typing import Any

from rbd_native.api.boundary import drive, name_text, wish
from rbd_native.api.image import Image
from rbd_native.errors import InvalidArgument
from rbd_native.operations.progress import Callback, Progress
from rbd_native.rados.connect import port_for
from rbd_native.streams import exporting, importing, merging
from rbd_native.streams.codec import DIFF_BANNERS, StreamError
from rbd_native.streams.files import Sink, Source

__all__ = ["StreamError", "export_diff", "export_image", "import_diff", "import_image", "merge_diff"]

_FORMATS = (1, 2)


def export_image(
    image: Image,
    file: Any,
    *,
    export_format: int = 1,
    include_parent: bool = True,
    progress: Callback | None = None,
) -> None:
    """Write an image, as it is or was at the snapshot it is set to.

    export_format: 1 for the bytes and nothing else, or 2 for the image with its options, metadata and all snapshots up to
    there. A plain file gets holes where the image has zeros. include_parent (format 2): with what a clone shares with its
    parent; otherwise the stream is good only for an image that has that already.
    """
    _known("export format", export_format, _FORMATS)
    context, report = image._image, Progress(progress)
    if export_format == 1:
        if not include_parent:
            raise InvalidArgument("export format 1 is everything, the parent's data too")
        work = exporting.export_raw(context, Sink(file), report)
    else:
        work = exporting.export_with_snapshots(context, Sink(file), include_parent=include_parent, progress=report)
    drive(work, "error exporting image %s", image.name)


def import_image(
    ioctx: Any,
    name: str | bytes,
    file: Any,
    *,
    export_format: int = 1,
    order: int | None = None,
    features: int | None = None,
    stripe_unit: int | None = None,
    stripe_count: int | None = None,
    data_pool: str | bytes | None = None,
    progress: Callback | None = None,
) -> None:
    """Create an image from a stream. What is None is as the stream says (format 2) or the configuration.

    Zeros are not written, and the holes of a plain file not even read. Where it fails, no image is left. Raises ImageExists
    and what :meth:`RBD.create` refuses.
    """
    _known("export format", export_format, _FORMATS)
    wanted = wish(0, order, features, stripe_unit, stripe_count, data_pool)
    load = importing.import_raw if export_format == 1 else importing.import_with_snapshots
    work = load(port_for(ioctx), name_text(name, "name"), Source(file), wanted, Progress(progress))
    drive(work, "error importing image %s", name)


def export_diff(
    image: Image,
    file: Any,
    from_snapshot: str | bytes | int | None = None,
    whole_object: bool = False,
    *,
    include_parent: bool = True,
    version: int = 1,
    progress: Callback | None = None,
) -> None:
    """Write what changed from a snapshot (name or id), or from nothing, to what the image is set to.

    whole_object: tell of whole objects, which is quick where the image has object maps and writes more. version: 1, as
    `rbd export-diff` writes and reads it, or 2. Raises ImageNotFound, InvalidArgument (the snapshot is newer).
    """
    _known("version", version, tuple(DIFF_BANNERS))
    since = from_snapshot
    if since is not None and not isinstance(since, int):
        since = name_text(since, "from_snapshot")
    work = exporting.export_diff(
        image._image,
        Sink(file),
        since,
        version=version,
        whole_object=whole_object,
        include_parent=include_parent,
        progress=Progress(progress),
    )
    drive(work, "error exporting difference of image %s from snapshot %s", image.name, from_snapshot)


def import_diff(image: Image, file: Any, *, progress: Callback | None = None) -> None:
    """Apply a difference of either version: resize, write, and take the snapshot it ends at, if it ends at one.

    Raises InvalidArgument where the image has not got the snapshot it starts from, ImageExists where it has the one it ends
    at, ReadOnlyImage: before anything is changed. What fails later leaves some of the changes, and no snapshot.
    """
    work = importing.import_diff(image._image, Source(file), Progress(progress))
    drive(work, "error importing difference into image %s", image.name)


def merge_diff(first: Any, second: Any, out: Any, *, version: int | None = None) -> None:
    """Write the difference that does what two do one after the other. `version`: the second's, unless told.

    Raises StreamError where the first does not end at the snapshot at which the second starts.
    """
    if version is not None:
        _known("version", version, tuple(DIFF_BANNERS))
    merging.merge(Source(first), Source(second), Sink(out), version)


def _known(what: str, value: int, allowed: tuple[int, ...]) -> None:
    if value not in allowed:
        raise InvalidArgument(f"{what} {value!r} is not one of {allowed}", errno=22)
