"""The methods of an image about its locks, and about who has it open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rbd_native.api.boundary import drive, name_text, shown, uint64
from rbd_native.constants import RBD_LOCK_MODE_EXCLUSIVE
from rbd_native.image.context import ImageContext
from rbd_native.operations import locks


class LockMethods:
    """What class Image has of them."""

    name: bytes | str

    @property
    def _image(self) -> ImageContext:
        raise NotImplementedError

    def is_exclusive_lock_owner(self) -> bool:
        """Whether this handle holds the image's exclusive lock."""
        message = "error getting lock status for image %s"
        return drive(locks.is_owner(self._image), message, self.name)

    def lock_acquire(self, lock_mode: int) -> None:
        """Take the exclusive lock (RBD_LOCK_MODE_EXCLUSIVE), and keep it until lock_release or close; or, with
        RBD_LOCK_MODE_EXCLUSIVE_TRANSIENT, until another client wants it. In either case it is not taken automatically any
        more. OperationNotSupported for other modes."""
        drive(locks.acquire(self._image, uint64(lock_mode)), "error acquiring lock on image")

    def lock_release(self) -> None:
        """Give the exclusive lock back. Writes take it again, unless lock_acquire has taken it. InvalidArgument if not
        held."""
        drive(locks.release(self._image), "error releasing lock on image")

    def lock_get_owners(self) -> LockOwnerIterator:
        """Iterate over the owner, if any, as dicts with keys mode and owner (an address)."""
        return LockOwnerIterator(self)

    def lock_break(self, lock_mode: int, lock_owner: str | bytes) -> None:
        """Fence the client at the address `lock_owner` and take the lock from it. ImageNotFound where nobody has it,
        ImageBusy where another has."""
        owner = name_text(lock_owner, "lock_owner")
        drive(locks.break_exclusive(self._image, uint64(lock_mode), owner), "error breaking lock on image")

    def lock_exclusive(self, cookie: str | bytes) -> None:
        """Take an advisory lock. ImageExists where it is held under this cookie, ImageBusy where otherwise."""
        text = name_text(cookie, "cookie")
        drive(locks.lock_exclusive(self._image, text), "error acquiring exclusive lock on image")

    def lock_shared(self, cookie: str | bytes, tag: str | bytes) -> None:
        """Take an advisory lock that others may share who use the same tag."""
        text, mark = name_text(cookie, "cookie"), name_text(tag, "tag")
        drive(locks.lock_shared(self._image, text, mark), "error acquiring shared lock on image")

    def unlock(self, cookie: str | bytes) -> None:
        """Give an advisory lock back. ImageNotFound where it is not held under this cookie."""
        drive(locks.unlock(self._image, name_text(cookie, "cookie")), "error unlocking image")

    def break_lock(self, client: str | bytes, cookie: str | bytes) -> None:
        """Take an advisory lock from a client, named as in list_lockers, and fence it."""
        who, text = name_text(client, "client"), name_text(cookie, "cookie")
        drive(locks.break_lock(self._image, who, text), "error unlocking image")

    def list_lockers(self) -> dict[str, Any] | list[Any]:
        """A dict with keys tag, exclusive and lockers, a list of (client, cookie, address); [] where nobody holds it."""
        found = drive(locks.lockers(self._image), "error listing images")
        return [] if found is None else lockers_row(found)

    def watchers_list(self) -> WatcherIterator:
        """Iterate over the clients that have the image open for writing, as dicts with keys addr, id and cookie."""
        return WatcherIterator(self)


def lockers_row(held: locks.Held) -> dict[str, Any]:
    """What :meth:`LockMethods.list_lockers` tells of a lock that is held."""
    tag, exclusive, rows = held
    lockers = [(client, shown(cookie), address) for client, cookie, address in rows]
    return {"tag": shown(tag), "exclusive": exclusive, "lockers": lockers}


class LockOwnerIterator:
    """The owner of an exclusive lock, as it was when this was made."""

    def __init__(self, image: LockMethods) -> None:
        message = "error listing lock owners for image %s"
        self._owners = drive(locks.owners(image._image), message, image.name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for owner in self._owners:
            yield {"mode": RBD_LOCK_MODE_EXCLUSIVE, "owner": owner}


class WatcherIterator:
    """Who watched an image when this was made."""

    def __init__(self, image: LockMethods) -> None:
        self._watchers = drive(locks.watchers(image._image), "error listing watchers.")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._watchers)
