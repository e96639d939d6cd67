"""Limits that hold over all workers exactly: windows, requests at once and budgets, in their shared memory.

Each scope has one row with its counters, and a log of its admissions of the last 60 seconds: until when each counts,
how many it stands for, and its tokens where a limit asks for them (such a limit counts from when it is set). Requests
and tokens are separate sums over that log, so neither limit disturbs the other. Refused requests leave no trace, so a
client that hammers gets through as soon as its oldest admission is a minute old. The times are of the machine's
monotonic clock, which all processes share and nobody can set.

Money is counted in every scope, with a budget or without, in all time and in the day, week and month of the request's
admission, so that a budget that is given later starts from what was spent. ``spent + reserved + claim <= budget`` is
decided and written in one transaction.

Each worker's claims stand under its name, so that whoever finds it dead can settle them: see ``gateway/recovery.py``.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

import lmdb
import orjson

from inferxgate.store.lines import build_values, parse_values, values_of
from inferxgate.store.records import BudgetPeriod, UsageRecord
from inferxgate.workers.counters import PERIODS, Counters
from inferxgate.workers.limits import (
    UNLIMITED,
    BudgetAlert,
    Claim,
    RateState,
    Refused,
    Scope,
    ScopeKind,
    Settled,
)
from inferxgate.workers.shared import SharedMemory, SharedUnavailable, Transaction
from inferxgate.workers.windows import Window

_SEPARATOR = b"\0"
_COUNTED = b"counted"
_SWEEP_EVERY_SECONDS = 60.0
_SWEPT_AT_ONCE = 200
_SAME_SECONDS = 5e-7
"""What sums of floats may be above the whole second that they mean."""

_Counted: TypeAlias = tuple[ScopeKind, str, int | None, int | None, BudgetPeriod]
"""Where a claim was counted: the scope, its place in that one's log, where one is kept, and its budget."""


class SharedLimits:
    """``inferxgate.workers.limits.Limits`` for one worker among several."""

    def __init__(
        self,
        shared: SharedMemory,
        owner: str,
        *,
        alerts: Sequence[float] = (),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``owner``: this worker's name, under which its claims stand. ``alerts``: shares of a budget to tell of.

        ``clock`` counts, so that setting the machine's clock moves no window; ``wall_clock`` gives Unix seconds.
        """
        self._shared = shared
        self._counters = shared.database("counters")
        self._windows = shared.database("windows")
        self._claims = shared.database("claims")
        self._prefix = owner.encode() + _SEPARATOR
        self._alerts = sorted(alerts)
        self._clock = clock
        self._wall_clock = wall_clock
        self._next_sweep = 0.0
        self._swept = b""
        """The scope that the sweep looks at next."""

    @property
    def failure(self) -> str | None:
        return self._shared.failure

    def probe(self) -> None:
        self._shared.probe()

    def configure(self, *, alerts: Sequence[float]) -> None:
        self._alerts = sorted(alerts)

    def admit(self, scopes: Sequence[Scope], claim: Claim) -> Refused | None:
        shared = self._shared
        try:
            with shared.begin(self._counters) as transaction:
                refused = self._admit(transaction, scopes, claim)
        except lmdb.Error as error:
            raise shared.unavailable(error, write=True) from error
        shared.failure = None
        return refused

    def note(self, records: Sequence[UsageRecord]) -> None:
        if not records:
            return
        with self._shared.writing() as transaction:
            for record in records:
                key = self._prefix + record.id.encode()
                found = transaction.get(key, db=self._claims)
                if found is not None:
                    head, _, _ = found.partition(b"\n")
                    transaction.put(key, head + b"\n" + build_values(values_of(record)), db=self._claims)

    def settle(self, record: UsageRecord, scopes: Sequence[Scope] = ()) -> Settled | None:
        return self._settle(self._prefix + record.id.encode(), record, scopes)

    def peek(self, scopes: Sequence[Scope]) -> RateState:
        if not any(scope.requests_per_minute for scope in scopes):
            return RateState(UNLIMITED, UNLIMITED, math.ceil(self._wall_clock()))
        with self._shared.reading(self._counters) as transaction:
            return self._nearest(transaction, scopes, self._wall_clock(), {})

    def sweep(self) -> None:
        """Forget the admissions of those who do not come back, a little at a time; to be called often. Never raises."""
        if time.monotonic() >= self._next_sweep:
            more = False
            with contextlib.suppress(SharedUnavailable):  # told where requests are refused for it
                more = self.forget_expired()
            if not more:
                self._next_sweep = time.monotonic() + _SWEEP_EVERY_SECONDS

    def forget_expired(self, most: int = _SWEPT_AT_ONCE) -> bool:
        """Forget what has had its minute, in the next so many scopes; whether there are more of them.

        Who comes back does so by the way; the logs of keys that were revoked would stay for ever.
        """
        with self._shared.reading() as transaction:
            now = self._clock()
            found = list(islice(self._shared.rows(transaction, self._counters, begin=self._swept), most + 1))
        self._swept = found[most][0] if len(found) > most else b""
        for name, data in found[:most]:
            row = Counters(data)
            if row.head < row.tail and row.first_until <= now:
                with self._shared.writing(self._counters) as transaction:  # one at a time: nobody waits for all of them
                    window = Window(transaction, self._windows, name)
                    window.expire(now)
                    window.save()
        return bool(self._swept)

    # --- for recovery, and for those who keep the books

    def owners(self) -> set[str]:
        """The workers whose claims stand here."""
        with self._shared.reading() as transaction:
            rows = self._shared.rows(transaction, self._claims)
            return {key.partition(_SEPARATOR)[0].decode() for key, _ in rows}

    def claims_of(self, owner: str) -> list[UsageRecord]:
        """What is known of each request that a worker has under way: its record, should it be lost."""
        prefix = owner.encode() + _SEPARATOR
        with self._shared.reading() as transaction:
            return [_lost(value) for _, value in self._shared.rows(transaction, self._claims, prefix)]

    def settle_for(self, owner: str, record: UsageRecord) -> Settled | None:
        """The same as ``settle``, for a worker that is dead."""
        return self._settle(owner.encode() + _SEPARATOR + record.id.encode(), record)

    def reserved(self) -> Mapping[tuple[ScopeKind, str], tuple[int, int]]:
        """Requests under way and nano-dollars reserved, of each scope that has any."""
        with self._shared.reading() as transaction:
            found = self._shared.rows(transaction, self._counters)
            rows = [(_scope_of(key), Counters(value)) for key, value in found]
        return {scope: (row.parallel, row.reserved) for scope, row in rows if row.parallel or row.reserved}

    def spent(self, kind: ScopeKind, scope_id: str, at_ms: int) -> dict[BudgetPeriod, int]:
        """Nano-dollars spent in each of the periods around a moment."""
        with self._shared.reading() as transaction:
            row = Counters(transaction.get(_name(kind, scope_id), db=self._counters))
        row.turn(at_ms)
        return dict(zip(PERIODS, row.spent, strict=True))

    def totals(self, at_ms: int) -> dict[tuple[ScopeKind, str], dict[BudgetPeriod, int]]:
        """What ``spent`` says, of every scope that has spent anything."""
        found: dict[tuple[ScopeKind, str], dict[BudgetPeriod, int]] = {}
        with self._shared.reading() as transaction:
            for name, data in self._shared.rows(transaction, self._counters):
                row = Counters(data)
                row.turn(at_ms)
                if any(row.spent):
                    found[_scope_of(name)] = dict(zip(PERIODS, row.spent, strict=True))
        return found

    def counted(self) -> bool:
        """Whether ``recount`` has been done since the shared memory was made."""
        with self._shared.reading() as transaction:
            return transaction.get(_COUNTED, db=self._shared.meta) is not None

    def recount(self, sums: Mapping[BudgetPeriod, Mapping[tuple[ScopeKind, str], int]], at_ms: int) -> None:
        """Replace what was spent in the periods around ``at_ms``, as after a look into the store's books."""
        scopes = {scope for of_period in sums.values() for scope in of_period}
        with self._shared.writing() as transaction:
            scopes |= {_scope_of(key) for key, _ in self._shared.rows(transaction, self._counters)}
            for scope in scopes:
                name = _name(*scope)
                row = Counters(transaction.get(name, db=self._counters))
                row.turn(at_ms)
                row.spent = [sums[period].get(scope, 0) for period in PERIODS]
                transaction.put(name, row.build(), db=self._counters)
            transaction.put(_COUNTED, b"1", db=self._shared.meta)

    # --- within

    def _row(self, transaction: Transaction, scope: Scope, now: float) -> Window:
        row = Window(transaction, self._windows, _name(scope.kind, scope.id))
        if row.first_until <= now:
            row.expire(now)
        return row

    def _nearest(
        self, transaction: Transaction, scopes: Sequence[Scope], wall_now: float, rows: Mapping[bytes, Window]
    ) -> RateState:
        """The state of the window that is nearest to its limit. ``rows``: what was read already."""
        now = self._clock()
        nearest: RateState | None = None
        for scope in scopes:
            if scope.requests_per_minute:
                row = rows.get(_name(scope.kind, scope.id)) or self._row(transaction, scope, now)
                state = _rate(row, scope, now, wall_now)
                if nearest is None or (state.remaining, -state.reset_at_s) < (nearest.remaining, -nearest.reset_at_s):
                    nearest = state
        return nearest or RateState(UNLIMITED, UNLIMITED, math.ceil(wall_now))

    def _admit(self, transaction: Transaction, scopes: Sequence[Scope], claim: Claim) -> Refused | None:
        now = self._clock()  # read while nobody else can write, so that the log is in the order of its times
        rows: list[tuple[Scope, Window]] = []
        tokens = claim.tokens
        for scope in scopes:
            row = self._row(transaction, scope, now)
            rows.append((scope, row))
            refused = _refused(row, scope, claim, now)
            if refused is not None:
                for _, each in rows:  # what has expired is forgotten once, not again with each refusal
                    each.save_expiry()
                return refused
            if claim.spare_tokens and scope.tokens_per_minute:
                tokens = min(tokens, scope.tokens_per_minute - row.tokens)
        counted = [_add(row, scope, claim, tokens, now) for scope, row in rows]
        key, value = self._prefix + claim.id.encode(), _build_claim(counted, claim, tokens)
        transaction.put(key, value, db=self._claims)
        return None

    def _settle(self, key: bytes, record: UsageRecord, scopes: Sequence[Scope] = ()) -> Settled | None:
        shared = self._shared
        try:
            with shared.begin(self._counters) as transaction:
                found = transaction.pop(key, db=self._claims)
                settled = None if found is None else self._settle_claim(transaction, found, record, scopes)
        except lmdb.Error as error:
            raise shared.unavailable(error, write=True) from error
        shared.failure = None
        return settled

    def _settle_claim(
        self, transaction: Transaction, found: bytes, record: UsageRecord, scopes: Sequence[Scope]
    ) -> Settled:
        alerts: list[BudgetAlert] = []
        rows: dict[bytes, Window] = {}
        cost = record.cost_nanos or 0
        at_ms, claimed_tokens, claimed_nanos, claims = orjson.loads(found.partition(b"\n")[0])
        wall_now = self._wall_clock()
        for kind, scope_id, place, budget, period in claims:
            name = _name(kind, scope_id)
            rows[name] = row = Window(transaction, self._windows, name)
            row.parallel -= 1
            row.reserved -= claimed_nanos
            if place is not None:
                row.settle(place, record.usage.total_tokens - claimed_tokens)
            if cost:
                row.turn(int(wall_now * 1000))
                before = row.spent
                row.spend(cost, at_ms)
                if budget is not None:
                    index = PERIODS.index(period)
                    alerts += self._crossed((kind, scope_id, period, budget), before[index], row.spent[index])
            row.save()
        return Settled(alerts, self._nearest(transaction, scopes, wall_now, rows) if scopes else None)

    def _crossed(
        self, budget: tuple[ScopeKind, str, BudgetPeriod, int], before: int, after: int
    ) -> Sequence[BudgetAlert]:
        kind, scope_id, period, nanos = budget
        if not self._alerts or after < self._alerts[0] * nanos:
            return ()
        return [
            BudgetAlert(kind, scope_id, threshold, after, nanos, period)
            for threshold in self._alerts
            if before < threshold * nanos <= after
        ]


def _refused(row: Window, scope: Scope, claim: Claim, now: float) -> Refused | None:
    rpm, tpm, needed = scope.requests_per_minute, scope.tokens_per_minute, claim.tokens - claim.spare_tokens
    if rpm and row.count >= rpm:
        return Refused("requests", scope, rpm, row.count, row.until_count_is(rpm - 1) - now)
    if tpm and row.tokens + needed > tpm:
        until = row.until_tokens_are(tpm - needed)
        return Refused("tokens", scope, tpm, row.tokens, None if until is None else until - now)
    if scope.parallel_requests and row.parallel >= scope.parallel_requests:
        return Refused("parallel", scope, scope.parallel_requests, row.parallel, None)
    if scope.budget_nanos is not None:
        row.turn(claim.at_ms)
        used = row.spent[PERIODS.index(scope.budget_period)] + row.reserved
        if used + claim.cost_nanos > scope.budget_nanos:
            return Refused("budget", scope, scope.budget_nanos, used, None)
    return None


def _add(row: Window, scope: Scope, claim: Claim, tokens: int, now: float) -> _Counted:
    """Count an admission; what has to be known of it when it is settled."""
    row.parallel += 1
    row.reserved += claim.cost_nanos
    place: int | None = None
    if scope.tokens_per_minute:
        place = row.add(now, tokens)
    elif scope.requests_per_minute:
        row.add(now, 0)
    row.save()
    return scope.kind, scope.id, place, scope.budget_nanos, scope.budget_period


def _rate(row: Window, scope: Scope, now: float, wall_now: float) -> RateState:
    if row.first_until <= now:
        row.expire(now)
    most, count = scope.requests_per_minute, row.count
    grows_at = row.until_count_is(min(most, count) - 1) if count else now
    return RateState(most, max(0, most - count), math.ceil(grows_at - now + wall_now - _SAME_SECONDS))


@lru_cache(maxsize=4096)
def _name(kind: ScopeKind, scope_id: str) -> bytes:
    return f"{kind}:{scope_id}".encode()


def _scope_of(name: bytes) -> tuple[ScopeKind, str]:
    kind, _, scope_id = name.decode().partition(":")
    return ("key" if kind == "key" else "user"), scope_id


def _build_claim(counted: Sequence[_Counted], claim: Claim, tokens: int) -> bytes:
    """A line about what is claimed where, and the values of the record should the request be lost."""
    head = orjson.dumps((claim.at_ms, tokens, claim.cost_nanos, counted))
    return head + b"\n" + build_values(claim.lost)


def _lost(value: bytes) -> UsageRecord:
    return parse_values(value.partition(b"\n")[2])
