"""What keys and users have spent: since the beginning, since a midnight, within a budget's period."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.store.periods import DAY_MS, period_start_ms
from inferxgate.store.records import BudgetPeriod, UsageRecord
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import NOON_MS, new_key, new_record, new_store

MIDNIGHT_MS = NOON_MS // DAY_MS * DAY_MS
RECORDS = st.builds(
    new_record,
    id=st.uuids().map(str),
    started_at_ms=st.integers(NOON_MS - 40 * DAY_MS, NOON_MS + DAY_MS),
    key_id=st.sampled_from(("key_1", "key_2", None)),
    user_id=st.sampled_from(("user_1", "user_2", None)),
    model=st.sampled_from(("small-1", "large-2")),
    status=st.sampled_from(("ok", "client_closed")),
    cost_nanos=st.one_of(st.none(), st.integers(0, 10**12)),
)


def spent(records: list[UsageRecord], kind: str, since_ms: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in records:
        who = record.key_id if kind == "key" else record.user_id
        if who is not None and record.started_at_ms >= since_ms and record.cost_nanos:
            found[who] = found.get(who, 0) + record.cost_nanos
    return found


@settings(max_examples=40, deadline=None)
@given(records=st.lists(RECORDS, max_size=12), days=st.integers(-1, 41))
def test_spend_since_a_midnight_is_that_of_the_records(records: list[UsageRecord], days: int) -> None:
    with new_store() as store:
        for record in records:
            store.add_usage([record, *records], ())
        for since_ms in (0, MIDNIGHT_MS - days * DAY_MS):
            assert store.spend_since("key", since_ms) == spent(records, "key", since_ms)
            assert store.spend_since("user", since_ms) == spent(records, "user", since_ms)


def test_spend_is_not_known_since_the_middle_of_a_day(store: SQLiteStore) -> None:
    with pytest.raises(ValueError, match="from the beginning of a day"):
        store.spend_since("key", NOON_MS)


@pytest.mark.parametrize("period", ["total", "day", "week", "month"])
def test_what_a_key_has_spent_is_told_for_its_budgets_period(store: SQLiteStore, period: BudgetPeriod) -> None:
    start_ms = period_start_ms(period, NOON_MS)
    store.add_key(new_key(id="key_1", budget_period=period), keys_per_user=None)
    store.add_key(new_key(id="key_2"), keys_per_user=None)
    store.add_usage(
        [
            new_record(key_id="key_1", started_at_ms=start_ms - 1, cost_nanos=1),
            new_record(key_id="key_1", started_at_ms=start_ms, cost_nanos=10),
            new_record(key_id="key_1", started_at_ms=NOON_MS, cost_nanos=100),
            new_record(key_id="key_2", started_at_ms=0, cost_nanos=7),
            new_record(key_id="key_gone", started_at_ms=0, cost_nanos=8),
        ],
        (),
    )
    found = store.spend_by_key(["key_1", "key_2", "key_gone", "key_new"], now_ms=NOON_MS)
    assert found == {"key_1": 111 if period == "total" else 110, "key_2": 7, "key_gone": 8}
    assert store.update_key("key_1", {"budget_period": "total"})
    assert store.spend_by_key(["key_1"], now_ms=NOON_MS) == {"key_1": 111}


def test_records_are_known_by_their_ids(store: SQLiteStore) -> None:
    records = [new_record(id="a", cost_nanos=5), new_record(id="b", cost_nanos=None), new_record(id="c", cost_nanos=0)]
    store.add_usage(records, ())
    found = store.usage_records(["a", "b", "c", "d", "\ud800"])
    assert {record.id: record.cost_nanos for record in found} == {"a": 5, "b": None, "c": 0}
    assert store.usage_records([]) == []
