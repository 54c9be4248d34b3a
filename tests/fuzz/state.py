"""What a model knows of a pool besides the bytes: values that are replaced, never changed, so that orders of calls can be
tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

LAYERING, EXCLUSIVE, MAP, FAST_DIFF, DEEP_FLATTEN, JOURNALING = 1, 4, 8, 16, 32, 64
GROUP = ".group."
"""How the names of snapshots begin that are of a group: the model's own names."""


@dataclass(frozen=True)
class Snap:
    """`key`: a number that stays when it is renamed. `trash`: its name was given up, its clones were not. `maybe`: whether
    it is there at all is not known."""

    key: int
    name: str
    size: int
    protected: bool = False
    trash: bool = False


@dataclass(frozen=True)
class Img:
    """One image. owner: the handle that has the exclusive lock; by_hand: it was taken so. users: advisory locks, (client,
    cookie, tag). parent: (image, snapshot) by their keys. bound: a clone whose snapshots keep it with its parent although
    it was flattened."""

    key: int
    size: int
    order: int
    features: int
    snaps: tuple[Snap, ...] = ()
    meta: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    parent: tuple[int, int] | None = None
    old_clone: bool = False
    bound: bool = False
    owner: str | None = None
    by_hand: bool = False
    users: tuple[tuple[str, str, str | None], ...] = ()
    mirror: str | None = None
    group: str | None = None
    stripe: tuple[int, int] | None = None

    def snap(self, name: str) -> Snap | None:
        return next((snap for snap in self.snaps if snap.name == name and not snap.trash), None)

    @property
    def named(self) -> tuple[Snap, ...]:
        return tuple(snap for snap in self.snaps if not snap.trash and not snap.name.startswith(GROUP))


@dataclass(frozen=True)
class Handle:
    """An open image. at: the key of the snapshot that it is set to. auto: it takes the lock for itself when it needs it.
    stale: sizes that it may still hold to be true."""

    image: int
    at: int | None = None
    read_only: bool = False
    auto: bool = True
    stale: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """members: keys of images. snaps: (name, members when it was taken)."""

    members: frozenset[int] = frozenset()
    snaps: tuple[tuple[str, frozenset[int]], ...] = ()


Items = tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class State:
    """names: of images, to their keys. fenced: clients that the cluster does not let in; doubtful: those of which that is
    not known."""

    images: dict[int, Img] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    trash: dict[str, int] = field(default_factory=dict)
    handles: dict[str, Handle] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    fenced: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()

    def __hash__(self) -> int:
        return hash((self.fenced, *(frozenset(one.items()) for one in self._parts())))

    def _parts(self) -> tuple[dict[Any, Any], ...]:
        return (self.images, self.names, self.trash, self.handles, self.groups)

    def name_of(self, key: int) -> str | None:
        return next((name for name, one in self.names.items() if one == key), None)

    def img(self, img: Img) -> State:
        """With that image as it is now."""
        return replace(self, images={**self.images, img.key: img})

    def handle(self, name: str, handle: Handle | None) -> State:
        """With that handle so, or closed."""
        handles = {one: value for one, value in self.handles.items() if one != name}
        return replace(self, handles=handles if handle is None else {**handles, name: handle})

    def each(self, change: Callable[[Img], Img]) -> State:
        return replace(self, images={key: change(img) for key, img in self.images.items()})

    def children(self, img: Img, snap: Snap) -> list[Img]:
        """Clones of a snapshot."""
        return [one for one in self.images.values() if one.parent == (img.key, snap.key)]

    def resized(self, img: Img, size: int, by: str) -> State:
        """The other handles may not know it yet."""
        handles = {
            name: replace(one, stale=(*one.stale, img.size)[-6:]) if one.image == img.key and name != by else one
            for name, one in self.handles.items()
        }
        return replace(self.img(replace(img, size=size)), handles=handles)

    def gone(self, client: str) -> State:
        """The client is dead: its handles and its locks with it. Advisory locks stay."""
        handles = {name: one for name, one in self.handles.items() if name[0] != client}
        return replace(self.unlocked(client), handles=handles)

    def unlocked(self, client: str) -> State:
        """Nobody need ask that client for a lock."""
        return self.each(lambda img: replace(img, owner=None, by_hand=False) if (img.owner or "-")[0] == client else img)

    def fence(self, client: str) -> State:
        return replace(self.unlocked(client), fenced=self.fenced | {client})

    def let_in(self, client: str) -> State:
        """It has connected anew."""
        return replace(self, fenced=self.fenced - {client}, doubtful=self.doubtful - {client})
