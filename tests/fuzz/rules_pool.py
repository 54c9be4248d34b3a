"""The rules of images as entries of a pool: made, renamed, removed; the trash, groups, mirroring. See
:mod:`tests.fuzz.rules`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz.rules import EBUSY, EDOM, EEXIST, EINVAL, EMLINK, ENOENT, ENOSYS, ENOTEMPTY, EROFS, Branch, Case, rule
from tests.fuzz.rules_snap import parted
from tests.fuzz.state import EXCLUSIVE, FAST_DIFF, LAYERING, MAP, Group, Img, Snap, State


@rule("RBD.create")
def _create(case: Case) -> Iterator[Branch]:
    kw = case.made.call.get("kw", {})
    name, size = case.arg(1, "name"), case.arg(2, "size")
    if not name:
        yield case.error(EINVAL)
        return
    if case.of_name(name) is not None:
        yield case.error(EEXIST)
        return
    features = kw.get("features", 61)
    if features & MAP and not features & EXCLUSIVE:
        yield case.error(EINVAL)
        return
    if features & MAP:
        features |= FAST_DIFF
    stripe = (kw["stripe_unit"], kw["stripe_count"]) if kw.get("stripe_unit") else None
    image = Img(case.uid, size, kw["order"], features, stripe=stripe)
    yield case.ok(replace(case.state.img(image), names={**case.state.names, name: case.uid}))


@rule("RBD.clone")
def _clone(case: Case) -> Iterator[Branch]:
    kw = case.made.call.get("kw", {})
    parent, snap_name, name = case.of_name(case.arg(1, "p_name")), case.arg(2, "p_snapshot"), case.arg(4, "c_name")
    snap = parent.snap(snap_name) if parent is not None else None
    form = kw.get("clone_format", 2)
    if parent is None or snap is None:
        yield case.error(ENOENT, EINVAL)
        return
    if form not in (1, 2):
        yield case.error(EINVAL)
        return
    if case.of_name(name) is not None:
        yield case.error(EEXIST)
        if form == 1 and not snap.protected:
            yield case.error(EINVAL)
        return
    if form == 1 and not snap.protected:
        yield case.error(EINVAL)
        return
    if not parent.features & LAYERING or not kw.get("features", 61) & LAYERING:
        yield case.error(ENOSYS)
        return
    if (parent.stripe[0] if parent.stripe else 1 << parent.order) > 1 << kw["order"]:
        yield case.error(EINVAL, EDOM)  # the parent's unit does not fit
        return
    features = kw.get("features", 61)
    image = Img(case.uid, snap.size, kw["order"], features, parent=(parent.key, snap.key), old_clone=form == 1)
    yield case.ok(replace(case.state.img(image), names={**case.state.names, name: case.uid}))


def _removed(state: State, image: Img) -> State:
    state = parted(state, image) if image.parent is not None else state
    images = {key: one for key, one in state.images.items() if key != image.key}
    names = {name: key for name, key in state.names.items() if key != image.key}
    trash = {name: key for name, key in state.trash.items() if key != image.key}
    groups = {name: replace(one, members=one.members - {image.key}) for name, one in state.groups.items()}
    return replace(state, images=images, names=names, trash=trash, groups=groups)


def _open_handles(case: Case, image: Img) -> list[str]:
    return [name for name, handle in case.state.handles.items() if handle.image == image.key]


@rule("RBD.remove")
def _remove(case: Case) -> Iterator[Branch]:
    image = case.of_name(case.arg(1, "name"))
    if image is None:
        yield case.error(ENOENT)
        if case.raced:
            yield case.ok()
        return
    errors: list[int] = [EBUSY] if case.raced else []
    if image.snaps:
        errors.append(ENOTEMPTY)
    if _open_handles(case, image) or image.users:
        errors.append(EBUSY)
    if image.group is not None:
        errors += [EMLINK, EBUSY]
    if image.mirror == "demoted":
        errors += [EINVAL, EROFS, EBUSY]
    if errors:
        yield case.error(*errors)
        if image.users and len(errors) == 1:
            yield case.ok(_removed(case.state, image))
    if not errors or case.raced:
        yield case.ok(_removed(case.state, image))


@rule("RBD.rename")
def _rename(case: Case) -> Iterator[Branch]:
    old, new = case.arg(1, "src"), case.arg(2, "dest")
    image = case.of_name(old)
    if image is None:
        yield case.error(ENOENT)
        if case.raced:
            yield case.error(EEXIST)
            yield case.ok()
    elif not new:
        yield case.error(EINVAL)
    elif case.of_name(new) is not None:
        yield case.error(EEXIST)
        if image.mirror == "demoted":
            yield case.error(EROFS)
    elif image.mirror == "demoted":
        yield case.error(EROFS)
    else:
        names = {new if name == old else name: key for name, key in case.state.names.items()}
        after = replace(case.state, names=names)
        yield case.ok(after)
        if image.users or image.by_hand:
            yield case.error(EROFS, EBUSY)
        if image.owner is None and image.features & EXCLUSIVE:
            yield case.ok(after)


@rule("RBD.list")
def _list(case: Case) -> Iterator[Branch]:
    wanted = set(case.state.names)
    yield case.ok(None, lambda found: set(found) == wanted, repr(sorted(wanted)))


@rule("Image.get_name")
def _name(case: Case) -> Iterator[Branch]:
    name = case.state.name_of(case.handle.image)
    if name is None or case.handle.read_only:
        yield case.ok()
    else:
        yield case.value(name)


# --- trash -----------------------------------------------------------------------------------------------------------


@rule("RBD.trash_move")
def _trash(case: Case) -> Iterator[Branch]:
    name = case.arg(1, "name")
    image = case.of_name(name)
    if image is None:
        yield case.error(ENOENT)
        if case.raced:
            yield case.ok()
        return
    errors: list[int] = []
    if image.group is not None:
        errors += [EMLINK, EBUSY]
    if image.by_hand or image.users:
        errors.append(EBUSY)
    if image.mirror == "demoted":
        errors += [EINVAL, EROFS]
    if errors:
        yield case.error(*errors)
    if not errors or (errors == [EBUSY] and image.users) or (image.group is not None and case.module == "rbd"):
        names = {one: key for one, key in case.state.names.items() if one != name}
        images = {**case.state.images, image.key: replace(image, owner=None, by_hand=False)}
        trash = {**case.state.trash, name: image.key}
        yield case.ok(replace(case.state, names=names, trash=trash, images=images))
        yield case.ok(replace(case.state, names=names, trash=trash))


@rule("RBD.trash_restore")
def _restore(case: Case) -> Iterator[Branch]:
    what, name = case.arg(1, "image_id"), case.arg(2, "name")
    old = what["trash_id"] if isinstance(what, dict) else None
    key = case.state.trash.get(old or "")
    if key is None:
        yield case.error(ENOENT)
        return
    assert old is not None
    if case.of_name(name or old) is not None:
        yield case.error(EEXIST)
        return
    trash = {one: value for one, value in case.state.trash.items() if one != old}
    yield case.ok(replace(case.state, trash=trash, names={**case.state.names, name or old: key}))


@rule("RBD.trash_remove")
def _trash_remove(case: Case) -> Iterator[Branch]:
    what = case.arg(1, "image_id")
    key = case.state.trash.get(what["trash_id"]) if isinstance(what, dict) else None
    if key is None:
        yield case.error(ENOENT)
        if case.raced:
            yield case.error(EBUSY)
            yield case.ok()
        return
    image = case.state.images[key]
    if case.raced:
        yield case.error(EBUSY)
    if image.snaps:
        yield case.error(ENOTEMPTY, EBUSY)
    elif _open_handles(case, image):
        yield case.error(EBUSY)
    else:
        yield case.ok(_removed(case.state, image))
        if image.users:
            yield case.error(EBUSY)


@rule("RBD.trash_list")
def _trash_list(case: Case) -> Iterator[Branch]:
    wanted = sorted(case.state.trash)
    yield case.ok(None, lambda found: sorted(one["name"] for one in found) == wanted, repr(wanted))


@rule("RBD.trash_get")
def _trash_get(case: Case) -> Iterator[Branch]:
    what = case.arg(1, "image_id")
    there = isinstance(what, dict) and what["trash_id"] in case.state.trash
    yield case.ok() if there else case.error(ENOENT)


# --- groups ----------------------------------------------------------------------------------------------------------


def _group(case: Case) -> tuple[str, Group | None]:
    name = str(case.made.call["args"][0])
    return name, case.state.groups.get(name)


def _with(case: Case, name: str, group: Group, state: State | None = None) -> State:
    state = state or case.state
    return replace(state, groups={**state.groups, name: group})


@rule("RBD.group_create")
def _group_create(case: Case) -> Iterator[Branch]:
    name = case.arg(1, "name")
    if not name:
        yield case.error(EINVAL)
    elif name in case.state.groups:
        yield case.error(EEXIST)
    else:
        yield case.ok(_with(case, name, Group()))


@rule("RBD.group_list")
def _group_list(case: Case) -> Iterator[Branch]:
    wanted = sorted(case.state.groups)
    yield case.ok(None, lambda found: sorted(found) == wanted, repr(wanted))


@rule("Group.add_image")
def _add(case: Case) -> Iterator[Branch]:
    name, group = _group(case)
    image = case.of_name(case.made.call["args"][2])
    if group is None or image is None:
        yield case.error(ENOENT)
    elif image.group not in (None, name):
        yield case.error(EEXIST, 9)
    else:
        state = case.state.img(replace(image, group=name))
        yield case.ok(_with(case, name, replace(group, members=group.members | {image.key}), state))


@rule("Group.remove_image")
def _leave(case: Case) -> Iterator[Branch]:
    name, group = _group(case)
    image = case.of_name(case.made.call["args"][2])
    if group is None or image is None:
        yield case.error(ENOENT)
    elif image.key not in group.members:
        yield case.ok()
        yield case.error(ENOENT, 9, EINVAL)
    else:
        state = case.state.img(replace(image, group=None))
        yield case.ok(_with(case, name, replace(group, members=group.members - {image.key}), state))


@rule("Group.list_images")
def _members(case: Case) -> Iterator[Branch]:
    _, group = _group(case)
    names = sorted(str(case.state.name_of(key)) for key in group.members) if group else []
    yield case.ok(None, lambda found: sorted(one["name"] for one in found) == names, repr(names))
    if group is None:
        yield case.error(ENOENT)


def blocked(case: Case, image: Img) -> bool:
    """Whether the lock cannot be had for it."""
    return bool(image.features & EXCLUSIVE and (image.by_hand or image.users))


@rule("Group.create_snap")
def _group_snap(case: Case) -> Iterator[Branch]:
    name, group = _group(case)
    snap = case.made.call["args"][1]
    if group is None:
        yield case.error(ENOENT)
        return
    if any(one == snap for one, _ in group.snaps):
        yield case.error(EEXIST)
        return
    members = [case.state.images[key] for key in sorted(group.members)]
    if any(blocked(case, image) for image in members):
        yield case.error(EROFS, EBUSY)
        return
    state = case.state
    for place, image in enumerate(members):
        taken = Snap(case.uid * 1000 + place, f".group.{name}.{snap}", image.size)
        state = state.img(replace(image, snaps=(*image.snaps, taken), owner=None))
    yield case.ok(_with(case, name, replace(group, snaps=(*group.snaps, (snap, group.members))), state))


@rule("Group.list_snaps")
def _group_snaps(case: Case) -> Iterator[Branch]:
    _, group = _group(case)
    names = sorted(one for one, _ in group.snaps) if group else []
    yield case.ok(None, lambda found: sorted(one["name"] for one in found) == names, repr(names))
    if group is None:
        yield case.error(ENOENT)


@rule("Group.remove_snap")
def _group_snap_gone(case: Case) -> Iterator[Branch]:
    name, group = _group(case)
    snap = case.made.call["args"][1]
    if group is None or all(one != snap for one, _ in group.snaps):
        yield case.error(ENOENT)
        return
    state = case.state
    for image in state.images.values():
        left = tuple(one for one in image.snaps if one.name != f".group.{name}.{snap}")
        state = state.img(replace(image, snaps=left))
    if any(image.users for image in case.state.images.values()):
        yield case.error(EROFS, EBUSY)
    snaps = tuple(one for one in group.snaps if one[0] != snap)
    yield case.ok(_with(case, name, replace(group, snaps=snaps), state))


@rule("Group.rollback_to_snap")
def _group_back(case: Case) -> Iterator[Branch]:
    name, group = _group(case)
    snap = case.made.call["args"][1]
    found = next((members for one, members in group.snaps if one == snap), None) if group else None
    if group is None or found is None:
        yield case.error(ENOENT)
        return
    if found != group.members:
        yield case.error(EINVAL)
        if case.module == "rbd":  # 16 rolls back whatever the snapshot has
            yield from _rolled_back(case, name, snap)
        return
    members = [case.state.images[key] for key in group.members]
    if any(blocked(case, image) for image in members):
        yield case.error(EROFS, EBUSY)
        return
    yield from _rolled_back(case, name, snap)


def _rolled_back(case: Case, name: str, snap: str) -> Iterator[Branch]:
    state = case.state
    for image in state.images.values():
        for taken in image.snaps:
            if taken.name == f".group.{name}.{snap}":
                state = state.resized(image, taken.size, "")
                state = state.img(replace(state.images[image.key], owner=None, by_hand=False))
    yield case.ok(state)


@rule("RBD.group_remove")
def _group_remove(case: Case) -> Iterator[Branch]:
    name = case.arg(1, "name")
    group = case.state.groups.get(name)
    if group is None:
        yield case.ok()
        yield case.error(ENOENT)
        return
    state = case.state
    for image in state.images.values():
        left = tuple(one for one in image.snaps if not one.name.startswith(f".group.{name}."))
        state = state.img(replace(image, snaps=left, group=None if image.group == name else image.group))
    yield case.ok(replace(state, groups={one: value for one, value in state.groups.items() if one != name}))


# --- mirroring -------------------------------------------------------------------------------------------------------


@rule("Image.mirror_image_enable")
def _enable(case: Case) -> Iterator[Branch]:
    if case.handle.read_only:
        yield case.error(EROFS, EINVAL)
    elif case.image.mirror == "demoted":
        yield from case.any()
    elif case.arg(0, "mode", 0) == 1:
        yield case.ok(case.changed(mirror="primary"))
    else:
        yield from case.any()


@rule("Image.mirror_image_disable")
def _disable(case: Case) -> Iterator[Branch]:
    if case.image.mirror == "demoted" and not case.arg(0, "force"):
        yield case.error(EINVAL)
        return
    yield case.ok(_without_mirror(case))
    if case.image.mirror is None:
        yield case.error(EINVAL)


def _without_mirror(case: Case) -> State:
    return case.changed(mirror=None, owner=case.image.owner)


@rule("Image.mirror_image_demote")
def _demote(case: Case) -> Iterator[Branch]:
    if case.image.mirror != "primary":
        yield case.error(EINVAL)
    elif blocked(case, case.image) and case.image.owner != case.made.on:
        yield case.error(EROFS, EBUSY, EINVAL)
    else:
        yield case.ok(case.changed(mirror="demoted", owner=None, by_hand=False))


@rule("Image.mirror_image_promote")
def _promote(case: Case) -> Iterator[Branch]:
    if case.image.mirror != "demoted":
        yield case.error(EINVAL, ENOENT)
    else:
        yield case.ok(case.changed(mirror="primary"))
