"""Usage added up for reports: from days and hours where a span has whole ones, from records at its ragged edges.

So a report is exact to the millisecond where the records of its edges are still kept. Where they are not, the whole
hour counts, and where hours are no longer kept the whole day; the report says what it covers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar, get_args

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.store import rollups
from inferxgate.store.histograms import percentiles
from inferxgate.store.periods import DAY_MS, HOUR_MS, LATEST_MS
from inferxgate.store.records import GroupBy, Percentiles, UsageFilter, UsageReport, UsageSummary
from inferxgate.store.rollups import FIGURES, Part, Series, Sums, Window
from inferxgate.values import dataclass

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Which index serves it depends on who asks, so the records are chosen by three branches that exclude each other
# (everybody, one user, one key): SQLite sees from the parameters which of them can have rows and walks no other.
_RECORDS = """
    WITH chosen AS (
        SELECT * FROM usage
            WHERE :user_id IS NULL AND :key_id IS NULL AND started_at_ms >= :since AND started_at_ms < :until
        UNION ALL SELECT * FROM usage
            WHERE user_id = :user_id AND :key_id IS NULL AND started_at_ms >= :since AND started_at_ms < :until
        UNION ALL SELECT * FROM usage
            WHERE key_id = :key_id AND (:user_id IS NULL OR user_id = :user_id)
                AND started_at_ms >= :since AND started_at_ms < :until
    )
    SELECT
        coalesce(key_id, '') AS key_id, coalesce(user_id, '') AS user_id, model, provider, status,
        count(*) AS requests, sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens,
        sum(cache_write_5m_tokens) AS cache_write_5m_tokens, sum(cache_write_1h_tokens) AS cache_write_1h_tokens,
        sum(audio_input_tokens) AS audio_input_tokens, sum(image_input_tokens) AS image_input_tokens,
        sum(output_tokens) AS output_tokens, sum(reasoning_tokens) AS reasoning_tokens,
        sum(audio_output_tokens) AS audio_output_tokens, sum(image_output_tokens) AS image_output_tokens,
        coalesce(sum(cost_nanos), 0) AS cost_nanos,
        sum(
            cost_nanos IS NULL AND input_tokens + cache_read_tokens + cache_write_5m_tokens
            + cache_write_1h_tokens + audio_input_tokens + image_input_tokens + output_tokens + reasoning_tokens
            + audio_output_tokens + image_output_tokens > 0
        ) AS unpriced_requests,
        sum(duration_ms) AS duration_ms, count(first_token_ms) AS first_tokens,
        coalesce(sum(first_token_ms), 0) AS first_token_ms, histogram(duration_ms) AS duration_histogram,
        histogram(first_token_ms) AS first_token_histogram
    FROM chosen GROUP BY key_id, user_id, model, provider, status
"""
_KEY_LABEL = "SELECT coalesce(name, key_prefix) FROM keys WHERE id = ?"
_USER_LABEL = "SELECT email FROM users WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a span is put together. The pieces do not overlap and leave nothing out."""

    since_ms: int
    until_ms: int
    edges: tuple[tuple[int, int], ...]
    """From when until when single records count; each lies within one hour."""
    windows: tuple[Window, ...]


def plan(since_ms: int, until_ms: int, *, records_since_ms: int, hours_since_ms: int) -> Plan:
    """How to answer for a span, given the hour from which records and the day from which hours are whole.

    Hours have to be kept at least as long as records.
    """
    edges: list[tuple[int, int]] = []
    begin, end = since_ms, max(since_ms, until_ms)
    if begin < end and begin % HOUR_MS:
        hour = begin // HOUR_MS * HOUR_MS
        if hour >= records_since_ms:
            edges.append((begin, min(hour + HOUR_MS, end)))
            begin = edges[-1][1]
        else:
            begin = since_ms = hour
    if begin < end and end % HOUR_MS:
        hour = end // HOUR_MS * HOUR_MS
        if hour >= records_since_ms:
            edges.append((hour, end))
            end = hour
        else:
            end = until_ms = hour + HOUR_MS
    if begin < end and begin // DAY_MS * DAY_MS < min(hours_since_ms, begin):
        begin = since_ms = begin // DAY_MS * DAY_MS
    if begin < end and end % DAY_MS and end < hours_since_ms:
        end = until_ms = -(-end // DAY_MS) * DAY_MS
    return Plan(since_ms, until_ms, tuple(edges), tuple(_windows(begin, end)))


def _windows(begin: int, end: int) -> Iterator[Window]:
    """Whole hours, whole days, and whole hours again."""
    first_day, last_day = -(-begin // DAY_MS) * DAY_MS, end // DAY_MS * DAY_MS
    pieces = (
        [(HOUR_MS, begin, first_day), (DAY_MS, first_day, last_day), (HOUR_MS, last_day, end)]
        if first_day < last_day
        else [(HOUR_MS, begin, end)]
    )
    return (Window(*piece) for piece in pieces if piece[1] < piece[2])


def report(connection: sqlite3.Connection, which: UsageFilter) -> UsageReport:
    """Everything that ``which`` adds up to. The connection has to be in one snapshot."""
    records_since, hours_since = rollups.kept(connection)
    since_ms, until_ms = (min(max(moment, 0), LATEST_MS) for moment in (which.since_ms, which.until_ms))
    parts = plan(since_ms, until_ms, records_since_ms=records_since, hours_since_ms=hours_since)
    by_series: dict[Series, Sums] = {}
    groups: dict[GroupBy, dict[str | None, Sums]] = {group: {} for group in get_args(GroupBy)}
    for series, start_ms, sums in _parts(connection, which, parts):
        if start_ms is not None:
            _add(groups["day"], _day(start_ms), sums)
        if series is not None:
            _add(by_series, series, sums)
    totals = Sums.nothing()
    for series, sums in by_series.items():
        totals.add(sums)
        for group, name in _names(series).items():
            _add(groups[group], name, sums)
    return UsageReport(
        since_ms=parts.since_ms,
        until_ms=parts.until_ms,
        totals=_summary(None, None, totals),
        groups={group: _summaries(connection, group, found) for group, found in groups.items()},
    )


_Name = TypeVar("_Name")


def _add(found: dict[_Name, Sums], name: _Name, sums: Sums) -> None:
    if name in found:
        found[name].add(sums)
    else:
        found[name] = sums.copy()


def _names(series: Series) -> dict[GroupBy, str | None]:
    return {
        "model": series.model,
        "provider": series.provider,
        "key": series.key_id or None,
        "user": series.user_id or None,
        "status": series.status,
    }


def _parts(connection: sqlite3.Connection, which: UsageFilter, parts: Plan) -> Iterator[Part]:
    for window in parts.windows:
        yield from rollups.rolled_up(connection, which, window)
    for since, until in parts.edges:
        chosen = {"since": since, "until": until, "user_id": which.user_id, "key_id": which.key_id}
        for row in connection.execute(_RECORDS, chosen):
            yield rollups.series_part(row, since)


def _day(start_ms: int) -> str | None:
    """The date in UTC; None for what is no moment of our calendar."""
    try:
        return (_EPOCH + timedelta(milliseconds=start_ms)).strftime("%Y-%m-%d")
    except OverflowError:
        return None


def _summaries(connection: sqlite3.Connection, group: GroupBy, found: Mapping[str | None, Sums]) -> list[UsageSummary]:
    summaries = [_summary(name, _label(connection, group, name), sums) for name, sums in found.items()]
    if group == "day":
        return sorted(summaries, key=lambda summary: summary.group or "")
    return sorted(summaries, key=lambda summary: (-summary.cost_nanos, -summary.requests, summary.group or ""))


def _label(connection: sqlite3.Connection, group: GroupBy, name: str | None) -> str | None:
    if name is None or group not in ("key", "user"):
        return name
    row = connection.execute(_KEY_LABEL if group == "key" else _USER_LABEL, (name,)).fetchone()
    return name if row is None else row[0]


def _summary(group: str | None, label: str | None, sums: Sums) -> UsageSummary:
    figures = dict(zip(FIGURES, sums.numbers, strict=True))
    requests, first_tokens = figures["requests"], figures["first_tokens"]
    return UsageSummary(
        group=group,
        label=label,
        requests=requests,
        errors=sums.errors,
        usage=Usage(**{bucket: figures[bucket] for bucket in BUCKETS}),
        cost_nanos=figures["cost_nanos"],
        unpriced_requests=figures["unpriced_requests"],
        average_duration_ms=figures["duration_ms"] / requests if requests else None,
        average_first_token_ms=figures["first_token_ms"] / first_tokens if first_tokens else None,
        duration_percentiles=_percentiles(sums.durations),
        first_token_percentiles=_percentiles(sums.first_tokens),
    )


def _percentiles(histogram: int) -> Percentiles | None:
    found = percentiles(histogram, (0.5, 0.9, 0.95, 0.99))
    return Percentiles(*(round(each, 1) for each in found)) if found else None
