"""Usage: written once however often it comes, and added up as plain arithmetic over the records would."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.store import connections, files
from inferxgate.store.lines import build_line
from inferxgate.store.migrations import MIGRATIONS, migrate
from inferxgate.store.records import GroupBy, Percentiles, Refusal, Status, UsageFilter, UsageRecord, UsageSummary
from inferxgate.store.rows import parse_row
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import (
    DAY_MS,
    EVER,
    MINUTE_MS,
    NOON_MS,
    new_key,
    new_record,
    new_refusal,
    new_store,
    new_user,
)

KEYS = ("key_1", "key_2", None)
USERS = ("user_1", "user_2", None)

USAGES = st.builds(Usage, **{bucket: st.integers(0, 1_000_000) for bucket in BUCKETS})
RECORDS = st.builds(
    new_record,
    id=st.uuids().map(str),
    started_at_ms=st.integers(NOON_MS - 2 * DAY_MS, NOON_MS + 2 * DAY_MS),
    status=st.sampled_from(get_args(Status)),
    key_id=st.sampled_from(KEYS),
    user_id=st.sampled_from(USERS),
    model=st.sampled_from(("small-1", "large-2")),
    provider=st.sampled_from(("local", "echo")),
    stream=st.booleans(),
    usage=st.one_of(st.just(Usage()), USAGES),
    cost_nanos=st.one_of(st.none(), st.integers(0, 10**12)),
    first_token_ms=st.one_of(st.none(), st.integers(0, 10_000)),
    duration_ms=st.integers(0, 600_000),
    attempts=st.integers(0, 20),
)
MANY = st.lists(RECORDS, max_size=12, unique_by=lambda record: record.id)
FILTERS = st.builds(
    lambda since, length, user_id, key_id: UsageFilter(since, since + length, user_id, key_id),
    st.integers(NOON_MS - 3 * DAY_MS, NOON_MS + DAY_MS),
    st.integers(0, 5 * DAY_MS),
    st.sampled_from(USERS),
    st.sampled_from(KEYS),
)


def chosen(records: Sequence[UsageRecord], which: UsageFilter) -> list[UsageRecord]:
    return [
        record
        for record in records
        if which.since_ms <= record.started_at_ms < which.until_ms
        and which.user_id in (None, record.user_id)
        and which.key_id in (None, record.key_id)
    ]


def summed(records: Sequence[UsageRecord], group: str | None) -> UsageSummary:
    """What the store must say of these records, added up the simple way."""
    firsts = [record.first_token_ms for record in records if record.first_token_ms is not None]
    return UsageSummary(
        group=group,
        label=group,
        requests=len(records),
        errors=sum(record.status in ("provider_error", "gateway_error") for record in records),
        usage=Usage(*(sum(getattr(record.usage, bucket) for record in records) for bucket in BUCKETS)),
        cost_nanos=sum(record.cost_nanos or 0 for record in records),
        unpriced_requests=sum(record.cost_nanos is None and record.usage.total_tokens > 0 for record in records),
        average_duration_ms=fmean(record.duration_ms for record in records) if records else None,
        average_first_token_ms=fmean(firsts) if firsts else None,
        duration_percentiles=None,
        first_token_percentiles=None,
    )


def without_percentiles(summary: UsageSummary) -> UsageSummary:
    """Percentiles are not exact: ``assert_near`` looks at them."""
    return dataclasses.replace(summary, duration_percentiles=None, first_token_percentiles=None)


def assert_near(found: Percentiles | None, values: Sequence[int]) -> None:
    """Each percentile is one of the values, or within a tenth of it."""
    if not values:
        assert found is None
        return
    assert found is not None
    ranked = sorted(values)
    for share, value in ((50, found.p50), (90, found.p90), (95, found.p95), (99, found.p99)):
        true = ranked[-(-share * len(ranked) // 100) - 1]
        assert abs(value - true) <= 0.1 * true + 0.05, (share, values)


def day(record: UsageRecord) -> str:
    return datetime.fromtimestamp(record.started_at_ms / 1000, UTC).strftime("%Y-%m-%d")


GROUPS: dict[GroupBy, Callable[[UsageRecord], str | None]] = {
    "model": lambda record: record.model,
    "provider": lambda record: record.provider,
    "key": lambda record: record.key_id,
    "user": lambda record: record.user_id,
    "day": day,
    "status": lambda record: record.status,
}


def state(store: SQLiteStore) -> object:
    """Everything that usage leaves behind in a store."""
    return (
        store.usage_report(EVER),
        sorted(store.recent_usage(EVER, limit=1_000), key=lambda record: record.id),
        store.spend_since("key", 0),
        store.spend_since("user", 0),
        store.verify_usage(),
        store.refusals_by_reason(EVER),
        store.keys(),
    )


@settings(max_examples=60, deadline=None)
@given(records=MANY, which=FILTERS)
def test_sums_are_those_of_the_records(records: list[UsageRecord], which: UsageFilter) -> None:
    with new_store() as store:
        store.add_usage(records, ())
        wanted = chosen(records, which)
        report = store.usage_report(which)
        assert (report.since_ms, report.until_ms) == (which.since_ms, which.until_ms)
        assert without_percentiles(report.totals) == summed(wanted, None)
        assert set(report.groups) == set(GROUPS)
        for by, group_of in GROUPS.items():
            found = report.groups[by]
            assert len({group.group for group in found}) == len(found) == len({group_of(each) for each in wanted})
            for group in found:
                members = [each for each in wanted if group_of(each) == group.group]
                assert without_percentiles(group) == summed(members, group.group)
                assert_near(group.duration_percentiles, [each.duration_ms for each in members])
                firsts = [each.first_token_ms for each in members if each.first_token_ms is not None]
                assert_near(group.first_token_percentiles, firsts)
            if by == "day":
                assert [group.group for group in found] == sorted(group.group or "" for group in found)
            else:
                assert found == sorted(found, key=lambda group: (-group.cost_nanos, -group.requests))
        newest = store.recent_usage(which, limit=5)
        assert len(newest) == min(5, len(wanted))
        times = sorted((record.started_at_ms for record in wanted), reverse=True)
        assert [record.started_at_ms for record in newest] == times[:5]
        assert all(record in wanted for record in newest)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), records=MANY)
def test_order_repetition_and_batches_do_not_matter(data: st.DataObject, records: list[UsageRecord]) -> None:
    key = new_key(id="key_1")
    with new_store() as once, new_store() as often:
        for store in (once, often):
            store.add_key(key, keys_per_user=None)
        once.add_usage(records, ())
        repeated = data.draw(st.permutations(records + data.draw(st.lists(st.sampled_from(records or [new_record()])))))
        repeated = [record for record in repeated if record in records]
        while repeated:
            cut = data.draw(st.integers(1, len(repeated)))
            often.add_usage(repeated[:cut], ())
            repeated = repeated[cut:]
        assert state(often) == state(once)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), records=st.lists(RECORDS, max_size=12))
def test_lines_in_batches_are_records_one_by_one(data: st.DataObject, records: list[UsageRecord]) -> None:
    """Also where an id comes again with other figures: what came first stands, within a batch as between them."""
    ids = st.sampled_from([f"use_{number}" for number in range(8)])
    records = [dataclasses.replace(record, id=data.draw(ids)) for record in records]
    key = new_key(id="key_1")
    with new_store() as single, new_store() as batches:
        for store in (single, batches):
            store.add_key(key, keys_per_user=None)
        for record in records:
            single.add_usage([record], ())
        rows = [parse_row(build_line(record)) for record in records]
        while rows:
            cut = data.draw(st.integers(1, len(rows)))
            batches.add_usage_rows(rows[:cut])
            rows = rows[cut:]
        assert state(batches) == state(single)
        assert batches.verify_usage().disagreement_count == 0


REFUSALS = st.builds(
    new_refusal,
    source=st.sampled_from(("worker_1", "worker_2")),
    minute_ms=st.sampled_from((NOON_MS, NOON_MS + MINUTE_MS)),
    key_id=st.sampled_from(KEYS),
    user_id=st.sampled_from(USERS),
    reason=st.sampled_from(("rate_limit_exceeded", "model_not_allowed")),
    count=st.integers(1, 100),
)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), counts=st.lists(REFUSALS, max_size=15))
def test_of_growing_counts_the_highest_stands_in_any_order(data: st.DataObject, counts: list[Refusal]) -> None:
    highest: dict[Refusal, int] = {}
    for refusal in counts:
        name = dataclasses.replace(refusal, count=0)
        highest[name] = max(highest.get(name, 0), refusal.count)
    with new_store() as store:
        for refusal in data.draw(st.permutations(counts + counts)):
            store.add_usage((), [refusal])
        for user_id in USERS:
            for key_id in KEYS:
                expected: dict[str, int] = {}
                for name, count in highest.items():
                    if user_id in (None, name.user_id) and key_id in (None, name.key_id):
                        expected[name.reason] = expected.get(name.reason, 0) + count
                which = UsageFilter(NOON_MS + 1, NOON_MS + 2 * MINUTE_MS, user_id, key_id)
                found = store.refusals_by_reason(which)
                assert found == expected, "a minute counts as a whole, so one that has begun is in"
                assert list(found.values()) == sorted(found.values(), reverse=True)
        assert store.refusals_by_reason(UsageFilter(0, NOON_MS)) == {}


@settings(max_examples=25, deadline=None)
@given(records=MANY, later=MANY)
def test_records_from_before_there_were_sums_are_summed_up_by_the_upgrade(
    records: list[UsageRecord], later: list[UsageRecord]
) -> None:
    """As the earlier version left them: its records and what keys have spent, and no more."""
    with new_store() as always, tempfile.TemporaryDirectory() as folder:
        path, source = Path(folder) / "inferxgate.db", Path(folder) / "source.db"
        written = SQLiteStore.open(source)
        written.add_usage(records, ())
        written.close()
        as_it_was = connections.connect(source)
        as_it_was.execute("ALTER TABLE usage DROP COLUMN attempts")
        as_it_was.close()
        files.prepare(path)
        connection = connections.connect(path)
        migrate(connection, path, migrations=MIGRATIONS[:2])
        connection.execute("ATTACH ? AS source", (str(source),))
        connection.execute("INSERT INTO usage SELECT * FROM source.usage")
        connection.execute("INSERT INTO key_spend SELECT * FROM source.key_spend")
        connection.close()
        always.add_usage([*(dataclasses.replace(record, attempts=1) for record in records), *later], ())
        upgraded = SQLiteStore.open(path)
        upgraded.add_usage(later, ())
        assert state(upgraded) == state(always)
        upgraded.close()


def test_a_record_of_a_request_that_a_kill_cut_off_is_one_like_others(store: SQLiteStore) -> None:
    lost = new_record(
        status="gateway_error", http_status=0, error_code="worker_lost", usage_source="estimated", key_id="key_1"
    )
    store.add_usage([lost], ())
    assert store.recent_usage(EVER, limit=1) == [lost]
    totals = store.usage_report(EVER).totals
    assert (totals.requests, totals.errors, totals.cost_nanos) == (1, 1, 1_500)
    assert store.spend_since("key", 0) == {"key_1": 1_500}


def test_records_come_back_as_they_went(store: SQLiteStore) -> None:
    record = new_record(
        status="client_closed",
        http_status=499,
        error_code="upstream_error",
        key_id="key_1",
        user_id="user_1",
        end_user="größe\x00'); DROP TABLE usage; --",
        stream=True,
        usage=Usage(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
        usage_source="estimated",
        cost_nanos=None,
        price_version=None,
        first_token_ms=0,
    )
    store.add_usage([record], ())
    assert store.recent_usage(EVER, limit=10) == [record]


def test_records_of_one_moment_come_newest_first(store: SQLiteStore) -> None:
    records = [new_record() for _ in range(5)]
    store.add_usage(records, ())
    assert store.recent_usage(EVER, limit=3) == records[:1:-1]
    assert store.recent_usage(EVER, limit=0) == []
    assert store.recent_usage(EVER, limit=-1) == [], "no limit is not every record"


def test_nothing_adds_up_to_nothing(store: SQLiteStore) -> None:
    store.add_usage((), ())
    report = store.usage_report(EVER)
    assert report.totals == summed([], None)
    assert all(groups == [] for groups in report.groups.values())


def test_groups_have_names_for_people(store: SQLiteStore) -> None:
    user = new_user(id="user_1", email="ann@example.com")
    store.add_user(user, first_is_admin=False)
    named, unnamed = new_key(id="key_1", name="laptop"), new_key(id="key_2")
    for key in (named, unnamed):
        store.add_key(key, keys_per_user=None)
    store.add_usage(
        [
            new_record(key_id="key_1", user_id="user_1", cost_nanos=5),
            new_record(key_id="key_2", user_id="user_gone", cost_nanos=4),
            new_record(key_id="key_gone", cost_nanos=3),
        ],
        (),
    )
    groups = store.usage_report(EVER).groups
    assert [group.label for group in groups["key"]] == ["laptop", unnamed.key_prefix, "key_gone"]
    assert [group.label for group in groups["user"]] == ["ann@example.com", "user_gone", None]


@pytest.mark.parametrize("number", [2**63, 10**40, -1, -(10**40)])
def test_a_nonsense_number_neither_fails_its_batch_nor_the_sums(store: SQLiteStore, number: int) -> None:
    nonsense = [
        new_record(
            key_id="key_1",
            usage=Usage(**dict.fromkeys(BUCKETS, number)),
            cost_nanos=number,
            first_token_ms=number,
            duration_ms=number,
            started_at_ms=number,
        )
        for _ in range(20)
    ]
    store.add_usage([*nonsense, new_record()], [new_refusal(count=number, minute_ms=number)])
    for which in (UsageFilter(-(10**40), 10**40), UsageFilter(-(10**40), 10**40, key_id="key_1")):
        report = store.usage_report(which)
        assert report.totals.requests >= (which.key_id is None)
        assert report.totals.cost_nanos >= 0
        assert which.key_id or report.groups["day"]
    assert store.spend_by_key(["key_1"], now_ms=NOON_MS).get("key_1", 0) >= 0
    assert store.verify_usage().disagreement_count == 0


def test_text_that_is_no_text_is_written_out(store: SQLiteStore) -> None:
    store.add_usage([new_record(end_user="a\ud800b", model="\udfff")], [new_refusal(reason="\ud800")])
    (record,) = store.recent_usage(EVER, limit=1)
    assert record.end_user == "a\\ud800b"
    assert record.model == "\\udfff"
    assert store.refusals_by_reason(EVER) == {"\\ud800": 1}


def test_spend_is_known_of_keys_that_have_spent(store: SQLiteStore) -> None:
    store.add_usage(
        [
            new_record(key_id="key_1", cost_nanos=2),
            new_record(key_id="key_1", cost_nanos=3),
            new_record(key_id="key_2", cost_nanos=None),
            new_record(key_id=None, cost_nanos=100),
        ],
        (),
    )
    assert store.spend_by_key(["key_1", "key_2", "key_gone"], now_ms=NOON_MS) == {"key_1": 5}
    assert store.spend_by_key([], now_ms=NOON_MS) == {}


def test_when_a_key_was_last_used_only_moves_forward(store: SQLiteStore) -> None:
    store.add_key(new_key(id="key_1"), keys_per_user=None)
    for started, expected in ((NOON_MS, NOON_MS), (NOON_MS - 5, NOON_MS), (NOON_MS + 5, NOON_MS + 5)):
        store.add_usage([new_record(key_id="key_1", started_at_ms=started)], ())
        key = store.key("key_1")
        assert key is not None
        assert key.last_used_at_ms == expected
