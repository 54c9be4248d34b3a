"""RADOS as rbd_native needs it: the port, and what implements it."""
