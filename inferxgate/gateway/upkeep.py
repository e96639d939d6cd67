"""Keeps the store within its bounds, while the gateway works: one short step at a time, by one worker of all."""

from __future__ import annotations

import time

from inferxgate.store.retention import Retention
from inferxgate.workers.election import Election

_LOOK_EVERY_SECONDS = 60.0


class Upkeep:
    """Takes a step now and then on the ledger's thread, which runs after the journals of the dead were imported."""

    def __init__(self, retention: Retention, election: Election) -> None:
        self._retention = retention
        self._election = election
        self._next = 0.0

    def step(self) -> None:
        """Delete a little of what is too much, if it is this worker's turn. Raises ``StoreUnavailable``."""
        if time.monotonic() < self._next or not self._election.won():
            return
        more = self._retention.step(time.time_ns() // 1_000_000)
        self._next = 0.0 if more else time.monotonic() + _LOOK_EVERY_SECONDS
