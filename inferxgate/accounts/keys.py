"""API keys: what the secret looks like, how keys are made, changed and ended, and what their fields may hold.

A secret is ``ix-api-key-``, 43 URL-safe characters of 256 random bits, and 6 characters of checksum over all before
them. The checksum lets a scanner tell a real key from a lookalike, and lets us refuse a mistyped one without asking the
store. Only the SHA-256 of the secret is kept: of 256 random bits nothing can be guessed, so nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from inferxgate.catalog.pricing import NANOS_PER_DOLLAR
from inferxgate.errors import FORBIDDEN, INVALID_VALUE, KEY_NOT_FOUND, GatewayError
from inferxgate.ids import new_id
from inferxgate.store.protocol import KeyLimitReached, OwnerMissing, Store
from inferxgate.store.records import ApiKey, BudgetPeriod

MARK = "ix-api-key-"
"""What every secret begins with."""
LONGEST_NAME = 200
LONGEST_MODEL = 200
MOST_MODELS = 500
LIMITS: Mapping[str, str] = {
    "rate_limit_rpm": "requests a minute",
    "rate_limit_tpm": "tokens a minute",
    "max_parallel_requests": "requests at once",
}
"""The limits of a key that are numbers, and of what. Of each, None is the default and 0 is no limit."""
LARGEST_LIMIT = 10**9
LARGEST_BUDGET = 1_000_000
"""Dollars. Up to here a JSON number says every nano-dollar exactly."""

_RANDOM_BYTES = 32
_SHOWN = 8
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"(ix-api-key-[A-Za-z0-9_-]{43})([A-Za-z0-9]{6})")


def new_secret() -> str:
    """A secret that nobody has had before."""
    text = MARK + secrets.token_urlsafe(_RANDOM_BYTES)
    return text + _checksum(text)


def looks_like_key(text: str) -> bool:
    """Whether this can be a secret of ours: the right shape and the right checksum."""
    found = _SHAPE.fullmatch(text)
    return found is not None and _checksum(found[1]) == found[2]


def hash_secret(text: str) -> str:
    """SHA-256 of the whole secret, in hexadecimal: the only form in which it is stored."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def prefix_of(secret: str) -> str:
    """The part of a secret that may be shown, to recognise the key by: 48 of its 256 random bits."""
    return secret[: len(MARK) + _SHOWN]


def _checksum(text: str) -> str:
    """CRC-32 as six digits of base 62."""
    number = zlib.crc32(text.encode("ascii"))
    digits = []
    for _ in range(6):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def create_key(
    store: Store,
    *,
    name: str | None,
    user_id: str | None,
    rate_limit_rpm: int | None,
    rate_limit_tpm: int | None = None,
    max_parallel_requests: int | None = None,
    max_budget_nanos: int | None = None,
    budget_period: BudgetPeriod = "total",
    allowed_models: tuple[str, ...] | None,
    expires_at_ms: int | None,
    keys_per_user: int | None,
) -> tuple[ApiKey, str]:
    """Make and store a key; the key and its secret, which exists nowhere else. The fields are validated already.

    ``keys_per_user`` None: as many as the owner likes. Raises ``GatewayError`` (``forbidden`` where they have
    as many already, ``invalid_value`` where there is no such user) and ``StoreUnavailable``.
    """
    secret = new_secret()
    key = ApiKey(
        id=new_id("key_"),
        key_hash=hash_secret(secret),
        key_prefix=prefix_of(secret),
        name=name,
        user_id=user_id,
        rate_limit_rpm=rate_limit_rpm,
        rate_limit_tpm=rate_limit_tpm,
        max_parallel_requests=max_parallel_requests,
        max_budget_nanos=max_budget_nanos,
        budget_period=budget_period,
        allowed_models=allowed_models,
        expires_at_ms=expires_at_ms,
        blocked=False,
        revoked_at_ms=None,
        created_at_ms=_now_ms(),
        last_used_at_ms=None,
    )
    try:
        store.add_key(key, keys_per_user=keys_per_user)
    except KeyLimitReached:
        message = f"This user has {keys_per_user} keys, as many as one may have. Revoke one that is not needed."
        raise GatewayError(FORBIDDEN, message) from None
    except OwnerMissing:
        raise GatewayError(INVALID_VALUE, "There is no user with this id.", param="user_id") from None
    return key, secret


def rotate_key(store: Store, key_id: str) -> tuple[ApiKey, str]:
    """Give a key a new secret; the old one ends at once, everything else stays.

    Raises ``GatewayError`` (``key_not_found``, for a revoked key as well) and ``StoreUnavailable``.
    """
    live_key(store, key_id)
    secret = new_secret()
    changed = store.update_key(key_id, {"key_hash": hash_secret(secret), "key_prefix": prefix_of(secret)})
    if changed is None or changed.revoked_at_ms is not None:  # revoked meanwhile: the new secret opens nothing
        raise _no_such_key(key_id)
    return changed, secret


def revoke_key(store: Store, key_id: str) -> ApiKey:
    """End a key for good; the revoked key. Raises ``GatewayError`` (``key_not_found``) and ``StoreUnavailable``."""
    live_key(store, key_id)
    revoked = store.update_key(key_id, {"revoked_at_ms": _now_ms()})
    if revoked is None:
        raise _no_such_key(key_id)
    return revoked


def live_key(store: Store, key_id: str) -> ApiKey:
    """The key that is not revoked. Raises ``GatewayError`` (``key_not_found``) and ``StoreUnavailable``."""
    key = store.key(key_id)
    if key is None or key.revoked_at_ms is not None:
        raise _no_such_key(key_id)
    return key


def spend_of(store: Store, keys: Sequence[ApiKey]) -> dict[str, int]:
    """What each of the keys has spent in its budget's period, in nano-dollars by its id; 0 where it is nothing.

    Raises ``StoreUnavailable``.
    """
    spent = store.spend_by_key([key.id for key in keys], now_ms=_now_ms())
    return {key.id: spent.get(key.id, 0) for key in keys}


def _no_such_key(key_id: str) -> GatewayError:
    return GatewayError(KEY_NOT_FOUND, f"There is no key with the id {key_id[:64]!r}.", param="id")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def validate_name(value: object, *, param: str = "name") -> str | None:
    """A name for people, without spaces around it; None for none. Raises ``GatewayError`` (``invalid_value``)."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise _invalid(param, f"'{param}' must be a string or null.")
    if len(value) > LONGEST_NAME:
        raise _invalid(param, f"'{param}' may have at most {LONGEST_NAME} characters.")
    if has_control_characters(value):
        raise _invalid(param, f"'{param}' must not contain line breaks or other control characters.")
    return value.strip() or None


def validate_limit(value: object, *, param: str) -> int | None:
    """One of ``LIMITS``: None for the default, 0 for no limit. Raises ``GatewayError`` (``invalid_value``)."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_LIMIT:
        raise _invalid(
            param, f"'{param}' must be a whole number from 0 (unlimited) to {LARGEST_LIMIT}, or null (the default)."
        )
    return value


def validate_budget(value: object, *, param: str = "max_budget") -> int | None:
    """Nano-dollars from dollars as JSON has them; None for no budget. Raises ``GatewayError`` (``invalid_value``)."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _invalid(param, f"'{param}' must be a number of dollars, or null (no budget).")
    try:
        return nanos_of(Decimal(repr(value) if isinstance(value, float) else value))  # the digits that were written
    except ValueError as error:
        hint = " Null is no budget; a key that may spend nothing is one to block or to revoke." if value <= 0 else ""
        raise _invalid(param, f"'{param}' {error}.{hint}") from None


def nanos_of(dollars: Decimal) -> int:
    """A budget in nano-dollars, exactly. Raises ``ValueError``, whose message goes on from the budget's name."""
    if dollars.is_nan() or dollars <= 0:
        raise ValueError("must be more than 0 dollars")
    if dollars > LARGEST_BUDGET:
        raise ValueError(f"must be {LARGEST_BUDGET:,} dollars or less")
    nanos = Fraction(dollars) * NANOS_PER_DOLLAR
    if nanos.denominator != 1:
        raise ValueError("may have at most 9 decimals")
    return nanos.numerator


_EACH: Mapping[BudgetPeriod, str] = {"total": "in total", "day": "a day", "week": "a week", "month": "a month"}


def validate_period(value: object, *, param: str = "budget_period") -> BudgetPeriod:
    """What a budget is for; None is all time. Raises ``GatewayError`` (``invalid_value``)."""
    if value is None:
        return "total"
    period = next((each for each in _EACH if each == value), None)
    if period is None:
        raise _invalid(param, f"'{param}' must be total, day, week or month.")
    return period


def budget_in_words(nanos: int, period: BudgetPeriod) -> str:
    """``$10 a month``: the amount exactly, whole dollars without cents."""
    whole, rest = divmod(nanos, NANOS_PER_DOLLAR)
    decimals = f"{rest:09d}".rstrip("0")
    return f"${whole:,}{f'.{decimals:0<2}' if decimals else ''} {_EACH[period]}"


def validate_models(value: object, *, param: str = "allowed_models") -> tuple[str, ...] | None:
    """Names of models and wildcards, each once; None for every model. Raises ``GatewayError`` (``invalid_value``)."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(model, str) for model in value):
        raise _invalid(param, f"'{param}' must be a list of names, or null (every model).")
    if not 1 <= len(value) <= MOST_MODELS:
        raise _invalid(param, f"'{param}' must name from 1 to {MOST_MODELS} models, or be null (every model).")
    for model in value:
        if not 1 <= len(model) <= LONGEST_MODEL or not model.isprintable() or model != model.strip():
            raise _invalid(
                param, f"Each of '{param}' must have from 1 to {LONGEST_MODEL} printable characters, no spaces around."
            )
    return tuple(dict.fromkeys(value))


def has_control_characters(text: str) -> bool:
    """Whether the text holds what ends a line, steers a terminal, or is no character at all (a lone surrogate)."""
    return any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text)


def _invalid(param: str, message: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, message, param=param)
