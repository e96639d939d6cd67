"""Recorded Anthropic exchanges through the dialect, without sockets: answers, streams, errors, and requests.

Answers are held against what Anthropic's own SDK makes of them. Recorded OpenAI requests are built for several kinds of
Claude models and held against the SDK's request types.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from inferxgate import errors
from inferxgate.canonical.chat import ChatResponse, Choice, collect
from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import anthropic_messages
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder
from tests.recordings import anthropic_reading as sdk
from tests.support import recordings
from tests.support.recordings import Recording

EXCEPTIONS: dict[str, str] = {}
"""Exchanges that are read in another way than the SDK reads them, each with the reason."""

MODELS = {
    "nothing known": Abilities(),
    "old": Abilities(max_output_tokens=4096, json_schema=False),
    "budget": Abilities(max_output_tokens=64_000, thinking="budget", temperature_with_top_p=False),
    "both": Abilities(max_output_tokens=64_000, thinking="both", prefill=False, temperature_with_top_p=False),
    "newest": Abilities(max_output_tokens=128_000, thinking="adaptive", prefill=False, sampling=False),
}
"""Kinds of Claude models."""


def exchanges(*, failed: bool = False) -> list[Recording]:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    return recordings.find(
        lambda r: r.provider == "anthropic" and r.api == "messages" and (r.status != 200) is failed,
    )


def read(response: ChatResponse) -> sdk.Reading:
    """What the package made of an answer, as a reading."""
    assert set(response.choices) <= {0}
    choice = response.choices.get(0, Choice())
    return sdk.Reading(
        response.id,
        response.model,
        choice.text,
        [
            {"type": "redacted_thinking", "data": thought.redacted}
            if thought.redacted
            else {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
            for _, thought in sorted(choice.thoughts.items())
        ],
        [
            {"id": call.id, "name": call.name, "arguments": sdk.arguments(call.arguments, choice.finish_reason)}
            for _, call in sorted(choice.tool_calls.items())
        ],
        [
            {"url": c.url, "title": c.title, "text": c.text, "span": (c.start_index, c.end_index)}
            for c in choice.citations
        ],
        choice.refusal,
        choice.finish_reason,
        buckets(response.usage),
    )


def buckets(usage: Usage | None) -> dict[str, int]:
    return {name: getattr(usage, name) for name in BUCKETS if getattr(usage, name)}


def play(data: bytes, seed: int) -> ChatResponse:
    """A stream through the package, in random cuts."""
    cuts = random.Random(seed)
    decoder, stream, response = SSEDecoder(), anthropic_messages.DIALECT.stream_reader(), ChatResponse()
    events = []
    while data:
        size = cuts.choice((1, 2, 7, 50, 400, 5000))
        events += decoder.feed(data[:size])
        data = data[size:]
    for event in events + decoder.flush():
        said = stream.feed(event)
        for chunk in said.chunks if said else ():
            response.add(chunk)
    assert stream.done
    assert stream.complete
    return response


def test_every_answer_says_what_the_sdk_reads() -> None:
    different: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for seed, recording in enumerate(exchanges()):
        response = recording.load()["response"]
        if response["text"] is None:
            seen["whole"] += 1
            got = read(collect(anthropic_messages.parse_response(json.dumps(response["body"]).encode())[1]))
            expected = sdk.of_whole(response["body"])
        else:
            seen["streamed"] += 1
            got, expected = read(play(response["text"].encode(), seed)), sdk.of_stream(response["text"].encode())
        if got != expected:
            different[recording.file] = f"expected {expected}\n     got {got}"
    unlisted = {file: why for file, why in different.items() if file not in EXCEPTIONS}
    assert not unlisted, "\n".join(f"{file}: {why}" for file, why in unlisted.items())
    assert set(EXCEPTIONS) <= set(different)
    assert seen["whole"] > 380
    assert seen["streamed"] > 140


def as_stream(body: dict[str, Any]) -> bytes:
    """A whole answer as the events that it would have come in."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**body, "content": [], "stop_reason": None, "stop_details": None}}
    ]
    for index, block in enumerate(body["content"]):
        bare, deltas = dict(block), []
        match block["type"]:
            case "text":
                bare |= {"text": "", "citations": []}
                deltas += [{"type": "citations_delta", "citation": item} for item in block.get("citations") or ()]
                deltas += [{"type": "text_delta", "text": letter} for letter in block["text"]]
            case "thinking":
                bare |= {"thinking": "", "signature": ""}
                deltas.append({"type": "thinking_delta", "thinking": block["thinking"]})
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "tool_use" | "server_tool_use":
                bare["input"] = {}
                deltas.append({"type": "input_json_delta", "partial_json": ""})
                if block["input"]:
                    text = json.dumps(block["input"])
                    deltas += [
                        {"type": "input_json_delta", "partial_json": text[i : i + 5]} for i in range(0, len(text), 5)
                    ]
        events.append({"type": "content_block_start", "index": index, "content_block": bare})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events += [{"type": "ping"}, {"type": "content_block_stop", "index": index}]
    end = {"stop_reason": body["stop_reason"], "stop_details": body.get("stop_details")}
    events.append({"type": "message_delta", "delta": end, "usage": body["usage"]})
    events.append({"type": "message_stop"})
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def test_a_whole_answer_streamed_means_the_same() -> None:
    for recording in exchanges():
        body = recording.load()["response"]["body"]
        if body is not None:
            whole = collect(anthropic_messages.parse_response(json.dumps(body).encode())[1])
            assert read(play(as_stream(body), 1)) == read(whole), recording.file


TOLD = {400: 400, 401: 502, 404: 404}
"""What the contract makes of each recorded status."""


def test_every_recorded_error_is_told_as_the_contract_says() -> None:
    found = exchanges(failed=True)
    for recording in found:
        body = recording.load()["response"]["body"]
        error = anthropic_messages.DIALECT.parse_error(recording.status, {}, json.dumps(body).encode(), 0.0)
        assert error.status == TOLD[recording.status], recording.file
        assert error.upstream_status == recording.status
        if recording.status in {400, 404}:
            assert error.message == body["error"]["message"]
            assert error.type == body["error"]["type"]
        else:
            assert error.kind is errors.UPSTREAM_AUTH_ERROR
        if recording.status == 404:
            assert error.code == "model_not_found"
    assert len(found) >= 16


def build(body: dict[str, Any], abilities: Abilities) -> dict[str, Any] | GatewayError:
    """What Anthropic would be sent for a client's request, or why not."""
    try:
        request = parse_request(body)
        call = anthropic_messages.DIALECT.build_request(request, BuildTarget("anthropic", "claude", abilities))
    except GatewayError as error:
        return error
    sent: dict[str, Any] = json.loads(call.body)
    return sent


@pytest.mark.parametrize("model", MODELS)
def test_every_recorded_openai_request_is_built_or_refused_with_a_reason(model: str) -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    wrong: dict[str, str] = {}
    refusals: Counter[str] = Counter()
    built = 0
    found = recordings.find(lambda r: r.provider == "openai" and r.api == "chat.completions")
    for recording in found:
        sent = build(recording.load()["request"]["body"], MODELS[model])
        if isinstance(sent, GatewayError):
            assert sent.status == 400, recording.file
            assert sent.param, recording.file
            refusals[f"{sent.param}: {sent.message}"] += 1
            continue
        built += 1
        try:
            sdk.sent_to_sdk(sent)
        except (AssertionError, ValueError) as error:
            wrong[recording.file] = str(error)
    assert not wrong, "\n".join(f"{file}: {why[:500]}" for file, why in wrong.items())
    print(model, built, refusals)
    assert built / len(found) > 0.93
