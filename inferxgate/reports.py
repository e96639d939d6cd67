"""The questions that ``/stats`` and ``inferxgate stats`` ask of the store, and the shape of the answer.

Everything leaves here as plain JSON values: times in ISO 8601 (UTC), money in dollars, durations in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from inferxgate.canonical.usage import BUCKETS
from inferxgate.errors import INVALID_VALUE, GatewayError
from inferxgate.store.protocol import Store
from inferxgate.store.records import Disagreement, Percentiles, UsageFilter, UsageRecord, UsageSummary
from inferxgate.workers.health import CircuitState

NANOS_PER_DOLLAR = 1_000_000_000
RECENT = 50
"""How many of the newest records a report shows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_AGO = re.compile(r"([0-9]{1,9})([smhdw])")


def stats(store: Store, which: UsageFilter, *, recent: int = RECENT) -> dict[str, Any]:
    """Usage and refusals of ``which``, in all, by group, and the newest records. Raises ``StoreUnavailable``.

    Where records of the span are no longer kept it begins with a whole hour or day, as the answer's ``since`` says.
    """
    report = store.usage_report(which)
    refusals = store.refusals_by_reason(which)
    return {
        "since": iso_time(report.since_ms),
        "until": iso_time(report.until_ms),
        "totals": _figures(report.totals, refused=sum(refusals.values())),
        **{
            f"by_{group}": [_group(group, summary) for summary in report.groups[group]]
            for group in ("model", "provider", "key", "user", "day", "status")
        },
        "recent": [_recent(record) for record in store.recent_usage(which, limit=recent)],
        "refusals": refusals,
    }


def _group(group: str, summary: UsageSummary) -> dict[str, Any]:
    match group:
        case "key":
            names = {"key_id": summary.group, "name": summary.label}
        case "user":
            names = {"user_id": summary.group, "email": summary.label}
        case _:
            names = {group: summary.group}
    return {**names, **_figures(summary)}


def verification(store: Store, counters: tuple[int, Sequence[Disagreement]] | None = None) -> dict[str, Any]:
    """Whether records, sums of hours and days, and what was spent agree. Raises ``StoreUnavailable``.

    ``counters``: how many of the workers' counters were compared with the spend, and those that are wrong.
    """
    found = store.verify_usage()
    compared, wrong = counters if counters is not None else (None, ())
    number = found.disagreement_count + len(wrong)
    return {
        "agrees": not number,
        "records": found.records,
        "hours": found.hours,
        "days": found.days,
        "spenders": found.spenders,
        "counters": compared,
        "records_since": iso_time(found.records_since_ms) if found.records_since_ms else None,
        "disagreement_count": number,
        "disagreements": [asdict(each) for each in (*found.disagreements, *wrong)],
    }


def circuits(states: Iterable[CircuitState]) -> list[dict[str, Any]]:
    """How targets and credentials fare, those included that are well but failed lately."""
    return [
        {
            "provider": each.key.provider,
            "model": each.key.model or None,
            "credential": each.key.credential or None,
            "state": each.state,
            "until": None if each.until is None else iso_time(round(each.until * 1000)),
            "failures": each.failures,
            "requests": each.requests,
            "code": each.code or None,
            "since": iso_time(round(each.since * 1000)),
        }
        for each in states
    ]


def parse_since(text: str, now_ms: int) -> int:
    """When a report begins, in UTC milliseconds: ``30m``, ``24h``, ``7d`` or ``2w`` before now, or an ISO 8601 time.

    A time without an offset is UTC. Raises ``GatewayError`` (``invalid_value``, ``since``).
    """
    text = text.strip()
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(now_ms - int(ago[1]) * _UNITS_MS[ago[2]], 0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise GatewayError(
            INVALID_VALUE,
            "'since' must be a span such as 30m, 24h or 7d, or a date such as 2026-11-01.",
            param="since",
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since_ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if since_ms > now_ms:
        raise GatewayError(INVALID_VALUE, "'since' lies in the future.", param="since")
    return max(since_ms, 0)


def iso_time(time_ms: int) -> str:
    """UTC milliseconds as ISO 8601, to the second: ``2026-11-23T20:40:00Z``."""
    moment = _EPOCH + timedelta(milliseconds=min(max(time_ms, 0), _LAST_MS))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _figures(summary: UsageSummary, *, refused: int | None = None) -> dict[str, Any]:
    """What every group shows; the number of refusals where it is known, which is for the total."""
    usage = summary.usage
    return {
        "requests": summary.requests,
        "errors": summary.errors,
        **({} if refused is None else {"refused": refused}),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "tokens": {bucket: getattr(usage, bucket) for bucket in BUCKETS},
        "cost": summary.cost_nanos / NANOS_PER_DOLLAR,
        "unpriced_requests": summary.unpriced_requests,
        "error_rate": summary.errors / summary.requests if summary.requests else None,
        "average_duration_ms": summary.average_duration_ms,
        "average_first_token_ms": summary.average_first_token_ms,
        "duration_percentiles_ms": _percentiles(summary.duration_percentiles),
        "first_token_percentiles_ms": _percentiles(summary.first_token_percentiles),
    }


def _percentiles(found: Percentiles | None) -> dict[str, float] | None:
    return None if found is None else asdict(found)


def _recent(record: UsageRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "request_id": record.request_id,
        "started_at": iso_time(record.started_at_ms),
        "status": record.status,
        "http_status": record.http_status,
        "error_code": record.error_code,
        "key_id": record.key_id,
        "user_id": record.user_id,
        "user": record.end_user,
        "model_asked": record.model_asked,
        "model": record.model,
        "provider": record.provider,
        "stream": record.stream,
        "prompt_tokens": record.usage.prompt_tokens,
        "completion_tokens": record.usage.completion_tokens,
        "cost": None if record.cost_nanos is None else record.cost_nanos / NANOS_PER_DOLLAR,
        "usage_source": record.usage_source,
        "first_token_ms": record.first_token_ms,
        "duration_ms": record.duration_ms,
        "attempts": record.attempts,
    }
