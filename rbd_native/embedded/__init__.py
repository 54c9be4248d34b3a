"""A RADOS in this process."""
