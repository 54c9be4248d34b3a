"""The processes of a fuzzer, from without: started, told what to do, stopped, killed; and what they answered."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

HOME = Path(__file__).parent.parent.parent
HANG_SECONDS = 60.0
"""A call that takes longer, although all processes are alive, hangs."""

Call = dict[str, Any]


@dataclass
class Made:
    """A call that was made, or was to be. t0, t1: nanoseconds; t1 None: no answer came (and t0 None: it had not begun)."""

    call: Call
    lane: int
    number: int
    t0: int | None = None
    t1: int | None = None
    ok: Any = None
    err: tuple[str | None, int | None, str] | None = None
    skip: str | None = None

    @property
    def on(self) -> str:
        return str(self.call["on"])

    @property
    def do(self) -> str:
        return str(self.call["do"])

    @property
    def answered(self) -> bool:
        return self.t1 is not None

    @property
    def good(self) -> bool:
        return self.t1 is not None and self.err is None

    def __str__(self) -> str:
        if self.skip:
            came = f"skipped: {self.skip}"
        elif self.t1 is None:
            came = "no answer" if self.t0 is not None else "not begun"
        else:
            came = repr(self.ok)[:300] if self.err is None else f"{self.err[0]} [{self.err[1]}] {self.err[2]}"
        return f"{told(self.call)} -> {came}"


def told(call: Call) -> str:
    arguments = [json.dumps(one) for one in call.get("args", [])]
    arguments += [f"{name}={json.dumps(one)}" for name, one in call.get("kw", {}).items()]
    return f"{call['on']}.{call['do']}({', '.join(arguments)})"


class Finding(Exception):
    """Something that must not be. `kind`: a word for it, by which shortened scripts are known to fail the same way."""

    def __init__(self, kind: str, words: str, *, ours: bool = True) -> None:
        super().__init__(f"{kind}: {words}")
        self.kind = kind
        self.words = words
        self.ours = ours


@dataclass
class Process:
    """One actor process. `name`: its number."""

    name: int
    setup: dict[str, Any]
    process: subprocess.Popen[bytes] = field(init=False)
    notes: IO[bytes] = field(init=False)
    said: queue.Queue[dict[str, Any] | None] = field(init=False)

    def start(self) -> None:
        self.notes = tempfile.TemporaryFile()  # noqa: SIM115  (closed by end)
        self.said = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.actor", json.dumps(self.setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.notes,
            cwd=HOME,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self.process.stdout, self.said), daemon=True).start()

    @staticmethod
    def _listen(stream: IO[bytes], said: queue.Queue[dict[str, Any] | None]) -> None:
        for line in stream:
            if line.endswith(b"\n"):
                said.put(json.loads(line))
        said.put(None)

    def ask(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps(request) + "\n").encode())
        self.process.stdin.flush()

    def noted(self) -> str:
        return os.pread(self.notes.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def end(self) -> None:
        """Kill it, and see it gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(60)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue  # what was still to be told it
        self.notes.close()


@dataclass(frozen=True)
class Trouble:
    """What happens to a process while lanes run: after `after` seconds, SIGKILL, or SIGSTOP for `seconds`."""

    process: int
    after: float
    seconds: float | None


class Stage:
    """All processes. clients: which process and which module each client is of, by its name of one letter."""

    def __init__(self, setup: dict[str, Any], clients: dict[str, tuple[int, str]]) -> None:
        self.clients = clients
        self.processes = {number: Process(number, setup) for number in sorted({place for place, _ in clients.values()})}
        self._requests = 0
        for process in self.processes.values():
            process.start()
        for process in self.processes.values():
            self._ready(process)

    @staticmethod
    def _ready(process: Process) -> None:
        if process.said.get(timeout=60) != {"ready": True}:
            raise RuntimeError(process.noted())

    def restart(self, number: int) -> None:
        process = self.processes[number]
        process.end()
        process.start()
        self._ready(process)

    def close(self) -> None:
        for process in self.processes.values():
            process.end()

    def one(self, on: str, do: str, *args: Any, **kw: Any) -> Made:
        """A single call."""
        ((made,),) = self.perform([[{"on": on, "do": do, "args": list(args), "kw": kw}]])
        return made

    def perform(self, lanes: Sequence[Sequence[Call]], trouble: Trouble | None = None) -> list[list[Made]]:
        """Run the lanes, all at the same time. Finding where a process dies of itself, or hangs."""
        made = [[Made(call, lane, n) for n, call in enumerate(calls)] for lane, calls in enumerate(lanes)]
        places: dict[int, list[int]] = {}
        for number, calls in enumerate(lanes):
            if calls:
                places.setdefault(self.clients[calls[0]["on"][0]][0], []).append(number)
        self._requests += 1
        for place, numbers in places.items():
            self.processes[place].ask({"id": self._requests, "lanes": [list(lanes[number]) for number in numbers]})
        with _Troubled(self, trouble):
            deadline = time.monotonic() + HANG_SECONDS + (trouble.seconds or 0 if trouble else 0)
            for place, numbers in places.items():
                killed = trouble is not None and trouble.process == place and trouble.seconds is None
                self._hear(self.processes[place], [made[number] for number in numbers], deadline, killed)
        if trouble is not None and trouble.seconds is None:
            self.processes[trouble.process].process.wait(60)
        return made

    def _hear(self, process: Process, lanes: list[list[Made]], deadline: float, killed: bool) -> None:
        while True:
            try:
                line = process.said.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise self._hang(process, lanes) from None
            if line is None:
                if killed:
                    return
                raise self._death(process, lanes)
            if line.get("done"):
                if line["id"] == self._requests:
                    return
                continue
            made = lanes[line["lane"]][line["n"]]
            made.skip = line.get("skip")
            made.t0 = line.get("t0")
            made.t1 = line.get("t1")
            made.ok = line.get("ok")
            made.err = tuple(line["err"]) if "err" in line else None

    def _death(self, process: Process, lanes: list[list[Made]]) -> Finding:
        process.process.wait(60)
        under_way = [made for lane in lanes for made in lane if made.t0 is not None and made.t1 is None]
        words = f"{process.process.returncode} in {'; '.join(map(str, under_way))}\n{_tail(process.noted())}"
        ours = not under_way or any(self.clients[made.on[0]][1] != "rbd" for made in under_way)
        return Finding("died", words, ours=ours)

    def _hang(self, process: Process, lanes: list[list[Made]]) -> Finding:
        for one in self.processes.values():
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        under_way = [made for lane in lanes for made in lane if made.t0 is not None and made.t1 is None]
        ours = any(self.clients[made.on[0]][1] != "rbd" for made in under_way)
        stacks = "\n".join(f"process {one.name}:\n{_tail(one.noted())}" for one in self.processes.values())
        return Finding("hang", f"{'; '.join(map(str, under_way))}\n{stacks}", ours=ours)


def _tail(words: str) -> str:
    return words[-6000:]


class _Troubled:
    """Makes the trouble, in its time."""

    def __init__(self, stage: Stage, trouble: Trouble | None) -> None:
        self.thread = threading.Thread(target=self._run, args=(stage, trouble)) if trouble is not None else None

    @staticmethod
    def _run(stage: Stage, trouble: Trouble) -> None:
        process = stage.processes[trouble.process].process
        time.sleep(trouble.after)
        if trouble.seconds is None:
            process.kill()
            return
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(trouble.seconds)
        finally:
            process.send_signal(signal.SIGCONT)

    def __enter__(self) -> None:
        if self.thread is not None:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        if self.thread is not None:
            self.thread.join()
