"""Commands that administration and other programs send, on either cluster: the same status, and the same fields."""

import json
import re
from typing import Any

import pytest
import rados

from rbd_native import embedded
from rbd_native.embedded.placement import object_hash, stable_mod
from tests.backend import Backend


def send(backend: Backend, prefix: str, as_json: bool = True, **parameters: Any) -> tuple[int, Any, str]:
    command = {"prefix": prefix, **parameters, **({"format": "json"} if as_json else {})}
    rv, output, status = backend.cluster.mon_command(json.dumps(command), b"")
    return rv, json.loads(output) if as_json and output else output.decode(), status


# --- users -----------------------------------------------------------------------------------------------------------


def test_users(backend: Backend) -> None:
    who = f"client.{backend.pool}"
    caps: dict[str, Any] = {"caps": ["mon", "allow r", "osd", "allow rw"]}
    missing = send(backend, "auth get", entity=who)
    assert (missing[0], missing[2]) == (-2, f"failed to find {who} in keyring")
    assert send(backend, "auth get-key", entity=who)[0] == -2
    rv, (made,), _ = send(backend, "auth get-or-create", entity=who, **caps)
    key = made["key"]
    assert (rv, made) == (0, {"entity": who, "key": key, "caps": {"mon": "allow r", "osd": "allow rw"}})
    assert send(backend, "auth get-or-create", as_json=False, entity=who, **caps)[1] == f"[{who}]\n\tkey = {key}\n"
    assert send(backend, "auth get-or-create-key", entity=who, **caps) == (0, {"key": key}, "")
    assert send(backend, "auth get-or-create-key", as_json=False, entity=who, **caps)[1] == f"{key}\n"
    refused = send(backend, "auth get-or-create", entity=who, caps=["mon", "allow *", "osd", "allow rw"])
    assert (refused[0], refused[2]) == (-22, f"key for {who} exists but cap mon does not match")
    assert send(backend, "auth get-key", entity=who)[1] == {"key": key}
    assert send(backend, "auth get", entity=who) == (0, [made], f"exported keyring for {who}")
    keyring = f'[{who}]\n\tkey = {key}\n\tcaps mon = "allow r"\n\tcaps osd = "allow rw"\n'
    assert send(backend, "auth get", as_json=False, entity=who)[1].strip() == keyring.strip()
    assert send(backend, "auth caps", entity=who, caps=["mon", "allow *"]) == (0, "", f"updated caps for {who}")
    assert made | {"caps": {"mon": "allow *"}} in send(backend, "auth ls")[1]["auth_dump"]
    assert f"{who}\n\tkey: {key}\n\tcaps: [mon] allow *\n" in send(backend, "auth ls", as_json=False)[1]
    assert send(backend, "auth rm", entity=who)[::2] == (0, "updated")
    assert send(backend, "auth rm", entity=who)[::2] == (0, f"entity {who} does not exist")
    assert send(backend, "auth caps", entity=who, caps=["mon", "allow *"])[::2] == (-2, f"couldn't find entry {who}")
    assert send(backend, "auth add", entity=who, **caps)[::2] == (0, f"added key for {who}")
    assert send(backend, "auth add", entity=who, caps=["mon", "allow *"])[0] == -22
    send(backend, "auth rm", entity=who)


# --- pools -----------------------------------------------------------------------------------------------------------


def test_settings_of_a_pool(backend: Backend) -> None:
    pool = backend.pool
    number = backend.cluster.pool_lookup(pool)
    rv, told, _ = send(backend, "osd pool get", pool=pool, var="all")
    assert rv == 0
    assert list(told) == [
        "pool", "pool_id", "size", "min_size", "pg_num", "pgp_num", "crush_rule", "hashpspool", "nodelete", "nopgchange",
        "nosizechange", "write_fadvise_dontneed", "noscrub", "nodeep-scrub", "use_gmt_hitset", "fast_read",
        "pg_autoscale_mode", "bulk",
    ]  # fmt: skip
    for name, value in told.items():
        if name not in ("pool", "pool_id"):
            alone = {"pool": pool, "pool_id": number, name: value}
            assert send(backend, "osd pool get", pool=pool, var=name) == (0, alone, "")
    plain = send(backend, "osd pool get", as_json=False, pool=pool, var="all")[1]
    assert f"size: {told['size']}\n" in plain
    assert "nodelete: false\n" in plain
    assert send(backend, "osd pool set", pool=pool, var="nodeep-scrub", val="true") == (
        0, "", f"set pool {number} nodeep-scrub to true",
    )  # fmt: skip
    assert send(backend, "osd pool get", pool=pool, var="nodeep-scrub")[1]["nodeep-scrub"] is True
    bad = send(backend, "osd pool get", pool=pool, var="zzz")
    assert (bad[0], bad[2]) == (-22, f"pool '{pool}': invalid variable: 'zzz'")
    assert send(backend, "osd pool set", pool=pool, var="zzz", val="1")[::2] == (-22, "unrecognized variable 'zzz'")
    assert send(backend, "osd pool get", pool="nope", var="size")[::2] == (-2, "unrecognized pool 'nope'")


def test_a_pool_is_renamed(backend: Backend) -> None:
    pool = backend.create_pool()
    other = f"{pool}-renamed"
    ioctx = backend.ioctx(pool)
    ioctx.write_full("object", b"x")
    assert send(backend, "osd pool rename", srcpool=pool, destpool=other) == (0, "", f"pool '{pool}' renamed to '{other}'")
    again = send(backend, "osd pool rename", srcpool=pool, destpool=other)
    assert again == (0, "", f"pool '{pool}' does not exist; pool '{other}' does -- assuming successful rename")
    assert send(backend, "osd pool rename", srcpool="nope", destpool="nope2")[::2] == (-2, "unrecognized pool 'nope'")
    assert send(backend, "osd pool rename", srcpool=other, destpool=other)[::2] == (-17, f"pool '{other}' already exists")
    backend.cluster.wait_for_latest_osdmap()
    assert ioctx.read("object") == b"x"
    assert backend.ioctx(other).read("object") == b"x"
    assert send(backend, "osd pool rename", srcpool=other, destpool=pool)[0] == 0


def test_the_quota_of_a_pool(backend: Backend) -> None:
    pool = backend.pool
    assert send(backend, "osd pool set-quota", pool=pool, field="max_objects", val="10") == (
        0, "", f"set-quota max_objects = 10 for pool {pool}",
    )  # fmt: skip
    (told,) = [one for one in send(backend, "osd pool ls", detail="detail")[1] if one["pool_name"] == pool]
    assert (told["quota_max_objects"], told["quota_max_bytes"]) == (10, 0)
    rv, quota, status = send(backend, "osd pool get-quota", pool=pool)
    if rv == -2:  # a real monitor that has not heard from its manager yet
        assert (backend.kind, status) == ("ceph", f"no stats for pool '{pool}'")
    else:
        assert (rv, quota["quota_max_objects"], quota["quota_max_bytes"]) == (0, 10, 0)
    assert send(backend, "osd pool set-quota", pool=pool, field="max_objects", val="0")[0] == 0
    assert send(backend, "osd pool set-quota", pool=pool, field="zzz", val="0")[0] == -22


def test_pools_in_detail(backend: Backend) -> None:
    pool = backend.pool
    (told,) = [one for one in send(backend, "osd pool ls", detail="detail")[1] if one["pool_name"] == pool]
    fields = {
        "pool_id", "flags", "flags_names", "type", "size", "min_size", "crush_rule", "object_hash", "pg_num", "snap_seq",
        "pg_placement_num", "quota_max_bytes", "quota_max_objects", "tiers", "erasure_code_profile", "application_metadata",
        "options", "stripe_width", "pg_autoscale_mode", "snap_mode", "pool_snaps",
    }  # fmt: skip
    assert fields <= told.keys()
    assert (told["type"], told["flags_names"], told["erasure_code_profile"]) == (1, "hashpspool", "")
    (dumped,) = [one for one in send(backend, "osd dump")[1]["pools"] if one["pool_name"] == pool]
    assert fields - {"pool_id"} <= dumped.keys()
    lines = send(backend, "osd pool ls", as_json=False, detail="detail")[1]
    line = rf"^pool \d+ '{pool}' replicated size \d+ min_size \d+ crush_rule 0 object_hash rjenkins pg_num"
    assert re.search(line, lines, re.MULTILINE)
    ((name, number),) = {(one["pool_name"], one["pool_id"]) for one in send(backend, "osd pool stats", pool_name=pool)[1]}
    assert (name, number) == (pool, told["pool_id"])


@pytest.mark.parametrize("name", ["o", "rbd_directory", "rbd_data.1234567890ab.0000000000000001", "x" * 24, "ö"])
def test_where_an_object_lies(backend: Backend, name: str) -> None:
    rv, told, _ = send(backend, "osd map", pool=backend.pool, object=name)
    groups = send(backend, "osd pool get", pool=backend.pool, var="pg_num")[1]["pg_num"]
    number = backend.cluster.pool_lookup(backend.pool)
    assert (rv, told["objname"], told["up"]) == (0, name, [0])
    assert told["raw_pgid"] == f"{number}.{object_hash(name.encode()):x}"
    assert told["pgid"] == f"{number}.{stable_mod(object_hash(name.encode()), groups):x}"


# --- the cluster -----------------------------------------------------------------------------------------------------

FIELDS = {
    "status": {"fsid", "health", "quorum", "quorum_names", "monmap", "osdmap", "pgmap", "fsmap", "mgrmap", "servicemap"},
    "health": {"status", "checks", "mutes"},
    "quorum_status": {"election_epoch", "quorum", "quorum_names", "quorum_leader_name", "quorum_age", "monmap"},
    "mon stat": {"epoch", "num_mons", "leader", "quorum"},
    "osd stat": {"epoch", "num_osds", "num_up_osds", "num_in_osds", "num_remapped_pgs"},
    "versions": {"mon", "mgr", "osd", "mds", "overall"},
    "version": {"version"},
    "osd tree": {"nodes", "stray"},
    "osd getmaxosd": {"epoch", "max_osd"},
    "fsid": {"fsid"},
    "df": {"stats", "pools"},
    "mon dump": {"epoch", "fsid", "mons"},
}


@pytest.mark.parametrize("prefix", FIELDS)
def test_how_the_cluster_is(backend: Backend, prefix: str) -> None:
    rv, told, _ = send(backend, prefix)
    assert rv == 0
    assert FIELDS[prefix] <= told.keys()
    rv, plain, _ = send(backend, prefix, as_json=False)
    assert rv == 0
    assert plain.strip()


def test_lists(backend: Backend) -> None:
    assert send(backend, "osd ls")[1] == [0]
    assert send(backend, "osd crush rule ls")[1] == ["replicated_rule"]
    assert send(backend, "osd pool ls", as_json=False)[1].splitlines() == send(backend, "osd pool ls")[1]


def test_monitors_and_daemons(backend: Backend) -> None:
    client = backend.cluster
    if backend.kind == "embedded":  # the real one has ended the process by SIGSEGV, where other clients came and went
        assert {"health", "mon_status"} <= json.loads(client.ping_monitor("a")).keys()
        with pytest.raises(backend.rados_module.ObjectNotFound):
            client.ping_monitor("zz")
    assert client.osd_command(0, '{"prefix": "version"}', b"")[0] == 0
    assert client.osd_command(7, '{"prefix": "version"}', b"") == (-2, b"", "osd dne")


# --- options among arguments -----------------------------------------------------------------------------------------

ARGUMENTS = [
    ["--rbd_cache=false", "foo", "--nonsense", "--debug-ms", "5", "-m", "1.2.3.4", "--rbd-cache-size", "12"],
    ["--rbd-cache-size", "12", "--", "--rbd_cache=false", "-x"],
    ["--rbd_cache", "false", "x"],
    ["--no-rbd_cache", "x"],
    ["--rbd_cache_size", "zz"],
    [],
]


def told(client: Any, arguments: list[str] | None) -> Any:
    """After taking arguments, or, for None, the environment."""
    try:
        left = client.conf_parse_env() if arguments is None else client.conf_parse_argv(arguments)
    except Exception as error:
        return type(error).__name__
    return left, [client.conf_get(name) for name in ("rbd_cache", "debug_ms", "mon_host", "rbd_cache_size")]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_arguments(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither needs a cluster. (librados looks at the environment once in a process: that is compared with arguments.)"""
    ours = told(embedded.Rados(), arguments)
    assert ours == told(rados.Rados(), arguments)
    monkeypatch.setenv("CEPH_ARGS", " ".join(arguments))
    assert told(embedded.Rados(), None) in ((None, ours[1]), ours)
