"""Recorded answers and requests of every host that speaks OpenAI's dialect, through the host's own row.

No socket: what the row and the dialect make of a request, of the bytes of an answer in any cuts, and of an error, is
held against an independent reading of the recording. Hosts that have no row of their own get one here, which shows that
a row is all that a new host needs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from inferxgate.canonical.chat import ChatResponse, Chunk, collect
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import openai_chat
from inferxgate.dialects.openai_quirks import short_id
from inferxgate.errors import GatewayError
from inferxgate.gateway.exchange import Exchange
from inferxgate.gateway.routing import Target
from inferxgate.providers.provider import Provider, Row, fixed_path
from inferxgate.providers.registry import ROWS
from tests.recordings import reading
from tests.recordings.test_recorded_errors import TOLD
from tests.support import recordings
from tests.support.recordings import Recording

EXCEPTIONS = {
    "groq/chat.completions/test-groq-test-tool-use-failed-error-streaming-with-text-0-9e866a63.json": (
        "the stream breaks off with an error event"
    ),
    "openai/chat.completions/test-tools-streaming-test-tools-streaming-variant-a-0-bf467b9a.json": (
        "the stream ends without any finish reason"
    ),
    "snowflake/chat.completions/test-snowflake-test-snowflake-model-streaming-0-7f482c61.json": (
        "the finish reason is empty, and so none"
    ),
    "snowflake/chat.completions/test-snowflake-test-snowflake-thinking-0-e1300c98.json": (
        "the finish reason is empty, and so none"
    ),
    "snowflake/chat.completions/test-snowflake-test-snowflake-thinking-1-be6b0013.json": (
        "the finish reason is empty, and so none"
    ),
    "openrouter/chat.completions/test-cache-test-openrouter-cache-instructions-gemini-real-api-0-2f99ba74.json": (
        "the same tokens are counted as written to the cache and as read from it, and billed twice"
    ),
}
"""Answers that do not mean to us what they say, each with the reason."""


def chats(*, status_ok: bool) -> list[Recording]:
    return recordings.find(lambda r: r.api == "chat.completions" and (r.status == 200) is status_ok)


@cache
def provider_of(host: str) -> Provider:
    """The host as it would be configured: by its row, or by one that is made up here."""
    row = ROWS.get(host) or Row(
        type=host,
        owner=host,
        dialect="openai_chat",
        base_url=f"https://{host}.example/v1",
        url=fixed_path("/chat/completions"),
    )
    base_url = row.base_url or "https://my-resource.openai.azure.com"
    quirks = row.versioned(base_url, row.api_version or "") if row.versioned else row.quirks
    return Provider(name=host, row=row, base_url=base_url, api_key="key-recorded", quirks=quirks)


def exchange_of(recording: Recording, recorded: Mapping[str, Any], *, stream: bool) -> Exchange:
    asked = recorded["request"].get("body") or {}
    body = {"messages": [{"role": "user", "content": "x"}], **asked, "model": "m", "stream": stream}
    target = Target(provider_of(recording.provider), asked.get("model") or "deployment")
    return Exchange(openai_chat.parse_request(body), target, Abilities(), strict=False)


def meaning(recording: Recording, recorded: Mapping[str, Any]) -> ChatResponse:
    """What the gateway makes of a recorded answer; raises what it finds wrong with it."""
    response = recorded["response"]
    if response["text"] is None:
        return collect(exchange_of(recording, recorded, stream=False).whole(json.dumps(response["body"]).encode())[1])
    exchange = exchange_of(recording, recorded, stream=True)
    data = response["text"].encode()
    chunks: list[Chunk] = []
    for piece in in_cuts(data, seed=recording.file):
        for event in exchange.events(piece):
            chunks += event.chunks
        if exchange.failure is not None:
            raise exchange.failure
    for event in exchange.last_events():
        chunks += event.chunks
    if exchange.failure is not None:
        raise exchange.failure
    return collect(chunks)


def in_cuts(data: bytes, *, seed: str) -> Iterator[bytes]:
    lengths = random.Random(seed)
    start = 0
    while start < len(data):
        end = start + lengths.choice((1, 7, 50, 400, 5000))
        yield data[start:end]
        start = end


def plain(event: dict[str, Any]) -> dict[str, Any]:
    """An answer or an event in today's form: content as text with thought beside it, every call as a function's."""
    for choice in event.get("choices") or ():
        message = choice.get("message") or choice.get("delta") or {}
        if any((message.get("function_call") or {}).values()):
            message["tool_calls"] = [{"function": message["function_call"]}]
        for call in message.get("tool_calls") or ():
            if call.get("type") == "custom":
                call["function"] = {"name": call["custom"]["name"], "arguments": call["custom"]["input"]}
        if isinstance(message.get("content"), list):
            parts = message["content"]
            message["content"] = "".join(part.get("text", "") for part in parts)
            thought = [each for part in parts for each in part.get("thinking", ())]
            message["reasoning_content"] = "".join(each.get("text", "") for each in thought)
    return event


def differs(got: ChatResponse, expected: reading.Reading) -> str | None:
    if got.choices.keys() != expected.choices.keys():
        return f"choices {list(got.choices)} instead of {list(expected.choices)}"
    for index, said in expected.choices.items():
        choice = got.choices[index]
        calls = {number: [call.id, call.name, call.arguments] for number, call in choice.tool_calls.items()}
        ours = (choice.text, choice.reasoning, choice.refusal, calls, choice.finish_reason)
        theirs = (said.text, said.reasoning, said.refusal, said.calls, said.reason)
        if ours != theirs:
            return f"{ours} instead of {theirs}"
    counted = (got.usage.prompt_tokens, got.usage.completion_tokens) if got.usage else (0, 0)
    wanted = tokens(expected.usage or {})
    return None if counted == wanted else f"usage {counted} instead of {wanted}"


def tokens(usage: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and completion. What a host counts beside them shows in its total, or in being more than they are."""
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    audio = (usage.get("prompt_tokens_details") or {}).get("audio_tokens") or 0
    rest = usage.get("total_tokens", 0) - prompt - completion
    if reasoning and (rest == reasoning or reasoning > completion):
        return prompt, completion + reasoning
    return (prompt + audio if rest == audio else prompt), completion


def test_every_recorded_answer_means_what_it_says() -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    wrong: dict[str, str] = {}
    hosts = set()
    for recording in chats(status_ok=True):
        hosts.add(recording.provider)
        recorded = recording.load()
        response = recorded["response"]
        try:
            got = meaning(recording, recorded)
        except GatewayError as error:
            why: str | None = f"{error.code}: {error.message}"
        else:
            if response["text"] is None:
                expected = reading.of_whole(plain(response["body"]))
            else:
                expected = reading.of_stream(plain(event) for event in reading.events_of(response["text"]))
            why = differs(got, expected)
        if (why is not None) is not (recording.file in EXCEPTIONS):
            wrong[recording.file] = why or "is no exception any more"
    assert not wrong, "\n".join(f"{file}: {why[:500]}" for file, why in wrong.items())
    assert len(hosts) > 20


def test_what_a_host_took_is_sent_to_it_unchanged() -> None:
    """No quirk of a row may keep from a host what it is on record to have taken."""
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    wrong: dict[str, str] = {}
    for recording in chats(status_ok=True):
        recorded = recording.load()
        body = recorded["request"].get("body")
        if not body or not body.get("messages"):
            continue
        exchange = exchange_of(recording, recorded, stream=bool(body.get("stream")))
        request = exchange.http_request()
        sent, took = json.loads(request.body), as_sent(body, provider_of(recording.provider))
        if (sent, exchange.dropped) != (took, ()):
            wrong[recording.file] = f"{exchange.dropped}: {sent} instead of {took}"
        assert request.headers.get("authorization", request.headers.get("api-key", "")).endswith("key-recorded")
    assert not wrong, "\n".join(f"{file}: {why[:800]}" for file, why in wrong.items())


def as_sent(body: dict[str, Any], provider: Provider) -> dict[str, Any]:
    """The recorded request with what the gateway always sees to: the model, and a stream's usage."""
    sent = {**body, "model": body.get("model") or "deployment", "stream": bool(body.get("stream"))}
    quirks = provider.quirks
    if sent["stream"] and quirks.stream_usage:
        sent["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    elif not quirks.stream_usage:
        sent.pop("stream_options", None)
    sent = {name: value for name, value in sent.items() if value is not None or quirks.nulls}
    for ours, theirs in quirks.renames.items():
        if ours in sent:
            sent[theirs] = sent.pop(ours)
    if quirks.short_tool_ids:  # in many recordings ids are replaced by longer ones
        sent["messages"] = [dict(message) for message in sent["messages"]]
        for message in sent["messages"]:
            if "tool_call_id" in message:
                message["tool_call_id"] = short_id(message["tool_call_id"])
            if message.get("tool_calls"):
                message["tool_calls"] = [{**call, "id": short_id(call["id"])} for call in message["tool_calls"]]
    for message in sent["messages"]:
        allowed = quirks.message_keys.get(message["role"], message.keys())
        for key in message.keys() - allowed:
            assert not message[key], f"{provider.name} took {key} in a message"
    return sent


def test_every_recorded_error_is_told_as_the_contract_says() -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    seen = 0
    for recording in chats(status_ok=False):
        recorded = recording.load()
        response = recorded["response"]
        text = response["text"]
        data = json.dumps(response["body"]).encode() if text is None else text.encode()
        exchange = exchange_of(recording, recorded, stream=recording.stream)
        error = exchange.error(recording.status, response["headers"], data, now_s=0.0)
        exchange.name(error)
        assert error.status == TOLD[recording.status], recording.file
        assert "key-recorded" not in error.message
        if error.status in (502, 503, 429) and error.code != "upstream_invalid_response":
            assert provider_of(recording.provider).name in error.message, recording.file
        seen += 1
    assert seen > 40
