"""A native Python client of RBD images, with the names of the `rbd` binding."""
