"""What daemons and other sites have to do with mirroring, judged by librbd: notices, what is said of images, tokens."""

import base64
import json
import struct
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import rbd as real

import rbd_native as ours
from rbd_native import embedded
from tests.cluster import CephCluster
from tests.interop.mirror_sides import MIB, Side, Sides, text
from tests.interop.twins import Outcome
from tests.releases import KEY_LENGTH, NEWEST, told

pytestmark = pytest.mark.ceph


@pytest.fixture(scope="module")
def shared(ceph: CephCluster) -> Iterator[Sides]:
    sides = Sides(ceph, "sites")
    yield sides
    sides.close()


@pytest.fixture
def sides(shared: Sides) -> Iterator[Sides]:
    yield shared
    shared.forget()


# --- notices ---------------------------------------------------------------------------------------------------------


def test_notices(sides: Sides) -> None:
    """On rbd_mirroring: each change of the mode, and of an image's state."""
    heard: list[list[bytes]] = [[] for _ in sides.sides]
    watches = []
    sides.rbd("create", "a", MIB, 18)
    for side, payloads in zip(sides.sides, heard, strict=True):
        side.ioctx.execute("rbd_mirroring", "rbd", "mirror_uuid_set", text("0" * 36))
        watches.append(side.ioctx.watch("rbd_mirroring", lambda *parts, payloads=payloads: payloads.append(parts[3])))
    try:
        sides.rbd("mirror_mode_set", 2)
        sides.rbd("mirror_mode_set", 1)
        sides.image("a", "mirror_image_enable", 1)
        sides.image("a", "mirror_image_create_snapshot", 0)
        sides.image("a", "mirror_image_demote")
        sides.image("a", "mirror_image_promote", True)
        sides.image("a", "mirror_image_disable", False)
        sides.image("a", "mirror_image_enable", 1)
        sides.rbd("mirror_mode_set", 0)  # refused
        sides.rbd("trash_move", "a")
        sides.rbd("mirror_mode_set", 0)
        sizes = [[len(payload) for payload in payloads] for payloads in heard]
        shapes = [[payload[6:14] for payload in payloads] for payloads in heard]
        assert shapes[0] == shapes[1] == shapes[2]
        assert len(shapes[0]) == 9
        assert len({len(one) for one in sizes}) == 1
    finally:
        for watch in watches:
            watch.close()


# --- what is said of images ------------------------------------------------------------------------------------------


def status(state: int, description: str, mirror_uuid: str = "") -> bytes:
    body = (text(mirror_uuid) if mirror_uuid else b"") + bytes((state,)) + text(description) + bytes(9)
    version = b"\2\2" if mirror_uuid else b"\1\1"
    return version + struct.pack("<I", len(body)) + body


SAID = [
    [(4, "replaying")],
    [(4, "replaying"), (6, "stopped", "remote-1"), (1, "an error", "remote-2")],
    [(0, "who knows"), (3, "é", "remote-1")],
    [(2, "syncing", "remote-1")],
]


@pytest.mark.parametrize(("said", "directions"), list(zip(SAID, [[], [0], [2], [0, 2]], strict=True)))
def test_statuses(sides: Sides, directions: list[int], said: list[Any]) -> None:
    """While the daemon that said it is there, and after it has gone."""
    sides.rbd("mirror_mode_set", 1)
    for number, direction in enumerate(directions):
        sides.rbd("mirror_peer_add", f"site{number}", "client.x", direction)
    for name in ("a", "b"):
        sides.rbd("create", name, MIB, 18)
        sides.image(name, "mirror_image_enable", 1)
    watches = [side.ioctx.watch("rbd_mirroring", lambda *parts: b"") for side in sides.sides]

    def say(side: Side) -> None:
        with side.module.Image(side.ioctx, "a") as image:
            global_id = image.mirror_image_get_info()["global_id"]
        for one in said:
            side.ioctx.execute("rbd_mirroring", "rbd", "mirror_image_status_set", text(global_id) + status(*one))

    def ask() -> None:
        for method in ("mirror_image_get_status", "mirror_image_get_instance_id"):
            sides.all(partial(settled, "a", method))
        for method in ("mirror_image_status_list", "mirror_image_status_summary"):
            sides.all(partial(listed, method))
        sides.all(lambda side: [instance == str(side.client.get_instance_id()) for instance in instances(side)])

    try:
        sides.all(say)
        ask()
    finally:
        for watch in watches:
            watch.close()
    ask()


def listed(method: str, side: Side) -> Any:
    return timeless(list(getattr(side.module.RBD(), method)(side.ioctx)))


def settled(name: str, method: str, side: Side) -> Any:
    with side.module.Image(side.ioctx, name) as image:
        found = getattr(image, method)()
    return timeless(found) if isinstance(found, dict) else found == str(side.client.get_instance_id())


def instances(side: Side) -> list[str]:
    return [instance for _, instance in side.module.RBD().mirror_image_instance_id_list(side.ioctx)]


def timeless(found: Any) -> Any:
    """Whether a time is of this minute, in place of it."""
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items()}
    if isinstance(found, list):
        return [timeless(value) for value in found]
    if hasattr(found, "tzinfo"):
        seconds = found.replace(tzinfo=None).timestamp() if found.tzinfo is None else found.timestamp()
        return "now" if abs(time.time() - seconds) < 60 else "then"
    return found


# --- tokens ----------------------------------------------------------------------------------------------------------


class Sites:
    """Each side's pool, and one of the same name at another site; `there`: the ioctxs of those."""

    def __init__(self, sides: Sides, other: CephCluster) -> None:
        self.sides = sides
        self._other = other.rados()
        self._embedded = embedded.Cluster(pools=("rbd",))
        self._fake = embedded.Rados(cluster=self._embedded)
        self._fake.connect()
        self.there = []
        for side in sides.sides[:2]:
            other.create_pool(side.ioctx.get_pool_name(), pg_num=4)
        self._other.wait_for_latest_osdmap()
        self.there = [self._other.open_ioctx(side.ioctx.get_pool_name()) for side in sides.sides[:2]]
        self.there.append(self._fake.open_ioctx("rbd"))

    def close(self) -> None:
        for ioctx in self.there:
            ioctx.close()
        self._other.shutdown()
        self._fake.shutdown()
        self._embedded.close()

    def at(self, side: Side) -> tuple[Any, Any]:
        """librbd, or ours on an embedded cluster, and the ioctx of the other site's pool."""
        number = self.sides.sides.index(side)
        return (ours if number == 2 else real).RBD(), self.there[number]


@pytest.fixture(scope="module")
def sites(shared: Sides) -> Iterator[Sites]:
    with CephCluster() as other:
        sites = Sites(shared, other)
        yield sites
        sites.close()


def peers(rbd: Any, ioctx: Any) -> list[Any]:
    """With what is known of how to reach them; addresses and keys as their lengths, or as whether they are there."""
    found = []
    for peer in rbd.mirror_peer_list(ioctx):
        attributes = rbd.mirror_peer_get_attributes(ioctx, peer["uuid"])
        of_key = told(KEY_LENGTH, NEWEST if isinstance(ioctx, embedded.Ioctx) else None)
        lengths = len(peer["site_name"]), len(attributes["key"]) - of_key
        found.append((peer["direction"], peer["client_name"], sorted(attributes), lengths))
    return found


@pytest.mark.parametrize("direction", [0, 2])
def test_import(sites: Sites, sides: Sides, direction: int) -> None:
    def reset(side: Side) -> None:
        rbd, there = sites.at(side)
        for peer in rbd.mirror_peer_list(there):
            rbd.mirror_peer_remove(there, peer["uuid"])
        rbd.mirror_mode_set(there, 0)

    def import_token(**changes: str) -> Outcome:
        def do(side: Side) -> Any:
            rbd, there = sites.at(side)
            mode = rbd.mirror_mode_get(there)
            if not mode:
                rbd.mirror_mode_set(there, 1)
            token = json.loads(base64.b64decode(rbd.mirror_peer_bootstrap_create(there)))
            rbd.mirror_mode_set(there, mode)
            text = base64.b64encode(json.dumps(token | changes).encode())
            side.module.RBD().mirror_peer_bootstrap_import(side.ioctx, direction, text)

        return sides.all(do)

    def known() -> Outcome:
        here = sides.all(lambda side: (side.module.RBD().mirror_mode_get(side.ioctx), peers(side.module.RBD(), side.ioctx)))
        sides.all(lambda side: peers(*sites.at(side)))
        return here

    sides.all(reset)
    assert import_token().raised == "FunctionNotSupported"  # it is not mirrored there
    sides.all(lambda side: sites.at(side)[0].mirror_mode_set(sites.at(side)[1], 2))
    assert import_token(fsid="another").raised == "InvalidArgument"
    assert import_token().raised is None
    mode, found = known().value
    assert (mode, len(found)) in ((2, 1), (2, 1))
    assert import_token().raised is None  # again
    known()
    sides.all(elsewhere)
    assert import_token().raised == "InvalidArgument"
    sides.rbd("mirror_peer_list")


def elsewhere(side: Side) -> None:
    """Let the peers be those of another site."""
    for peer in list(side.module.RBD().mirror_peer_list(side.ioctx)):
        side.module.RBD().mirror_peer_set_name(side.ioctx, peer["uuid"], "else")
