"""Recorded Anthropic exchanges through the dialect, without sockets: answers, streams, errors, and requests.

Answers are held against what Anthropic's own SDK makes of them. Recorded OpenAI requests are built for several kinds of
Claude models and held against the SDK's request types.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from typing import Any, Literal

import orjson
import pytest

from inferxgate import errors
from inferxgate.canonical.chat import ChatResponse, Choice, collect
from inferxgate.canonical.conversation import (
    Bytes,
    CacheMark,
    Conversation,
    Document,
    FileId,
    Image,
    MediaSource,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Url,
)
from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import anthropic_messages
from inferxgate.dialects.anthropic_requests import build_body
from inferxgate.dialects.openai_answers import build_response
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


def test_an_answer_that_a_client_returns_reaches_the_model_as_it_was() -> None:
    """But for blank text and citations: no block is lost, and each stands where it stood."""
    servers = 0
    for recording in exchanges():
        body = recording.load()["response"]["body"]
        if body is None:
            continue
        whole = collect(anthropic_messages.parse_response(json.dumps(body).encode())[1])
        message = json.loads(orjson.dumps(build_response(whole, answer_id="", created_s=0, model="m")))["choices"][0]
        calls = message["message"].get("tool_calls", ())
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in calls]
        asked = [{"role": "user", "content": "go"}, message["message"], *results, {"role": "user", "content": "on"}]
        sent = build({"model": "m", "messages": asked}, MODELS["newest"])
        assert not isinstance(sent, GatewayError), recording.file
        expected = blocks_of(body["content"])
        if expected and expected[-1][0] in {"thinking", "redacted_thinking"}:
            continue  # cut off while the model thought: the API would refuse to have it back
        got = blocks_of(sent["messages"][1]["content"]) if expected else []
        assert got == expected, recording.file
        servers += sum(kind.endswith(("_tool_use", "_tool_result")) for kind, _ in expected)
    assert servers > 25


def blocks_of(content: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Blocks without what is not returned; texts that follow each other are one."""
    blocks: list[tuple[str, Any]] = []
    for block in content:
        if block["type"] != "text":
            blocks.append((block["type"], {name: value for name, value in block.items() if name != "caller"}))
        elif blocks and blocks[-1][0] == "text":
            blocks[-1] = ("text", blocks[-1][1] + block["text"])
        elif block["text"].strip():
            blocks.append(("text", block["text"]))
    return blocks


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
    built = 0
    found = recordings.find(lambda r: r.provider == "openai" and r.api == "chat.completions")
    for recording in found:
        sent = build(recording.load()["request"]["body"], MODELS[model])
        if isinstance(sent, GatewayError):
            assert sent.status == 400, recording.file
            assert sent.param, recording.file
            continue
        built += 1
        try:
            sdk.sent_to_sdk(sent)
        except (AssertionError, ValueError) as error:
            wrong[recording.file] = str(error)
    assert not wrong, "\n".join(f"{file}: {why[:500]}" for file, why in wrong.items())
    assert built / len(found) > 0.93


EXPLAINED = {
    "normalized_fields_match_raw_renormalized": "the scenario asks each provider something else",
    "test_refusal": "the client has a tool for its form here, and a schema at OpenAI",
    "complex_object_streaming": "the client has a tool for its form here, and a schema at OpenAI",
    "/json/": "json_object, which the client asks for in words here, and we by a tool",
    "test_validation_retry": "json_object, which the client asks for in words here, and we by a tool",
    "respects_choice_required": "the client names the tool at Mistral",
    "test_tool_search_eval": "the scenario asks each provider something else",
    "test_multimodal_tool_return_matrix": "the scenario is a matrix, with another file for each row",
}
"""Scenarios whose first requests differ between the providers, each with the reason."""


def test_a_scenario_recorded_on_both_sides_is_asked_in_the_same_way() -> None:
    """For requests before the model has said anything, since what it says differs."""
    place = recordings.folder()
    if place is None:
        pytest.skip(recordings.MISSING)

    def request(file: str) -> dict[str, Any]:
        body: dict[str, Any] = json.loads((place / file).read_text())["request"]["body"]
        return body

    same = 0
    for scenario, files in json.loads((place / "PAIRS.json").read_text()).items():
        native = [sdk.meaning(request(file)) for file in files if file.startswith("anthropic/messages/")]
        native = [meant for meant in native if len(meant["turns"]) == 1]
        for file in files if native else ():
            if "/chat.completions/" not in file or any(name in scenario for name in EXPLAINED):
                continue
            sent = build(request(file), MODELS["both"])
            assert not isinstance(sent, GatewayError), file
            meant = sdk.meaning(sent)
            if len(meant["turns"]) == 1:
                assert meant in native, (scenario, file)
                same += 1
    assert same > 70


# --- requests as Anthropic's clients wrote them, through the conversation and back


class Elsewhere(Exception):
    """Something that OpenAI's API has no place for."""


def conversation_of(body: dict[str, Any]) -> Conversation:
    """A native request in nobody's format, read here by other means than the package's."""
    choice = body.get("tool_choice")
    return Conversation(
        messages=(
            *(Message("system", (Text(block["text"], mark(block)),)) for block in as_blocks(body.get("system") or [])),
            *(
                Message(role_of(message), tuple(part_of(block) for block in as_blocks(message["content"])))
                for message in body["messages"]
            ),
        ),
        tools=tuple(tool_of(tool) for tool in body.get("tools") or ()),
        tool_choice=choice_of(choice) if choice else None,
        parallel_tool_calls=False if choice and choice.get("disable_parallel_tool_use") else None,
        max_tokens=body["max_tokens"],
        stop=tuple(body.get("stop_sequences") or ()),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        metadata=body.get("metadata"),
        cache=mark(body),
        extra={name: value for name, value in body.items() if name in NATIVE},
    )


NATIVE = ("thinking", "output_config", "output_format", "container", "mcp_servers", "top_k")


def as_blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def role_of(message: dict[str, Any]) -> Literal["user", "assistant"]:
    if message["role"] == "system":
        raise Elsewhere("a system message in the middle")
    role: Literal["user", "assistant"] = message["role"]
    return role


def mark(block: dict[str, Any]) -> CacheMark | None:
    given = block.get("cache_control")
    return CacheMark(given.get("ttl")) if given else None


def part_of(block: dict[str, Any]) -> Part:
    match block:
        case {"type": "text", "text": text, **rest} if "citations" not in rest:
            return Text(text, mark(block))
        case {"type": "thinking", "thinking": text, "signature": signature}:
            return Reasoning(text, signature)
        case {"type": "redacted_thinking", "data": data}:
            return Reasoning("", redacted=data)
        case {"type": "tool_use", "id": call_id, "name": name, "input": given}:
            return ToolUse(call_id, name, json.dumps(given), cache=mark(block))
        case {"type": "tool_result", "tool_use_id": call_id, **rest}:
            inner = [part_of(one) for one in as_blocks(rest.get("content") or [])]
            parts = tuple(part for part in inner if isinstance(part, Text | Image | Document))
            assert len(parts) == len(inner)
            return ToolResult(call_id, None, parts, rest.get("is_error", False), mark(block))
        case {"type": "image", "source": source}:
            return Image(source_of(source), cache=mark(block))
        case {"type": "document", "source": source, **rest} if not rest.keys() & {"citations", "context"}:
            return Document(source_of(source), rest.get("title"), mark(block))
    raise Elsewhere(block["type"])


def source_of(source: dict[str, Any]) -> MediaSource:
    match source:
        case {"type": "base64", "media_type": kind, "data": data}:
            return Bytes(kind, data)
        case {"type": "text", "media_type": kind, "data": data}:
            return Bytes(kind, base64.b64encode(data.encode()).decode())
        case {"type": "url", "url": url}:
            return Url(url)
        case {"type": "file", "file_id": file_id}:
            return FileId(file_id)
    raise Elsewhere(source["type"])


def tool_of(tool: dict[str, Any]) -> Tool:
    if set(tool) - {"name", "description", "input_schema", "strict", "cache_control"}:
        raise Elsewhere("tool")
    return Tool(tool["name"], tool.get("description"), tool["input_schema"], tool.get("strict"), mark(tool))


def choice_of(choice: dict[str, Any]) -> ToolChoice:
    match choice:
        case {"type": "tool", "name": name}:
            return ToolChoice("named", (name,))
        case {"type": "any"}:
            return ToolChoice("required")
        case {"type": "none"}:
            return ToolChoice("none")
    return ToolChoice("auto")


def spelt_alike(body: dict[str, Any]) -> dict[str, Any]:
    """A request with those of its spellings made one that mean the same."""
    body = without_defaults(body)
    turns: list[dict[str, Any]] = []
    for message in body["messages"]:
        content = [block for block in as_blocks(message["content"]) if block.get("text", "x").strip()]
        for block in content:
            if block["type"] == "tool_result":
                block["content"] = as_blocks(block.get("content") or [])
        content.sort(key=lambda block: block["type"] != "tool_result")
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += content
        elif content:
            turns.append({"role": message["role"], "content": content})
    alike = {name: value for name, value in body.items() if value not in ([], "") and name != "stream"}
    alike |= {"messages": turns}
    if "system" in alike:
        alike["system"] = [block for block in as_blocks(alike["system"]) if block["text"].strip()]
    if not alike.get("tools") or alike.get("tool_choice") == {"type": "auto"}:
        alike.pop("tool_choice", None)
    for tool in alike.get("tools", ()):
        if tool.get("description") == "":
            del tool["description"]
        tool["input_schema"].pop("$schema", None)
    return alike


DEFAULTS = {"strict": False, "is_error": False, "disable_parallel_tool_use": False, "cache_control": None}


def without_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: without_defaults(item)
            for name, item in value.items()
            if not (name in DEFAULTS and item == DEFAULTS[name])
        }
    return [without_defaults(item) for item in value] if isinstance(value, list) else value


def test_native_requests_come_back_as_they_were() -> None:
    """Whatever of Anthropic's API a conversation can hold is built as Anthropic's own clients spell it."""
    different: dict[str, str] = {}
    elsewhere: Counter[str] = Counter()
    same = 0
    for recording in exchanges():
        body = recording.load()["request"]["body"]
        try:
            conversation = conversation_of(body)
        except Elsewhere as what:
            elsewhere[str(what)] += 1
            continue
        try:
            built, dropped = build_body(conversation, BuildTarget("anthropic", body["model"], Abilities()))
        except GatewayError as error:
            different[recording.file] = error.message
            continue
        sent = json.loads(orjson.dumps(built))
        if spelt_alike(sent) == spelt_alike(body) and not dropped:
            same += 1
        else:
            one, other = spelt_alike(sent), spelt_alike(body)
            names = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
            different[recording.file] = f"{dropped} {[(name, one.get(name), other.get(name)) for name in names]}"
    assert not different, "\n".join(f"{file}: {why[:800]}" for file, why in different.items())
    assert same > 470, elsewhere
