"""All images described without opening them, on either cluster: the same as opening each tells; and what is not as it
should be, comes or goes meanwhile."""

import errno
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

import rbd_native as rbd
from rbd_native import cls_rbd, embedded, format1
from rbd_native.cls_client import mutate
from rbd_native.encoding import UTime, encode, text
from rbd_native.engine import collect, run
from rbd_native.operations import describe, listing
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import Exec, Io, Operation, RadosError
from rbd_native.rados.wrapper import Interceptor, Request, wrap
from rbd_native.types import TrashImageSource, TrashImageSpec
from tests.backend import Backend, embedded_client
from tests.bad_headers import BORNE, BROKEN, REFUSED, Header
from tests.gallery import Gallery, by_opening, without_zones
from tests.image.room import Room
from tests.stored import contents

MIB = 1 << 20


def details(ioctx: Any) -> list[dict[str, Any]]:
    return list(rbd.RBD().list_details(ioctx))


def names_of(rows: Any) -> list[str]:
    return [row["name"] for row in rows]


def test_as_if_opened(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBD_FORCE_ALLOW_V1", "1")
    gallery = Gallery(rbd, lambda **conf: backend.ioctx(cluster=backend.connect(**conf)), backend.create_pool())
    ioctx = backend.ioctx()
    before = contents(backend.rados_module, ioctx)
    rows = details(ioctx)
    assert contents(backend.rados_module, ioctx) == before
    listed = list(rbd.RBD().list2(ioctx))
    assert [(row["id"], row["name"]) for row in rows] == [(entry["id"], entry["name"]) for entry in listed]
    assert len(rows) > 25
    for row, entry in zip(rows, listed, strict=True):
        assert without_zones(row) == by_opening(rbd, backend.rados_module, ioctx, entry)
    gallery.close()


def test_no_images(room: Room) -> None:
    assert details(room.ioctx()) == []


def test_what_an_ioctx_is() -> None:
    with pytest.raises(TypeError):
        rbd.RBD().list_details("rbd")


def test_read_anew_each_time(room: Room) -> None:
    ioctx = room.ioctx()
    images = rbd.RBD().list_details(ioctx)
    assert list(images) == []
    rbd.RBD().create(ioctx, "a", MIB)
    first, second = iter(images), iter(images)
    assert names_of([next(first), next(second)]) == ["a", "a"]
    assert list(first) == list(second) == []
    ioctx.set_namespace("")  # it stays where it was made
    assert names_of(images) == ["a"]


def test_images_that_go_and_come_meanwhile(room: Room) -> None:
    ioctx = room.ioctx()
    made = [f"{number:02}" for number in range(2 * describe.WINDOW)]
    for name in made:
        rbd.RBD().create(ioctx, name, MIB, features=1)
    images = iter(rbd.RBD().list_details(ioctx))
    first = next(images)
    rbd.RBD().remove(ioctx, made[-1])
    assert names_of([first, *images]) == made[:-1]


def test_stopping_in_the_middle(room: Room) -> None:
    ioctx = room.ioctx()
    for number in range(describe.WINDOW + 5):
        rbd.RBD().create(ioctx, f"{number:02}", MIB, features=1)
    watch = Watch()
    io = wrap(port_for(ioctx), watch)

    async def some() -> None:
        async with aclosing(describe.describe(io)) as images:
            async for _ in images:
                break

    run(some())
    assert watch.headers == describe.WINDOW
    ended: list[str] = []

    def look() -> None:
        for row in rbd.RBD().list_details(ioctx):
            ended.append(row["name"])
            break

    look()
    thread = threading.Thread(target=look, daemon=True)  # which may not wait for what is under way
    thread.start()
    thread.join()
    assert ended == ["00", "00"]
    assert len(details(ioctx)) == describe.WINDOW + 5


def test_entries_without_an_image(room: Room) -> None:
    """As between two steps of whoever creates or removes one."""
    ioctx = room.ioctx()
    for name in ("a", "c"):
        rbd.RBD().create(ioctx, name, MIB, features=1)
    run(mutate(port_for(ioctx), "rbd_directory", cls_rbd.dir_add_image("b", "nosuchid")))
    assert names_of(details(ioctx)) == ["a", "c"]


def test_images_that_are_being_removed(room: Room) -> None:
    """They are where the list has them."""
    ioctx = room.ioctx()
    for name in ("b", "d", "é"):
        rbd.RBD().create(ioctx, name, MIB, features=1)
    ids = {row["name"]: row["id"] for row in details(ioctx)}
    port = port_for(ioctx)
    for identifier, name, source in (
        (ids["b"], "a", TrashImageSource.REMOVING),
        (ids["b"] + "0", "b", TrashImageSource.REMOVING),
        (ids["d"], "c", TrashImageSource.REMOVING),
        ("0", "c", TrashImageSource.REMOVING),
        (ids["d"] + "1", "e", TrashImageSource.USER),
        (ids["é"], "ü", TrashImageSource.REMOVING),
        (ids["é"] + "1", "zz", TrashImageSource.REMOVING),
    ):
        spec = TrashImageSpec(source, name, UTime(), UTime())
        run(mutate(port, "rbd_trash", cls_rbd.trash_add(identifier, spec)))
    listed = [(row["name"], row["id"]) for row in rbd.RBD().list2(ioctx)]
    assert [name for name, _ in listed] == ["a", "b", "c", "d", "zz", "é", "ü"]
    assert run(collect(listing.walk(port))) == listed
    found = [(row["name"], row["id"]) for row in details(ioctx)]
    assert found == [entry for entry in listed if entry[0] not in ("c", "zz")]  # the headers of these are gone


def test_a_name_that_is_not_utf8(room: Room) -> None:
    ioctx = room.ioctx()
    for name in (b"a", b"b\xff", b"c"):
        rbd.RBD().create(ioctx, name, MIB, features=1)
    with rbd.Image(ioctx, "c") as image:
        image.create_snap(b"s\xff")
    assert [row["name"] for row in details(ioctx)] == rbd.RBD().list(ioctx) == ["a", "b\udcff", "c"]
    assert [snapshot["name"] for snapshot in details(ioctx)[2]["snapshots"]] == ["s\udcff"]


# --- headers that are not what they should be ------------------------------------------------------------------------


BAD = {case: spoil for case, (_, spoil) in REFUSED.items()} | BORNE | BROKEN
READ = [case for case in REFUSED if case.startswith(("parent", "data pool", "features"))]
"""Of those that cannot be opened, the ones whose header is fine."""


def test_bad_headers(room: Room) -> None:
    """Each in its row, and the others as ever; the errors are those of opening it."""
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "0 parent", MIB, 16, features=61)
    with rbd.Image(ioctx, "0 parent") as image:
        image.create_snap("s")
        image.protect_snap("s")
    for case in BAD:
        rbd.RBD().clone(ioctx, "0 parent", "s", ioctx, case, features=61)
        with rbd.Image(ioctx, case) as image:
            image.create_snap("s")
            BAD[case](Header(room.rados_module, ioctx, image.id()))
    rows = {row["name"]: row for row in details(ioctx)}
    assert list(rows) == names_of(rbd.RBD().list2(ioctx))
    assert {"size", "parent"} <= set(rows["0 parent"])
    told = {name: row["error"] for name, row in rows.items() if "error" in row}
    for case in BAD:
        assert (case in told) == (opening(ioctx, case) is not None and case not in READ), case
        assert told.get(case) in (None, opening(ioctx, case))
        if case in told:
            assert set(rows[case]) == {"id", "name", "error"}
    assert rows["greatest size"]["size"] == 2**64 - 1
    assert rows["features that are all"]["features"] == 2**64 - 1
    assert rows["parent that is not"]["parent"]["image_id"] == "nonesuch"


def opening(ioctx: Any, name: str) -> int | None:
    try:
        rbd.Image(ioctx, name, read_only=True).close()
    except rbd.OSError as error:
        return error.errno
    return None


def test_bad_headers_of_format1(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBD_FORCE_ALLOW_V1", "1")
    ioctx = backend.ioctx(cluster=backend.connect(rbd_default_format="1"))
    for name in "abc":
        rbd.RBD().create(ioctx, name, MIB, old_format=True)
    for data, code in ((b"", errno.EIO), (b"<<< Rados Block Device Image >>>\n", errno.EIO), (bytes(112), errno.ENXIO)):
        ioctx.write_full("b.rbd", data)
        first, bad, last = details(ioctx)
        assert bad == {"id": "", "name": "b", "error": code}
        assert opening(ioctx, "b") == code
        assert (first["name"], last["name"], last["old_format"]) == ("a", "c", True)
    ioctx.remove_object("b.rbd")
    assert names_of(details(ioctx)) == ["a", "c"]


def test_bad_directories(room: Room) -> None:
    """Names and ids that can be no object's."""
    ioctx = room.ioctx()
    rbd.RBD().create(ioctx, "good", MIB, features=1)
    entries = {"a": "no\0id", "b": "l" * 5000, "c": "", "x": "/.."}
    with room.rados_module.WriteOpCtx() as operation:
        values = tuple(encode(identifier, text) for identifier in entries.values())
        ioctx.set_omap(operation, tuple(f"name_{name}" for name in entries), values)
        ioctx.operate_write_op(operation, "rbd_directory")
    ioctx.write_full("rbd_directory", format1.encode_directory(b"", {"o\0ld": b"", "l" * 5000: b"", "gone": b""}))
    assert len(list(rbd.RBD().list2(ioctx))) == 8
    rows = details(ioctx)
    assert [(row["name"][:5], row["id"][:5], row.get("error")) for row in rows] == [
        ("lllll", "", errno.ENAMETOOLONG),
        ("o\0ld", "", errno.EINVAL),
        ("a", "no\0id", errno.EINVAL),
        ("b", "lllll", errno.ENAMETOOLONG),
        ("good", rows[4]["id"][:5], None),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_random_damage(ioctx: Any, seed: int) -> None:
    """Whatever a header says, it is told in a row of its own, as opening the image would tell it."""
    dice = random.Random(seed)
    for name in "abc":
        rbd.RBD().create(ioctx, name, MIB, 16, features=63, stripe_unit=4096, stripe_count=2)
    with rbd.Image(ioctx, "a") as parent:
        parent.create_snap("s")
        parent.protect_snap("s")
    rbd.RBD().remove(ioctx, "b")
    rbd.RBD().clone(ioctx, "a", "s", ioctx, "b", features=63, stripe_unit=4096, stripe_count=2)
    rbd.RBD().group_create(ioctx, "group")
    rbd.Group(ioctx, "group").add_image(ioctx, "b")
    with rbd.Image(ioctx, "b") as image:
        image.create_snap("s")
        header = Header(embedded, ioctx, image.id())
    with rbd.Image(ioctx, "b") as image:
        image.lock_shared("cookie", "tag")
    good = dict(header.omap())
    lock = ioctx.get_xattr(f"rbd_header.{header.id}", "lock.rbd_lock")
    whole = details(ioctx)
    assert whole[1]["group"] and whole[1]["lock"] and whole[1]["parent"]
    bad = 0
    for _ in range(150):
        key = dice.choice([*good, "lock"])
        data = bytearray(lock if key == "lock" else good[key])
        for _ in range(dice.randint(0, 2)):
            data[dice.randrange(len(data))] = dice.choice((0, 1, 0xFF, dice.randrange(256)))
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        if key == "lock":
            ioctx.set_xattr(f"rbd_header.{header.id}", "lock.rbd_lock", bytes(data))
        else:
            header.put(key, bytes(data))
        first, second, third = details(ioctx)
        assert (first, third) == (whole[0], whole[2])
        assert (second["id"], second["name"]) == (whole[1]["id"], "b")
        code = opening(ioctx, "b")
        if "error" in second:
            assert second["error"] == code
        bad += "error" in second
        ioctx.set_xattr(f"rbd_header.{header.id}", "lock.rbd_lock", lock)
        for known, value in good.items():
            header.put(known, value)
    assert 10 < bad < 140
    assert details(ioctx) == whole


# --- what it asks of the cluster ---------------------------------------------------------------------------------------


class Watch(Interceptor):
    """Counts, by the names of methods; `before(request, methods)` may do something first."""

    def __init__(self, before: Callable[[Request, list[str]], None] | None = None) -> None:
        self.headers = self.pages = 0
        self._before = before

    def operation(self, request: Request, inner: Operation) -> Operation:
        methods = [step.method for step in request.steps if isinstance(step, Exec)]
        self.headers += "get_size" in methods
        self.pages += "dir_list" in methods
        if self._before is not None:
            self._before(request, methods)
        return inner


@pytest.fixture
def ioctx() -> Iterator[Any]:
    with embedded_client() as client, client.open_ioctx("rbd") as ioctx:
        yield ioctx


def described(io: Io) -> list[str]:
    async def all_of_them() -> list[str]:
        return [image.name async for image in describe.describe(io)]

    return run(all_of_them())


def test_little_in_advance(ioctx: Any) -> None:
    """Neither headers nor pages of the directory are read long before somebody wants them."""
    for number in range(3000):
        key, value = encode(f"{number:04}", text), encode(f"id{number:04}", text)
        ioctx.execute("rbd_directory", "rbd", "dir_add_image", key + value)
    for name in "ab":
        rbd.RBD().create(ioctx, f"0001{name}", MIB, features=1)
        rbd.RBD().create(ioctx, f"1200{name}", MIB, features=1)
    watch = Watch()
    io = wrap(port_for(ioctx), watch)

    async def some() -> None:
        async with aclosing(describe.describe(io)) as images:
            assert (await anext(images)).name == "0001a"
            assert (await anext(images)).name == "0001b"
            assert watch.headers <= describe.WINDOW + 3 and watch.pages == 1
            assert (await anext(images)).name == "1200a"
            assert watch.headers <= 1203 + describe.WINDOW and watch.pages == 2

    run(some())
    assert watch.pages == 2


def test_one_operation_for_an_image(ioctx: Any) -> None:
    for number in range(10):
        rbd.RBD().create(ioctx, f"{number}", MIB, features=61)
    asked: list[Request] = []
    io = wrap(port_for(ioctx), Watch(lambda request, methods: asked.append(request)))
    assert len(described(io)) == 10
    assert sorted(request.oid for request in asked if "header" in request.oid) == sorted(
        f"rbd_header.{row['id']}" for row in rbd.RBD().list2(ioctx)
    )
    assert {request.kind for request in asked} == {"read"}
    assert len(asked) == 10 + 3  # the directories of both formats, and the trash


@pytest.mark.parametrize("moment", ["get_size", "snapshot_get", "get_stripe_unit_count"])
def test_an_image_that_goes_while_it_is_read(ioctx: Any, moment: str) -> None:
    for name in "abc":
        rbd.RBD().create(ioctx, name, MIB, features=3, stripe_unit=4096, stripe_count=2)
        with rbd.Image(ioctx, name) as image:
            image.create_snap("s")
    (identifier,) = (row["id"] for row in rbd.RBD().list2(ioctx) if row["name"] == "b")

    def remove(request: Request, methods: list[str]) -> None:
        if moment in methods and request.oid.endswith(identifier):
            for entry in list(ioctx.list_objects()):
                if entry.key == request.oid:
                    ioctx.remove_object(request.oid)

    assert described(wrap(port_for(ioctx), Watch(remove))) == ["a", "c"]


@pytest.mark.parametrize("code", [errno.ESHUTDOWN, errno.ENOTCONN])
def test_a_client_that_is_cut_off(ioctx: Any, code: int) -> None:
    """Nothing is wrong with the images: the listing ends."""
    for number in range(5):
        rbd.RBD().create(ioctx, f"{number}", MIB, features=1)

    def refuse(request: Request, methods: list[str]) -> None:
        if "get_size" in methods:
            raise RadosError(code, request.oid)

    with pytest.raises(RadosError) as caught:
        described(wrap(port_for(ioctx), Watch(refuse)))
    assert caught.value.errno == code
