"""Counters: what they say was spent is the sum over the periods that still run, whatever the days and their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferxgate.store.periods import period_start_ms
from inferxgate.workers.counters import PERIODS, Counters
from tests.support.stores import DAY_MS, NOON_MS

MOMENTS = st.integers(-40 * DAY_MS, 40 * DAY_MS).map(lambda apart: NOON_MS + apart)


@given(spends=st.lists(st.tuples(MOMENTS, MOMENTS, st.integers(0, 9)), max_size=12))
def test_money_counts_where_its_period_still_runs(spends: list[tuple[int, int, int]]) -> None:
    """Each spend: now, the moment that its request began, and how much."""
    row, latest_ms, counted = Counters(), 0, []
    for now_ms, at_ms, nanos in spends:
        latest_ms = max(latest_ms, now_ms)
        counted.append((latest_ms, at_ms, nanos))
        row.turn(now_ms)
        row.spend(nanos, at_ms)
        row = Counters(row.build())
    for period, spent in zip(PERIODS, row.spent, strict=True):
        began = period_start_ms(period, latest_ms)
        alike = [
            nanos
            for known_ms, at_ms, nanos in counted
            if period_start_ms(period, at_ms) == period_start_ms(period, known_ms) == began
        ]
        assert spent == sum(alike)


def test_a_row_that_nobody_has_written_is_empty() -> None:
    assert Counters().build() == Counters(Counters().build()).build()
    assert not any(Counters().spent)
