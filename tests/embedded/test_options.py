"""Options of Ceph that do not concern an embedded cluster are taken as librados takes them."""

import random

import pytest
import rados

from rbd_native import embedded
from rbd_native.embedded import ceph_options


@pytest.fixture(scope="module")
def pair() -> tuple[rados.Rados, embedded.Rados]:
    """Neither is connected; neither has read a file."""
    return rados.Rados(), embedded.Rados()


def answer(client: rados.Rados | embedded.Rados, name: str, value: str) -> tuple[str, str | None]:
    try:
        client.conf_set(name, value)
    except Exception as error:
        return type(error).__name__, client.conf_get(name)
    return "", client.conf_get(name)


def test_defaults(pair: tuple[rados.Rados, embedded.Rados]) -> None:
    real, ours = pair
    names = sorted(ceph_options.names())
    assert len(names) > 1500
    assert {name: ours.conf_get(name) for name in names} == {name: real.conf_get(name) for name in names}


def test_what_is_taken(pair: tuple[rados.Rados, embedded.Rados]) -> None:
    real, ours = pair
    rng = random.Random(48)
    names = [
        *rng.sample(sorted(ceph_options.names()), 150),
        "mon_allow_pool_delete", "osd_pool_default_pgp_num", "debug_osd", "debug_rbd", "nonsense", "rbd_nonsense",
    ]  # fmt: skip
    compared = 0
    for name in names:
        default = real.conf_get(name) or "1"
        for value in ("7", "true", "x y", default):
            theirs, mine = answer(real, name, value), answer(ours, name, value)
            # Some are of a narrower kind than their type tells: a value that the real one refuses is let pass.
            if theirs == mine:
                compared += 1
            else:
                assert theirs[0] in ("InvalidArgumentError", "OSError"), (name, value, theirs, mine)
    assert compared > 500


def test_what_is_fixed_once_connected() -> None:
    with embedded.Rados() as client:
        with pytest.raises(embedded.PermissionError):
            client.conf_set("bluestore_block_size", "1G")
        client.conf_set("mon_allow_pool_delete", "true")
        assert client.conf_get("mon_allow_pool_delete") == "true"
