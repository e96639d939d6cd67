"""What every dialect reads of a provider's failure and counts in the same way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferxgate import errors
from inferxgate.dialects.failures import plain_integer
from inferxgate.dialects.registry import DIALECTS
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEEvent


@pytest.mark.parametrize(
    ("written", "count"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        ("007", 7),
        (0, 0),
        (-1, 0),
        ("-1", 0),
        (True, 0),
        (None, 0),
        ([7], 0),
        ("", 0),
        ("seven", 0),
        (float("nan"), 0),
        (float("inf"), 0),
        (10**9, 10**9),
        (10**9 + 1, 0),
        (10**15, 0),
        ("1" * 16, 0),
        ("1" * 5_000, 0),
        ("²", 0),
        ("٣", 0),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_count_is_read_as_it_may_be_written_and_nonsense_is_none(written: object, count: int) -> None:
    assert plain_integer(written) == count


# --- what a provider's failure becomes, whatever the dialect


def body_of(dialect: str, message: str, kind: str = "x_error", **more: Any) -> dict[str, Any]:
    """An error as the APIs of a dialect write it."""
    match dialect:
        case "anthropic_messages":
            return {"type": "error", "error": {"type": kind, "message": message, **more}}
        case "gemini":
            return {"error": {"code": 400, "message": message, "status": "SOMETHING_ELSE", **more}}
        case _:
            return {"error": {"message": message, "type": kind, "param": None, "code": None, **more}}


def told(dialect: str, status: int, body: object, headers: dict[str, str] | None = None) -> GatewayError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return DIALECTS[dialect].parse_error(status, headers or {}, data, 0.0)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "invalid_value"),
        (404, "not_found_error", "model_not_found"),
        (413, "invalid_request_error", "request_too_large"),
        (422, "invalid_request_error", "invalid_value"),
    ],
)
def test_one_status_has_one_type_whoever_answers(dialect: str, status: int, kind: str, code: str) -> None:
    for theirs in ("request_too_large", "BadRequestError", "api_error", "tokens"):
        error = told(dialect, status, body_of(dialect, "because", theirs))
        assert (error.status, error.type, error.code, error.message) == (status, kind, code, "because")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "This endpoint's maximum context length is 200000 tokens.",
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        "This model's maximum prompt length is 131072 but the request contains 150000 tokens.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 1 + 2 > 2",
        "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        "The input context is too long.",
        "The total length of all messages is too long.",
        "request (2009 tokens) exceeds the available context size (512 tokens), try increasing it",
        "the input length exceeds the context length",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
        "Input validation error: `inputs` must have less than 1024 tokens.",
    ],
)
def test_a_prompt_that_is_too_long_is_the_same_everywhere(dialect: str, words: str) -> None:
    error = told(dialect, 400, body_of(dialect, words))
    assert (error.status, error.type, error.code) == (400, "invalid_request_error", "context_length_exceeded")
    assert error.message == words
    assert told(dialect, 422, body_of(dialect, words)).code == "context_length_exceeded"
    assert told(dialect, 413, body_of(dialect, words)).code == "request_too_large"


def test_a_code_of_the_providers_own_stays_unless_clients_know_another() -> None:
    assert told("openai_chat", 400, body_of("openai_chat", "no", code="tool_use_failed")).code == "tool_use_failed"
    assert told("openai_chat", 400, body_of("openai_chat", "no", code="context_length_exceeded")).code == (
        "context_length_exceeded"
    )
    long = body_of("openai_chat", "maximum context length", code="invalid_request_error")
    assert told("openai_chat", 400, long).code == "context_length_exceeded"
    missing = body_of("openai_chat", "The model `x` does not exist", code="model_missing")
    assert told("openai_chat", 404, missing).code == "model_missing"


@pytest.mark.parametrize(
    "message",
    [
        "The model `x` does not exist or you do not have access to it.",
        'model "x" not found, try pulling it first',
        "Specified model not found: x.",
    ],
)
def test_a_model_that_a_host_does_not_have(message: str) -> None:
    for body in (body_of("openai_chat", message, "api_error"), {"error": message}):
        error = told("openai_chat", 404, body)
        assert (error.type, error.code, error.message) == ("not_found_error", "model_not_found", message)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"404 page not found\n", "status 404"),
        (b"<html><h1>Not here</h1></html>", "status 404"),
        (b"", "status 404"),
        (b"{}", "status 404"),
    ],
)
def test_a_404_that_no_api_has_written_is_the_addresss_fault(dialect: str, body: bytes, says: str) -> None:
    error = told(dialect, 404, body)
    assert error.kind is errors.UPSTREAM_NOT_FOUND
    assert (error.status, error.type, error.code, error.upstream_status) == (
        404,
        "not_found_error",
        "route_not_found",
        404,
    )
    assert not error.kind.retryable
    assert "base_url" in error.message
    assert says in error.message
    assert "<html>" not in error.message


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Not Found"},
        {"error": "Not Found", "path": "/v1/x"},
        {"error": {"code": "404", "message": "Resource not found"}},
    ],
)
def test_what_frameworks_say_of_an_unknown_path_is_that_too(body: object) -> None:
    error = told("openai_chat", 404, body)
    assert error.kind is errors.UPSTREAM_NOT_FOUND
    assert "not found" in error.message.lower()


def test_a_404_of_an_api_is_passed_on() -> None:
    for dialect in DIALECTS:
        error = told(dialect, 404, body_of(dialect, "No such file"))
        assert (error.kind, error.message) == (errors.MODEL_NOT_FOUND, "No such file")
    assert told("openai_chat", 404, body_of("openai_chat", "Not found", code="file_not_found")).code == "file_not_found"


@pytest.mark.parametrize(
    ("dialect", "body", "kind"),
    [
        ("anthropic_messages", body_of("anthropic_messages", "Busy", "overloaded_error"), errors.UPSTREAM_OVERLOADED),
        ("gemini", {"error": {"code": 503, "message": "Busy"}}, errors.UPSTREAM_OVERLOADED),
        ("gemini", {"error": {"code": 404, "message": "Not found"}}, errors.MODEL_NOT_FOUND),
        ("openai_chat", {"error": {"code": 529, "message": "Busy"}}, errors.UPSTREAM_OVERLOADED),
        ("openai_chat", {"error": {"message": "", "type": "invalid_request_error"}}, errors.INVALID_VALUE),
    ],
)
def test_an_error_in_an_answer_has_no_status_but_the_answers(dialect: str, body: object, kind: errors.Kind) -> None:
    data = json.dumps(body).encode()
    for read in (DIALECTS[dialect].parse_response, lambda d: DIALECTS[dialect].stream_reader().feed(SSEEvent(d))):
        with pytest.raises(GatewayError) as caught:
            read(data)
        assert (caught.value.kind, caught.value.upstream_status) == (kind, 200)
        assert "status" not in caught.value.message


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.UPSTREAM_AUTH_ERROR),
        (402, errors.UPSTREAM_QUOTA_EXCEEDED),
        (408, errors.UPSTREAM_TIMEOUT),
        (424, errors.UPSTREAM_ERROR),
        (429, errors.UPSTREAM_RATE_LIMITED),
        (498, errors.UPSTREAM_OVERLOADED),
        (503, errors.UPSTREAM_OVERLOADED),
        (504, errors.UPSTREAM_TIMEOUT),
        (529, errors.UPSTREAM_OVERLOADED),
    ],
)
def test_the_status_that_is_told_is_the_one_that_came(dialect: str, status: int, kind: errors.Kind) -> None:
    error = told(dialect, status, body_of(dialect, "because"))
    assert (error.kind, error.upstream_status) == (kind, status)
    assert f"(status {status})" in error.message


def test_a_bad_key_that_gemini_tells_with_400_came_with_400() -> None:
    error = told("gemini", 400, body_of("gemini", "API key not valid. Please pass a valid API key."))
    assert (error.kind, error.upstream_status) == (errors.UPSTREAM_AUTH_ERROR, 400)
    assert "(status 400)" in error.message


@pytest.mark.parametrize(
    ("dialect", "body", "headers"),
    [
        ("openai_chat", {}, {"retry-after": "99999999999"}),
        ("openai_chat", {"error": "Model x is currently loading", "estimated_time": 9e8}, {}),
        ("anthropic_messages", {}, {"retry-after": "Fri, 31 Dec 2999 23:59:59 GMT"}),
        ("gemini", {"error": {"code": 503, "details": [{"retryDelay": "999999999s"}]}}, {}),
        ("gemini", {"error": {"code": 503, "message": "Please retry in 999999999s."}}, {}),
    ],
)
def test_no_wait_is_longer_than_a_day(dialect: str, body: object, headers: dict[str, str]) -> None:
    assert told(dialect, 503, body, headers).retry_after_seconds == 86_400


@pytest.mark.parametrize(
    ("estimate", "headers", "seconds"),
    [(20.5, {}, 20), (20, {"retry-after": "3"}, 3), ("soon", {}, None), (None, {}, None)],
)
def test_a_model_that_is_being_loaded_says_when_it_is_there(
    estimate: object, headers: dict[str, str], seconds: float | None
) -> None:
    body = {"error": "Model x is currently loading", "estimated_time": estimate}
    error = told("openai_chat", 503, body, headers)
    assert (error.kind, error.retry_after_seconds) == (errors.UPSTREAM_OVERLOADED, seconds)
