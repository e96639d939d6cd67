"""The processes of the benchmark: starting them on their cores, and reading what they have used."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.002
REST_SECONDS = 0.3
"""Longer than work is put off: records, for one, go from the journal to the store four times a second."""
_REST_SHARE = 0.013
"""Of a core; a gateway that nobody asks takes about a quarter of that."""
_REST_TRIES = 20


@dataclass(frozen=True)
class Cores:
    """Which cores are whose."""

    helpers: frozenset[int]
    """Of the load and the provider."""
    measured: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        return self.helpers | self.measured


def cores() -> Cores:
    """One core for what is measured, another for what asks and answers; one for all where there is no other."""
    mine = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(mine[:1]), frozenset(mine[-1:]))


@contextlib.contextmanager
def started_on(which: Collection[int]) -> Iterator[None]:
    """What is started within runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, which)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Used:
    """Processor time of a process and its children, in seconds."""

    exact: float
    """By the scheduler's own count, to the nanosecond, without threads that have ended; ticks where it keeps none."""
    ticks: float
    """utime and stime, in steps of a hundredth of a second."""

    def __sub__(self, other: Used) -> Used:
        return Used(self.exact - other.exact, self.ticks - other.ticks)


def tree(root: int) -> Sequence[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(entry)[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def used_by(root: int) -> Used:
    exact = ticks = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            ticks += sum(int(field) for field in _stat(pid)[11:13])
            for thread in os.listdir(f"/proc/{pid}/task"):
                exact += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    in_ticks = ticks / _TICKS_PER_SECOND
    return Used(exact / 1e9 or in_ticks, in_ticks)


def own_seconds() -> float:
    """Processor time of this process and all that it has started, also of those that have ended."""
    fields = (sum(int(field) for field in _stat(pid)[11:15]) for pid in tree(os.getpid()))
    return sum(fields) / _TICKS_PER_SECOND


def machine_seconds() -> tuple[float, float]:
    """Processor time of all cores since the machine started: busy (also what a host took away), and in all."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICKS_PER_SECOND, sum(fields) / _TICKS_PER_SECOND


def _stat(pid: int | str) -> Sequence[str]:
    """What ``/proc`` says of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def memory_mib(root: int) -> float:
    """What is resident, of the process and all that descend from it."""
    kib = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
    return kib / 1024


class Server:
    """One that is measured: a process on a port of its own, and those it starts."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, rest_seconds: float
    ) -> None:
        """``{port}`` in the command is replaced; what it says goes to a file in the folder."""
        self.port = _free_port()
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self._environment = environment
        self._rest_seconds = rest_seconds
        self._log = folder / f"log-{self.port}.txt"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self, on: Collection[int]) -> float:
        """Start it; the seconds until /health answers with 200."""
        with self._log.open("ab") as log, started_on(on):
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self._is_up():
            if self._process.poll() is not None or time.perf_counter() - begin > _START_SECONDS:
                self.stop()
                raise RuntimeError(f"{self._command} did not start:\n{self.log}")
            time.sleep(_LOOK_SECONDS)
        return time.perf_counter() - begin

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return client.recv(1_000).startswith(b"HTTP/1.1 200 ")
        return False

    def move(self, on: Collection[int]) -> None:
        """Let it go on running on these cores."""
        for pid in tree(self.pid):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread), on)

    def used(self) -> Used:
        return used_by(self.pid)

    def rest(self) -> Used:
        """Wait until what was put off is done; what has been used by then."""
        used = self.used()
        for _ in range(_REST_TRIES if self._rest_seconds else 0):
            time.sleep(self._rest_seconds)
            before, used = used, self.used()
            if used.exact - before.exact < _REST_SHARE * self._rest_seconds:
                break
        return used

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def helper(target: Callable[[Connection], None], on: Collection[int]) -> Iterator[Connection]:
    """A process that talks with this one and ends with it."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(theirs,), daemon=True)
    with started_on(on):
        process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(10)


def floor_command() -> Sequence[str]:
    options = ["--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop", "--http", "httptools"]
    quiet = ["--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", "tests.bench.overhead.floor:app", *options, *quiet]
