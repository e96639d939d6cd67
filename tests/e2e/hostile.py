"""What a provider may send instead of an answer, for each dialect, whole and streamed, and what has to come of it.

A row is a body as it goes over the wire. An ``Answer`` reaches the client all the same; a ``Failure`` is told with its
status where nothing had been said, and else within the stream. Either way one record says what it cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inferxgate.framing.sse import MAX_EVENT_BYTES
from tests.support.provider import CLOSE, RESET, Act, Reply, body_reply, head

Json = dict[str, Any]

COUNTED = (9, 2)
"""Tokens of prompt and completion that every well-behaved part of this module reports."""


@dataclass(frozen=True)
class Answer:
    """The client gets an answer."""

    text: str = "Hello"
    finish: str | None = "stop"
    calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments of each tool call."""
    counted: tuple[int, int] | None = COUNTED
    """What the record has of the provider's count; None: it is estimated."""


@dataclass(frozen=True)
class Failure:
    """The client is told what failed."""

    code: str = "upstream_invalid_response"
    status: int = 502
    said: str | None = None
    """What the client was told before, within a stream."""
    counted: tuple[int, int] | None = None
    source: str | None = None
    """The record's ``usage_source`` where it does not follow from the others."""


@dataclass(frozen=True)
class Case:
    provider: str
    stream: bool
    body: bytes | tuple[bytes, ...]
    """Pieces are written one by one."""
    expected: Answer | Failure
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    breaks_off: Act | None = None
    """How the connection ends where the body is not whole."""

    def reply(self, *, cuts: int | None = None) -> Reply:
        """The reply of the provider, in random cuts for a given seed."""
        kind = self.content_type or ("text/event-stream" if self.stream else "application/json")
        if "content-encoding" in self.headers:
            assert isinstance(self.body, bytes)
            length = {"content-length": str(len(self.body))}
            return Reply((head(self.status, {"content-type": kind, **length, **self.headers}), self.body))
        if self.breaks_off is not None:
            pieces = (self.body,) if isinstance(self.body, bytes) else self.body
            framing = {"content-type": kind, "content-length": str(sum(map(len, pieces)) + 99)}
            return Reply((head(self.status, framing), *pieces, self.breaks_off))
        return body_reply(
            self.body,
            status=self.status,
            headers={"content-type": kind, **self.headers},
            cuts=cuts,
            framing="chunked" if self.stream else "length",
        )


INVALID = Failure()
ENDED = Failure("upstream_error")
BUSY = Failure("upstream_overloaded", 503)
HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
DEEP = b"[" * 100_000
HUGE = 10**30


def wire(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


# --- Anthropic ----------------------------------------------------------------------------------------------------

A_USAGE: Json = {"input_tokens": 9, "output_tokens": 2}
A_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def text_block(text: str) -> Json:
    return {"type": "text", "text": text}


def call_block(**changes: Any) -> Json:
    return {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}} | changes


def message(*content: Any, **changes: Any) -> Json:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": list(content or [text_block("Hello")]),
        "stop_reason": "end_turn",
        "usage": A_USAGE,
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


def a_whole(body: bytes | Json, expected: Answer | Failure, **more: Any) -> Case:
    return Case("anthropic", False, body if isinstance(body, bytes) else wire(body), expected, **more)


ANTHROPIC_WHOLE = {
    "truncated": a_whole(wire(message())[:-9], INVALID),
    "breaks off": a_whole(wire(message())[:-9], ENDED, breaks_off=CLOSE),
    "is reset": a_whole(wire(message())[:-9], ENDED, breaks_off=RESET),
    "HTML": a_whole(HTML, INVALID, content_type="text/html"),
    "HTML that says it is JSON": a_whole(HTML, INVALID),
    "HTML with a status": a_whole(HTML, BUSY, content_type="text/html", status=503),
    "another content type": a_whole(message(), Answer(), content_type="text/plain"),
    "nothing": a_whole(b"", INVALID),
    "a list": a_whole(b"[]", INVALID),
    "null": a_whole(b"null", INVALID),
    "not the encoding that it says": a_whole(message(), INVALID, headers={"content-encoding": "gzip"}),
    "no content": a_whole(message(content=...), Failure(counted=COUNTED)),
    "content is null": a_whole(message(content=None), Failure(counted=COUNTED)),
    "no stop reason": a_whole(message(stop_reason=...), Failure(counted=COUNTED)),
    "the stop reason is null": a_whole(message(stop_reason=None), Failure(counted=COUNTED)),
    "nothing but an id": a_whole({"id": "msg_1", "content": []}, INVALID),
    "an unknown stop reason": a_whole(message(stop_reason="of_the_future"), Answer()),
    "no usage": a_whole(message(usage=...), Answer(counted=None)),
    "usage is null": a_whole(message(usage=None), Answer(counted=None)),
    "usage as strings": a_whole(message(usage={"input_tokens": "9", "output_tokens": "2"}), Answer()),
    "negative usage": a_whole(message(usage={"input_tokens": -9, "output_tokens": -2}), Answer(counted=None)),
    "absurd usage": a_whole(message(usage={"input_tokens": HUGE, "output_tokens": 10**14}), Answer(counted=None)),
    "usage in words": a_whole(message(usage={"input_tokens": "many", "cache_creation": 7}), Answer(counted=None)),
    "unknown blocks": a_whole(message({"type": "of_the_future", "text": "no"}, text_block("Hello")), Answer()),
    "blocks of nothing": a_whole(message(None, "x", {}, {"type": None}, text_block("Hello")), Answer()),
    "a block whose text is null": a_whole(message({"type": "text", "text": None}, text_block("Hello")), Answer()),
    "gigantic": a_whole(message(text_block("y" * 5_000_000)), Answer("y" * 5_000_000)),
    "not UTF-8": a_whole(wire(message()).replace(b"Hello", b"Hel\xff\xfe"), INVALID),
    "half a surrogate": a_whole(wire(message()).replace(b"Hello", rb"Hel\ud83d"), INVALID),
    "too deep to read": a_whole(wire(message()).replace(b'"Hello"', DEEP), INVALID),
    "deep arguments": a_whole(
        wire(message(call_block(), stop_reason="tool_use")).replace(
            b'"input":{}', b'"input":{"a":' + b"[" * 400 + b"]" * 400 + b"}"
        ),
        Answer("", "tool_calls", (("f", '{"a":' + "[" * 400 + "]" * 400 + "}"),)),
    ),
    "huge numbers in arguments": a_whole(
        message(call_block(input={"a": HUGE}), stop_reason="tool_use"),
        Answer("", "tool_calls", (("f", f'{{"a":{HUGE}}}'),)),
    ),
    "a call without a name": a_whole(message(call_block(name=None)), Failure(counted=COUNTED)),
    "a call without an id": a_whole(message(call_block(id=None)), Failure(counted=COUNTED)),
    "an error": a_whole(A_ERROR, BUSY),
    "an error that is a string": a_whole({"error": "no"}, ENDED),
    "an error with usage": a_whole({**A_ERROR, "usage": A_USAGE}, Failure("upstream_overloaded", 503)),
}

STARTS: Json = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "claude-sonnet-4-5", "content": [], "usage": {**A_USAGE, "output_tokens": 1}},
}
HALF = (9, 1)
"""What Anthropic has counted when a stream begins."""
OPENS: Json = {"type": "content_block_start", "index": 0, "content_block": text_block("")}
STOPS: Json = {"type": "content_block_stop", "index": 0}
FINISHES: Json = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
ENDS: Json = {"type": "message_stop"}


def says(text: Any, index: Any = 0) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}


def event(body: Json | bytes) -> bytes:
    if isinstance(body, bytes):
        return body
    return b"event: %b\ndata: %b\n\n" % (str(body.get("type", "message")).encode(), wire(body))


HELLO = [STARTS, OPENS, says("Hel"), says("lo"), STOPS, FINISHES, ENDS]
BEGUN = [STARTS, OPENS, says("Hel")]


def a_stream(events: Iterable[Json | bytes], expected: Answer | Failure, **more: Any) -> Case:
    return Case("anthropic", True, tuple(event(one) for one in events), expected, **more)


def in_stream(code: str = "upstream_invalid_response", said: str = "Hel", **more: Any) -> Failure:
    return Failure(code, said=said, **{"counted": HALF, **more})


ANTHROPIC_STREAM = {
    "an event is truncated": a_stream([*BEGUN, b'data: {"type":"content_block_de\n\n'], in_stream()),
    "it just ends": a_stream(BEGUN, in_stream("upstream_error")),
    "it ends within an event": a_stream([*BEGUN, event(says("lo"))[:-9]], in_stream()),
    "it breaks off": a_stream(BEGUN, in_stream("upstream_error"), breaks_off=CLOSE),
    "it is reset": a_stream(BEGUN, in_stream("upstream_error"), breaks_off=RESET),
    "it breaks off once it is finished": a_stream(HELLO[:-1], Answer(), breaks_off=CLOSE),
    "only the last event is missing": a_stream(HELLO[:-1], Answer()),
    "HTML": a_stream([HTML], INVALID, content_type="text/html"),
    "HTML that says it is a stream": a_stream([HTML], INVALID),
    "a whole answer": a_stream([wire(message())], INVALID, content_type="application/json"),
    "another content type": a_stream(HELLO, Answer(), content_type="application/json"),
    "nothing": a_stream([], ENDED),
    "comments and pings": a_stream([b": hello\n\n", {"type": "ping"}, b"event: ping\n\n"], ENDED),
    "plain words": a_stream([b"upstream connect error\n\n"], ENDED),
    "an error first": a_stream([A_ERROR], BUSY),
    "an error after the start": a_stream([STARTS, A_ERROR], Failure("upstream_overloaded", 503, counted=HALF)),
    "an error in the middle": a_stream([*BEGUN, A_ERROR], in_stream("upstream_overloaded")),
    "an error as a whole answer": a_stream([wire(A_ERROR)], BUSY, content_type="application/json"),
    "an error that is no JSON": a_stream([*BEGUN, b"event: error\ndata: overloaded\n\n"], in_stream()),
    "an error after the end": a_stream([*HELLO, A_ERROR], Answer()),
    "unknown events": a_stream([{"type": "of_the_future"}, b"data: {}\n\n", *HELLO], Answer()),
    "unknown blocks": a_stream(
        [
            STARTS,
            {"type": "content_block_start", "index": 0, "content_block": {"type": "of_the_future"}},
            says("no"),
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}},
            STOPS,
            *HELLO[1:],
        ],
        Answer(),
    ),
    "null where objects belong": a_stream(
        [
            {"type": "message_start", "message": None},
            OPENS,
            {"type": "content_block_delta", "index": 0, "delta": None},
            {"type": "content_block_start", "index": 7, "content_block": None},
            says(None),
            says("Hello"),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": None},
            ENDS,
        ],
        Answer(counted=None),
    ),
    "an event that is null": a_stream([*BEGUN, b"data: null\n\n"], in_stream()),
    "an event that is a list": a_stream([*BEGUN, b"data: []\n\n"], in_stream()),
    "not UTF-8": a_stream([*BEGUN, b'data: {"type":"ping\xff"}\n\n'], in_stream()),
    "too deep to read": a_stream([*BEGUN, b"data: " + DEEP + b"\n\n"], in_stream()),
    "numbers as strings": a_stream(
        [
            {**STARTS, "message": {"usage": {"input_tokens": "9", "output_tokens": "1"}}},
            {**OPENS, "index": "0"},
            says("Hello", "0"),
            {**STOPS, "index": "0"},
            {**FINISHES, "usage": {"output_tokens": "2"}},
            ENDS,
        ],
        Answer(),
    ),
    "huge numbers": a_stream(
        [STARTS, {**OPENS, "index": HUGE}, says("Hello", HUGE), {**FINISHES, "usage": {"output_tokens": HUGE}}, ENDS],
        Answer(counted=(9, 0)),
    ),
    "negative usage": a_stream(
        [
            {**STARTS, "message": {"usage": {"input_tokens": -9}}},
            *HELLO[1:5],
            {**FINISHES, "usage": {"output_tokens": -2}},
        ],
        Answer(counted=None),
    ),
    "an unknown stop reason": a_stream([*HELLO[:5], {**FINISHES, "delta": {"stop_reason": "of_the_future"}}], Answer()),
    "a stop reason that is null": a_stream(
        [*HELLO[:5], {**FINISHES, "delta": {"stop_reason": None}}, ENDS],
        in_stream("upstream_error", "Hello", counted=COUNTED),
    ),
    "a number of a block twice": a_stream(
        [STARTS, OPENS, says("Hel"), OPENS, says("lo"), STOPS, STOPS, FINISHES, ENDS], Answer()
    ),
    "calls with one number": a_stream(
        [
            STARTS,
            {**OPENS, "content_block": call_block()},
            {**OPENS, "content_block": call_block(name="g", id="toolu_2", input={"a": 1})},
            {**FINISHES, "delta": {"stop_reason": "tool_use"}},
        ],
        Answer("", "tool_calls", (("f", "{}"), ("g", '{"a":1}'))),
    ),
    "words before their block": a_stream([STARTS, says("Hel"), OPENS, says("lo"), STOPS, FINISHES, ENDS], Answer()),
    "arguments before their call": a_stream(
        [
            *BEGUN,
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'},
            },
        ],
        in_stream(),
    ),
    "a stop without a start": a_stream([STARTS, {**STOPS, "index": 3}, STOPS, *HELLO[1:]], Answer()),
    "no start at all": a_stream([*HELLO[1:5], FINISHES], Answer(counted=(0, 2))),
    "a large event": a_stream([STARTS, OPENS, says("y" * 3_000_000), FINISHES, ENDS], Answer("y" * 3_000_000)),
    "a line without an end": a_stream([*BEGUN, b"data: " + b"y" * (MAX_EVENT_BYTES + 9)], in_stream()),
}


# --- Gemini -------------------------------------------------------------------------------------------------------

G_USAGE: Json = {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11}
G_ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


def content(*parts: Any, reason: Any = "STOP", usage: Any = G_USAGE, **changes: Any) -> Json:
    candidate = {"index": 0, "content": {"role": "model", "parts": list(parts or [{"text": "Hello"}])}}
    candidate |= {"finishReason": reason} | changes
    body = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash", "responseId": "r1"}
    return {name: value for name, value in body.items() if value is not ...}


def call_part(**changes: Any) -> Json:
    return {"functionCall": {"name": "f", "args": {}} | changes}


def g_whole(body: bytes | Json, expected: Answer | Failure, **more: Any) -> Case:
    return Case("gemini", False, body if isinstance(body, bytes) else wire(body), expected, **more)


def g_counts(prompt: Any, output: Any) -> Json:
    return {"promptTokenCount": prompt, "candidatesTokenCount": output}


GEMINI_WHOLE = {
    "truncated": g_whole(wire(content())[:-9], INVALID),
    "breaks off": g_whole(wire(content())[:-9], ENDED, breaks_off=CLOSE),
    "HTML": g_whole(HTML, INVALID, content_type="text/html"),
    "HTML with a status": g_whole(HTML, BUSY, content_type="text/html", status=503),
    "another content type": g_whole(content(), Answer(), content_type="text/plain"),
    "nothing": g_whole(b"", INVALID),
    "a list": g_whole(wire([content()]), INVALID),
    "null": g_whole(b"null", INVALID),
    "no candidates": g_whole({"usageMetadata": G_USAGE}, Failure(counted=COUNTED)),
    "candidates are null": g_whole({"candidates": None, "usageMetadata": G_USAGE}, Failure(counted=COUNTED)),
    "a candidate is null": g_whole({"candidates": [None], "usageMetadata": G_USAGE}, Failure(counted=COUNTED)),
    "no finish reason": g_whole(content(reason=None), Failure(counted=COUNTED)),
    "one candidate of two unfinished": g_whole(
        {"candidates": [*content()["candidates"], {"index": 1, "content": {"parts": [{"text": "Hel"}]}}]},
        Failure(source="estimated"),
    ),
    "an unknown finish reason": g_whole(content(reason="OF_THE_FUTURE"), Answer(finish="content_filter")),
    "content is null": g_whole(content(content=None), Answer("")),
    "parts are null": g_whole(content(content={"parts": None}), Answer("")),
    "parts of nothing": g_whole(
        content(None, 7, {}, {"functionCall": None, "inlineData": None, "text": "Hello", "thought": None}), Answer()
    ),
    "no usage": g_whole(content(usage=...), Answer(counted=None)),
    "usage is null": g_whole(content(usage=None), Answer(counted=None)),
    "usage as strings": g_whole(content(usage=g_counts("9", "2")), Answer()),
    "negative usage": g_whole(content(usage=g_counts(-9, -2)), Answer(counted=None)),
    "absurd usage": g_whole(content(usage=g_counts(HUGE, 10**14)), Answer(counted=None)),
    "usage that does not add up": g_whole(
        content(
            usage=g_counts(9, 2)
            | {"cachedContentTokenCount": 900, "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 70}]}
        ),
        Answer(),
    ),
    "unknown parts": g_whole(content({"ofTheFuture": {"text": "no"}}, {"text": "Hello"}), Answer()),
    "a number twice": g_whole(
        {
            **content(),
            "candidates": [
                *content({"text": "Hel"}, reason=None)["candidates"],
                *content({"text": "lo"})["candidates"],
            ],
        },
        Answer(),
    ),
    "an index as a string": g_whole(content(index="0"), Answer()),
    "an absurd index": g_whole(content(index=-HUGE), Answer()),
    "gigantic": g_whole(content({"text": "y" * 5_000_000}), Answer("y" * 5_000_000)),
    "not UTF-8": g_whole(wire(content()).replace(b"Hello", b"Hel\xff\xfe"), INVALID),
    "too deep to read": g_whole(wire(content()).replace(b'"Hello"', DEEP), INVALID),
    "arguments too deep to write": g_whole(
        wire(content(call_part())).replace(b'"args":{}', b'"args":' + b"[" * 400 + b"]" * 400), Failure(counted=COUNTED)
    ),
    "a call without arguments": g_whole(content(call_part(args=None)), Answer("", "tool_calls", (("f", "{}"),))),
    "a call without a name": g_whole(content(call_part(name=None)), Failure(counted=COUNTED)),
    "a call in pieces": g_whole(content(call_part(willContinue=True)), Failure(counted=COUNTED)),
    "a malformed call": g_whole(
        content({"text": "Hel"}, reason="MALFORMED_FUNCTION_CALL"), Failure("upstream_error", counted=COUNTED)
    ),
    "a malformed call that is not counted": g_whole(
        content({"text": "Hel"}, reason="MALFORMED_FUNCTION_CALL", usage=...),
        Failure("upstream_error", source="estimated"),
    ),
    "an error": g_whole(G_ERROR, BUSY),
    "an error with usage": g_whole(
        {**G_ERROR, "usageMetadata": G_USAGE}, Failure("upstream_overloaded", 503, counted=COUNTED)
    ),
    "an error in a list": g_whole(wire([G_ERROR]), BUSY),
    "a status without a body": g_whole(b"", Failure("upstream_rate_limited", 429), status=429),
}

G_BEGUN = content({"text": "Hel"}, reason=None)
G_ENDS = content({"text": "lo"})


def g_stream(events: Iterable[Json | bytes], expected: Answer | Failure, **more: Any) -> Case:
    pieces = tuple(one if isinstance(one, bytes) else b"data: %b\r\n\r\n" % wire(one) for one in events)
    return Case("gemini", True, pieces, expected, **more)


def g_failure(code: str = "upstream_invalid_response", said: str = "Hel", **more: Any) -> Failure:
    return Failure(code, said=said, **{"counted": COUNTED, **more})


GEMINI_STREAM = {
    "an event is truncated": g_stream([G_BEGUN, b'data: {"candidates": [{"content"\n\n'], g_failure()),
    "it just ends": g_stream([G_BEGUN], g_failure("upstream_error")),
    "it just ends and nothing was counted": g_stream(
        [content({"text": "Hel"}, reason=None, usage=...)], g_failure("upstream_error", counted=None)
    ),
    "it ends within an event": g_stream([G_BEGUN, wire(G_ENDS)[:-9]], g_failure("upstream_error")),
    "it breaks off": g_stream([G_BEGUN], g_failure("upstream_error"), breaks_off=CLOSE),
    "it is reset": g_stream([G_BEGUN], g_failure("upstream_error"), breaks_off=RESET),
    "it breaks off once it is finished": g_stream([G_BEGUN, G_ENDS], Answer(), breaks_off=CLOSE),
    "one candidate of two unfinished": g_stream(
        [G_BEGUN, {"candidates": [{"index": 1, "content": {"parts": []}}]}, G_ENDS],
        g_failure("upstream_error", "Hello"),
    ),
    "HTML": g_stream([HTML], INVALID, content_type="text/html"),
    "a whole answer": g_stream([wire(content())], INVALID, content_type="application/json"),
    "a list in place of events": g_stream([wire([G_BEGUN, G_ENDS])], INVALID, content_type="application/json"),
    "another content type": g_stream([G_BEGUN, G_ENDS], Answer(), content_type="text/plain"),
    "nothing": g_stream([], ENDED),
    "events of nothing": g_stream([{}, b"data:\n\n", b": hello\n\n"], ENDED),
    "an error first": g_stream([G_ERROR], BUSY),
    "an error first, in a list": g_stream([b"data: " + wire([G_ERROR]) + b"\n\n"], BUSY),
    "an error in the middle": g_stream([G_BEGUN, G_ERROR], g_failure("upstream_overloaded")),
    "an error by its event's name": g_stream(
        [G_BEGUN, b'event: error\ndata: {"code": 429}\n\n'], g_failure("upstream_rate_limited")
    ),
    "an error that is no JSON": g_stream([G_BEGUN, b"event: error\ndata: overloaded\n\n"], g_failure()),
    "unknown events": g_stream([b"event: x\ndata: {}\n\n", {"ofTheFuture": 1}, G_BEGUN, G_ENDS], Answer()),
    "unknown parts": g_stream([content({"ofTheFuture": 1}, reason=None), G_BEGUN, G_ENDS], Answer()),
    "null where objects belong": g_stream(
        [
            {"candidates": None, "usageMetadata": None, "promptFeedback": None},
            {"candidates": [None]},
            content(content=None, reason=None, groundingMetadata=None, citationMetadata=None),
            G_BEGUN,
            G_ENDS,
        ],
        Answer(),
    ),
    "an event that is null": g_stream([G_BEGUN, b"data: null\n\n"], g_failure()),
    "not UTF-8": g_stream([G_BEGUN, b'data: {"x":"\xc3"}\n\n'], g_failure()),
    "too deep to read": g_stream([G_BEGUN, b"data: " + DEEP + b"\n\n"], g_failure()),
    "numbers as strings": g_stream([content({"text": "Hello"}, index="0", usage=g_counts("9", "2"))], Answer()),
    "negative usage": g_stream([content(usage=g_counts(-9, -2))], Answer(counted=None)),
    "absurd usage": g_stream([content(usage=g_counts(HUGE, HUGE))], Answer(counted=None)),
    "an unknown finish reason": g_stream(
        [G_BEGUN, content({"text": "lo"}, reason="X")], Answer(finish="content_filter")
    ),
    "a finish reason before the end": g_stream([content({"text": "Hel"}), G_ENDS], Answer()),
    "a malformed call": g_stream(
        [G_BEGUN, content(reason="MALFORMED_FUNCTION_CALL", usage=g_counts(9, 50))],
        g_failure("upstream_error", counted=(9, 50)),
    ),
    "a malformed call at once": g_stream(
        [content(call_part(), reason="MALFORMED_FUNCTION_CALL")], Failure("upstream_error", counted=COUNTED)
    ),
    "a call without a name": g_stream([G_BEGUN, content(call_part(name=""))], g_failure()),
    "a large event": g_stream([content({"text": "y" * 3_000_000})], Answer("y" * 3_000_000)),
}


# --- OpenAI's dialect, which Azure speaks too ---------------------------------------------------------------------

O_USAGE: Json = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
O_ERROR = {"error": {"message": "The server is overloaded.", "type": "server_error", "code": 503}}


def completion(usage: Any = O_USAGE, **changes: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"} | changes
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return {name: value for name, value in body.items() if value is not ...}


def chunk(text: Any = None, reason: Any = None, **changes: Any) -> Json:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | changes


def o_whole(body: bytes | Json, expected: Answer | Failure, provider: str = "azure", **more: Any) -> Case:
    return Case(provider, False, body if isinstance(body, bytes) else wire(body), expected, **more)


OPENAI_WHOLE = {
    "truncated": o_whole(wire(completion())[:-9], INVALID),
    "HTML": o_whole(HTML, INVALID, content_type="text/html"),
    "another content type": o_whole(completion(), Answer(), content_type="text/plain"),
    "nothing": o_whole(b"", INVALID),
    "a list": o_whole(b"[]", INVALID),
    "no choices": o_whole({"usage": O_USAGE}, Failure(counted=COUNTED)),
    "a choice is null": o_whole({"choices": [None], "usage": O_USAGE}, Failure(counted=COUNTED)),
    "an unknown finish reason": o_whole(completion(finish_reason="x"), Answer(finish="x")),
    "no finish reason": o_whole(completion(finish_reason=None), Failure(counted=COUNTED)),
    "an empty finish reason": o_whole(completion(finish_reason=""), Failure(counted=COUNTED)),
    "no choice": o_whole({"choices": [], "usage": O_USAGE}, Failure(counted=COUNTED)),
    "usage is null": o_whole(completion(None), Answer(counted=None)),
    "usage as strings": o_whole(completion({"prompt_tokens": "9", "completion_tokens": "2"}), Answer()),
    "negative usage": o_whole(completion({"prompt_tokens": -9, "completion_tokens": -2}), Answer(counted=None)),
    "absurd usage": o_whole(completion({"prompt_tokens": 10**14, "completion_tokens": 10**14}), Answer(counted=None)),
    "not UTF-8": o_whole(wire(completion()).replace(b"Hello", b"Hel\xff\xfe"), INVALID),
    "too deep to read": o_whole(wire(completion()).replace(b'"Hello"', DEEP), INVALID),
    "an error": o_whole(O_ERROR, BUSY),
    "an error with usage": o_whole({**O_ERROR, "usage": O_USAGE}, Failure("upstream_overloaded", 503, counted=COUNTED)),
    "a finish reason that is a failure": o_whole(
        completion(finish_reason="error"), Failure("upstream_error", counted=COUNTED), provider="openrouter"
    ),
}

O_BEGUN, O_ENDS, O_COUNTS = chunk("Hel"), chunk("lo", "stop"), chunk(choices=[], usage=O_USAGE)
DONE = b"data: [DONE]\n\n"
FILTERS: Json = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}
"""With which Azure opens a stream."""


def o_stream(events: Iterable[Json | bytes], expected: Answer | Failure, provider: str = "azure", **more: Any) -> Case:
    pieces = tuple(one if isinstance(one, bytes) else b"data: %b\n\n" % wire(one) for one in events)
    return Case(provider, True, pieces, expected, **more)


def o_failure(code: str = "upstream_invalid_response", said: str = "Hel", **more: Any) -> Failure:
    return Failure(code, said=said, **more)


OPENAI_STREAM = {
    "an event is truncated": o_stream([O_BEGUN, b'data: {"choices": [{"del\n\n'], o_failure()),
    "it just ends": o_stream([FILTERS, O_BEGUN], o_failure("upstream_error")),
    "it says that it is done and is not": o_stream([O_BEGUN, DONE], o_failure("upstream_error")),
    "it only says that it is done": o_stream([FILTERS, DONE], ENDED),
    "it breaks off": o_stream([FILTERS, O_BEGUN], o_failure("upstream_error"), breaks_off=CLOSE),
    "only the end is missing": o_stream([O_BEGUN, O_ENDS, O_COUNTS], Answer()),
    "HTML": o_stream([HTML], INVALID, content_type="text/html"),
    "a whole answer": o_stream([wire(completion())], INVALID, content_type="application/json"),
    "another content type": o_stream([O_BEGUN, O_ENDS, O_COUNTS, DONE], Answer(), content_type="application/json"),
    "nothing": o_stream([], ENDED),
    "an error first": o_stream([O_ERROR], BUSY),
    "an error after the opening": o_stream([FILTERS, O_ERROR], BUSY),
    "an error in the middle": o_stream([O_BEGUN, O_ERROR, DONE], o_failure("upstream_overloaded")),
    "an error with usage": o_stream(
        [O_BEGUN, {**O_ERROR, "usage": O_USAGE}], o_failure("upstream_overloaded", counted=COUNTED)
    ),
    "a finish reason that is a failure": o_stream(
        [O_BEGUN, {**chunk("", "error"), "usage": O_USAGE}, DONE],
        o_failure("upstream_error", counted=COUNTED),
        provider="openrouter",
    ),
    "null where objects belong": o_stream(
        [O_BEGUN, chunk("lo", usage=None), chunk(None, "stop", usage=None), DONE], Answer(counted=None)
    ),
    "an event that is null": o_stream([O_BEGUN, b"data: null\n\n"], o_failure()),
    "not UTF-8": o_stream([O_BEGUN, b'data: {"x":"\xc3"}\n\n'], o_failure()),
    "too deep to read": o_stream([O_BEGUN, b"data: " + DEEP + b"\n\n"], o_failure()),
    "too deep to write": o_stream(
        [
            O_BEGUN,
            wire(chunk("lo", usage=O_USAGE, x=0))
            .replace(b'"x":0', b'"x":' + b"[" * 400 + b"]" * 400)
            .join([b"data: ", b"\n\n"]),
        ],
        o_failure(counted=COUNTED),
    ),
    "negative usage": o_stream(
        [O_BEGUN, O_ENDS, {**O_COUNTS, "usage": {"prompt_tokens": -9, "completion_tokens": -2}}, DONE],
        Answer(counted=None),
    ),
    "an unknown finish reason": o_stream([O_BEGUN, chunk("lo", "x"), O_COUNTS, DONE], Answer(finish="x")),
}


CASES: dict[str, Case] = {
    f"{dialect}, {name}": case
    for dialect, cases in (
        ("anthropic whole", ANTHROPIC_WHOLE),
        ("anthropic stream", ANTHROPIC_STREAM),
        ("gemini whole", GEMINI_WHOLE),
        ("gemini stream", GEMINI_STREAM),
        ("openai whole", OPENAI_WHOLE),
        ("openai stream", OPENAI_STREAM),
    )
    for name, case in cases.items()
}
