"""The exceptions, judged by the real binding.

The binding keeps its two errno tables private (C globals), but the garbage collector knows every dict.
"""

import builtins
import copy
import errno
import gc
import pickle

import pytest
import rbd as real

from rbd_native import errors
from tests.releases import MEMBER_OF_GROUP, told

UNKNOWN = set() if told(MEMBER_OF_GROUP) else {"ImageMemberOfGroup"}
REAL_NAMES = sorted(n for n, v in vars(real).items() if isinstance(v, type) and issubclass(v, real.Error))
OUR_CLASSES = {n: v for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.Error)}


def real_tables() -> tuple[dict[int, str], dict[int, str]]:
    """The binding's (image, group) tables, errno to class name."""
    tables = [
        {k: v.__name__ for k, v in table.items()}
        for table in gc.get_objects()
        if type(table) is dict
        and table
        and all(isinstance(k, int) for k in table)
        and all(isinstance(v, type) and issubclass(v, real.OSError) for v in table.values())
    ]
    (image,) = (t for t in tables if t[errno.ENOENT] == "ImageNotFound")
    (group,) = (t for t in tables if t[errno.ENOENT] == "ObjectNotFound")
    return image, group


def test_same_classes() -> None:
    assert set(OUR_CLASSES) - UNKNOWN == set(REAL_NAMES)


@pytest.mark.parametrize("name", REAL_NAMES)
def test_same_bases(name: str) -> None:
    ours, theirs = OUR_CLASSES[name], getattr(real, name)
    assert [c.__name__ for c in ours.__mro__] == [c.__name__ for c in theirs.__mro__]
    assert not issubclass(ours, builtins.OSError)


@pytest.mark.parametrize("args", [("x",), ("x", 2), ("x", 0), ("x", -2), ("", 5), ("x", None)])
@pytest.mark.parametrize("name", REAL_NAMES)
def test_same_text(name: str, args: tuple[object, ...]) -> None:
    ours, theirs = OUR_CLASSES[name](*args), getattr(real, name)(*args)
    assert str(ours) == str(theirs)
    assert repr(ours) == repr(theirs)
    assert ours.args == theirs.args
    assert getattr(ours, "errno", "none") == getattr(theirs, "errno", "none")


def test_errno_by_keyword() -> None:
    assert str(errors.ImageNotFound("x", errno=2)) == str(real.ImageNotFound("x", errno=2))


def test_newer_class() -> None:
    assert str(errors.make_ex(-errno.EMLINK, "x")) == "[errno 31] RBD image is member of group (x)"


@pytest.mark.parametrize("which", [0, 1])
def test_same_errno_tables(which: int) -> None:
    ours = (errors.errno_to_exception, errors.group_errno_to_exception)[which]
    assert {k: v.__name__ for k, v in ours.items() if v.__name__ not in UNKNOWN} == real_tables()[which]


@pytest.mark.parametrize("sign", [1, -1])
def test_make_ex(sign: int) -> None:
    image = errors.make_ex(sign * errno.ENOENT, "error opening image")
    assert type(image) is errors.ImageNotFound
    assert str(image) == "[errno 2] RBD image not found (error opening image)"
    group = errors.make_ex(sign * errno.ENOENT, "x", errors.group_errno_to_exception)
    assert type(group) is errors.ObjectNotFound
    unknown = errors.make_ex(sign * errno.ERANGE, "x")
    assert (type(unknown), unknown.errno, str(unknown)) == (errors.OSError, 34, "[errno 34] x")


def test_make_ex_like_the_binding_raising() -> None:
    with pytest.raises(real.InvalidArgument) as raised:
        real.RBD().features_from_string("no-such-feature")
    theirs = raised.value
    message = theirs.args[0].removeprefix("RBD invalid argument (").removesuffix(")")
    ours = errors.make_ex(-errno.EINVAL, message)
    assert (type(ours).__name__, str(ours), ours.errno) == (type(theirs).__name__, str(theirs), theirs.errno)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_survives_copying(again: object) -> None:
    # The binding of release 16 cannot do this: its __reduce__ reads an attribute that Python 3 dropped.
    first = errors.ImageBusy("x", 16)
    second = again(first)  # type: ignore[operator]
    assert (type(second), str(second), second.errno) == (errors.ImageBusy, str(first), 16)
