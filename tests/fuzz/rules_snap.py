"""The rules of snapshots, clones and copies: see :mod:`tests.fuzz.rules`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz.rules import EBUSY, EDOM, EDQUOT, EEXIST, EINVAL, ENOENT, ERANGE, EROFS, Branch, Case, rule
from tests.fuzz.state import DEEP_FLATTEN, EXCLUSIVE, FAST_DIFF, JOURNALING, Img, Snap, State


def _closed_to_changes(case: Case) -> bool:
    return case.handle.read_only or case.image.mirror == "demoted"


def _gone(case: Case, state: State, error: int) -> Iterator[Branch]:
    """The answer where what is asked for cannot be: by whoever would do it, or before anybody is asked."""
    yield case.on(state).error(error)
    yield case.error(error)


@rule("Image.create_snap")
def _create(case: Case) -> Iterator[Branch]:
    name = case.arg(0, "name")
    if _closed_to_changes(case):
        yield case.error(EROFS)
        return
    states, errors = case.maintaining()
    image = case.image
    for state in states:
        if image.snap(name) is not None:
            yield from _gone(case, state, EEXIST)
            if case.raced:
                yield case.ok(state)  # whose request was made again, and had been carried out
        elif image.limit is not None and len(image.snaps) >= image.limit:
            yield from _gone(case, state, EDQUOT)
        else:
            img = state.images[image.key]
            yield case.ok(state.img(replace(img, snaps=(*img.snaps, Snap(case.uid, name, img.size)))))
    if errors:
        yield case.error(*errors)


def without(state: State, image: Img, snap: Snap) -> State:
    """The snapshot is removed; one that clones need goes to the trash."""
    img = state.images[image.key]
    if state.children(img, snap):
        kept = tuple(replace(one, name="", trash=True) if one.key == snap.key else one for one in img.snaps)
        return state.img(replace(img, snaps=kept))
    left = tuple(one for one in img.snaps if one.key != snap.key)
    state = state.img(replace(img, snaps=left))
    if img.bound and not left:
        state = parted(state, state.images[image.key])
    return state


def parted(state: State, child: Img) -> State:
    """The clone is none any more; with the last of them goes a snapshot in the trash."""
    link = child.parent
    state = state.img(replace(child, parent=None, bound=False))
    if link is not None and link[0] in state.images:
        parent = state.images[link[0]]
        for snap in parent.snaps:
            if snap.key == link[1] and snap.trash and not state.children(parent, snap):
                state = without(state, parent, snap)
    return state


@rule("Image.remove_snap", "Image.remove_snap2")
def _remove(case: Case) -> Iterator[Branch]:
    snap = case.image.snap(case.arg(0, "name"))
    flags = case.arg(1, "flags", 0)
    yield from _removal(case, snap, flags)


def _removal(case: Case, snap: Snap | None, flags: int = 0) -> Iterator[Branch]:
    if _closed_to_changes(case):
        yield case.error(EROFS)
        return
    if snap is None:
        yield case.error(ENOENT)
        if case.raced:
            yield case.ok()
        return
    if flags or case.handle.at is not None or any(one.bound for one in case.state.children(case.image, snap)):
        yield case.error("*")
        yield case.ok(without(case.state, case.image, snap))
        return
    children = case.state.children(case.image, snap)
    if snap.protected or any(child.old_clone for child in children) or (snap.trash and children):
        yield case.error(EBUSY)
        return
    image = case.image
    # Without a map to be kept it is done at once, whoever has the lock.
    states, errors = case.maintaining() if image.features & (FAST_DIFF | JOURNALING) else ([case.state], [])
    for state in states:
        yield case.ok(without(state, image, snap))
    if errors:
        yield case.error(*errors)


@rule("Image.remove_snap_by_id")
def _remove_by_id(case: Case) -> Iterator[Branch]:
    what = case.arg(0, "snap_id")
    if not isinstance(what, dict):
        yield case.error(ENOENT)
        return
    name = what["id_of"]
    if name == "<trash>":
        snap = next((one for one in case.image.snaps if one.trash), None)
    else:
        snap = case.image.snap(name)
    if snap is None:
        yield from case.any()  # it was there when its number was asked for
        return
    yield from _removal(case, snap)


@rule("Image.rename_snap")
def _rename(case: Case) -> Iterator[Branch]:
    old, new = case.arg(0, "srcname"), case.arg(1, "dstname")
    if _closed_to_changes(case):
        yield case.error(EROFS)
        return
    snap = case.image.snap(old)
    if snap is None:
        yield case.error(ENOENT)
        if case.raced:
            yield case.error(EEXIST)
            yield case.ok()
    elif case.image.snap(new) is not None:
        yield case.error(EEXIST)
    else:
        snaps = tuple(replace(one, name=new) if one.key == snap.key else one for one in case.image.snaps)
        yield case.ok(case.changed(snaps=snaps))
        if case.image.users:
            yield case.error(EROFS, EBUSY)


def _protection(case: Case, snap: Snap, on: bool) -> State:
    snaps = tuple(replace(one, protected=on) if one.key == snap.key else one for one in case.image.snaps)
    return case.changed(snaps=snaps)


@rule("Image.protect_snap")
def _protect(case: Case) -> Iterator[Branch]:
    snap = case.image.snap(case.arg(0, "name"))
    if _closed_to_changes(case):
        yield case.error(EROFS)
    elif snap is None:
        yield case.error(ENOENT)
    elif snap.protected:
        yield case.error(EBUSY)
        if case.raced:
            yield case.ok()
    else:
        yield case.ok(_protection(case, snap, True))


@rule("Image.unprotect_snap")
def _unprotect(case: Case) -> Iterator[Branch]:
    snap = case.image.snap(case.arg(0, "name"))
    if _closed_to_changes(case):
        yield case.error(EROFS)
    elif snap is None:
        yield case.error(ENOENT)
    elif not snap.protected:
        yield case.error(EINVAL)
        if case.raced:
            yield case.ok()
    elif any(child.old_clone for child in case.state.children(case.image, snap)):
        yield case.error(EBUSY)
    else:
        yield case.ok(_protection(case, snap, False))


@rule("Image.is_protected_snap")
def _is_protected(case: Case) -> Iterator[Branch]:
    snap = case.image.snap(case.arg(0, "name"))
    if case.handle.read_only:
        yield from case.any()
    elif snap is None:
        yield case.error(ENOENT)
    else:
        yield case.value(snap.protected)


@rule("Image.rollback_to_snap")
def _roll_back(case: Case) -> Iterator[Branch]:
    snap = case.image.snap(case.arg(0, "name"))
    if _closed_to_changes(case) or case.handle.at is not None:
        yield case.error(EROFS, ENOENT)
        return
    image, name = case.image, case.made.on
    kept = image.features & EXCLUSIVE and image.owner != name
    if kept and (image.owner is not None or image.users):  # it is not asked for
        yield case.error(EROFS)
        if snap is None:
            yield case.error(ENOENT)
        return
    state = case.changed(owner=name, by_hand=not case.handle.auto) if kept else case.state
    if snap is None:
        yield case.error(ENOENT)
    else:
        yield case.ok(state.resized(state.images[image.key], snap.size, name))


@rule("Image.list_snaps")
def _list(case: Case) -> Iterator[Branch]:
    if case.handle.read_only:
        yield case.ok()
        return
    wanted = [[snap.name, snap.size] for snap in case.image.named]
    trash = sum(snap.trash for snap in case.image.snaps)
    groups = len(case.image.snaps) - len(wanted) - trash
    words = f"{wanted}, {trash} in the trash, {groups} of groups"
    yield case.ok(None, lambda found: _listed(found) == (wanted, trash, groups), words)


def _listed(found: list[dict[str, object]]) -> tuple[list[list[object]], int, int]:
    named = [[snap["name"], snap["size"]] for snap in found if snap["namespace"] == 0]
    return named, *(sum(snap["namespace"] == kind for snap in found) for kind in (2, 1))  # type: ignore[return-value]


@rule("Image.snap_exists")
def _exists(case: Case) -> Iterator[Branch]:
    if case.handle.read_only:
        yield from case.any()
    else:
        yield case.value(case.image.snap(case.arg(0, "name")) is not None)


@rule("Image.set_snap")
def _set(case: Case) -> Iterator[Branch]:
    name = case.arg(0, "name")
    if name is None:
        yield case.ok(case.state.handle(case.made.on, replace(case.handle, at=None)))
        return
    snap = case.image.snap(name)
    if snap is None:
        yield case.error(ENOENT)
        if case.handle.read_only:
            yield case.ok()
    else:
        yield case.ok(case.state.handle(case.made.on, replace(case.handle, at=snap.key)))
        if case.handle.read_only:
            yield case.error(ENOENT)


@rule("Image.get_snap_limit")
def _limit(case: Case) -> Iterator[Branch]:
    yield case.value(2**64 - 1 if case.image.limit is None else case.image.limit)
    if case.handle.read_only:
        yield case.ok()


@rule("Image.set_snap_limit", "Image.remove_snap_limit")
def _set_limit(case: Case) -> Iterator[Branch]:
    limit = case.arg(0, "limit") if case.made.do.endswith("set_snap_limit") else None
    if _closed_to_changes(case):
        yield case.error(EROFS)
        return
    image, name = case.image, case.made.on
    if limit is not None and limit < len(image.snaps):
        yield case.error(ERANGE)
        if image.users or image.by_hand:
            yield case.error(EROFS)
        return
    if not image.features & EXCLUSIVE or image.owner == name:
        yield case.ok(case.changed(limit=limit))
    elif image.users or image.by_hand:
        yield case.error(EROFS)
    else:  # taken, also by a handle that takes it for nothing else
        yield case.ok(case.changed(limit=limit, owner=name, by_hand=not case.handle.auto))


@rule("Image.flatten")
def _flatten(case: Case) -> Iterator[Branch]:
    if _closed_to_changes(case) or case.handle.at is not None:
        yield case.error(EROFS, EINVAL)
        return
    image = case.image
    states, errors = case.maintaining()
    for state in states:
        if image.parent is None or image.bound:
            yield from _gone(case, state, EINVAL)
            if image.bound or case.raced:
                yield case.ok(state)
        elif image.snaps and not image.features & DEEP_FLATTEN:
            yield case.ok(state.img(replace(state.images[image.key], bound=True)))
        else:
            yield case.ok(parted(state, state.images[image.key]))
    if errors:
        yield case.error(*errors)


@rule("Image.list_children", "Image.list_children2", "Image.list_descendants")
def _children(case: Case) -> Iterator[Branch]:
    yield case.ok()  # what they are is looked at in the end


@rule("Image.parent_info", "Image.parent_id", "Image.get_parent_image_spec")
def _parent(case: Case) -> Iterator[Branch]:
    if case.image.bound or case.handle.read_only or case.handle.at is not None:
        yield from case.any()
    elif case.image.parent is None:
        yield case.error(ENOENT)
    else:
        yield case.ok()
        if case.image.size == 0:
            yield case.error(ENOENT)


@rule("Image.diff_iterate")
def _diff(case: Case) -> Iterator[Branch]:
    since = case.arg(2, "from_snapshot")
    if isinstance(since, float) or (isinstance(since, dict) and "b64" in since):
        if case.module != "rbd":  # librbd's binding of 16 lets it pass
            yield case.error("TypeError")
        else:
            yield from case.any()
            yield case.error("TypeError", "InvalidArgument", "AttributeError")
        return
    if isinstance(since, int) and case.module == "rbd":  # from 18 on
        yield from case.any()
        yield case.error("TypeError", "InvalidArgument", "AttributeError")
        return
    if case.handle.at is not None or case.handle.read_only:
        yield from case.any()
        return
    if (isinstance(since, str) and case.image.snap(since) is None) or (isinstance(since, int) and since != 0):
        yield case.error(ENOENT)
    elif case.arg(0, "offset") > case.image.size:
        yield case.error(EINVAL)
    else:
        yield case.ok()


@rule("Image.copy", "Image.deep_copy")
def _copy(case: Case) -> Iterator[Branch]:
    name, deep = case.arg(1, "dest_name"), case.made.do.endswith("deep_copy")
    if case.of_name(name) is not None:
        yield case.error(EEXIST)
        return
    image = case.image
    form = case.arg(7, "clone_format")
    if deep and form == 1 and image.parent is not None and not case.arg(8, "flatten", False):
        parent = case.state.images.get(image.parent[0])
        snap = next((one for one in parent.snaps if one.key == image.parent[1]), None) if parent else None
        if snap is None or not snap.protected:
            yield case.error(EINVAL)
            if image.bound or image.size == 0:
                yield from _copied(case, name, deep)
            return
    if form is not None and form not in (1, 2):
        yield case.error(EINVAL)
        return
    order, unit = case.arg(3, "order") or image.order, case.arg(4, "stripe_unit")
    if not unit and (image.stripe[0] if image.stripe else 1 << image.order) > 1 << order:
        yield case.error(EINVAL, EDOM)  # the source's unit does not fit
        return
    if deep and image.parent is not None:
        parent = case.state.images.get(image.parent[0])
        if parent is None or any(one.trash and one.key == image.parent[1] for one in parent.snaps):
            yield case.error(ENOENT)  # librbd finds no snapshot in the trash
    yield from _copied(case, name, deep)


def _copied(case: Case, name: str, deep: bool) -> Iterator[Branch]:
    image = case.image
    order = case.arg(3, "order") or image.order
    features = case.arg(2, "features")
    size = case.snap.size if case.snap is not None else image.size
    parent = image.parent if deep and not case.arg(8, "flatten", False) else None
    named = image.named if deep else ()
    snaps = tuple(Snap(case.uid * 1000 + n, one.name, one.size, one.protected) for n, one in enumerate(named))
    made = Img(
        case.uid, size, order, image.features if features is None else features, snaps, image.meta, parent=parent,
        old_clone=case.arg(7, "clone_format") == 1 and parent is not None, bound=image.bound and parent is not None,
    )  # fmt: skip
    state = case.state.img(made)
    yield case.ok(replace(state, names={**state.names, name: case.uid}))
