"""Whether an image's object map is true, judged by the objects that are there."""

from typing import Any

from rbd_native import cls_rbd, names
from rbd_native.cls_client import call
from rbd_native.engine import collect, run
from rbd_native.object_map import BitVector, ObjectState
from rbd_native.rados.connect import port_for
from rbd_native.rados.port import HEAD, Io, Read, Stat
from tests.cluster import CephCluster


async def look(io: Io, name: str) -> tuple[BitVector | None, int, set[int], str]:
    """The head's map (None: unreadable), the header's flags, the objects that exist, and the map's raw file."""
    identifier = await call(io, names.image_id(name), cls_rbd.get_id())
    header = names.header(identifier)
    prefix = await call(io, header, cls_rbd.get_object_prefix()) + "."
    flags = await call(io, header, cls_rbd.get_flags(HEAD))
    found = set()
    for oid in await collect(io.list_objects()):
        if oid.startswith(prefix) and (await io.read(oid, [Stat()]).bare()).rv == 0:  # a clone alone is listed too
            found.add(int(oid.removeprefix(prefix), 16))
    raw = (await io.read(names.object_map(identifier), [Read(0, 0)])).outs[0]
    try:
        return BitVector.decode(raw), flags, found, raw
    except ValueError:
        return None, flags, found, raw


def judge(ioctx: Any, name: str, *, exact: bool) -> int:
    """AssertionError where the map is valid and says that an object is absent which exists, or, when it is to be `exact`,
    the opposite. The header's flags."""
    bits, flags, found, _ = run(look(port_for(ioctx), name))
    if flags:
        return flags
    assert bits is not None, "a damaged map is not flagged as invalid"
    said = {number for number in range(len(bits)) if bits[number] != ObjectState.NONEXISTENT}
    assert not found - said, f"the map hides objects {sorted(found - said)[:10]}"
    if exact:
        assert not said - found, f"the map has objects that are not there: {sorted(said - found)[:10]}"
    return 0


def check_by_librbd(ceph: CephCluster, pool: str, name: str) -> None:
    """What librbd finds wrong with it, it flags: see :func:`judge`."""
    ceph.cli("rbd", "object-map", "check", "--no-progress", f"{pool}/{name}")
