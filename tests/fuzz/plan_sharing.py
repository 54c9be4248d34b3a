"""The themes of scripts in which several want the same: see :mod:`tests.fuzz.plan`."""

from __future__ import annotations

from tests.fuzz.plan import CLIENTS, LEAST, call
from tests.fuzz.plan_images import ImagesPlan
from tests.fuzz.state import EXCLUSIVE, FAST_DIFF, MAP


class SharingPlan(ImagesPlan):
    """With these, too."""

    def _whole(self) -> None:
        """Two handles: two operations on the whole image."""
        one, other = self.some(2)
        self.fill(one)
        if not self.snaps[self.main]:
            self.one(one, "Image.create_snap", self.new_snap(self.main))
            self.fill(other)
        first = self.whole(one, self.main, self.pick("resize", "resize", "rollback_to_snap", "remove_snap", None))
        if first["do"] == "Image.resize":
            first["args"] = [LEAST + self.random.randrange(4096)]
            self.sizes[self.main] = first["args"][0]
        name = self.new_snap(self.main)
        self.together(
            [first], [call(other, "client.wait", self.random.randrange(20) / 1000), call(other, "Image.create_snap", name)]
        )
        self.steps.append({"look": True})
        self.steps.append({"look": True})

    def _turned(self) -> None:
        """An operation that looks at old snapshots, while others use the handle."""
        on = self.handle(self.main)
        self.one(on, "Image.create_snap", self.new_snap(self.main))
        self.fill(on)
        name = f"t{self.tag}-{self.number()}"
        self.sizes[name], self.snaps[name] = self.sizes[self.main], list(self.snaps[self.main])
        reads = [call(on, "Image.read", *self.extent(self.main)) for _ in range(8)]
        reads[4:4] = [call(on, "Image.write", {"data": [self.number(), 512]}, 0)]
        waits = [call(on, "client.wait", 0.01)]
        self.together(
            [call(on, "Image.deep_copy", {"ioctx": None}, name)], [one for read in reads for one in (*waits, read)]
        )

    def _same(self) -> None:
        """Two or three do the same at once."""
        kind = self.pick(
            "flatten",
            "resize",
            "remove_snap",
            "protect_snap",
            "rename_snap",
            "update_features",
            "rename",
            "trash",
            "add",
            "remove",
            "lock_acquire",
            "create_snap",
        )
        if kind == "flatten":
            image = self.a_clone()
            ons = self.some(self.pick(2, 3), image)
            self.together(*([call(on, "Image.flatten")] for on in ons))
            return
        if kind in ("rename", "trash", "remove", "add"):
            self._same_name(kind)
            return
        ons = self.some(self.pick(2, 3))
        if kind in ("remove_snap", "protect_snap", "rename_snap"):
            name = self.new_snap(self.main)
            self.one(ons[0], "Image.create_snap", name)
            new = [f"r{self.number()}"] if kind == "rename_snap" else []
            self.together(*([call(on, f"Image.{kind}", name, *new)] for on in ons))
        elif kind == "update_features":
            self.together(*([call(on, "Image.update_features", MAP | FAST_DIFF, self.random.random() < 0.5)] for on in ons))
        elif kind == "resize":
            size = self.sizes[self.main] = self.new_size(self.main)
            self.together(*([call(on, "Image.resize", size)] for on in ons))
        elif kind == "create_snap":
            name = self.new_snap(self.main)
            self.together(*([call(on, "Image.create_snap", name)] for on in ons))
        else:
            self.together(*([call(on, "Image.lock_acquire", 0)] for on in ons))
            self.together(*([call(on, "Image.lock_release")] for on in ons))

    def _same_name(self, kind: str) -> None:
        name = self.new_image()
        del self.sizes[name]
        first, second = (self.random.sample(self.clients, 2) * 2)[:2] if len(self.clients) > 1 else [self.clients] * 2
        pool = {"ioctx": None}
        if kind == "rename":
            self.together(*([call(one, "RBD.rename", pool, name, f"{name}-r")] for one in (first, second)))
        elif kind == "remove":
            self.together(*([call(one, "RBD.remove", pool, name)] for one in (first, second)))
        elif kind == "trash":
            self.together(*([call(one, "RBD.trash_move", pool, name)] for one in (first, second)))
            self.together(
                *([call(one, self.pick("RBD.trash_remove"), pool, {"trash_id": name})] for one in (first, second))
            )
        else:
            group = self.a_group()
            self.together(*([call(one, "Group.add_image", group, pool, name)] for one in (first, second)))
            self.together(*([call(one, "Group.remove_image", group, pool, name)] for one in (first, second)))

    def _locks(self) -> None:
        ons = self.some(2)
        if not self.snaps[self.main]:
            self.one(ons[0], "Image.create_snap", self.new_snap(self.main))
        for _ in range(self.random.randrange(3, 8)):
            on = self.random.choice(ons)
            kind = self.random.randrange(16)
            if kind < 3:
                self.one(on, "Image.lock_acquire", self.pick(0, 0, 0, 0, 1))
            elif kind < 6:
                self.one(on, "Image.lock_release")
            elif kind < 9:
                self.steps.append({"lanes": [[self.datum(on, self.main)]]})
            elif kind < 13:
                self.after_lock(on)
            elif kind < 15:
                self.one(on, self.pick("Image.is_exclusive_lock_owner", "Image.lock_get_owners", "Image.list_lockers"))
            else:
                self.advisory(on)
        self.one(self.random.choice(ons), "Image.lock_release")
        if self.random.random() < 0.5:
            for on in ons:
                self.close(on)
                self.open(on, self.main)

    def after_lock(self, on: str) -> None:
        """What looks at who may have the lock, and how."""
        kind = self.pick("flush", "rollback", "limit", "remove_snap", "create_snap", "resize", "metadata")
        if kind == "flush":
            self.one(on, "Image.flush")
        elif kind == "rollback":
            self.steps.append({"lanes": [[self.back(on, self.main)]]})
        elif kind == "limit":
            self.one(on, "Image.set_snap_limit", 1000)
        elif kind == "remove_snap":
            self.one(on, "Image.remove_snap", self.some_snap(self.main))
        elif kind == "metadata":
            self.one(on, "Image.metadata_set", "key", str(self.number()))
        else:
            self.steps.append({"lanes": [[self.whole(on, self.main, kind)]]})
        self.one(on, "Image.is_exclusive_lock_owner")

    def advisory(self, on: str) -> None:
        cookie, taken = self.pick("cookie", "other"), []
        shared = self.random.random() < 0.5
        self.one(on, *(["Image.lock_shared", cookie, "tag"] if shared else ["Image.lock_exclusive", cookie]))
        for _ in range(self.random.randrange(3)):
            other = self.handle(self.main)
            kind = self.random.randrange(3)
            if kind == 0:
                self.one(other, "Image.lock_shared", "third", "tag")
                taken.append(other)
            elif kind == 1:
                self.one(other, "Image.list_lockers")
            else:
                self.one(other, "Image.write", {"data": [self.number(), 512]}, 0)
        breaker = self.handle(self.main)
        if not taken and breaker[0] != on[0] and self.random.random() < 0.3:
            self.one(breaker, "Image.break_lock", {"locker_of": "client"}, {"locker_of": "cookie"})
            self.recover(on[0])
            return
        self.one(on, "Image.unlock", cookie)
        for other in taken:
            self.one(other, "Image.unlock", "third")

    def recover(self, client: str) -> None:
        """Who has been fenced closes what is open, connects anew and opens it again."""
        images = {on: self.handles.pop(on) for on in sorted(self.handles) if on[0] == client}
        for on in images:
            self.one(on, self.pick("Image.close", "Image.aio_close"))
        self.one(client, "client.shutdown")
        self.one(client, "client.connect", CLIENTS[client][1])
        for on, image in images.items():
            self.open(on, image)

    def _reopen(self) -> None:
        """Again and again: an image is opened, and its owner asked for something."""
        owner, guest = self.some(2)
        if self.features & EXCLUSIVE and self.random.random() < 0.7:
            self.one(owner, "Image.write", {"data": [self.number(), 512]}, 0)
        for _ in range(self.random.randrange(3, 9)):
            self.one(guest, "Image.close")
            self.one(guest, "Image.open", name=self.main)
            kind = self.pick("create_snap", "create_snap", "create_snap", "resize", "remove_snap")
            self.steps.append({"lanes": [[self.whole(guest, self.main, kind)]]})
        self.one(guest, "Image.list_snaps")
        self.steps.append({"look": True})
