"""The metadata of an image: pairs that users keep there, and, under `conf_`, the image's own options."""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native import header as headers
from rbd_native.cls_client import call
from rbd_native.image.context import ImageContext
from rbd_native.options import Level, OptionError, validate_metadata
from rbd_native.rados.port import RadosError
from rbd_native.watch_notify import MetadataUpdate


async def get(image: ImageContext, key: str) -> bytes:
    """ENOENT where there is none."""
    return await call(image.io, image.header_oid, cls_rbd.metadata_get(key))


async def listing(image: ImageContext) -> dict[str, bytes]:
    """All pairs, ascending by key."""
    return await headers.metadata(image.io, image.header_oid)


async def put(image: ImageContext, key: str, value: bytes) -> None:
    """EINVAL where the key is that of an option and the value none of its; EROFS."""
    text = value.decode("utf-8", "surrogateescape")
    _validate(key, text)
    await _writable(image)
    await image.requests.carry_out(
        lambda request: MetadataUpdate(key, text, request), lambda: write_in(image, key, value)
    )


async def write_in(image: ImageContext, key: str, value: bytes) -> None:
    """What whoever owns the image does for :func:`put`."""
    _validate(key, value.decode("utf-8", "surrogateescape"))
    await image.update_header(cls_rbd.metadata_set({key: value}))


def _validate(key: str, text: str) -> None:
    try:
        validate_metadata(key, text, Level.IMAGE)
    except OptionError as error:
        raise RadosError(errno.EINVAL, str(error)) from error


async def remove(image: ImageContext, key: str) -> None:
    """ENOENT where there is none; EROFS."""
    if image.read_only:
        raise RadosError(errno.EROFS, image.name)
    await get(image, key)  # as librbd, even if it is set to a snapshot and cannot be removed through this handle
    await _writable(image)
    await image.requests.carry_out(
        lambda request: MetadataUpdate(key, None, request), lambda: take_out(image, key)
    )


async def take_out(image: ImageContext, key: str) -> None:
    """What whoever owns the image does for :func:`remove`. That there is none is as good."""
    await image.update_header(cls_rbd.metadata_remove(key))


async def _writable(image: ImageContext) -> None:
    if image.stale:
        await image.fresh()
    if image.read_only or image.snap is not None:
        raise RadosError(errno.EROFS, image.name)
