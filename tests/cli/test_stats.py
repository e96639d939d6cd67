"""Usage and cost for people, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import re
import sqlite3
import time
from dataclasses import replace

import pytest

from inferxgate.canonical.usage import Usage
from inferxgate.ids import new_id
from inferxgate.store.records import Refusal, UsageRecord
from inferxgate.workers.health import CircuitKey
from tests.cli.records import add_key, add_user, opened
from tests.support.health import health_in
from tests.support.terminal import CommandLine, without_colour

DAY_MS = 86_400_000
P95 = "845"
"""What the histogram makes of 840 ms."""


def record(model: str, tokens: int, cost: float | None, *, days_ago: float = 0, **more: str | None) -> UsageRecord:
    return UsageRecord(
        id=new_id("use_"),
        request_id=new_id("req_"),
        started_at_ms=time.time_ns() // 1_000_000 - int(days_ago * DAY_MS) - 1_000,
        status="provider_error" if cost is None and not tokens else "ok",
        http_status=200,
        error_code=None,
        key_id=more.get("key_id"),
        user_id=more.get("user_id"),
        end_user=None,
        model_asked=model,
        model=model,
        provider="fake",
        stream=True,
        usage=Usage(input_tokens=tokens, output_tokens=tokens // 2),
        usage_source="provider",
        cost_nanos=None if cost is None else round(cost * 1e9),
        price_version=None,
        first_token_ms=120,
        duration_ms=840,
    )


@pytest.fixture
def used(cli: CommandLine) -> CommandLine:
    ann = add_user(cli)
    key, _ = add_key(cli, "laptop", user=ann)
    nobodys, _ = add_key(cli)
    records = [
        record("big", 8_000, 3.0, key_id=key.id, user_id=ann.id),
        record("big", 4_000, 1.0, days_ago=2, key_id=key.id, user_id=ann.id),
        record("small", 1_000, 1.0, key_id=nobodys.id),
        record("odd", 600, None),
        record("small", 0, None, key_id=nobodys.id),
        record("old", 100_000, 50.0, days_ago=30),
    ]
    minute = time.time_ns() // 1_000_000 // 60_000 * 60_000
    with opened(cli) as store:
        store.add_usage(records, [Refusal("test", minute, key.id, ann.id, "rate_limit_exceeded", 7)])
    return cli


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.partition("\n\n")[2].partition("\n\n")[2].splitlines()]


def test_the_last_week_by_model(used: CommandLine) -> None:
    out = used.well("stats").out
    assert "Requests     5, 1 failed\n" in out
    assert "Refused      7 (rate_limit_exceeded 7)\n" in out
    assert "Tokens       20,400: 13,600 in, 6,800 out\n" in out
    assert "Cost         $5.00, and 1 request whose price is unknown\n" in out
    assert re.search(r"^Time +840 ms on average; p50 (8\d\d), p90 \1, p95 \1, p99 \1$", out, re.MULTILINE)
    assert re.search(r"^First token +120 ms on average; p50 (1[12]\d), p90 \1, p95 \1, p99 \1$", out, re.MULTILINE)
    assert table(out) == [
        ["MODEL", "REQUESTS", "ERRORS", "TOKENS", "COST", "P95", "MS"],
        ["big", "2", "0", "18,000", "$4.00", P95],
        ["small", "2", "1", "1,500", "$1.00", P95],
        ["odd", "1", "0", "900", "$0.00+?", P95],
    ]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("provider", ["fake"]),
        ("key", ["laptop", "ix-api-key", "(no"]),
        ("user", ["ann@example.com", "(nobody)"]),
        ("status", ["ok", "provider_error"]),
        ("day", None),
    ],
)
def test_other_groups(used: CommandLine, by: str, names: list[str] | None) -> None:
    rows = table(used.well("stats", "--by", by).out)
    assert rows[0][0] == by.upper()
    found = [row[0] for row in rows[1:]]
    if names is None:
        assert found == sorted(found)
        assert len(found) >= 2
    else:
        assert len(found) == len(names)
        assert all(each.startswith(name) for each, name in zip(found, names, strict=True)), found


def test_a_longer_span(used: CommandLine) -> None:
    assert "$55.00" in used.well("stats", "--since", "60d").out
    assert "$4.00" in used.well("stats", "--since", "24h").out


def test_json_is_the_report_of_the_interface(used: CommandLine) -> None:
    report = used.well("stats", "--json").json
    groups = ["by_model", "by_provider", "by_key", "by_user", "by_day", "by_status"]
    assert list(report) == ["since", "until", "totals", *groups, "recent", "refusals", "targets"]
    assert report["totals"]["cost"] == 5.0
    assert [group["model"] for group in report["by_model"]] == ["big", "small", "odd"]


def test_what_is_left_alone_now_is_told_and_nothing_where_all_is_well(cli: CommandLine) -> None:
    assert "left alone" not in cli.well("stats").out
    with health_in(cli.data_dir) as health:
        health.failed(CircuitKey("openai", "gpt-4o", "0a1b"), "upstream_error")
        health.set_aside(CircuitKey("groq", "", "2c3d"), "upstream_auth_error")
    page = cli.well("stats").out.partition("Targets that are left alone now:\n\n")[2].splitlines()
    assert [re.split(" {2,}", line) for line in page] == [
        ["TARGET", "KEY", "STATE", "SINCE", "LAST ERROR"],
        ["groq/*", "2c3d", "set aside 10 h", "just now", "upstream_auth_error"],
        ["openai/gpt-4o", "0a1b", "open 60 min", "just now", "upstream_error"],
    ]
    targets = cli.well("stats", "--json").json["targets"]
    assert [(each["provider"], each["model"], each["credential"], each["state"]) for each in targets] == [
        ("groq", None, "2c3d", "set_aside"),
        ("openai", "gpt-4o", "0a1b", "open"),
    ]
    assert all(each["until"] > each["since"] for each in targets)
    with cli.on_terminal("stats") as terminal:
        assert terminal.end() == 0
    assert max(map(len, without_colour(terminal.seen).splitlines())) <= 80


def test_csv_has_a_line_for_each_group(used: CommandLine) -> None:
    rows = list(csv.DictReader(used.well("stats", "--csv", "--by", "user").out.splitlines()))
    assert [(row["email"], row["requests"], row["cost"]) for row in rows] == [
        ("ann@example.com", "2", "4"),
        ("", "3", "1"),
    ]
    rows = list(csv.DictReader(used.well("stats", "--csv").out.splitlines()))
    assert [(row["model"], row["total_tokens"]) for row in rows] == [
        ("big", "18000"),
        ("small", "1500"),
        ("odd", "900"),
    ]
    big = rows[0]
    assert (big["error_rate"], big["input_tokens"], big["output_tokens"]) == ("0", "12000", "6000")
    assert (big["duration_p95_ms"], big["first_token_p50_ms"]) == (P95, "114.6")


def test_csv_has_plain_decimals(cli: CommandLine) -> None:
    with opened(cli) as store:
        records = [record("tiny", 1, 0.000_002), record("tiny", 1, 0.0), record("tiny", 1, 0.0)]
        store.add_usage([replace(records[0], duration_ms=841), *records[1:]], [])
        store.add_usage([replace(record("none", 0, 0.0), first_token_ms=None)], [])
    by_model = {row["model"]: row for row in csv.DictReader(cli.well("stats", "--csv").out.splitlines())}
    assert (by_model["tiny"]["cost"], by_model["tiny"]["average_duration_ms"]) == ("0.000002", "840.3")
    assert (by_model["none"]["cost"], by_model["none"]["average_first_token_ms"]) == ("0", "")


def test_a_terminal_shows_fifty_groups_and_the_rest_as_one(cli: CommandLine) -> None:
    with opened(cli) as store:
        store.add_usage([record(f"m{number:02}", 100, float(60 - number)) for number in range(53)], [])
    with cli.on_terminal("stats", columns=100) as terminal:
        assert terminal.end() == 0
        rows = [line.split() for line in without_colour(terminal.seen).splitlines() if "$" in line][1:]
    assert [row[0] for row in rows] == [*(f"m{number:02}" for number in range(50)), "(others)"]
    assert rows[-1] == ["(others)", "3", "0", "450", "$27.00"]
    assert cli.well("stats", "--csv").out.count("\n") == 54
    assert len(cli.well("stats", "--json").json["by_model"]) == 53


def test_a_terminal_gets_bars_in_proportion(used: CommandLine) -> None:
    with used.on_terminal("stats") as terminal:
        assert terminal.end() == 0
        seen = without_colour(terminal.seen)
    assert "Share of cost" in seen
    bars = {line.split()[0]: line.count("█") for line in seen.splitlines() if "█" in line}
    assert bars == {"big": 20, "small": 5}
    assert "█" not in used.well("stats").out


def test_nothing_used_yet(cli: CommandLine) -> None:
    out = cli.well("stats").out
    assert "Requests  0, 0 failed" in out
    assert "MODEL" not in out
    assert cli.well("stats", "--csv").out.count("\n") == 1
    assert cli.well("stats", "--json").json["totals"]["requests"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "soon"], "--since must be a span such as 30m, 24h or 7d"),
        (["--since", "2099-01-01"], "--since lies in the future"),
        (["--json", "--csv"], "--json and --csv exclude each other: give one"),
        (["--json", "verify"], "Write the options of verify behind it"),
        (["verifi"], "No such command 'verifi': there is verify"),
    ],
)
def test_wrong_usage(cli: CommandLine, arguments: list[str], message: str) -> None:
    assert message in cli.fails("stats", *arguments, code=2)


def test_verify_says_that_all_agree(used: CommandLine) -> None:
    out = used.well("stats", "verify").out
    assert re.search(r"^Records +6 added up again$", out, re.MULTILINE)
    assert re.search(r"^Hours +[56] compared with their records$", out, re.MULTILINE)
    assert re.search(r"^Spend +3 keys and users compared with the days$", out, re.MULTILINE)
    assert re.search(r"^Result +all agree$", out, re.MULTILINE)
    found = used.well("stats", "verify", "--json").json
    assert (found["agrees"], found["records"], found["records_since"]) == (True, 6, None)
    assert (found["disagreement_count"], found["disagreements"]) == (0, [])


def test_verify_tells_what_does_not_agree(used: CommandLine) -> None:
    with opened(used) as store:
        (spent,) = store.spend_since("user", 0).items()
    with sqlite3.connect(used.data_dir / "inferxgate.db") as connection:
        connection.execute("UPDATE user_spend SET cost_nanos = cost_nanos + 1")
    connection.close()
    ended = used.run("stats", "verify")
    assert ended.code == 1
    assert "1 figure of the store does not agree" in ended.err
    row = ["user_spend", spent[0], "cost_nanos", str(spent[1]), str(spent[1] + 1)]
    assert [line.split() for line in ended.out.splitlines()][-1] == row
    ended = used.run("stats", "verify", "--json")
    assert ended.code == 1
    expected = {"what": "user_spend", "of": spent[0], "field": "cost_nanos"}
    [told] = ended.json["disagreements"]
    assert told == {**expected, "expected": spent[1], "found": spent[1] + 1}
    assert ended.json["agrees"] is False
