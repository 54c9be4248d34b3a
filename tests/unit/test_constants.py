"""The constants, judged by the real binding."""

import pytest
import rbd as real

from rbd_native import constants

NEWER_THAN_16 = {
    "RBD_ENCRYPTION_FORMAT_LUKS": 2,
    "RBD_GROUP_SNAP_NAMESPACE_TYPE_USER": 0,
    "RBD_IMAGE_OPTION_CLONE_FORMAT": 12,
    "RBD_IMAGE_OPTION_FLATTEN": 11,
    "RBD_LOCK_MODE_EXCLUSIVE_TRANSIENT": 2,
    "RBD_MIRROR_IMAGE_CREATING": 3,
    "RBD_MIRROR_MODE_INIT_ONLY": 3,
}
REAL = {name: value for name, value in vars(real).items() if name.isupper() and isinstance(value, int | str)}


def test_every_constant_of_the_binding() -> None:
    assert len(REAL) > 90
    assert {name: getattr(constants, name, None) for name in REAL} == REAL
    assert {name: type(getattr(constants, name)) for name in REAL} == {n: type(v) for n, v in REAL.items()}


def test_constants_of_newer_releases() -> None:
    assert {name: getattr(constants, name) for name in NEWER_THAN_16} == NEWER_THAN_16


@pytest.mark.parametrize(("name", "bit"), sorted(constants.FEATURE_NAMES.items()))
def test_feature_names(name: str, bit: int) -> None:
    assert real.RBD().features_from_string(name) == bit
    assert real.RBD().features_to_string(bit) == name


def test_all_feature_names() -> None:
    names = real.RBD().features_to_string(constants.RBD_FEATURES_ALL)
    assert names == ",".join(sorted(constants.FEATURE_NAMES))
