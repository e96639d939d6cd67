"""Slots whose bounds hold over all workers exactly, in their shared memory.

Each worker has one row for each bounded name of which it holds slots, with their number. A slot is free where the sum
of a name's rows is below its bound, which is decided and written in one transaction. A worker writes its whole number,
not a difference, so a write that failed is made good by any later one. Names without a bound cost no shared call: they
are counted in the worker alone.

What a killed worker held stands under its name until ``forget``: see ``gateway/recovery.py``.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Mapping

from inferxgate.workers.shared import SharedMemory, SharedUnavailable, Transaction

_SEPARATOR = b"\0"
_COUNT = struct.Struct("<q")


class SharedSlots:
    """``inferxgate.workers.slots.Slots`` for one worker among several. Usable from any thread."""

    shared = True

    def __init__(self, shared: SharedMemory, owner: str) -> None:
        """``owner``: this worker's name, under which its slots stand."""
        self._shared = shared
        self._rows = shared.database("slots")
        self._owner = owner.encode()
        self._bounds: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._full: set[str] = set()
        """Names that had no free slot when last asked: reading is tried first, which keeps nobody from writing."""
        self._unwritten: set[str] = set()
        """Names whose row is not what it should be."""
        self._lock = threading.Lock()

    def configure(self, bounds: Mapping[str, int]) -> None:
        with self._lock:
            before, self._bounds = self._bounds, {name: most for name, most in bounds.items() if most > 0}
            self._full.clear()
            self._unwritten |= before.keys() ^ self._bounds.keys()
        self.tidy()

    def bound(self, name: str) -> int:
        return self._bounds.get(name, 0)

    def take(self, name: str) -> bool:
        with self._lock:
            taken, most = self._taken.get(name, 0), self._bounds.get(name)
            if most is not None and not self._claim(name, taken, most):
                return False
            self._taken[name] = taken + 1
        return True

    def give_back(self, name: str) -> None:
        with self._lock:
            self._taken[name] -= 1
            if name in self._bounds:
                self._unwritten.add(name)
                with contextlib.suppress(SharedUnavailable):  # ``tidy`` comes back to it
                    self._write(name)

    def in_use(self) -> dict[str, int]:
        return {name: taken for name, taken in self._taken.copy().items() if taken}

    def tidy(self) -> None:
        """Write what could not be written when it changed; to be called often. Never raises."""
        if not self._unwritten:
            return
        with self._lock, contextlib.suppress(SharedUnavailable):  # told where requests are refused for it
            for name in list(self._unwritten):
                self._write(name)

    # --- for recovery, and for reports

    def in_use_by_all(self) -> dict[str, int]:
        """What all workers have taken of the names that have a bound. Raises ``SharedUnavailable``."""
        found: dict[str, int] = {}
        with self._shared.reading() as transaction:
            for key, value in self._shared.rows(transaction, self._rows):
                name = key.rpartition(_SEPARATOR)[0].decode()
                found[name] = found.get(name, 0) + _COUNT.unpack(value)[0]
        return found

    def owners(self) -> set[str]:
        """The workers that hold slots of names with a bound. Raises ``SharedUnavailable``."""
        with self._shared.reading() as transaction:
            rows = self._shared.rows(transaction, self._rows)
            return {key.rpartition(_SEPARATOR)[2].decode() for key, _ in rows}

    def forget(self, owner: str) -> None:
        """Free what a dead worker held; may be done twice. Raises ``SharedUnavailable``."""
        ending = _SEPARATOR + owner.encode()
        with self._shared.writing() as transaction:
            dead = [key for key, _ in self._shared.rows(transaction, self._rows) if key.endswith(ending)]
            for key in dead:
                transaction.delete(key, db=self._rows)

    # --- within

    def _claim(self, name: str, taken: int, most: int) -> bool:
        """Write one more for this worker, where all of them together stay within the bound."""
        if name in self._full:
            with self._shared.reading() as transaction:
                if self._others(transaction, name) + taken >= most:
                    return False
        with self._shared.writing() as transaction:
            if self._others(transaction, name) + taken >= most:
                self._full.add(name)
                return False
            self._put(transaction, name, taken + 1)
        self._full.discard(name)
        self._unwritten.discard(name)
        return True

    def _others(self, transaction: Transaction, name: str) -> int:
        own = self._key(name)
        prefix = own[: -len(self._owner)]
        rows = self._shared.rows(transaction, self._rows, prefix)
        return sum(_COUNT.unpack(value)[0] for key, value in rows if key != own)

    def _write(self, name: str) -> None:
        with self._shared.writing() as transaction:
            self._put(transaction, name, self._taken.get(name, 0) if name in self._bounds else 0)
        self._unwritten.discard(name)

    def _put(self, transaction: Transaction, name: str, taken: int) -> None:
        key = self._key(name)
        if taken:
            transaction.put(key, _COUNT.pack(taken), db=self._rows)
        else:
            transaction.delete(key, db=self._rows)

    def _key(self, name: str) -> bytes:
        return name.encode() + _SEPARATOR + self._owner
