"""A tool loop with thinking over three turns, with clients that return unknown fields and clients that drop them."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
CONFIG = """
[providers.anthropic]
api_key = "sk-ant-canary-0000"
base_url = "{url}"

[providers.gemini]
api_key = "canary-gemini-0000"
base_url = "{url}"
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def client(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with GatewayProcess(tmp_path_factory.mktemp("reasoning"), config=CONFIG.format(url=provider.url)) as gateway:
        yield OpenAI(base_url=gateway.base_url, api_key=gateway.create_key("--rpm", "0"), max_retries=0)


def claude(turn: int, *, last: bool) -> dict[str, Any]:
    thought = {"type": "thinking", "thinking": f"thought {turn}", "signature": f"SIGNED{turn}"}
    use = {"type": "tool_use", "id": f"toolu_{turn}", "name": "look", "input": {"at": f"place {turn}"}}
    return {
        "id": f"msg_{turn}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "done"}] if last else [thought, use],
        "stop_reason": "end_turn" if last else "tool_use",
        "usage": {"input_tokens": 5, "output_tokens": 5},
    }


def gemini(turn: int, *, last: bool) -> dict[str, Any]:
    call = {"functionCall": {"name": "look", "args": {"at": f"place {turn}"}}, "thoughtSignature": f"U0lHTkVE{turn}AAA"}
    parts = [{"text": "done"}] if last else [{"text": f"thought {turn}", "thought": True}, call]
    return {
        "responseId": f"r{turn}",
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 10},
    }


def returned(message: Any, *, keeps: bool) -> dict[str, Any]:
    """An assistant's message as a client sends it back: whole, or with what it knows alone."""
    whole: dict[str, Any] = message.to_dict()
    if keeps:
        return whole
    calls = [{name: call[name] for name in ("id", "type", "function")} for call in whole["tool_calls"]]
    return {"role": "assistant", "content": whole["content"], "tool_calls": calls}


def loop(clients: Iterable[OpenAI], provider: FakeProvider, model: str, answer: Any, *, keeps: bool) -> list[Any]:
    """Three turns, each by the next client; the bodies that the provider was sent."""
    first = len(provider.requests)
    messages: list[Any] = [{"role": "user", "content": "Look twice."}]
    for turn, client in zip(range(3), clients, strict=False):
        provider.reply_json(answer(turn, last=turn == 2))
        created = client.chat.completions.create(model=model, messages=messages, tools=[TOOL], reasoning_effort="low")  # type: ignore[call-overload]  # the tool is plain data, as many programs have it
        message = created.choices[0].message
        if turn == 2:
            assert message.content == "done"
            break
        [call] = message.tool_calls
        assert json.loads(call.function.arguments) == {"at": f"place {turn}"}
        messages += [returned(message, keeps=keeps), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    return [request.json() for request in provider.requests[first:]]


def check_claude(bodies: list[Any]) -> None:
    """Each thought has come back to the provider, in its place."""
    assert len(bodies) == 3
    turns = [turn for turn in bodies[2]["messages"] if turn["role"] == "assistant"]
    for number, turn in enumerate(turns):
        thought, use = turn["content"][0], turn["content"][-1]
        assert (thought["type"], thought["thinking"]) == ("thinking", f"thought {number}")
        assert thought["signature"] == f"SIGNED{number}"
        assert (use["type"], use["input"]) == ("tool_use", {"at": f"place {number}"})
    assert len(turns) == 2


def check_gemini(bodies: list[Any]) -> None:
    assert len(bodies) == 3
    calls = [
        part
        for content in bodies[2]["contents"]
        if content["role"] == "model"
        for part in content["parts"]
        if "functionCall" in part
    ]
    assert [part["thoughtSignature"] for part in calls] == ["U0lHTkVE0AAA", "U0lHTkVE1AAA"]
    assert [part["functionCall"]["args"] for part in calls] == [{"at": "place 0"}, {"at": "place 1"}]


CLAUDE, GEMINI = "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"


@pytest.mark.parametrize("keeps", [True, False])
def test_anthropics_signed_thoughts_come_back(client: OpenAI, provider: FakeProvider, keeps: bool) -> None:
    check_claude(loop(repeat(client), provider, CLAUDE, claude, keeps=keeps))


@pytest.mark.parametrize("keeps", [True, False])
def test_geminis_signatures_come_back_on_their_calls(client: OpenAI, provider: FakeProvider, keeps: bool) -> None:
    check_gemini(loop(repeat(client), provider, GEMINI, gemini, keeps=keeps))


def served_by(gateway: GatewayProcess) -> list[str]:
    """The workers that answered completions, as the log has it."""
    return [
        match[1] for line in gateway.lines if "/v1/chat/completions" in line and (match := re.search(r"\[(\d)\]", line))
    ]


def test_every_worker_knows_them(provider: FakeProvider, tmp_path: Path) -> None:
    """Each turn comes over a connection of its own, and those that are open keep new ones away from their worker."""
    config, arguments = CONFIG.format(url=provider.url), ("--workers", "3")
    with GatewayProcess(tmp_path, config=config, arguments=arguments) as gateway, ExitStack() as clients:
        secret = gateway.create_key("--rpm", "0")

        def fresh() -> Iterator[OpenAI]:
            while True:
                yield clients.enter_context(OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0))

        check_claude(loop(fresh(), provider, CLAUDE, claude, keeps=False))
        check_gemini(loop(fresh(), provider, GEMINI, gemini, keeps=False))
        assert gateway.stop() == 0
        assert set(served_by(gateway)) == {"1", "2", "3"}
        assert {path.stat().st_mode & 0o777 for path in (gateway.data_dir / "reasoning").iterdir()} == {0o600}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_they_outlive_the_gateway_and_go_where_nothing_is_to_be_kept(
    provider: FakeProvider, tmp_path: Path, end: signal.Signals
) -> None:
    with GatewayProcess(tmp_path, config=CONFIG.format(url=provider.url)) as gateway:
        secret = gateway.create_key("--rpm", "0")

        def restarted() -> Iterator[OpenAI]:
            while True:
                with OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0) as client:
                    yield client
                gateway.signal(end)
                gateway.start()

        check_gemini(loop(restarted(), provider, GEMINI, gemini, keeps=False))
    with GatewayProcess(tmp_path, config=CONFIG.format(url=provider.url) + "[reasoning]\nkeep_hours = 0\n") as gateway:
        assert not (gateway.data_dir / "reasoning").exists()
        with OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0) as client:
            bodies = loop(repeat(client), provider, GEMINI, gemini, keeps=False)
        assert "U0lHTkVE" not in json.dumps(bodies)
