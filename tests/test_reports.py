"""Reports: the shape that /stats promises, plain JSON all through, and the beginnings that people may name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.errors import GatewayError
from inferxgate.reports import iso_time, parse_since, stats
from inferxgate.store.records import UsageFilter
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import DAY_MS, NOON_MS, new_key, new_record, new_refusal, new_store, new_user

WEEK = UsageFilter(since_ms=NOON_MS - 7 * DAY_MS, until_ms=NOON_MS + DAY_MS)
FIGURES = {
    "requests",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "tokens",
    "cost",
    "unpriced_requests",
    "error_rate",
    "average_duration_ms",
    "average_first_token_ms",
    "duration_percentiles_ms",
    "first_token_percentiles_ms",
}


@pytest.fixture
def store() -> Iterator[SQLiteStore]:
    with new_store() as opened:
        yield opened


def fill(store: SQLiteStore) -> None:
    """A day of two people: Ann's key with a name and Bob's without, one error, one unknown price, three refusals."""
    store.add_user(new_user(id="user_ann", email="ann@example.com"), first_is_admin=False)
    store.add_user(new_user(id="user_bob", email="bob@example.com"), first_is_admin=False)
    store.add_key(new_key(id="key_ann", user_id="user_ann", name="laptop"), keys_per_user=None)
    store.add_key(new_key(id="key_bob", user_id="user_bob", key_prefix="ix-api-key-bobs"), keys_per_user=None)
    ann: dict[str, Any] = {"key_id": "key_ann", "user_id": "user_ann"}
    bob: dict[str, Any] = {"key_id": "key_bob", "user_id": "user_bob"}
    store.add_usage(
        [
            new_record(**ann, usage=Usage(10, 5, 0, 0, 0, 0, 7, 3), cost_nanos=1_500_000_000, first_token_ms=100),
            new_record(**ann, status="provider_error", http_status=502, error_code="upstream_error", usage=Usage()),
            new_record(
                **bob,
                id="usage_bob",
                request_id="req_bob",
                started_at_ms=NOON_MS - DAY_MS,
                model="large-2",
                provider="far",
                end_user="carol",
                stream=True,
                cost_nanos=None,
                usage_source="estimated",
                first_token_ms=300,
                duration_ms=1_000,
            ),
            new_record(started_at_ms=NOON_MS - 30 * DAY_MS, model="too old"),
        ],
        [new_refusal(**ann, count=2), new_refusal(**bob, reason="model_not_allowed", count=1)],
    )


def test_a_report_has_what_it_promises(store: SQLiteStore) -> None:
    fill(store)
    report = stats(store, WEEK)
    assert (report["since"], report["until"]) == ("2026-11-15T12:00:00Z", "2026-11-23T12:00:00Z")
    assert report["totals"] == {
        "requests": 3,
        "errors": 1,
        "refused": 3,
        "prompt_tokens": 25,
        "completion_tokens": 15,
        "total_tokens": 40,
        "tokens": {**dict.fromkeys(BUCKETS, 0), "input_tokens": 20, "cache_read_tokens": 5}
        | {"output_tokens": 12, "reasoning_tokens": 3},
        "cost": 1.5000015,
        "unpriced_requests": 1,
        "error_rate": pytest.approx(1 / 3),
        "average_duration_ms": 500.0,
        "average_first_token_ms": 200.0,
        "duration_percentiles_ms": {
            "p50": pytest.approx(250, rel=0.1),
            **dict.fromkeys(("p90", "p95", "p99"), pytest.approx(1_000, rel=0.1)),
        },
        "first_token_percentiles_ms": {
            "p50": pytest.approx(100, rel=0.1),
            **dict.fromkeys(("p90", "p95", "p99"), pytest.approx(300, rel=0.1)),
        },
    }
    assert report["refusals"] == {"rate_limit_exceeded": 2, "model_not_allowed": 1}
    assert [group["model"] for group in report["by_model"]] == ["small-1", "large-2"]
    assert [group["provider"] for group in report["by_provider"]] == ["local", "far"]
    assert [(group["key_id"], group["name"]) for group in report["by_key"]] == [
        ("key_ann", "laptop"),
        ("key_bob", "ix-api-key-bobs"),
    ]
    assert [(group["user_id"], group["email"]) for group in report["by_user"]] == [
        ("user_ann", "ann@example.com"),
        ("user_bob", "bob@example.com"),
    ]
    assert [group["day"] for group in report["by_day"]] == ["2026-11-21", "2026-11-22"]
    assert [(group["status"], group["requests"], group["error_rate"]) for group in report["by_status"]] == [
        ("ok", 2, 0),
        ("provider_error", 1, 1),
    ]
    for name, extra in (("model", 1), ("provider", 1), ("key", 2), ("user", 2), ("day", 1), ("status", 1)):
        for group in report[f"by_{name}"]:
            assert set(group) >= FIGURES
            assert len(group) == len(FIGURES) + extra
        assert sum(group["requests"] for group in report[f"by_{name}"]) == 3
    assert report["recent"][-1] == {
        "id": "usage_bob",
        "request_id": "req_bob",
        "started_at": "2026-11-21T12:00:00Z",
        "status": "ok",
        "http_status": 200,
        "error_code": None,
        "key_id": "key_bob",
        "user_id": "user_bob",
        "user": "carol",
        "model_asked": "smart",
        "model": "large-2",
        "provider": "far",
        "stream": True,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost": None,
        "usage_source": "estimated",
        "first_token_ms": 300,
        "duration_ms": 1_000,
        "attempts": 1,
    }
    assert [record["cost"] for record in report["recent"]] == [0.0000015, 1.5, None]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_report_of_one_user_or_key_holds_nothing_of_others(store: SQLiteStore) -> None:
    fill(store)
    for which in (
        UsageFilter(WEEK.since_ms, WEEK.until_ms, user_id="user_bob"),
        UsageFilter(WEEK.since_ms, WEEK.until_ms, key_id="key_bob"),
    ):
        report = stats(store, which)
        assert report["totals"]["requests"] == 1
        assert report["refusals"] == {"model_not_allowed": 1}
        said = json.dumps(report)
        for other in ("ann", "laptop", "small-1", "rate_limit_exceeded"):
            assert other not in said


def test_a_report_of_nothing_is_whole(store: SQLiteStore) -> None:
    report = stats(store, WEEK)
    assert report["totals"]["requests"] == 0
    assert report["totals"]["cost"] == 0
    for figure in ("error_rate", "average_duration_ms", "duration_percentiles_ms", "first_token_percentiles_ms"):
        assert report["totals"][figure] is None
    assert [report[f"by_{name}"] for name in ("model", "provider", "key", "user", "day", "status")] == [[]] * 6
    assert (report["recent"], report["refusals"]) == ([], {})


def test_only_so_many_records_are_shown(store: SQLiteStore) -> None:
    store.add_usage([new_record() for _ in range(60)], ())
    assert len(stats(store, WEEK)["recent"]) == 50
    assert len(stats(store, WEEK, recent=2)["recent"]) == 2
    assert stats(store, WEEK)["totals"]["requests"] == 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", NOON_MS - 30_000),
        ("30m", NOON_MS - 30 * 60_000),
        ("24h", NOON_MS - DAY_MS),
        (" 7d ", NOON_MS - 7 * DAY_MS),
        ("2w", NOON_MS - 14 * DAY_MS),
        ("0d", NOON_MS),
        ("999999999w", 0),
        ("2026-11-22", NOON_MS - DAY_MS // 2),
        ("2026-11-22T12:00:00Z", NOON_MS),
        ("2026-11-22T13:30:00+01:30", NOON_MS),
        ("2026-11-22T11:59:59.999", NOON_MS - 1),
        ("1969-12-31", 0),
        ("0001-01-01T00:00:00+14:00", 0),
    ],
)
def test_a_report_may_begin(text: str, expected: int) -> None:
    assert parse_since(text, NOON_MS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "d",
        "-7d",
        "7 d",
        "7y",
        "1.5d",
        "\N{ARABIC-INDIC DIGIT SEVEN}d",
        "1234567890d",
        "yesterday",
        "2026-13-01",
        "2026-11-23",
        "9999-12-31",
    ],
)
def test_a_report_may_not_begin(text: str) -> None:
    with pytest.raises(GatewayError) as error:
        parse_since(text, NOON_MS)
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "since")


@given(text=st.text(max_size=30))
def test_no_beginning_fails_in_another_way(text: str) -> None:
    try:
        since_ms = parse_since(text, NOON_MS)
    except GatewayError:
        return
    assert 0 <= since_ms <= NOON_MS


@given(time_s=st.integers(0, 253_402_300_799))
def test_a_time_that_was_written_can_be_read(time_s: int) -> None:
    assert parse_since(iso_time(time_s * 1000), 10**15) == time_s * 1000


@pytest.mark.parametrize("time_ms", [-1, 10**40, 2**63])
def test_no_time_is_too_far_away_to_write(time_ms: int) -> None:
    assert iso_time(time_ms).endswith("Z")
