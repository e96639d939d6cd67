"""People: how they are registered, and what those who are no admins may do to their keys.

Limits compare as numbers with 0 (unlimited) above every other. A key without a limit of its own has the default; a user
with a ceiling is under it with every key. Where a user has none, nobody has lowered or raised what the default gives:
they may not go above the default by themselves, but what an admin has set on a key holds.

A budget is an amount and how often it begins anew. One is within another where whoever keeps to it keeps to the other
for certain: it is not larger, and the other's periods each lie inside one of its own, as days lie inside weeks. So a
budget for each day is never within one for a month, whatever the amounts. A key without a budget is under that of its
user all the same.
"""

from __future__ import annotations

import fnmatch
import math
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from inferxgate.accounts.callers import Caller
from inferxgate.accounts.keys import LIMITS, budget_in_words, has_control_characters
from inferxgate.errors import EMAIL_TAKEN, FORBIDDEN, INVALID_VALUE, GatewayError
from inferxgate.ids import new_id
from inferxgate.store.periods import period_start_ms
from inferxgate.store.protocol import EmailTaken, Store
from inferxgate.store.records import ApiKey, BudgetPeriod, Role, User
from inferxgate.values import dataclass

LONGEST_EMAIL = 254
"""Characters (RFC 5321, section 4.5.3.1.3, less the angle brackets)."""

_ONLY_ADMINS = ("user_id", "blocked")


def validate_email(value: object) -> str:
    """The address in lower case. Raises ``GatewayError`` (``invalid_value``) for what cannot be one."""
    if not isinstance(value, str):
        raise _invalid_email("must be a string")
    if len(value) > LONGEST_EMAIL:
        raise _invalid_email(f"may have at most {LONGEST_EMAIL} characters")
    email = unicodedata.normalize("NFC", value.strip()).lower()
    if has_control_characters(email) or not email.isprintable() or any(character.isspace() for character in email):
        raise _invalid_email("must not contain spaces or control characters")
    local, at, domain = email.partition("@")
    if not local or not at or not domain or "@" in domain:
        raise _invalid_email("must have the form name@example.com")
    if len(email) > LONGEST_EMAIL:  # a few letters are longer in lower case
        raise _invalid_email(f"may have at most {LONGEST_EMAIL} characters")
    return email


def _invalid_email(what: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, f"The e-mail address {what}.", param="email")


def spend_of(store: Store, users: Sequence[User]) -> dict[str, int]:
    """What each of the users has spent in their budget's period, in nano-dollars by their id; 0 where it is nothing.

    Raises ``StoreUnavailable``.
    """
    now_ms = time.time_ns() // 1_000_000
    spends = {
        period: store.spend_since("user", period_start_ms(period, now_ms))
        for period in {user.budget_period for user in users}
    }
    return {user.id: spends[user.budget_period].get(user.id, 0) for user in users}


def register(store: Store, *, email: str, password_hash: str, username: str | None, role: Role | None = None) -> User:
    """Store a new user. Without a ``role``, the very first one is admin and every later one a user.

    The fields are validated already. Raises ``GatewayError`` (``email_taken``) and ``StoreUnavailable``.
    """
    user = User(
        id=new_id("user_"),
        email=email,
        username=username,
        password_hash=password_hash,
        role=role or "user",
        disabled=False,
        token_version=1,
        rate_limit_rpm=None,
        rate_limit_tpm=None,
        max_budget_nanos=None,
        budget_period="total",
        created_at_ms=time.time_ns() // 1_000_000,
    )
    try:
        return store.add_user(user, first_is_admin=role is None)
    except EmailTaken:
        raise GatewayError(EMAIL_TAKEN, "There is a user with this e-mail address already.", param="email") from None


def set_password(store: Store, user: User, password_hash: str) -> User | None:
    """Change the password, which ends every token issued before; None if the user has gone meanwhile."""
    return store.update_user(user.id, {"password_hash": password_hash, "token_version": user.token_version + 1})


def effective_limit(own: int | None, ceiling: int | None, default: int) -> int:
    """A limit in force, 0 for no limit: the key's own or else the default, and never above a ceiling that was set.

    For a user who is signed in, the ceiling is their own limit as well.
    """
    limit = _number(own, default)
    if ceiling is not None:
        limit = min(limit, _number(ceiling, default))
    return 0 if limit == math.inf else int(limit)


def check_rights(
    caller: Caller, user: User, *, current_key: ApiKey | None, changes: Mapping[str, Any], defaults: Mapping[str, int]
) -> None:
    """Whether ``caller`` may give a key of ``user`` these fields of ``ApiKey``: a new key, or ``current_key`` changed.

    ``defaults`` has the gateway's default of each of ``LIMITS``. Raises ``GatewayError`` (``forbidden``) that names the
    field, for callers who are no admins: limits and budgets above the user's, more than an existing key has, and fields
    that belong to admins.
    """
    if caller.is_admin:
        return
    for field in _ONLY_ADMINS:
        if field in changes:
            raise _forbidden(field, f"Only an admin may set '{field}'.")
    for limit in LIMITS.keys() & changes.keys():
        _check_limit(limit, user, current_key, changes[limit], defaults[limit])
    if changes.keys() & {"max_budget_nanos", "budget_period"}:
        _check_budget(user, current_key, changes)
    if current_key is not None:
        if "allowed_models" in changes and not _within(changes["allowed_models"], current_key.allowed_models):
            raise _forbidden("allowed_models", "Only an admin may let an existing key use more models.")
        if "expires_at_ms" in changes and _later(changes["expires_at_ms"], current_key.expires_at_ms):
            raise _forbidden("expires_at", "Only an admin may let an existing key live longer.")


def _check_limit(limit: str, user: User, current_key: ApiKey | None, wanted: int | None, default: int) -> None:
    if current_key is not None:
        current: int | None = getattr(current_key, limit)
        if current == wanted:
            return
        if _number(wanted, default) > _number(current, default):
            raise _forbidden(limit, f"Only an admin may raise the {LIMITS[limit]} of an existing key.")
    ceiling = _number(getattr(user, limit, None), default)  # of requests at once, users have no ceiling
    # Without a limit of its own a key has the default, kept under the ceiling when it is used.
    if wanted is not None and _number(wanted, default) > ceiling:
        raise _forbidden(
            limit, f"The limit may be at most {int(ceiling)} {LIMITS[limit]}, which is as much as this user may have."
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount, and how often it begins anew."""

    nanos: int
    period: BudgetPeriod


_LIE_INSIDE: Mapping[BudgetPeriod, tuple[BudgetPeriod, ...]] = {
    "total": ("total", "month", "week", "day"),
    "month": ("month", "day"),
    "week": ("week", "day"),
    "day": ("day",),
}
"""Of which periods each lies whole inside one of these. A week may lie in two months."""


def _check_budget(user: User, current_key: ApiKey | None, changes: Mapping[str, Any]) -> None:
    current = budget_of(current_key)
    nanos = changes.get("max_budget_nanos", None if current is None else current.nanos)
    period = changes.get("budget_period", "total" if current_key is None else current_key.budget_period)
    wanted = None if nanos is None else Budget(nanos, period)
    if wanted == current:
        return
    if current is not None and (wanted is None or not is_within(wanted, current)):
        raise _forbidden(_at_fault(wanted, current), "Only an admin may raise the budget of an existing key.")
    ceiling = budget_of(user)
    if wanted is not None and ceiling is not None and not is_within(wanted, ceiling):
        most = budget_in_words(ceiling.nanos, ceiling.period)
        raise _forbidden(
            _at_fault(wanted, ceiling),
            f"The budget must be within that of this user, {most}: no larger, and with the same budget_period or"
            " a longer one that holds it whole.",
        )


def budget_of(holder: ApiKey | User | None) -> Budget | None:
    """The budget of a key alone, or that of a user and all of their keys; None where there is none."""
    if holder is None or holder.max_budget_nanos is None:
        return None
    return Budget(holder.max_budget_nanos, holder.budget_period)


def is_within(one: Budget, other: Budget) -> bool:
    """Whether whoever keeps to ``one`` keeps to ``other`` for certain."""
    return one.nanos <= other.nanos and other.period in _LIE_INSIDE[one.period]


def _at_fault(wanted: Budget | None, most: Budget) -> str:
    return "max_budget" if wanted is None or wanted.nanos > most.nanos else "budget_period"


def _number(limit: int | None, default: int) -> float:
    """A limit that can be compared: the default for None, infinity for 0."""
    number = default if limit is None else limit
    return math.inf if number == 0 else number


def _within(wanted: tuple[str, ...] | None, current: tuple[str, ...] | None) -> bool:
    if current is None:
        return True
    return wanted is not None and all(any(_covers(rule, new) for rule in current) for new in wanted)


def _covers(rule: str, new: str) -> bool:
    """Whether every name that ``new`` matches is matched by ``rule``. In doubt, no.

    A plain name is covered if the rule matches it. A wildcard is covered where the rule's own stars take it in as text:
    then they take in whatever it stands for. That holds for ``*`` and ``?`` in the new one and ``*`` in the rule only.
    """
    if rule == new:
        return True
    if "[" in new or (set(rule) & set("?[") and set(new) & set("*?")):
        return False
    return fnmatch.fnmatchcase(new, rule)


def _later(wanted: int | None, current: int | None) -> bool:
    return current is not None and (wanted is None or wanted > current)


def _forbidden(field: str, message: str) -> GatewayError:
    return GatewayError(FORBIDDEN, message, param=field)
