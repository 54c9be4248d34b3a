"""The public face: the classes of the `rbd` binding, thin over the operations."""
