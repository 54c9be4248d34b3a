"""The themes of scripts that are about pools, harm and odd arguments: see :mod:`tests.fuzz.plan`."""

from __future__ import annotations

from typing import Any

from tests.fuzz.plan import CLIENTS, OURS, call
from tests.fuzz.plan_sharing import SharingPlan
from tests.fuzz.state import DEEP_FLATTEN, EXCLUSIVE, FAST_DIFF, JOURNALING, LAYERING, MAP

POOL = {"ioctx": None}
GETTERS = """
    access_timestamp block_name_prefix config_list create_timestamp data_pool_id flags get_parent_image_spec group
    id list_children list_children2 list_descendants list_lockers lock_get_owners metadata_list
    mirror_image_get_info mirror_image_get_mode mirror_image_get_status mirror_image_get_instance_id
    modify_timestamp old_format op_features overlap parent_id parent_info require_not_closed size stat
    stripe_count stripe_unit watchers_list migration_source_spec features get_name invalidate_cache get_snap_limit
    aio_mirror_image_get_info aio_mirror_image_get_mode is_exclusive_lock_owner list_snaps""".split()
POOL_GETTERS = """
    config_list group_list list list2 mirror_image_info_list mirror_image_instance_id_list
    mirror_image_status_list mirror_image_status_summary mirror_mode_get mirror_peer_list mirror_uuid_get
    namespace_list pool_metadata_list pool_stats_get trash_list""".split()
OF_SNAPS = """
    snap_get_name snap_get_namespace_type snap_get_group_namespace snap_get_mirror_namespace
    snap_get_trash_namespace get_snap_timestamp set_snap_by_id""".split()


class FullPlan(SharingPlan):
    """With all themes."""

    # --- names, groups, mirroring, features ---

    def _names(self) -> None:
        name = self.new_image()
        del self.sizes[name]
        for _ in range(self.random.randrange(1, 4)):
            client = self.client()
            do = self.pick("rename", "trash", "list", "remove", "create")
            if do == "rename":
                self.one(client, "RBD.rename", POOL, name, f"{name}r")
                name = f"{name}r"
            elif do == "trash":
                self.one(client, "RBD.trash_move", POOL, name)
                self.one(client, "RBD.trash_list", POOL)
                self.one(client, "RBD.trash_get", POOL, {"trash_id": name})
                if self.random.random() < 0.5:
                    self.one(client, "RBD.trash_restore", POOL, {"trash_id": name}, self.pick("", f"{name}t"))
                else:
                    self.one(client, "RBD.trash_remove", POOL, {"trash_id": name})
            elif do == "list":
                self.one(client, "RBD.list", POOL)
            elif do == "remove":
                self.one(client, "RBD.remove", POOL, self.pick(name, self.main, "none"))
            else:
                self.one(client, "RBD.create", POOL, name, 1 << 16, order=12, old_format=False, features=self.features)

    def _groups(self) -> None:
        group = self.a_group()
        members = [self.new_image() for _ in range(2)]
        for name in members:
            self.one(self.client(), "Group.add_image", group, POOL, name)
        on = self.handle(members[0])
        self.steps.append({"lanes": [[self.datum(on, members[0])]]})
        snap = f"gs{self.number()}"
        self.one(self.client(), "Group.create_snap", group, snap)
        self.steps.append({"lanes": [[self.datum(on, members[0])]]})
        if self.random.random() < 0.6:
            self.one(self.client(), "Group.remove_image", group, POOL, self.random.choice(members))
        self.one(self.client(), "Group.rollback_to_snap", group, snap)
        self.one(self.client(), self.pick("Group.list_images", "Group.list_snaps"), group)
        if self.random.random() < 0.5:
            self.one(self.client(), "Group.rename_snap", group, "none", "nothing")
            self.one(self.client(), "Group.remove_snap", group, self.pick(snap, "none"))
        for name in members:
            self.one(self.client(), "Group.remove_image", group, POOL, name)

    def _mirror(self) -> None:
        """Of an image of its own. Its lock is not looked at."""
        name = self.new_image()
        del self.sizes[name]
        on = f"{self.random.choice([one for one in self.clients if one in OURS] or list(self.clients))}7"
        other = self.client()
        self.one(on, "Image.open", name=name)
        self.one(on, "Image.mirror_image_enable", 1)
        if self.random.random() < 0.3:
            self.one(on, "Image.mirror_image_create_snapshot")
            self.one(on, "Image.aio_mirror_image_create_snapshot", 0)
        self.one(on, "Image.mirror_image_get_info")
        self.one(on, "Image.mirror_image_demote")
        self.one(on, "Image.close")
        self.one(other, "RBD.rename", POOL, name, f"{name}-new")
        self.one(other, "RBD.list", POOL)
        self.one(on, "Image.open", name=name)
        self.one(on, "Image.write", {"data": [self.number(), 512]}, 0)
        self.one(on, "Image.mirror_image_promote", False)
        self.one(on, "Image.mirror_image_disable", False)
        self.one(on, "Image.close")

    def _features(self) -> None:
        """Of an image of its own: each seed's main image keeps its features."""
        on = self.handle(self.new_image())
        for _ in range(self.random.randrange(2, 6)):
            bits = self.pick(
                MAP, FAST_DIFF, MAP | FAST_DIFF, EXCLUSIVE, EXCLUSIVE | MAP | FAST_DIFF, DEEP_FLATTEN, LAYERING, 0, 1 << 40
            )
            self.one(on, "Image.update_features", bits, self.random.random() < 0.5)
        self.one(on, "Image.features")
        if self.random.random() < 0.3:
            self.one(on, "Image.update_features", JOURNALING, False)
        self.one(on, "Image.rebuild_object_map")

    def _diffs(self) -> None:
        on = self.handle(self.main)
        since = self.pick(None, 0, 0, 1.5, {"b64": "czE="}, self.some_snap(self.main), self.some_snap(self.main))
        how = self.pick({}, {"whole_object": True}, {"include_parent": False})
        self.one(
            on, "Image.diff_iterate", self.pick(0, 0, 4096), self.pick(CAPACITY_TWICE, self.sizes[self.main]), since, **how
        )

    def _metadata(self) -> None:
        on = self.handle(self.image())
        key = self.pick("a", "b", "conf_rbd_cache", "")
        kind = self.pick("set", "get", "remove", "list")
        if key == "conf_rbd_cache":
            kind = "get"
        args = {"set": [key, str(self.number())], "get": [key], "remove": [key], "list": []}[kind]
        self.one(on, f"Image.metadata_{kind}", *args)

    # --- harm ---

    def _fence(self) -> None:
        """A client is fenced; it finds out, closes what it has, connects anew and opens it again."""
        victim, other = self.some(2)
        client = victim[0]
        if other[0] != client and self.features & EXCLUSIVE and self.random.random() < 0.6:
            self.one(victim, "Image.lock_acquire", 0)
            self.one(other, "Image.lock_break", 0, {"owner_of": None})
        else:
            self.steps.append({"fence": client})
        mine = sorted(name for name in self.handles if name[0] == client)
        for on in mine:
            self.one(
                on,
                *self.pick(
                    ("Image.is_exclusive_lock_owner",), ("Image.size",), ("Image.write", {"data": [self.number(), 512]}, 0)
                ),
            )
        self.recover(client)

    def _kill(self) -> None:
        """In the middle of writing."""
        victim, other = self.some(2)
        place = CLIENTS[victim[0]][0]
        if CLIENTS[other[0]][0] == place:
            return
        lane = [self.datum(victim, self.main, aio=self.random.random() < 0.5) for _ in range(40)]
        lane = [one for one in lane if "write" in one["do"]] + [self.whole(victim, self.main, "create_snap")]
        trouble = {"process": place, "after": self.random.randrange(5, 120) / 1000, "seconds": None}
        self.together(lane, trouble=trouble)
        for on in [name for name in self.handles if CLIENTS[name[0]][0] == place]:
            image = self.handles[on]
            self.open(on, image)
        self.steps.append({"lanes": [[self.datum(other, self.main)]]})
        self.steps.append({"look": True})

    def _stop(self) -> None:
        """For a while, in the middle of writing, while another wants the lock."""
        victim, other = self.some(2)
        place = CLIENTS[victim[0]][0]
        if CLIENTS[other[0]][0] == place:
            return
        seconds = self.pick(0.5, 1.5, 1.5)
        trouble = {"process": place, "after": 0.02, "seconds": seconds}
        mine = [self.datum(victim, self.main, aio=True) for _ in range(6)]
        self.together(mine, [call(other, "client.wait", 0.03), self.datum(other, self.main)], trouble=trouble)
        self.steps.append({"look": True})

    def _churn(self) -> None:
        """Clones are looked for while pools go."""
        self.a_clone(form=2)
        ons = self.some(3)
        asks = [
            [
                call(on, self.pick("Image.list_children", "Image.list_children2", "Image.list_descendants"))
                for _ in range(40)
            ]
            for on in ons
        ]
        self.together(*asks, churn=12)

    # --- whatever else there is ---

    def _sweep(self) -> None:
        on = self.handle(self.image())
        for name in self.random.sample(GETTERS, 12):
            self.one(on, f"Image.{name}")
        for name in self.random.sample(POOL_GETTERS, 5):
            self.one(self.client(), f"RBD.{name}", POOL)
        name = self.random.choice(OF_SNAPS)
        self.one(on, f"Image.{name}", {"id_of": self.some_snap(self.handles.get(on, self.main))})
        if name == "set_snap_by_id":
            self.one(on, "Image.set_snap", None)
        client = self.client()
        key = f"k{self.number()}"
        others: list[tuple[Any, ...]] = [
            ("RBD.pool_metadata_set", POOL, key, "v"),
            ("RBD.pool_metadata_get", POOL, key),
            ("RBD.pool_metadata_remove", POOL, key),
            ("RBD.config_get", POOL, "rbd_cache"),
            ("RBD.config_remove", POOL, "rbd_cache"),
            ("RBD.namespace_create", POOL, key),
            ("RBD.namespace_exists", POOL, key),
            ("RBD.namespace_remove", POOL, key),
            ("RBD.version",),
            ("RBD.features_to_string", 61),
            ("RBD.features_from_string", "layering,exclusive-lock"),
            ("RBD.pool_init", POOL, False),
            ("RBD.migration_status", POOL, "none"),
            ("RBD.mirror_site_name_get", {"rados": None}),
            ("RBD.config_set", POOL, "rbd_default_order", "22"),
            ("RBD.mirror_peer_get_attributes", POOL, "none"),
            ("RBD.mirror_peer_remove", POOL, "none"),
        ]
        for method, *args in self.random.sample(others, 4):
            self.one(client, method, *args)

    def _odd(self) -> None:
        on = self.handle(self.main)
        size = self.sizes[self.main]
        odd: list[tuple[Any, ...]] = [
            ("Image.read", size + 10, 5),
            ("Image.read", size - 3, 100),
            ("Image.read", 0, 0),
            ("Image.write", {"data": [self.number(), 10]}, size),
            ("Image.write", {"data": [self.number(), 100]}, max(size - 20, 0)),
            ("Image.discard", size, 10),
            ("Image.discard", 0, 0),
            ("Image.write_zeroes", 0, 4096, 2),
            ("Image.resize", LEAST_SIZE, False),
            ("Image.create_snap", "@/odd"),
            ("Image.remove_snap", ""),
            ("Image.rename_snap", "none", "other"),
            ("Image.sparsify", 5),
            ("Image.sparsify", 1 << 30),
            ("Image.sparsify", 4096),
            ("Image.encryption_load", 0, "passphrase"),
            ("Image.aio_flush",),
            ("Image.aio_mirror_image_create_snapshot", 0),
            ("Image.mirror_image_create_snapshot", 0),
            ("Image.lock_acquire", 1),
            ("Image.lock_acquire", 7),
            ("Image.lock_break", 0, "nobody"),
            ("Image.lock_break", 1, "nobody"),
            ("Image.flatten",),
            ("Image.rollback_to_snap", "none"),
            ("Image.config_get", "rbd_cache"),
            ("Image.config_remove", "none"),
            ("Image.config_set", "none", "1"),
            ("Image.set_snap", "none"),
            ("Image.diff_iterate", size + 1, 10, None),
            ("Image.metadata_get", "none"),
            ("Image.metadata_remove", "none"),
            ("Image.protect_snap", "none"),
            ("Image.unlock", "none"),
            ("Image.unprotect_snap", "none"),
            ("Image.remove_snap2", "none", 3),
            ("Image.mirror_image_promote", False),
            ("Image.mirror_image_resync",),
            ("Image.break_lock", "client.1", "none"),
            ("Image.snap_get_id", "none"),
        ]
        for method, *args in self.random.sample(odd, 8):
            self.one(on, method, *args)
        client = self.client()
        pool: list[tuple[Any, ...]] = [
            ("RBD.create", POOL, "", 1),
            ("RBD.create", POOL, self.main, 1),
            ("RBD.rename", POOL, "none", "x"),
            ("RBD.rename", POOL, self.main, ""),
            ("RBD.remove", POOL, "none"),
            ("RBD.clone", POOL, "none", "none", POOL, "x"),
            ("RBD.trash_move", POOL, "none"),
            ("RBD.trash_remove", POOL, "none"),
            ("RBD.trash_restore", POOL, "none", "x"),
            ("RBD.group_create", POOL, ""),
            ("RBD.namespace_create", POOL, ""),
            ("RBD.mirror_image_info_list", POOL),
            ("RBD.migration_execute", POOL, "none"),
            ("RBD.migration_commit", POOL, "none"),
            ("RBD.migration_abort", POOL, "none"),
            ("RBD.mirror_peer_set_name", POOL, "none", "name"),
            ("RBD.mirror_peer_set_client", POOL, "none", "name"),
            ("RBD.mirror_peer_set_cluster", POOL, "none", "name"),
            ("RBD.group_remove", POOL, "none"),
            ("RBD.group_rename", POOL, "none", "other"),
            ("RBD.mirror_mode_set", POOL, 9),
        ]
        for method, *args in self.random.sample(pool, 4):
            self.one(client, method, *args)


CAPACITY_TWICE = 2 << 20
LEAST_SIZE = 16 << 10
