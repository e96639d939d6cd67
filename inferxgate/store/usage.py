"""Usage in SQLite: writing records in batches, and adding them up for reports.

Each question is one constant statement with parameters. Which index serves it depends on who asks, so the records are
chosen by three branches that exclude each other (everybody, one user, one key): SQLite sees from the parameters which
of them can have rows and does not walk the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.store.records import GroupBy, Refusal, UsageFilter, UsageRecord, UsageSummary

_MINUTE_MS = 60_000
_MOST_TOKENS = 10**12
_MOST_NANOS = 10**15
_MOST = 2**63 - 1
# No request has a trillion tokens or costs a million dollars. What a provider reports is kept below, so that nonsense
# neither fails the batch that it is in nor overflows the sums of the years.

NOTHING = UsageSummary(
    group=None,
    label=None,
    requests=0,
    errors=0,
    usage=Usage(),
    cost_nanos=0,
    unpriced_requests=0,
    average_duration_ms=None,
    average_first_token_ms=None,
)
"""What no records add up to."""

_ADD_RECORD = """
    INSERT INTO usage (
        id, request_id, started_at_ms, status, http_status, error_code, key_id, user_id, end_user, model_asked, model,
        provider, stream, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,
        audio_input_tokens, image_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens,
        image_output_tokens, usage_source, cost_nanos, price_version, first_token_ms, duration_ms
    ) VALUES (
        :id, :request_id, :started_at_ms, :status, :http_status, :error_code, :key_id, :user_id, :end_user,
        :model_asked, :model, :provider, :stream, :input_tokens, :cache_read_tokens, :cache_write_5m_tokens,
        :cache_write_1h_tokens, :audio_input_tokens, :image_input_tokens, :output_tokens, :reasoning_tokens,
        :audio_output_tokens, :image_output_tokens, :usage_source, :cost_nanos, :price_version, :first_token_ms,
        :duration_ms
    ) ON CONFLICT (id) DO NOTHING
"""
_ADD_SPEND = """
    INSERT INTO key_spend (key_id, cost_nanos) VALUES (?, ?)
    ON CONFLICT (key_id) DO UPDATE SET cost_nanos = cost_nanos + excluded.cost_nanos
"""
_MOVE_LAST_USED = "UPDATE keys SET last_used_at_ms = max(coalesce(last_used_at_ms, 0), ?) WHERE id = ?"
_ADD_REFUSAL = """
    INSERT INTO refusals (minute_ms, key_id, user_id, reason, source, count) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (minute_ms, key_id, user_id, reason, source) DO UPDATE SET count = max(count, excluded.count)
"""

_SUMMARY = """
    WITH chosen AS (
        SELECT * FROM usage
            WHERE :user_id IS NULL AND :key_id IS NULL AND started_at_ms >= :since AND started_at_ms < :until
        UNION ALL SELECT * FROM usage
            WHERE user_id = :user_id AND :key_id IS NULL AND started_at_ms >= :since AND started_at_ms < :until
        UNION ALL SELECT * FROM usage
            WHERE key_id = :key_id AND (:user_id IS NULL OR user_id = :user_id)
                AND started_at_ms >= :since AND started_at_ms < :until
    ), summed AS (
        SELECT
            CASE :by
                WHEN 'model' THEN model
                WHEN 'provider' THEN provider
                WHEN 'key' THEN key_id
                WHEN 'user' THEN user_id
                WHEN 'day' THEN date(started_at_ms / 1000, 'unixepoch')
            END AS part,
            count(*) AS requests,
            sum(status IN ('provider_error', 'gateway_error')) AS errors,
            sum(input_tokens) AS input_tokens,
            sum(cache_read_tokens) AS cache_read_tokens,
            sum(cache_write_5m_tokens) AS cache_write_5m_tokens,
            sum(cache_write_1h_tokens) AS cache_write_1h_tokens,
            sum(audio_input_tokens) AS audio_input_tokens,
            sum(image_input_tokens) AS image_input_tokens,
            sum(output_tokens) AS output_tokens,
            sum(reasoning_tokens) AS reasoning_tokens,
            sum(audio_output_tokens) AS audio_output_tokens,
            sum(image_output_tokens) AS image_output_tokens,
            coalesce(sum(cost_nanos), 0) AS cost_nanos,
            sum(
                cost_nanos IS NULL AND input_tokens + cache_read_tokens + cache_write_5m_tokens
                + cache_write_1h_tokens + audio_input_tokens + image_input_tokens + output_tokens + reasoning_tokens
                + audio_output_tokens + image_output_tokens > 0
            ) AS unpriced_requests,
            avg(duration_ms) AS average_duration_ms,
            avg(first_token_ms) AS average_first_token_ms
        FROM chosen GROUP BY part
    )
    SELECT
        summed.*,
        CASE :by
            WHEN 'key' THEN coalesce((SELECT coalesce(name, key_prefix) FROM keys WHERE keys.id = part), part)
            WHEN 'user' THEN coalesce((SELECT email FROM users WHERE users.id = part), part)
            ELSE part
        END AS label
    FROM summed
    ORDER BY CASE WHEN :by = 'day' THEN part END, cost_nanos DESC, requests DESC, part
"""
_RECENT = """
    SELECT rowid AS place, * FROM usage
        WHERE :user_id IS NULL AND :key_id IS NULL AND started_at_ms >= :since AND started_at_ms < :until
    UNION ALL SELECT rowid, * FROM usage
        WHERE user_id = :user_id AND :key_id IS NULL AND started_at_ms >= :since AND started_at_ms < :until
    UNION ALL SELECT rowid, * FROM usage
        WHERE key_id = :key_id AND (:user_id IS NULL OR user_id = :user_id)
            AND started_at_ms >= :since AND started_at_ms < :until
    ORDER BY started_at_ms DESC, place DESC LIMIT :limit
"""
_REFUSALS = """
    SELECT reason, sum(count) FROM refusals
    WHERE minute_ms >= :since AND minute_ms < :until
        AND (:user_id IS NULL OR user_id = :user_id) AND (:key_id IS NULL OR key_id = :key_id)
    GROUP BY reason ORDER BY sum(count) DESC, reason
"""


def storable(text: str) -> str:
    """Text as SQLite can hold it: a lone surrogate, which has no place in UTF-8, is written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def add_usage(connection: sqlite3.Connection, records: Sequence[UsageRecord], refusals: Sequence[Refusal]) -> None:
    """Write records and counts within the caller's transaction; what is known already changes nothing."""
    spent: dict[str, int] = {}
    last_used: dict[str, int] = {}
    for record in records:
        row = _row(record)
        if connection.execute(_ADD_RECORD, row).rowcount and record.key_id is not None:
            spent[record.key_id] = spent.get(record.key_id, 0) + (row["cost_nanos"] or 0)
            last_used[record.key_id] = max(last_used.get(record.key_id, 0), row["started_at_ms"])
    connection.executemany(_ADD_SPEND, [(key_id, nanos) for key_id, nanos in spent.items() if nanos])
    connection.executemany(_MOVE_LAST_USED, [(at_ms, key_id) for key_id, at_ms in last_used.items()])
    connection.executemany(_ADD_REFUSAL, [_refusal_row(refusal) for refusal in refusals])


def summaries(connection: sqlite3.Connection, which: UsageFilter, by: GroupBy | None) -> list[UsageSummary]:
    """Usage added up by group; in all without one, which is no row where there are no records."""
    return [_summary(row) for row in connection.execute(_SUMMARY, {**_parameters(which), "by": by})]


def recent(connection: sqlite3.Connection, which: UsageFilter, limit: int) -> list[UsageRecord]:
    """The newest records first."""
    return [_record(row) for row in connection.execute(_RECENT, {**_parameters(which), "limit": max(limit, 0)})]


def records_of(connection: sqlite3.Connection, record_ids: Sequence[str]) -> list[UsageRecord]:
    """Those of the named records that are stored."""
    found = (connection.execute("SELECT * FROM usage WHERE id = ?", (each,)).fetchone() for each in record_ids)
    return [_record(row) for row in found if row is not None]


def refusals_by_reason(connection: sqlite3.Connection, which: UsageFilter) -> dict[str, int]:
    """How many were turned away, the most frequent reason first; whole minutes, as they are counted."""
    parameters = _parameters(which)
    parameters["since"] = parameters["since"] // _MINUTE_MS * _MINUTE_MS
    return dict(connection.execute(_REFUSALS, parameters).fetchall())


def spend_of(connection: sqlite3.Connection, key_id: str) -> int | None:
    """Nano-dollars that a key has spent so far; None for a key that has not."""
    row = connection.execute("SELECT cost_nanos FROM key_spend WHERE key_id = ?", (key_id,)).fetchone()
    return None if row is None else row[0]


def _parameters(which: UsageFilter) -> dict[str, Any]:
    return {
        "since": _within(which.since_ms, _MOST),
        "until": _within(which.until_ms, _MOST),
        "user_id": which.user_id,
        "key_id": which.key_id,
    }


def _within(number: int, most: int) -> int:
    return min(max(number, 0), most)


def _optional(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _row(record: UsageRecord) -> Mapping[str, Any]:
    usage = record.usage
    first, cost = record.first_token_ms, record.cost_nanos
    return {
        "id": storable(record.id),
        "request_id": storable(record.request_id),
        "started_at_ms": _within(record.started_at_ms, _MOST),
        "status": record.status,
        "http_status": record.http_status,
        "error_code": _optional(record.error_code),
        "key_id": record.key_id,
        "user_id": record.user_id,
        "end_user": _optional(record.end_user),
        "model_asked": storable(record.model_asked),
        "model": storable(record.model),
        "provider": storable(record.provider),
        "stream": record.stream,
        **{bucket: _within(getattr(usage, bucket), _MOST_TOKENS) for bucket in BUCKETS},
        "usage_source": record.usage_source,
        "cost_nanos": None if cost is None else _within(cost, _MOST_NANOS),
        "price_version": _optional(record.price_version),
        "first_token_ms": None if first is None else _within(first, _MOST_TOKENS),
        "duration_ms": _within(record.duration_ms, _MOST_TOKENS),
    }


def _refusal_row(refusal: Refusal) -> tuple[int, str, str, str, str, int]:
    return (
        _within(refusal.minute_ms, _MOST),
        refusal.key_id or "",
        refusal.user_id or "",
        storable(refusal.reason),
        storable(refusal.source),
        _within(refusal.count, _MOST_TOKENS),
    )


def _usage(row: sqlite3.Row) -> Usage:
    return Usage(**{bucket: row[bucket] for bucket in BUCKETS})


def _record(row: sqlite3.Row) -> UsageRecord:
    return UsageRecord(
        id=row["id"],
        request_id=row["request_id"],
        started_at_ms=row["started_at_ms"],
        status=row["status"],
        http_status=row["http_status"],
        error_code=row["error_code"],
        key_id=row["key_id"],
        user_id=row["user_id"],
        end_user=row["end_user"],
        model_asked=row["model_asked"],
        model=row["model"],
        provider=row["provider"],
        stream=bool(row["stream"]),
        usage=_usage(row),
        usage_source=row["usage_source"],
        cost_nanos=row["cost_nanos"],
        price_version=row["price_version"],
        first_token_ms=row["first_token_ms"],
        duration_ms=row["duration_ms"],
    )


def _summary(row: sqlite3.Row) -> UsageSummary:
    return UsageSummary(
        group=row["part"],
        label=row["label"],
        requests=row["requests"],
        errors=row["errors"],
        usage=_usage(row),
        cost_nanos=row["cost_nanos"],
        unpriced_requests=row["unpriced_requests"],
        average_duration_ms=row["average_duration_ms"],
        average_first_token_ms=row["average_first_token_ms"],
    )
