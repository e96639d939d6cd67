"""Keys and users as JSON: the objects of the HTTP interface, and what only the operator is told.

Loaded for ``--json`` alone: the server's schemas cost more than the commands that print them.
"""

from __future__ import annotations

from typing import Any

from inferxgate.server.responses import iso_time
from inferxgate.server.schemas import dollars_from, key_object, user_object
from inferxgate.store.records import ApiKey, User


def key_for_operator(key: ApiKey, spend_nanos: int) -> dict[str, Any]:
    """A key, with when it was revoked."""
    return {**key_object(key, spend_nanos), "revoked_at": iso_time(key.revoked_at_ms)}


def user_for_operator(user: User, spend_nanos: int) -> dict[str, Any]:
    """A user, with what the operator sets, and what of the budget is spent."""
    return {
        **user_object(user),
        "rate_limit_rpm": user.rate_limit_rpm,
        "rate_limit_tpm": user.rate_limit_tpm,
        "max_budget": dollars_from(user.max_budget_nanos),
        "budget_period": user.budget_period,
        "current_spend": dollars_from(spend_nanos),
        "disabled": user.disabled,
    }
