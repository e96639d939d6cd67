"""What the store remembers, as plain values. Times are UTC in milliseconds since 1970; money is nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from inferxgate.canonical.usage import Usage
from inferxgate.values import dataclass

Role = Literal["admin", "user"]
BudgetPeriod = Literal["total", "day", "week", "month"]
"""What a budget is for: all time, or each day, week (from Monday) or month, in UTC."""
Status = Literal["ok", "provider_error", "client_closed", "gateway_error"]
UsageSource = Literal["provider", "estimated", "none"]


@dataclass(frozen=True, slots=True)
class User:
    """A person who may sign in."""

    id: str
    email: str
    """Lower case; unique."""
    username: str | None
    password_hash: str
    role: Role
    disabled: bool
    token_version: int
    """Counts password changes: a token signed with an older number is no longer valid."""
    rate_limit_rpm: int | None
    """Ceiling on requests a minute for the user and each of their keys. None: the gateway's default; 0: unlimited."""
    rate_limit_tpm: int | None
    """Ceiling on tokens a minute, likewise."""
    max_budget_nanos: int | None
    """Ceiling on what the user and all of their keys spend within ``budget_period``. None: no budget."""
    budget_period: BudgetPeriod
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A virtual key. The secret itself is never stored, only its hash."""

    id: str
    key_hash: str
    """SHA-256 of the whole secret, in hexadecimal. The secret has 256 random bits, so a fast hash is enough."""
    key_prefix: str
    """The first characters of the secret, to recognise it by."""
    name: str | None
    user_id: str | None
    """None: made on the command line for nobody."""
    rate_limit_rpm: int | None
    """Requests a minute. None: the default; 0: unlimited."""
    rate_limit_tpm: int | None
    """Tokens a minute, likewise."""
    max_parallel_requests: int | None
    """Requests at once, likewise."""
    max_budget_nanos: int | None
    """What it may spend within ``budget_period``. None: no budget."""
    budget_period: BudgetPeriod
    allowed_models: tuple[str, ...] | None
    """Names and wildcards (``gpt-*``); None: every model."""
    expires_at_ms: int | None
    blocked: bool
    revoked_at_ms: int | None
    created_at_ms: int
    last_used_at_ms: int | None


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One admitted request, whatever its end. ``id`` makes writing it twice harmless."""

    id: str
    request_id: str
    """The answer's ``X-Request-Id``."""
    started_at_ms: int
    status: Status
    http_status: int
    """What the client was told; 499 where it left before it was told anything."""
    error_code: str | None
    key_id: str | None
    user_id: str | None
    end_user: str | None
    """The request's own ``user`` field."""
    model_asked: str
    model: str
    """The name that was asked of the provider."""
    provider: str
    stream: bool
    usage: Usage
    usage_source: UsageSource
    cost_nanos: int | None
    """None: the price is unknown."""
    price_version: str | None
    first_token_ms: int | None
    duration_ms: int
    attempts: int = 1
    """How often a provider was asked for it: more than once where a target failed; 0: it came to no provider."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How often one worker turned a caller away for one reason within one minute, so far."""

    source: str
    """The worker's own name for this run, so that counts of several workers stand side by side."""
    minute_ms: int
    """The start of the minute."""
    key_id: str | None
    user_id: str | None
    reason: str
    """The error code, such as ``rate_limit_exceeded``."""
    count: int
    """Cumulative for this source and minute: storing a newer count replaces the older one, so twice does no harm."""


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which usage records a report is about."""

    since_ms: int
    until_ms: int
    user_id: str | None = None
    """Only this user's own figures (all of their keys)."""
    key_id: str | None = None


GroupBy = Literal["model", "provider", "key", "user", "day", "status"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long the slower ones took, in milliseconds, each within a tenth of the true value."""

    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """Usage records of one group, added up."""

    group: str | None
    """The model, provider, key id, user id, status or day (``2026-11-23``, UTC); None for the total or no name."""
    label: str | None
    """For people: a key's name or prefix, a user's address; otherwise the group itself."""
    requests: int
    errors: int
    """Records whose status is ``provider_error`` or ``gateway_error``."""
    usage: Usage
    cost_nanos: int
    """The sum over records whose price is known."""
    unpriced_requests: int
    """Records that used tokens at an unknown price: the cost does not include them."""
    average_duration_ms: float | None
    average_first_token_ms: float | None
    duration_percentiles: Percentiles | None
    first_token_percentiles: Percentiles | None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage records of a span of time, added up in every way."""

    since_ms: int
    """The beginning of what is counted. Where records are no longer kept, whole hours or days are."""
    until_ms: int
    """The end of what is counted, likewise."""
    totals: UsageSummary
    groups: Mapping[GroupBy, Sequence[UsageSummary]]
    """Dearest and busiest first; days in order of time."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One figure that the store knows twice and differently."""

    what: Literal["hour", "day", "key_spend", "user_spend", "counter"]
    """The sum that is wrong: of an hour (against its records), of a day (against its hours), of all time, or what the
    workers count budgets by (against the sums of the store)."""
    of: str
    """Whose: a key or a user; for hours and days the time, key, user, model, provider and status."""
    field: str
    expected: int | str
    """What adding up gives; histograms in hexadecimal."""
    found: int | str


@dataclass(frozen=True, slots=True)
class Verification:
    """What comparing the store's sums with each other has shown."""

    records: int
    """Records that were added up again."""
    hours: int
    """Sums of hours that were compared with them."""
    days: int
    """Sums of days that were compared with those of their hours."""
    spenders: int
    """Keys and users whose spend was compared with the days."""
    records_since_ms: int
    """Records before this hour are no longer kept whole: their hours cannot be checked."""
    disagreements: Sequence[Disagreement]
    """The first so many."""
    disagreement_count: int
