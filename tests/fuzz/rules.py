"""What a call may answer in a state, and what the state is then: a function for each call.

Each is given a :class:`Case` and gives branches: an answer that is wanted, and the state after it. Where releases of librbd
differ the newest is right; what librbd itself does otherwise in an older one is in :mod:`tests.fuzz.releases`. Errors are
errnos, or names of exceptions that have none.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from tests.fuzz.stage import Made
from tests.fuzz.state import EXCLUSIVE, Handle, Img, Snap, State

EPERM, ENOENT, EBUSY, EEXIST, EINVAL, EROFS, EMLINK, EDOM, ERANGE = 1, 2, 16, 17, 22, 30, 31, 33, 34
ENOSYS, ENOTEMPTY, ENOTSUP, ESHUTDOWN, ETIMEDOUT, EDQUOT, ECANCELED = 38, 39, 95, 108, 110, 122, 125
SHORT = "IncompleteWriteError"
CLASSES = {
    1: "PermissionError",
    2: "ImageNotFound",
    5: "IOError",
    16: "ImageBusy",
    17: "ImageExists",
    22: "InvalidArgument",
    28: "NoSpace",
    30: "ReadOnlyImage",
    33: "ArgumentOutOfRange",
    38: "FunctionNotSupported",
    39: "ImageHasSnapshots",
    95: "OperationNotSupported",
    108: "ConnectionShutdown",
    110: "Timeout",
    122: "DiskQuotaExceeded",
    125: "OperationCanceled",
}
GROUP_CLASSES = {**CLASSES, 2: "ObjectNotFound", 17: "ObjectExists"}
OURS_TOO = {31: {"OSError", "ImageMemberOfGroup"}}  # a class of its own from 18 on


class Want(NamedTuple):
    """errors: None for success, whose value `check` takes; else what may be raised ("*": any error of the library)."""

    errors: frozenset[int | str] | None
    check: Callable[[Any], bool] | None
    words: str

    def takes(self, made: Made) -> bool:
        if made.err is None:
            return self.errors is None and (self.check is None or self.check(made.ok))
        if self.errors is None:
            return False
        kind, code, _ = made.err
        if "*" in self.errors:
            return code is not None or kind in (SHORT, "KeyError", None)
        if kind == "InvalidArgument" and code is None:  # the binding itself refuses some of these
            return EINVAL in self.errors or kind in self.errors
        return (code in self.errors or kind in self.errors) and _class_fits(made, kind, code)


def _class_fits(made: Made, kind: str | None, code: int | None) -> bool:
    if kind is None or code is None:
        return True
    wanted = (GROUP_CLASSES if made.do.startswith("Group") or ".group_" in made.do else CLASSES).get(code, "OSError")
    other = (CLASSES if wanted == GROUP_CLASSES.get(code) else GROUP_CLASSES).get(code)
    return kind in {wanted, *OURS_TOO.get(code, ())} or (kind == other and code in (2, 17))


class Branch(NamedTuple):
    want: Want
    state: State


@dataclass
class Case:
    """A call, in a state. module: the library that makes it. cached: whether writes may be kept."""

    state: State
    made: Made
    module: str
    cached: bool
    uid: int
    raced: bool = False
    """Whether the same was asked for by another at the same time."""

    # --- what it is about ---

    @property
    def client(self) -> str:
        return self.made.on[0]

    @property
    def handle(self) -> Handle:
        return self.state.handles[self.made.on]

    @property
    def image(self) -> Img:
        return self.state.images[self.handle.image]

    @property
    def snap(self) -> Snap | None:
        """The snapshot that the handle is set to. KeyError where that is gone."""
        if self.handle.at is None:
            return None
        found = next((snap for snap in self.image.snaps if snap.key == self.handle.at), None)
        if found is None:
            raise KeyError(self.handle.at)
        return found

    @property
    def fenced(self) -> bool:
        return self.client in self.state.fenced

    @property
    def doubtful(self) -> bool:
        return self.client in self.state.doubtful

    def arg(self, place: int, name: str, default: Any = None) -> Any:
        args, kw = self.made.call.get("args", []), self.made.call.get("kw", {})
        return kw.get(name, args[place] if place < len(args) else default)

    def of_name(self, name: str) -> Img | None:
        key = self.state.names.get(name)
        return None if key is None else self.state.images[key]

    # --- what may come ---

    def ok(self, state: State | None = None, check: Callable[[Any], bool] | None = None, words: str = "success") -> Branch:
        return Branch(Want(None, check, words), state or self.state)

    def value(self, value: Any) -> Branch:
        return self.ok(None, lambda found: bool(found == value), repr(value))

    def error(self, *errors: int | str) -> Branch:
        return Branch(Want(frozenset(errors), None, f"error {sorted(map(str, errors))}"), self.state)

    def any(self) -> list[Branch]:
        """Whatever is no failure of the library itself."""
        return [self.ok(), self.error("*")]

    def changed(self, **how: Any) -> State:
        """With the image otherwise."""
        return self.state.img(replace(self.image, **how))

    # --- the lock ---

    def taking(self) -> tuple[list[State], list[int]]:
        """For a call that needs the lock for itself: the states in which it goes on, and the errors it may end with."""
        image, handle, name = self.image, self.handle, self.made.on
        if not image.features & EXCLUSIVE or image.owner == name:
            return [self.state], []
        if image.users or (image.owner is not None and image.by_hand) or not handle.auto:
            return [], [EROFS]
        return [self.changed(owner=name, by_hand=False)], []

    def maintaining(self) -> tuple[list[State], list[int]]:
        """For a call that the owner is asked to carry out, where there is one."""
        image, name = self.image, self.made.on
        if not image.features & EXCLUSIVE or image.owner == name:
            return [self.state], []
        if image.users:
            return [], [EROFS, EBUSY]
        if image.owner is not None:
            return [self.state], []
        if not self.handle.auto:
            return [self.state, self.changed(owner=name, by_hand=True)], []
        return [self.changed(owner=name, by_hand=False)], []

    def on(self, state: State) -> Case:
        return replace(self, state=state)


Rule = Callable[[Case], Iterable[Branch]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def branches(case: Case) -> Iterator[Branch]:
    """All that may come of a call."""
    function = RULES.get(case.made.do)
    if case.made.do.startswith("Image.") and case.made.do != "Image.open" and case.made.on not in case.state.handles:
        yield case.error("InvalidArgument", EINVAL)
        return
    if case.fenced or case.doubtful:
        yield from _fenced(case)
        if case.fenced:
            return
    try:
        yield from case.any() if function is None else function(case)
    except KeyError:  # the handle's snapshot is gone
        yield from case.any()


KNOWN = frozenset({"Image.stat", "Image.size", "Image.features", "Image.id", "Image.get_name", "Image.block_name_prefix"})
"""What an open image knows without asking the cluster."""


def _fenced(case: Case) -> Iterator[Branch]:
    """A client that is not let in has no more effect. It learns so from ESHUTDOWN, but can close what it has open."""
    do = case.made.do
    if do in ("Image.close", "Image.aio_close"):
        yield case.ok(case.state.handle(case.made.on, None))
    elif do == "client.shutdown":
        yield case.ok(case.state.gone(case.client))
    elif do == "client.connect":
        yield case.ok(case.state.let_in(case.client))
    elif do in ("Image.open", "RBD.aio_open_image"):
        yield case.error("*")
    elif do == "Image.is_exclusive_lock_owner":
        yield case.error(ESHUTDOWN)
        if not case.image.features & EXCLUSIVE or case.doubtful:
            yield case.value(False)
    elif do in KNOWN:
        yield case.ok()
        yield case.error(ESHUTDOWN)
    elif do.startswith(("Image.write", "Image.aio_write", "Image.discard", "Image.aio_discard")):
        yield case.error("*")
        if case.cached:
            yield case.ok()
    elif do in MUTATES:
        yield case.error("*")
    else:
        yield from case.any()


MUTATES = frozenset(
    "Image." + name
    for name in """
    resize create_snap remove_snap remove_snap_by_id rename_snap protect_snap unprotect_snap rollback_to_snap set_snap_limit
    metadata_set metadata_remove update_features flatten sparsify rebuild_object_map lock_exclusive lock_shared unlock
    lock_break copy deep_copy mirror_image_enable mirror_image_disable mirror_image_promote mirror_image_demote""".split()
) | {"RBD.create", "RBD.clone", "RBD.rename", "RBD.remove", "RBD.trash_move", "RBD.trash_restore", "RBD.group_create"}


# --- data ------------------------------------------------------------------------------------------------------------


def raw(value: Any) -> bytes:
    return base64.b64decode(value["b64"])


def sizes(case: Case) -> list[int]:
    """The sizes that the handle may go by."""
    snap = case.snap
    if snap is not None:
        return [snap.size]
    return list(dict.fromkeys([case.image.size, *case.handle.stale]))


@rule("Image.read", "Image.aio_read")
def _read(case: Case) -> Iterator[Branch]:
    offset, length = case.arg(0, "offset"), case.arg(1, "length")
    for size in sizes(case):
        if offset + length > size and (offset > size or (offset == size and length)):
            yield case.error(EINVAL)
        else:
            wanted = min(length, size - offset)
            yield case.ok(None, partial(_is_long, wanted), f"{wanted} bytes")


def _is_long(wanted: int, value: Any) -> bool:
    return len(raw(value)) == wanted


def _length(case: Case) -> tuple[int, int]:
    if case.made.do.endswith("write"):
        data = case.arg(0, "data")
        return case.arg(1, "offset"), data["data"][1] if "data" in data else len(raw(data))
    return case.arg(0, "offset"), case.arg(1, "length")


@rule(
    "Image.write", "Image.aio_write", "Image.discard", "Image.aio_discard", "Image.write_zeroes", "Image.aio_write_zeroes"
)  # fmt: skip
def _write(case: Case) -> Iterator[Branch]:
    offset, length = _length(case)
    if case.handle.read_only or case.handle.at is not None:
        yield case.error(EROFS, EINVAL) if length else case.ok()
        yield case.error(EROFS)
        return
    if case.image.mirror == "demoted":
        yield case.error(EROFS)
        return
    flags = case.arg(2, "zero_flags", 0) if "zeroes" in case.made.do else 0
    states, errors = case.taking()
    for size in sizes(case):
        if flags not in (0, 1) or (length and offset >= size):
            yield case.error(EINVAL)
        elif length == 0:
            yield case.ok()
        elif offset + length > size and case.made.do == "Image.write":
            yield from (Branch(Want(frozenset({SHORT}), None, "a short write"), state) for state in states)
        else:
            yield from (case.ok(state) for state in states)
    if errors:
        yield case.error(*errors)


@rule("Image.flush", "Image.aio_flush")
def _flush(case: Case) -> Iterator[Branch]:
    if case.handle.read_only or case.handle.at is not None:
        yield case.ok()
        return
    states, errors = case.taking()
    yield from (case.ok(state) for state in states)
    if errors:
        yield case.error(*errors)


@rule("Image.invalidate_cache")
def _invalidate(case: Case) -> Iterator[Branch]:
    yield case.ok()
    yield case.error(EROFS)


@rule("Image.size")
def _size(case: Case) -> Iterator[Branch]:
    wanted = sizes(case) if case.handle.read_only else [case.snap.size if case.snap else case.image.size]
    after = case.state
    if not case.handle.read_only:
        after = after.handle(case.made.on, replace(case.handle, stale=()))
    for size in wanted:
        yield case.ok(after, lambda value, size=size: bool(value == size), str(size))  # type: ignore[misc]


@rule("Image.stat")
def _stat(case: Case) -> Iterator[Branch]:
    for branch in _size(case):
        yield case.ok(branch.state, lambda value, branch=branch: branch.want.check(value["size"]), branch.want.words)  # type: ignore[misc]


@rule("Image.resize")
def _resize(case: Case) -> Iterator[Branch]:
    size, shrink = case.arg(0, "size"), case.arg(1, "allow_shrink", True)
    if case.handle.read_only or case.image.mirror == "demoted":
        yield case.error(EROFS)
        return
    if case.handle.at is not None:
        yield from case.any()
        return
    if not shrink and size < case.image.size:
        yield case.error(EINVAL)
        return
    states, errors = case.maintaining()
    for state in states:
        # librbd looks only later at what another did for it
        by = "" if case.module == "rbd" and state.images[case.image.key].owner != case.made.on else case.made.on
        yield case.ok(state.resized(state.images[case.image.key], size, by))
    if errors:
        yield case.error(*errors)
