"""Keeps what grows within its bounds, while the gateway works: one short step at a time, by one worker of all.

In the store, records that are too old or too many; in the workers' shared memory, the windows of callers that left.
"""

from __future__ import annotations

import contextlib
import time

from inferxgate.store.retention import Retention
from inferxgate.workers.election import Election
from inferxgate.workers.shared import SharedUnavailable
from inferxgate.workers.shared_limits import SharedLimits

_LOOK_EVERY_SECONDS = 60.0
_SWEEP_EVERY_SECONDS = 1.0


class Upkeep:
    """Takes a step now and then on the ledger's thread, which runs after the journals of the dead were imported."""

    def __init__(self, retention: Retention, limits: SharedLimits, election: Election) -> None:
        self._retention = retention
        self._limits = limits
        self._election = election
        self._next_step = self._next_sweep = 0.0
        self._swept = b""

    def step(self) -> None:
        """Delete a little of what is too much, if it is this worker's turn. Raises ``StoreUnavailable``."""
        now = time.monotonic()
        if now < min(self._next_step, self._next_sweep) or not self._election.won():
            return
        if now >= self._next_step:
            more = self._retention.step(time.time_ns() // 1_000_000)
            self._next_step = 0.0 if more else now + _LOOK_EVERY_SECONDS
        if now >= self._next_sweep:
            with contextlib.suppress(SharedUnavailable):  # told where requests are refused for it
                self._swept = self._limits.sweep(self._swept)
            self._next_sweep = now + (_SWEEP_EVERY_SECONDS if self._swept else _LOOK_EVERY_SECONDS)
