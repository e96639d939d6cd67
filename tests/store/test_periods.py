"""Budget periods begin at the midnights of UTC that a calendar says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.store.periods import DAY_MS, moment_text, period_start_ms
from inferxgate.store.records import BudgetPeriod

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(4 * DAY_MS, 253_402_300_799_999)


def ms(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("period", "now", "start"),
    [
        ("day", "2026-11-22T23:59:59.999", "2026-11-22"),
        ("day", "2026-11-23", "2026-11-23"),
        ("week", "2026-11-22T23:59:59.999", "2026-11-16"),
        ("week", "2026-11-23", "2026-11-23"),
        ("week", "2027-01-01T10:00", "2026-12-28"),
        ("month", "2026-11-30T23:59:59.999", "2026-11-01"),
        ("month", "2026-12-01", "2026-12-01"),
        ("month", "2024-02-29T12:00", "2024-02-01"),
        ("total", "2026-11-22", "1970-01-01"),
        ("week", "1970-01-03", "1970-01-01"),
    ],
)
def test_a_period_begins(period: BudgetPeriod, now: str, start: str) -> None:
    assert period_start_ms(period, ms(now)) == ms(start)


@given(now_ms=MOMENTS)
def test_periods_are_those_of_the_calendar(now_ms: int) -> None:
    now = EPOCH + timedelta(milliseconds=now_ms)
    starts = {
        period: EPOCH + timedelta(milliseconds=period_start_ms(period, now_ms)) for period in get_args(BudgetPeriod)
    }
    assert starts["day"].date() == now.date()
    assert starts["week"].isocalendar()[:2] == now.isocalendar()[:2]
    assert starts["week"].weekday() == 0
    assert (starts["month"].year, starts["month"].month, starts["month"].day) == (now.year, now.month, 1)
    for start in starts.values():
        assert (start.hour, start.minute, start.second, start.microsecond) == (0, 0, 0, 0)
        assert start <= now


def test_moments_are_told_in_utc() -> None:
    assert moment_text(ms("2026-11-23T20:40:01.999")) == "2026-11-23T20:40:01Z"
    assert moment_text(2**62) == f"{2**62} ms"
