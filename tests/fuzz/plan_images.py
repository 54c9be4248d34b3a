"""The themes of scripts that are about snapshots, clones and copies: see :mod:`tests.fuzz.plan`."""

from __future__ import annotations

from tests.fuzz.plan import OURS, Plan


class ImagesPlan(Plan):
    """With these."""

    def _snaps(self) -> None:
        image = self.image()
        on = self.handle(image)
        for _ in range(self.random.randrange(1, 5)):
            name = self.some_snap(image)
            do = self.pick(
                "create",
                "create",
                "remove",
                "rename",
                "protect",
                "unprotect",
                "back",
                "limit",
                "ask",
                "ask",
                "set",
                "by_id",
            )
            if do == "create":
                self.one(on, "Image.create_snap", self.new_snap(image) if self.random.random() < 0.9 else name)
            elif do == "rename":
                new = self.new_snap(image)
                self.one(on, "Image.rename_snap", name, new)
            elif do == "back":
                self.steps.append({"lanes": [[self.back(on, image)]]})
            elif do == "limit":
                self.one(on, "Image.set_snap_limit", self.pick(1, 2, 30))
                self.one(on, "Image.create_snap", self.new_snap(image))
                self.one(on, "Image.remove_snap_limit")
            elif do == "by_id":
                self.one(on, "Image.remove_snap_by_id", {"id_of": name})
            elif do == "set":
                self.one(on, "Image.set_snap", name)
                self.one(on, "Image.read", *self.extent(image))
                self.one(on, "Image.set_snap", None)
            elif do == "ask":
                asks: list[list[str]] = [
                    ["list_snaps"],
                    ["snap_exists", name],
                    ["is_protected_snap", name],
                    ["get_snap_limit"],
                ]
                asked = self.random.choice(asks)
                self.one(on, f"Image.{asked[0]}", *asked[1:])
            else:
                self.one(on, f"Image.{do}_snap", name)

    def a_clone(self, *, form: int | None = None) -> str:
        """A new one, of a new snapshot."""
        on = self.handle(self.main)
        snap, name = self.new_snap(self.main), f"k{self.tag}-{self.number()}"
        form = form or self.pick(1, 2, 2, 2)
        self.one(on, "Image.create_snap", snap)
        if form == 1:
            self.one(on, "Image.protect_snap", snap)
        kw = {"clone_format": form} if on[0] in OURS else {}
        client = on[0] if kw else self.random.choice([one for one in self.clients if one in OURS] or [on[0]])
        kw = {"clone_format": form} if client in OURS else {}
        self.one(
            client,
            "RBD.clone",
            {"ioctx": None},
            self.main,
            snap,
            {"ioctx": None},
            name,
            order=self.orders[self.main] + self.pick(0, 0, 0, 1, -1),
            features=self.features,
            **kw,
        )
        self.sizes[name], self.snaps[name] = self.sizes[self.main], []
        self.clones.append(name)
        self.last_snap = snap
        return name

    def _clones(self) -> None:
        name = self.a_clone()
        on = self.handle(name)
        for _ in range(self.random.randrange(1, 6)):
            self.steps.append({"lanes": [[self.datum(on, name)]]})
        if self.random.random() < 0.3:
            self.one(on, "Image.create_snap", self.new_snap(name))
        end = self.pick("trash", "trash", "flatten", "children", "resize", "copy", "copy")
        main = self.handle(self.main)
        if end == "trash":
            self.one(main, "Image.remove_snap", self.last_snap)
            self.one(main, "Image.remove_snap_by_id", {"id_of": "<trash>"})
            self.one(main, "Image.list_snaps")
        elif end == "flatten":
            self.one(on, "Image.flatten")
        elif end == "resize":
            self.steps.append({"lanes": [[self.whole(on, name, "resize")]]})
            self.steps.append({"lanes": [[self.whole(on, name, "resize")]]})
        elif end == "copy":
            self.copy_of_clone(on, name)
        else:
            self.one(main, self.pick("Image.list_children", "Image.list_children2", "Image.list_descendants"))

    def copy_of_clone(self, on: str, name: str) -> None:
        copy = f"d{self.tag}-{self.number()}"
        kw = {"clone_format": self.pick(1, 1, 2, 9)} if on[0] in OURS else {}
        self.sizes[copy], self.snaps[copy] = self.sizes[name], list(self.snaps[name])
        self.one(on, "Image.size")
        args = [{"ioctx": None}, copy, None, None, None, None, None, *kw.values()]
        self.one(on, "Image.deep_copy", *args)

    def _copies(self) -> None:
        if self.random.random() < 0.5:
            clone = self.a_clone()
            self.copy_of_clone(self.handle(clone), clone)
            return
        image = self.image()
        on = self.handle(image)
        name = f"d{self.tag}-{self.number()}"
        self.sizes[name], self.snaps[name] = self.sizes[image], []
        self.one(on, "Image.size")  # librbd copies the snapshots that it knows of
        self.one(on, self.pick("Image.copy", "Image.deep_copy"), {"ioctx": None}, name)

    def _layouts(self) -> None:
        """An image with snapshots copied into another layout."""
        image, on = self.main, self.handle(self.main)
        self.fill(on)
        for _ in range(self.random.randrange(1, 4)):
            self.one(on, "Image.create_snap", self.new_snap(image))
            self.steps.append({"lanes": [[self.datum(on, image)]]})
            if self.random.random() < 0.5:
                self.steps.append({"lanes": [[self.whole(on, image, "resize")]]})
        name = f"l{self.tag}-{self.number()}"
        self.one(on, "Image.size")
        self.sizes[name], self.snaps[name] = self.sizes[image], list(self.snaps[image])
        layout = self.pick([13, None, None], [16, 8192, 3], [14, 4096, 2], [20, 8192, 3], [12, None, None])
        self.one(on, "Image.deep_copy", {"ioctx": None}, name, None, *layout)

    def a_group(self) -> str:
        if not self.groups or self.random.random() < 0.2:
            self.groups.append(f"g{self.tag}-{self.number()}")
            self.one(self.client(), "RBD.group_create", {"ioctx": None}, self.groups[-1])
        return self.random.choice(self.groups)
