"""Anthropic Messages, the provider's end: whole answers, streams and errors. Requests are in ``anthropic_requests``.

Strategy: one ``_Blocks`` turns content blocks into chunks, for streams and whole answers alike, so that both mean the
same: a tool call's index is its ordinal among the message's tool calls, a thought's block its ordinal among the
thoughts. Blocks of tools that Anthropic runs itself are kept as they are, for the API to have back; kinds that are not
known say nothing to a client of OpenAI's API and are passed over.

Sources: the response, event and error types of the ``anthropic`` Python package 2.12; Anthropic's pages "Streaming",
"Stop reasons", "Errors" and "Rate limits", read in November 2026; recorded exchanges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from datetime import datetime
from typing import Any, Literal

import orjson

from inferxgate.canonical.chat import (
    Chunk,
    Citation,
    Finish,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    ServerBlock,
    Start,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from inferxgate.canonical.usage import Usage
from inferxgate.dialects.anthropic_requests import build_request
from inferxgate.dialects.anthropic_turns import SERVER_BLOCKS
from inferxgate.dialects.failures import nonsense, plain_integer, provider_error, retry_after
from inferxgate.dialects.model_lists import parse_anthropic
from inferxgate.dialects.protocol import Dialect, Event, FailedAnswer
from inferxgate.dialects.tool_names import JSON_ANSWER_TOOL
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEEvent
from inferxgate.values import dataclass

Json = Mapping[str, Any]

_FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # one of Anthropic's own tools took too long: the answer is not complete
    "refusal": "content_filter",
}


# --- content blocks -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Block:
    """One content block that is being read."""

    kind: Literal["text", "thinking", "call", "answer", "server", "other"]
    """``answer``: the call that stands for an answer in JSON; ``server``: of a tool that Anthropic runs itself;
    ``other``: what says nothing to a client."""
    ordinal: int = 0
    """Among the message's tool calls, or its thoughts."""
    arguments: str = ""
    """Of a call that came with its block, for when no pieces of it follow."""
    began: bool = False
    """Whether any piece of a call's arguments came."""
    signature: str | None = None
    """Of a thought, as last given."""
    text_start: int = 0
    """Characters of the answer's text before it."""
    citations: list[Json] = field(default_factory=list)
    server: ServerBlock | None = None
    """What it is of a tool that Anthropic runs itself, without arguments that come in pieces."""


class _Blocks:
    """The content of one message."""

    def __init__(self) -> None:
        self._open: dict[int, _Block] = {}
        self._calls = 0
        self._thoughts = 0
        self._characters = 0

    def start(self, index: int, block: Json) -> Iterator[Chunk]:
        yield from self.stop(index)  # a number that is given twice: its first block is over
        match block.get("type"):
            case "text":
                opened = self._begin_text(index)
                yield from self._text(block.get("text"))
                opened.citations += _objects(block.get("citations"))
            case "thinking":
                opened = self._begin_thought(index)
                if text := _string(block.get("thinking")):
                    yield ReasoningDelta(0, text, opened.ordinal)
                opened.signature = _string(block.get("signature"))
            case "redacted_thinking":
                self._open[index] = _Block("other")
                if data := _string(block.get("data")):
                    yield ReasoningSeal(0, self._thoughts, redacted=data)
                    self._thoughts += 1
            case "tool_use":
                yield from self._begin_call(index, block)
            case str(kind) if kind.endswith(SERVER_BLOCKS):
                server = ServerBlock(0, block, self._thoughts, self._characters, self._calls)
                self._open[index] = _Block("server", server=server)
            case _:
                self._open[index] = _Block("other")

    def _begin_text(self, index: int) -> _Block:
        self._open[index] = opened = _Block("text", text_start=self._characters)
        return opened

    def _begin_thought(self, index: int) -> _Block:
        self._open[index] = opened = _Block("thinking", self._thoughts)
        self._thoughts += 1
        return opened

    def _begin_call(self, index: int, block: Json) -> Iterator[Chunk]:
        given = block.get("input")
        arguments = _dumps(given) if given else ""
        if block.get("name") == JSON_ANSWER_TOOL:
            self._open[index] = _Block("answer", arguments=arguments)
            return
        call_id, name = _string(block.get("id")), _string(block.get("name"))
        if call_id is None or name is None:
            raise nonsense("a tool call in it has no id or no name")
        self._open[index] = _Block("call", self._calls, arguments)
        yield ToolCallDelta(0, self._calls, call_id, name, "")
        self._calls += 1

    def _unannounced(self, index: int, delta: Json) -> _Block:
        """The block of a delta that came without its start; words are kept, but a call without a name is none."""
        match delta.get("type"):
            case "text_delta" | "citations_delta":
                return self._begin_text(index)
            case "thinking_delta" | "signature_delta":
                return self._begin_thought(index)
            case "input_json_delta" if _string(delta.get("partial_json")):
                raise nonsense("it has arguments of a tool call that was never begun")
            case _:
                return _Block("other")

    def delta(self, index: int, delta: Json) -> Iterator[Chunk]:
        opened = self._open.get(index) or self._unannounced(index, delta)
        match delta.get("type"), opened.kind:
            case "text_delta", "text":
                yield from self._text(delta.get("text"))
            case "citations_delta", "text":
                opened.citations += _objects([delta.get("citation")])
            case "thinking_delta", "thinking":
                if text := _string(delta.get("thinking")):
                    yield ReasoningDelta(0, text, opened.ordinal)
            case "signature_delta", "thinking":
                opened.signature = _string(delta.get("signature")) or opened.signature
            case "input_json_delta", "call" | "answer":
                if piece := _string(delta.get("partial_json")):
                    opened.began = True
                    yield from self._arguments(opened, piece)
            case "input_json_delta", "server":
                opened.arguments += _string(delta.get("partial_json")) or ""

    def stop(self, index: int) -> Iterator[Chunk]:
        opened = self._open.pop(index, None)
        if opened is None:
            return
        if opened.kind in {"call", "answer"} and not opened.began:
            yield from self._arguments(opened, opened.arguments or "{}")
        if opened.signature is not None:
            yield ReasoningSeal(0, opened.ordinal, signature=opened.signature)
        if opened.server is not None:
            yield from _whole_server_block(opened.server, opened.arguments)
        for citation in opened.citations:  # only now it is known what text they belong to
            yield _citation(citation, opened.text_start, self._characters)

    def finish(self, reason: object, details: object) -> Iterator[Chunk]:
        """The end of the message, and of blocks that were left open."""
        for index in list(self._open):
            yield from self.stop(index)
        if isinstance(details, dict) and (explanation := _string(details.get("explanation"))):
            yield RefusalDelta(0, explanation)
        if isinstance(reason, str):
            finish = _FINISH_REASONS.get(reason, "stop")
            if finish in {"stop", "tool_calls"}:
                finish = "tool_calls" if self._calls else "stop"
            yield Finish(0, finish)

    def _text(self, text: object) -> Iterator[Chunk]:
        if isinstance(text, str) and text:
            self._characters += len(text)
            yield TextDelta(0, text)

    def _arguments(self, opened: _Block, piece: str) -> Iterator[Chunk]:
        if opened.kind == "answer":
            yield from self._text(piece)
        else:
            yield ToolCallDelta(0, opened.ordinal, None, None, piece)


def _whole_server_block(server: ServerBlock, arguments: str) -> Iterator[ServerBlock]:
    """The block with the arguments that came in pieces; none where it cannot be written: broken off, or too deep."""
    try:
        if arguments:
            server = replace(server, block={**server.block, "input": orjson.loads(arguments)})
        orjson.dumps([[[[[[[[server.block]]]]]]]])  # as deep as it will stand in a client's answer
    except (ValueError, TypeError):
        return
    yield server


def _citation(citation: Json, start: int, end: int) -> Citation:
    """A source: of the web with its URL, a client's document with its title, a search result with whichever it has."""
    url = _string(citation.get("url"))
    if url is None and (source := _string(citation.get("source")) or "").startswith(("https://", "http://")):
        url = source
    title = _string(citation.get("title")) or _string(citation.get("document_title"))
    return Citation(0, url, title, _string(citation.get("cited_text")), start, end)


# --- whole answers ------------------------------------------------------------------------------------------------


def parse_response(data: bytes, seed: str = "") -> tuple[Json, tuple[Chunk, ...]]:
    """The JSON of a whole answer, and what it means.

    Raises ``GatewayError``: ``upstream_invalid_response`` where it is no message, and the provider's own error where
    one comes with status 200.
    """
    body = _loads(data)
    if not isinstance(body, dict):
        raise nonsense("its answer is JSON, but no object")
    if body.get("type") == "error" or body.get("error"):
        raise _told_error(body)
    usage = body.get("usage")
    counted = (UsageReport(parse_usage(usage)),) if isinstance(usage, dict) else ()
    content = body.get("content")
    if not isinstance(content, list):
        raise FailedAnswer(nonsense("its answer has no 'content'"), counted)
    if b'"tool_use"' in data:
        content = _exact(data, content)
    chunks: list[Chunk] = [Start(_string(body.get("id")), _string(body.get("model")))]
    blocks = _Blocks()
    try:
        for index, block in enumerate(content):
            if isinstance(block, dict):
                chunks += blocks.start(index, block)
                chunks += blocks.stop(index)
    except GatewayError as error:
        raise FailedAnswer(error, (*chunks, *counted)) from error
    chunks += blocks.finish(body.get("stop_reason"), body.get("stop_details"))
    return body, (*chunks, *counted)


def _exact(data: bytes, content: list[Any]) -> list[Any]:
    """The content again, with whole numbers of any length in calls as they are: orjson makes floats of the longest."""
    try:
        exact = json.loads(data)["content"]
    except (ValueError, RecursionError):  # pragma: no cover - only Python 3.11 gives up on what orjson could read
        return content
    return [one if _object(one).get("type") == "tool_use" else other for one, other in zip(exact, content, strict=True)]


# --- usage --------------------------------------------------------------------------------------------------------


def parse_usage(usage: Json) -> Usage:
    """Anthropic's usage in disjoint buckets: its ``input_tokens`` leave out the cache, its ``output_tokens`` have the
    thinking in them, and what was written to the cache is broken down by how long it lives where the API says so."""
    written = plain_integer(usage.get("cache_creation_input_tokens"))
    lives = usage.get("cache_creation")
    hour = plain_integer(lives.get("ephemeral_1h_input_tokens")) if isinstance(lives, dict) else 0
    minutes = plain_integer(lives.get("ephemeral_5m_input_tokens")) if isinstance(lives, dict) else 0
    output = plain_integer(usage.get("output_tokens"))
    details = usage.get("output_tokens_details")
    thought = plain_integer(details.get("thinking_tokens")) if isinstance(details, dict) else 0
    thought = min(thought, output)
    return Usage(
        input_tokens=plain_integer(usage.get("input_tokens")),
        cache_read_tokens=plain_integer(usage.get("cache_read_input_tokens")),
        cache_write_5m_tokens=max(minutes, written - hour),
        cache_write_1h_tokens=hour,
        output_tokens=output - thought,
        reasoning_tokens=thought,
    )


# --- streams ------------------------------------------------------------------------------------------------------


class AnthropicStream:
    """Reads one stream's events; knows when it has properly ended."""

    def __init__(self, seed: str = "") -> None:
        self.done = False
        """Whether ``message_stop`` came."""
        self.complete = False
        """Whether a stop reason came."""
        self._blocks = _Blocks()
        self._usage: dict[str, Any] = {}
        """What has been counted so far; later events say the whole again, or a part of it."""

    def feed(self, event: SSEEvent) -> Event | None:
        """What one event says; None for pings and for all that says nothing to a client.

        Raises ``GatewayError`` for an error that the provider sends in its stream, and for data that is not JSON.
        """
        if not event.data.strip():
            return None
        body = _loads(event.data)
        if not isinstance(body, dict):
            raise nonsense("an event of its stream is JSON, but no object")
        if body.get("type") == "error" or body.get("error"):
            raise _told_error(body)
        chunks = tuple(self._chunks(body))
        return Event(None, body, chunks) if chunks else None

    def _chunks(self, body: Json) -> Iterator[Chunk]:
        match body.get("type"):
            case "message_start":
                message = _object(body.get("message"))
                yield Start(_string(message.get("id")), _string(message.get("model")))
                yield from self._count(message.get("usage"))
            case "content_block_start":
                yield from self._blocks.start(_index(body), _object(body.get("content_block")))
            case "content_block_delta":
                yield from self._blocks.delta(_index(body), _object(body.get("delta")))
            case "content_block_stop":
                yield from self._blocks.stop(_index(body))
            case "message_delta":
                delta = _object(body.get("delta"))
                if isinstance(reason := delta.get("stop_reason"), str):
                    self.complete = True
                    yield from self._blocks.finish(reason, delta.get("stop_details"))
                yield from self._count(body.get("usage"))
            case "message_stop":
                self.done = True

    def _count(self, usage: object) -> Iterator[Chunk]:
        if isinstance(usage, dict) and usage:
            self._usage |= {name: value for name, value in usage.items() if value is not None}
            yield UsageReport(parse_usage(self._usage))


# --- errors -------------------------------------------------------------------------------------------------------

_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that each type of error has when it comes with one of its own."""

_SPENT = ("api usage limits", "credit balance is too low")
"""What a 400 says that is about money: an own limit that was reached, or prepaid credit that is used up."""


def parse_error(status: int, headers: Mapping[str, str], data: bytes, now_s: float) -> GatewayError:
    """The error that an answer with another status than 200 amounts to. ``now_s`` is Unix time, in seconds."""
    try:
        body = orjson.loads(data)
    except ValueError:
        body = None
    wait = retry_after(headers, now_s=now_s)
    if wait is None and status == 429:
        wait = _limits_reset(headers, now_s)
    return _error(status, body, wait, answered=status)


def _told_error(body: Json) -> GatewayError:
    """The error of a body or an event that came with status 200."""
    kind = _object(body.get("error")).get("type")
    return _error(_STATUSES.get(kind, 500) if isinstance(kind, str) else 500, body, None, answered=200)


def _error(status: int, body: object, wait: float | None, *, answered: int) -> GatewayError:
    message, details = _message_of(body)
    low = message.lower()
    more = details.get("details")
    spent = "spend_limit_reached" in str(more.get("error_code")) if isinstance(more, dict) else False
    return provider_error(
        status,
        message,
        answered=answered,
        retry_after_seconds=wait,
        quota=spent or status == 402 or (status == 400 and any(words in low for words in _SPENT)),
    )


def _message_of(body: object) -> tuple[str, Json]:
    """The message and the details of an error body; proxies on the way to the API have shapes of their own."""
    if not isinstance(body, dict):
        return "", {}
    details = body.get("error", body.get("detail", body))
    if isinstance(details, dict):
        return _string(details.get("message")) or _string(body.get("message")) or "", details
    return _string(details) or _string(body.get("message")) or "", {}


def _limits_reset(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds until the last of the limits that are used up is filled again."""
    waits = []
    for name in ("requests", "tokens", "input-tokens", "output-tokens"):
        if headers.get(f"anthropic-ratelimit-{name}-remaining", "").strip() == "0":
            try:
                reset = datetime.fromisoformat(headers.get(f"anthropic-ratelimit-{name}-reset", "").strip())
                waits.append(max(0.0, reset.timestamp() - now_s))
            except ValueError:
                continue
    return max(waits, default=None)


# --- JSON ---------------------------------------------------------------------------------------------------------


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise nonsense("it answered with something that is not JSON") from error


def _dumps(value: object) -> str:
    """A call's arguments as text."""
    if isinstance(value, str):  # a host that sends the text itself
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:  # pragma: no cover - only Python 3.11 gives up at these depths
        raise nonsense("the input of a tool call is nested too deeply") from error


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _index(body: Json) -> int:
    """Which block an event is about; the first where it does not say."""
    return plain_integer(body.get("index"))


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


DIALECT = Dialect("anthropic_messages", build_request, parse_response, AnthropicStream, parse_error, parse_anthropic)
