"""Verification finds each way in which records, hours, days and spend can disagree, and nothing where they agree."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.store.histograms import histogram_of, pack
from inferxgate.store.periods import DAY_MS
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.store.verification import MOST_TOLD
from tests.support.stores import NOON_MS, new_record

HOUR, DAY = "2026-11-22T12:00:00Z", "2026-11-22T00:00:00Z"
WHOSE = "key_1, user_1, small-1, local, ok"


def of_250_ms(*counts: int) -> Iterator[str]:
    return (pack(histogram_of({250: count})).hex() for count in counts)


@pytest.fixture
def used(store: SQLiteStore) -> SQLiteStore:
    whose = {"key_id": "key_1", "user_id": "user_1"}
    store.add_usage(
        [
            new_record(id="one", **whose, cost_nanos=7, first_token_ms=20),
            new_record(id="two", **whose, cost_nanos=5, started_at_ms=NOON_MS + 1),
            new_record(id="three", status="gateway_error", http_status=0, error_code="worker_lost", cost_nanos=None),
            new_record(id="four", started_at_ms=NOON_MS - 3 * DAY_MS),
        ],
        (),
    )
    return store


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


def test_what_was_written_agrees(used: SQLiteStore) -> None:
    found = used.verify_usage()
    assert (found.records, found.hours, found.days, found.spenders) == (4, 3, 3, 2)
    assert (found.disagreement_count, found.disagreements, found.records_since_ms) == (0, (), 0)


def test_an_empty_store_agrees(store: SQLiteStore) -> None:
    assert store.verify_usage().disagreement_count == 0


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "DELETE FROM usage WHERE id = 'two'",
            [
                ("hour", f"{HOUR}, {WHOSE}", "requests", 1, 2),
                ("hour", f"{HOUR}, {WHOSE}", "input_tokens", 10, 20),
                ("hour", f"{HOUR}, {WHOSE}", "output_tokens", 5, 10),
                ("hour", f"{HOUR}, {WHOSE}", "cost_nanos", 7, 12),
                ("hour", f"{HOUR}, {WHOSE}", "duration_ms", 250, 500),
                ("hour", f"{HOUR}, {WHOSE}", "duration_histogram", *of_250_ms(1, 2)),
            ],
        ),
        (
            "UPDATE usage SET cost_nanos = 8 WHERE id = 'one'",
            [("hour", f"{HOUR}, {WHOSE}", "cost_nanos", 13, 12)],
        ),
        (
            "UPDATE usage SET cost_nanos = 0 WHERE id = 'three'",
            [("hour", f"{HOUR}, no key, no user, small-1, local, gateway_error", "unpriced_requests", 0, 1)],
        ),
        (
            """
            UPDATE usage_rollups SET first_token_ms = 21, first_token_histogram = x'011702'
            WHERE first_token_ms > 0 AND span_hours = 1
            """,
            [
                ("hour", f"{HOUR}, {WHOSE}", "first_token_ms", 20, 21),
                ("hour", f"{HOUR}, {WHOSE}", "first_token_histogram", "010e01", "011702"),
                ("day", f"{DAY}, {WHOSE}", "first_token_ms", 21, 20),
                ("day", f"{DAY}, {WHOSE}", "first_token_histogram", "011702", "010e01"),
            ],
        ),
        (
            "UPDATE usage_rollups SET input_tokens = 0 WHERE requests = 2 AND span_hours = 24",
            [("day", f"{DAY}, {WHOSE}", "input_tokens", 20, 0)],
        ),
        (
            "DELETE FROM usage_rollups WHERE span_hours = 24 AND first_token_ms > 0",
            [
                ("day", f"{DAY}, {WHOSE}", "requests", 2, 0),
                ("key_spend", "key_1", "cost_nanos", 0, 12),
                ("user_spend", "user_1", "cost_nanos", 0, 12),
            ],
        ),
        ("UPDATE key_spend SET cost_nanos = 13", [("key_spend", "key_1", "cost_nanos", 12, 13)]),
        ("DELETE FROM user_spend", [("user_spend", "user_1", "cost_nanos", 12, 0)]),
        ("INSERT INTO user_spend VALUES ('user_2', 1)", [("user_spend", "user_2", "cost_nanos", 0, 1)]),
    ],
)
def test_each_disagreement_is_found(
    used: SQLiteStore, path: Path, statement: str, expected: list[tuple[str, str, str, object, object]]
) -> None:
    change(path, statement)
    found = used.verify_usage()
    told = [(each.what, each.of, each.field, each.expected, each.found) for each in found.disagreements]
    assert found.disagreement_count == len(told)
    if "DELETE FROM usage_rollups" in statement:  # every figure of the day is missing: the first one and the spend
        told = [told[0], *(each for each in told if each[0] != "day")]
    assert told == expected


def test_only_so_many_are_told_and_all_are_counted(used: SQLiteStore, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO key_spend VALUES (?, 1)", [(f"key_{number}x",) for number in range(150)])
    connection.close()
    found = used.verify_usage()
    assert (found.disagreement_count, len(found.disagreements)) == (150, MOST_TOLD)


def test_records_that_come_meanwhile_are_no_disagreement(used: SQLiteStore, path: Path) -> None:
    """Another connection writes as fast as it can, into the same hours, while everything is added up."""
    stop = threading.Event()

    def write() -> None:
        writer = SQLiteStore.open(path)
        while not stop.is_set():
            writer.add_usage([new_record(key_id="key_1", started_at_ms=NOON_MS - day * DAY_MS) for day in range(5)], ())
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            assert used.verify_usage().disagreement_count == 0
    finally:
        stop.set()
        thread.join()
