"""People: addresses, the first admin, limits in force, and what nobody but an admin may do to a key."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.accounts import users
from inferxgate.accounts.callers import Caller
from inferxgate.errors import GatewayError
from inferxgate.store.records import ApiKey, User
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
    key = new_key(rate_limit_rpm=own)
    assert users.effective_rpm(key, new_user(rate_limit_rpm=ceiling), DEFAULT) == in_force
    if ceiling is None:
        assert users.effective_rpm(key, None, DEFAULT) == in_force


@pytest.mark.parametrize(("ceiling", "in_force"), [(None, 60), (0, 0), (30, 30), (200, 200)])
def test_the_limit_in_force_on_someone_signed_in(ceiling: int | None, in_force: int) -> None:
    assert users.effective_rpm(None, new_user(rate_limit_rpm=ceiling), DEFAULT) == in_force


def test_a_default_without_limit() -> None:
    assert users.effective_rpm(new_key(), new_user(), 0) == 0
    assert users.effective_rpm(None, new_user(), 0) == 0
    assert users.effective_rpm(new_key(), new_user(rate_limit_rpm=30), 0) == 30


@given(own=RPM, ceiling=RPM, default=DEFAULTS)
def test_no_key_is_above_a_ceiling_that_was_set(own: int | None, ceiling: int | None, default: int) -> None:
    limit = amount(users.effective_rpm(new_key(rate_limit_rpm=own), new_user(rate_limit_rpm=ceiling), default))
    assert limit <= amount(default if own is None else own)
    if ceiling is not None:
        assert limit <= amount(ceiling)


def may(
    caller: Caller, changes: dict[str, Any], *, key: ApiKey | None = None, ceiling: int | None = None
) -> str | None:
    """None where it is allowed, else the field that is named."""
    user = new_user(id="user_1", rate_limit_rpm=ceiling)
    try:
        users.check_rights(caller, user, current_key=key, changes=changes, default_rpm=DEFAULT)
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
    assert may(PERSON, changes, ceiling=ceiling) == field
    assert may(ADMIN, changes, ceiling=ceiling) is None


@given(start=RPM, steps=st.lists(RPM, max_size=6), ceiling=RPM, default=DEFAULTS)
def test_no_series_of_changes_lets_a_key_do_more(
    start: int | None, steps: list[int | None], ceiling: int | None, default: int
) -> None:
    user = new_user(rate_limit_rpm=ceiling)
    key = new_key(rate_limit_rpm=start)
    for wanted in steps:
        changes = {"rate_limit_rpm": wanted}
        try:
            users.check_rights(PERSON, user, current_key=key, changes=changes, default_rpm=default)
        except GatewayError:
            continue
        changed = dataclasses.replace(key, rate_limit_rpm=wanted)
        for ceiling_later in (ceiling, 0, None):  # nor later, when the ceiling is lifted
            later = dataclasses.replace(user, rate_limit_rpm=ceiling_later)
            before = amount(users.effective_rpm(key, later, default))
            assert amount(users.effective_rpm(changed, later, default)) <= before
        key = changed


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
