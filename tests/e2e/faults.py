"""The fault table: what a provider may do wrong, at which stage, and what has to come of it.

A ``Row`` is one fault, towards a whole or a streamed request. Each is tried in several ``Mode``s: its provider alone;
alone, but for the first request only; and with a second, healthy target behind it. What has to come of all these
follows from what is said of the fault: see ``test_fault_table``.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any, Final, Literal, TypeAlias

from inferxgate.gateway.routing import FallbackOn
from tests.e2e.hostile import (
    A_ERROR,
    BEGUN,
    DONE,
    FILTERS,
    G_BEGUN,
    G_ENDS,
    G_ERROR,
    HELLO,
    HTML,
    O_BEGUN,
    O_COUNTS,
    O_ENDS,
    O_ERROR,
    STARTS,
    Json,
    chunk,
    completion,
    content,
    event,
    message,
    wire,
)
from tests.support.faults import CHUNKED, LAST_CHUNK, Deaf, chunk_of, chunked, drip, sized
from tests.support.provider import CLOSE, HANG, RESET, Act, Reply, Wait, body_reply, head, sse_reply

RETRIES = 2
"""As the table's configuration has it."""
MAX_WAIT_SECONDS = 7
SHORT_SECONDS = 1.5
"""The bounds of rows in which a provider is too slow."""
LONG_SECONDS = 600
"""What a provider asks for that nobody waits for."""


# --- what has to come of a fault --------------------------------------------------------------------------------------

HealthAfter: TypeAlias = Literal["failed", "set aside", "well"]
"""What is thought of the provider afterwards: that it failed as often as it was asked; that its credential is not to be
used; nothing bad. Whatever it is, it is left alone for as long as the provider has said."""


@dataclass(frozen=True)
class Fine:
    """The client gets the answer all the same."""

    text: str = "Hello"
    finish: str = "stop"
    passed_on: FallbackOn | None = None
    """What an alias has to name for another target to be asked in spite of it."""
    health: HealthAfter = "well"


@dataclass(frozen=True)
class Failed:
    """Nothing reaches the client before it: it has a status of its own, and another target may be asked."""

    status: int
    code: str
    asked: int = 1 + RETRIES
    """How often, where there is no other target."""
    retry_after: tuple[int, int] | None = None
    """Seconds that the client is told to wait: at least and at most."""
    or_code: str | None = None
    """What may be said as well, where it is a race which of two things is noticed first."""
    health: HealthAfter = "failed"
    goes_on: bool = True
    """Whether another target is asked."""
    passed_on: FallbackOn | None = None
    """What an alias has to name for that, where it does not go on by itself."""


@dataclass(frozen=True)
class Cut:
    """The client has read the beginning of an answer: it is told within the stream, and nobody is asked again."""

    code: str
    said: str = "Hel"
    health: HealthAfter = "failed"


Expected: TypeAlias = Fine | Failed | Cut

BROKE = Failed(502, "upstream_error")
UNREACHED = Failed(502, "upstream_unreachable")
NONSENSE = Failed(502, "upstream_invalid_response")
ELSEWHERE = replace(NONSENSE, asked=1)
SLOW = Failed(504, "upstream_timeout")
BUSY = Failed(503, "upstream_overloaded", retry_after=(1, 2))
BUSY_LONG = replace(BUSY, asked=1, retry_after=(LONG_SECONDS, LONG_SECONDS * 21 // 20))
QUOTA = Failed(429, "upstream_quota_exceeded", asked=1, health="set aside")
REFUSED = Failed(502, "upstream_auth_error", asked=1, health="set aside")
LIMITED = Failed(429, "upstream_rate_limited", retry_after=(1, 4), health="well")
LIMITED_LONG = replace(LIMITED, asked=1, retry_after=(LONG_SECONDS, LONG_SECONDS * 21 // 20))
NO_MODEL = Failed(404, "model_not_found", asked=1, health="well")
NO_ROUTE = Failed(404, "route_not_found", asked=1, health="well")
TOO_LONG = Failed(400, "context_length_exceeded", asked=1, health="well", goes_on=False, passed_on="context_length")
TOO_LARGE = Failed(413, "request_too_large", asked=1, health="well", goes_on=False, passed_on="context_length")
FILTERED = Failed(400, "content_filter", asked=1, health="well", goes_on=False, passed_on="content_filter")


def callers(status: int, code: str) -> Failed:
    return Failed(status, code, asked=1, health="well", goes_on=False)


# --- a fault ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    stream: bool
    reply: Reply | Callable[[], Reply]
    expected: Expected
    provider: str = "openai"
    """Whose API it speaks."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of its provider's section."""
    deaf: Deaf | None = None
    """It does not even read."""
    scheme: Literal["http", "https"] = "http"
    prompt: str = "Say hello."
    counted: bool = True
    """Whether it is known how often it was asked."""
    warm: Reply | None = None
    """It answers the first request over each connection so (what comes after ``ONCE_TOLD`` only the first time); the
    fault meets the next request over the same connection."""


def both(name: str, reply: Reply | Callable[[], Reply], expected: Expected, **more: Any) -> list[Row]:
    return [Row(name, stream, reply, expected, **more) for stream in (False, True)]


def whole(name: str, reply: Reply, expected: Expected, **more: Any) -> list[Row]:
    return [Row(name, False, reply, expected, **more)]


def streamed(name: str, reply: Reply, expected: Expected, **more: Any) -> list[Row]:
    return [Row(name, True, reply, expected, **more)]


def status(
    number: int, body: Json | bytes = b"", headers: Mapping[str, str] | None = None, *, kind: str = "application/json"
) -> Reply:
    data = body if isinstance(body, bytes) else wire(body)
    return body_reply(data, status=number, headers={"content-type": kind, **(headers or {})})


def sse(*events: Json | bytes, kind: str = "openai") -> Reply:
    """A stream of a provider's own events, whole as far as HTTP goes."""
    write = event if kind == "anthropic" else _data
    return sse_reply([write(each) for each in events])


def _data(body: Json | bytes) -> bytes:
    return body if isinstance(body, bytes) else b"data: %b\n\n" % wire(body)


def answer(provider: str, *, stream: bool) -> Reply:
    """What a provider says that is well: Hello, in its own dialect."""
    if provider == "anthropic":
        return sse(*HELLO, kind=provider) if stream else status(200, message())
    if provider == "gemini":
        return sse(G_BEGUN, G_ENDS) if stream else status(200, content())
    return sse(O_BEGUN, O_ENDS, O_COUNTS, DONE) if stream else status(200, completion())


# --- connections ------------------------------------------------------------------------------------------------------

CONNECTS = {"connect_timeout_seconds": SHORT_SECONDS}
BEGINS = {"first_byte_timeout_seconds": SHORT_SECONDS}
GOES_ON = {"idle_timeout_seconds": SHORT_SECONDS}
ENDS_IN_TIME = {"timeout_seconds": SHORT_SECONDS}
FIRST, SECOND = _data(O_BEGUN), _data(O_ENDS)
BODY = wire(completion())
HEAD = head(200, {"content-type": "application/json", "content-length": str(len(BODY))})
NOTHING = Reply(())
LARGE_PROMPT = "y" * 12_000_000
"""More than the buffers of a connection take."""

UNHEARD = [
    *both("refuses connections", NOTHING, UNREACHED, deaf="refuses", counted=False),
    *both("no connection comes about", NOTHING, SLOW, deaf="full", settings=CONNECTS, counted=False),
    *both("accepts and never reads", NOTHING, SLOW, deaf="silent", settings=BEGINS, counted=False),
    *both(
        "resets what it accepts", NOTHING, replace(BROKE, or_code="upstream_unreachable"), deaf="resets", counted=False
    ),
]


def endings() -> Iterator[tuple[str, Act, bool]]:
    """How a reply may break off: what it is called, how, and whether that is a matter of time."""
    yield "ends", CLOSE, False
    yield "is reset", RESET, False
    yield "hangs", HANG, True


def broken_off() -> Iterator[Row]:
    """Each ending at each stage before the client has read anything, then at each after it."""
    for how, act, slow in endings():
        failed, begins = (SLOW, BEGINS) if slow else (BROKE, {})
        goes_on = GOES_ON if slow else {}
        yield from both(f"{how} before any byte", Reply((act,)), failed, settings=begins)
        yield from both(f"{how} within the status", Reply((b"HTTP/1.1 20", act)), failed, settings=begins)
        yield from both(f"{how} within the headers", Reply((HEAD[:40], act)), failed, settings=begins)
        yield from whole(f"{how} after the headers", Reply((HEAD, act)), failed, settings=goes_on)
        yield from whole(f"{how} within the body", sized(BODY, act, keep=30), failed, settings=goes_on)
        yield from whole(f"{how} within a chunk", _unchunked(BODY, act), failed, settings=goes_on)
        yield from both(f"{how} within an error", _broken_error(500, act), BROKE, settings=goes_on)
        yield from both(f"{how} within a refusal", _broken_error(401, act), REFUSED, settings=goes_on)
        yield from streamed(f"{how} after the headers", Reply((CHUNKED, act)), failed, settings=begins | goes_on)
        yield from streamed(
            f"{how} within the first event", chunked(FIRST[:20], end=(act,)), failed, settings=begins | goes_on
        )
        yield from streamed(
            f"{how} within the first chunk",
            chunked(end=(chunk_of(FIRST)[:20], act)),
            failed,
            settings=begins | goes_on,
        )
        cut = Cut("upstream_timeout" if slow else "upstream_error")
        yield from streamed(f"{how} after the first event", chunked(FIRST, end=(act,)), cut, settings=goes_on)
        yield from streamed(
            f"{how} within the second event", chunked(FIRST, SECOND[:20], end=(act,)), cut, settings=goes_on
        )
        yield from streamed(
            f"{how} within the second chunk",
            chunked(FIRST, end=(chunk_of(SECOND)[:20], act)),
            cut,
            settings=goes_on,
        )
        yield from streamed(f"{how} within the size of a chunk", chunked(FIRST, end=(b"7", act)), cut, settings=goes_on)
        yield from streamed(
            f"{how} when the answer is finished", chunked(FIRST, SECOND, end=(act,)), Fine(), settings=goes_on
        )
        yield from streamed(
            f"{how} once it has said that it is done",
            chunked(FIRST, SECOND, DONE, end=(act,)),
            Fine(),
            settings=goes_on,
        )


def _unchunked(body: bytes, act: Act) -> Reply:
    said = {"content-type": "application/json", "transfer-encoding": "chunked"}
    return Reply((head(200, said), chunk_of(body)[:30], act))


def _broken_error(number: int, act: Act) -> Reply:
    """A failure that is not told to its end: the status says enough."""
    return Reply((head(number, {"content-type": "application/json", "content-length": "99"}), b'{"error"', act))


DRIPPED = [
    *both(
        "drips an error for ever",
        Reply((head(500, {"transfer-encoding": "chunked"}), *(Wait(0.1), chunk_of(b"y")) * 999)),
        BROKE,
        settings=BEGINS | GOES_ON,
    ),
    *both("drips its headers", Reply(drip(HEAD, 0.1)), SLOW, settings=BEGINS),
    *whole("drips its body, a byte a second", Reply((HEAD, *drip(BODY, 1))), SLOW, settings={"timeout_seconds": 1.5}),
    *whole("drips its body in time", sized(BODY, *drip(BODY[-40:], 0.02), keep=-40), Fine(), settings=GOES_ON),
    *streamed("drips its first event", chunked(end=drip(chunk_of(FIRST), 0.2)), SLOW, settings=BEGINS | GOES_ON),
    *streamed(
        "comments for ever and says nothing",
        chunked(end=(Wait(0.1), chunk_of(b": wait\n\n")) * 99),
        SLOW,
        settings=BEGINS | CONNECTS,
    ),
    *streamed(
        "drips a byte a second once it has begun",
        chunked(FIRST, SECOND[:-5], end=(*drip(chunk_of(SECOND[-5:]), 1), chunk_of(DONE), LAST_CHUNK)),
        Fine(),
        settings=BEGINS | CONNECTS | {"idle_timeout_seconds": 5},
    ),
]


# --- kept-alive connections, which end at the worst moment ------------------------------------------------------------

ONCE_TOLD: Final = Wait(0.0)
"""In the place of a pause that ends when the client has read its answer."""
FAREWELL = status(408, HTML, {"connection": "close"}, kind="text/html").steps[0:2]
KEPT_ALIVE = [
    row
    for stream in (False, True)
    for said in (answer("openai", stream=stream),)
    for row in (
        Row("closes the connection between two requests", stream, said, Fine(), warm=said.then(ONCE_TOLD, CLOSE)),
        Row("resets the connection between two requests", stream, said, Fine(), warm=said.then(ONCE_TOLD, RESET)),
        Row("says 408 between two requests", stream, said, Fine(), warm=said.then(ONCE_TOLD, *FAREWELL, CLOSE)),
        Row("says more than it announced", stream, said, Fine(), warm=said.then(ONCE_TOLD, b"and more")),
        Row("closes when the next request was written", stream, Reply((CLOSE,)), BROKE, warm=said),
        Row("resets when the next request was written", stream, Reply((RESET,)), BROKE, warm=said),
    )
]


# --- things that are no answer ----------------------------------------------------------------------------------------

NOT_GZIP = {"content-encoding": "gzip"}


def encoded(body: bytes, kind: str) -> Reply:
    said = {"content-type": kind, "content-length": str(len(body)), **NOT_GZIP}
    return Reply((head(200, said), body))


SQUEEZED = gzip.compress(BODY)
NO_ANSWERS = [
    *both("no HTTP", Reply((b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE)), NONSENSE),
    *both("a header that is too long", status(200, BODY, {"x-long": "y" * 40_000}), NONSENSE),
    *both("too many headers", status(200, BODY, {f"x-{number}": "y" for number in range(500)}), NONSENSE),
    *both(
        "two lengths", Reply((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", CLOSE)), NONSENSE
    ),
    *both("another protocol", Reply((b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", HANG)), NONSENSE),
    *both("HTML", status(200, HTML, kind="text/html"), NONSENSE),
    *both("HTML with 500", status(500, HTML, kind="text/html"), BROKE),
    *both("HTML with 502", status(502, HTML, kind="text/html"), BROKE),
    *both("HTML with 503", status(503, HTML, kind="text/html"), BUSY),
    *both("HTML with 504", status(504, HTML, kind="text/html"), SLOW),
    *both("HTML with 404", status(404, b"404 page not found", kind="text/plain"), NO_ROUTE),
    *both("an error larger than anybody reads", status(500, b"y" * 3_000_000), BROKE),
    *both("gzip that is none", encoded(BODY, "application/json"), NONSENSE),
    *whole("truncated JSON", status(200, BODY[:-9]), NONSENSE),
    *whole("nothing", status(200), NONSENSE),
    *whole("no content", Reply((head(204, {}),)), NONSENSE),
    *whole("no choices", status(200, {"id": "c", "choices": []}), NONSENSE),
    *whole("gzip that breaks off", Reply((head(200, {**NOT_GZIP, "content-length": "40"}), SQUEEZED[:40])), NONSENSE),
    *whole("gzip", encoded(SQUEEZED, "application/json"), Fine()),
    *whole("early hints first", Reply((b"HTTP/1.1 103 Early Hints\r\n\r\n", HEAD, BODY)), Fine()),
    *streamed("truncated JSON first", sse(b'data: {"choices": [{"del\n\n'), NONSENSE),
    *streamed("truncated JSON second", sse(O_BEGUN, b'data: {"choices": [{"del\n\n'), Cut("upstream_invalid_response")),
    *streamed("no events", sse(), BROKE),
    *streamed("only the end", sse(DONE), BROKE),
    *streamed("it just ends", sse(O_BEGUN), Cut("upstream_error")),
    *streamed("it says that it is done and is not", sse(O_BEGUN, DONE), Cut("upstream_error")),
    *streamed("a whole answer", status(200, BODY), NONSENSE),
    *streamed("HTML that says it is a stream", sse(HTML), NONSENSE),
    *streamed("HTML second", sse(O_BEGUN, b"data: " + HTML + b"\n\n"), Cut("upstream_invalid_response")),
    *streamed(
        "chunks that are none",
        chunked(FIRST, end=(Wait(0.3), b"zz\r\nwhat\r\n", CLOSE)),
        Cut("upstream_invalid_response"),
    ),
]


# --- errors within answers that began with 200 ------------------------------------------------------------------------

A_LIMITED = {"type": "error", "error": {"type": "rate_limit_error", "message": "Too many requests."}}
A_INVALID = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}
O_LONG = {"error": {"message": "This model's maximum context length is 8 tokens.", "code": 400}}
ERRORS_IN_ANSWERS = [
    *whole("an error with 200", status(200, O_ERROR), BUSY),
    *whole("an error with 200", status(200, A_ERROR), BUSY, provider="anthropic"),
    *whole("an error with 200", status(200, G_ERROR), BUSY, provider="gemini"),
    *streamed("an error first", sse(O_ERROR), BUSY),
    *streamed("an error first", sse(A_ERROR, kind="anthropic"), BUSY, provider="anthropic"),
    *streamed("an error first", sse(G_ERROR), BUSY, provider="gemini"),
    *streamed("an error after Azure's opening", sse(FILTERS, O_ERROR), BUSY, provider="azure"),
    *streamed("an error after the start", sse(STARTS, A_ERROR, kind="anthropic"), BUSY, provider="anthropic"),
    *streamed("a rate limit first", sse(A_LIMITED, kind="anthropic"), LIMITED, provider="anthropic"),
    *streamed("a prompt too long first", sse(O_LONG), TOO_LONG),
    *streamed("a prompt too long first", sse(A_INVALID, kind="anthropic"), TOO_LONG, provider="anthropic"),
    *streamed("an error second", sse(O_BEGUN, O_ERROR), Cut("upstream_overloaded")),
    *streamed(
        "an error second", sse(*BEGUN, A_ERROR, kind="anthropic"), Cut("upstream_overloaded"), provider="anthropic"
    ),
    *streamed("an error second", sse(G_BEGUN, G_ERROR), Cut("upstream_overloaded"), provider="gemini"),
    *streamed(
        "a rate limit second",
        sse(*BEGUN, A_LIMITED, kind="anthropic"),
        Cut("upstream_rate_limited", health="well"),
        provider="anthropic",
    ),
    *streamed("an error last", sse(O_BEGUN, O_ENDS, O_ERROR), Cut("upstream_overloaded", said="Hello")),
    *streamed("an error after the end", sse(O_BEGUN, O_ENDS, DONE, O_ERROR), Fine()),
    *streamed("an error after the end", sse(*HELLO, A_ERROR, kind="anthropic"), Fine(), provider="anthropic"),
]


# --- each status of each provider -------------------------------------------------------------------------------------


def o_error(message: str, kind: str, code: str | None = None, param: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


O_LIMITED = o_error(
    "Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1.",
    "requests",
    "rate_limit_exceeded",
)


def limited_in(seconds: str) -> Reply:
    """A 429 with a ``Retry-After``."""
    return status(429, O_LIMITED, {"retry-after": seconds})


def dated() -> Reply:
    """A 429 that names a moment, which has whole seconds only."""
    return status(429, O_LIMITED, {"retry-after": formatdate(time.time() + 2, usegmt=True)})


def openai() -> Iterator[Row]:
    invalid = "invalid_request_error"
    long = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
    unknown = o_error("The requested model 'gpt-9' does not exist.", invalid, "model_not_found", "model")
    refused = o_error("Incorrect API key provided: sk-x. You can find it in your account.", invalid, "invalid_api_key")
    region = o_error(
        "Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"
    )
    quota = o_error(
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    )
    policy = o_error("Your input was flagged.", "image_generation_user_error", "content_policy_violation")
    failed = o_error("The server had an error while processing your request. Sorry about that!", "server_error")
    overloaded = o_error("The engine is currently overloaded, please try again later", "server_error")
    yield from both(
        "400 prompt too long", status(400, o_error(long, invalid, "context_length_exceeded", "messages")), TOO_LONG
    )
    yield from both(
        "400 invalid",
        status(400, o_error("Invalid 'messages[3]'.", invalid, "invalid_value")),
        callers(400, "invalid_value"),
    )
    yield from both("400 no such model", status(400, unknown), replace(NO_MODEL, status=400))
    yield from both("400 policy", status(400, policy), callers(400, "content_policy_violation"))
    yield from both("401", status(401, refused), REFUSED)
    yield from both("402", status(402, o_error("Insufficient Balance", "unknown_error", invalid)), QUOTA)
    yield from both("403", status(403, region), REFUSED)
    yield from both("404 no such model", status(404, unknown), NO_MODEL)
    yield from both("408", status(408, o_error("Request timed out.", "timeout")), SLOW)
    yield from both("409", status(409, o_error("Please try again.", "conflict_error")), BROKE)
    yield from both("413", status(413, o_error("Request too large.", invalid)), TOO_LARGE)
    yield from both(
        "422",
        status(422, {"detail": [{"loc": ["body", "x"], "msg": "extra forbidden"}]}),
        callers(422, "invalid_value"),
    )
    yield from both("424", status(424, o_error("The model failed.", "model_error")), BROKE)
    yield from both("429 without a word of when", status(429, O_LIMITED), LIMITED)
    yield from both(
        "429 in seconds", status(429, O_LIMITED, {"retry-after": "1"}), replace(LIMITED, retry_after=(1, 2))
    )
    yield from both("429 at once", status(429, O_LIMITED, {"retry-after": "0"}), replace(LIMITED, retry_after=(1, 1)))
    yield from both("429 at a date", dated, replace(LIMITED, retry_after=(1, 3)))
    yield from both(
        "429 in milliseconds",
        status(429, O_LIMITED, {"retry-after-ms": "700", "retry-after": "60"}),
        replace(LIMITED, retry_after=(1, 1)),
    )
    yield from both("429 after a while", status(429, O_LIMITED, {"retry-after": str(LONG_SECONDS)}), LIMITED_LONG)
    yield from both("429 in words", status(429, O_LIMITED, {"retry-after": "soon"}), LIMITED)
    yield from both("429 quota", status(429, quota), QUOTA)
    yield from both("498", status(498, o_error("Flex capacity exceeded.", "capacity_exceeded")), BUSY)
    yield from both("500", status(500, failed), BROKE)
    yield from both("501", status(501, failed), BROKE)
    yield from both("502", status(502, failed), BROKE)
    yield from both("503", status(503, overloaded), BUSY)
    yield from both("503 in a second", status(503, overloaded, {"retry-after": "1"}), BUSY)
    yield from both("503 after a while", status(503, overloaded, {"retry-after": str(LONG_SECONDS)}), BUSY_LONG)
    yield from both(
        "503 while the model loads", status(503, {"error": "Model is loading", "estimated_time": 1.4}), BUSY
    )
    yield from both("504", status(504, failed), SLOW)
    yield from both("520 of a proxy", status(520, b"error code: 520", kind="text/plain"), BROKE)
    for number in (301, 302, 307, 308):
        yield from both(f"{number}", status(number, headers={"location": "http://127.0.0.1:9/elsewhere"}), ELSEWHERE)


def a_error(kind: str, text: str, **details: Any) -> Json:
    error = {"type": kind, "message": text, **({"details": details} if details else {})}
    return {"type": "error", "error": error, "request_id": "req_011CXePJ3XLZN1SyGcR9mg4U"}


def anthropic() -> Iterator[Row]:
    invalid = "invalid_request_error"
    spent = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
    limited = "This request would exceed your organization's rate limit of 50 requests per minute."
    resets = {"anthropic-ratelimit-requests-remaining": "0"}
    for name, reply, expected in (
        (
            "400 prompt too long",
            status(400, a_error(invalid, "prompt is too long: 210000 tokens > 200000 maximum")),
            TOO_LONG,
        ),
        (
            "400 invalid",
            status(400, a_error(invalid, "messages.0: all messages must have non-empty content")),
            callers(400, "invalid_value"),
        ),
        ("400 own spending limit", status(400, a_error(invalid, spent)), QUOTA),
        ("400 no credit", status(400, a_error(invalid, "Your credit balance is too low to access the API.")), QUOTA),
        ("401", status(401, a_error("authentication_error", "invalid x-api-key")), REFUSED),
        ("402", status(402, a_error("billing_error", "There is an issue with your billing.")), QUOTA),
        ("403", status(403, a_error("permission_error", "Your API key does not have permission.")), REFUSED),
        ("404", status(404, a_error("not_found_error", "model: claude-sonet-4-5")), NO_MODEL),
        ("413", status(413, a_error("request_too_large", "Request exceeds the maximum size")), TOO_LARGE),
        (
            "429",
            status(429, a_error("rate_limit_error", limited), {**resets, "retry-after": "1"}),
            replace(LIMITED, retry_after=(1, 2)),
        ),
        ("429 without a word of when", status(429, a_error("rate_limit_error", limited)), LIMITED),
        (
            "429 spending limit",
            status(429, a_error("rate_limit_error", "Limit.", error_code="enforced_spend_limit_reached")),
            QUOTA,
        ),
        ("500", status(500, a_error("api_error", "Internal server error")), BROKE),
        ("503", status(503, b"upstream connect error", kind="text/plain"), BUSY),
        ("504", status(504, a_error("timeout_error", "Request timed out")), SLOW),
        ("529", status(529, a_error("overloaded_error", "Overloaded")), BUSY),
    ):
        yield from both(name, reply, expected, provider="anthropic")


def g_error(number: int, name: str, text: str, *details: Json) -> Json:
    return {"error": {"code": number, "message": text, "status": name, "details": list(details)}}


def gemini() -> Iterator[Row]:
    long = "The input token count (1048600) exceeds the maximum number of tokens allowed (1048576)."
    bad_key = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
    part = {**wait, "retryDelay": "0.6s"}
    later = {**wait, "retryDelay": f"{LONG_SECONDS}s"}
    daily = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "50"}],
    }
    spent = "You exceeded your current quota, please check your plan and billing details."
    limited = "RESOURCE_EXHAUSTED"
    for name, reply, expected in (
        ("400 prompt too long", status(400, g_error(400, "INVALID_ARGUMENT", long)), TOO_LONG),
        (
            "400 invalid",
            status(400, g_error(400, "INVALID_ARGUMENT", "Invalid value at 'contents'")),
            callers(400, "invalid_value"),
        ),
        ("400 bad key", status(400, g_error(400, "INVALID_ARGUMENT", "API key not valid.", bad_key)), REFUSED),
        ("403", status(403, g_error(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers")), REFUSED),
        (
            "404",
            status(404, g_error(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta")),
            NO_MODEL,
        ),
        ("429 in a second", status(429, g_error(429, limited, spent, wait)), replace(LIMITED, retry_after=(1, 2))),
        ("429 in a part of one", status(429, g_error(429, limited, spent, part)), replace(LIMITED, retry_after=(1, 1))),
        (
            "429 in words",
            status(429, g_error(429, limited, f"{spent} Please retry in 0.7s.")),
            replace(LIMITED, retry_after=(1, 1)),
        ),
        ("429 after a while", status(429, g_error(429, limited, spent, later)), LIMITED_LONG),
        ("429 of the day", status(429, g_error(429, limited, spent, daily, wait)), QUOTA),
        ("500", status(500, g_error(500, "INTERNAL", "An internal error has occurred.")), BROKE),
        ("503", status(503, g_error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")), BUSY),
        (
            "504",
            status(504, g_error(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")),
            SLOW,
        ),
    ):
        yield from both(name, reply, expected, provider="gemini")
    yield from streamed(
        "503 in a list", status(503, wire([g_error(503, "UNAVAILABLE", "Overloaded.")])), BUSY, provider="gemini"
    )


def azure() -> Iterator[Row]:
    filtered = o_error(
        "The response was filtered due to the prompt triggering the content policy.", "", "content_filter", "prompt"
    )
    filtered["error"]["innererror"] = {"code": "ResponsibleAIPolicyViolation"}
    long = o_error(
        "This model's maximum context length is 8192 tokens.", "invalid_request_error", "context_length_exceeded"
    )
    denied = {
        "error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}
    }
    absent = {
        "error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}
    }
    limited = {
        "error": {
            "code": "429",
            "message": "Requests to the ChatCompletions_Create Operation have exceeded the rate limit.",
        }
    }
    for name, reply, expected in (
        ("400 content filter", status(400, filtered), FILTERED),
        ("400 prompt too long", status(400, long), TOO_LONG),
        ("401", status(401, denied), REFUSED),
        ("404 no deployment", status(404, absent), replace(NO_MODEL, code="DeploymentNotFound")),
        ("404 no resource", status(404, {"error": {"code": "404", "message": "Resource not found"}}), NO_ROUTE),
        ("408", status(408, {"error": {"code": "Timeout", "message": "The operation was timeout."}}), SLOW),
        ("429 in a second", status(429, limited, {"retry-after": "1"}), replace(LIMITED, retry_after=(1, 2))),
        ("429 in milliseconds", status(429, limited, {"retry-after-ms": "600"}), replace(LIMITED, retry_after=(1, 1))),
        (
            "429 in Microsoft's milliseconds",
            status(429, limited, {"x-ms-retry-after-ms": "600"}),
            replace(LIMITED, retry_after=(1, 1)),
        ),
        ("500", status(500, {"error": {"code": "InternalServerError", "message": "Internal server error"}}), BROKE),
        ("503", status(503, {"error": {"code": "ServiceUnavailable", "message": "Unavailable"}}), BUSY),
    ):
        yield from both(name, reply, expected, provider="azure")


REFUSALS = [
    *whole(
        "an answer that was filtered",
        status(200, completion(finish_reason="content_filter")),
        Fine(finish="content_filter", passed_on="content_filter"),
    ),
    *streamed(
        "an answer that was filtered at once",
        sse(chunk(None, "content_filter"), O_COUNTS, DONE),
        Fine("", "content_filter", passed_on="content_filter"),
    ),
    *streamed(
        "an answer that was filtered once it had begun",
        sse(O_BEGUN, chunk(None, "content_filter"), O_COUNTS, DONE),
        Fine("Hel", "content_filter"),
    ),
]

ROWS: list[Row] = [
    *UNHEARD,
    *broken_off(),
    *DRIPPED,
    *KEPT_ALIVE,
    *NO_ANSWERS,
    *ERRORS_IN_ANSWERS,
    *openai(),
    *anthropic(),
    *gemini(),
    *azure(),
    *REFUSALS,
]
