"""Answers as plain values: a status, headers as bytes, a body. Errors become JSON here, and nowhere else in the server.

The outermost layer (``app.Door``) adds the headers that every answer has, so nothing in here does.
"""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.types import Message, Send

from inferxgate import reports
from inferxgate.dialects import openai_chat
from inferxgate.errors import INTERNAL_ERROR, Fault, GatewayError
from inferxgate.values import dataclass
from inferxgate.workers.limits import RateState

JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")
"""For answers that hold a secret: no cache on the way keeps them."""

Headers = list[tuple[bytes, bytes]]

RETRY_AFTER_SECONDS = 2
"""What a 429 or 503 says where nobody knows better: a provider that is overloaded often does not say how long."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer."""

    status: int
    headers: Headers
    body: bytes


def json_reply(content: Any, *, status: int = 200, secret: bool = False) -> Reply:
    """``content`` as JSON; with ``secret``, not to be kept by any cache."""
    return Reply(status, [JSON, NO_STORE] if secret else [JSON], orjson.dumps(content))


def error_response(error: GatewayError, request_id: str) -> tuple[int, Headers, bytes]:
    """What a client is told of a failure: status, headers and body.

    The message of a fault of ours names the request id, by which the log tells more.
    """
    if error.kind is INTERNAL_ERROR:
        error = GatewayError(
            INTERNAL_ERROR,
            f"The gateway failed on this request. Its log tells more about the request id {request_id}.",
        )
    headers = [JSON]
    wait_seconds = error.retry_after_seconds
    if wait_seconds is None and error.status in (429, 503) and not _is_final(error):
        wait_seconds = RETRY_AFTER_SECONDS
    if wait_seconds is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(wait_seconds))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(wait_seconds * 1000))))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.upstream_status is not None and error.upstream_status >= 300:
        headers.append((b"x-inferxgate-upstream-status", b"%d" % error.upstream_status))
    further = error.headers
    if _is_final(error):
        further = {_SHOULD_RETRY: "false", **further}
    for name, value in further.items():
        headers.append((name.lower().encode("latin-1", "replace"), _one_line(value)))
    return error.status, headers, openai_chat.build_error(error)


_SHOULD_RETRY = "x-should-retry"


def _is_final(error: GatewayError) -> bool:
    """Whether an SDK that tries again after this status, as all do, would only ask in vain: it heeds this header."""
    tried_again = error.status == 429 or error.status >= 500
    return tried_again and not error.kind.retryable and error.kind.fault is not Fault.GATEWAY


def error_body(error: GatewayError) -> dict[str, Any]:
    """The error's JSON, for the one answer that holds more beside it."""
    content: dict[str, Any] = orjson.loads(openai_chat.build_error(error))["error"]
    return content


def _one_line(value: str) -> bytes:
    """A header's value as bytes, with anything that could end the line replaced."""
    return "".join(c if c.isprintable() else " " for c in value).encode("latin-1", "replace")


def rate_lines(state: RateState) -> bytes:
    """The header lines about the state of a caller's window."""
    return b"x-ratelimit-limit: %d\r\nx-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n" % (
        state.limit,
        state.remaining,
        state.reset_at_s,
    )


def header_line(name: bytes, value: bytes) -> bytes:
    """A line of an answer's head. Raises ``ValueError`` where it would be more than one, or would hold a NUL byte."""
    line = b"%b: %b\r\n" % (name, value)
    if line.count(b"\n") != 1 or line.count(b"\r") != 1 or b"\0" in line:
        raise ValueError(f"the header {name!r} of an answer has a line break in it")
    return line


def header_lines(headers: Headers) -> bytes:
    """The same for several."""
    return b"".join([header_line(name, value) for name, value in headers])


async def send_reply(send: Send, reply: Reply) -> None:
    await send(start_message(reply.status, reply.headers, len(reply.body)))
    await send({"type": "http.response.body", "body": reply.body})


def start_message(status: int, headers: Headers, length: int) -> Message:
    """The ASGI message that opens an answer of ``length`` bytes; a 204 has no length."""
    sized = headers if status == 204 else [*headers, (b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": status, "headers": sized}


def iso_time(ms: int | None) -> str | None:
    """``2026-11-23T20:40:00Z`` for UTC milliseconds; None for none."""
    return None if ms is None else reports.iso_time(ms)
