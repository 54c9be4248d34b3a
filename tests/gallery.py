"""Images of all sorts in one pool, made with either library; and what opening one tells of it."""

import contextlib
import struct
from collections.abc import Callable
from typing import Any

from tests.stored import stored, text

SIZE, ORDER = 5 * 65536 + 1, 16
PLAIN = {"none": 0, "layering": 1, "lock": 5, "map": 61, "é": 61}
USER_LOCKS = ("locked", "shared")
NOSNAP = 2**64 - 2


class Gallery:
    """`ioctx(**conf)` gives one of a new client with these options, always of the same pool and namespace. The environment
    must allow images of format 1."""

    def __init__(self, module: Any, ioctx: Callable[..., Any], data_pool: str) -> None:
        self._module = module
        self._rbd = module.RBD()
        self._data_pool = data_pool
        self.ioctx = ioctx(rbd_default_clone_format="2")
        self._old = ioctx(rbd_default_clone_format="1", rbd_default_format="1")
        self._open = contextlib.ExitStack()
        self._plain()
        self._format1()
        self._family()
        self._group()
        self._locks(ioctx)

    def close(self) -> None:
        """What has to be open for a lock to be held."""
        self._open.close()

    def _create(self, name: str, size: int = SIZE, features: int = 1, **more: Any) -> None:
        self._rbd.create(self.ioctx, name, size, ORDER, features=features, **more)

    def _on(self, name: str) -> Any:
        return self._module.Image(self.ioctx, name)

    def _plain(self) -> None:
        for name, features in PLAIN.items():
            self._create(name, features=features)
        self._create("empty", 0)
        self._create("huge", 2**60)
        self._create("striped", features=61, stripe_unit=4096, stripe_count=3)
        self._create("data pool", features=61, data_pool=self._data_pool)
        self._create("striped in data pool", stripe_unit=16384, stripe_count=2, data_pool=self._data_pool)
        self._create("invalid map", features=61)
        with self._on("invalid map") as image:
            identifier = image.id()
            image.create_snap("later")
        flags = struct.pack("<QQQ", 3, 3, NOSNAP)
        self.ioctx.execute(f"rbd_header.{identifier}", "rbd", "set_flags", flags)
        self._create("snapshots", features=61)
        with self._on("snapshots") as image:
            for name in ("z", "a", "é", "gone", "protected"):
                image.create_snap(name)
                image.resize(image.size() + 10_000)
            image.protect_snap("protected")
            image.remove_snap("gone")
            image.metadata_set("conf_rbd_cache", "false")
            image.metadata_set("other", "value")

    def _format1(self) -> None:
        for name in ("old", "older"):
            self._rbd.create(self._old, name, SIZE, ORDER, old_format=True)
        with self._on("old") as image:
            for name in ("one", "two"):
                image.create_snap(name)
                image.resize(image.size() - 10_000)
            image.lock_shared("cookie", "tag")
            self.old_lock = image.list_lockers()

    def _family(self) -> None:
        self._create("parent", features=61)
        with self._on("parent") as image:
            image.write(b"data" * 10_000, 0)
            image.create_snap("1")
            image.protect_snap("1")
            image.create_snap("2")
        for name in ("clone", "flattened", "flattened, snapshots not", "shrunk", "emptied", "all snapshots"):
            self._rbd.clone(self.ioctx, "parent", "1", self._old, name, features=1)
        self._rbd.clone(self.ioctx, "parent", "2", self.ioctx, "clone 2", features=61)
        with self._on("parent") as image:
            image.remove_snap("2")  # the clone needs it: it goes to the trash
        with self._on("flattened") as image:
            image.flatten()
        with self._on("flattened, snapshots not") as image:
            image.create_snap("with parent")
            image.flatten()
        for name, sizes in (("shrunk", (100_000, SIZE)), ("emptied", (0,))):
            with self._on(name) as image:
                image.create_snap("before")
                for size in sizes:
                    image.resize(size)
        with self._on("clone 2") as image:
            image.create_snap("s")
        self._rbd.clone(self.ioctx, "clone 2", "s", self.ioctx, "grandchild", features=61, data_pool=self._data_pool)

    def _group(self) -> None:
        self._create("member", features=61)
        self._rbd.group_create(self.ioctx, "group")
        group = self._module.Group(self.ioctx, "group")
        group.add_image(self.ioctx, "member")
        group.create_snap("of all")

    def _locks(self, ioctx: Callable[..., Any]) -> None:
        for name in USER_LOCKS:
            self._create(name, features=61)
        with self._on("locked") as image:
            image.lock_exclusive("cöokie")
        for client in (self.ioctx, ioctx()):
            with self._module.Image(client, "shared") as image:
                image.lock_shared("cookie", "tag")
        self._create("held", features=61)
        held = self._open.enter_context(self._on("held"))
        held.write(b"data", 0)


def by_opening(module: Any, rados_module: Any, ioctx: Any, entry: dict[str, str]) -> dict[str, Any]:
    """What `RBD.list_details` is to say of an image that the list has so, by the methods of an image that is open."""
    how = {"image_id": entry["id"]} if entry["id"] else {"name": entry["name"]}
    with module.Image(ioctx, read_only=True, **how) as image:
        stat = image.stat()
        methods = "features flags op_features stripe_unit stripe_count old_format".split()
        stamps = [f"{what}_timestamp" for what in ("create", "access", "modify")]
        return {
            "id": "" if image.old_format() else image.id(),
            "name": image.get_name(),
            **{key: stat[key] for key in ("size", "obj_size", "num_objs", "order")},
            "block_name_prefix": image.block_name_prefix(),  # librbd's stat has room for 23 characters
            **{method: getattr(image, method)() for method in methods},
            **{stamp: getattr(image, stamp)().replace(tzinfo=None) for stamp in stamps},
            "data_pool_id": -1 if image.data_pool_id() == ioctx.get_pool_id() else image.data_pool_id(),
            "parent": _parent(module, ioctx, image),
            "snapshots": [_snapshot(module, image, snap) for snap in image.list_snaps()],
            "group": _group(rados_module, ioctx, image.group()),
            "lock": image.list_lockers() or None,
        }


def _parent(module: Any, ioctx: Any, image: Any) -> dict[str, Any] | None:
    try:
        spec = image.get_parent_image_spec()
    except module.ImageNotFound:
        assert image.overlap() == 0
        return None
    # Old releases of librbd tell the names: of an image in this pool here.
    with module.Image(ioctx, read_only=True, image_id=image.parent_id()) as parent:
        assert parent.get_name() == spec["image_name"]
        (snap_id,) = (snap["id"] for snap in parent.list_snaps() if snap["name"] == spec["snap_name"])
        return {
            "pool_id": ioctx.get_pool_id(),
            "pool_namespace": spec["pool_namespace"],
            "image_id": parent.id(),
            "snap_id": snap_id,
            "overlap": image.overlap(),
        }


def _snapshot(module: Any, image: Any, snap: dict[str, Any]) -> dict[str, Any]:
    protected = snap["namespace"] == module.RBD_SNAP_NAMESPACE_TYPE_USER and image.is_protected_snap(snap["name"])
    return {**{key: snap[key] for key in ("id", "size", "name", "namespace")}, "protected": protected}


def _group(rados_module: Any, ioctx: Any, found: dict[str, Any]) -> dict[str, Any] | None:
    if not found["name"]:
        return None
    directory = stored(rados_module, ioctx, "rbd_group_directory").omap
    return {"pool_id": found["pool"], "group_id": text(directory[f"name_{found['name']}"])}


def without_zones(row: dict[str, Any]) -> dict[str, Any]:
    """Time stamps as old releases of the binding give them."""
    return {key: value.replace(tzinfo=None) if key.endswith("_timestamp") else value for key, value in row.items()}
