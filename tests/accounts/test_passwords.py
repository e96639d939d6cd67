"""Passwords: every byte counts, a no takes equally long for every reason, and what cannot be one is said so."""

from __future__ import annotations

import pytest

from inferxgate.accounts import passwords
from inferxgate.errors import GatewayError
from tests.support.stores import new_user

LONG = "correct horse battery staple " * 10


@pytest.fixture(scope="module")
def hashed() -> str:
    return passwords.hash_password(LONG)


def test_the_same_password_is_right_and_its_hash_is_not_it(hashed: str) -> None:
    assert passwords.verify_password(LONG, hashed)
    assert LONG[:8] not in hashed
    assert not passwords.verify_password(hashed, hashed), "who has read the hash cannot sign in with it"


@pytest.mark.parametrize(
    "other", [LONG[:-1] + "!", LONG[:72], LONG + " ", "", LONG.upper()], ids=["last", "72", "longer", "empty", "case"]
)
def test_every_character_counts(hashed: str, other: str) -> None:
    assert not passwords.verify_password(other, hashed)


def test_a_nul_ends_nothing() -> None:
    hashed = passwords.hash_password("12345678\x00first")
    assert passwords.verify_password("12345678\x00first", hashed)
    assert not passwords.verify_password("12345678\x00second", hashed)


@pytest.mark.parametrize("password", ["12345678", "ü" * 512, "x" * 1024, "🔑" * 8, "        "])
def test_what_can_be_a_password(password: str) -> None:
    assert passwords.validate_password(password) == password


@pytest.mark.parametrize(
    "password",
    ["", "1234567", "x" * 1025, "ü" * 513, "12345678\ud800", None, 12345678, ["12345678"]],
    ids=lambda value: repr(value)[:20],
)
def test_what_cannot_be_a_password(password: object) -> None:
    with pytest.raises(GatewayError) as error:
        passwords.validate_password(password)
    assert (error.value.status, error.value.code, error.value.param) == (400, "invalid_value", "password")
    if isinstance(password, str):
        assert not password or password not in error.value.message
        with pytest.raises(GatewayError):
            passwords.hash_password(password)


@pytest.mark.parametrize("password_hash", ["", "x", "$2b$12$short", "é", "\x00"])
def test_a_hash_that_is_none_lets_nobody_in(password_hash: str) -> None:
    assert not passwords.verify_password(LONG, password_hash)


def test_a_no_costs_the_same_for_every_reason(hashed: str) -> None:
    """What bcrypt's work depends on is the cost in front of the hash; nothing else differs between the ways to a no."""
    cost = f"$2b${passwords.ROUNDS}$"
    assert hashed.startswith(cost)
    assert passwords.HASH_OF_NOBODY.startswith(cost)
    assert len(passwords.HASH_OF_NOBODY) == len(hashed)


def test_nobody_signs_in_but_a_user_with_the_right_password(hashed: str) -> None:
    user = new_user(password_hash=hashed)
    assert passwords.verify_login(user, LONG)
    assert not passwords.verify_login(user, "wrong password")
    assert not passwords.verify_login(None, LONG)
    assert not passwords.verify_login(new_user(password_hash=hashed, disabled=True), LONG)
    assert not passwords.verify_nothing("\ud800" * 10_000)
