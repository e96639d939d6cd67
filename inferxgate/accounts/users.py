"""People: how they are registered, and what those who are no admins may do to their keys.

Limits compare as numbers with 0 (unlimited) above every other. A key without a limit of its own has the default; a user
with a ceiling is under it with every key. Where a user has none, nobody has lowered or raised what the default gives:
they may not go above the default by themselves, but what an admin has set on a key holds.
"""

from __future__ import annotations

import fnmatch
import math
import time
import unicodedata
from collections.abc import Mapping
from typing import Any

from inferxgate.accounts.callers import Caller
from inferxgate.accounts.keys import has_control_characters
from inferxgate.errors import EMAIL_TAKEN, FORBIDDEN, INVALID_VALUE, GatewayError
from inferxgate.ids import new_id
from inferxgate.store.protocol import EmailTaken, Store
from inferxgate.store.records import ApiKey, Role, User

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


def effective_rpm(key: ApiKey | None, user: User | None, default_rpm: int) -> int:
    """Requests a minute in force, 0 for no limit: for a key of this user (or of nobody), or for the user signed in."""
    own = key.rate_limit_rpm if key is not None else None
    ceiling = user.rate_limit_rpm if user is not None else None
    if own is None and ceiling is not None and key is None:
        own = ceiling
    limit = _number(own, default_rpm)
    if ceiling is not None:
        limit = min(limit, _number(ceiling, default_rpm))
    return 0 if limit == math.inf else int(limit)


def check_rights(
    caller: Caller, user: User, *, current_key: ApiKey | None, changes: Mapping[str, Any], default_rpm: int
) -> None:
    """Whether ``caller`` may give a key of ``user`` these fields of ``ApiKey``: a new key, or ``current_key`` changed.

    Raises ``GatewayError`` (``forbidden``) that names the field, for callers who are no admins: limits above the
    user's ceiling, more than an existing key has, and fields that belong to admins.
    """
    if caller.is_admin:
        return
    for field in _ONLY_ADMINS:
        if field in changes:
            raise _forbidden(field, f"Only an admin may set '{field}'.")
    if "rate_limit_rpm" in changes:
        _check_rpm(user, current_key, changes["rate_limit_rpm"], default_rpm)
    if current_key is not None:
        if "allowed_models" in changes and not _within(changes["allowed_models"], current_key.allowed_models):
            raise _forbidden("allowed_models", "Only an admin may let an existing key use more models.")
        if "expires_at_ms" in changes and _later(changes["expires_at_ms"], current_key.expires_at_ms):
            raise _forbidden("expires_at", "Only an admin may let an existing key live longer.")


def _check_rpm(user: User, current: ApiKey | None, wanted: int | None, default_rpm: int) -> None:
    if current is not None:
        if current.rate_limit_rpm == wanted:
            return
        if _number(wanted, default_rpm) > _number(current.rate_limit_rpm, default_rpm):
            raise _forbidden("rate_limit_rpm", "Only an admin may raise the limit of an existing key.")
    ceiling = _number(user.rate_limit_rpm, default_rpm)
    # Without a limit of its own a key has the default, kept under the ceiling when it is used.
    if wanted is not None and _number(wanted, default_rpm) > ceiling:
        raise _forbidden(
            "rate_limit_rpm", f"The limit may be at most {int(ceiling)} requests a minute, the ceiling of this user."
        )


def _number(rpm: int | None, default_rpm: int) -> float:
    """A limit that can be compared: the default for None, infinity for 0."""
    limit = default_rpm if rpm is None else rpm
    return math.inf if limit == 0 else limit


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
