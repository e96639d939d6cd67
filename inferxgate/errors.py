"""Every failure that a caller may see: whose fault it is, its HTTP status, and whether trying again can help.

A failure is raised once as a ``GatewayError`` of one ``Kind`` and becomes JSON in one place per dialect. The table of
kinds below is the only place that knows the status codes of our own errors; a provider's 400, 404, 413 and 422 keep
the status that the provider chose.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal, TypeAlias

from inferxgate.values import dataclass


class Fault(enum.Enum):
    """Who has to change something before the same request can succeed."""

    CALLER = "caller"
    PROVIDER = "provider"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of failure, as the outside sees it."""

    code: str
    """The stable name that programs may test."""
    status: int
    """The HTTP status."""
    type: str
    """OpenAI's error type."""
    fault: Fault
    retryable: bool = False
    """Whether the same request may succeed later, or at another provider."""


def _caller(code: str, status: int, kind: str = "invalid_request_error", *, retryable: bool = False) -> Kind:
    return Kind(code, status, kind, Fault.CALLER, retryable)


def _provider(code: str, status: int, kind: str, *, retryable: bool = True) -> Kind:
    return Kind(code, status, kind, Fault.PROVIDER, retryable)


# 400: malformed, of the wrong type, or missing
INVALID_JSON = _caller("invalid_json", 400)
INVALID_VALUE = _caller("invalid_value", 400)
INVALID_CONTENT_TYPE = _caller("invalid_content_type", 400)
MISSING_FIELD = _caller("missing_required_parameter", 400)
UNKNOWN_FIELD = _caller("unknown_parameter", 400)
UNSUPPORTED_PARAMETER = _caller("unsupported_parameter", 400)
PRICE_UNKNOWN = _caller("price_unknown", 400)
# 401: no credential, or not a valid one
INVALID_API_KEY = _caller("invalid_api_key", 401)
INVALID_TOKEN = _caller("invalid_token", 401)
INVALID_CREDENTIALS = _caller("invalid_credentials", 401)
# 403: known, but not allowed
FORBIDDEN = _caller("forbidden", 403, "permission_error")
MODEL_NOT_ALLOWED = _caller("model_not_allowed", 403, "permission_error")
REGISTRATION_CLOSED = _caller("registration_closed", 403, "permission_error")
# 404
ROUTE_NOT_FOUND = _caller("route_not_found", 404, "not_found_error")
MODEL_NOT_FOUND = _caller("model_not_found", 404, "not_found_error")
KEY_NOT_FOUND = _caller("key_not_found", 404, "not_found_error")
UPSTREAM_NOT_FOUND = _provider("route_not_found", 404, "not_found_error", retryable=False)
"""A provider's address is wrong: its 404, which no API has written, is passed on as what it is."""
# 405, 409, 413
METHOD_NOT_ALLOWED = _caller("method_not_allowed", 405)
EMAIL_TAKEN = _caller("email_taken", 409)
REQUEST_TOO_LARGE = _caller("request_too_large", 413)
# 429: too much, too fast
RATE_LIMIT_EXCEEDED = _caller("rate_limit_exceeded", 429, "rate_limit_error", retryable=True)
TOKEN_LIMIT_EXCEEDED = _caller("token_limit_exceeded", 429, "rate_limit_error", retryable=True)
TOO_MANY_PARALLEL_REQUESTS = _caller("too_many_parallel_requests", 429, "rate_limit_error", retryable=True)
TOO_MANY_ATTEMPTS = _caller("too_many_attempts", 429, "rate_limit_error", retryable=True)
BUDGET_EXCEEDED = _caller("budget_exceeded", 429, "insufficient_quota")
UPSTREAM_RATE_LIMITED = _provider("upstream_rate_limited", 429, "rate_limit_error")
UPSTREAM_QUOTA_EXCEEDED = _provider("upstream_quota_exceeded", 429, "insufficient_quota", retryable=False)
# 500: a fault of ours
INTERNAL_ERROR = Kind("internal_error", 500, "server_error", Fault.GATEWAY)
# 502: what is behind us failed
UPSTREAM_UNREACHABLE = _provider("upstream_unreachable", 502, "upstream_error")
UPSTREAM_ERROR = _provider("upstream_error", 502, "upstream_error")
UPSTREAM_INVALID_RESPONSE = _provider("upstream_invalid_response", 502, "upstream_error")
UPSTREAM_AUTH_ERROR = _provider("upstream_auth_error", 502, "upstream_error", retryable=False)
# 503: not now
UPSTREAM_OVERLOADED = _provider("upstream_overloaded", 503, "service_unavailable")
NO_TARGET_AVAILABLE = _provider("no_target_available", 503, "service_unavailable")
STORE_UNAVAILABLE = Kind("store_unavailable", 503, "service_unavailable", Fault.GATEWAY, retryable=True)
DRAINING = Kind("draining", 503, "service_unavailable", Fault.GATEWAY, retryable=True)
# 504
UPSTREAM_TIMEOUT = _provider("upstream_timeout", 504, "upstream_timeout")


class GatewayError(Exception):
    """A failure with all that a client, a log line and a retry decision need.

    ``message`` is for the person who sent the request: it names what was wrong and what to do, and holds no secret.
    ``status``, ``type`` and ``code`` may differ from the kind's where a provider's own answer is passed on.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        error_type: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
        upstream_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        """The request field at fault, in dotted form (``messages.0.role``)."""
        self.status = kind.status if status is None else status
        self.type = kind.type if error_type is None else error_type
        self.code: str | None = kind.code if code is None else code
        self.retry_after_seconds = retry_after_seconds
        """When to try again; becomes ``Retry-After``, rounded up."""
        self.headers: Mapping[str, str] = headers or {}
        """Further response headers, such as ``Allow``."""
        self.upstream_status = upstream_status
        """The HTTP status that the provider answered with, where one did; 200 where the error stood in an answer."""
        self.target: str | None = None
        """``provider/model`` that the request was for, once it is known; for the log."""
        self.withheld: str | None = None
        """What a provider said that only the gateway's operator may read, without secrets; for the log."""


class StartError(Exception):
    """Something that stops the program with one line: a setting, a port, a file. The message says what to do."""


StoreCause: TypeAlias = Literal["locked", "full", "readonly", "slow", "damaged", "other"]
"""Why a store or a journal cannot be used, in a word for the metrics."""


class StoreUnavailable(Exception):
    """The store cannot be read or written now. The message names the cause for people, ``cause`` its kind."""

    def __init__(self, message: str, cause: StoreCause = "other") -> None:
        super().__init__(message)
        self.cause: StoreCause = cause
