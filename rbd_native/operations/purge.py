"""Empty the trash: of what has been in it for long enough, or of as much as brings its pools below a given usage."""

from __future__ import annotations

import errno
import json
from collections import defaultdict
from typing import Any, Final

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call_optional
from rbd_native.operations import diff, trash
from rbd_native.operations.erase import now
from rbd_native.operations.open import open_image
from rbd_native.rados.port import Io, RadosError
from rbd_native.types import TrashImageSource, TrashImageSpec

ANY_USAGE: Final = -1.0
"""The threshold that is none."""

_SOURCES = (TrashImageSource.USER, TrashImageSource.USER_PARENT)
_LATER = (errno.ENOTEMPTY, errno.EBUSY, errno.EMLINK, errno.EUCLEAN)
Entries = list[tuple[str, TrashImageSpec]]


async def purge(io: Io, expired: int = 0, threshold: float = ANY_USAGE) -> None:
    """Remove what users put into the trash to be kept no longer than until `expired`, in seconds since 1970; 0 for now.

    With a threshold, from 0 to 1, images whose time has not come go too, those first whose time comes first, until no more
    than that part of each pool is in use; where it is not more now, or nothing helps, nothing is removed at all.

    EINVAL (threshold); and what keeps an image, if there is one that was to go and must not.
    """
    entries = [(key, spec) for key, spec in await trash.listing(io) if spec.source in _SOURCES]
    doomed: set[str] = set()
    if threshold != ANY_USAGE:
        doomed = await _to_free(io, entries, threshold)
        if not doomed:
            return
    until = expired or now().sec
    doomed |= {key for key, spec in entries if spec.deferment_end.sec <= until}
    await _remove_all(io, doomed)


async def _remove_all(io: Io, doomed: set[str]) -> None:
    """Round by round, as long as any goes: a parent can only go after its clones."""
    while doomed:
        kept: dict[str, RadosError] = {}
        for identifier in sorted(doomed):
            try:
                await trash.remove(io, identifier, force=True)
            except RadosError as error:
                if error.errno in _LATER:
                    kept[identifier] = error
                elif error.errno != errno.ENOENT:  # a parent that went with its last clone, or somebody else was faster
                    raise
        if len(kept) == len(doomed):
            raise next(iter(kept.values()))
        doomed = set(kept)


async def _to_free(io: Io, entries: Entries, threshold: float) -> set[str]:
    """What to remove so that no pool with data of these images is fuller than the threshold, as far as they go."""
    if threshold < 0 or threshold > 1:
        raise RadosError(errno.EINVAL, f"threshold {threshold} is not within 0 to 1")
    usage = await _usage(io)
    by_pool: defaultdict[int, list[str]] = defaultdict(list)
    for identifier, _ in sorted(entries, key=lambda entry: entry[1].deferment_end.sec):
        by_pool[await _data_pool(io, identifier)].append(identifier)
    chosen: dict[str, int] = {}
    for pool, identifiers in by_pool.items():
        stats = usage.get(pool, {})
        part = stats.get("percent_used", 0.0)
        if part <= threshold:
            continue
        left = (stats["max_avail"] + stats["bytes_used"]) * (part - threshold)
        for identifier in identifiers:
            if left <= 0:
                break
            chosen[identifier] = await _used(io, identifier)
            left -= chosen[identifier]
    return set(chosen) if any(chosen.values()) else set()


async def _usage(io: Io) -> dict[int, dict[str, Any]]:
    """Pool ids to what the monitor knows: `percent_used` from 0 to 1, `bytes_used` and `max_avail` in bytes."""
    answer = await io.cluster.mon_command({"prefix": "df", "format": "json"})
    try:
        return {pool["id"]: pool["stats"] for pool in json.loads(answer)["pools"]}
    except (ValueError, KeyError) as error:
        raise RadosError(errno.EBADMSG, "the answer to df") from error


async def _data_pool(io: Io, identifier: str) -> int:
    pool = await call_optional(
        io, names.header(identifier), cls_rbd.get_data_pool(), -1, errno.ENOENT, errno.EOPNOTSUPP
    )
    return io.pool_id if pool == -1 else pool


async def _used(io: Io, identifier: str) -> int:
    """Bytes of the image in objects that exist; 0 where there is no image any more."""
    try:
        image = await open_image(io, identifier=identifier, read_only=True, with_parent=False)
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return 0
    try:
        found = diff.changes(image, 0, image.size, None, include_parent=False, whole_object=True)
        return sum([length async for batch in found for _, length, exists in batch if exists])
    finally:
        await image.close()
