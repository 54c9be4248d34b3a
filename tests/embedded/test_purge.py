"""Emptying the trash by how full the pool is, on the embedded cluster: a real one's figures come seconds late."""

import pytest

import rbd_native as rbd
from tests.backend import embedded_backend

RBD = rbd.RBD()
SIZES = {"soon": 100, "later": 200, "last": 400}
KIB = 1024


def put_away(ioctx: object, delay: int) -> None:
    for number, (name, kilobytes) in enumerate(SIZES.items()):
        RBD.create(ioctx, name, 1 << 20, 16)
        with rbd.Image(ioctx, name) as image:
            image.write(b"x" * kilobytes * KIB, 0)
        RBD.trash_move(ioctx, name, delay * (1 + number))


@pytest.mark.parametrize(
    ("part", "kept"),
    [(1.1, ["last", "later", "soon"]), (0.95, ["last", "later"]), (0.7, ["last"]), (0.4, []), (0.0, [])],
)
def test_those_whose_time_comes_first_go_first(part: float, kept: list[str]) -> None:
    with embedded_backend() as backend:
        ioctx = backend.ioctx()
        put_away(ioctx, 1000)
        (pool,) = _df(backend.cluster)
        RBD.trash_purge(ioctx, None, pool["stats"]["percent_used"] * part)
        assert sorted(entry["name"] for entry in RBD.trash_list(ioctx)) == kept


def test_nothing_goes_where_there_is_room_enough() -> None:
    """Not even what need not be kept: so it is with librbd."""
    with embedded_backend() as backend:
        ioctx = backend.ioctx()
        put_away(ioctx, 0)
        RBD.trash_purge(ioctx, None, 0.5)
        assert len(list(RBD.trash_list(ioctx))) == 3
        RBD.trash_purge(ioctx)
        assert list(RBD.trash_list(ioctx)) == []


def _df(cluster: object) -> list[dict[str, dict[str, float]]]:
    import json

    _, answer, _ = cluster.mon_command(json.dumps({"prefix": "df", "format": "json"}), b"")  # type: ignore[attr-defined]
    pools: list[dict[str, dict[str, float]]] = json.loads(answer)["pools"]
    return pools
