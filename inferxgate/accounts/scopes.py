"""By what a caller's requests are counted, and with which limits.

A key has its own limits, or the defaults, under the ceilings of its user. The user's ceilings hold over all of their
keys together as well, and over what they ask for when they are signed in; a user without a ceiling has none over their
keys, and the default when they are signed in.
"""

from __future__ import annotations

from collections.abc import Mapping

from inferxgate.accounts.users import effective_limit
from inferxgate.store.records import ApiKey, User
from inferxgate.workers.limits import Scope

_NONE = {"rate_limit_rpm": 0, "rate_limit_tpm": 0}


def scopes_of_key(key: ApiKey, owner: User | None, defaults: Mapping[str, int]) -> tuple[Scope, ...]:
    """The key, and its user where it has one. ``defaults``: by the names of the limits, 0 is none."""
    rpm_ceiling, tpm_ceiling = (None, None) if owner is None else (owner.rate_limit_rpm, owner.rate_limit_tpm)
    own = Scope(
        "key",
        key.id,
        effective_limit(key.rate_limit_rpm, rpm_ceiling, defaults["rate_limit_rpm"]),
        effective_limit(key.rate_limit_tpm, tpm_ceiling, defaults["rate_limit_tpm"]),
        effective_limit(key.max_parallel_requests, None, defaults["max_parallel_requests"]),
        key.max_budget_nanos,
        key.budget_period,
    )
    return (own,) if owner is None else (own, *scopes_of_user(owner, _NONE))


def scopes_of_user(user: User, defaults: Mapping[str, int]) -> tuple[Scope, ...]:
    """A user who is signed in."""
    scope = Scope(
        "user",
        user.id,
        effective_limit(user.rate_limit_rpm, None, defaults["rate_limit_rpm"]),
        effective_limit(user.rate_limit_tpm, None, defaults["rate_limit_tpm"]),
        0,
        user.max_budget_nanos,
        user.budget_period,
    )
    return (scope,)
