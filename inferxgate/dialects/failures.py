"""What a provider's failure becomes, whatever its dialect: the contract's table, in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import orjson

from inferxgate import errors
from inferxgate.errors import GatewayError, Kind

MAX_MESSAGE_CHARACTERS = 2_000
_MAX_WORD_CHARACTERS = 128

_KEPT_STATUSES: Mapping[int, Kind] = {
    400: errors.INVALID_VALUE,
    404: errors.MODEL_NOT_FOUND,
    413: errors.REQUEST_TOO_LARGE,
    422: errors.INVALID_VALUE,
}
"""The caller's own doing at the provider: status and message are passed on, with the provider's code where it has one.
The type is the contract's, so that one status has one type, whoever answers. Without a code of the provider's, a 404 is
a model that it does not have: all that a completion names is the model, but for files, of which the message tells."""

_KINDS_BY_STATUS: Mapping[int, Kind] = {
    401: errors.UPSTREAM_AUTH_ERROR,
    402: errors.UPSTREAM_QUOTA_EXCEEDED,
    403: errors.UPSTREAM_AUTH_ERROR,
    408: errors.UPSTREAM_TIMEOUT,
    429: errors.UPSTREAM_RATE_LIMITED,
    498: errors.UPSTREAM_OVERLOADED,  # Groq: flex capacity exceeded
    503: errors.UPSTREAM_OVERLOADED,
    504: errors.UPSTREAM_TIMEOUT,
    529: errors.UPSTREAM_OVERLOADED,  # Anthropic: overloaded_error
}

_WITHOUT_ACCESS = ("model_not_found", "model_permission_blocked")
"""How codes begin with which OpenAI, and Groq, say with 403 that a project may not use this one model: the credential
is right, and for its other models it goes on."""

_HEADLINES: Mapping[Kind, str] = {
    errors.UPSTREAM_AUTH_ERROR: "The provider refused the gateway's own credential; its operator has to mend it",
    errors.UPSTREAM_QUOTA_EXCEEDED: "The gateway's quota at the provider is used up",
    errors.UPSTREAM_RATE_LIMITED: "The provider limits the gateway's rate",
    errors.UPSTREAM_OVERLOADED: "The provider is overloaded",
    errors.UPSTREAM_TIMEOUT: "The provider gave up waiting",
    errors.UPSTREAM_ERROR: "The provider failed",
}

_NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}

_TOO_LONG = re.compile(
    r"(maximum|model's) (context|prompt) length|context_length_exceeded"  # OpenAI, vLLM, DeepSeek, Mistral, xAI
    r"|(prompt|input context|length of all messages) is too long"  # Anthropic, Vertex, Perplexity
    r"|exceeds? (the )?(available |model's )?context (limit|length|size|window)"  # Anthropic, Ollama, llama.cpp
    r"|input token count.*exceeds"  # Gemini
    r"|`inputs`.* must (be|have)",  # Text Generation Inference
    re.IGNORECASE | re.DOTALL,
)
"""What hosts say of a prompt that is longer than the model's context window, which clients test by OpenAI's code."""
_CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
_NOT_FOUND = frozenset({"", "not found", "404 not found", "404 page not found", "resource not found"})
"""What a web server says of any path that it does not have; the last is Azure's."""


def provider_error(
    status: int,
    message: str,
    *,
    answered: int,
    code: object = None,
    param: object = None,
    retry_after_seconds: float | None = None,
    quota: bool = False,
) -> GatewayError:
    """The error that a provider's failure amounts to.

    ``status`` is what it means, ``answered`` the HTTP status that it really came with: 200 where it stood in an answer.
    ``message``, ``code`` and ``param`` are the provider's own where it gave any; code and param reach the client only
    where the fault is the client's. ``quota``: the provider says that waiting a moment does not help.
    """
    message = message[:MAX_MESSAGE_CHARACTERS]
    if status == 403 and (word(code) or "").startswith(_WITHOUT_ACCESS):
        status, code = 404, errors.MODEL_NOT_FOUND.code
    if quota:
        kind = errors.UPSTREAM_QUOTA_EXCEEDED
    elif answered == 404 and code in (None, "404") and message.lower().strip(" .\n") in _NOT_FOUND:
        return _nowhere(message)
    elif status in _KEPT_STATUSES:
        kind = _KEPT_STATUSES[status]
        return GatewayError(
            kind,
            message or f"The provider refused the request{_status_of(answered)} and gave no reason.",
            status=status,
            code=_code(status, message, word(code)) or kind.code,
            param=word(param),
            upstream_status=answered,
        )
    elif 300 <= status < 400:
        return GatewayError(
            errors.UPSTREAM_INVALID_RESPONSE,
            f"The provider answered with a redirect (status {answered}), which is not followed; check its base_url.",
            upstream_status=answered,
        )
    else:
        kind = _KINDS_BY_STATUS.get(status, errors.UPSTREAM_ERROR)
    if kind is errors.UPSTREAM_AUTH_ERROR:
        # The provider's own words often repeat a part of the credential: they are not passed on.
        message = ""
    return GatewayError(
        kind,
        f"{_HEADLINES[kind]}{_status_of(answered)}" + (f": {message}" if message else "."),
        retry_after_seconds=None if retry_after_seconds is None else min(retry_after_seconds, _MAX_WAIT_SECONDS),
        headers=_NO_RETRY if kind is errors.UPSTREAM_QUOTA_EXCEEDED else None,
        upstream_status=answered,
    )


def _status_of(answered: int) -> str:
    """The status as messages have it; nothing for an error that came in an answer with status 200."""
    return f" (status {answered})" if answered >= 300 else ""


def _code(status: int, message: str, code: str | None) -> str | None:
    """The code that clients test, for what every host says in words of its own; else the provider's."""
    if status in (400, 422) and (_TOO_LONG.search(message) or code == _CONTEXT_LENGTH_EXCEEDED):
        return _CONTEXT_LENGTH_EXCEEDED
    return code


def _nowhere(message: str) -> GatewayError:
    """The error for a 404 that no API has written: at this address there is none."""
    said = f', "{" ".join(message.split())}"' if message else ""
    return GatewayError(
        errors.UPSTREAM_NOT_FOUND,
        f"The provider has nothing at the address that was asked (status 404{said}): its base_url may be wrong.",
        upstream_status=404,
    )


def word(value: object) -> str | None:
    """A type, code or param as a provider gave it: a short printable word, or nothing."""
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_WORD_CHARACTERS and value.isprintable() else None


def spelt(value: object) -> str:
    """A value that should have been text, as JSON; nothing for what is nested too deeply to be written."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return ""


def dumps(value: object) -> bytes:
    """JSON of something that a provider sent. Raises ``GatewayError`` where it is nested too deeply to be written."""
    try:
        return orjson.dumps(value)
    except TypeError as error:  # it could be read, for reading goes deeper than writing
        raise nonsense("its JSON is nested too deeply") from error


def nonsense(what: str) -> GatewayError:
    """The error for an answer that is not what the dialect says it should be."""
    return GatewayError(errors.UPSTREAM_INVALID_RESPONSE, f"The provider's answer makes no sense: {what}.")


def retry_after(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """How many seconds a provider asks us to wait, or None.

    Azure and OpenAI send ``retry-after-ms``, Azure also ``x-ms-retry-after-ms``; the standard's ``Retry-After`` is
    seconds or a date (RFC 9110, 10.2.3).
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if _DECIMAL.fullmatch(value := headers.get(name, "").strip()):
            return float(value) / 1000
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if _DECIMAL.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


_MAX_WAIT_SECONDS = 86_400.0
"""A day. A client that believed more would never come back."""
_DECIMAL = re.compile(r"\d{1,12}(\.\d{1,12})?")
_INTEGER = re.compile(r"[0-9]{1,15}")
_MAX_COUNT = 1_000_000_000
"""What claims to be more is no count: no request has so many tokens, and sums of their costs must fit 64 bits."""


def plain_integer(value: object) -> int:
    """A count as a provider may write it: 0 for what is no count. Some hosts write numbers as strings or floats."""
    if type(value) is int and 0 <= value <= _MAX_COUNT:  # as nearly always
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_COUNT:
        return 0
    return int(value)
