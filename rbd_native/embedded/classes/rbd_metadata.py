"""Class `rbd`, metadata: keys `metadata_<key>` with raw values, on image headers and on `rbd_info`."""

from __future__ import annotations

import errno

from rbd_native import cls_rbd
from rbd_native.embedded.classes import omap
from rbd_native.embedded.objclass import ClassError, ObjectContext, handles

_PREFIX = b"metadata_"
_PAGE = 64


@handles(cls_rbd.metadata_list)
def metadata_list(context: ObjectContext, after: str, max_return: int) -> dict[str, bytes]:
    return omap.listing(context, _PREFIX, after, max_return or _PAGE)


@handles(cls_rbd.metadata_set)
def metadata_set(context: ObjectContext, values: dict[str, bytes]) -> None:
    context.set_omap({omap.key(_PREFIX, name): value for name, value in values.items()})


@handles(cls_rbd.metadata_get)
def metadata_get(context: ObjectContext, key: str) -> bytes:
    value = context.omap(omap.key(_PREFIX, key))
    if value is None:
        raise ClassError(errno.ENOENT)
    return value


@handles(cls_rbd.metadata_remove)
def metadata_remove(context: ObjectContext, key: str) -> None:
    omap.drop(context, omap.key(_PREFIX, key))
