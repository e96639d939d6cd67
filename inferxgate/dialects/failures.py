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
    404: errors.NOT_FOUND,
    413: errors.REQUEST_TOO_LARGE,
    422: errors.INVALID_VALUE,
}
"""The caller's own doing at the provider: status and message are passed on, with the provider's type and code, or these
where it gave none."""

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

_HEADLINES: Mapping[Kind, str] = {
    errors.UPSTREAM_AUTH_ERROR: "The provider refused the gateway's own credential; its operator has to mend it",
    errors.UPSTREAM_QUOTA_EXCEEDED: "The gateway's quota at the provider is used up",
    errors.UPSTREAM_RATE_LIMITED: "The provider limits the gateway's rate",
    errors.UPSTREAM_OVERLOADED: "The provider is overloaded",
    errors.UPSTREAM_TIMEOUT: "The provider gave up waiting",
    errors.UPSTREAM_ERROR: "The provider failed",
}

_NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}


def provider_error(
    status: int,
    message: str,
    *,
    error_type: object = None,
    code: object = None,
    param: object = None,
    retry_after_seconds: float | None = None,
    quota: bool = False,
) -> GatewayError:
    """The error that a provider's answer with ``status`` amounts to.

    ``message``, ``error_type``, ``code`` and ``param`` are the provider's own where it gave any; they reach the client
    only where the fault is the client's. ``quota``: the provider says that waiting a moment does not help.
    """
    message = message[:MAX_MESSAGE_CHARACTERS]
    if quota:
        status_kind = errors.UPSTREAM_QUOTA_EXCEEDED
    elif status in _KEPT_STATUSES:
        kind = _KEPT_STATUSES[status]
        return GatewayError(
            kind,
            message or f"The provider refused the request with status {status} and gave no reason.",
            status=status,
            error_type=word(error_type) or kind.type,
            code=word(code) or kind.code,
            param=word(param),
            upstream_status=status,
        )
    elif 300 <= status < 400:
        return GatewayError(
            errors.UPSTREAM_INVALID_RESPONSE,
            f"The provider answered with a redirect (status {status}), which is not followed; check its base_url.",
            upstream_status=status,
        )
    else:
        status_kind = _KINDS_BY_STATUS.get(status, errors.UPSTREAM_ERROR)
    if status_kind is errors.UPSTREAM_AUTH_ERROR:
        # The provider's own words often repeat a part of the credential: they are not passed on.
        message = ""
    return GatewayError(
        status_kind,
        f"{_HEADLINES[status_kind]} (status {status})" + (f": {message}" if message else "."),
        retry_after_seconds=retry_after_seconds,
        headers=_NO_RETRY if status_kind is errors.UPSTREAM_QUOTA_EXCEEDED else None,
        upstream_status=status,
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
            return min(float(value) / 1000, _MAX_WAIT_SECONDS)
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if _DECIMAL.fullmatch(value):
        return min(float(value), _MAX_WAIT_SECONDS)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - now_s), _MAX_WAIT_SECONDS)
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
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_COUNT:
        return 0
    return int(value)
