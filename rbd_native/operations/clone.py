"""Make an image that begins as another was at a snapshot.

The child is laid out like any new image, of the parent's size at the snapshot, and then bound to the parent. What the
caller leaves open is as the parent has it. Format 1 needs a protected snapshot and both images in one namespace; format 2
needs neither, and is what `auto` gives once all clients of the cluster are new enough to know it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from rbd_native import cls_rbd
from rbd_native import header as headers
from rbd_native.cls_client import call_optional
from rbd_native.constants import RBD_FEATURE_LAYERING
from rbd_native.engine import gather
from rbd_native.image.context import ImageContext
from rbd_native.operations import bond, create, unfinished
from rbd_native.operations.open import open_image
from rbd_native.options import Settings
from rbd_native.rados.port import HEAD, Io, RadosError
from rbd_native.types import ChildImageSpec, ParentImageSpec, ProtectionStatus

_FIRST_WITH_FORMAT_2 = "mimic"
_RELEASE = re.compile(r"[a-t][a-z]+")  # releases are named in alphabetical order; "unknown" is none of them


async def clone(
    parent_io: Io,
    parent_name: str,
    snapshot: str | int,
    io: Io,
    name: str,
    wish: create.Wish,
    clone_format: int | None = None,
) -> None:
    """`wish.size` is the parent's to say, and `clone_format` None the configuration's. ENOENT, EEXIST, EINVAL (not
    protected, name, format), ENOSYS (layering), EDOM (order), EXDEV (format 1 into another namespace)."""
    settings = Settings(io.cluster.conf_get, await headers.pool_config(io))
    known = is_format(clone_format)
    opening: list[Coroutine[Any, Any, Any]] = [old_format(io, settings, (clone_format or 0) if known else 0)]
    taken = None if snapshot == HEAD else snapshot
    opening.append(open_image(parent_io, name=parent_name, snapshot=taken, read_only=True))
    old, parent = await gather(opening, 2)
    try:
        if parent.snap is None:
            raise RadosError(errno.EINVAL, f"no clone can be made of what image {parent_name} is now")
        if not known:
            raise RadosError(errno.EINVAL, f"clone format {clone_format}")
        if parent.old_format:
            raise RadosError(errno.ENOENT, f"image {parent_name} has format 1: no clone could name it")
        if not name:
            raise RadosError(errno.EINVAL, "an image needs a name")
        wish = inherit(parent, masked(wish), parent.header.features, parent.size)
        check(parent, io, wish, old=old)
        preparing: list[Coroutine[Any, Any, Any]] = [create.prepare(io, name, wish)]
        preparing.append(headers.metadata(parent.io, parent.header_oid))
        plan, metadata = await gather(preparing, 2)
        identifier = await create.lay_out(io, name, plan)
        async with unfinished.whole_or_nothing(io, name, identifier):
            child = bond.spec_of(io, identifier)
            await bind(parent, child, io, plan.features, parent.size, metadata, old=old)
    finally:
        await parent.close()


async def bind(
    parent: ImageContext,
    child: ChildImageSpec,
    io: Io,
    features: int,
    overlap: int,
    metadata: Mapping[str, bytes],
    *,
    old: bool,
) -> None:
    """Make a new image, which lies in `io` and has these features, a clone of the snapshot that `parent` is set to.
    `metadata`: of the parent, which the clone gets. EINVAL where it is not protected any more."""
    spec = ParentImageSpec(parent.io.pool_id, parent.io.namespace, parent.id, parent.read_snap)
    await bond.attach(child, io, features, spec, overlap, metadata, old=old)
    if old:
        await _still_protected(parent)


def is_format(wanted: int | None) -> bool:
    """Whether a user may ask for it; None leaves it to the configuration."""
    return wanted in (None, 1, 2)


async def old_format(io: Io, settings: Settings, wanted: int) -> bool:
    """Whether clones are to be of format 1: what is wanted, or (0) what is configured."""
    if wanted not in (0, 1, 2):
        raise RadosError(errno.EINVAL, f"clone format {wanted}")
    chosen = str(wanted) if wanted else settings.text("rbd_default_clone_format")
    if chosen != "auto":
        return chosen == "1"
    answer: bytes = await io.cluster.mon_command({"prefix": "osd get-require-min-compat-client"})
    release = answer.decode("ascii", "replace").strip()
    return not _RELEASE.fullmatch(release) or release < _FIRST_WITH_FORMAT_2


def masked(wish: create.Wish) -> create.Wish:
    """An order of which nothing is left is one that the caller left open: so for clones alone."""
    return wish if wish.order is None else replace(wish, order=wish.order & create.ORDER_BITS)


def inherit(parent: ImageContext, wish: create.Wish, features: int, size: int) -> create.Wish:
    """The wish for an image of that size that is as `parent` is wherever the caller did not say otherwise."""
    layout = parent.layout
    return replace(
        wish,
        size=size,
        order=layout.order if wish.order is None else wish.order,
        features=features if wish.features is None else wish.features,
        stripe_unit=layout.stripe_unit if wish.stripe_unit is None else wish.stripe_unit,
        stripe_count=layout.stripe_count if wish.stripe_count is None else wish.stripe_count,
    )


def check(parent: ImageContext, io: Io, wish: create.Wish, *, old: bool) -> None:
    """What every clone needs, of the snapshot that `parent` is set to. EINVAL (not protected), ENOSYS (layering, unknown
    features), EXDEV (format 1 into another namespace)."""
    create.check_known(wish.features or 0)
    if old and (parent.snap is None or parent.snap.protection != ProtectionStatus.PROTECTED):
        raise RadosError(errno.EINVAL, "the parent snapshot is not protected")
    if not parent.header.features & RBD_FEATURE_LAYERING or not (wish.features or 0) & RBD_FEATURE_LAYERING:
        raise RadosError(errno.ENOSYS, "parent and child both need layering")
    if old and parent.io.namespace != io.namespace:
        raise RadosError(errno.EXDEV, "clones of format 1 stay in their parent's namespace")


async def _still_protected(parent: ImageContext) -> None:
    """Whoever unprotects looks for clones after he said so: either he has seen this one, or it sees him."""
    status = await call_optional(
        parent.io, parent.header_oid, cls_rbd.get_protection_status(parent.read_snap), ProtectionStatus.UNPROTECTED
    )
    if status != ProtectionStatus.PROTECTED:
        raise RadosError(errno.EINVAL, "the parent snapshot is not protected any more")
