"""Proves that what the store knows twice agrees: records with hours, hours with days, days with what was spent.

Hours are added up again from records where all records of the hour are kept, days from hours likewise, and the spend
of each key and user from the days, which are never deleted. It goes day by day, each in one snapshot, so that the
gateway can go on writing: a batch of records and what it adds to are one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

from inferxgate.store import rollups
from inferxgate.store.connections import snapshot
from inferxgate.store.periods import DAY_MS, moment_text
from inferxgate.store.records import Disagreement, Verification
from inferxgate.store.rollups import FIGURES, HISTOGRAMS, Spender

MOST_TOLD = 100
"""Disagreements that are told one by one; the others are counted."""

_NEXT_MOMENT = """
    SELECT min(moment) FROM (
        SELECT min(started_at_ms) AS moment FROM usage WHERE started_at_ms >= :since
        UNION ALL SELECT min(start_ms) FROM usage_rollups WHERE span_hours = 1 AND start_ms >= :since
        UNION ALL SELECT min(start_ms) FROM usage_rollups WHERE span_hours = 24 AND start_ms >= :since
    )
"""
_RECORDS_BY_HOUR = """
    SELECT
        started_at_ms / 3600000 * 3600000 AS start_ms, coalesce(key_id, '') AS key_id,
        coalesce(user_id, '') AS user_id, model, provider, status,
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
    FROM usage WHERE started_at_ms >= :since AND started_at_ms < :until
    GROUP BY 1, 2, 3, 4, 5, 6
"""
_ROLLED_UP = """
    SELECT
        start_ms, key_id, user_id, model, provider, status, requests, input_tokens, cache_read_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, audio_input_tokens, image_input_tokens, output_tokens,
        reasoning_tokens, audio_output_tokens, image_output_tokens, cost_nanos, unpriced_requests, duration_ms,
        first_tokens, first_token_ms, duration_histogram, first_token_histogram
    FROM usage_rollups CROSS JOIN usage_series ON usage_series.id = series_id
    WHERE span_hours = :span_hours AND start_ms >= :since AND start_ms < :until
"""
_HOURS_BY_DAY = """
    SELECT
        start_ms / 86400000 * 86400000 AS start_ms, key_id, user_id, model, provider, status,
        sum(requests) AS requests, sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens,
        sum(cache_write_5m_tokens) AS cache_write_5m_tokens, sum(cache_write_1h_tokens) AS cache_write_1h_tokens,
        sum(audio_input_tokens) AS audio_input_tokens, sum(image_input_tokens) AS image_input_tokens,
        sum(output_tokens) AS output_tokens, sum(reasoning_tokens) AS reasoning_tokens,
        sum(audio_output_tokens) AS audio_output_tokens, sum(image_output_tokens) AS image_output_tokens,
        sum(cost_nanos) AS cost_nanos, sum(unpriced_requests) AS unpriced_requests, sum(duration_ms) AS duration_ms,
        sum(first_tokens) AS first_tokens, sum(first_token_ms) AS first_token_ms,
        histogram_total(duration_histogram) AS duration_histogram,
        histogram_total(first_token_histogram) AS first_token_histogram
    FROM usage_rollups CROSS JOIN usage_series ON usage_series.id = series_id
    WHERE span_hours = 1 AND start_ms >= :since AND start_ms < :until
    GROUP BY usage_series.id
"""

_PLACE = 6
"""How many columns say whose a sum is; all that follow are ``FIGURES`` and ``HISTOGRAMS``, in every statement here."""

_Rows = Mapping[tuple[Any, ...], tuple[Any, ...]]


def verify(connection: sqlite3.Connection) -> Verification:
    """Add up again what can be added up again. Takes a minute for some ten million records; keeps nobody waiting."""
    found = _Findings()
    moment = 0
    while True:
        with snapshot(connection):
            records_since, hours_since = rollups.kept(connection)
            moment = max(moment, hours_since)
            following = connection.execute(_NEXT_MOMENT, {"since": moment}).fetchone()[0]
            if following is None:
                _compare_spend(connection, found)
                return found.verification(records_since)
            day = following // DAY_MS * DAY_MS
            _compare_hours(connection, max(day, records_since), day + DAY_MS, found)
            _compare_days(connection, day, found)
            moment = day + DAY_MS


class _Findings:
    """What was compared so far, and what does not agree."""

    def __init__(self) -> None:
        self.records = self.hours = self.days = self.spenders = 0
        self._told: list[Disagreement] = []
        self._count = 0

    def add(self, disagreements: Iterable[Disagreement]) -> None:
        for disagreement in disagreements:
            self._count += 1
            if len(self._told) < MOST_TOLD:
                self._told.append(disagreement)

    def verification(self, records_since_ms: int) -> Verification:
        return Verification(
            records=self.records,
            hours=self.hours,
            days=self.days,
            spenders=self.spenders,
            records_since_ms=records_since_ms,
            disagreements=tuple(self._told),
            disagreement_count=self._count,
        )


def _compare_hours(connection: sqlite3.Connection, since_ms: int, until_ms: int, found: _Findings) -> None:
    span = {"span_hours": 1, "since": since_ms, "until": until_ms}
    expected = _rows(connection.execute(_RECORDS_BY_HOUR, span))
    stored = _rows(connection.execute(_ROLLED_UP, span))
    found.records += sum(figures[0] for figures in expected.values())
    found.hours += len(expected.keys() | stored.keys())
    found.add(_differences("hour", expected, stored))


def _compare_days(connection: sqlite3.Connection, day_ms: int, found: _Findings) -> None:
    span = {"span_hours": 24, "since": day_ms, "until": day_ms + DAY_MS}
    expected = _rows(connection.execute(_HOURS_BY_DAY, span))
    stored = _rows(connection.execute(_ROLLED_UP, span))
    found.days += len(expected.keys() | stored.keys())
    found.add(_differences("day", expected, stored))


def _compare_spend(connection: sqlite3.Connection, found: _Findings) -> None:
    kinds: tuple[Spender, ...] = get_args(Spender)
    for kind in kinds:
        expected = rollups.spend_by_days(connection, kind)
        stored = rollups.spend_since(connection, kind, 0)
        names = sorted(expected.keys() | stored.keys())
        found.spenders += len(names)
        found.add(
            Disagreement(
                "key_spend" if kind == "key" else "user_spend",
                name,
                "cost_nanos",
                expected.get(name, 0),
                stored.get(name, 0),
            )
            for name in names
            if expected.get(name, 0) != stored.get(name, 0)
        )


def _rows(cursor: sqlite3.Cursor) -> _Rows:
    return {row[:_PLACE]: row[_PLACE:] for row in cursor}


def _differences(what: Literal["hour", "day"], expected: _Rows, stored: _Rows) -> Iterator[Disagreement]:
    names = (*FIGURES, *HISTOGRAMS)
    for place in sorted(expected.keys() | stored.keys()):
        one, other = expected.get(place, _NOTHING), stored.get(place, _NOTHING)
        if one != other:
            for name, figure, found in zip(names, one, other, strict=True):
                if figure != found:
                    yield Disagreement(what, _whose(*place), name, _told(figure), _told(found))


_NOTHING = (*(0 for _ in FIGURES), *(b"" for _ in HISTOGRAMS))
"""A sum that is not there."""


def _told(figure: int | bytes) -> int | str:
    return figure if isinstance(figure, int) else figure.hex()


def _whose(start_ms: int, key_id: str, user_id: str, *others: str) -> str:
    return ", ".join([moment_text(start_ms), key_id or "no key", user_id or "no user", *others])
