"""The contract's table of errors: whatever fails, a client sees one of its rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferxgate import errors
from inferxgate.dialects.registry import DIALECTS
from inferxgate.errors import GatewayError, Kind
from tests.support import recordings

TABLE: dict[tuple[int, str], set[str]] = {
    (400, "invalid_request_error"): {
        "invalid_json", "invalid_value", "unsupported_parameter", "price_unknown", "invalid_content_type",
        "missing_required_parameter", "unknown_parameter", "context_length_exceeded",
    },
    (401, "invalid_request_error"): {"invalid_api_key", "invalid_token", "invalid_credentials"},
    (403, "permission_error"): {"forbidden", "model_not_allowed", "registration_closed"},
    (404, "not_found_error"): {"route_not_found", "model_not_found", "key_not_found"},
    (405, "invalid_request_error"): {"method_not_allowed"},
    (409, "invalid_request_error"): {"email_taken"},
    (413, "invalid_request_error"): {"request_too_large"},
    (422, "invalid_request_error"): {"invalid_value", "context_length_exceeded"},
    (429, "rate_limit_error"): {
        "rate_limit_exceeded", "token_limit_exceeded", "too_many_parallel_requests", "too_many_attempts",
        "upstream_rate_limited",
    },
    (429, "insufficient_quota"): {"budget_exceeded", "upstream_quota_exceeded"},
    (500, "server_error"): {"internal_error"},
    (502, "upstream_error"): {
        "upstream_unreachable", "upstream_error", "upstream_invalid_response", "upstream_auth_error",
    },
    (503, "service_unavailable"): {"upstream_overloaded", "no_target_available", "store_unavailable", "draining"},
    (504, "upstream_timeout"): {"upstream_timeout"},
}  # fmt: skip
"""Codes by status and type. The contract leaves the codes of a 400 open; 422 is a provider's, which is kept."""

KEPT = {400, 404, 413, 422}
"""Statuses of a provider that go through, with its own code where it has one."""
TRANSLATED = ("openai_chat", "anthropic_messages", "gemini")
OF_APIS = {
    "chat.completions": "openai_chat",
    "messages": "anthropic_messages",
    "generateContent": "gemini",
    "streamGenerateContent": "gemini",
}
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, Kind)}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_error_is_in_the_table(kind: Kind) -> None:
    assert kind.code in TABLE[(kind.status, kind.type)]


def is_in_table(error: GatewayError, data: str) -> bool:
    codes = TABLE.get((error.status, error.type), set())
    return error.code in codes or (bool(codes) and error.status in KEPT and f'"{error.code}"' in data)


BODIES: list[Any] = [
    None,
    "<html>no</html>",
    {},
    [],
    {"error": "words"},
    {"error": {"message": "words", "type": "own_type", "code": None, "param": None}},
    {"error": {"message": "words", "type": "own_type", "code": "own_code", "param": "x"}},
    {"error": {"message": "words", "status": "RESOURCE_EXHAUSTED", "code": 429}},
    {"error": {"message": "words", "code": {"odd": 1}, "type": ["odd"]}},
    {"type": "error", "error": {"type": "not_found_error", "message": "words"}},
    {"message": "maximum context length", "code": "1234", "object": "error"},
    {"detail": [{"loc": ["body", "x"], "msg": "words", "type": "extra_forbidden"}]},
    {"detail": "Not Found"},
]


@pytest.mark.parametrize("dialect", TRANSLATED)
@pytest.mark.parametrize("body", BODIES, ids=str)
def test_whatever_a_provider_answers_is_in_the_table(dialect: str, body: Any) -> None:
    data = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    for status in range(300, 600):
        error = DIALECTS[dialect].parse_error(status, {}, data.encode(), 0.0)
        assert is_in_table(error, data), (status, error.status, error.type, error.code)
        if status in KEPT:
            assert error.status == status


def test_every_recorded_error_is_in_the_table() -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    found = recordings.find(lambda recording: recording.status >= 400 and recording.api in OF_APIS)
    for recording in found:
        response = recording.load()["response"]
        data = json.dumps(response["body"]) if response["text"] is None else response["text"]
        parse_error = DIALECTS[OF_APIS[recording.api]].parse_error
        error = parse_error(recording.status, response["headers"], data.encode(), 0.0)
        assert is_in_table(error, data), (recording.file, error.status, error.type, error.code)
    assert len(found) > 50
