"""What is known of all mirrored images of a pool, or of a namespace of it."""

from __future__ import annotations

import errno
from typing import Any

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call, call_all, call_optional
from rbd_native.operations import mirror_image, mirroring
from rbd_native.operations.mirror_image import NOT_FOUND, Info
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import (
    EntityInstance,
    MirrorImage,
    MirrorImageSiteStatus,
    MirrorImageState,
    MirrorImageStatus,
    MirrorImageStatusState,
    MirrorSnapshotNamespace,
)

_PAGE = 1024


async def _records(io: Io) -> tuple[dict[str, MirrorImage], dict[str, MirrorImageStatus]]:
    """By image id, ascending: the records, and what sites say of those of which any does."""
    records: dict[str, MirrorImage] = {}
    said: dict[str, MirrorImageStatus] = {}
    while True:
        request = cls_rbd.mirror_image_status_list(next(reversed(records), ""), _PAGE)
        nothing: tuple[dict[str, MirrorImage], dict[str, MirrorImageStatus]] = ({}, {})
        page, found = await call_optional(io, names.MIRRORING, request, nothing)
        records |= page
        said |= found
        if len(page) < _PAGE:
            return records, said


async def statuses(io: Io) -> list[tuple[str, str, MirrorImage, list[MirrorImageSiteStatus]]]:
    """(name, id, record, what each site says) of each, by id. The local site is there even if it has said nothing."""
    known = {identifier: name async for name, identifier in headers.directory(io)}
    records, said = await _records(io)
    rows = []
    for identifier, record in records.items():
        if record.state == MirrorImageState.DISABLED:
            continue
        sites = [_described(site) for site in said[identifier].sites] if identifier in said else []
        if not any(site.mirror_uuid == "" for site in sites):
            sites.append(MirrorImageSiteStatus(description=NOT_FOUND))
        rows.append((known.get(identifier, identifier), identifier, record, sites))
    return rows


def _described(site: MirrorImageSiteStatus) -> MirrorImageSiteStatus:
    if site.state != MirrorImageStatusState.UNKNOWN:
        return site
    return MirrorImageSiteStatus(site.mirror_uuid, site.state, NOT_FOUND, site.last_update, site.up)


async def summary(io: Io) -> dict[MirrorImageStatusState, int]:
    """How many images are in which state, by state."""
    request = cls_rbd.mirror_image_status_get_summary(await mirroring.peers(io))
    nothing: dict[MirrorImageStatusState, int] = {}
    return await call_optional(io, names.MIRRORING, request, nothing)


async def instances(io: Io) -> dict[str, int]:
    """The client ids of the daemons that serve images, by image id."""
    found: dict[str, int] = {}
    while True:
        request = cls_rbd.mirror_image_instance_list(next(reversed(found), ""), _PAGE)
        nothing: dict[str, EntityInstance] = {}
        page = await call_optional(io, names.MIRRORING, request, nothing)
        found |= {identifier: instance.name.num for identifier, instance in page.items()}
        if len(page) < _PAGE:
            return found


async def infos(io: Io, mode: int | None) -> list[tuple[str, Info]]:
    """Of those that are mirrored in a mode, or in any, by image id. ENOSYS where one of them is by its journal."""
    records, _ = await _records(io)
    found = []
    for identifier, record in records.items():
        if (mode is not None and record.mode != mode) or record.state != MirrorImageState.ENABLED:
            continue
        mirror_image.by_snapshots(record)
        kinds = await _mirror_snapshots(io, identifier)
        if kinds is not None:
            found.append((identifier, Info(record, mirroring.promotion(next(iter(kinds), None)))))
    return found


async def _mirror_snapshots(io: Io, identifier: str) -> list[MirrorSnapshotNamespace] | None:
    """Newest first; None where the image is not there."""
    oid = names.header(identifier)
    while True:
        try:
            _, ids = await call(io, oid, cls_rbd.get_snapcontext())
        except RadosError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        try:
            found: list[Any] = await call_all(io, oid, [cls_rbd.snapshot_get(snap) for snap in ids]) if ids else []
        except RadosError as error:
            if error.errno != errno.ENOENT:
                raise
            continue  # one went in between: look again
        return [info.namespace for info in found if isinstance(info.namespace, MirrorSnapshotNamespace)]
