"""What people type for limits and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import get_args

import pytest

from inferxgate.cli import values
from inferxgate.cli.failures import WrongUsage
from inferxgate.cli.options import Period
from inferxgate.store.records import BudgetPeriod

DAY_MS = 86_400_000


@pytest.mark.parametrize(("text", "value"), [(None, None), ("default", None), ("0", 0), ("60", 60)])
def test_limit(text: str | None, value: int | None) -> None:
    assert values.parse_limit(text, "rpm") == value


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "1e3", "٣", "99999999999"])
def test_limit_that_is_none(text: str) -> None:
    with pytest.raises(WrongUsage, match="--tpm must be a whole number from 0"):
        values.parse_limit(text, "tpm")


@pytest.mark.parametrize(
    ("rpm", "default", "shown"),
    [(None, 60, "60 (default)"), (None, 0, "unlimited (default)"), (0, 60, "unlimited"), (1200, 60, "1,200")],
)
def test_limit_for_people(rpm: int | None, default: int, shown: str) -> None:
    assert values.limit_words(rpm, default) == shown


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        (None, None),
        ("none", None),
        ("10", 10**10),
        ("10.50", 10_500_000_000),
        ("0.000000001", 1),
        ("1.5000000000", 1_500_000_000),  # a tenth decimal that says nothing
        ("1000000", 10**15),
        ("000001", 10**9),
    ],
)
def test_budget(text: str | None, nanos: int | None) -> None:
    assert values.parse_budget(text) == nanos


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", "--budget must be more than 0 dollars; 'none' is no budget"),
        ("0.00", "--budget must be more than 0 dollars; 'none' is no budget"),
        ("1000000.01", "--budget must be 1,000,000 dollars or less"),
        ("9" * 20, "--budget must be 1,000,000 dollars or less"),
        ("0.0000000001", "--budget may have at most 9 decimals"),
        ("1.0000000001", "--budget may have at most 9 decimals"),
        *(
            (text, f"--budget must be dollars, such as 10 or 10.50, or 'none', not '{text}'")
            for text in ("", "-1", "$5", "1,000", "1e3", "ten", "5.", ".5", "inf", "nan", "٣", "9" * 21)
        ),
    ],
)
def test_budget_that_is_none(text: str, told: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        values.parse_budget(text)
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("text", "names"), [(None, None), ("all", None), ("echo", ("echo",)), (" gpt-*, echo ,", ("gpt-*", "echo"))]
)
def test_models(text: str | None, names: tuple[str, ...] | None) -> None:
    assert values.parse_models(text) == names


@pytest.mark.parametrize(("text", "days"), [("1440m", 1), ("48h", 2), ("30d", 30), ("2w", 14), ("1y", 365)])
def test_an_expiry_from_now(text: str, days: int) -> None:
    before = values.now_ms()
    moment = values.parse_expiry(text)
    assert moment is not None
    assert before + days * DAY_MS <= moment <= values.now_ms() + days * DAY_MS


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2099-01-31", datetime(2099, 1, 31, tzinfo=UTC)),
        ("2099-01-31T12:00:00Z", datetime(2099, 1, 31, 12, tzinfo=UTC)),
        ("2099-01-31T12:00", datetime(2099, 1, 31, 12, tzinfo=UTC)),
        ("2099-01-31T12:00:00+02:00", datetime(2099, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_an_expiry_at_a_time(text: str, moment: datetime) -> None:
    assert values.parse_expiry(text) == round(moment.timestamp() * 1000)


@pytest.mark.parametrize("text", [None, "never"])
def test_no_expiry(text: str | None) -> None:
    assert values.parse_expiry(text) is None


@pytest.mark.parametrize("text", ["soon", "30", "d", "-1d", "1d2h", "2099-13-01", "", "9999999d"])
def test_an_expiry_that_is_none(text: str) -> None:
    with pytest.raises(WrongUsage, match=re.escape("a span such as 30d")):
        values.parse_expiry(text)


@pytest.mark.parametrize("text", ["2020-01-01", "0d", "1969-12-31"])
def test_an_expiry_in_the_past(text: str) -> None:
    with pytest.raises(WrongUsage, match="has passed already"):
        values.parse_expiry(text)


@pytest.mark.parametrize("text", ["99999y", "9999-12-31T23:59:59-14:00"])
def test_an_expiry_that_no_calendar_can_write(text: str) -> None:
    with pytest.raises(WrongUsage, match="later than the year 9999"):
        values.parse_expiry(text)


def test_an_expiry_before_all_calendars() -> None:
    with pytest.raises(WrongUsage, match="has passed already"):
        values.parse_expiry("0001-01-01T00:00:00+14:00")


def test_the_periods_of_the_options_are_those_of_the_store() -> None:
    assert get_args(Period) == get_args(BudgetPeriod)
