"""Retention: what is old or too much goes, step by step; sums and spend stay; nobody waits for it."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.store import connections, files, retention
from inferxgate.store.migrations import MIGRATIONS, migrate
from inferxgate.store.periods import DAY_MS, HOUR_MS
from inferxgate.store.records import UsageFilter, UsageRecord, UsageReport
from inferxgate.store.retention import BATCH_ROWS, LEAST_AGE_MS, Retention, RetentionLimits
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import EVER, NOON_MS, new_record, new_refusal, new_store

NOW_MS = NOON_MS
UNBOUNDED = RetentionLimits(keep_days=None, keep_rollup_days=None, max_bytes=None)
RECORDS = st.lists(
    st.builds(
        new_record,
        id=st.uuids().map(str),
        started_at_ms=st.integers(NOW_MS - 6 * DAY_MS, NOW_MS),
        key_id=st.sampled_from(("key_1", None)),
        user_id=st.sampled_from(("user_1", None)),
        cost_nanos=st.one_of(st.none(), st.integers(0, 1_000)),
        duration_ms=st.integers(0, 100_000),
    ),
    max_size=15,
)


def finish(store: SQLiteStore, limits: RetentionLimits, *, now_ms: int = NOW_MS) -> int:
    """How many steps it took."""
    keeper = Retention(store, limits)
    for steps in range(10_000):
        if not keeper.step(now_ms):
            return steps
    raise AssertionError("it never ends")


def starts(store: SQLiteStore) -> list[int]:
    return [record.started_at_ms for record in store.recent_usage(EVER, limit=100_000)]


def limits(days: int | None = None, rollup_days: int | None = None, max_bytes: int | None = None) -> RetentionLimits:
    return RetentionLimits(keep_days=days, keep_rollup_days=rollup_days, max_bytes=max_bytes)


@settings(max_examples=40, deadline=None)
@given(
    records=RECORDS,
    late=RECORDS,
    days=st.integers(1, 6),
    rollup_days=st.integers(1, 6),
    since=st.integers(NOW_MS - 7 * DAY_MS, NOW_MS),
    length=st.integers(0, 7 * DAY_MS),
)
def test_no_sum_and_no_spend_changes(
    records: list[UsageRecord],
    late: list[UsageRecord],
    days: int,
    rollup_days: int,
    since: int,
    length: int,
) -> None:
    """Not even by records that come after their time was over; and where records are kept, reports stay exact."""
    span = UsageFilter(since, since + length)
    bound = limits(days, rollup_days)
    with new_store() as store, new_store() as whole:
        store.add_usage(records, ())
        finish(store, bound)
        store.add_usage(late, ())
        finish(store, bound)
        whole.add_usage([*records, *late], ())
        assert all(start >= NOW_MS - days * DAY_MS for start in starts(store))
        assert set(starts(whole)) - set(starts(store)) <= {
            start for start in starts(whole) if start < NOW_MS - days * DAY_MS
        }
        assert store.usage_report(EVER) == whole.usage_report(EVER)
        assert store.spend_since("key", 0) == whole.spend_since("key", 0)
        assert store.spend_since("user", 0) == whole.spend_since("user", 0)
        assert store.verify_usage().disagreement_count == 0
        found = store.usage_report(span)
        assert found.since_ms <= span.since_ms
        assert found.until_ms >= span.until_ms
        assert found == whole.usage_report(UsageFilter(found.since_ms, found.until_ms))
        kept_ms = (NOW_MS - days * DAY_MS) // HOUR_MS * HOUR_MS + HOUR_MS
        if span.since_ms >= kept_ms:
            assert (found.since_ms, found.until_ms) == (span.since_ms, span.until_ms)


def report(store: SQLiteStore, since_ms: int, until_ms: int = NOW_MS) -> UsageReport:
    return store.usage_report(UsageFilter(since_ms, until_ms))


def test_a_report_widens_to_the_hour_and_then_to_the_day(store: SQLiteStore) -> None:
    minute = 60_000
    store.add_usage([new_record(started_at_ms=NOW_MS - 3 * DAY_MS - 30 * minute + each) for each in (0, 2)], ())
    since = NOW_MS - 3 * DAY_MS - 30 * minute + 1
    assert report(store, since).totals.requests == 1
    finish(store, limits(days=2))
    found = report(store, since)
    assert (found.since_ms, found.totals.requests) == (NOW_MS - 3 * DAY_MS - HOUR_MS, 2)
    found = report(store, since - DAY_MS, since)
    assert (found.until_ms, found.totals.requests) == (NOW_MS - 3 * DAY_MS, 2)
    store.add_usage([new_record(started_at_ms=NOW_MS - 2 * DAY_MS - 1)], ())
    finish(store, limits(days=2, rollup_days=1))
    found = report(store, since, NOW_MS - 3 * DAY_MS)
    assert (found.since_ms, found.totals.requests) == (NOW_MS - 3 * DAY_MS - DAY_MS // 2, 2)
    found = report(store, since - DAY_MS, since)
    assert (found.until_ms, found.totals.requests) == (NOW_MS - 2 * DAY_MS - DAY_MS // 2, 2)
    assert report(store, NOW_MS - 2 * DAY_MS + 1).since_ms == NOW_MS - 2 * DAY_MS + 1


def test_a_step_deletes_a_batch_of_the_oldest(store: SQLiteStore) -> None:
    count = 2 * BATCH_ROWS + 10
    store.add_usage([new_record(started_at_ms=NOW_MS - 2 * DAY_MS - each) for each in range(count)], ())
    keeper = Retention(store, limits(days=1))
    left = []
    while keeper.step(NOW_MS):
        left.append(len(starts(store)))
        assert starts(store) == sorted(starts(store), reverse=True)[: left[-1]]
    assert left == [BATCH_ROWS + 10, 10, 0]


def test_what_is_younger_stays(store: SQLiteStore) -> None:
    store.add_usage([new_record(started_at_ms=NOW_MS - DAY_MS - 1), new_record(started_at_ms=NOW_MS - DAY_MS)], ())
    finish(store, limits(days=1))
    assert starts(store) == [NOW_MS - DAY_MS]
    assert finish(store, UNBOUNDED) == 0


def test_hours_stay_as_long_as_their_records(store: SQLiteStore) -> None:
    store.add_usage([new_record(started_at_ms=NOW_MS - 5 * DAY_MS)], ())
    finish(store, limits(rollup_days=1))
    assert store.verify_usage().hours == 1
    finish(store, limits(days=1, rollup_days=1))
    assert (store.verify_usage().hours, store.usage_report(EVER).totals.requests) == (0, 1)


def test_counts_of_refusals_go_with_age(store: SQLiteStore) -> None:
    old, young = NOW_MS - 2 * DAY_MS, NOW_MS - DAY_MS + 60_000
    refusals = [new_refusal(minute_ms=old - each * 60_000) for each in range(BATCH_ROWS + 5)]
    store.add_usage((), [*refusals, new_refusal(minute_ms=young)])
    assert finish(store, limits(days=1)) == 2
    assert store.refusals_by_reason(EVER) == {"rate_limit_exceeded": 1}


def test_the_oldest_go_first_when_it_is_too_large(store: SQLiteStore, path: Path) -> None:
    store.add_usage([new_record(started_at_ms=NOW_MS - DAY_MS - each, key_id="key_1") for each in range(20_000)], ())
    before, totals = store.space(), store.usage_report(EVER).totals
    most = before.used_bytes // 2
    assert finish(store, limits(max_bytes=most)) > 5
    after = store.space()
    assert after.used_bytes <= most
    assert after.file_bytes <= most, "and the file has really become smaller"
    left = starts(store)
    assert 0 < len(left) < 20_000
    assert left == [NOW_MS - DAY_MS - each for each in range(len(left))]
    assert store.usage_report(EVER).totals == totals
    store.close()
    assert path.stat().st_size <= most


def test_what_is_hardly_written_stays_however_large_it_is(store: SQLiteStore) -> None:
    young = [new_record(started_at_ms=NOW_MS - LEAST_AGE_MS + each) for each in range(10)]
    store.add_usage([*young, new_record(started_at_ms=NOW_MS - LEAST_AGE_MS - 1)], ())
    finish(store, limits(days=0, rollup_days=0, max_bytes=1))
    assert len(starts(store)) == 10


def test_when_records_are_not_enough_hours_go_too(store: SQLiteStore) -> None:
    store.add_usage([new_record(started_at_ms=NOW_MS - 9 * DAY_MS - hour * HOUR_MS) for hour in range(50)], ())
    totals = store.usage_report(EVER)
    finish(store, limits(max_bytes=1))
    found = store.verify_usage()
    assert (found.records, found.hours, found.days) == (0, 0, 1), "but for the day in which the last one fell"
    assert store.usage_report(EVER) == totals


def test_free_pages_are_handed_back_some_at_a_time(store: SQLiteStore) -> None:
    store.add_usage([new_record(started_at_ms=NOW_MS - 2 * DAY_MS) for _ in range(50_000)], ())
    keeper = Retention(store, limits(days=1))
    pages = [store.space().pages]
    while keeper.step(NOW_MS):
        pages.append(store.space().pages)
    assert pages[-1] < pages[0] / 2
    assert store.space().free_pages <= 1_000, "the others are soon written again"
    shrunk = [one - following for one, following in itertools.pairwise(pages) if one > following]
    assert len(shrunk) > 1
    assert max(shrunk) <= retention.BATCH_PAGES + 2


def test_a_store_from_before_writes_its_free_pages_again(path: Path) -> None:
    files.prepare(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    connection = connections.connect(path)
    migrate(connection, path, migrations=MIGRATIONS[:2])
    connection.close()
    store = SQLiteStore.open(path)
    assert not store.space().gives_back
    for day in (3, 0):
        store.add_usage([new_record(started_at_ms=NOW_MS - day * DAY_MS) for _ in range(20_000)], ())
        pages = store.space().pages
        finish(store, limits(days=2))
        assert store.space().pages == pages
        if day:
            filled = pages
    assert pages < filled * 1.1
    store.close()


def test_writers_and_readers_go_on_beside_it(store: SQLiteStore, path: Path) -> None:
    """Another connection adds records all the while; every one is there in the end, and every sum is right."""
    store.add_usage([new_record(started_at_ms=NOW_MS - 2 * DAY_MS) for _ in range(10_000)], ())
    written: list[str] = []
    stop = threading.Event()

    def write() -> None:
        writer = SQLiteStore.open(path)
        while not stop.is_set():
            records = [new_record(started_at_ms=NOW_MS - 5, key_id="key_1", cost_nanos=1) for _ in range(20)]
            writer.add_usage(records, ())
            written.extend(record.id for record in records)
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        finish(store, limits(days=1))
    finally:
        stop.set()
        thread.join()
    assert written
    assert len(store.usage_records(written)) == len(written) == len(starts(store))
    assert store.spend_since("key", 0) == {"key_1": len(written)}
    assert store.usage_report(EVER).totals.requests == 10_000 + len(written)
    assert store.verify_usage().disagreement_count == 0


@pytest.mark.parametrize("keep", [0, 1])
def test_two_that_run_it_at_once_do_no_harm(store: SQLiteStore, path: Path, keep: int) -> None:
    store.add_usage([new_record(started_at_ms=NOW_MS - 3 * DAY_MS) for _ in range(5_000)], ())
    other = SQLiteStore.open(path)
    threads = [threading.Thread(target=finish, args=(each, limits(days=keep))) for each in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert starts(store) == []
    assert store.usage_report(EVER).totals.requests == 5_000
    other.close()
