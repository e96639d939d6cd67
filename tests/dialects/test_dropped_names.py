"""What was left out is named alike in every dialect: by its place in the client's own request."""

from __future__ import annotations

from typing import Any

import pytest

from inferxgate.catalog.models import abilities_of
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.dialects.registry import DIALECTS
from inferxgate.providers.registry import ROWS

MARK = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}, **MARK}
BROKEN = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "be", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE], "name": "ann", **MARK},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "thinking_blocks": [{"type": "thinking", "thinking": "hm"}],
            "tool_calls": [BROKEN],
        },
        {"role": "tool", "tool_call_id": "c", "content": "r"},
        {"role": "user", "content": "and?"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}, **MARK},
    ],
    "parallel_tool_calls": False,
    "temperature": 1.5,
    "top_p": 0.5,
    "top_k": 3,
    "stop": ["x", " "],
    "seed": 1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 1},
    "metadata": {"a": "b"},
    "user": "ann",
    "safety_identifier": "bob",
    "service_tier": "flex",
    "store": True,
    "verbosity": "low",
    "prompt_cache_key": "k",
    "reasoning_effort": "high",
    "max_tokens": 900,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": True},
    "google": {"generation_config": {"top_k": 3}, "thinking_config": {"thinking_budget": 100}},
}
TARGETS = [
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-opus-4-8"),
    ("anthropic", "claude-3-opus"),
    ("gemini", "gemini-2.5-flash"),
    ("gemini", "gemini-3-pro"),
    ("groq", "any"),
    ("mistral", "any"),
]


def place(body: Any, name: str) -> Any:
    """What stands at a place."""
    for step in name.split("."):
        body = body[int(step)] if isinstance(body, list) else body[step]
    return body


@pytest.mark.parametrize(("kind", "model"), TARGETS)
def test_what_is_dropped_is_named_by_its_place(kind: str, model: str) -> None:
    row = ROWS[kind]
    target = BuildTarget(kind, model, abilities_of(kind, model), row.quirks)
    call = DIALECTS[row.dialect].build_request(parse_request(BODY), target)
    assert call.dropped
    assert len(set(call.dropped)) == len(call.dropped)
    for name in call.dropped:
        assert place(BODY, name) is not None
    named = [name for name in call.dropped if name.startswith("messages.") and name.endswith(".name")]
    assert named == ["messages.0.name", "messages.1.name"]
