"""Users and keys: what is stored comes back, changes are whole, and the stamp moves with what matters."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.errors import StoreUnavailable
from inferxgate.store.protocol import EmailTaken, KeyLimitReached, OwnerMissing, Store
from inferxgate.store.records import ApiKey, User
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import NOON_MS, new_key, new_record, new_store, new_user

Change = Callable[[SQLiteStore, User, ApiKey], object]

USER = new_user(id="user_1", email="ann@example.com")
KEY = new_key(id="key_1", user_id="user_1")


def test_it_is_a_store(store: SQLiteStore) -> None:
    as_protocol: Store = store
    assert as_protocol.users() == []


def test_users_come_back_as_they_went(store: SQLiteStore) -> None:
    users = [
        new_user(username="Ann", role="admin", disabled=True, token_version=7, rate_limit_rpm=0, created_at_ms=2),
        new_user(created_at_ms=1, email="über@example.com"),
    ]
    for user in users:
        assert store.add_user(user, first_is_admin=False) == user
    assert [store.user(user.id) for user in users] == users
    assert [store.user_by_email(user.email) for user in users] == users
    assert store.users() == list(reversed(users)), "oldest first"


def test_keys_come_back_as_they_went(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    keys = [
        new_key(
            user_id="user_1",
            name="laptop 💻",
            rate_limit_rpm=0,
            allowed_models=("gpt-*", "é"),
            expires_at_ms=5,
            blocked=True,
            last_used_at_ms=3,
        ),
        new_key(created_at_ms=1),
    ]
    for key in keys:
        store.add_key(key, keys_per_user=None)
    assert [store.key(key.id) for key in keys] == keys
    assert [store.key_by_hash(key.key_hash) for key in keys] == keys
    assert store.keys() == list(reversed(keys)), "oldest first"
    assert store.keys(user_id="user_1") == keys[:1]


@pytest.mark.parametrize("word", ["nobody", "", "' OR 1=1 --", "a\x00b", "\ud800", "x" * 100_000])
def test_what_is_not_there_is_not_found(store: SQLiteStore, word: str) -> None:
    store.add_user(USER, first_is_admin=False)
    store.add_key(KEY, keys_per_user=None)
    assert store.user(word) is None
    assert store.user_by_email(word) is None
    assert store.key(word) is None
    assert store.key_by_hash(word) is None
    assert store.keys(user_id=word) == []
    assert store.update_user(word, {"role": "admin"}) is None
    assert store.update_key(word, {"blocked": True}) is None
    assert store.delete_user(word, now_ms=1) is False
    assert store.spend_by_key([word], now_ms=NOON_MS) == {}


@settings(max_examples=50, deadline=None)
@given(name=st.text(max_size=50), model=st.text(min_size=1, max_size=20))
def test_any_text_is_stored_as_text(name: str, model: str) -> None:
    key = new_key(name=name, allowed_models=(model,))
    with new_store() as store:
        store.add_key(key, keys_per_user=None)
        assert store.key(key.id) == key


def test_only_the_very_first_user_becomes_admin(store: SQLiteStore) -> None:
    assert store.add_user(new_user(), first_is_admin=True).role == "admin"
    assert store.add_user(new_user(), first_is_admin=True).role == "user"


def test_a_role_that_was_asked_for_stays(store: SQLiteStore) -> None:
    assert store.add_user(new_user(role="user"), first_is_admin=False).role == "user"
    assert store.add_user(new_user(role="admin"), first_is_admin=True).role == "admin"


def test_an_address_belongs_to_one_user(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    with pytest.raises(EmailTaken):
        store.add_user(new_user(email=USER.email), first_is_admin=False)
    other = store.add_user(new_user(), first_is_admin=False)
    with pytest.raises(EmailTaken):
        store.update_user(other.id, {"email": USER.email, "username": "changed"})
    assert store.users() == [USER, other], "nothing of what was refused is kept"
    assert store.update_user(USER.id, {"email": USER.email}) == USER


USER_CHANGES: dict[str, Any] = {
    "email": "new@example.com",
    "username": "Ann",
    "password_hash": "x",
    "role": "admin",
    "disabled": True,
    "token_version": 2,
    "rate_limit_rpm": 0,
    "rate_limit_tpm": 7,
    "max_budget_nanos": 5,
    "budget_period": "week",
}
KEY_CHANGES: dict[str, Any] = {
    "key_hash": "h",
    "key_prefix": "p",
    "name": "x",
    "user_id": None,
    "rate_limit_rpm": 0,
    "rate_limit_tpm": 0,
    "max_parallel_requests": 3,
    "max_budget_nanos": 2**50,
    "budget_period": "month",
    "allowed_models": ("a",),
    "expires_at_ms": 9,
    "blocked": True,
    "revoked_at_ms": 4,
}


def test_a_change_of_a_user_changes_only_the_named_fields(store: SQLiteStore) -> None:
    expected = store.add_user(USER, first_is_admin=False)
    for field, value in USER_CHANGES.items():
        expected = dataclasses.replace(expected, **{field: value})
        assert store.update_user(USER.id, {field: value}) == expected
        assert store.user(USER.id) == expected
    assert store.update_user(USER.id, {}) == expected


def test_a_change_of_a_key_changes_only_the_named_fields(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    store.add_key(KEY, keys_per_user=None)
    expected = KEY
    for field, value in KEY_CHANGES.items():
        expected = dataclasses.replace(expected, **{field: value})
        assert store.update_key(KEY.id, {field: value}) == expected
        assert store.key(KEY.id) == expected
    assert store.update_key(KEY.id, {}) == expected


@pytest.mark.parametrize("field", ["id", "created_at_ms", "nonsense", "email = 'x' --"])
def test_a_field_that_cannot_change_is_a_mistake_of_the_program(store: SQLiteStore, field: str) -> None:
    store.add_user(USER, first_is_admin=False)
    store.add_key(KEY, keys_per_user=None)
    with pytest.raises(ValueError, match="cannot be changed"):
        store.update_user(USER.id, {field: 1})
    with pytest.raises(ValueError, match="cannot be changed"):
        store.update_key(KEY.id, {field: 1})
    with pytest.raises(ValueError, match="cannot be changed"):
        store.update_key(KEY.id, {"last_used_at_ms": 1})


def test_a_user_owns_at_most_so_many_keys_that_are_not_revoked(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    keys = [new_key(user_id=USER.id) for _ in range(3)]
    store.add_key(keys[0], keys_per_user=2)
    store.add_key(keys[1], keys_per_user=2)
    with pytest.raises(KeyLimitReached):
        store.add_key(keys[2], keys_per_user=2)
    store.add_key(new_key(), keys_per_user=0)  # of nobody
    store.update_key(keys[0].id, {"revoked_at_ms": 1})
    store.add_key(keys[2], keys_per_user=2)
    assert store.keys(user_id=USER.id) == keys[1:]
    assert [key.id for key in store.keys(user_id=USER.id, include_revoked=True)] == [key.id for key in keys]


def test_a_key_belongs_to_a_user_who_is_there(store: SQLiteStore) -> None:
    with pytest.raises(OwnerMissing):
        store.add_key(new_key(user_id="user_gone"), keys_per_user=None)
    key = new_key()
    store.add_key(key, keys_per_user=None)
    with pytest.raises(OwnerMissing):
        store.update_key(key.id, {"user_id": "user_gone"})
    assert store.keys() == [key]


def test_deleting_a_user_revokes_their_keys_and_keeps_their_usage(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    store.add_key(KEY, keys_per_user=None)
    revoked_before = new_key(user_id=USER.id, revoked_at_ms=5)
    store.add_key(revoked_before, keys_per_user=None)
    other = new_key()
    store.add_key(other, keys_per_user=None)
    record = new_record(user_id=USER.id, key_id=KEY.id)
    store.add_usage([record], ())
    assert store.delete_user(USER.id, now_ms=NOON_MS)
    assert store.delete_user(USER.id, now_ms=NOON_MS) is False
    assert store.user(USER.id) is None
    found = store.key_by_hash(KEY.key_hash)
    assert found is not None
    assert found.revoked_at_ms == NOON_MS
    again = store.key(revoked_before.id)
    assert again is not None
    assert again.revoked_at_ms == 5
    assert store.keys() == [other]
    assert store.spend_by_key([KEY.id], now_ms=NOON_MS) == {KEY.id: record.cost_nanos}


def test_no_key_can_outlive_its_user_whatever_the_program_does(store: SQLiteStore, path: Path) -> None:
    store.add_user(USER, first_is_admin=False)
    store.add_key(KEY, keys_per_user=None)
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="not revoked"):
        connection.execute("DELETE FROM users")
    assert store.user(USER.id) == USER


CHANGES: dict[str, Change] = {
    "a new user": lambda store, _user, _key: store.add_user(new_user(), first_is_admin=False),
    "a role": lambda store, user, _key: store.update_user(user.id, {"role": "admin"}),
    "a password": lambda store, user, _key: store.update_user(user.id, {"password_hash": "x", "token_version": 2}),
    "a disabled user": lambda store, user, _key: store.update_user(user.id, {"disabled": True}),
    "a deleted user": lambda store, user, _key: store.delete_user(user.id, now_ms=1),
    "a new key": lambda store, _user, _key: store.add_key(new_key(), keys_per_user=None),
    "a limit": lambda store, _user, key: store.update_key(key.id, {"rate_limit_rpm": 5}),
    "a limit of tokens": lambda store, _user, key: store.update_key(key.id, {"rate_limit_tpm": 5}),
    "a limit of requests at once": lambda store, _user, key: store.update_key(key.id, {"max_parallel_requests": 5}),
    "a budget": lambda store, _user, key: store.update_key(key.id, {"max_budget_nanos": 5}),
    "a budget's period": lambda store, _user, key: store.update_key(key.id, {"budget_period": "day"}),
    "a revoked key": lambda store, _user, key: store.update_key(key.id, {"revoked_at_ms": 5}),
}
NO_CHANGES: dict[str, Change] = {
    "usage of the key": lambda store, _user, key: store.add_usage([new_record(key_id=key.id)], ()),
    "reading": lambda store, user, key: (store.user(user.id), store.key(key.id), store.users(), store.keys()),
    "a change of nobody": lambda store, _user, _key: store.update_user("user_gone", {"role": "admin"}),
    "a key that is refused": lambda store, user, _key: refused_key(store, user),
}


def refused_key(store: SQLiteStore, user: User) -> None:
    with pytest.raises(KeyLimitReached):
        store.add_key(new_key(user_id=user.id), keys_per_user=1)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_stamp_moves_with_every_change_and_for_every_process(
    store: SQLiteStore, path: Path, change: Change
) -> None:
    store.add_user(USER, first_is_admin=False)
    store.add_key(KEY, keys_per_user=None)
    other = SQLiteStore.open(path)
    try:
        before = other.change_stamp()
        change(store, USER, KEY)
        assert other.change_stamp() > before
        assert other.change_stamp() == store.change_stamp()
    finally:
        other.close()


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES.keys())
def test_the_stamp_stays_where_nothing_has_changed(store: SQLiteStore, change: Change) -> None:
    store.add_user(USER, first_is_admin=False)
    store.add_key(KEY, keys_per_user=None)
    before = store.change_stamp()
    change(store, USER, KEY)
    assert store.change_stamp() == before


def test_of_many_first_users_at_once_one_is_admin(path: Path) -> None:
    stores = [SQLiteStore.open(path) for _ in range(3)]
    start = threading.Barrier(12)

    def add(number: int) -> str:
        start.wait()
        return stores[number % 3].add_user(new_user(), first_is_admin=True).role

    with ThreadPoolExecutor(12) as pool:
        roles = list(pool.map(add, range(12)))
    assert sorted(roles) == ["admin"] + ["user"] * 11
    for store in stores:
        store.close()


def test_the_limit_on_keys_holds_for_many_threads(store: SQLiteStore) -> None:
    store.add_user(USER, first_is_admin=False)
    start = threading.Barrier(16)

    def add(_: int) -> bool:
        start.wait()
        try:
            store.add_key(new_key(user_id=USER.id), keys_per_user=5)
        except KeyLimitReached:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        added = list(pool.map(add, range(16)))
    assert added.count(True) == 5
    assert len(store.keys(user_id=USER.id)) == 5


def test_changes_from_many_threads_never_undo_each_other(path: Path) -> None:
    stores = [SQLiteStore.open(path) for _ in range(2)]
    keys = [new_key() for _ in range(3)]
    for key in keys:
        stores[0].add_key(key, keys_per_user=None)
    values = range(1, 21)
    fields = ("rate_limit_rpm", "expires_at_ms", "name")

    def change(task: tuple[int, str, ApiKey]) -> None:
        number, field, key = task
        for value in values:
            stores[number].update_key(key.id, {field: str(value) if field == "name" else value})
            assert stores[1 - number].key_by_hash(key.key_hash) is not None
            stores[number].add_usage([new_record(key_id=key.id, started_at_ms=value)], ())

    tasks = [(number % 2, field, key) for number, field in enumerate(fields) for key in keys]
    with ThreadPoolExecutor(len(tasks)) as pool:
        list(pool.map(change, tasks))
    assert stores[1].keys() == [
        dataclasses.replace(key, rate_limit_rpm=20, expires_at_ms=20, name="20", last_used_at_ms=20) for key in keys
    ]
    assert stores[0].spend_by_key([key.id for key in keys], now_ms=NOON_MS) == dict.fromkeys(
        (key.id for key in keys), 60 * 1_500
    )
    for store in stores:
        store.close()


def test_a_closed_store_says_so(path: Path) -> None:
    store = SQLiteStore.open(path)
    store.users()
    store.close()
    store.close()
    for call in (store.change_stamp, store.users, lambda: store.add_usage([new_record()], ())):
        with pytest.raises(StoreUnavailable, match="closed"):
            call()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "what the last one leaves is one file"
