"""Circuits that all workers share: rows in their memory, and a copy of them in each worker.

What every request asks is answered from the copy. A number in a small file that all workers map says whether the copy
is of now: whoever writes rows counts it up within the same transaction, so that the others see the change at their next
look, and read the rows that are newer than what they have. The number is written just before the transaction ends: who
looks in between reads in vain and looks again. Should a writer be killed just there, the number promises what never
comes; the next ``sync`` of any worker sets that right.

Failures, openings, probes and closings are written at once. Successes are collected and told once a second, or with
their circuit's next failure, and only where there is a circuit.

Where the memory cannot be used, each worker goes on with its copy, and writes its own changes when it can again.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import orjson

from inferxgate.errors import StartError
from inferxgate.ids import new_id
from inferxgate.workers.health import (
    MAX_CIRCUITS,
    Circuit,
    CircuitKey,
    CircuitState,
    HealthPolicy,
    LocalHealth,
    states_of,
)
from inferxgate.workers.shared import SharedMemory, SharedUnavailable, Transaction, read_values

log = logging.getLogger(__name__)

T = TypeVar("T")

_ROWS = "health"
_ORDER = "health_order"
_NUMBER_KEY = b"health"
_NUMBER_FILE = "health.number"
_NUMBER = struct.Struct(">Q")


class SharedHealth(LocalHealth):
    """``inferxgate.workers.health.Health`` for one worker among several. To be used by one thread."""

    def __init__(
        self,
        shared: SharedMemory,
        policy: HealthPolicy | None = None,
        *,
        max_circuits: int = MAX_CIRCUITS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises ``StartError`` where it cannot be opened."""
        super().__init__(policy, who=new_id("w_"), max_circuits=max_circuits, clock=clock, wall_clock=wall_clock)
        self._shared = shared
        self._rows = shared.database(_ROWS)
        self._order = shared.database(_ORDER)
        self._promised = _map_number(shared.folder / _NUMBER_FILE)
        self._seen = 0
        """The number of the newest row that the copy has."""
        self._unwritten: set[CircuitKey] = set()
        self._failing = False
        self._refresh()
        self.sync()

    @property
    def troubled(self) -> bool:
        if self._promised[0] != self._seen:
            self._refresh()
        return bool(self._circuits)

    def wait_seconds(self, key: CircuitKey) -> float:
        if self._promised[0] != self._seen:
            self._refresh()
        circuit = self._circuits.get(key)  # as the base class does, whose call would cost as much as all of this
        return 0.0 if circuit is None else circuit.wait(self._clock())

    def enter(self, key: CircuitKey) -> float:
        if self._promised[0] != self._seen:
            self._refresh()
        return 0.0 if key not in self._circuits else super().enter(key)

    def states(self) -> list[CircuitState]:
        self._refresh()
        return super().states()

    def sync(self) -> None:
        self._refresh()
        super().sync()

    # --- within

    def _change(self, key: CircuitKey, change: Callable[[Circuit, float], T]) -> T:
        try:
            with self._writing() as rows:
                now = self._clock()  # read while nobody else can write, so that times come in the order of changes
                circuit = self._newest(rows, key) or Circuit(key, now)
                self._count(circuit, now)
                result = change(circuit, now)
                rows.put(circuit)
        except SharedUnavailable as error:
            self._tell(error)
            self._unwritten.add(key)
            return super()._change(key, change)
        self._unwritten.discard(key)
        self._successes.told(key)
        self._keep(circuit)
        return result

    def _forget(self, keys: list[CircuitKey]) -> None:
        """Here and, unless another worker has changed it meanwhile, for all."""
        if not keys:
            return
        try:
            with self._writing() as rows:
                for key in keys:
                    row = rows.get(key)
                    if row is not None and row.changed <= self._circuits[key].changed:
                        rows.delete(key)
        except SharedUnavailable as error:
            self._tell(error)
        super()._forget(keys)
        self._unwritten.difference_update(keys)

    def _tell_successes(self) -> None:
        """And whatever else could not be written when it happened."""
        keys = {*self._successes.untold(self._circuits), *self._unwritten}
        if not keys and self._promised[0] == self._seen:
            return
        written: list[Circuit] = []
        try:
            with self._writing() as rows:
                now = self._clock()
                for key in keys:
                    circuit = self._newest(rows, key)
                    if circuit is not None:
                        self._count(circuit, now)
                        rows.put(circuit)
                        written.append(circuit)
                if self._promised[0] != self._seen:  # still: nobody else can write now
                    rows.keep_promise()
        except SharedUnavailable as error:
            self._tell(error)
            return
        self._unwritten.clear()
        for circuit in written:
            self._successes.told(circuit.key)
            self._circuits[circuit.key] = circuit
        for key in keys.difference(circuit.key for circuit in written):
            self._circuits.pop(key, None)  # others have forgotten it

    def _newest(self, rows: _Rows, key: CircuitKey) -> Circuit | None:
        """What is known of a circuit, in the memory and here, for the caller to change."""
        row, copied = rows.get(key), self._circuits.get(key)
        if copied is None or key not in self._unwritten:
            return row
        own = replace(copied, buckets=dict(copied.buckets))
        if row is None:
            return own
        newer, older = (row, own) if row.changed > own.changed else (own, row)
        newer.take_over(older)
        return newer

    def _refresh(self) -> None:
        """Read what others have written. What could not be written here stays as it is until it can."""
        try:
            with self._shared.reading() as transaction:
                rows = _Rows(self._shared, transaction, (self._rows, self._order))
                changed = rows.since(self._seen)
        except SharedUnavailable as error:
            self._tell(error)
            return
        self._seen = rows.number
        for circuit in changed:
            if circuit.key not in self._unwritten:
                self._keep(circuit)

    @contextmanager
    def _writing(self) -> Iterator[_Rows]:
        """A transaction with whose end all workers know what was put. The caller puts it in the copy too."""
        with self._shared.writing() as transaction:
            rows = _Rows(self._shared, transaction, (self._rows, self._order))
            before = rows.number
            yield rows
            if rows.save():
                self._promised[0] = rows.number
        if self._seen == before:
            self._seen = rows.number
        if self._failing:
            self._failing = False
            log.info("the health of targets is shared by all workers again")

    def _tell(self, error: SharedUnavailable) -> None:
        if not self._failing:
            log.error("each worker judges the health of targets by itself: %s", error)
        self._failing = True


class _Rows:
    """The circuits in the memory, within one transaction.

    Each has a row under a hash of its key, which begins with the number of its last change, and a small one under that
    number: so those that changed since any moment are read without the others.
    """

    def __init__(self, shared: SharedMemory, transaction: Transaction, databases: tuple[object, object]) -> None:
        self._shared = shared
        self._transaction = transaction
        self._rows, self._order = databases
        found = transaction.get(_NUMBER_KEY, db=shared.meta)
        self.number: int = _NUMBER.unpack(found)[0] if found else 0
        """Of the newest change."""
        self._before = self.number

    def get(self, key: CircuitKey) -> Circuit | None:
        data = self._transaction.get(_hash(key), db=self._rows)
        return None if data is None else _parse(data)

    def put(self, circuit: Circuit) -> None:
        name = _hash(circuit.key)
        self._unlist(name)
        self.number += 1
        number = _NUMBER.pack(self.number)
        self._transaction.put(name, number + _build(circuit), db=self._rows)
        self._transaction.put(number, name, db=self._order)

    def delete(self, key: CircuitKey) -> None:
        name = _hash(key)
        self._unlist(name)
        self._transaction.delete(name, db=self._rows)

    def since(self, number: int) -> list[Circuit]:
        """Those that changed later, in the order of their changes."""
        begin = _NUMBER.pack(number + 1)
        names = [name for _, name in self._shared.rows(self._transaction, self._order, begin=begin)]
        found = (self._transaction.get(name, db=self._rows) for name in names)
        return [_parse(data) for data in found if data is not None]

    def keep_promise(self) -> None:
        """Where nothing was put, count as if something had been."""
        if self.number == self._before:
            self.number += 1

    def save(self) -> bool:
        """Note the number; whether there was a change."""
        if self.number == self._before:
            return False
        self._transaction.put(_NUMBER_KEY, _NUMBER.pack(self.number), db=self._shared.meta)
        return True

    def _unlist(self, name: bytes) -> None:
        data = self._transaction.get(name, db=self._rows)
        if data is not None:
            self._transaction.delete(data[: _NUMBER.size], db=self._order)


def read_states(
    folder: Path,
    policy: HealthPolicy | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> list[CircuitState]:
    """What ``SharedHealth.states`` says, for a process that takes no part and has not opened the memory in ``folder``.

    Creates nothing there, and empty where there is none. Raises ``SharedUnavailable``.
    """
    circuits = {circuit.key: circuit for circuit in map(_parse, read_values(folder, _ROWS))}
    return states_of(circuits, clock(), policy or HealthPolicy(), wall_clock())


def _hash(key: CircuitKey) -> bytes:
    """Names may be longer than a key of the memory. The lengths keep them apart."""
    lengths = f"{len(key.provider)}:{len(key.model)}:{len(key.credential)}:"
    return hashlib.blake2b((lengths + "".join(key)).encode(), digest_size=16).digest()


def _build(circuit: Circuit) -> bytes:
    return orjson.dumps(
        (
            tuple(circuit.key),
            circuit.since,
            circuit.changed,
            circuit.kind,
            circuit.tripped,
            circuit.until,
            circuit.cool_until,
            circuit.openings,
            circuit.prober,
            circuit.probe_until,
            circuit.code,
            [(start, *counts) for start, counts in circuit.buckets.items()],
        )
    )


def _parse(data: bytes) -> Circuit:
    key, *rest, buckets = orjson.loads(data[_NUMBER.size :])
    circuit = Circuit(CircuitKey(*key), *rest)
    circuit.buckets = {start: (failures, requests) for start, failures, requests in buckets}
    return circuit


def _map_number(path: Path) -> memoryview:
    """The first eight bytes of a file as a number that all processes see change at once. Raises ``StartError``."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < _NUMBER.size:
                _allocate(descriptor, _NUMBER.size)
            return memoryview(mmap.mmap(descriptor, _NUMBER.size)).cast("Q")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StartError(f"cannot open {path}: {error.strerror}; make the data folder writable") from error


def _allocate(descriptor: int, size: int) -> None:
    """A hole that is written through a map would end the process where the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS
        os.ftruncate(descriptor, size)
