"""Asking Anthropic's dialect as a client of OpenAI's API does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects.anthropic_messages import DIALECT
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError
from tests.recordings.anthropic_reading import sent_to_sdk

Json = dict[str, Any]

PLAIN = Abilities(max_output_tokens=8192)
BUDGET = Abilities(max_output_tokens=64_000, thinking="budget", temperature_with_top_p=False)
BOTH = Abilities(max_output_tokens=64_000, thinking="both", prefill=False)
ADAPTIVE = Abilities(max_output_tokens=128_000, thinking="adaptive", prefill=False, sampling=False)
OLD = Abilities(max_output_tokens=4096, json_schema=False)

USER: Json = {"role": "user", "content": "Hello"}
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def build(*, abilities: Abilities = PLAIN, strict: bool = False, **fields: Any) -> tuple[Json, tuple[str, ...]]:
    """The request's JSON, checked by the SDK's types, and what was left out."""
    request = parse_request({"model": "m", "messages": [USER], **fields})
    call = DIALECT.build_request(request, BuildTarget("claude-host", "claude-x", abilities, strict=strict))
    assert call.operation == "chat"
    body: Json = json.loads(call.body)
    return body, call.dropped


def sent(**fields: Any) -> Json:
    body, dropped = build(**fields)
    assert dropped == ()
    sent_to_sdk(body)
    return body


def refused(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        build(**fields)
    assert caught.value.status == 400
    return caught.value


def said(*messages: Json, **fields: Any) -> list[Json]:
    turns: list[Json] = sent(messages=list(messages), **fields)["messages"]
    return turns


def calls(*ids: str, content: str | None = None) -> Json:
    made = [{"id": one, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": content, "tool_calls": made}


def result(call_id: str, content: Any = "fine") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def thinking(*blocks: Json, message: Json) -> Json:
    return {**message, "thinking_blocks": list(blocks)}


SEALED = {"type": "thinking", "thinking": "hm", "signature": "sig"}
EMPTY = {"type": "thinking", "thinking": "", "signature": "sig2"}
REDACTED = {"type": "redacted_thinking", "data": "opaque"}
