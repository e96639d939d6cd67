"""What every limit counts by, and what is said when one is asked: the values that limits are made of.

A request is counted in each of its caller's *scopes*: its key, and the key's user. Each scope has its own limits, and
the request is admitted where all of them allow it. What it may use at most is *claimed* when it is admitted and settled
with what it did use when it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from inferxgate.store.lines import RecordValues
from inferxgate.store.records import BudgetPeriod, UsageRecord
from inferxgate.values import dataclass

WINDOW_SECONDS = 60.0
EXACT_UP_TO = 10_000
"""Admissions of a window that keep a time each; further ones share one a second, which errs towards refusing."""
UNLIMITED = 2_147_483_647
"""What ``limit`` and ``remaining`` say where there is no limit: clients that pace themselves by them keep going."""

ScopeKind = Literal["key", "user"]
LimitName = Literal["requests", "tokens", "parallel", "budget"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Something that requests are counted by, with its limits; 0 is no limit."""

    kind: ScopeKind
    id: str
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    parallel_requests: int = 0
    budget_nanos: int | None = None
    """None: no budget, but what is spent is counted all the same."""
    budget_period: BudgetPeriod = "total"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request may use at most."""

    id: str
    """Its usage record will have the same id, so that a claim and its record find each other after a kill."""
    at_ms: int
    """When it was admitted (UTC): what it costs counts for the periods that lie around this moment."""
    tokens: int
    cost_nanos: int
    lost: RecordValues
    """Its record should this process be killed before the request ends: what is known now."""
    spare_tokens: int = 0
    """How many of ``tokens`` it can do without: where nobody named a maximum, what is left of the minute will do."""


@dataclass(frozen=True, slots=True)
class RateState:
    """What the rate-limit headers say."""

    limit: int
    remaining: int
    reset_at_s: int
    """Unix second, rounded up, at which ``remaining`` next grows; now where nothing is used."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Which limit stands against a request, and for how long."""

    limit: LimitName
    scope: Scope
    most: int
    """The limit itself: requests, tokens or nano-dollars."""
    used: int
    """What counts against it now: what was used and what requests under way have claimed."""
    wait_seconds: float | None
    """When to try again; None: not a matter of time."""


@dataclass(frozen=True, slots=True)
class BudgetAlert:
    """A budget of which a share has just been spent."""

    kind: ScopeKind
    id: str
    threshold: float
    spent_nanos: int
    budget_nanos: int
    period: BudgetPeriod


@dataclass(frozen=True, slots=True)
class Settled:
    """What the end of a request has changed."""

    alerts: Sequence[BudgetAlert] = ()
    rate: RateState | None = None
    """The state of its caller's window just after it, where the caller's scopes were given."""


class Limits(Protocol):
    """Counts what callers use. Every method raises ``SharedUnavailable`` where nothing can be counted."""

    @property
    def failure(self) -> str | None:
        """Why nothing can be counted, or None."""

    def probe(self) -> None:
        """See whether it can be again. Never raises."""

    def configure(self, *, alerts: Sequence[float]) -> None:
        """Shares of a budget to tell of from now on. Never raises."""

    def admit(self, scopes: Sequence[Scope], claim: Claim) -> Refused | None:
        """Claim it in every scope, or in none and say why."""

    def note(self, records: Sequence[UsageRecord]) -> None:
        """What requests under way would cost if they ended now, in case this process does not see them end."""

    def settle(self, record: UsageRecord, scopes: Sequence[Scope] = ()) -> Settled | None:
        """Put what a request used in the place of its claim; None where it has no claim (any more).

        With its caller's ``scopes``, also what ``peek`` would say afterwards: the answer is about to tell it.
        """

    def peek(self, scopes: Sequence[Scope]) -> RateState:
        """The state of the window that is nearest to its limit, without counting anything."""


class NoLimits:
    """Counts nothing: for those who have no limits and no workers beside them."""

    failure = None

    def probe(self) -> None:
        pass

    def configure(self, *, alerts: Sequence[float]) -> None:
        pass

    def admit(self, scopes: Sequence[Scope], claim: Claim) -> Refused | None:
        return None

    def note(self, records: Sequence[UsageRecord]) -> None:
        pass

    def settle(self, record: UsageRecord, scopes: Sequence[Scope] = ()) -> Settled | None:
        return Settled()

    def peek(self, scopes: Sequence[Scope]) -> RateState:
        return RateState(UNLIMITED, UNLIMITED, 0)
