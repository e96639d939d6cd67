"""What a client is told of a failure: the error's JSON, and when, if ever, trying again makes sense."""

from __future__ import annotations

import json

import pytest

from inferxgate import errors
from inferxgate.errors import GatewayError, Kind
from inferxgate.server.responses import error_response

REFUSALS = [
    (errors.RATE_LIMIT_EXCEEDED, 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.TOKEN_LIMIT_EXCEEDED, 429, "rate_limit_error", "token_limit_exceeded"),
    (errors.TOO_MANY_PARALLEL_REQUESTS, 429, "rate_limit_error", "too_many_parallel_requests"),
    (errors.TOO_MANY_ATTEMPTS, 429, "rate_limit_error", "too_many_attempts"),
]
SPENT = [
    (errors.BUDGET_EXCEEDED, 429, "insufficient_quota", "budget_exceeded"),
    (errors.UPSTREAM_QUOTA_EXCEEDED, 429, "insufficient_quota", "upstream_quota_exceeded"),
]
WRONG = [(errors.PRICE_UNKNOWN, 400, "invalid_request_error", "price_unknown")]


@pytest.mark.parametrize(("kind", "status", "error_type", "code"), [*REFUSALS, *SPENT, *WRONG])
def test_a_failure_is_told_by_status_type_and_code(kind: Kind, status: int, error_type: str, code: str) -> None:
    answered, _, body = error_response(GatewayError(kind, "No.", param="model"), "req_1")
    assert answered == status
    assert json.loads(body) == {"error": {"type": error_type, "message": "No.", "code": code, "param": "model"}}


@pytest.mark.parametrize("kind", [row[0] for row in REFUSALS])
def test_who_is_too_fast_is_told_when_to_try_again(kind: Kind) -> None:
    headers = dict(error_response(GatewayError(kind, "Slower."), "req_1")[1])
    assert headers[b"retry-after"] == b"2"
    assert b"x-should-retry" not in headers
    known = dict(error_response(GatewayError(kind, "Slower.", retry_after_seconds=7.2), "req_1")[1])
    assert (known[b"retry-after"], known[b"retry-after-ms"]) == (b"8", b"7200")


@pytest.mark.parametrize("kind", [row[0] for row in SPENT])
def test_who_has_spent_all_is_told_not_to_try_again(kind: Kind) -> None:
    headers = dict(error_response(GatewayError(kind, "No money."), "req_1")[1])
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers
