"""Which configuration files a client of the embedded cluster reads: those that python-rados reads."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rbd_native import embedded

OPTION = "rbd_cache_size"
DEFAULT = str(32 << 20)


@pytest.fixture(params=["embedded", pytest.param("python-rados", marks=pytest.mark.ceph)])
def module(request: pytest.FixtureRequest) -> Any:
    if request.param == "embedded":
        return embedded
    import rados

    return rados


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Each sets the option to another value."""
    for name, value in (("a", 7), ("b", 8)):
        (tmp_path / name).write_text(f"[global]\n{OPTION} = {value}\n")
    (tmp_path / "bad").write_text("this is no configuration\n")
    return {name: str(tmp_path / name) for name in ("a", "b", "bad", "none")}


def read(module: ModuleType, conffile: Any) -> str:
    """What the option is then, or the exception."""
    try:
        return str(module.Rados(conffile=conffile).conf_get(OPTION))
    except module.Error as error:
        return type(error).__name__


@pytest.mark.parametrize("conffile", ["", -2], ids=["empty", "default files"])
def test_the_environment_comes_first(
    module: ModuleType, files: dict[str, str], conffile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named, expected in (
        (files["a"], "7"),
        (f"{files['none']},{files['b']}", "8"),
        (f"{files['none']};{files['b']},{files['a']}", "8"),
        (files["none"], "ObjectNotFound"),
        (files["bad"], "InvalidArgumentError"),
    ):
        monkeypatch.setenv("CEPH_CONF", named)
        assert read(module, conffile) == expected, named


@pytest.mark.parametrize("conffile", [None, -1], ids=["None", "no file"])
def test_none_is_read(
    module: ModuleType, files: dict[str, str], conffile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "bad", "none"):
        monkeypatch.setenv("CEPH_CONF", files[name])
        assert read(module, conffile) == DEFAULT


def test_a_name_counts_more_than_the_environment(
    module: ModuleType, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CEPH_CONF", files["a"])
    assert read(module, files["b"]) == "8"
    client = module.Rados()
    client.conf_read_file(files["b"])
    assert client.conf_get(OPTION) == "8"
    client.conf_read_file()
    assert client.conf_get(OPTION) == "7"


def test_where_nothing_is_named_there_need_not_be_any(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CEPH_CONF", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert read(embedded, "") == DEFAULT
    (tmp_path / "ceph.conf").write_text(f"[client]\n{OPTION} = 9\n")
    assert read(embedded, "") == "9"
