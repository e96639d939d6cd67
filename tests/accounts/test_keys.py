"""Keys: secrets that can be told from lookalikes and exist nowhere, and fields that hold only what they may."""

from __future__ import annotations

import json
import string
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferxgate.accounts import keys
from inferxgate.errors import GatewayError
from inferxgate.store.records import ApiKey, BudgetPeriod
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import new_key, new_record, new_user

SAFE = string.ascii_letters + string.digits + "-_"


def create(store: SQLiteStore, *, user_id: str | None = None, keys_per_user: int | None = 20) -> tuple[ApiKey, str]:
    return keys.create_key(
        store,
        name="laptop",
        user_id=user_id,
        rate_limit_rpm=5,
        allowed_models=("gpt-*",),
        expires_at_ms=7,
        keys_per_user=keys_per_user,
    )


def test_a_secret_is_url_safe_and_new_each_time() -> None:
    secrets = {keys.new_secret() for _ in range(1_000)}
    assert len(secrets) == 1_000
    for secret in secrets:
        assert secret.startswith("ix-api-key-")
        rest = secret.removeprefix("ix-api-key-")
        assert len(rest) >= 43
        assert set(rest) <= set(SAFE)
        assert keys.looks_like_key(secret)


@given(data=st.data())
def test_a_mistyped_secret_is_told_from_a_real_one(data: st.DataObject) -> None:
    secret = keys.new_secret()
    place = data.draw(st.integers(0, len(secret) - 1))
    other = data.draw(st.sampled_from([character for character in SAFE if character != secret[place]]))
    assert not keys.looks_like_key(secret[:place] + other + secret[place + 1 :])
    assert not keys.looks_like_key(secret[:place] + secret[place + 1 :])
    assert not keys.looks_like_key(secret[:place] + other + secret[place:])
    swapped = secret[:place] + secret[place : place + 2][::-1] + secret[place + 2 :]
    assert keys.looks_like_key(swapped) == (swapped == secret)


@given(text=st.text())
@example(text="")
@example(text="ix-api-key-")
@example(text="ix-api-key-" + "A" * 49)
@example(text="ix-api-key-" + "é" * 49)
@example(text="\ud800")
def test_no_other_text_looks_like_a_key_and_none_fails(text: str) -> None:
    assert not keys.looks_like_key(text)
    assert not keys.looks_like_key("ix-api-key-" + text)
    assert len(keys.hash_secret(text)) == 64


@pytest.mark.parametrize("change", [" {}", "{} ", "{}\n", "\n{}", "Bearer {}", "{}\x00"])
def test_nothing_may_stand_around_a_secret(change: str) -> None:
    assert not keys.looks_like_key(change.format(keys.new_secret()))


def test_the_checksum_stays_what_it_is() -> None:
    """Scanners and keys in the world rely on it."""
    assert keys.looks_like_key("ix-api-key-" + "A" * 43 + "2pqTgm")
    assert keys.looks_like_key("ix-api-key-" + "-_" * 21 + "z" + "095Ou4")


def test_what_may_be_shown_leaves_the_secret_unguessable() -> None:
    secret = keys.new_secret()
    prefix = keys.prefix_of(secret)
    assert secret.startswith(prefix)
    assert len("ix-api-key-") < len(prefix) <= len("ix-api-key-") + 8


def test_a_new_key_can_be_found_by_its_secret_only(store: SQLiteStore, path: Path) -> None:
    store.add_user(new_user(id="user_1"), first_is_admin=False)
    key, secret = create(store, user_id="user_1")
    assert store.key_by_hash(keys.hash_secret(secret)) == key
    assert (key.name, key.user_id, key.rate_limit_rpm) == ("laptop", "user_1", 5)
    assert (key.allowed_models, key.expires_at_ms, key.blocked) == (("gpt-*",), 7, False)
    assert key.id.startswith("key_")
    store.close()
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert key.key_prefix.encode() in stored
    assert secret.encode() not in stored
    assert secret.removeprefix(key.key_prefix).encode() not in stored


def test_one_user_has_only_so_many_keys(store: SQLiteStore) -> None:
    store.add_user(new_user(id="user_1"), first_is_admin=False)
    create(store, user_id="user_1", keys_per_user=1)
    with pytest.raises(GatewayError, match="1 keys, as many as one may have") as error:
        create(store, user_id="user_1", keys_per_user=1)
    assert (error.value.status, error.value.code) == (403, "forbidden")
    create(store, user_id="user_1", keys_per_user=None)
    create(store, keys_per_user=1)
    create(store, keys_per_user=1)
    assert len(store.keys()) == 4


def test_a_key_of_someone_who_is_not_there_is_refused(store: SQLiteStore) -> None:
    with pytest.raises(GatewayError) as error:
        create(store, user_id="user_gone")
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "user_id")
    assert store.keys() == []


def test_rotating_ends_the_old_secret_and_keeps_the_rest(store: SQLiteStore) -> None:
    key, old = create(store)
    rotated, new = keys.rotate_key(store, key.id)
    assert new != old
    assert store.key_by_hash(keys.hash_secret(old)) is None
    assert store.key_by_hash(keys.hash_secret(new)) == rotated
    assert rotated.key_prefix == keys.prefix_of(new)
    assert (rotated.id, rotated.name, rotated.rate_limit_rpm) == (key.id, key.name, key.rate_limit_rpm)


def test_revoking_keeps_the_row_and_happens_once(store: SQLiteStore) -> None:
    key, secret = create(store)
    revoked = keys.revoke_key(store, key.id)
    assert revoked.revoked_at_ms is not None
    assert revoked.revoked_at_ms >= key.created_at_ms
    assert store.key_by_hash(keys.hash_secret(secret)) == revoked
    assert store.keys() == []


@pytest.mark.parametrize("change", [keys.revoke_key, keys.rotate_key, keys.live_key])
@pytest.mark.parametrize("key_id", ["key_gone", "key_revoked", "", "\ud800", "x\r\ny" * 1_000])
def test_a_key_that_is_not_there_cannot_be_changed(store: SQLiteStore, change: object, key_id: str) -> None:
    store.add_key(new_key(id="key_revoked", revoked_at_ms=5), keys_per_user=None)
    assert callable(change)
    with pytest.raises(GatewayError) as error:
        change(store, key_id)
    assert (error.value.status, error.value.code) == (404, "key_not_found")
    assert error.value.message.isascii()
    assert error.value.message.isprintable()
    assert len(error.value.message) < 700
    revoked = store.key("key_revoked")
    assert revoked is not None
    assert revoked.revoked_at_ms == 5


GOOD_NAMES = [
    (None, None),
    ("", None),
    ("   ", None),
    (" laptop ", "laptop"),
    ("größe 💻 'x' \"y\"", "größe 💻 'x' \"y\""),
    ("x" * 200, "x" * 200),
]
BAD_NAMES = [
    "x" * 201,
    "a\r\nX-Admin: 1",
    "a\x00",
    "\x1b[31m",
    "a\u2028b",
    "a\ud800",
    "\x7f",
    "a\n",
    5,
    True,
    ["a"],
    {},
]


@pytest.mark.parametrize(("value", "expected"), GOOD_NAMES)
def test_a_name_may_be_any_line_of_text(value: object, expected: str | None) -> None:
    assert keys.validate_name(value) == expected


@pytest.mark.parametrize("value", BAD_NAMES, ids=repr)
def test_a_name_is_one_line_of_text(value: object) -> None:
    with pytest.raises(GatewayError) as error:
        keys.validate_name(value, param="username")
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "username")
    assert "'username'" in error.value.message


@pytest.mark.parametrize("value", [None, 0, 1, 60, 10**9])
def test_a_limit_is_a_whole_number(value: int | None) -> None:
    assert keys.validate_limit(value, param="rate_limit_rpm") == value


@pytest.mark.parametrize("value", [-1, 10**9 + 1, 10**400, 1.0, 0.5, "60", True, False, [], float("nan")], ids=repr)
def test_a_limit_is_nothing_else(value: object) -> None:
    with pytest.raises(GatewayError) as error:
        keys.validate_limit(value, param="rate_limit_tpm")
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "rate_limit_tpm")


@pytest.mark.parametrize(
    ("value", "nanos"),
    [
        (None, None),
        (10, 10_000_000_000),
        (10.5, 10_500_000_000),
        (0.1, 100_000_000),
        (1e-9, 1),
        (0.000000003, 3),
        (999_999.999999999, 999_999_999_999_999),
        (1_000_000, 10**15),
        (1e6, 10**15),
    ],
)
def test_a_budget_is_dollars_to_the_nano(value: float | None, nanos: int | None) -> None:
    assert keys.validate_budget(value) == nanos


@given(st.integers(1, 10**15))
def test_no_budget_is_changed_on_its_way_through_json(nanos: int) -> None:
    assert keys.validate_budget(json.loads(orjson.dumps(nanos / 10**9))) == nanos
    assert keys.validate_budget(orjson.loads(f"{nanos // 10**9}.{nanos % 10**9:09d}")) == nanos


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            0,
            "must be more than 0 dollars. Null is no budget; a key that may spend nothing is one to block",
        ),
        (0.0, "must be more than 0 dollars. Null is no budget"),
        (-5, "must be more than 0 dollars. Null is no budget"),
        (1_000_000.01, "must be 1,000,000 dollars or less."),
        (10**400, "must be 1,000,000 dollars or less."),
        (float("inf"), "must be 1,000,000 dollars or less."),
        (float("nan"), "must be more than 0 dollars."),
        (float("-inf"), "must be more than 0 dollars."),
        (0.0000000001, "may have at most 9 decimals."),
        (1.0000000001, "may have at most 9 decimals."),
        ("10", "must be a number of dollars, or null (no budget)."),
        (True, "must be a number of dollars"),
        ([], "must be a number of dollars"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_budget_is_nothing_else(value: object, told: str) -> None:
    with pytest.raises(GatewayError) as error:
        keys.validate_budget(value)
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "max_budget")
    assert error.value.message.startswith(f"'max_budget' {told}")


def test_a_period_is_one_of_four() -> None:
    assert [keys.validate_period(value) for value in ("total", "day", "week", "month", None)] == [
        *("total", "day", "week", "month", "total")
    ]
    for nonsense in ("year", "", "Day", 1, True, ["day"]):
        with pytest.raises(GatewayError, match="'budget_period' must be total, day, week or month") as error:
            keys.validate_period(nonsense)
        assert (error.value.status, error.value.param) == (400, "budget_period")


@pytest.mark.parametrize(
    ("nanos", "period", "words"),
    [
        (10 * 10**9, "month", "$10 a month"),
        (10_500_000_000, "day", "$10.50 a day"),
        (1_234_567_000_000, "week", "$1,234.567 a week"),
        (1, "total", "$0.000000001 in total"),
        (999_999_999_999_999, "total", "$999,999.999999999 in total"),
    ],
)
def test_a_budget_in_words(nanos: int, period: BudgetPeriod, words: str) -> None:
    assert keys.budget_in_words(nanos, period) == words


def test_what_keys_have_spent(store: SQLiteStore) -> None:
    spender, idle = new_key(), new_key()
    for key in (spender, idle):
        store.add_key(key, keys_per_user=None)
    store.add_usage([new_record(key_id=spender.id, cost_nanos=7)], [])
    assert keys.spend_of(store, [idle, spender]) == {spender.id: 7, idle.id: 0}
    assert keys.spend_of(store, []) == {}


def test_models_are_a_list_of_names() -> None:
    assert keys.validate_models(None) is None
    assert keys.validate_models(["gpt-*", "openai/o3", "gpt-*"]) == ("gpt-*", "openai/o3")
    assert keys.validate_models(("x" * 200,)) == ("x" * 200,)


@pytest.mark.parametrize(
    "value",
    [[], "gpt-4", {}, [1], [None], [""], [" a"], ["x" * 201], ["a\n"], ["a\ud800"], ["x"] * 501, {"a": 1}, 5, True],
    ids=lambda value: repr(value)[:20],
)
def test_models_are_nothing_else(value: object) -> None:
    """An empty list could mean none or all; whoever sends one is told to say which."""
    with pytest.raises(GatewayError) as error:
        keys.validate_models(value)
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "allowed_models")
