"""Usage summed up by hour and by day, written in the transaction that writes the records themselves.

A *series* is one combination of key, user, model, provider and status; it has one row for each hour and each day in
which it occurred. So a report reads some hundred rows a day whatever the number of requests, and what a record has
added stays when the record is deleted.

The rows of a batch are added up here before SQLite sees them, so that a batch costs one statement for each series and
span that it touches, whatever the number of its records.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from inferxgate.canonical.usage import BUCKETS
from inferxgate.store.histograms import pack_values, unpack
from inferxgate.store.periods import DAY_MS, HOUR_MS
from inferxgate.store.records import UsageFilter
from inferxgate.store.rows import (
    COST,
    DURATION,
    FIRST_TOKEN,
    KEY,
    MODEL,
    PROVIDER,
    STARTED,
    STATUS,
    TOKENS,
    USER,
    UsageRow,
)

Spender = Literal["key", "user"]

FIGURES: tuple[str, ...] = (
    "requests",
    *BUCKETS,
    "cost_nanos",
    "unpriced_requests",
    "duration_ms",
    "first_tokens",
    "first_token_ms",
)
"""The columns that are plain sums, in order. ``first_tokens`` counts the records that had one."""
HISTOGRAMS: tuple[str, ...] = ("duration_histogram", "first_token_histogram")

_ADD_SERIES = "INSERT INTO usage_series (key_id, user_id, model, provider, status) VALUES (?, ?, ?, ?, ?)"
_SERIES = """
    SELECT id FROM usage_series WHERE key_id = ? AND user_id = ? AND model = ? AND provider = ? AND status = ?
"""
_ADD = """
    INSERT INTO usage_rollups (
        requests, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, audio_input_tokens,
        image_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens, image_output_tokens, cost_nanos,
        unpriced_requests, duration_ms, first_tokens, first_token_ms, duration_histogram, first_token_histogram,
        span_hours, start_ms, series_id
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (span_hours, start_ms, series_id) DO UPDATE SET
        requests = requests + excluded.requests,
        input_tokens = input_tokens + excluded.input_tokens,
        cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
        cache_write_5m_tokens = cache_write_5m_tokens + excluded.cache_write_5m_tokens,
        cache_write_1h_tokens = cache_write_1h_tokens + excluded.cache_write_1h_tokens,
        audio_input_tokens = audio_input_tokens + excluded.audio_input_tokens,
        image_input_tokens = image_input_tokens + excluded.image_input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        audio_output_tokens = audio_output_tokens + excluded.audio_output_tokens,
        image_output_tokens = image_output_tokens + excluded.image_output_tokens,
        cost_nanos = cost_nanos + excluded.cost_nanos,
        unpriced_requests = unpriced_requests + excluded.unpriced_requests,
        duration_ms = duration_ms + excluded.duration_ms,
        first_tokens = first_tokens + excluded.first_tokens,
        first_token_ms = first_token_ms + excluded.first_token_ms,
        duration_histogram = histogram_sum(duration_histogram, excluded.duration_histogram),
        first_token_histogram = histogram_sum(first_token_histogram, excluded.first_token_histogram)
"""
_ADD_KEY_SPEND = """
    INSERT INTO key_spend (key_id, cost_nanos) VALUES (?, ?)
    ON CONFLICT (key_id) DO UPDATE SET cost_nanos = cost_nanos + excluded.cost_nanos
"""
_ADD_USER_SPEND = """
    INSERT INTO user_spend (user_id, cost_nanos) VALUES (?, ?)
    ON CONFLICT (user_id) DO UPDATE SET cost_nanos = cost_nanos + excluded.cost_nanos
"""

_BY_SERIES = """
    WITH summed AS (
        SELECT
            series_id, sum(requests) AS requests, sum(input_tokens) AS input_tokens,
            sum(cache_read_tokens) AS cache_read_tokens, sum(cache_write_5m_tokens) AS cache_write_5m_tokens,
            sum(cache_write_1h_tokens) AS cache_write_1h_tokens, sum(audio_input_tokens) AS audio_input_tokens,
            sum(image_input_tokens) AS image_input_tokens, sum(output_tokens) AS output_tokens,
            sum(reasoning_tokens) AS reasoning_tokens, sum(audio_output_tokens) AS audio_output_tokens,
            sum(image_output_tokens) AS image_output_tokens, sum(cost_nanos) AS cost_nanos,
            sum(unpriced_requests) AS unpriced_requests, sum(duration_ms) AS duration_ms,
            sum(first_tokens) AS first_tokens, sum(first_token_ms) AS first_token_ms,
            histogram_total(duration_histogram) AS duration_histogram,
            histogram_total(first_token_histogram) AS first_token_histogram
        FROM usage_rollups WHERE span_hours = :span_hours AND start_ms >= :since AND start_ms < :until
        GROUP BY series_id
    )
    SELECT key_id, user_id, model, provider, status, NULL AS start_ms, summed.*
    FROM summed JOIN usage_series ON usage_series.id = summed.series_id
"""
_BY_START = """
    SELECT
        start_ms, sum(requests) AS requests, sum(input_tokens) AS input_tokens,
        sum(cache_read_tokens) AS cache_read_tokens, sum(cache_write_5m_tokens) AS cache_write_5m_tokens,
        sum(cache_write_1h_tokens) AS cache_write_1h_tokens, sum(audio_input_tokens) AS audio_input_tokens,
        sum(image_input_tokens) AS image_input_tokens, sum(output_tokens) AS output_tokens,
        sum(reasoning_tokens) AS reasoning_tokens, sum(audio_output_tokens) AS audio_output_tokens,
        sum(image_output_tokens) AS image_output_tokens, sum(cost_nanos) AS cost_nanos,
        sum(unpriced_requests) AS unpriced_requests, sum(duration_ms) AS duration_ms,
        sum(first_tokens) AS first_tokens, sum(first_token_ms) AS first_token_ms,
        histogram_total(duration_histogram) AS duration_histogram,
        histogram_total(first_token_histogram) AS first_token_histogram,
        sum(CASE WHEN status IN ('provider_error', 'gateway_error') THEN requests ELSE 0 END) AS errors
    FROM usage_rollups CROSS JOIN usage_series ON usage_series.id = usage_rollups.series_id
    WHERE span_hours = :span_hours AND start_ms >= :since AND start_ms < :until
    GROUP BY start_ms
"""
# One user's or key's few series are sought out hour by hour and day by day. The beginnings that there are come from
# the table, each by one look into its index: a made-up row of them could be of any length.
_OF_SOMEONE = """
    WITH RECURSIVE starts (start_ms) AS (
        SELECT min(start_ms) FROM usage_rollups
        WHERE span_hours = :span_hours AND start_ms >= :since AND start_ms < :until
        UNION ALL
        SELECT (
            SELECT min(usage_rollups.start_ms) FROM usage_rollups
            WHERE span_hours = :span_hours AND usage_rollups.start_ms > starts.start_ms
                AND usage_rollups.start_ms < :until
        )
        FROM starts WHERE starts.start_ms IS NOT NULL
    ), series AS (
        SELECT * FROM usage_series WHERE user_id = :user_id AND user_id <> '' AND :key_id IS NULL
        UNION ALL
        SELECT * FROM usage_series
        WHERE key_id = :key_id AND key_id <> '' AND (:user_id IS NULL OR user_id = :user_id)
    )
    SELECT series.key_id, series.user_id, series.model, series.provider, series.status, usage_rollups.*
    FROM starts CROSS JOIN series CROSS JOIN usage_rollups
        ON usage_rollups.span_hours = :span_hours AND usage_rollups.start_ms = starts.start_ms
        AND usage_rollups.series_id = series.id
"""

_KEYS_SPENT = "SELECT key_id, cost_nanos FROM key_spend"
_USERS_SPENT = "SELECT user_id, cost_nanos FROM user_spend"
_KEYS_SPENT_SINCE = """
    WITH summed AS (
        SELECT series_id, sum(cost_nanos) AS cost_nanos FROM usage_rollups
        WHERE span_hours = 24 AND start_ms >= :since GROUP BY series_id
    )
    SELECT key_id, sum(cost_nanos) FROM summed JOIN usage_series ON usage_series.id = series_id
    WHERE key_id <> '' AND cost_nanos > 0 GROUP BY key_id
"""
_USERS_SPENT_SINCE = """
    WITH summed AS (
        SELECT series_id, sum(cost_nanos) AS cost_nanos FROM usage_rollups
        WHERE span_hours = 24 AND start_ms >= :since GROUP BY series_id
    )
    SELECT user_id, sum(cost_nanos) FROM summed JOIN usage_series ON usage_series.id = series_id
    WHERE user_id <> '' AND cost_nanos > 0 GROUP BY user_id
"""
_KEYS_SPENT_BY_DAYS = """
    SELECT key_id, sum(cost_nanos) FROM usage_rollups CROSS JOIN usage_series ON usage_series.id = series_id
    WHERE span_hours = 24 AND key_id <> '' GROUP BY key_id
"""
_USERS_SPENT_BY_DAYS = """
    SELECT user_id, sum(cost_nanos) FROM usage_rollups CROSS JOIN usage_series ON usage_series.id = series_id
    WHERE span_hours = 24 AND user_id <> '' GROUP BY user_id
"""


@dataclass(slots=True)
class Sums:
    """What some records add up to. Mutable: many are added into few."""

    numbers: list[int]
    """As ``FIGURES`` names them."""
    errors: int = 0
    durations: int = 0
    """A histogram."""
    first_tokens: int = 0
    """A histogram."""

    @classmethod
    def nothing(cls) -> Sums:
        return cls([0] * len(FIGURES))

    @classmethod
    def of_row(cls, row: sqlite3.Row, *, errors: int) -> Sums:
        """The sums in a row that has the columns of a roll-up."""
        durations, first_tokens = (unpack(row[name]) for name in HISTOGRAMS)
        return cls([row[name] for name in FIGURES], errors, durations, first_tokens)

    def copy(self) -> Sums:
        return replace(self)  # the list is never changed in place

    def add(self, other: Sums) -> None:
        self.numbers = [one + more for one, more in zip(self.numbers, other.numbers, strict=True)]
        self.errors += other.errors
        self.durations += other.durations
        self.first_tokens += other.first_tokens


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """What tells the rows of one hour or day apart. '' stands for no key and no user."""

    key_id: str
    user_id: str
    model: str
    provider: str
    status: str

    @classmethod
    def of_row(cls, row: sqlite3.Row) -> Series:
        return cls(row["key_id"], row["user_id"], row["model"], row["provider"], row["status"])

    @property
    def is_error(self) -> bool:
        return self.status in ("provider_error", "gateway_error")


@dataclass(frozen=True, slots=True)
class Window:
    """A run of whole hours or whole days."""

    span_ms: int
    since_ms: int
    until_ms: int


_Place = tuple[int, tuple[str, ...]]
"""The hour or day, and the fields of the series."""
Part = tuple[Series | None, int | None, Sums]
"""Sums by series, by the moment that they begin at, or by both."""


def add_rollups(connection: sqlite3.Connection, rows: Sequence[UsageRow]) -> None:
    """Add usage rows to the hours, the days and what was spent; all of them must be new."""
    hours: dict[_Place, list[UsageRow]] = {}
    for row in rows:
        series: tuple[str, ...] = (row[KEY] or "", row[USER] or "", row[MODEL], row[PROVIDER], row[STATUS])
        hours.setdefault((row[STARTED] // HOUR_MS * HOUR_MS, series), []).append(row)
    days: dict[_Place, list[_Place]] = {}
    for hour in hours:
        days.setdefault((hour[0] // DAY_MS * DAY_MS, hour[1]), []).append(hour)
    ids = {series: _series_id(connection, series) for series in dict.fromkeys(series for _, series in hours)}
    figures = {hour: _figures(members) for hour, members in hours.items()}
    added = [(*figures[hour], 1, hour[0], ids[hour[1]]) for hour in hours]
    for day, parts in days.items():
        alone = len(parts) == 1
        summed = figures[parts[0]] if alone else _figures([row for hour in parts for row in hours[hour]])
        added.append((*summed, 24, day[0], ids[day[1]]))
    connection.executemany(_ADD, added)
    connection.executemany(_ADD_KEY_SPEND, _spent(rows, KEY))
    connection.executemany(_ADD_USER_SPEND, _spent(rows, USER))


def _series_id(connection: sqlite3.Connection, series: tuple[str, ...]) -> int:
    """The number of a series, which gets one with its first record."""
    row = connection.execute(_SERIES, series).fetchone()
    if row is None:
        connection.execute(_ADD_SERIES, series)
        row = connection.execute(_SERIES, series).fetchone()
    number: int = row[0]
    return number


def _figures(rows: Sequence[UsageRow]) -> tuple[int | bytes, ...]:
    """What rows add up to, as ``FIGURES`` and ``HISTOGRAMS`` name it."""
    if len(rows) == 1:
        return _figures_of_one(rows[0])
    columns = tuple(zip(*rows, strict=True))
    costs = [cost for cost in columns[COST] if cost is not None]
    firsts = [first for first in columns[FIRST_TOKEN] if first is not None]
    durations = columns[DURATION]
    unpriced = 0 if len(costs) == len(rows) else sum(row[COST] is None and any(row[TOKENS]) for row in rows)
    return (
        len(rows),
        *map(sum, columns[TOKENS]),
        sum(costs),
        unpriced,
        sum(durations),
        len(firsts),
        sum(firsts),
        pack_values(durations),
        pack_values(firsts),
    )


def _figures_of_one(row: UsageRow) -> tuple[int | bytes, ...]:
    """The same of a single row, which is what most sums get where there are many keys: in half the time."""
    tokens, cost, first, duration = row[TOKENS], row[COST], row[FIRST_TOKEN], row[DURATION]
    unpriced = int(cost is None and any(tokens))
    if first is None:
        return (1, *tokens, cost or 0, unpriced, duration, 0, 0, pack_values((duration,)), b"")
    return (1, *tokens, cost or 0, unpriced, duration, 1, first, pack_values((duration,)), pack_values((first,)))


def _spent(rows: Sequence[UsageRow], spender: int) -> list[tuple[str, int]]:
    """Nano-dollars by who spent them: of the key or the user, which is that column of a row."""
    spent: dict[str, int] = {}
    for row in rows:
        who, cost = row[spender], row[COST]
        if cost and who is not None:
            spent[who] = spent.get(who, 0) + cost
    return list(spent.items())


def rolled_up(connection: sqlite3.Connection, which: UsageFilter, window: Window) -> Iterable[Part]:
    """The sums of a window: for everyone by series and, apart from that, by time; for someone by both."""
    parameters = {
        "span_hours": window.span_ms // HOUR_MS,
        "since": window.since_ms,
        "until": window.until_ms,
        "user_id": which.user_id,
        "key_id": which.key_id,
    }
    if which.user_id is None and which.key_id is None:
        yield from map(_part, connection.execute(_BY_SERIES, parameters))
        for row in connection.execute(_BY_START, parameters):
            yield None, row["start_ms"], Sums.of_row(row, errors=row["errors"])
    else:
        yield from map(_part, connection.execute(_OF_SOMEONE, parameters))


def spend_since(connection: sqlite3.Connection, kind: Spender, since_ms: int) -> dict[str, int]:
    """Nano-dollars by key or user id since 0 (all time) or a midnight. Raises ``ValueError`` for another moment."""
    if since_ms % DAY_MS:
        raise ValueError("spend is known from the beginning of a day in UTC")
    if since_ms <= 0:
        rows = connection.execute(_KEYS_SPENT if kind == "key" else _USERS_SPENT)
    else:
        rows = connection.execute(_KEYS_SPENT_SINCE if kind == "key" else _USERS_SPENT_SINCE, {"since": since_ms})
    return {row[0]: row[1] for row in rows}


def spend_by_days(connection: sqlite3.Connection, kind: Spender) -> dict[str, int]:
    """Nano-dollars by key or user id over all time, added up from the days; 0 where all was free."""
    return dict(connection.execute(_KEYS_SPENT_BY_DAYS if kind == "key" else _USERS_SPENT_BY_DAYS).fetchall())


def kept(connection: sqlite3.Connection) -> tuple[int, int]:
    """From when on records, and from when on hours, are whole: an hour and a day that begin, in UTC milliseconds."""
    row = connection.execute("SELECT records_since_ms, hours_since_ms FROM usage_kept").fetchone()
    return row[0], row[1]


def series_part(row: sqlite3.Row, start_ms: int | None) -> Part:
    """The series and the sums of a row that has both."""
    series = Series.of_row(row)
    return series, start_ms, Sums.of_row(row, errors=row["requests"] if series.is_error else 0)


def _part(row: sqlite3.Row) -> Part:
    return series_part(row, row["start_ms"])
