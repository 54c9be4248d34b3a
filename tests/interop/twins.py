"""The same calls to librbd in one pool and to rbd_native in another: they must come out the same.

What may differ: the words of a TypeError or OverflowError, which are those of the compiler of the binding.
"""

import datetime
import errno
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import rados
import rbd as real

import rbd_native as ours
from rbd_native import embedded as inner
from tests.cluster import CephCluster
from tests.releases import (
    DEEP_COPYING,
    EXCLUDE_OPS,
    MEMBER_OF_GROUP,
    MODE_OF_LOCK_FIRST,
    NEWEST,
    NOT_MIRRORED,
    NOT_UTF8,
    PARENT_BY_ID,
    VERSION_AS_BYTES,
    told,
)
from tests.stored import Stored, contents, normal


class Outcome(NamedTuple):
    """What a call returned, or the class, errno and words of what it raised."""

    raised: str | None
    value: Any
    words: str = ""


def outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(None, plain(call()))
    except (real.Error, ours.Error) as error:
        return Outcome(type(error).__name__, getattr(error, "errno", None), str(error))
    except KeyError as error:
        return Outcome("KeyError", None, str(error))
    except (TypeError, OverflowError, ValueError) as error:
        return Outcome(type(error).__name__, None)


_OTHERWISE: tuple[tuple[str, str, str, tuple[str, int | None]], ...] = (
    (NOT_MIRRORED, "error (promoting|to resync)", "InvalidArgument", ("ImageNotFound", errno.ENOENT)),
    (PARENT_BY_ID, "", "TypeError", ("InvalidArgument", None)),
    (MODE_OF_LOCK_FIRST, "error acquiring lock", "InvalidArgument", ("OperationNotSupported", errno.EOPNOTSUPP)),
)
"""What an older librbd may raise where ours raises something else: the difference, our words, and both."""


def agree(theirs: Outcome, mine: Outcome) -> bool:
    """Whether librbd's answer and ours are the same, but for what is known to be different in this release."""
    if theirs.raised == told(NOT_UTF8) and mine.raised is None:
        return _HALF.search(repr(mine.value)) is not None
    mine = as_told(mine)
    if theirs == mine:
        return True
    return any(
        told(behaviour) != told(behaviour, NEWEST)
        and mine.raised == raised
        and re.search(words, mine.words)
        and (theirs.raised, theirs.value) == instead
        for behaviour, words, raised, instead in _OTHERWISE
    )


_HALF = re.compile(r"\\udc[89a-f]")  # what stands in a repr for a byte that is no UTF-8


def as_told(result: Outcome) -> Outcome:
    """What ours answers in the words of the installed release."""
    raised, value, words = result
    if raised == "ImageMemberOfGroup" and not told(MEMBER_OF_GROUP):
        assert value == errno.EMLINK
        raised, words = "OSError", words.replace("RBD image is member of group (", "").rstrip(")")
    words = words.replace("error deep copying", told(DEEP_COPYING))
    if told(VERSION_AS_BYTES):
        words = re.sub(r"(?<=error generating diff from snapshot )(?!b')(?!None)([^)]*)", _as_bytes, words)
    if not told(EXCLUDE_OPS) and isinstance(value, list):
        value = [one for one in value if not (isinstance(one, dict) and one.get("name") == "rbd_qos_exclude_ops")]
    return Outcome(raised, value, words)


def _as_bytes(shown: re.Match[str]) -> str:
    return "None" if shown[0] == "id 0" else repr(shown[0].encode())


def plain(value: Any) -> Any:
    """Iterators as lists; time stamps in UTC without saying so, as old releases give them."""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None)
    if hasattr(value, "__iter__") and not isinstance(value, str | bytes | dict | list | tuple):
        return list(value)
    return value


class Twins:
    """Two pools: librbd works in `theirs`, rbd_native in `mine`; each may have a data pool of its own."""

    def __init__(self, ceph: CephCluster, name: str, *, embedded: bool = False, **conf: str) -> None:
        """`embedded`: rbd_native works in an embedded cluster. conf: options of both clients."""
        self._ceph = ceph
        self.pools = (f"{name}-theirs", f"{name}-mine")
        self.data_pools = tuple(f"{pool}-data" for pool in self.pools)
        real_pools = tuple(zip(self.pools, self.data_pools, strict=True))[: 1 if embedded else 2]
        self._real_pools = [pool for pair in real_pools for pool in pair]
        for pool in self._real_pools:
            ceph.create_pool(pool, pg_num=4)
        self._modules = [rados, inner if embedded else rados]
        self._clusters = [ceph.rados(**conf), inner.Rados(conf=conf) if embedded else ceph.rados(**conf)]
        if embedded:
            self._clusters[1].connect()
            for pool in (self.pools[1], self.data_pools[1]):
                self._clusters[1].create_pool(pool)
        self.ioctxs = [client.open_ioctx(pool) for client, pool in zip(self._clusters, self.pools, strict=True)]
        self._ids = [client.pool_lookup(pool) for client, pool in zip(self._clusters, self.data_pools, strict=True)]
        self._own = [ioctx.get_pool_id() for ioctx in self.ioctxs]

    def close(self) -> None:
        for ioctx in self.ioctxs:
            ioctx.close()
        for client in self._clusters:
            client.shutdown()
        for pool in self._real_pools:
            self._ceph.remove_pool(pool)

    def client_of(self, ioctx: Any) -> Any:
        """The client that one of :attr:`ioctxs` belongs to."""
        return self._clusters[self.ioctxs.index(ioctx)]

    def both(self, call: Callable[..., Any]) -> Outcome:
        """`call(module, ioctx, side)` on either side. `side`: 0 for librbd, 1 for rbd_native."""
        theirs = outcome(lambda: call(real, self.ioctxs[0], 0))
        mine = outcome(lambda: call(ours, self.ioctxs[1], 1))
        assert agree(theirs, mine), f"librbd: {theirs}, ours: {mine}"
        return theirs

    def stored(self, namespace: str = "", names: Iterable[Mapping[str, str]] = ({}, {})) -> dict[str, Stored]:
        """Both pools, and their data pools, hold the same; that, with ids and times taken out. `names`: of images by id, on
        either side, where several had the same one."""
        found = []
        pairs_of_pools = zip(self.pools, self.data_pools, strict=True)
        each = zip(self._modules, self._clusters, pairs_of_pools, self._ids, self._own, names, strict=True)
        for module, client, pools, number, own, known in each:
            everything: dict[str, Stored] = {}
            for prefix, pool in zip(("", "data:"), pools, strict=True):
                with client.open_ioctx(pool) as ioctx:
                    ioctx.set_namespace(namespace)
                    everything |= {prefix + name: one for name, one in contents(module, ioctx).items()}
            # Where no image has a data pool, its number is none: a snapshot's id may be the same.
            data_pool = {number: "data pool"} if any("data_pool_id" in one.omap for one in everything.values()) else {}
            found.append(normal(everything, data_pool | {own: "pool"}, known))
        theirs, mine = found
        pairs = {name: (theirs.get(name), mine.get(name)) for name in theirs | mine}
        different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        assert not different, f"object: (librbd's, ours): {different}"
        return mine

    def clean(self) -> None:
        """Remove all images."""
        for module, ioctx in zip((real, ours), self.ioctxs, strict=True):
            for name in list(module.RBD().list(ioctx)):
                module.RBD().remove(ioctx, name)
