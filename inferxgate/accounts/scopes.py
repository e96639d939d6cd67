"""By what a caller's requests are counted, and with which limits.

A key has its own limits, or the defaults, under the ceilings of its user. The user's ceilings hold over all of their
keys together as well, and over what they ask for when they are signed in; a user without a ceiling has none over their
keys, and the default when they are signed in.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferxgate.store.records import ApiKey, User
from inferxgate.workers.limits import Scope


@dataclass(frozen=True, slots=True)
class Defaults:
    """The limits of keys that have none of their own; 0 is none."""

    requests_per_minute: int
    tokens_per_minute: int = 0
    parallel_requests: int = 0


def scopes_of_key(key: ApiKey, owner: User | None, defaults: Defaults) -> tuple[Scope, ...]:
    """The key, and its user where it has one."""
    own = Scope(
        "key",
        key.id,
        _in_force(key.rate_limit_rpm, owner.rate_limit_rpm if owner else None, defaults.requests_per_minute),
        _in_force(key.rate_limit_tpm, owner.rate_limit_tpm if owner else None, defaults.tokens_per_minute),
        _in_force(key.max_parallel_requests, None, defaults.parallel_requests),
        key.max_budget_nanos,
        key.budget_period,
    )
    return (own,) if owner is None else (own, _scope_of(owner, Defaults(0)))


def scopes_of_user(user: User, defaults: Defaults) -> tuple[Scope, ...]:
    """A user who is signed in."""
    return (_scope_of(user, defaults),)


def _scope_of(user: User, defaults: Defaults) -> Scope:
    return Scope(
        "user",
        user.id,
        defaults.requests_per_minute if user.rate_limit_rpm is None else user.rate_limit_rpm,
        defaults.tokens_per_minute if user.rate_limit_tpm is None else user.rate_limit_tpm,
        0,
        user.max_budget_nanos,
        user.budget_period,
    )


def _in_force(own: int | None, ceiling: int | None, default: int) -> int:
    """A limit with the ceiling over it; of both, 0 is none."""
    limit = default if own is None else own
    return min(limit, ceiling) if limit and ceiling else limit or ceiling or 0
