"""Create an image of format 2: every object that librbd would lay out, in an order that leaves no half image.

The name is taken first, in the directory, then the objects it leads to are made. What fails is undone in reverse. A
client that dies in between leaves a name that leads to an image without a header: `remove` of that name clears it away.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final

from rbd_native import cls_rbd, names
from rbd_native import header as headers
from rbd_native.cls_client import call
from rbd_native.constants import (
    RBD_FEATURE_DATA_POOL,
    RBD_FEATURE_EXCLUSIVE_LOCK,
    RBD_FEATURE_FAST_DIFF,
    RBD_FEATURE_JOURNALING,
    RBD_FEATURE_OBJECT_MAP,
    RBD_FEATURE_STRIPINGV2,
    RBD_FEATURES_ALL,
    RBD_FEATURES_IMPLICIT,
    RBD_MAX_OBJECT_MAP_OBJECTS,
)
from rbd_native.engine import gather
from rbd_native.object_map import ObjectState
from rbd_native.operations import pool
from rbd_native.options import Settings
from rbd_native.rados.port import Create, Io, RadosError, Remove, WriteStep
from rbd_native.striping import MAX_ORDER, MIN_ORDER, Layout
from rbd_native.types import DirectoryState

ORDER_BITS: Final = 0xFF
"""librbd looks at no other bits of an order."""
_MIN_STRIPE_UNIT: Final = 512


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for. None and 0 leave the choice to the pool's and the client's configuration."""

    size: int
    order: int | None = None
    features: int | None = None
    stripe_unit: int | None = None
    stripe_count: int | None = None
    data_pool: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be made."""

    size: int
    layout: Layout
    features: int
    data_io: Io | None


async def create(io: Io, name: str, wish: Wish) -> str:
    """Create it, and give its id. EEXIST, EINVAL, EDOM (order), ENOSYS (features), ENOENT (namespace or data pool)."""
    return await lay_out(io, name, await prepare(io, name, wish))


async def prepare(io: Io, name: str, wish: Wish) -> Plan:
    """Everything that can refuse it, without changing anything."""
    reading: list[Coroutine[Any, Any, Any]] = [headers.unused(io, name), headers.pool_config(io), pool.mark(io)]
    _, pool_config, mark = await gather(reading, len(reading))
    settings = Settings(io.cluster.conf_get, pool_config)
    plan = await _plan(io, wish, order_of(wish, settings), settings)
    if settings.flag("rbd_validate_pool"):
        await (pool.validate(io, mark) if plan.data_io is None else pool.validate(plan.data_io))
    if io.namespace:
        await call(io, names.DIRECTORY, cls_rbd.dir_state_assert(DirectoryState.READY))
    if not name:
        raise RadosError(errno.EINVAL, "an image needs a name")
    return plan


def order_of(wish: Wish, settings: Settings) -> int:
    """What is wished, or else the default. EDOM."""
    order = wish.order & ORDER_BITS if wish.order else settings.integer("rbd_default_order")
    if not MIN_ORDER <= order <= MAX_ORDER:
        raise RadosError(errno.EDOM, f"order {order} is not within {MIN_ORDER} to {MAX_ORDER}")
    return order


async def _plan(io: Io, wish: Wish, order: int, settings: Settings) -> Plan:
    features = settings.integer("rbd_default_features") if wish.features is None else wish.features
    check_known(features)
    layout = _layout(wish, order, settings)
    features &= ~RBD_FEATURES_IMPLICIT
    if features & RBD_FEATURE_OBJECT_MAP:
        features |= RBD_FEATURE_FAST_DIFF
    _check_features(features, layout.object_count(wish.size))
    if layout.fancy:
        features |= RBD_FEATURE_STRIPINGV2
    data_io = await _data_io(io, wish, settings)
    if data_io is not None:
        features |= RBD_FEATURE_DATA_POOL
    if wish.features is None:
        # The cluster's own answer limits defaults only: what was asked for is not quietly left out.
        features &= await cluster_features(io)
    return Plan(wish.size, layout, features, data_io)


def check_known(features: int) -> None:
    """ENOSYS for feature bits that have no meaning yet."""
    if features & ~RBD_FEATURES_ALL:
        raise RadosError(errno.ENOSYS, f"unknown features {features & ~RBD_FEATURES_ALL:#x}")


async def cluster_features(io: Io) -> int:
    """The features the OSD knows; all of ours where the directory does not exist yet and cannot be asked."""
    try:
        return await call(io, names.DIRECTORY, cls_rbd.get_all_features())
    except RadosError as error:
        if error.errno != errno.ENOENT:
            raise
        return RBD_FEATURES_ALL


def _layout(wish: Wish, order: int, settings: Settings) -> Layout:
    unit, count = wish.stripe_unit or 0, wish.stripe_count or 0
    if 0 < unit < _MIN_STRIPE_UNIT:
        raise RadosError(errno.EINVAL, f"stripe unit {unit} is less than {_MIN_STRIPE_UNIT}")
    if not unit and not count:
        unit, count = settings.integer("rbd_default_stripe_unit"), settings.integer("rbd_default_stripe_count")
    try:
        return Layout.create(order, unit, count)
    except ValueError as error:
        raise RadosError(errno.EINVAL, str(error)) from error


async def _data_io(io: Io, wish: Wish, settings: Settings) -> Io | None:
    name = wish.data_pool if wish.data_pool is not None else settings.text("rbd_default_data_pool")
    if not name:
        return None
    pool_id = await io.cluster.pool_lookup(name)
    return None if pool_id == io.pool_id else io.cluster.io(pool_id, io.namespace)


def _check_features(features: int, objects: int) -> None:
    needs_lock = RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_JOURNALING
    if features & needs_lock and not features & RBD_FEATURE_EXCLUSIVE_LOCK:
        raise RadosError(errno.EINVAL, "object-map and journaling need exclusive-lock")
    if features & RBD_FEATURE_OBJECT_MAP and objects > RBD_MAX_OBJECT_MAP_OBJECTS:
        raise RadosError(errno.EINVAL, f"{objects} objects are too many for an object map")
    if features & RBD_FEATURE_JOURNALING:
        raise RadosError(errno.ENOSYS, "journaling is not supported yet")


async def lay_out(io: Io, name: str, plan: Plan) -> str:
    """What :func:`prepare` has planned; the id."""
    identifier = names.new_id(io.cluster.instance_id())
    prefix = names.data_prefix(identifier, io.pool_id, plan.data_io is not None)
    if not names.prefix_fits(prefix):
        raise RadosError(errno.EINVAL, f"prefix {prefix} is too long")
    made: list[Callable[[], Awaitable[Any]]] = []
    try:
        for do, undo in _steps(io, name, identifier, prefix, plan):
            await do()
            made.append(undo)
    except RadosError:
        for undo in reversed(made):
            # The first error is the one that counts; what cannot be undone now, `remove` of the name clears away.
            with contextlib.suppress(RadosError):
                await undo()
        raise
    return identifier


Change = Callable[[], Coroutine[Any, Any, None]]
Step = tuple[Change, Change]


def _steps(io: Io, name: str, identifier: str, prefix: str, plan: Plan) -> Iterator[Step]:
    """What is done, in order, and what takes it back."""
    header = names.header(identifier)

    def change(oid: str, *steps: WriteStep) -> Change:
        async def do() -> None:
            await io.write(oid, steps)

        return do

    add: list[WriteStep] = [cls_rbd.dir_add_image(name, identifier).step]
    if io.namespace:
        add.insert(0, cls_rbd.dir_state_assert(DirectoryState.READY).step)
    yield change(names.DIRECTORY, *add), change(names.DIRECTORY, cls_rbd.dir_remove_image(name, identifier).step)
    id_oid = names.image_id(name)
    yield change(id_oid, Create(), cls_rbd.set_id(identifier).step), change(id_oid, Remove())
    data_pool = -1 if plan.data_io is None else plan.data_io.pool_id
    record = cls_rbd.create(plan.size, plan.layout.order, plan.features, prefix, data_pool)
    making, clearing = [change(header, Create(), record.step)], [change(header, Remove())]
    if plan.features & RBD_FEATURE_OBJECT_MAP:
        bits = cls_rbd.object_map_resize(plan.layout.object_count(plan.size), ObjectState.NONEXISTENT)
        making.append(change(names.object_map(identifier), bits.step))
        clearing.append(change(names.object_map(identifier), Remove()))
    yield _all_or_none(making, clearing), _each(clearing)
    if plan.layout.fancy:
        striping = cls_rbd.set_stripe_unit_count(plan.layout.stripe_unit, plan.layout.stripe_count)
        yield change(header, striping.step), _nothing


def _all_or_none(making: list[Change], clearing: list[Change]) -> Change:
    """What depends on nothing among it, at the same time; where one fails, none is left."""

    async def do() -> None:
        try:
            await gather([change() for change in making], len(making))
        except RadosError:
            await _each(clearing)()
            raise

    return do


def _each(changes: list[Change]) -> Change:
    """All of them, whatever becomes of the others."""

    async def do() -> None:
        for change in changes:
            with contextlib.suppress(RadosError):
                await change()

    return do


async def _nothing() -> None:
    """The header, and all in it, goes with the step that made it."""
