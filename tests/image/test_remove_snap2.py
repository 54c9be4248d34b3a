"""remove_snap2: clones made independent, and the snapshot unprotected, on the way."""

import pytest

import rbd_native as rbd
from tests.backend import Backend


@pytest.mark.parametrize("clone_format", [1, 2])
def test_force(backend: Backend, clone_format: int) -> None:
    ioctx = backend.ioctx()
    images = rbd.RBD()
    images.create(ioctx, "parent", 1 << 20, order=16)
    with rbd.Image(ioctx, "parent") as parent:
        parent.write(b"parent", 0)
        parent.create_snap("snap")
        parent.protect_snap("snap")
        images.clone(ioctx, "parent", "snap", ioctx, "child", clone_format=clone_format)
        with pytest.raises(rbd.ImageBusy):
            parent.remove_snap2("snap", rbd.RBD_SNAP_REMOVE_FLATTEN)  # protected
        images.clone(ioctx, "parent", "snap", ioctx, "second", clone_format=clone_format)
        parent.remove_snap2("snap", rbd.RBD_SNAP_REMOVE_FORCE)
        assert list(parent.list_snaps()) == []
    for name in ("child", "second"):
        with rbd.Image(ioctx, name) as child:
            assert child.read(0, 6) == b"parent"
            assert child.overlap() == 0
