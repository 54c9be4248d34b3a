"""Object classes, listing, namespaces, and what a connection knows of its cluster."""

from __future__ import annotations

import errno
import re
from typing import Any

import pytest

from rbd_native import cls_lock, cls_rbd
from rbd_native.engine import for_each
from rbd_native.rados.port import (
    HEAD,
    Exec,
    Io,
    PoolStats,
    RadosError,
    Read,
    Remove,
    SnapContext,
    Stat,
    Write,
    WriteFull,
)
from rbd_native.testing.contract.base import Contract, Do, NewIo, blocking
from rbd_native.types import LockType


class ClassContract(Contract):
    """Methods of object classes, real ones, by their declarations."""

    @pytest.fixture
    def header(self, io: Io, oid: str) -> str:
        """An image header of 10 MiB in objects of 4 MiB."""
        blocking(io.write(oid, [cls_rbd.create(10 << 20, 22, 1, "prefix").step]))
        return oid

    def test_a_reading_method(self, io: Io, do: Do, header: str) -> None:
        request = cls_rbd.get_size(HEAD)
        reply = do(io.read(header, [request.step]))
        assert request.decode(reply.outs[0]) == (22, 10 << 20)
        assert reply.version > 0

    def test_several_in_one_operation(self, io: Io, do: Do, header: str) -> None:
        size, prefix = cls_rbd.get_size(HEAD), cls_rbd.get_object_prefix()
        reply = do(io.read(header, [size.step, Stat(), prefix.step]))
        assert size.decode(reply.outs[0]) == (22, 10 << 20)
        assert prefix.decode(reply.outs[2]) == "prefix"

    def test_failure(self, io: Io, do: Do, oid: str, header: str) -> None:
        size = cls_rbd.get_size(HEAD).step
        assert do(io.read(oid + ".no", [size])).rv == -errno.ENOENT
        assert do(io.read(header, [Exec("rbd", "get_size", b"short")])).rv == -errno.EINVAL
        assert do(io.read(header, [Exec("rbd", "none")])).rv == -errno.EOPNOTSUPP
        assert do(io.read(header, [Exec("none", "get_size")])).rv == -errno.EOPNOTSUPP
        assert do(io.write(header, [cls_rbd.create(1, 22, 1, "prefix").step])).rv == -errno.EEXIST

    def test_output_of_any_length(self, io: Io, do: Do, header: str) -> None:
        values = {f"key{number}": bytes([number]) * 30000 for number in range(10)}
        assert do(io.write(header, [cls_rbd.metadata_set(values).step])).rv == 0
        request = cls_rbd.metadata_list("", 0)
        assert request.decode(do(io.read(header, [request.step])).outs[0]) == values
        assert request.decode(do(io.read(header, [Stat(), request.step])).outs[1]) == values

    def test_a_writing_method_among_writes(self, io: Io, do: Do, oid: str) -> None:
        take = cls_lock.lock("name", LockType.EXCLUSIVE, "mine", "")
        assert do(io.write(oid, [take.step, Write(0, b"data")])).rv == 0
        check = cls_lock.assert_locked("name", LockType.EXCLUSIVE, "mine", "").step
        wrong = cls_lock.assert_locked("name", LockType.EXCLUSIVE, "other", "").step
        assert do(io.write(oid, [check, Write(0, b"DATA")])).rv == 0
        assert do(io.write(oid, [wrong, Write(0, b"never")])).rv == -errno.EBUSY
        assert do(io.read(oid, [check, Read(0, 9)])).outs == (b"", b"DATA")

    def test_execute(self, io: Io, new_io: NewIo, do: Do, oid: str) -> None:
        take = cls_lock.lock("name", LockType.EXCLUSIVE, "mine", "tag", "why").step
        assert do(io.execute(oid, take)).outs == (b"",)
        assert do(io.execute(oid, take)).rv == -errno.EEXIST
        assert do(new_io().execute(oid, take)).rv == -errno.EBUSY
        info = cls_lock.get_info("name")
        found = info.decode(do(io.execute(oid, info.step)).outs[0])
        assert found.tag == "tag"
        assert [locker.cookie for locker in found.lockers] == ["mine"]

    def test_at_a_snapshot(self, io: Io, do: Do, header: str) -> None:
        snap = do(io.snap_create()).value
        do(io.write(header, [cls_rbd.set_size(20 << 20).step], snapc=SnapContext(snap, (snap,))))
        request = cls_rbd.get_size(HEAD)
        assert request.decode(do(io.read(header, [request.step], snap=snap)).outs[0]) == (22, 10 << 20)
        assert request.decode(do(io.read(header, [request.step])).outs[0]) == (22, 20 << 20)


class ListingContract(Contract):
    def names(self, do: Do, io: Io) -> list[str]:
        async def listed() -> list[str]:
            return [name async for name in io.list_objects()]

        found: list[str] = do(listed())
        return found

    def test_all_of_a_namespace(self, io: Io, do: Do, namespace: str) -> None:
        inside = io.in_namespace(namespace)
        assert (inside.namespace, inside.pool_id) == (namespace, io.pool_id)
        assert self.names(do, inside) == []
        for name in ("a", "b/c", "ü", " "):
            do(inside.write(name, [Write(0, b"x")]))
        do(inside.write("gone", [Write(0, b"x")]))
        do(inside.write("gone", [Remove()]))
        assert sorted(self.names(do, inside)) == [" ", "a", "b/c", "ü"]

    def test_an_object_of_which_only_clones_are_left(self, io: Io, do: Do, namespace: str) -> None:
        inside = io.in_namespace(namespace)
        snap = do(io.snap_create()).value
        for name in ("head", "clones"):
            do(inside.write(name, [Write(0, b"x")]))
        do(inside.write("clones", [Remove()], snapc=SnapContext(snap, (snap,))))
        assert do(inside.read("clones", [Read(0, 9)], snap=snap)).outs == (b"x",)
        assert sorted(self.names(do, inside)) == ["clones", "head"]

    def test_more_than_a_page(self, io: Io, do: Do, namespace: str) -> None:
        inside = io.in_namespace(namespace)
        names = [f"object{number}" for number in range(1234)]

        async def make() -> None:
            async def one(name: str) -> None:
                await inside.write(name, [WriteFull(b"")])

            await for_each((one(name) for name in names), 32)

        do(make())
        assert sorted(self.names(do, inside)) == sorted(names)

    def test_namespaces_are_apart(self, io: Io, do: Do, oid: str, namespace: str) -> None:
        one, two = io.in_namespace(namespace), io.in_namespace(namespace + "2")
        do(one.write(oid, [Write(0, b"one")]))
        do(two.write(oid, [Write(0, b"two")]))
        assert do(one.read(oid, [Read(0, 9)])).outs == (b"one",)
        assert do(two.read(oid, [Read(0, 9)])).outs == (b"two",)
        assert do(io.read(oid, [Read(0, 9)])).rv == -errno.ENOENT
        assert self.names(do, two) == [oid]


class ClusterContract(Contract):
    def test_who_the_client_is(self, io: Io, new_io: NewIo) -> None:
        one, two = io.cluster, new_io().cluster
        assert one.instance_id() > 0
        assert one.instance_id() != two.instance_id()
        assert re.fullmatch(r"(\[[0-9a-f:]+\]|[0-9.]+):\d+/\d+", one.address())
        assert one.address() != two.address()
        assert one.fsid() == two.fsid()
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one.fsid())

    def test_configuration(self, new_io: NewIo) -> None:
        cluster = new_io().cluster
        assert cluster.conf_get("rbd_default_features") == "61"
        assert cluster.conf_get("no_such_option_at_all") is None
        cluster.conf_set("rbd_default_features", "3")
        assert cluster.conf_get("rbd_default_features") == "3"

    def test_pools(self, io: Io, do: Do) -> None:
        cluster = io.cluster
        pools = do(cluster.pools()).value
        name = pools[io.pool_id]
        assert do(cluster.pool_lookup(name)).value == io.pool_id
        assert do(cluster.pool_name(io.pool_id)).value == name
        assert do(cluster.pool_lookup("no such pool")).rv == -errno.ENOENT
        assert do(cluster.pool_name(1 << 30)).rv == -errno.ENOENT
        stats = do(cluster.pool_stats(io.pool_id)).value
        assert isinstance(stats, PoolStats)
        assert min(stats) >= 0
        assert do(cluster.pool_stats(1 << 30)).rv == -errno.ENOENT

    def test_a_pool_that_is_not_there(self, io: Io) -> None:
        with pytest.raises(RadosError) as caught:
            io.cluster.io(1 << 30)
        assert caught.value.errno == errno.ENOENT

    def test_another_io_of_the_same_cluster(self, io: Io, do: Do, oid: str, namespace: str) -> None:
        again = io.cluster.io(io.pool_id, namespace)
        assert again.cluster.instance_id() == io.cluster.instance_id()
        do(again.write(oid, [Write(0, b"x")]))
        assert do(io.in_namespace(namespace).read(oid, [Read(0, 9)])).outs == (b"x",)

    def test_applications(self, io: Io, do: Do, namespace: str) -> None:
        app = "contract"  # always the same: a pool has room for four
        assert do(io.cluster.application_metadata(io.pool_id, namespace)).rv == -errno.ENOENT
        assert do(io.cluster.application_enable(io.pool_id, app, True)).rv == 0
        assert namespace not in do(io.cluster.application_metadata(io.pool_id, app)).value
        command: dict[str, Any] = {
            "prefix": "osd pool application set",
            "pool": do(io.cluster.pool_name(io.pool_id)).value,
            "app": app,
            "key": namespace,
            "value": "value",
        }
        assert do(io.cluster.mon_command(command)).rv == 0
        do(io.cluster.wait_for_latest_map())
        assert do(io.cluster.application_metadata(io.pool_id, app)).value[namespace] == "value"

    def test_a_command_that_is_none(self, io: Io, do: Do) -> None:
        assert do(io.cluster.mon_command({"prefix": "no such command"})).rv == -errno.EINVAL

    def test_a_client_that_is_blocked(self, io: Io, new_io: NewIo, do: Do, oid: str) -> None:
        victim = new_io()
        assert do(victim.write(oid, [Write(0, b"before")])).rv == 0
        assert do(io.cluster.blocklist_add(victim.cluster.address(), 60)).rv == 0
        assert do(io.cluster.wait_for_latest_map()).rv == 0
        # Whoever acts on the map that has the entry makes the OSD know it.
        assert do(io.write(oid, [Write(0, b"BEFORE")])).rv == 0
        assert do(victim.write(oid, [Write(0, b"after!")])).rv == -errno.ESHUTDOWN
        assert do(victim.read(oid, [Read(0, 9)])).rv == -errno.ESHUTDOWN
        assert do(io.read(oid, [Read(0, 9)])).outs == (b"BEFORE",)
