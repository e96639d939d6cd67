"""People: addresses, the first admin, limits in force, and what nobody but an admin may do to a key."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inferxgate.accounts import users
from inferxgate.accounts.callers import Caller
from inferxgate.errors import GatewayError
from inferxgate.store.records import ApiKey, BudgetPeriod, User
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.limits import Scope
from tests.support.stores import new_key, new_user

DEFAULT = 60

PERSON = Caller(
    kind="jwt",
    key_id=None,
    user_id="user_1",
    role="user",
    scopes=(Scope("user", "user_1", DEFAULT),),
    allowed_models=None,
    expires_at_ms=None,
)
ADMIN = dataclasses.replace(PERSON, role="admin")

DEFAULTS_OF_KEYS = {"rate_limit_rpm": DEFAULT, "rate_limit_tpm": 0, "max_parallel_requests": 4}

RPM = st.one_of(st.none(), st.just(0), st.integers(1, 200))
DEFAULTS = st.one_of(st.just(0), st.integers(1, 200))


def amount(rpm: int) -> float:
    """Requests a minute in force, as a number that can be compared."""
    return math.inf if rpm == 0 else rpm


@pytest.mark.parametrize(
    ("given_", "stored"),
    [
        ("ann@example.com", "ann@example.com"),
        ("  Ann.B+tag@Example.COM ", "ann.b+tag@example.com"),
        ("ÜBER@EXÄMPLE.de", "über@exämple.de"),
        ("u\u0308ber@example.com", "über@example.com"),
        ("a@b", "a@b"),
        ("x" * 242 + "@example.com", "x" * 242 + "@example.com"),
    ],
)
def test_an_address_is_kept_in_one_form(given_: str, stored: str) -> None:
    assert users.validate_email(given_) == stored
    assert users.validate_email(stored) == stored


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ann",
        "@",
        "ann@",
        "@example.com",
        "a@b@c",
        "a b@example.com",
        "a\u00a0b@example.com",
        "ann@example.com\r\nBcc: all",
        "a\x00@example.com",
        "\ud800@example.com",
        "a\u202e@example.com",
        "x" * 243 + "@example.com",
        "İ" * 240 + "@example.com",
        "x" * 10_000 + "@example.com",
        None,
        5,
        ["ann@example.com"],
    ],
    ids=lambda value: repr(value)[:25],
)
def test_what_is_no_address_is_refused(value: object) -> None:
    with pytest.raises(GatewayError) as error:
        users.validate_email(value)
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "email")
    assert len(error.value.message) < 200


def register(store: SQLiteStore, email: str, **fields: Any) -> User:
    return users.register(store, email=email, password_hash="hash", username="Ann", **fields)


def test_the_first_user_becomes_admin_and_no_later_one(store: SQLiteStore) -> None:
    first, second = register(store, "ann@example.com"), register(store, "bob@example.com")
    assert (first.role, second.role) == ("admin", "user")
    assert store.users() == [first, second]
    assert (first.email, first.username, first.password_hash) == ("ann@example.com", "Ann", "hash")
    assert (first.disabled, first.token_version, first.rate_limit_rpm) == (False, 1, None)
    assert first.id.startswith("user_")


def test_a_role_that_is_asked_for_is_given(store: SQLiteStore) -> None:
    assert register(store, "ann@example.com", role="user").role == "user"
    assert register(store, "bob@example.com", role="admin").role == "admin"
    assert register(store, "cid@example.com").role == "user"


def test_an_address_is_taken_once(store: SQLiteStore) -> None:
    register(store, "ann@example.com")
    with pytest.raises(GatewayError) as error:
        register(store, "ann@example.com")
    assert (error.value.status, error.value.code, error.value.param) == (409, "email_taken", "email")


def test_a_new_password_ends_what_was_issued_for_the_old_one(store: SQLiteStore) -> None:
    user = register(store, "ann@example.com")
    changed = users.set_password(store, user, "new hash")
    assert changed is not None
    assert (changed.password_hash, changed.token_version) == ("new hash", 2)
    assert store.user(user.id) == changed
    assert users.set_password(store, new_user(), "x") is None


@pytest.mark.parametrize(
    ("own", "ceiling", "in_force"),
    [
        (None, None, 60),
        (0, None, 0),
        (10, None, 10),
        (1_000, None, 1_000),
        (None, 0, 60),
        (0, 0, 0),
        (1_000, 0, 1_000),
        (None, 30, 30),
        (0, 30, 30),
        (10, 30, 10),
        (1_000, 30, 30),
        (None, 200, 60),
        (150, 200, 150),
    ],
)
def test_the_limit_in_force_on_a_key(own: int | None, ceiling: int | None, in_force: int) -> None:
    assert users.effective_limit(own, ceiling, DEFAULT) == in_force


def test_a_default_without_limit() -> None:
    assert users.effective_limit(None, None, 0) == 0
    assert users.effective_limit(None, 30, 0) == 30


@given(own=RPM, ceiling=RPM, default=DEFAULTS)
def test_no_key_is_above_a_ceiling_that_was_set(own: int | None, ceiling: int | None, default: int) -> None:
    limit = amount(users.effective_limit(own, ceiling, default))
    assert limit <= amount(default if own is None else own)
    if ceiling is not None:
        assert limit <= amount(ceiling)


def may(caller: Caller, changes: dict[str, Any], *, key: ApiKey | None = None, **ceilings: Any) -> str | None:
    """None where it is allowed, else the field that is named."""
    user = new_user(id="user_1", **ceilings)
    try:
        users.check_rights(caller, user, current_key=key, changes=changes, defaults=DEFAULTS_OF_KEYS)
    except GatewayError as refused:
        error = refused
    else:
        return None
    assert (error.status, error.code, error.type) == (403, "forbidden", "permission_error")
    assert error.param is not None
    return error.param


LIMITED = new_key(rate_limit_rpm=10, allowed_models=("gpt-*", "o3"), expires_at_ms=1_000)
OPEN = new_key()
REFUSED_CHANGES: list[tuple[ApiKey, dict[str, Any], str]] = [
    (LIMITED, {"rate_limit_rpm": 11}, "rate_limit_rpm"),
    (LIMITED, {"rate_limit_rpm": 0}, "rate_limit_rpm"),
    (LIMITED, {"rate_limit_rpm": None}, "rate_limit_rpm"),
    (OPEN, {"rate_limit_rpm": 61}, "rate_limit_rpm"),
    (OPEN, {"rate_limit_rpm": 0}, "rate_limit_rpm"),
    (LIMITED, {"allowed_models": None}, "allowed_models"),
    (LIMITED, {"allowed_models": ("o3", "claude-3")}, "allowed_models"),
    (LIMITED, {"allowed_models": ("*",)}, "allowed_models"),
    (LIMITED, {"allowed_models": ("gpt*",)}, "allowed_models"),
    (LIMITED, {"expires_at_ms": 1_001}, "expires_at"),
    (LIMITED, {"expires_at_ms": None}, "expires_at"),
    (OPEN, {"blocked": True}, "blocked"),
    (OPEN, {"blocked": False}, "blocked"),
    (OPEN, {"user_id": "user_2"}, "user_id"),
    (OPEN, {"user_id": None}, "user_id"),
    (OPEN, {"name": "fine", "user_id": "user_1"}, "user_id"),
]
ALLOWED_CHANGES: list[tuple[ApiKey, dict[str, Any]]] = [
    (LIMITED, {}),
    (LIMITED, {"name": "new"}),
    (LIMITED, {"rate_limit_rpm": 10, "allowed_models": ("gpt-*", "o3"), "expires_at_ms": 1_000}),
    (LIMITED, {"rate_limit_rpm": 1}),
    (LIMITED, {"allowed_models": ("gpt-4*", "gpt-?", "gpt-4o")}),
    (LIMITED, {"expires_at_ms": 5}),
    (OPEN, {"rate_limit_rpm": 60, "allowed_models": ("*",), "expires_at_ms": 2**60}),
    (OPEN, {"rate_limit_rpm": None}),
    (new_key(rate_limit_rpm=1_000), {"rate_limit_rpm": 1_000}),  # set by an admin, sent back as it was
]


@pytest.mark.parametrize(("key", "changes", "field"), REFUSED_CHANGES, ids=range(len(REFUSED_CHANGES)))
def test_what_only_an_admin_may_change(key: ApiKey, changes: dict[str, Any], field: str) -> None:
    assert may(PERSON, changes, key=key) == field
    assert may(ADMIN, changes, key=key) is None


@pytest.mark.parametrize(("key", "changes"), ALLOWED_CHANGES, ids=range(len(ALLOWED_CHANGES)))
def test_what_an_owner_may_change(key: ApiKey, changes: dict[str, Any]) -> None:
    assert may(PERSON, changes, key=key) is None


@pytest.mark.parametrize(
    ("changes", "ceiling", "field"),
    [
        ({}, None, None),
        ({"name": "x", "allowed_models": None, "expires_at_ms": None, "rate_limit_rpm": None}, None, None),
        ({"rate_limit_rpm": None}, 30, None),
        ({"rate_limit_rpm": 60}, None, None),
        ({"rate_limit_rpm": 61}, None, "rate_limit_rpm"),
        ({"rate_limit_rpm": 0}, None, "rate_limit_rpm"),
        ({"rate_limit_rpm": 30}, 30, None),
        ({"rate_limit_rpm": 31}, 30, "rate_limit_rpm"),
        ({"rate_limit_rpm": 0}, 30, "rate_limit_rpm"),
        ({"rate_limit_rpm": 200}, 200, None),
        ({"rate_limit_rpm": 0}, 0, None),
        ({"rate_limit_rpm": 10**9}, 0, None),
        ({"blocked": False}, None, "blocked"),
        ({"user_id": "user_1"}, None, "user_id"),
    ],
    ids=str,
)
def test_a_new_key_stays_under_the_ceiling(changes: dict[str, Any], ceiling: int | None, field: str | None) -> None:
    assert may(PERSON, changes, rate_limit_rpm=ceiling) == field
    assert may(ADMIN, changes, rate_limit_rpm=ceiling) is None


@pytest.mark.parametrize(
    ("changes", "ceiling", "field"),
    [
        # the gateway's own default is no limit, so without a ceiling all is allowed
        ({"rate_limit_tpm": 0}, None, None),
        ({"rate_limit_tpm": 10**9}, None, None),
        ({"rate_limit_tpm": 500}, 500, None),
        ({"rate_limit_tpm": 501}, 500, "rate_limit_tpm"),
        ({"rate_limit_tpm": 0}, 500, "rate_limit_tpm"),
        ({"rate_limit_tpm": None}, 500, None),
        # of requests at once, the default is the most that a user may ask for
        ({"max_parallel_requests": 4}, None, None),
        ({"max_parallel_requests": None}, None, None),
        ({"max_parallel_requests": 5}, None, "max_parallel_requests"),
        ({"max_parallel_requests": 0}, None, "max_parallel_requests"),
    ],
    ids=str,
)
def test_each_limit_has_its_own_ceiling(changes: dict[str, Any], ceiling: int | None, field: str | None) -> None:
    assert may(PERSON, changes, rate_limit_tpm=ceiling, rate_limit_rpm=1) == field
    assert may(ADMIN, changes, rate_limit_tpm=ceiling, rate_limit_rpm=1) is None


@pytest.mark.parametrize("limit", DEFAULTS_OF_KEYS)
@given(start=RPM, steps=st.lists(RPM, max_size=6), ceiling=RPM, default=DEFAULTS)
def test_no_series_of_changes_lets_a_key_do_more(
    limit: str, start: int | None, steps: list[int | None], ceiling: int | None, default: int
) -> None:
    user = new_user() if limit == "max_parallel_requests" else new_user(**{limit: ceiling})
    at_first: dict[str, Any] = {limit: start}
    key = new_key(**at_first)
    for wanted in steps:
        changes: dict[str, Any] = {limit: wanted}
        defaults = dict.fromkeys(DEFAULTS_OF_KEYS, 1) | {limit: default}
        try:
            users.check_rights(PERSON, user, current_key=key, changes=changes, defaults=defaults)
        except GatewayError:
            continue
        for ceiling_later in (ceiling, 0, None):  # nor later, when the ceiling is lifted
            before = amount(users.effective_limit(getattr(key, limit), ceiling_later, default))
            assert amount(users.effective_limit(wanted, ceiling_later, default)) <= before
        key = dataclasses.replace(key, **changes)


TEN_A_WEEK: dict[str, Any] = {"max_budget_nanos": 10, "budget_period": "week"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, None),
        ({"max_budget_nanos": None}, None),  # then that of the user alone holds
        ({"budget_period": "day"}, None),  # of nothing
        ({"max_budget_nanos": 10, "budget_period": "week"}, None),
        ({"max_budget_nanos": 11, "budget_period": "week"}, "max_budget"),
        ({"max_budget_nanos": 10}, None),  # in total: so in no week more
        ({"max_budget_nanos": 11}, "max_budget"),
        ({"max_budget_nanos": 10, "budget_period": "day"}, "budget_period"),
        ({"max_budget_nanos": 1, "budget_period": "day"}, "budget_period"),
        ({"max_budget_nanos": 10, "budget_period": "month"}, "budget_period"),  # a week may lie in two months
    ],
    ids=str,
)
def test_a_new_key_stays_within_the_budget_of_the_user(changes: dict[str, Any], field: str | None) -> None:
    assert may(PERSON, changes, **TEN_A_WEEK) == field
    assert may(ADMIN, changes, **TEN_A_WEEK) is None
    assert may(PERSON, changes) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_budget_nanos": 11}, "max_budget"),
        ({"max_budget_nanos": None}, "max_budget"),
        ({"max_budget_nanos": None, "budget_period": "total"}, "max_budget"),
        ({"budget_period": "day"}, "budget_period"),
        ({"budget_period": "month"}, "budget_period"),
        ({"max_budget_nanos": 5, "budget_period": "day"}, "budget_period"),
        ({"max_budget_nanos": 10, "budget_period": "week"}, None),
        ({"max_budget_nanos": 9}, None),
        ({"budget_period": "total"}, None),
        ({"max_budget_nanos": 1, "budget_period": "total"}, None),
    ],
    ids=str,
)
def test_no_owner_raises_the_budget_of_a_key(changes: dict[str, Any], field: str | None) -> None:
    assert may(PERSON, changes, key=new_key(**TEN_A_WEEK)) == field
    assert may(ADMIN, changes, key=new_key(**TEN_A_WEEK)) is None


def test_a_budget_that_an_admin_set_above_the_ceiling_may_be_sent_back_as_it_was() -> None:
    key = new_key(**TEN_A_WEEK)
    assert may(PERSON, TEN_A_WEEK, key=key, max_budget_nanos=5) is None
    assert may(PERSON, {"max_budget_nanos": 9}, key=key, max_budget_nanos=5) == "max_budget"


PERIODS: tuple[BudgetPeriod, ...] = ("total", "month", "week", "day")
BUDGETS = st.builds(users.Budget, st.integers(1, 3), st.sampled_from(PERIODS))
# Around the ends of months and weeks: the first of February 2026 is a Sunday.
DAYS = st.lists(st.integers(-8, 2).map(lambda days: date(2026, 2, 1) + timedelta(days)), max_size=8)


def window(day: date, period: BudgetPeriod) -> object:
    """What tells the period that a day lies in from every other one."""
    match period:
        case "month":
            return (day.year, day.month)
        case "week":
            return day.isocalendar()[:2]
        case "day":
            return day
        case _:
            return None


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("other_period", PERIODS)
@given(amounts=st.tuples(*[st.integers(1, 3)] * 2), days=DAYS)
@example(amounts=(1, 1), days=[date(2026, 1, 31), date(2026, 2, 1)])
def test_whoever_keeps_to_a_budget_keeps_to_the_one_it_is_within(
    period: BudgetPeriod, other_period: BudgetPeriod, amounts: tuple[int, int], days: list[date]
) -> None:
    one, other = users.Budget(amounts[0], period), users.Budget(amounts[1], other_period)
    spent: Counter[object] = Counter()
    kept = []
    for day in sorted(days):  # a nano-dollar on each, as often as it is there and the first budget lets it
        if spent[window(day, one.period)] < one.nanos:
            spent[window(day, one.period)] += 1
            kept.append(day)
    most = max(Counter(window(day, other.period) for day in kept).values(), default=0)
    if users.is_within(one, other):
        assert most <= other.nanos


@given(start=st.none() | BUDGETS, steps=st.lists(st.none() | BUDGETS, max_size=6), ceiling=st.none() | BUDGETS)
def test_no_series_of_changes_lets_a_key_spend_more(
    start: users.Budget | None, steps: list[users.Budget | None], ceiling: users.Budget | None
) -> None:
    def fields(budget: users.Budget | None) -> dict[str, Any]:
        return {} if budget is None else {"max_budget_nanos": budget.nanos, "budget_period": budget.period}

    key = new_key(**fields(start))
    for wanted in steps:
        changes = fields(wanted) or {"max_budget_nanos": None}
        if may(PERSON, changes, key=key, **fields(ceiling)) is None:
            key = dataclasses.replace(key, **changes)
    now = users.budget_of(key)
    if start is not None:
        assert now is not None
        assert users.is_within(now, start)
    if now not in (start, None) and ceiling is not None:
        assert now is not None
        assert users.is_within(now, ceiling)


LETTERS = "ab*?[]!-"
RULES = st.text(LETTERS, min_size=1, max_size=6)


@settings(max_examples=300)
@given(data=st.data(), rule=RULES)
def test_narrower_models_match_no_name_that_the_old_ones_did_not(data: st.DataObject, rule: str) -> None:
    likely = st.text(LETTERS, max_size=3).map(lambda text: rule.replace("*", text).replace("?", text[:1]) or "a")
    new = data.draw(st.one_of(RULES, likely))
    name = data.draw(st.text(LETTERS, max_size=3).map(lambda text: new.replace("*", text).replace("?", text[:1])))
    if may(PERSON, {"allowed_models": (new,)}, key=new_key(allowed_models=(rule,))) is not None:
        return
    if fnmatch.fnmatchcase(name, new):
        assert fnmatch.fnmatchcase(name, rule)
