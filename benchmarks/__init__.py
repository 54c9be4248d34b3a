"""How fast rbd_native is beside librbd and beside RADOS itself; `python -m benchmarks` runs it."""
