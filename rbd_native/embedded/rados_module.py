"""`rados.Rados` over embedded clusters.

Which cluster a handle connects to: the one given as `cluster`; else the file that the option `embedded_path` names
(in `conf`, or in the conf file); else one of its own, in memory, which ends with it.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

from rbd_native.embedded import arguments, ceph_options, mon, status_commands
from rbd_native.embedded.client import Connection
from rbd_native.embedded.cluster import Cluster
from rbd_native.embedded.conf import PATH_OPTION, Conf, UnknownOption, canonical
from rbd_native.embedded.rados_errors import Error, RadosStateError, make_ex
from rbd_native.embedded.rados_ioctx import Ioctx
from rbd_native.embedded.rados_ops import Dispatcher, blob, small, text
from rbd_native.interrupts import DEFERRED
from rbd_native.native import threading
from rbd_native.rados.port import Call

_NAMES_FILES: Final = "CEPH_CONF"


class Version(NamedTuple):
    """Version information"""

    major: int
    minor: int
    extra: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.extra}"


def _leave(connection: Connection | None, dispatcher: Dispatcher, own: Cluster | None) -> None:
    if connection is not None:
        connection.shutdown()
    dispatcher.stop()
    if own is not None:
        own.close()


def _leave_apart(*what: Any) -> None:
    """Begun where Python's own threads cannot be: in the midst of a finalizer."""
    threading.Thread(target=_leave, args=what, name="rados-leaving", daemon=True).start()


class Rados:
    """This class wraps librados functions"""

    DEFAULT_CONF_FILES: Final = -2
    NO_CONF_FILE: Final = -1

    def __init__(
        self,
        rados_id: str | None = None,
        name: str | None = None,
        clustername: str | None = None,
        conf_defaults: Mapping[str, str] | None = None,
        conffile: str | int | None = NO_CONF_FILE,
        conf: Mapping[str, str] | None = None,
        flags: int = 0,
        context: object = None,
        *,
        cluster: Cluster | None = None,
    ) -> None:
        if rados_id is not None and name is not None:
            raise Error("Rados(): can't supply both rados_id and name")
        if rados_id is not None:
            name = f"client.{text(rados_id, 'rados_id')}"
        self._name = "client.admin" if name is None else text(name, "name")
        self._clustername = clustername or "ceph"
        self.rados_id = rados_id
        self.conffile = conffile
        self.conf_defaults = conf_defaults
        self.parsed_args: list[str] = []
        self.state = "configuring"
        self.dispatcher = Dispatcher("rados-callbacks")
        self._conf = Conf(self._name)
        self._given = cluster
        self._own: Cluster | None = None
        self._connection: Connection | None = None
        self._read_files(conffile)
        for options in (conf_defaults, conf):
            for option, value in (options or {}).items():
                self.conf_set(option, value)

    def __enter__(self) -> Rados:
        self.connect()
        return self

    def __del__(self) -> None:
        """One that nobody holds any more leaves its cluster. In a thread of its own: this may come at any point of any."""
        connection = getattr(self, "_connection", None)
        if connection is None or self.state != "connected" or connection.closed or sys.is_finalizing():
            return
        self.state = "shutdown"
        with contextlib.suppress(RuntimeError):  # no thread can be had: the process ends
            _thread.start_new_thread(_leave_apart, (connection, self.dispatcher, self._own))

    def __exit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.shutdown()
        return False

    # --- state ---

    def require_state(self, *args: str) -> None:
        if self.state not in args:
            raise RadosStateError(f"You cannot perform that operation on a Rados object in state {self.state}.")

    def _client(self) -> Connection:
        self.require_state("connected")
        assert self._connection is not None
        return self._connection

    @property
    def rbd_native_port(self) -> Connection:
        """The connection as the port's Cluster."""
        return self._client()

    def connect(self, timeout: int = 0) -> None:
        self.require_state("configuring")
        with DEFERRED:
            cluster = self._given
            if cluster is None:
                patience = float(self._conf.get("client_mount_timeout") or 0) or None
                cluster = self._own = Cluster(self._conf.get(PATH_OPTION) or None, patience=patience)
            self._connection = cluster.connect(self._conf)
            self.state = "connected"

    def shutdown(self) -> None:
        """Does nothing the second time."""
        if self.state == "shutdown":
            return
        with DEFERRED:
            self.state = "shutdown"
            _leave(self._connection, self.dispatcher, self._own)

    # --- configuration ---

    def _read_files(self, conffile: str | int | None) -> None:
        if conffile is None or conffile == self.NO_CONF_FILE:
            return
        self.conf_read_file(None if conffile in ("", self.DEFAULT_CONF_FILES) else str(conffile))

    def _default_files(self) -> list[str]:
        file = f"{self._clustername}.conf"
        return [f"/etc/ceph/{file}", str(Path.home() / ".ceph" / file), file]

    def conf_read_file(self, path: str | None = None) -> None:
        """The first that exists of the files that are named; by default of those that the environment's CEPH_CONF names,
        or, without that, of those where Ceph looks. Unlike with a real cluster there need not be any of these."""
        self.require_state("configuring", "connected")
        named = os.environ.get(_NAMES_FILES) if path is None else text(path, "path")
        by_name = path is not None or bool(named)
        try:
            self._conf.read([file for file in re.split("[,;]", named or "") if file] if by_name else self._default_files())
        except FileNotFoundError:
            if by_name:
                raise make_ex(errno.ENOENT, "error calling conf_read_file") from None
        except OSError as error:
            raise make_ex(error.errno or errno.EIO, "error calling conf_read_file") from error
        except ValueError as error:
            raise make_ex(errno.EINVAL, f"error calling conf_read_file: {error}") from error

    def conf_get(self, option: str) -> str | None:
        self.require_state("configuring", "connected")
        name = text(option, "option")
        if name == "fsid" and self._connection is not None:
            return self._connection.fsid()
        return self._conf.get(name)

    def conf_set(self, option: str, val: str) -> None:
        self.require_state("configuring", "connected")
        name, value = text(option, "option"), text(val, "val")
        if self.state == "connected" and ceph_options.is_fixed(canonical(name)):
            raise make_ex(errno.EPERM, "error calling conf_set")
        try:
            self._set(name, value)
        except UnknownOption:
            raise make_ex(errno.ENOENT, "error calling conf_set") from None
        except ValueError:
            raise make_ex(errno.EINVAL, "error calling conf_set") from None

    def _set(self, name: str, value: str) -> None:
        if self._connection is None:
            self._conf.set(name, value)
        else:
            self._connection.conf_set(name, value)

    def conf_parse_argv(self, args: Sequence[str]) -> list[str] | None:
        """The arguments that are no options, which the others set. None for none."""
        self.require_state("configuring", "connected")
        if not args:
            return None
        self.parsed_args = list(args)
        try:
            return arguments.take_options(self._conf, [text(arg, "args") for arg in args])
        except ValueError:
            raise make_ex(errno.EINVAL, "error calling conf_parse_argv_remainder") from None

    def conf_parse_env(self, var: str = "CEPH_ARGS") -> None:
        """Take the options in a variable of the environment, if it is there."""
        self.require_state("configuring", "connected")
        words = os.environ.get(text(var, "var") if var else "", "")
        try:
            arguments.take_options(self._conf, shlex.split(words))
        except ValueError:
            raise make_ex(errno.EINVAL, "error calling conf_parse_env") from None

    # --- the client and its cluster ---

    def version(self) -> Version:
        """Of the librados that this looks like."""
        return Version(3, 0, 0)

    def get_fsid(self) -> str:
        return self._client().fsid()

    def get_instance_id(self) -> int:
        return self._client().instance_id()

    def get_addrs(self) -> str:
        return self._client().address()

    def wait_for_latest_osdmap(self) -> int:
        return int(self._client().wait_for_latest_map().block().rv)

    def blocklist_add(self, client_address: str, expire_seconds: int = 0) -> None:
        self._value(
            self._client().blocklist_add(text(client_address, "client_address"), small(expire_seconds, 32)),
            f"error blocklisting client '{client_address}'",
        )

    def get_cluster_stats(self) -> dict[str, int]:
        def stats(db: Any) -> dict[str, int]:
            used = mon.stored(db)
            objects = sum(mon.pool_stats(db, pool).objects for pool in mon.pools(db))
            kilobytes = mon.CAPACITY // 1024
            kb_used = -(-used // 1024)
            return {"kb": kilobytes, "kb_used": kb_used, "kb_avail": kilobytes - kb_used, "num_objects": objects}

        found: dict[str, int] = self._value(self._client().ask("statistics", stats), "Rados.get_cluster_stats failed")
        return found

    @staticmethod
    def _value(call: Call, failure: str) -> Any:
        outcome = call.block()
        if outcome.rv < 0:
            raise make_ex(outcome.rv, failure)
        return outcome.value

    # --- pools ---

    def list_pools(self) -> list[str]:
        return list(self._value(self._client().pools(), "error listing pools").values())

    def pool_exists(self, pool_name: str) -> bool:
        return self.pool_lookup(pool_name) is not None

    def pool_lookup(self, pool_name: str) -> int | None:
        """None where there is none of that name."""
        outcome = self._client().pool_lookup(text(pool_name, "pool_name")).block()
        return None if outcome.rv < 0 else outcome.value

    def pool_reverse_lookup(self, pool_id: int) -> str | None:
        outcome = self._client().pool_name(pool_id).block()
        return None if outcome.rv < 0 else outcome.value

    def create_pool(self, pool_name: str, crush_rule: int | None = None, auid: int | None = None) -> None:
        name = text(pool_name, "pool_name")
        call = self._client().tell("create pool", lambda db: mon.create_pool(db, name))
        self._value(call, f"error creating pool {name!r}")

    def delete_pool(self, pool_name: str) -> None:
        name = text(pool_name, "pool_name")
        call = self._client().tell("delete pool", lambda db: mon.delete_pool(db, name))
        self._value(call, f"error deleting pool {name!r}")

    def open_ioctx(self, ioctx_name: str) -> Ioctx:
        client = self._client()
        name = text(ioctx_name, "ioctx_name")
        pool = self._value(client.pool_lookup(name), f"error opening pool {name!r}")
        return Ioctx(self, name, client.io(pool, owner=self))

    def open_ioctx2(self, pool_id: int) -> Ioctx:
        client = self._client()
        self._value(client.pool_name(pool_id), f"error opening pool id '{pool_id}'")
        return Ioctx(self, str(pool_id), client.io(pool_id, owner=self))

    # --- the monitor, and daemons that an embedded cluster has not ---

    def mon_command(
        self, cmd: str, inbuf: bytes, timeout: int = 0, target: str | int | None = None
    ) -> tuple[int, bytes, str]:
        """Return value, output and status line."""
        client = self._client()
        data = blob(inbuf, "inbuf")
        try:
            command = json.loads(text(cmd, "cmd"))
        except ValueError:
            return -errno.EINVAL, b"", f"unparseable JSON {cmd}"
        if not isinstance(command, dict):
            return -errno.EINVAL, b"", f"not JSON object {cmd}"
        return client.run_command(command, data)

    def ping_monitor(self, mon_id: str) -> str:
        """What the monitor "a", the only one, says of itself and of the cluster's health, as JSON."""
        self.require_state("configuring", "connected")
        if text(mon_id, "mon_id") != "a":
            raise make_ex(errno.ENOENT, "error calling ping_monitor")
        return json.dumps({"health": status_commands.HEALTH, "mon_status": status_commands.MON_STATUS}, indent=4) + "\n"

    def mgr_command(
        self, cmd: str, inbuf: bytes, timeout: int = 0, target: str | None = None
    ) -> tuple[int, bytes, str]:
        """There is no manager that would know a command."""
        self._client()
        prefix = _prefix(cmd, blob(inbuf, "inbuf"))
        return -errno.EINVAL, b"", f"No handler found for '{prefix}'"

    def osd_command(self, osdid: int, cmd: str, inbuf: bytes, timeout: int = 0) -> tuple[int, bytes, str]:
        """Of the only OSD, 0: "version"."""
        self._client()
        prefix = _prefix(cmd, blob(inbuf, "inbuf"))
        if small(osdid, 31) != 0:
            return -errno.ENOENT, b"", "osd dne"
        if prefix != "version":
            return -errno.EINVAL, b"", f"unrecognized command '{prefix}'"
        told = {"version": "16.2.15", "release": "pacific", "release_type": "stable"}
        return 0, (json.dumps(told, indent=4) + "\n").encode(), ""

    def pg_command(self, pgid: str, cmd: str, inbuf: bytes, timeout: int = 0) -> tuple[int, bytes, str]:
        """There are no placement groups that could be asked."""
        self._client()
        text(pgid, "pgid")
        _prefix(cmd, blob(inbuf, "inbuf"))
        return -errno.EINVAL, b"", "no pgid specified"

    def service_daemon_register(self, service: str, daemon: str, metadata: Mapping[str, str]) -> None:
        """Nobody lists them."""
        self.require_state("configuring", "connected")
        for name, value in {"service": service, "daemon": daemon, **metadata}.items():
            text(value, name)

    def service_daemon_update(self, status: Mapping[str, str]) -> None:
        self._client()
        for name, value in status.items():
            text(value, name)


def _prefix(command: str, data: bytes) -> str:
    """Which command it is; "" for none."""
    try:
        found = json.loads(text(command, "cmd"))
    except ValueError:
        return ""
    return str(found.get("prefix", "")) if isinstance(found, dict) else ""
