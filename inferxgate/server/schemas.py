"""The JSON of the administrative routes, as models: what is taken, what is given, and what the description says.

Bodies are strict (see ``bodies.Body``). Answers are described here and built by ``key_object`` and ``user_object``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inferxgate.accounts.keys import LARGEST_BUDGET, LARGEST_LIMIT
from inferxgate.catalog.pricing import NANOS_PER_DOLLAR
from inferxgate.server.bodies import Body
from inferxgate.server.responses import iso_time
from inferxgate.store.records import ApiKey, BudgetPeriod, User


class Answer(BaseModel):
    """Base of what is described of an answer; nothing is ever checked against it, so no validator is built."""

    model_config = ConfigDict(defer_build=True)


_LIMIT: dict[str, Any] = {"minimum": 0, "maximum": LARGEST_LIMIT}


class RegisterBody(Body):
    email: str
    password: str = Field(description="8 characters at least, 1024 bytes at most.")
    username: str | None = None


class LoginBody(Body):
    email: str
    password: str


class NewKeyBody(Body):
    name: str | None = None
    rate_limit_rpm: int | None = Field(
        None, description="Requests a minute; null is the default, 0 is unlimited.", json_schema_extra=_LIMIT
    )
    rate_limit_tpm: int | None = Field(
        None, description="Tokens a minute; null is the default, 0 is unlimited.", json_schema_extra=_LIMIT
    )
    max_parallel_requests: int | None = Field(
        None, description="Requests at once; null is the default, 0 is unlimited.", json_schema_extra=_LIMIT
    )
    max_budget: int | float | None = Field(
        None,
        description="What the key may spend in each budget_period: dollars, 9 decimals at most; null is no budget.",
        json_schema_extra={"exclusiveMinimum": 0, "maximum": LARGEST_BUDGET},
    )
    budget_period: BudgetPeriod | None = Field(
        None,
        description="When a budget begins anew, in UTC: each day, each week (on Monday), each month; total, as null is,"
        " for never.",
    )
    allowed_models: list[str] | None = Field(
        None, description="Names and wildcards such as gpt-*; null is every model."
    )
    expires_at: str | int | float | None = Field(None, description="ISO 8601 with a time zone, or Unix seconds.")
    user_id: str | None = Field(None, description="Whose key it is; only an admin may say.")


class ChangeKeyBody(NewKeyBody):
    blocked: bool | None = Field(None, description="A blocked key is refused until it is unblocked; only for admins.")


class UserAnswer(Answer):
    id: str
    email: str
    username: str | None
    role: Literal["admin", "user"]
    created_at: str


class RegisterAnswer(Answer):
    token: str
    user: UserAnswer


class LoginAnswer(RegisterAnswer):
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")


class KeyAnswer(Answer):
    id: str
    key_prefix: str
    name: str | None
    user_id: str | None
    max_budget: float | None = Field(description="Dollars; null is no budget.")
    budget_period: BudgetPeriod
    current_spend: float = Field(description="Dollars in the budget_period that is under way.")
    rate_limit_rpm: int | None
    rate_limit_tpm: int | None
    max_parallel_requests: int | None
    allowed_models: list[str] | None
    expires_at: str | None
    blocked: bool
    created_at: str
    last_used_at: str | None


class NewKeyAnswer(KeyAnswer):
    key: str = Field(description="The secret, shown this once.")


class KeysAnswer(Answer):
    object: Literal["list"]
    data: list[KeyAnswer]


class RevokedAnswer(Answer):
    id: str
    object: Literal["key"]
    deleted: Literal[True]


class ModelAnswer(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(Answer):
    object: Literal["list"]
    data: list[ModelAnswer]


class HealthAnswer(Answer):
    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: str
    version: str
    reason: str | None = Field(None, description="Only where something is wrong.")


class LiveAnswer(Answer):
    status: Literal["alive"]


class CircuitAnswer(Answer):
    provider: str
    model: str | None = Field(description="Null: the credential, whatever the model.")
    credential: str | None = Field(description="A digest; null: none is sent.")
    state: Literal["closed", "open", "half_open", "cooling", "set_aside"]
    until: str | None
    failures: int = Field(description="Lately, as are requests.")
    requests: int
    code: str | None = Field(description="Of the last error.")
    since: str


class StatsAnswer(Answer):
    since: str
    until: str
    totals: dict[str, Any]
    by_model: list[dict[str, Any]]
    by_provider: list[dict[str, Any]]
    by_key: list[dict[str, Any]]
    by_user: list[dict[str, Any]]
    by_day: list[dict[str, Any]]
    by_status: list[dict[str, Any]]
    recent: list[dict[str, Any]]
    refusals: dict[str, int]
    targets: list[CircuitAnswer] = Field(
        description="How the targets fare now, of which something is to be said; for admins, empty for others."
    )


class ErrorDetail(Answer):
    type: str
    message: str
    code: str | None
    param: str | None


class ErrorAnswer(Answer):
    error: ErrorDetail


def user_object(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "username": user.username,
        "role": user.role,
        "created_at": iso_time(user.created_at_ms),
    }


def dollars_from(nanos: int | None) -> float | None:
    """Money as JSON has it."""
    return None if nanos is None else nanos / NANOS_PER_DOLLAR


def key_object(key: ApiKey, spend_nanos: int) -> dict[str, Any]:
    """A key without its secret; ``spend_nanos`` is what it has spent in the period of its budget."""
    return {
        "id": key.id,
        "key_prefix": key.key_prefix,
        "name": key.name,
        "user_id": key.user_id,
        "max_budget": dollars_from(key.max_budget_nanos),
        "budget_period": key.budget_period,
        "current_spend": dollars_from(spend_nanos),
        "rate_limit_rpm": key.rate_limit_rpm,
        "rate_limit_tpm": key.rate_limit_tpm,
        "max_parallel_requests": key.max_parallel_requests,
        "allowed_models": None if key.allowed_models is None else list(key.allowed_models),
        "expires_at": iso_time(key.expires_at_ms),
        "blocked": key.blocked,
        "created_at": iso_time(key.created_at_ms),
        "last_used_at": iso_time(key.last_used_at_ms),
    }
