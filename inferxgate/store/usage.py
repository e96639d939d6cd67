"""Usage records in SQLite: written in batches together with all that they add to, and read back one by one.

Which index serves the newest records depends on who asks, so they are chosen by three branches that exclude each other
(everybody, one user, one key): SQLite sees from the parameters which of them can have rows and walks no other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.store import rollups
from inferxgate.store.records import Refusal, UsageFilter, UsageRecord
from inferxgate.store.rows import ID, KEY, STARTED, UsageRow, storable, within

_MINUTE_MS = 60_000
_MOST_COUNT = 10**12
_MOST = 2**63 - 1

_ADD_RECORD = """
    INSERT INTO usage (
        id, request_id, started_at_ms, status, http_status, error_code, key_id, user_id, end_user, model_asked, model,
        provider, stream, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,
        audio_input_tokens, image_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens,
        image_output_tokens, usage_source, cost_nanos, price_version, first_token_ms, duration_ms, attempts
    ) VALUES (
        ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
    ) ON CONFLICT (id) DO NOTHING
"""
_LAST_ROW = "SELECT coalesce(max(rowid), 0) FROM usage"
_IDS_AFTER = "SELECT id FROM usage NOT INDEXED WHERE rowid > ?"
_MOVE_LAST_USED = "UPDATE keys SET last_used_at_ms = max(coalesce(last_used_at_ms, 0), ?) WHERE id = ?"
_ADD_REFUSAL = """
    INSERT INTO refusals (minute_ms, key_id, user_id, reason, source, count) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (minute_ms, key_id, user_id, reason, source) DO UPDATE SET count = max(count, excluded.count)
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


def add_rows(connection: sqlite3.Connection, rows: Sequence[UsageRow]) -> None:
    """Write rows and all that they add to within the caller's transaction; what is known already changes nothing."""
    if not rows:
        return
    # SQLite gives new rows numbers above all that there are, so those of this batch can be told from the others.
    after = connection.execute(_LAST_ROW).fetchone()[0]
    added = connection.executemany(_ADD_RECORD, rows).rowcount
    if added != len(rows):
        new = {row[0] for row in connection.execute(_IDS_AFTER, (after,))}
        first = {row[ID]: row for row in reversed(rows)}  # of those with one id, the first was stored
        rows = [row for record_id, row in first.items() if record_id in new]
    rollups.add_rollups(connection, rows)
    last_used: dict[str, int] = {}
    for row in rows:
        key_id, started = row[KEY], row[STARTED]
        if key_id is not None and started >= last_used.get(key_id, 0):
            last_used[key_id] = started
    connection.executemany(_MOVE_LAST_USED, [(started, key_id) for key_id, started in last_used.items()])


def add_refusals(connection: sqlite3.Connection, refusals: Sequence[Refusal]) -> None:
    """Write counts within the caller's transaction; of each the highest stands."""
    connection.executemany(_ADD_REFUSAL, [_refusal_row(refusal) for refusal in refusals])


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


def _parameters(which: UsageFilter) -> dict[str, Any]:
    return {
        "since": within(which.since_ms, _MOST),
        "until": within(which.until_ms, _MOST),
        "user_id": which.user_id,
        "key_id": which.key_id,
    }


def _refusal_row(refusal: Refusal) -> tuple[int, str, str, str, str, int]:
    return (
        within(refusal.minute_ms, _MOST),
        refusal.key_id or "",
        refusal.user_id or "",
        storable(refusal.reason),
        storable(refusal.source),
        within(refusal.count, _MOST_COUNT),
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
        attempts=row["attempts"],
    )
