"""The configuration of a client of an embedded cluster: the options that RBD clients read, as Ceph spells and checks
them.

A value is looked for in what the program set, then in what its conf file says, then in the cluster's own
configuration (the `config set` of its monitor), then among the defaults.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from rbd_native.embedded import ceph_options
from rbd_native.embedded.ceph_options import LEVEL
from rbd_native.option_types import FLAG, FLOAT, INT, TEXT, UINT
from rbd_native.options import OPTIONS as RBD_OPTIONS
from rbd_native.options import Option

PATH_OPTION: Final = "embedded_path"
"""Ours: the file of the cluster that `Rados.connect` opens."""

_CLIENT_OPTIONS: Final[Mapping[str, Option]] = {
    PATH_OPTION: Option(TEXT, ""),
    "admin_socket": Option(TEXT, ""),
    "auth_client_required": Option(TEXT, "cephx, none"),
    "auth_cluster_required": Option(TEXT, "cephx"),
    "auth_service_required": Option(TEXT, "cephx"),
    "auth_supported": Option(TEXT, ""),
    "client_mount_timeout": Option(UINT, 300),
    "client_notify_timeout": Option(UINT, 10),
    "cluster_addr": Option(TEXT, "-"),
    "debug_client": Option(LEVEL, "0/5"),
    "debug_ms": Option(LEVEL, "0/0"),
    "debug_objecter": Option(LEVEL, "0/1"),
    "debug_rados": Option(LEVEL, "0/5"),
    "debug_rbd": Option(LEVEL, "0/5"),
    "err_to_stderr": Option(FLAG, False),
    "fsid": Option(TEXT, "00000000-0000-0000-0000-000000000000"),
    "host": Option(TEXT, ""),
    "key": Option(TEXT, ""),
    "keyfile": Option(TEXT, ""),
    "keyring": Option(TEXT, ""),
    "librados_thread_count": Option(UINT, 2),
    "log_file": Option(TEXT, ""),
    "log_to_file": Option(FLAG, True),
    "log_to_stderr": Option(FLAG, False),
    "mon_client_hunt_interval": Option(FLOAT, 3.0),
    "mon_client_ping_interval": Option(FLOAT, 10.0),
    "mon_dns_srv_name": Option(TEXT, "ceph-mon"),
    "mon_host": Option(TEXT, ""),
    "mon_initial_members": Option(TEXT, ""),
    "ms_client_mode": Option(TEXT, "crc secure"),
    "ms_type": Option(TEXT, "async+posix"),
    "objecter_inflight_op_bytes": Option(UINT, 100 << 20),
    "objecter_inflight_ops": Option(UINT, 1024),
    "objecter_tick_interval": Option(FLOAT, 5.0),
    "objecter_timeout": Option(FLOAT, 10.0),
    "osd_client_watch_timeout": Option(INT, 30),
    "osd_default_notify_timeout": Option(UINT, 30),
    "osd_max_object_name_len": Option(UINT, 2048),
    "osd_max_object_namespace_len": Option(UINT, 256),
    "osd_max_object_size": Option(UINT, 128 << 20),
    "osd_max_write_size": Option(UINT, 90),
    "osd_pool_default_pg_num": Option(UINT, 32),
    "osd_pool_default_size": Option(UINT, 3),
    "pid_file": Option(TEXT, ""),
    "public_addr": Option(TEXT, "-"),
    "rados_mon_op_timeout": Option(UINT, 0),
    "rados_osd_op_timeout": Option(UINT, 0),
    "run_dir": Option(TEXT, "/var/run/ceph"),
}

OPTIONS: Final[Mapping[str, Option]] = MappingProxyType({**_CLIENT_OPTIONS, **RBD_OPTIONS})


class UnknownOption(KeyError):
    """There is no option of this name."""


def canonical(name: str) -> str:
    """Blanks in a name are underscores."""
    return re.sub(r"[ \t_]+", "_", name.strip())


def checked(name: str, text: str) -> str:
    """How Ceph would show a value. UnknownOption; ValueError where the text is none of that option."""
    option = find(name)
    if option is None:
        raise UnknownOption(name)
    return option.render(option.parse(text))


def find(name: str) -> Option | None:
    """The option of a name, whether it concerns an embedded cluster or not. None: Ceph knows none."""
    return OPTIONS.get(name) or ceph_options.find(name)


class Conf:
    """What one client is configured with.

    name: of the client, like "client.admin": sections [global], [client] and its own of a conf file count.
    central: the cluster's own configuration, once connected.
    """

    def __init__(self, name: str = "client.admin") -> None:
        self.name = name
        self._sections = ("global", name.partition(".")[0], name)
        self._file: dict[str, str] = {}
        self._set: dict[str, str] = {}
        self.central: Callable[[str], str | None] = lambda name: None

    def get(self, name: str) -> str | None:
        """None for an unknown option."""
        name = canonical(name)
        option = find(name)
        if option is None:
            return None
        for source in (self._set.get, self._file.get, self.central):
            text = source(name)
            if text is not None:
                return text
        return option.render(option.default)

    def set(self, name: str, text: str) -> None:
        """UnknownOption, or ValueError."""
        name = canonical(name)
        self._set[name] = checked(name, text)

    def read(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Take what the first of these files that exists says. FileNotFoundError if none does; ValueError if malformed.

        Options that do not concern an embedded cluster's client are passed over, as are values that are none.
        """
        for path in map(Path, paths):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                continue
            self._take(text)
            return
        raise FileNotFoundError(", ".join(map(str, paths)))

    def _take(self, text: str) -> None:
        found = _parse_file(text)
        for section in self._sections:  # the more special ones last
            for name, value in found.get(section, {}).items():
                try:
                    self._file[name] = checked(name, value)
                except (UnknownOption, ValueError):
                    continue


_SECTION: Final = re.compile(r"\[([^\]]+)\]")
_ASSIGNMENT: Final = re.compile(r"([^=]+)=(.*)")
_COMMENT: Final = re.compile(r"(?<!\\)[#;].*")


def _parse_file(text: str) -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, str]] = {}
    current = sections.setdefault("global", {})
    for line in text.replace("\\\n", "").splitlines():
        line = _COMMENT.sub("", line).strip()
        if not line:
            continue
        if section := _SECTION.fullmatch(line):
            current = sections.setdefault(section[1].strip(), {})
        elif assignment := _ASSIGNMENT.fullmatch(line):
            current[canonical(assignment[1])] = _unquoted(assignment[2].strip())
        else:
            raise ValueError(f"neither a section nor an assignment: {line!r}")
    return sections


def _unquoted(text: str) -> str:
    quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text
