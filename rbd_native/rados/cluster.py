"""The part of the port that is not about objects, over a user's own `rados.Rados`.

python-rados does these calls well, so both adapters of it, with ctypes and without, share this. They may ask the
monitor and wait for it, so the coroutine faces run them in a worker thread.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from rbd_native.rados.port import Call, Capability, Cluster, Io, Outcome, PoolStats

_ADDRESS: Final = re.compile(r"(?:any:|v[12]:)?((?:\[[^]]*\]|[^\[\],:]+):\d+/\d+)")


class RadosCluster(Cluster):
    """A connected `rados.Rados`.

    `new_io(cluster, pool_id, namespace)` makes the Io of the adapter, `blocking(function)` a Call out of something that
    blocks.
    """

    def __init__(
        self,
        rados: Any,
        capabilities: Capability,
        new_io: Callable[[RadosCluster, int, str], Io],
        blocking: Callable[[Callable[[], Outcome]], Call],
    ) -> None:
        self.rados = rados
        self.capabilities = capabilities
        self._new_io = new_io
        self._blocking = blocking

    def _call(self, function: Callable[[], Any]) -> Call:
        return self._blocking(lambda: outcome_of(function))

    def instance_id(self) -> int:
        number: int = self.rados.get_instance_id()
        return number

    def address(self) -> str:
        return legacy_address(self.rados.get_addrs())

    def fsid(self) -> str:
        return str(self.rados.get_fsid())

    def conf_get(self, name: str) -> str | None:
        value: str | None = self.rados.conf_get(name)
        return value

    def conf_set(self, name: str, value: str) -> None:
        self.rados.conf_set(name, value)

    def pools(self) -> Call:
        def pools() -> dict[int, str]:
            ids = {name: self.rados.pool_lookup(name) for name in self.rados.list_pools()}
            return {number: name for name, number in ids.items() if number is not None}  # None: removed meanwhile

        return self._call(pools)

    def pool_lookup(self, name: str) -> Call:
        def lookup() -> Outcome:
            number = self.rados.pool_lookup(name)
            return Outcome(-errno.ENOENT) if number is None else Outcome(0, number)

        return self._call(lookup)

    def pool_name(self, pool_id: int) -> Call:
        def name() -> Outcome:
            found = self.rados.pool_reverse_lookup(pool_id)
            return Outcome(-errno.ENOENT) if found is None else Outcome(0, found)

        return self._call(name)

    def pool_stats(self, pool_id: int) -> Call:
        def stats() -> Outcome:
            if self.rados.pool_reverse_lookup(pool_id) is None:
                return Outcome(-errno.ENOENT)
            asked = self._command({"prefix": "df", "format": "json"}, b"")
            if asked.rv < 0:
                return asked
            report = json.loads(asked.value)
            # A pool is reported some time after it was made, and was empty until then.
            found: dict[str, int] = next((pool["stats"] for pool in report["pools"] if pool["id"] == pool_id), {})
            available = found.get("max_avail", report["stats"]["total_avail_bytes"])
            return Outcome(0, PoolStats(found.get("bytes_used", 0), found.get("objects", 0), available))

        return self._call(stats)

    def application_enable(self, pool_id: int, app: str, force: bool = False) -> Call:
        return self._call(lambda: self._with_pool(pool_id, lambda ioctx: ioctx.application_enable(app, force)))

    def application_metadata(self, pool_id: int, app: str) -> Call:
        return self._call(lambda: self._with_pool(pool_id, lambda ioctx: dict(ioctx.application_metadata_list(app))))

    def _with_pool(self, pool_id: int, use: Callable[[Any], Any]) -> Any:
        ioctx = self.rados.open_ioctx2(pool_id)
        try:
            return use(ioctx)
        finally:
            ioctx.close()

    def io(self, pool_id: int, namespace: str = "") -> Io:
        return self._new_io(self, pool_id, namespace)

    def mon_command(self, command: Mapping[str, Any], data: bytes = b"") -> Call:
        return self._call(lambda: self._command(command, data))

    def _command(self, command: Mapping[str, Any], data: bytes) -> Outcome:
        rv, output, _ = self.rados.mon_command(json.dumps(command), data)
        return Outcome(min(rv, 0), output)

    def blocklist_add(self, address: str, seconds: int) -> Call:
        return self._call(lambda: self.rados.blocklist_add(address, seconds))

    def wait_for_latest_map(self) -> Call:
        return self._call(lambda: self.rados.wait_for_latest_osdmap())

    def connect(self, client: str, conf: Mapping[str, str]) -> Call:
        def connect() -> Cluster:
            import rados

            from rbd_native.rados import pure  # which is made of this module

            other = rados.Rados(rados_id=client, conf=dict(conf))
            try:
                other.connect()
            except BaseException:
                other.shutdown()
                raise
            return pure.cluster(other)

        return self._call(connect)

    def disconnect(self) -> Call:
        return self._call(lambda: self.rados.shutdown())


def legacy_address(addresses: str) -> str:
    """ "ip:port/nonce" out of an address vector in any notation: the form in which OSDs report clients."""
    found = _ADDRESS.search(addresses.strip("[]") if addresses.startswith("[v") else addresses)
    if found is None:
        raise ValueError(f"not an address: {addresses!r}")
    return found[1]


def outcome_of(function: Callable[[], Any]) -> Outcome:
    """What it returns as an Outcome (one as it is), and what python-rados raises as its errno."""
    try:
        value = function()
    except Exception as error:
        code = getattr(error, "errno", None)
        if not isinstance(code, int) or not code:
            raise
        return Outcome(-abs(code))
    return value if isinstance(value, Outcome) else Outcome(0, value)
