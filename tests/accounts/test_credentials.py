"""A credential leads to its holder as the store knows them now, or to a 401 that says no more than it may."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from inferxgate.accounts.callers import Caller
from inferxgate.accounts.credentials import resolve_key, resolve_token
from inferxgate.accounts.keys import new_secret
from inferxgate.accounts.tokens import Tokens
from inferxgate.config_sections import LimitSettings
from inferxgate.errors import GatewayError, StoreUnavailable
from inferxgate.store.records import Role
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.limits import Scope
from tests.support.stores import new_key, new_user

SECRET = new_secret()
NOW_MS = time.time_ns() // 1_000_000
TOKENS = Tokens("x" * 32, expires_seconds=3600)
USER = new_user(id="user_1", rate_limit_rpm=30)


def by_key(store: SQLiteStore, secret: str = SECRET) -> Caller:
    return resolve_key(store, secret, defaults=LimitSettings().of_keys, now_ms=NOW_MS)


def by_token(store: SQLiteStore, token: str, *, now_ms: int = NOW_MS) -> Caller:
    return resolve_token(store, TOKENS, token, defaults=LimitSettings().of_keys, now_ms=now_ms)


def add_key(store: SQLiteStore, **fields: Any) -> None:
    store.add_key(new_key(SECRET, id="key_1", **fields), keys_per_user=None)


def test_a_key_of_nobody_has_the_rights_of_a_user(store: SQLiteStore) -> None:
    add_key(store)
    assert by_key(store) == Caller(
        kind="key",
        key_id="key_1",
        user_id=None,
        role="user",
        scopes=(Scope("key", "key_1", 60),),
        allowed_models=None,
        expires_at_ms=None,
    )


@pytest.mark.parametrize("role", get_args(Role))
def test_a_key_has_the_role_of_its_user_and_its_own_limits(store: SQLiteStore, role: Role) -> None:
    store.add_user(dataclasses.replace(USER, role=role), first_is_admin=False)
    add_key(store, user_id="user_1", rate_limit_rpm=5, allowed_models=("gpt-*",), expires_at_ms=NOW_MS + 1)
    assert by_key(store) == Caller(
        kind="key",
        key_id="key_1",
        user_id="user_1",
        role=role,
        scopes=(Scope("key", "key_1", 5), Scope("user", "user_1", 30)),
        allowed_models=("gpt-*",),
        expires_at_ms=NOW_MS + 1,
    )


def test_a_key_without_a_limit_stays_under_the_ceiling_of_its_user(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    add_key(store, user_id="user_1")
    assert by_key(store).scopes == (Scope("key", "key_1", 30), Scope("user", "user_1", 30))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"revoked_at_ms": NOW_MS}, "revoked"),
        ({"blocked": True}, "blocked"),
        ({"expires_at_ms": NOW_MS}, "expired"),
        ({"expires_at_ms": 0}, "expired"),
    ],
)
def test_a_key_that_has_ended_says_why(store: SQLiteStore, fields: dict[str, Any], reason: str) -> None:
    add_key(store, **fields)
    with pytest.raises(GatewayError, match=reason) as error:
        by_key(store)
    assert (error.value.status, error.value.code) == (401, "invalid_api_key")
    assert SECRET not in error.value.message


@pytest.mark.parametrize("gone", ["disabled", "deleted"])
def test_a_key_ends_with_its_user(store: SQLiteStore, gone: str) -> None:
    store.add_user(USER, first_is_admin=False)
    add_key(store, user_id="user_1")
    by_key(store)
    if gone == "disabled":
        store.update_user("user_1", {"disabled": True})
    else:
        store.delete_user("user_1", now_ms=NOW_MS)
    with pytest.raises(GatewayError) as error:
        by_key(store)
    assert (error.value.status, error.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "secret",
    [new_secret(), SECRET[:-1], SECRET + "A", SECRET.lower(), "", "ix-api-key-", "' OR 1=1 --", "\ud800", "x" * 10**6],
    ids=["another key", "one short", "one long", "lower case", "empty", "bare mark", "SQL", "surrogate", "huge"],
)
def test_a_secret_that_was_never_one_is_only_unknown(store: SQLiteStore, secret: str) -> None:
    add_key(store)
    with pytest.raises(GatewayError) as error:
        by_key(store, secret)
    assert (error.value.status, error.value.code) == (401, "invalid_api_key")
    assert error.value.message == "Invalid API key provided."


def test_the_hash_of_a_key_is_no_key(store: SQLiteStore) -> None:
    add_key(store)
    key = store.key("key_1")
    assert key is not None
    for stolen in (key.key_hash, "ix-api-key-" + key.key_hash, key.key_prefix):
        with pytest.raises(GatewayError):
            by_key(store, stolen)


def test_a_token_has_the_rights_that_its_user_has_now(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    token = TOKENS.issue(USER, NOW_MS / 1000)
    expected = Caller(
        kind="jwt",
        key_id=None,
        user_id="user_1",
        role="user",
        scopes=(Scope("user", "user_1", 30),),
        allowed_models=None,
        expires_at_ms=(NOW_MS // 1000 + 3600) * 1000,
    )
    assert by_token(store, token) == expected
    store.update_user("user_1", {"role": "admin", "rate_limit_rpm": None})
    assert by_token(store, token) == dataclasses.replace(expected, role="admin", scopes=(Scope("user", "user_1", 60),))


def test_a_role_in_the_token_is_not_believed(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    token = TOKENS.issue(dataclasses.replace(USER, role="admin"), NOW_MS / 1000)
    assert by_token(store, token).role == "user"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"disabled": True}, "disabled"), ({"token_version": 2}, "password has been changed")],
)
def test_a_token_ends_with_what_it_was_issued_for(store: SQLiteStore, changes: dict[str, Any], reason: str) -> None:
    store.add_user(USER, first_is_admin=False)
    token = TOKENS.issue(USER, NOW_MS / 1000)
    store.update_user("user_1", changes)
    with pytest.raises(GatewayError, match=reason) as error:
        by_token(store, token)
    assert (error.value.status, error.value.code) == (401, "invalid_token")


def test_a_token_of_nobody_and_one_that_has_expired_are_refused(store: SQLiteStore) -> None:
    token = TOKENS.issue(USER, NOW_MS / 1000)
    with pytest.raises(GatewayError) as error:
        by_token(store, token)
    assert error.value.code == "invalid_token"
    store.add_user(USER, first_is_admin=False)
    with pytest.raises(GatewayError, match="expired") as error:
        by_token(store, token, now_ms=NOW_MS + 3_600_000)
    assert error.value.code == "invalid_token"


def test_a_store_that_cannot_be_read_is_not_a_bad_credential(store: SQLiteStore, path: Path) -> None:
    store.add_user(USER, first_is_admin=False)
    add_key(store)
    token = TOKENS.issue(USER, NOW_MS / 1000)
    path.rename(path.with_name("gone.db"))
    with pytest.raises(StoreUnavailable):
        by_key(store)
    with pytest.raises(StoreUnavailable):
        by_token(store, token)
    with pytest.raises(GatewayError):
        by_key(store, "mistyped")
