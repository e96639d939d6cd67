"""What a recorded Anthropic answer says, read by Anthropic's own SDK: no code is shared with the package.

``of_whole`` and ``of_stream`` give a ``Reading``; what a client of the gateway got can be read into one as well, and
the two compared. ``sent_to_sdk`` holds a request against the SDK's own types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import jiter
from anthropic import types
from anthropic._models import construct_type_unchecked
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from pydantic import TypeAdapter

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "pause_turn": "length",
    "refusal": "content_filter",
    "model_context_window_exceeded": "length",
}
"""What each stop reason is in OpenAI's words."""

SEEN = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
"""The blocks that OpenAI's API has a place for."""


FORMER = frozenset({"temperature", "top_p", "top_k"})
"""Fields that the SDK's types have no more, because the newest models do not take them; the others still do."""


@dataclass
class Reading:
    """An answer, as far as a client of OpenAI's API can know it."""

    id: str | None
    model: str | None
    text: str = ""
    thoughts: list[dict[str, Any]] = field(default_factory=list)
    """As ``thinking_blocks`` has them."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """``id``, ``name``, and ``arguments`` as an object (as far as they came, where the answer was cut off)."""
    citations: list[dict[str, Any]] = field(default_factory=list)
    """``url``, ``title``, ``text``, and the span of the answer that they belong to."""
    refusal: str = ""
    finish: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    """In disjoint buckets, by this package's names; those that are zero are left out."""


def of_whole(body: dict[str, Any]) -> Reading:
    """An answer's JSON, as the SDK reads it."""
    message = construct_type_unchecked(type_=types.Message, value=body)
    assert isinstance(message, types.Message)
    return of_message(message)


def of_stream(data: bytes) -> Reading:
    """A stream, split, parsed and gathered by the SDK."""
    snapshot = None
    buffers: dict[int, bytes] = {}
    for sse in SSEDecoder().iter_bytes(iter([data])):
        if sse.event in {"ping", None}:
            continue
        event: Any = construct_type_unchecked(type_=cast("type[Any]", types.RawMessageStreamEvent), value=sse.json())
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    return of_message(snapshot)


def of_message(message: types.Message) -> Reading:
    """The SDK's message."""
    reading = Reading(message.id, message.model, usage=usage_of(message.usage))
    for block in message.content:
        add(reading, block.model_dump(mode="json", warnings=False))
    if message.stop_details is not None:
        reading.refusal = message.stop_details.explanation or ""
    if message.stop_reason is not None:
        reading.finish = FINISH[message.stop_reason]
    return reading


def add(reading: Reading, block: dict[str, Any]) -> None:
    kind = block["type"]
    if kind == "text":
        start = len(reading.text)
        reading.text += block["text"]
        for citation in block.get("citations") or ():
            source = citation.get("url") or citation.get("source")
            reading.citations.append(
                {
                    "url": source,
                    "title": citation.get("title") or citation.get("document_title"),
                    "text": citation["cited_text"],
                    "span": (start, len(reading.text)),
                }
            )
    elif kind == "thinking":
        reading.thoughts.append(
            {"type": kind, "thinking": block["thinking"], "signature": block.get("signature") or None}
        )
    elif kind == "redacted_thinking":
        reading.thoughts.append({"type": kind, "data": block["data"]})
    elif kind == "tool_use":
        reading.calls.append({"id": block["id"], "name": block["name"], "arguments": block["input"]})
    else:
        assert kind not in SEEN


def usage_of(usage: types.Usage) -> dict[str, int]:
    """Anthropic's counts in buckets that do not overlap."""
    written = usage.cache_creation_input_tokens or 0
    hour = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else 0
    thought = usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else 0
    buckets = {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_input_tokens or 0,
        "cache_write_5m_tokens": written - hour,
        "cache_write_1h_tokens": hour,
        "output_tokens": usage.output_tokens - thought,
        "reasoning_tokens": thought,
    }
    return {name: count for name, count in buckets.items() if count}


def arguments(text: str, finish: str | None) -> object:
    """A call's arguments; those of an answer that was cut off as far as they came."""
    return jiter.from_json(text.encode(), partial_mode=True) if finish == "length" else json.loads(text)


# --- requests -----------------------------------------------------------------------------------------------------


@cache
def _request_types() -> TypeAdapter[Any]:
    return TypeAdapter(types.MessageCreateParams)


def sent_to_sdk(body: dict[str, Any]) -> None:
    """Hold a request against the SDK's types. Raises for a value of the wrong type and for a field that is unknown."""
    known = {name: value for name, value in body.items() if name not in FORMER}
    assert all(isinstance(body[name], float | int) for name in FORMER & body.keys())
    read = _plain(_request_types().validate_python(known, strict=True))
    differing = list(_differences(known, read, ""))
    assert not differing, f"fields that the SDK does not know: {differing}"


def _plain(value: object) -> Any:
    """The validated value with its iterators, which check what they hold only as they are walked, made lists."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [_plain(item) for item in value]  # type: ignore[attr-defined]  # a list or pydantic's own iterator


def _differences(given: object, read: object, where: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(read, dict):
        for name, value in given.items():
            if name not in read:
                yield f"{where}.{name}"
            else:
                yield from _differences(value, read[name], f"{where}.{name}")
    elif isinstance(given, list) and isinstance(read, list):
        if len(given) != len(read):
            yield where
        for index, (one, other) in enumerate(zip(given, read, strict=False)):
            yield from _differences(one, other, f"{where}.{index}")
    elif given != read:
        yield where


# --- requests as Anthropic's own clients wrote them ---------------------------------------------------------------


def meaning(body: dict[str, Any]) -> dict[str, Any]:
    """What a request means, whatever of Anthropic's spellings it uses."""
    turns: list[tuple[str, list[Any]]] = []
    for message in body["messages"]:
        said = [_said(block) for block in _blocks(message["content"]) if block.get("text", "x").strip()]
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(said)
        elif said:
            turns.append((message["role"], said))
    tools = body.get("tools") or []
    choice = body.get("tool_choice") or {"type": "auto"}
    return {
        "system": "\n".join(block["text"].strip() for block in _blocks(body.get("system") or [])),
        "turns": turns,
        "tools": sorted((tool["name"] for tool in tools), key=str),
        "choice": (choice["type"], choice.get("name")) if tools else None,
    }


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _said(block: dict[str, Any]) -> tuple[Any, ...]:
    kind = block["type"]
    if kind == "text":
        return kind, block["text"].strip()
    if kind == "tool_use":
        return kind, block["name"], json.dumps(block["input"], sort_keys=True)
    if kind == "tool_result":
        return kind, *(_said(part) for part in _blocks(block.get("content") or []))
    return (kind,)
