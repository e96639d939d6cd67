"""Tools whose names a provider does not take, called by a client that never learns of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider

CONFIG = """
[providers.anthropic]
api_key = "sk-ant-canary-0000"
base_url = "{url}"

[providers.gemini]
api_key = "canary-gemini-0000"
base_url = "{url}"
"""
NAME = "mcp/files.read"
TOOLS: list[Any] = [{"type": "function", "function": {"name": name}} for name in (NAME, "plain")]
FORCED: Any = {"type": "function", "function": {"name": NAME}}
MODELS = {"anthropic/claude-sonnet-4-5": "mcp_files_read", "gemini/gemini-2.5-flash": "mcp_files.read"}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def client(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with GatewayProcess(tmp_path_factory.mktemp("names"), config=CONFIG.format(url=provider.url)) as gateway:
        yield OpenAI(base_url=gateway.base_url, api_key=gateway.create_key("--rpm", "0"), max_retries=0)


def claude(*names: str) -> list[dict[str, Any]]:
    start = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": {}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, name in enumerate(names):
        block = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    return [*events, {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]


def whole_claude(*names: str) -> dict[str, Any]:
    blocks = [
        {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}} for index, name in enumerate(names)
    ]
    usage = {"input_tokens": 5, "output_tokens": 5}
    return {"id": "m", "type": "message", "model": "c", "content": blocks, "stop_reason": "tool_use", "usage": usage}


def gemini(*names: str) -> dict[str, Any]:
    parts = [{"functionCall": {"name": name, "args": {}}} for name in names]
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}]}


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_answers_calls_have_the_clients_names(client: OpenAI, provider: FakeProvider, model: str) -> None:
    wire = MODELS[model]
    provider.reply_json((whole_claude if "claude" in model else gemini)(wire, "plain", "unheard_of"))
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "read"}], tools=TOOLS, tool_choice=FORCED
    )
    sent = json.dumps(json.loads(provider.last.body))
    assert wire in sent
    assert NAME not in sent
    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == [NAME, "plain", "unheard_of"]

    # and back again, as the client keeps it
    provider.reply_json((whole_claude if "claude" in model else gemini)("plain"))
    results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": "text"} for call in calls]
    history: list[Any] = [{"role": "user", "content": "read"}, answer.choices[0].message.to_dict(), *results]
    client.chat.completions.create(model=model, messages=history, tools=TOOLS)
    assert NAME not in json.dumps(json.loads(provider.last.body))


@pytest.mark.parametrize("model", MODELS)
def test_a_streams_calls_have_the_clients_names(client: OpenAI, provider: FakeProvider, model: str) -> None:
    wire = MODELS[model]
    provider.reply_sse(claude(wire, "plain") if "claude" in model else [gemini(wire, "plain")], cuts=3)
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "read"}], tools=TOOLS, stream=True
    )
    deltas = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert [call.function.name for call in deltas if call.function and call.function.name] == [NAME, "plain"]
