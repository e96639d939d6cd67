"""Recorded answers of Anthropic, Gemini, Vertex and Azure, through the running gateway to OpenAI's own SDK.

A server on a real socket plays each recording in random cuts as the provider; the client asks an OpenAI question and
reads an OpenAI answer, which is held against a reading that shares no code with the package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.recordings import anthropic_reading, gemini_reading, reading
from tests.support import recordings
from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider
from tests.support.recordings import Recording

CONFIG = """
[routing]  # each failure is told as it comes, and none leaves the provider alone
retries = 0
min_failures = 1000000
[providers.anthropic]
api_key = "sk-ant-canary-0000"
base_url = "{url}"

[providers.gemini]
api_key = "canary-gemini-0000"
base_url = "{url}"

[providers.azure]
api_key = "canary-azure-0000"
base_url = "{url}"
"""

MODELS = {
    "anthropic": "anthropic/claude-sonnet-4-5",
    "gemini": "gemini/gemini-2.5-flash",
    "vertex": "gemini/gemini-2.5-flash",
    "azure": "azure/my-deployment",
}
APIS = {
    "anthropic": ("messages",),
    "gemini": ("generateContent", "streamGenerateContent"),
    "vertex": ("generateContent", "streamGenerateContent"),
    "azure": ("chat.completions",),
}

EXCEPTIONS: dict[str, str] = {}
"""Exchanges whose client does not get what the recording holds, each with the reason."""


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def client(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    config = CONFIG.format(url=provider.url)
    with GatewayProcess(tmp_path_factory.mktemp("native"), config=config) as gateway:
        key = gateway.create_key("--rpm", "0")
        yield openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0)


def wanted(provider: str) -> list[Recording]:
    return recordings.find(lambda r: r.provider == provider and r.api in APIS[provider] and r.status == 200)


def ask(client: openai.OpenAI, model: str, *, stream: bool) -> dict[str, Any]:
    """The answer as the SDK reads it: one message's fields, its finish reason and usage."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Go on."}]}
    if not stream:
        answer = client.post("/chat/completions", body=body, cast_to=ChatCompletion)
        return gathered([answer.model_dump(exclude_unset=True, warnings=False)], "message")
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    chunks = client.post(
        "/chat/completions",
        body=body,
        cast_to=ChatCompletion,
        stream=True,
        stream_cls=openai.Stream[ChatCompletionChunk],
    )
    with chunks:
        return gathered([chunk.model_dump(exclude_unset=True, warnings=False) for chunk in chunks], "delta")


def gathered(answers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """All of an answer's events in one: texts joined, calls and blocks of thought by their place."""
    said: dict[int, dict[str, Any]] = {}
    usage = None
    for answer in answers:
        usage = answer.get("usage") or usage
        for choice in answer["choices"]:
            whole = said.setdefault(
                choice["index"],
                {"text": "", "reasoning": "", "refusal": "", "calls": {}, "signatures": [], "reason": None},
            )
            message = choice.get(name) or {}
            whole["text"] += message.get("content") or ""
            whole["reasoning"] += message.get("reasoning_content") or ""
            whole["refusal"] += message.get("refusal") or ""
            whole["reason"] = choice.get("finish_reason") or whole["reason"]
            for block in message.get("thinking_blocks") or ():
                if block.get("signature") or block.get("data"):
                    whole["signatures"].append(block.get("signature") or block.get("data"))
            for number, call in enumerate(message.get("tool_calls") or ()):
                entry = whole["calls"].setdefault(call.get("index", number), ["", "", "", None])
                entry[0] = call.get("id") or entry[0]
                entry[1] = call["function"].get("name") or entry[1]
                entry[2] += call["function"].get("arguments") or ""
                google = (call.get("extra_content") or {}).get("google") or {}
                entry[3] = google.get("thought_signature") or entry[3]
    return {"choices": said, "usage": usage}


def of_anthropic(response: dict[str, Any]) -> dict[str, Any]:
    if response["text"] is None:
        read = anthropic_reading.of_whole(response["body"])
    else:
        read = anthropic_reading.of_stream(response["text"].encode())
    usage = read.usage
    prompt = sum(count for name, count in usage.items() if name not in ("output_tokens", "reasoning_tokens"))
    return {
        "text": read.text,
        "reasoning": "".join(block.get("thinking", "") for block in read.thoughts),
        "refusal": read.refusal,
        "reason": read.finish,
        "signatures": [block.get("signature") or block.get("data") for block in read.thoughts],
        "calls": [(call["id"], call["name"], call["arguments"], None) for call in read.calls],
        "usage": (prompt, usage.get("output_tokens", 0) + usage.get("reasoning_tokens", 0)),
    }


def anthropic_differs(got: dict[str, Any], response: dict[str, Any]) -> str | None:
    expected = of_anthropic(response)
    whole = got["choices"][0]
    calls = [
        (entry[0], entry[1], anthropic_reading.arguments(entry[2], whole["reason"]), entry[3])
        for _, entry in sorted(whole["calls"].items())
    ]
    usage = got["usage"]
    found = whole | {
        "calls": calls,
        "signatures": [s for s in whole["signatures"] if s],
        "usage": (usage["prompt_tokens"], usage["completion_tokens"]),
    }
    expected["signatures"] = [signature for signature in expected["signatures"] if signature]
    return None if found == expected else f"expected {expected}\n     got {found}"


def gemini_differs(got: dict[str, Any], response: dict[str, Any]) -> str | None:
    expected = gemini_reading.of_bodies(gemini_reading.bodies_of(response))
    if got["choices"].keys() != expected.choices.keys():
        return f"expected choices {list(expected.choices)}, got {list(got['choices'])}"
    for index, said in expected.choices.items():
        whole = got["choices"][index]
        wanted_calls = [(call.name, call.arguments, call.signature) for call in said.calls]
        calls = [(e[1], json.loads(e[2]), e[3]) for _, e in sorted(whole["calls"].items())]
        found = (whole["text"], whole["reasoning"], whole["reason"], calls)
        if found != (said.text, said.reasoning, said.reason, wanted_calls):
            return f"expected {said}\n     got {found}"
    usage = got["usage"] or {}
    for name in ("prompt_tokens", "completion_tokens"):
        if expected.usage and usage.get(name) != expected.usage[name]:
            return f"expected {expected.usage}, got {usage}"
    return None


def azure_differs(got: dict[str, Any], response: dict[str, Any]) -> str | None:
    if response["text"] is None:
        expected = reading.of_whole(response["body"])
    else:
        expected = reading.of_stream(reading.events_of(response["text"]))
    for index, said in expected.choices.items():
        whole = got["choices"][index]
        calls = {place: entry[:3] for place, entry in whole["calls"].items()}
        if (whole["text"], whole["reason"], calls) != (said.text, said.reason, said.calls):
            return f"expected {said}\n     got {whole}"
    return None if got["usage"] == expected.usage else f"expected {expected.usage}, got {got['usage']}"


def played(response: dict[str, Any]) -> bytes:
    """The recorded bytes. A list was recorded without ``alt=sse``, which the gateway always asks for: its elements are
    played as the events that they are with it."""
    if response["text"] is not None:
        return bytes(response["text"].encode())
    if isinstance(response["body"], list):
        return b"".join(b"data: %b\r\n\r\n" % json.dumps(body).encode() for body in response["body"])
    return json.dumps(response["body"]).encode()


DIFFERS = {
    "anthropic": anthropic_differs,
    "gemini": gemini_differs,
    "vertex": gemini_differs,
    "azure": azure_differs,
}


@pytest.mark.parametrize("host", MODELS)
def test_clients_get_what_was_recorded(host: str, client: openai.OpenAI, provider: FakeProvider) -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    exchanges = wanted(host)
    assert exchanges
    failed: dict[str, str] = {}
    for seed, recording in enumerate(exchanges):
        response = recording.load()["response"]
        stream = response["text"] is not None or isinstance(response["body"], list)
        data = played(response)
        kind = "text/event-stream" if stream else "application/json"
        provider.reply_body(data, headers={"content-type": kind}, cuts=seed)
        if host in ("gemini", "vertex"):
            broken = gemini_reading.of_bodies(gemini_reading.bodies_of(response)).failed
        else:
            broken = None
        try:
            got = ask(client, MODELS[host], stream=stream)
            why = f"no error for {broken}" if broken else DIFFERS[host](got, response)
        except openai.APIError as error:
            why = None if broken and broken in str(error) else f"{type(error).__name__}: {error}"
        if why is not None:
            failed[recording.file] = why
    unlisted = {file: why for file, why in failed.items() if file not in EXCEPTIONS}
    assert not unlisted, f"{len(unlisted)} of {len(exchanges)}:\n" + "\n".join(
        f"{file}: {why[:700]}" for file, why in list(unlisted.items())[:20]
    )
