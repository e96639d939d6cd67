"""Requests for Gemini as the tests ask for them: in OpenAI's words, built for one target or another."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import gemini
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget, Call
from inferxgate.errors import GatewayError

Json = dict[str, Any]

STAND_IN = base64.b64encode(b"skip_thought_signature_validator").decode()


def target(
    model: str = "gemini-2.5-flash", *, strict: bool = False, sampling: bool = True, **abilities: Any
) -> BuildTarget:
    return BuildTarget("google", model, Abilities(sampling=sampling, **abilities), strict=strict)


LEVELS = target("gemini-3-flash-preview", thinking="level")
BUDGET = target("gemini-2.5-flash", thinking="budget")


def call_for(body: Json, to: BuildTarget = BUDGET) -> Call:
    return gemini.build_request(
        parse_request({"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}), to
    )


def sent(body: Json, to: BuildTarget = BUDGET) -> Json:
    built: Json = json.loads(call_for(body, to).body)
    return built


def contents(*messages: Json, to: BuildTarget = BUDGET) -> list[Json]:
    built: list[Json] = sent({"messages": list(messages)}, to)["contents"]
    return built


def refusal(body: Json, to: BuildTarget = BUDGET) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        call_for(body, to)
    assert raised.value.status == 400
    return raised.value


def config(body: Json, to: BuildTarget = BUDGET) -> Json:
    built: Json = sent(body, to).get("generationConfig", {})
    return built


def user(content: object) -> Json:
    return {"role": "user", "content": content}


def assistant(content: object = None, *calls: Json, **more: Any) -> Json:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def tool_call(call_id: str = "c1", name: str = "look", arguments: str = "{}", signature: str | None = None) -> Json:
    call: Json = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if signature is not None:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def result(content: object = "done", call_id: str = "c1", **more: Any) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


def function(name: str = "look", **more: Any) -> Json:
    return {"type": "function", "function": {"name": name, **more}}
