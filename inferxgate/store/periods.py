"""Where the hours, days and budget periods of UTC begin. Pure; all times are milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from inferxgate.store.records import BudgetPeriod

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LATEST_MS = 2**62
"""The latest moment that a record or a question may name: whole hours and days around it are numbers of SQLite's."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MONDAY_MS = 4 * DAY_MS
"""1970 began on a Thursday."""
_WEEK_MS = 7 * DAY_MS


def period_start_ms(period: BudgetPeriod, now_ms: int) -> int:
    """When the budget period that ``now_ms`` lies in began: a midnight in UTC, and 0 for ``total``.

    Weeks begin on Monday. Raises ``OverflowError`` for a time after the year 9999.
    """
    match period:
        case "total":
            return 0
        case "day":
            return now_ms // DAY_MS * DAY_MS
        case "week":
            # The days of 1970 before its first Monday belong to a week that began in 1969; for us they begin it.
            return max((now_ms - _FIRST_MONDAY_MS) // _WEEK_MS * _WEEK_MS + _FIRST_MONDAY_MS, 0)
        case "month":
            now = _EPOCH + timedelta(milliseconds=now_ms)
            first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            return (first - _EPOCH) // timedelta(milliseconds=1)


def moment_text(moment_ms: int) -> str:
    """A moment in UTC to the second, ``2026-11-23T20:00:00Z``; in milliseconds after the year 9999."""
    try:
        return (_EPOCH + timedelta(milliseconds=moment_ms)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{moment_ms} ms"
