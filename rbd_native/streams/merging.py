"""Two differences, from a to b and from b to c, into one from a to c.  No image is needed.

Both ascend; what the second says of a range is what counts, and of the first only the rest remains. Where the image grew in
between, what is new is zeros unless the second says more; where it shrank, what the first says beyond the end is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from rbd_native.streams.codec import (
    DiffHeader,
    DiffReader,
    Extent,
    StreamError,
    encode_diff_end,
    encode_diff_header,
    encode_extent,
)
from rbd_native.streams.files import PIECE, Sink, Source


def merge(first: Source, second: Source, sink: Sink, version: int | None = None) -> None:
    """The merged difference has the second's version, unless told. StreamError: also where the first does not end where the
    second starts."""
    older, newer = DiffReader(first.take), DiffReader(second.take)
    if older.header.to_snap != newer.header.from_snap:
        raise StreamError(f"the first ends at {older.header.to_snap!r}, the second starts at {newer.header.from_snap!r}")
    sizes = [reader.header.size for reader in (older, newer)]
    if None in sizes:
        raise StreamError("a difference does not tell the size of the image")
    version = version or newer.version
    header = DiffHeader(older.header.from_snap, newer.header.to_snap, newer.header.size, newer.header.protected)
    sink.write(encode_diff_header(header, version))
    _merge_extents(_Side(first, older, newer.header.size or 0), _Side(second, newer), sink, version)
    sink.write(encode_diff_end())
    sink.finish()


class _Side:
    """One of the two: the extent at hand (None at the end), of which the front may be gone already."""

    def __init__(self, source: Source, reader: DiffReader, grown: int = 0) -> None:
        """`grown`: a size up to which zeros follow the extents, if it is more than the difference's own."""
        self._source = source
        self.size = reader.header.size or 0
        self._extents = self._checked(iter(reader), grown)
        self.extent = next(self._extents, None)

    def _checked(self, extents: Iterator[Extent], grown: int) -> Iterator[Extent]:
        end = 0
        for extent in extents:
            if extent.offset < end:
                raise StreamError(f"an extent at {extent.offset} is out of order")
            end = extent.end
            yield extent
        if grown > self.size:
            yield Extent(self.size, grown - self.size, False)

    def next(self) -> None:
        self.extent = next(self._extents, None)

    def take(self, length: int) -> Iterator[bytes]:
        """The data of the first `length` bytes of the extent, which goes on behind them."""
        extent = self.extent
        assert extent is not None
        left = length if extent.data else 0
        while left:
            data = self._source.take(min(left, PIECE))
            left -= len(data)
            yield data
        self.extent = Extent(extent.offset + length, extent.length - length, extent.data)


def _merge_extents(first: _Side, second: _Side, sink: Sink, version: int) -> None:
    while first.extent is not None or second.extent is not None:
        older, newer = first.extent, second.extent
        if newer is not None and (older is None or newer.offset <= older.offset):
            _drop(first, newer.end)
            _write(second, newer.length, sink, version)
        elif older is not None and older.offset < second.size:
            limit = second.size if newer is None else newer.offset
            _write(first, min(older.end, limit) - older.offset, sink, version)
        elif older is not None:
            _pass_over(first, older.length)


def _write(side: _Side, length: int, sink: Sink, version: int) -> None:
    assert side.extent is not None
    sink.write(encode_extent(side.extent._replace(length=length), version))
    for data in side.take(length):
        sink.write(data)
    _go_on(side)


def _drop(side: _Side, end: int) -> None:
    """What it says before `end`."""
    while side.extent is not None and side.extent.offset < end:
        _pass_over(side, min(side.extent.end, end) - side.extent.offset)


def _pass_over(side: _Side, length: int) -> None:
    for _ in side.take(length):
        pass
    _go_on(side)


def _go_on(side: _Side) -> None:
    if side.extent is not None and not side.extent.length:
        side.next()
