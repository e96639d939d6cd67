"""Limits with a clock of our own, over real shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from inferxgate.canonical.usage import Usage
from inferxgate.store.lines import values_of
from inferxgate.store.records import UsageRecord
from inferxgate.workers.limits import BudgetAlert, Claim, RateState, Refused, Scope
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from tests.support.stores import NOON_MS, new_record

_names = count()


class Clock:
    def __init__(self, now: float = 1_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Wall:
    """The time of day that goes with a clock: noon, when it starts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noon_s = NOON_MS / 1000 - clock.now

    def __call__(self) -> float:
        return self._noon_s + self._clock.now


class Counting:
    """One worker's limits, and requests made of numbers."""

    def __init__(
        self, shared: SharedMemory, *, owner: str = "worker_1", alerts: Sequence[float] = (), clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.wall = Wall(self.clock)
        self.limits = SharedLimits(shared, owner, alerts=alerts, clock=self.clock, wall_clock=self.wall)

    @property
    def now_ms(self) -> int:
        return round(self.wall() * 1000)

    def ask(self, *scopes: Scope, tokens: int = 0, cost: int = 0, spare: int = 0) -> UsageRecord | Refused:
        """Ask for one request: its record as far as it is known, or why not."""
        record = new_record(id=f"use_{next(_names)}", started_at_ms=self.now_ms, usage=Usage(), cost_nanos=0)
        refused = self.limits.admit(
            scopes, Claim(record.id, record.started_at_ms, tokens, cost, values_of(record), spare)
        )
        return record if refused is None else refused

    def admitted(self, *scopes: Scope, tokens: int = 0, cost: int = 0, spare: int = 0) -> UsageRecord:
        record = self.ask(*scopes, tokens=tokens, cost=cost, spare=spare)
        assert isinstance(record, UsageRecord), record
        return record

    def refused(self, *scopes: Scope, tokens: int = 0, cost: int = 0, spare: int = 0) -> Refused:
        refused = self.ask(*scopes, tokens=tokens, cost=cost, spare=spare)
        assert isinstance(refused, Refused), refused
        return refused

    def end(
        self, record: UsageRecord, *scopes: Scope, tokens: int = 0, cost: int | None = 0
    ) -> Sequence[BudgetAlert] | None:
        """The request has ended, and used this much. What is said of its scopes afterwards is what ``peek`` says."""
        settled = self.limits.settle(replace(record, usage=Usage(input_tokens=tokens), cost_nanos=cost), scopes)
        if settled is None:
            return None
        assert settled.rate == (self.limits.peek(scopes) if scopes else None)
        return settled.alerts

    def state(self, *scopes: Scope) -> RateState:
        return self.limits.peek(scopes)


def new_scope(**limits: object) -> Scope:
    """A key of its own."""
    return Scope("key", f"key_{next(_names)}", **limits)  # type: ignore[arg-type]  # tests name them one by one
