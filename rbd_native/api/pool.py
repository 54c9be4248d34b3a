"""The methods of class RBD about a pool as a whole: its metadata, its options, what its images amount to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rbd_native.api.boundary import c_string, drive, drive_present, name_bytes, name_text, shown, shown_value
from rbd_native.operations import pool, pool_metadata
from rbd_native.options import METADATA_PREFIX
from rbd_native.rados.connect import port_for


class PoolMethods:
    """What class RBD has of them."""

    def pool_init(self, ioctx: Any, force: bool) -> None:
        """Make a pool one for images, even, with `force`, one that is used for something else.

        Raises PermissionError (used for something else), InvalidArgument (it cannot hold images).
        """
        drive(pool.initialize(port_for(ioctx), force=bool(force)), "error initializing pool")

    def pool_stats_get(self, ioctx: Any) -> dict[str, int]:
        """Keys image_count, image_provisioned_bytes, image_max_provisioned_bytes (each image at its largest, snapshots
        included), image_snap_count, and the same with trash_ in place of image_."""
        images, trashed = drive(pool.amounts(port_for(ioctx)), "error retrieving pool stats")
        return {
            f"{whose}_{what}": value
            for whose, amount in (("image", images), ("trash", trashed))
            for what, value in (
                ("count", amount.images),
                ("provisioned_bytes", amount.provisioned),
                ("max_provisioned_bytes", amount.max_provisioned),
                ("snap_count", amount.snapshots),
            )
        }

    # --- metadata ---

    def pool_metadata_get(self, ioctx: Any, key: str | bytes) -> str:
        """The value of a key; KeyError where there is none."""
        text, given = name_text(key, "key"), name_bytes(key, "key")
        work = pool_metadata.get(port_for(ioctx), text)
        return shown_value(drive_present(work, f"no metadata {given!r}", "error getting metadata %s", given))

    def pool_metadata_set(self, ioctx: Any, key: str | bytes, value: str | bytes) -> None:
        """Set a pair. InvalidArgument for a conf_ key that is no option of a pool, or a value it cannot have."""
        text, raw = name_text(key, "key"), c_string(value, "value")
        drive(pool_metadata.put(port_for(ioctx), text, raw), "error setting metadata %s", name_bytes(key, "key"))

    def pool_metadata_remove(self, ioctx: Any, key: str | bytes) -> None:
        """KeyError where there is none."""
        text, given = name_text(key, "key"), name_bytes(key, "key")
        work = pool_metadata.remove(port_for(ioctx), text)
        drive_present(work, f"no metadata {given!r}", "error removing metadata %s", given)

    def pool_metadata_list(self, ioctx: Any) -> PoolMetadataIterator:
        """Iterate over (key, value), ascending by key."""
        return PoolMetadataIterator(ioctx)

    # --- options ---

    def config_get(self, ioctx: Any, key: str) -> str:
        """The value the pool gives an option; KeyError where it gives none."""
        stored, pool_name = _option(key), ioctx.get_pool_name()
        work = pool_metadata.get(port_for(ioctx), stored)
        absent, message = f"no config {key} for pool {pool_name}", "error getting config %s for pool %s"
        return shown_value(drive_present(work, absent, message, key, pool_name))

    def config_set(self, ioctx: Any, key: str, value: str | bytes) -> None:
        """InvalidArgument where a pool has no such option, or the option no such value."""
        stored, raw, pool_name = _option(key), c_string(value, "value"), ioctx.get_pool_name()
        work = pool_metadata.put(port_for(ioctx), stored, raw)
        drive(work, "error setting config %s for pool %s", key, pool_name)

    def config_remove(self, ioctx: Any, key: str) -> None:
        """KeyError where the pool does not give the option a value."""
        stored, pool_name = _option(key), ioctx.get_pool_name()
        work = pool_metadata.remove(port_for(ioctx), stored)
        absent, message = f"no config {key} for pool {pool_name}", "error removing config %s for pool %s"
        drive_present(work, absent, message, key, pool_name)

    def config_list(self, ioctx: Any) -> ConfigPoolIterator:
        """Iterate over all options of the pool as dicts with keys name, value, source (RBD_CONFIG_SOURCE_*)."""
        return ConfigPoolIterator(ioctx)


class PoolMetadataIterator:
    """The metadata of a pool, as they were when it was made: pairs of key and value."""

    def __init__(self, ioctx: Any) -> None:
        pairs = drive(pool_metadata.listing(port_for(ioctx)), "error listing metadata")
        self._pairs = [(shown(key), shown_value(value)) for key, value in pairs.items()]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from self._pairs


class ConfigPoolIterator:
    """The options of a pool and where their values come from."""

    def __init__(self, ioctx: Any) -> None:
        self._listing = drive(pool_metadata.settings(port_for(ioctx)), "error listing config options").listing()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for name, value, source in self._listing:
            yield {"name": name, "value": value, "source": source}


def _option(key: str) -> str:
    return name_text(METADATA_PREFIX + key, "key")
