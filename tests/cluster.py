"""A real Ceph cluster to throw away: mon, mgr and OSDs on loopback, in one directory, no keys, no systemd.

    with CephCluster() as ceph:
        cluster = ceph.rados()
        ceph.cli("rbd", "ls")

It is up within seconds, keeps its data in memory and needs nothing of the machine beyond the packages, which
`ensure_packages` installs where that is possible. A watchdog process ends the daemons as soon as the process
that started them is gone, whatever the reason, so an aborted run leaves nothing behind.

A process that has connected must not `os.fork`: librados hangs in the child. Start other programs instead.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PACKAGES = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common", "python3-rados", "python3-rbd")
PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "rbd", "rados", "monmaptool")

CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = /dev/null
run dir = {root}/run
pid file = {root}/run/$name.pid
admin socket = {root}/run/$name.$pid.asok
log file = {root}/log/$name.log
crash dir = {root}/crash
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd class load list = *
osd class default list = *
mon allow pool size one = true
mon allow pool delete = true
mon max pg per osd = 2000
mon warn on pool no redundancy = false
{options}
[mon]
mon data = {root}/mon/$id
# Every client, pool, snapshot id and entry of the blocklist is a commit of the monitor: up to a second each at the
# default intervals, in which it waits for more to commit.
paxos propose interval = 0.001
paxos min wait = 0.001
[mgr]
mgr data = {root}/mgr/$id
[osd]
osd data = {root}/osd/$id
osd objectstore = memstore
memstore device bytes = 8589934592
# With more threads, one that trims snapshots while another writes may end the OSD: MemStore's iterators are not safe from
# writers of the same object, and all placement groups keep their lists of snapshots in one.
osd op num shards = 1
osd op num threads per shard = 1
# MemStore says that it is a rotating disk: on such, five seconds pass between two objects that are rid of a snapshot.
osd snap trim sleep hdd = 0
osd snap trim sleep hybrid = 0
"""


class ClusterError(Exception):
    """The cluster could not be had, or a command of it failed."""


def ensure_packages() -> None:
    """Install what is missing (as root, with apt); ClusterError if it cannot be had."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"no {', '.join(missing)}: install the packages {' '.join(PACKAGES)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(install, env=environment, stdout=subprocess.DEVNULL).returncode:
        subprocess.run(["apt-get", "update", "-q"], env=environment, stdout=subprocess.DEVNULL, check=True)
        subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, check=True)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class CephCluster:
    """One cluster with one monitor, one manager and `osds` OSDs in memory.

    root: a directory of its own, which need not exist and is removed at the end (default: a new one in /tmp).
    options: more lines of the [global] section of its ceph.conf.
    """

    def __init__(
        self, root: Path | None = None, *, osds: int = 1, options: Mapping[str, str] | None = None
    ) -> None:
        self.root = root or Path(tempfile.gettempdir(), f"rbd-native-{uuid.uuid4().hex[:12]}")
        self.conf = self.root / "ceph.conf"
        self.osds = osds
        self._options = "\n".join(f"{name} = {value}" for name, value in (options or {}).items())
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._admin: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all; returns when the OSDs are up. ClusterError, with the logs' ends, if that fails."""
        ensure_packages()
        # Before anything that it would have to clear away.
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("watchdog.py")), str(self.root)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is not for it
        )
        try:
            for name in ("run", "log", "crash", "mon", "mgr/x", *(f"osd/{i}" for i in range(self.osds))):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._start_mon()
            self._daemon("ceph-mgr", "-i", "x")
            for number in range(self.osds):
                self._start_osd(number)
            self._wait_for_osds()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every daemon and remove the directory. May be called again."""
        if self._admin is not None:
            self._admin.shutdown()
            self._admin = None
        if self._watchdog is not None:
            self._watchdog.communicate()  # closes its standard input: that is the word to end
            self._watchdog = None

    def _start_mon(self) -> None:
        fsid = str(uuid.uuid4())
        v2, v1 = free_ports(2)
        self.conf.write_text(CONF.format(fsid=fsid, v2=v2, v1=v1, root=self.root, options=self._options))
        addresses = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        monmap = str(self.root / "monmap")
        self._run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", addresses, monmap)
        self._daemon("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap)
        self._daemon("ceph-mon", "-i", "a")

    def _start_osd(self, number: int) -> None:
        name = str(uuid.uuid4())
        self.command("osd new", uuid=name)
        self._daemon("ceph-osd", "-i", str(number), "--mkfs", "--osd-uuid", name)
        self._daemon("ceph-osd", "-i", str(number))

    def _wait_for_osds(self, patience: float = 60.0) -> None:
        deadline = time.monotonic() + patience
        while self.command("osd stat")["num_up_osds"] < self.osds:
            if time.monotonic() > deadline:
                raise ClusterError(f"the OSDs did not come up in {patience} s\n{self._log_ends()}")
            time.sleep(0.02)

    def _daemon(self, program: str, *arguments: str) -> None:
        self._run(program, "-c", str(self.conf), *arguments)

    def _run(self, *command: str) -> None:
        # A file, not a pipe: the daemons keep their standard output, and a pipe would stay open with them.
        output = self.root / "log" / "start"
        with output.open("wb") as stream:
            # In the directory that a system starts its services in: the OSD of some builds (Debian's of 18 and of 20)
            # looks for its object classes below the directory that it is started in.
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        if done.returncode:
            words = output.read_text("utf-8", "replace")
            raise ClusterError(f"{' '.join(command)}\n{words}\n{self._log_ends()}")

    def _log_ends(self) -> str:
        logs = sorted(self.root.glob("log/*.log"))
        return "\n".join(f"-- {log.name}\n{log.read_text('utf-8', 'replace')[-2000:]}" for log in logs)

    def rados(self, **conf: str) -> Any:
        """A connected `rados.Rados`, to be shut down by the caller. conf: its options."""
        import rados

        cluster = rados.Rados(conffile=str(self.conf), conf=conf)
        cluster.connect(timeout=30)
        return cluster

    def command(self, prefix: str, **arguments: Any) -> Any:
        """Run a command of the monitor; the JSON it answers, None if it answers nothing."""
        if self._admin is None:
            self._admin = self.rados()
        request = json.dumps({"prefix": prefix, "format": "json", **arguments})
        status, answer, words = self._admin.mon_command(request, b"")
        if status:
            raise ClusterError(f"{request}: {status} {words}")
        return json.loads(answer) if answer.strip() else None

    def cli(self, *command: str, data: bytes | None = None, timeout: float = 60.0) -> str:
        """The standard output of a program of Ceph (`ceph`, `rbd`, `rados`); ClusterError if it fails."""
        program, *arguments = command
        done = subprocess.run(
            [program, "-c", str(self.conf), *arguments], input=data, capture_output=True, timeout=timeout
        )
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace")
            raise ClusterError(f"{' '.join(command)}: {done.returncode}\n{words}")
        return done.stdout.decode()

    def create_pool(self, name: str, *, application: str = "rbd", pg_num: int = 8) -> None:
        """A replicated pool, ready for use."""
        self.command("osd pool create", pool=name, pg_num=pg_num)
        self.command("osd pool application enable", pool=name, app=application)

    def remove_pool(self, name: str) -> None:
        """Remove a pool with all that is in it."""
        self.command("osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)
