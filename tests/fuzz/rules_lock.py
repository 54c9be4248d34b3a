"""The rules of opening and closing, of locks, features and metadata: see :mod:`tests.fuzz.rules`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz.rules import EBUSY, EEXIST, EINVAL, ENOENT, ENOTSUP, EROFS, ESHUTDOWN, Branch, Case, rule
from tests.fuzz.state import DEEP_FLATTEN, EXCLUSIVE, FAST_DIFF, JOURNALING, MAP, Handle, Img

COMPUTED = 2 | 128 | 256
"""Features that follow from the layout, and from what was done: striping, a data pool, operations."""

# --- opening and closing ---------------------------------------------------------------------------------------------


@rule("Image.open", "RBD.aio_open_image")
def _open(case: Case) -> Iterator[Branch]:
    kw = case.made.call.get("kw", {})
    image, snapshot = case.of_name(kw.get("name", "")), kw.get("snapshot")
    if image is None or (snapshot is not None and image.snap(snapshot) is None):
        yield case.error(ENOENT)
        return
    at = image.snap(snapshot) if snapshot is not None else None
    handle = Handle(image.key, at.key if at else None, bool(kw.get("read_only")))
    yield case.ok(case.state.handle(case.made.on, handle))


@rule("Image.close", "Image.aio_close")
def _close(case: Case) -> Iterator[Branch]:
    state = case.state
    if case.image.owner == case.made.on:
        state = case.changed(owner=None, by_hand=False)
    yield case.ok(state.handle(case.made.on, None))


@rule("client.connect")
def _connect(case: Case) -> Iterator[Branch]:
    yield case.ok(case.state.let_in(case.client))


@rule("client.shutdown")
def _shutdown(case: Case) -> Iterator[Branch]:
    yield case.ok(case.state.gone(case.client))


# --- the exclusive lock ----------------------------------------------------------------------------------------------


@rule("Image.lock_acquire")
def _acquire(case: Case) -> Iterator[Branch]:
    mode, image, name = case.arg(0, "lock_mode"), case.image, case.made.on
    if mode == 1:
        yield case.error(ENOTSUP, EINVAL)
    elif mode != 0 or case.handle.read_only or case.handle.at is not None or not image.features & EXCLUSIVE:
        yield case.error(EINVAL, EROFS, ENOTSUP)
        if case.handle.at is not None and image.features & EXCLUSIVE:
            yield case.ok(case.changed(owner=name, by_hand=True).handle(name, replace(case.handle, auto=False)))
    elif image.users or (image.owner not in (None, name) and image.by_hand):
        yield case.on(case.state.handle(name, replace(case.handle, auto=False))).error(EROFS, EBUSY)
    else:
        yield case.ok(case.changed(owner=name, by_hand=True).handle(name, replace(case.handle, auto=False)))


@rule("Image.lock_release")
def _release(case: Case) -> Iterator[Branch]:
    if case.image.owner == case.made.on:
        yield case.ok(case.changed(owner=None, by_hand=False))
    else:
        yield case.error(EINVAL)


@rule("Image.is_exclusive_lock_owner")
def _is_owner(case: Case) -> Iterator[Branch]:
    yield case.value(case.image.owner == case.made.on)


@rule("Image.lock_get_owners")
def _owners(case: Case) -> Iterator[Branch]:
    if not case.image.features & EXCLUSIVE:
        yield case.error(EINVAL)
        return
    wanted = 0 if case.image.owner is None else 1
    yield case.ok(None, lambda found: len(found) == wanted, f"{wanted} owners")
    if case.image.users:
        yield case.error(EBUSY, EROFS)
        yield case.ok()


@rule("Image.lock_break")
def _break(case: Case) -> Iterator[Branch]:
    mode, who, image = case.arg(0, "lock_mode"), case.arg(1, "lock_owner"), case.image
    if mode == 1:
        yield case.error(ENOTSUP, EINVAL)
    elif image.users or mode != 0 or case.handle.read_only:
        yield from case.any()
    elif not isinstance(who, dict):
        yield case.error(EBUSY, ENOENT, EINVAL)
    elif image.owner is None:
        yield case.error(EBUSY, ENOENT)  # it was another's when it was asked for
        yield case.ok()
    else:
        after = case.state.fence(image.owner[0])
        yield case.ok(after)
        if image.owner[0] == case.client:  # who fences himself may not hear of it any more
            yield case.on(after).error(ESHUTDOWN)


# --- advisory locks --------------------------------------------------------------------------------------------------


@rule("Image.lock_exclusive", "Image.lock_shared")
def _user_lock(case: Case) -> Iterator[Branch]:
    cookie = case.arg(0, "cookie")
    tag = case.arg(1, "tag") if case.made.do.endswith("shared") else None
    mine = (case.client, cookie, tag)
    users = case.image.users
    if case.image.owner is not None and case.image.features & EXCLUSIVE:
        yield case.error(EBUSY, EEXIST)
    elif mine in users:
        yield case.error(EEXIST, EBUSY)
    elif users and (tag is None or any(other[2] != tag for other in users)):
        yield case.error(EBUSY, EEXIST)
    else:
        yield case.ok(case.changed(users=(*users, mine)))


@rule("Image.unlock")
def _unlock(case: Case) -> Iterator[Branch]:
    cookie = case.arg(0, "cookie")
    left = tuple(one for one in case.image.users if one[:2] != (case.client, cookie))
    if left == case.image.users:
        yield case.error(ENOENT)
        if case.image.users or case.image.owner:
            yield case.error(EBUSY)
    else:
        yield case.ok(case.changed(users=left))


@rule("Image.break_lock")
def _break_user(case: Case) -> Iterator[Branch]:
    cookie = case.arg(1, "cookie")
    if isinstance(cookie, dict):  # whichever was first
        for user in case.image.users:  # its client is fenced
            left = tuple(one for one in case.image.users if one is not user)
            yield case.ok(case.changed(users=left).fence(user[0]))
        yield case.error(ENOENT, EBUSY)
    else:
        yield case.error(ENOENT, EINVAL, EBUSY)


@rule("Image.list_lockers")
def _lockers(case: Case) -> Iterator[Branch]:
    if case.image.features & EXCLUSIVE or case.handle.read_only:
        yield case.ok()  # as they were when it last looked
        return
    count = len(case.image.users)
    yield case.ok(None, lambda found: len(found["lockers"] if found else []) == count, f"{count} lockers")


# --- features and metadata -------------------------------------------------------------------------------------------


@rule("Image.features")
def _features(case: Case) -> Iterator[Branch]:
    if case.handle.read_only:
        yield case.ok()
    else:
        wanted = case.image.features
        yield case.ok(None, lambda found: found & ~COMPUTED == wanted & ~COMPUTED, str(wanted))


def _updated(image: Img, features: int, enabled: bool) -> int | None:
    """The features after it; None where that is not allowed."""
    mutable = EXCLUSIVE | MAP | FAST_DIFF | JOURNALING | (0 if enabled else DEEP_FLATTEN)
    if not features or features & ~mutable:
        return None
    if enabled:
        if features & image.features:
            return None
        new = image.features | features
        if features & MAP:
            new |= FAST_DIFF
        if features & FAST_DIFF:
            new |= MAP
        return new if new & EXCLUSIVE or not new & (MAP | FAST_DIFF | JOURNALING) else None
    if features & ~image.features:
        return None
    new = image.features & ~features
    if features & (MAP | FAST_DIFF):
        new &= ~(MAP | FAST_DIFF)
    return new if new & EXCLUSIVE or not new & (MAP | JOURNALING) else None


@rule("Image.update_features")
def _update(case: Case) -> Iterator[Branch]:
    features, enabled, image = case.arg(0, "features"), case.arg(1, "enabled"), case.image
    if case.handle.read_only:
        yield case.error(EROFS, EINVAL)
        return
    new = _updated(image, features, enabled)
    if new is None:
        yield case.error(EINVAL)
        if case.raced and bool(features & image.features) == enabled:
            yield case.ok()  # another was first
        if image.users or image.by_hand:
            yield case.error(EROFS, EBUSY)
        return
    if image.users or (image.by_hand and image.owner != case.made.on):
        yield case.error(EROFS, EBUSY)
    owner = image.owner
    if features & EXCLUSIVE:
        yield case.ok(case.changed(features=new, owner=None, by_hand=False))
        if not enabled:
            return
    yield case.ok(case.changed(features=new, owner=owner))
    if owner != case.made.on and new & EXCLUSIVE:
        yield case.ok(case.changed(features=new, owner=case.made.on, by_hand=False))
        yield case.ok(case.changed(features=new, owner=None, by_hand=False))


@rule("Image.metadata_set")
def _meta_set(case: Case) -> Iterator[Branch]:
    key, value = case.arg(0, "key"), case.arg(1, "value")
    if case.handle.read_only:
        yield case.error(EROFS)
        return
    if key.startswith("conf_"):
        yield from case.any()
        return
    states, errors = case.maintaining()
    for state in states:
        image = state.images[case.image.key]
        meta = tuple(sorted({**dict(image.meta), key: value}.items()))
        yield case.ok(state.img(replace(image, meta=meta)))
    if errors:
        yield case.error(*errors)


@rule("Image.metadata_remove")
def _meta_remove(case: Case) -> Iterator[Branch]:
    key = case.arg(0, "key")
    if case.handle.read_only:
        yield case.error(EROFS, "KeyError")
        return
    states, errors = case.maintaining()
    for state in states:
        image = state.images[case.image.key]
        if key in dict(image.meta):
            meta = tuple(one for one in image.meta if one[0] != key)
            yield case.ok(state.img(replace(image, meta=meta)))
        else:
            yield case.on(state).error("KeyError")
            yield case.error("KeyError")
    if errors:
        yield case.error(*errors, "KeyError")


@rule("Image.metadata_get")
def _meta_get(case: Case) -> Iterator[Branch]:
    value = dict(case.image.meta).get(case.arg(0, "key"))
    yield case.error("KeyError") if value is None else case.value(value)


@rule("Image.metadata_list")
def _meta_list(case: Case) -> Iterator[Branch]:
    wanted = [list(one) for one in case.image.meta if one[0]]  # listing begins after the empty key

    def same(found: list[list[str]]) -> bool:
        return sorted([list(one) for one in found if one[0]]) == wanted

    yield case.ok(None, same, repr(wanted))


@rule("Image.sparsify")
def _sparsify(case: Case) -> Iterator[Branch]:
    size, image = case.arg(0, "sparse_size"), case.image
    if case.handle.read_only:
        yield case.error(EROFS, EINVAL)
        return
    states, errors = case.maintaining()
    if size < 4096 or size & (size - 1) or size > 1 << image.order:
        yield case.error(EINVAL)
        states = []
    yield from (case.ok(state) for state in states)
    if errors:
        yield case.error(*errors)


@rule("Image.rebuild_object_map")
def _rebuild(case: Case) -> Iterator[Branch]:
    if case.handle.read_only:
        yield case.error(EROFS, EINVAL)
        return
    if not case.image.features & MAP:
        yield case.error(EINVAL)
        return
    states, errors = case.maintaining()
    yield from (case.ok(state) for state in states)
    if errors:
        yield case.error(*errors)
