"""What it costs that workers share limits, by several mechanisms: ``python -m tests.bench.sharing``.

A pair is what every request needs: to be admitted (read a row of counters, write it, write a claim) and to be settled
(take the claim away, read the row, write it), each of them at once or not at all. Every mechanism does the same pair,
with the same sizes, alone and in four processes that all count in one row, in turns, and the best of the rounds
counts: a busy machine can only add. For the owner process, the processor time of both sides is counted.

Then the limits themselves (``SharedLimits``), call by call.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import mmap
import multiprocessing
import os
import selectors
import socket
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import NamedTuple, Protocol, get_args

import lmdb

from inferxgate.store.lines import values_of
from inferxgate.store.records import UsageRecord
from inferxgate.workers.limits import Claim, Scope, ScopeKind
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from tests.support.stores import new_record

PROCESSES = 4
_ROW = struct.Struct("<14q")
_CLAIM = b"c" * 500
_NAME = b"key:key_00000000000000000000000000"
_ASK = struct.Struct("<cq")
_MANY = 1_000_000_000


class Mechanism(Protocol):
    """One process's hold on one way of sharing."""

    def pair(self) -> None:
        """Admit a request and settle it."""

    def owner_seconds(self) -> float:
        """Processor time of a process beside the workers."""


class _Alone:
    def owner_seconds(self) -> float:
        return 0.0


class InLmdb(_Alone):
    def __init__(self, folder: Path, number: int, *, writemap: bool = False) -> None:
        self._environment = lmdb.open(
            str(folder), map_size=1 << 30, max_dbs=4, sync=False, metasync=False, readahead=False, writemap=writemap
        )
        self._rows = self._environment.open_db(b"rows")
        self._claims = self._environment.open_db(b"claims")
        self._claim = b"claim %d" % number

    def pair(self) -> None:
        with self._environment.begin(write=True) as transaction:
            self._count(transaction, 1)
            transaction.put(self._claim, _CLAIM, db=self._claims)
        with self._environment.begin(write=True) as transaction:
            transaction.pop(self._claim, db=self._claims)
            self._count(transaction, -1)

    def _count(self, transaction: lmdb.Transaction, more: int) -> None:
        found = transaction.get(_NAME, db=self._rows)
        transaction.put(_NAME, _counted(None if found is None else bytes(found), more), db=self._rows)


class InSqlite(_Alone):
    def __init__(self, folder: Path, number: int) -> None:
        self._connection = sqlite3.connect(folder / "limits.db", isolation_level=None, timeout=60)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE IF NOT EXISTS rows (name BLOB PRIMARY KEY, data BLOB) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS claims (number INTEGER PRIMARY KEY, data BLOB)",
        ):
            self._connection.execute(statement)
        self._number = number

    def pair(self) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        self._count(1)
        execute("INSERT INTO claims VALUES (?, ?)", (self._number, _CLAIM))
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")
        execute("SELECT data FROM claims WHERE number = ?", (self._number,)).fetchone()
        execute("DELETE FROM claims WHERE number = ?", (self._number,))
        self._count(-1)
        execute("COMMIT")

    def _count(self, more: int) -> None:
        found = self._connection.execute("SELECT data FROM rows WHERE name = ?", (_NAME,)).fetchone()
        data = _counted(found and found[0], more)
        self._connection.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (_NAME, data))


class AtAnOwner:
    """A process that holds everything, asked over a Unix socket. What a kill of it would lose is not written down."""

    def __init__(self, folder: Path, number: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(folder / "owner"))
        self._number = number

    def pair(self) -> None:
        self._ask(b"a", _CLAIM)
        self._ask(b"s")

    def owner_seconds(self) -> float:
        return self._ask(b"t") / 1e9

    def _ask(self, what: bytes, claim: bytes = b"") -> int:
        self._socket.sendall(_ASK.pack(what, self._number) + claim)
        return int.from_bytes(self._socket.recv(8), "little")


def own(folder: Path, ready: Event) -> None:
    """Be the owner, until killed. What is asked comes in one piece: it is smaller than a socket's buffer."""
    rows: dict[bytes, bytes] = {}
    claims: dict[int, bytes] = {}
    with socket.socket(socket.AF_UNIX) as listening, selectors.DefaultSelector() as selector:
        listening.bind(str(folder / "owner"))
        listening.listen()
        selector.register(listening, selectors.EVENT_READ)
        ready.set()
        while True:
            for key, _ in selector.select():
                asking = key.fileobj
                assert isinstance(asking, socket.socket)
                if asking is listening:
                    selector.register(listening.accept()[0], selectors.EVENT_READ)
                elif data := asking.recv(4096):
                    asking.send(_answer(data, rows, claims).to_bytes(8, "little"))
                else:
                    selector.unregister(asking)
                    asking.close()


def _answer(data: bytes, rows: dict[bytes, bytes], claims: dict[int, bytes]) -> int:
    what, number = _ASK.unpack_from(data)
    if what == b"t":
        return time.process_time_ns()
    if what == b"a":
        claims[number] = data[_ASK.size :]
    else:
        del claims[number]
    rows[_NAME] = _counted(rows.get(_NAME), 1 if what == b"a" else -1)
    return 0


class UnderALock(_Alone):
    """Memory and a lock of the kernel's: the least there could be. Whoever is killed within leaves half of a change."""

    def __init__(self, folder: Path, number: int) -> None:
        self._fd = os.open(folder / "memory", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._fd, 1 << 20)
        self._memory = mmap.mmap(self._fd, 1 << 20)
        self._place = 1024 + number * 1024

    def pair(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        self._count(1)
        self._memory[self._place : self._place + len(_CLAIM)] = _CLAIM
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        self._memory[self._place] = 0
        self._count(-1)
        fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _count(self, more: int) -> None:
        self._memory[: _ROW.size] = _counted(self._memory[: _ROW.size], more)


def _counted(data: bytes | None, more: int) -> bytes:
    first, *rest = _ROW.unpack(data) if data else (0,) * 14
    return _ROW.pack(first + more, *rest)


class TheLimits(_Alone):
    """What the gateway does, for a key with every limit."""

    def __init__(self, folder: Path, number: int) -> None:
        self._limits = new_limits(folder, number)
        self._record = new_claimed(number)
        self._claim = as_claim(self._record)

    def pair(self) -> None:
        self._limits.admit(LIMITED[:1], self._claim)
        self._limits.settle(self._record)


LIMITED = tuple(
    Scope(kind, f"{kind}_{1:026}", _MANY, 1_000 * _MANY, 10_000, 1_000_000 * _MANY, "month")
    for kind in get_args(ScopeKind)
)


def new_limits(folder: Path, number: int) -> SharedLimits:
    return SharedLimits(SharedMemory.open(folder), f"worker_{number:026}", alerts=(0.8,))


def new_claimed(number: int) -> UsageRecord:
    now_ms = time.time_ns() // 1_000_000
    return new_record(id=f"use_{number:026}", started_at_ms=now_ms, key_id=f"key_{1:026}", user_id=f"user_{1:026}")


def as_claim(record: UsageRecord) -> Claim:
    return Claim(record.id, record.started_at_ms, 1_000, 1_000_000, values_of(record))


MECHANISMS: dict[str, Callable[[Path, int], Mechanism]] = {
    "memory under lockf, the least there could be": UnderALock,
    "LMDB": InLmdb,
    "LMDB, WRITEMAP": partial(InLmdb, writemap=True),
    "SQLite, WAL, synchronous OFF": InSqlite,
    "a process that owns them, Unix socket": AtAnOwner,
    "the limits themselves": TheLimits,
}


class Cost(NamedTuple):
    """Microseconds for each pair."""

    processor: float
    wall: float


def _work(name: str, folder: Path, number: int, pairs: int, barrier: Barrier, told: Connection) -> None:
    """Do so many pairs, beside others that do the same."""
    mechanism = MECHANISMS[name](folder, number)
    mechanism.pair()
    barrier.wait()
    owner_begin = mechanism.owner_seconds()
    begin, processor_begin = time.perf_counter(), time.process_time()
    for _ in range(pairs):
        mechanism.pair()
    processor, wall = time.process_time() - processor_begin, time.perf_counter() - begin
    barrier.wait()
    owner = (mechanism.owner_seconds() - owner_begin) / barrier.parties
    told.send(Cost(1e6 * (processor + owner) / pairs, 1e6 * wall / pairs))


def contend(name: str, processes: int, pairs: int) -> Cost:
    """One round: the mean of so many processes."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with tempfile.TemporaryDirectory() as folder_name, contextlib.ExitStack() as stack:
        folder = Path(folder_name)
        if MECHANISMS[name] is AtAnOwner:
            ready = context.Event()
            owner = context.Process(target=own, args=(folder, ready), daemon=True)
            owner.start()
            stack.callback(owner.join)
            stack.callback(owner.kill)
            ready.wait()
        else:
            MECHANISMS[name](folder, 0).pair()  # whatever has to be created is
        pipes = []
        for number in range(processes):
            receiving, sending = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(name, folder, number, pairs, barrier, sending))
            worker.start()
            stack.callback(worker.join)
            pipes.append(receiving)
        costs: list[Cost] = [pipe.recv() for pipe in pipes]
    return Cost(*(sum(column) / processes for column in zip(*costs, strict=True)))


def measure_mechanisms(rounds: int, pairs: int) -> None:
    found: dict[tuple[str, int], list[Cost]] = {(name, n): [] for name in MECHANISMS for n in (1, PROCESSES)}
    for _ in range(rounds):
        for (name, processes), costs in found.items():
            costs.append(contend(name, processes, pairs))
    print(f"| admitted and settled, in microseconds | processor | wall | processor, {PROCESSES} at once | wall |")
    print("|---|---|---|---|---|")
    for name in MECHANISMS:
        best = [min(column) for n in (1, PROCESSES) for column in zip(*found[name, n], strict=True)]
        print(f"| {name} | " + " | ".join(f"{each:.0f}" for each in best) + " |", flush=True)


CALLS = {
    "a key without limits": (Scope("key", f"key_{2:026}"),),
    "a key with requests a minute": (Scope("key", f"key_{3:026}", _MANY),),
    "a key with every limit": LIMITED[:1],
    "a key and its user without limits": tuple(Scope(scope.kind, f"{scope.kind}_{4:026}") for scope in LIMITED),
    "a key and its user with every limit": LIMITED,
}


def measure_calls(rounds: int, pairs: int) -> None:
    """Each call of the limits: processor time, which is wall time as well where nobody else is there."""
    records = [new_claimed(number) for number in range(100)]
    claims = [as_claim(record) for record in records]
    print("| the limits' calls, in microseconds | admit | peek | settle | all |\n|---|---|---|---|---|")
    for name, scopes in CALLS.items():
        found: list[tuple[float, ...]] = []
        with tempfile.TemporaryDirectory() as folder:
            limits = new_limits(Path(folder), 1)
            for _ in range(rounds * max(1, pairs // len(claims))):
                moments = [time.process_time()]
                for claim in claims:
                    limits.admit(scopes, claim)
                moments.append(time.process_time())
                for _ in claims:
                    limits.peek(scopes)
                moments.append(time.process_time())
                for record in records:
                    limits.settle(record)
                moments.append(time.process_time())
                found.append(tuple(1e6 * (after - before) / len(claims) for before, after in pairwise(moments)))
        best = [min(column) for column in zip(*found, strict=True)]
        print(f"| {name} | " + " | ".join(f"{each:.1f}" for each in (*best, sum(best))) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5_000, help="of each process in each round")
    parser.add_argument("--only", choices=("mechanisms", "calls"))
    asked = parser.parse_args()
    if asked.only != "calls":
        measure_mechanisms(asked.rounds, asked.pairs)
    if asked.only != "mechanisms":
        measure_calls(asked.rounds, asked.pairs)


if __name__ == "__main__":
    main()
