"""The `rados`-shaped face has python-rados' names, signatures, constants and exceptions, as far as it has them."""

import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest
import rados

from rbd_native import embedded
from rbd_native.embedded.conf import OPTIONS, PATH_OPTION
from tests.releases import EXCLUDE_OPS, told

CLASSES = (
    "Completion", "Ioctx", "Object", "ObjectIterator", "OmapIterator", "OpCtx", "Rados", "ReadOp", "ReadOpCtx", "Version",
    "Watch", "WriteOp", "WriteOpCtx", "XattrIterator",
)  # fmt: skip

OURS = {
    "Cluster",  # an embedded cluster, as an object
    "ForkedError",
}
EXTRA = {
    "Completion": {"finish"},
    "Ioctx": {"rbd_native_port"},
    "Rados": {"rbd_native_port"},
    "ReadOp": {"add", "send", "take"},
    "ReadOpCtx": {"add", "send", "take"},
    "WriteOp": {"send"},
    "WriteOpCtx": {"send"},
    "OmapIterator": {"fill"},
    "Version": {"count", "extra", "index", "major", "minor"},  # those of a tuple
}
MISSING = {
    # An embedded cluster has no pool snapshots, no daemons, no logs of monitors, and no quirk to reproduce (zero).
    "Ioctx": {"create_snap", "list_snaps", "lookup_snap", "remove_snap", "snap_rollback"},
    "Rados": {
        "get_inconsistent_pgs", "get_pool_base_tier", "monitor_callback", "monitor_callback2", "monitor_log",
        "monitor_log2",
    },
    "WriteOp": {"zero"},
    "WriteOpCtx": {"zero"},
}  # fmt: skip


def real_errors() -> dict[str, type[Exception]]:
    return {
        name: value for name, value in vars(rados).items() if isinstance(value, type) and issubclass(value, rados.Error)
    }


def signature_in(documentation: str) -> list[tuple[str, str]] | None:
    """Names and defaults of the parameters that a compiled method's first line of documentation tells."""
    match = re.match(r"[\w.]+\((.*?)\)(?: -> .*)?$", documentation.strip().split("\n", 1)[0])
    if match is None:
        return None
    found = []
    for parameter in separated(match[1]):
        name, _, default = parameter.partition(" = ") if ": " in parameter else parameter.partition("=")
        found.append((name.partition(":")[0].split()[-1], default.strip().removeprefix("u")))
    return found


def separated(parameters: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts = [""]
    for character in parameters:
        if character == "," and parts[-1].count("[") == parts[-1].count("]"):
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def methods() -> Iterator[tuple[str, str]]:
    for cls in CLASSES:
        for name in sorted(public(getattr(rados, cls)) & public(getattr(embedded, cls))):
            # Those of Object are wrapped with `*args, **kwargs`, and tell nothing of what is inside.
            if inspect.isroutine(method := getattr(getattr(rados, cls), name)) and "(*args" not in str(
                inspect.signature(method)
            ).replace("self, ", ""):
                yield cls, name


@pytest.mark.parametrize(("cls", "name"), list(methods()), ids=lambda value: value)
def test_signatures(cls: str, name: str) -> None:
    theirs = signature_in(getattr(getattr(rados, cls), name).__doc__ or "")
    if theirs is None:
        pytest.fail("its documentation does not tell its signature")
    mine = []
    for parameter in inspect.signature(getattr(getattr(embedded, cls), name)).parameters.values():
        default = parameter.default
        shown = "" if default is inspect.Parameter.empty else repr(default)
        mine.append((parameter.name, shown))
    flags = {"LIBRADOS_OPERATION_NOFLAG": "0", "LIBRADOS_CMPXATTR_OP_EQ": "1"}
    assert [(p, flags.get(default, default)) for p, default in theirs] == mine


@pytest.mark.parametrize("cls", CLASSES)
def test_what_a_class_has(cls: str) -> None:
    """Nothing that python-rados does not know, and nothing missing but what is known to be."""
    theirs, mine = public(getattr(rados, cls)), public(getattr(embedded, cls))
    assert mine - theirs == EXTRA.get(cls, set())
    attributes = {name for name in theirs if not inspect.isroutine(getattr(getattr(rados, cls), name))}
    assert theirs - mine - attributes == (MISSING.get(cls, set()) & theirs) - attributes


def test_attributes_of_instances() -> None:
    with embedded.Rados() as client, client.open_ioctx("rbd") as ioctx:
        ioctx.write_full("object", b"")
        instances: list[Any] = [client, ioctx, next(ioctx.list_objects()), ioctx.aio_remove("object")]
        for instance in instances:
            real = getattr(rados, type(instance).__name__)
            wanted = {name for name in public(real) if not inspect.isroutine(getattr(real, name))}
            assert {n for n in wanted if not hasattr(instance, n)} == MISSING.get(real.__name__, set()) & wanted


def test_constants() -> None:
    named = {name for name in vars(embedded) if name.isupper()}
    assert named  # or else the loop would prove nothing
    for name in named:
        assert getattr(embedded, name) == getattr(rados, name), name
    missing = {name for name in vars(rados) if name.isupper()} - named
    assert missing == {"MONITOR_LEVELS", *(f"LIBRADOS_CMPXATTR_OP_{op}" for op in ("NE", "GT", "GTE", "LT", "LTE"))}


def test_every_public_name_is_pythons_rados_or_ours() -> None:
    assert {name for name in embedded.__all__ if not hasattr(rados, name)} == OURS


@pytest.mark.parametrize("name", sorted(real_errors()))
def test_exceptions(name: str) -> None:
    theirs, mine = getattr(rados, name), getattr(embedded, name)
    assert [base.__name__ for base in theirs.__mro__] == [base.__name__ for base in mine.__mro__]
    arguments: tuple[Any, ...] = ("why", 5, 3) if name == "ExtendMismatch" else ("why", 5)
    real, ours = theirs(*arguments), mine(*arguments)
    assert (str(ours), ours.args, vars(ours)) == (str(real), real.args, vars(real))
    copy = pickle.loads(pickle.dumps(ours))
    assert (type(copy), str(copy), vars(copy)) == (mine, str(ours), vars(ours))


def test_what_is_not_there_says_so() -> None:
    with embedded.Rados() as client, client.open_ioctx("rbd") as ioctx:
        with pytest.raises(AttributeError):
            ioctx.create_snap("snap")  # type: ignore[attr-defined]
        with pytest.raises(embedded.OSError, match="locator") as caught:
            ioctx.set_locator_key("key")
        assert caught.value.errno == 95
        with embedded.WriteOpCtx() as op, pytest.raises(embedded.OSError, match="equality"):
            op.omap_cmp("key", "value", 2)


def test_defaults_of_options() -> None:
    """Those of a client that has read no conf file."""
    real = rados.Rados()
    ours = {PATH_OPTION, "keyring"}  # the latter's default depends on names that an embedded cluster has no use for
    if not told(EXCLUDE_OPS):
        ours.add("rbd_qos_exclude_ops")
    mine = {name: option.render(option.default) for name, option in OPTIONS.items() if name not in ours}
    assert mine == {name: real.conf_get(name) for name in mine}
    real.shutdown()
