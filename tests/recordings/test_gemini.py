"""Recorded exchanges of the Gemini API and of Vertex AI, through the dialect and against readings of their own."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import orjson
import pytest
from google.genai import types

from inferxgate.canonical.chat import ChatResponse, Choice, Chunk, collect
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import gemini
from inferxgate.dialects.openai_answers import build_response
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder, SSEEvent
from tests.recordings import gemini_reading
from tests.recordings.gemini_reading import Reading, Said
from tests.support import recordings
from tests.support.recordings import Recording

APIS = ("generateContent", "streamGenerateContent")

LEVELS = BuildTarget("gemini", "gemini-3-flash-preview", Abilities(thinking="level"))
BUDGET = BuildTarget("gemini", "gemini-2.5-flash", Abilities(thinking="budget"))
OLD = BuildTarget("gemini", "gemini-1.5-flash", Abilities(json_schema=False))


def wanted(provider: str) -> list[Recording]:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    found = recordings.find(lambda r: r.provider == provider and r.api in APIS and r.status == 200)
    assert len(found) > 100, f"there are recordings, but few of {provider}"
    return found


def stream(bodies: list[dict[str, Any]], seed: int) -> ChatResponse:
    """The bodies as the events of a stream, in random cuts."""
    dice = random.Random(seed)
    data = b"".join(b"data: " + orjson.dumps(body) + dice.choice((b"\n\n", b"\r\n\r\n")) for body in bodies)
    decoder, reader = SSEDecoder(), gemini.StreamReader()
    events: list[SSEEvent] = []
    chunks: list[Chunk] = []
    while data:
        cut = dice.randint(1, 400)
        events += decoder.feed(data[:cut])
        data = data[cut:]
    for item in [*events, *decoder.flush()]:
        event = reader.feed(item)
        assert event is not None
        assert event.raw is None
        chunks += event.chunks
    assert reader.complete
    assert not reader.done
    return collect(chunks)


@pytest.mark.parametrize("provider", ["gemini", "vertex"])
def test_answers_mean_what_was_recorded_whole_and_streamed(provider: str) -> None:
    for seed, recording in enumerate(wanted(provider)):
        bodies = gemini_reading.bodies_of(recording.load()["response"])
        expected = gemini_reading.of_bodies(bodies)
        if expected.failed:
            with pytest.raises(GatewayError, match=expected.failed) as raised:
                stream(bodies, seed)
            assert raised.value.status == 502
            continue
        answers = [stream(bodies, seed)]
        if len(bodies) == 1:
            answers.append(collect(gemini.parse_response(orjson.dumps(bodies[0]))[1]))
            assert answers[0] == answers[1], recording.file
        compare(answers[0], expected, recording.file)


def compare(answer: ChatResponse, expected: Reading, file: str) -> None:
    assert answer.choices.keys() == expected.choices.keys(), file
    for index, said in expected.choices.items():
        choice = answer.choices[index]
        assert choice.text == said.text, file
        assert choice.reasoning == said.reasoning, file
        assert choice.finish_reason == said.reason, file
        assert choice.text_signature == said.signature, file
        assert [(image.media_type, image.base64) for image in choice.images] == said.images, file
        tokens = [(token.text, token.logprob, len(token.top)) for token in choice.logprobs]
        assert tokens == said.tokens, file
        compare_calls(choice, said, file)
        compare_sources(choice, said, file)
    usage = answer.usage
    told = {}
    if usage is not None:
        told = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cache_read_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        }
    assert told == expected.usage, file


def compare_calls(choice: Choice, said: Said, file: str) -> None:
    assert sorted(choice.tool_calls) == list(range(len(said.calls))), file
    for index, call in enumerate(said.calls):
        got = choice.tool_calls[index]
        assert (got.name, json.loads(got.arguments), got.signature) == (call.name, call.arguments, call.signature), file
        if call.id is None:
            assert got.id.startswith("call_"), file
            assert len(got.id) == 29, file
        else:
            assert got.id == call.id, file
    assert len({call.id for call in choice.tool_calls.values()}) == len(said.calls), file


def compare_sources(choice: Choice, said: Said, file: str) -> None:
    for citation, (url, title, words) in zip(choice.citations, said.cited, strict=True):
        assert (citation.url, citation.title) == (url, title), file
        if words is None:
            assert citation.start_index is None, file
        else:
            assert choice.text[citation.start_index : citation.end_index] == words, file


@pytest.mark.parametrize("provider", ["gemini", "vertex"])
def test_the_readings_agree_with_what_the_vendors_package_reads(provider: str) -> None:
    read = 0
    for recording in wanted(provider):
        bodies = gemini_reading.bodies_of(recording.load()["response"])
        parsed = gemini_reading.sdk_reading(bodies)
        if parsed is None:
            continue
        read += 1
        expected = gemini_reading.of_bodies(bodies)
        text, calls, thought = "", [], ""
        for response in parsed:
            candidate = (response.candidates or [types.Candidate()])[0]
            for part in (candidate.content.parts if candidate.content else None) or []:
                if part.thought:
                    thought += part.text or ""
                elif part.text and not part.executable_code:
                    text += part.text
                if part.function_call:
                    calls.append((part.function_call, part.thought_signature))
        said = expected.choices[0]
        assert thought == said.reasoning, recording.file
        assert text == said.text or "```" in said.text, recording.file
        for call, (got, signature) in zip(said.calls, calls, strict=True):
            assert (call.name, call.arguments, call.id) == (got.name, got.args or {}, got.id), recording.file
            assert gemini_reading.same_signature(call.signature, signature), recording.file
    assert read > 100


# --- errors -------------------------------------------------------------------------------------------------------

TOLD = {302: 502, 401: 502, 404: 404, 429: 429}


def test_recorded_errors_are_told_as_the_contract_says() -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    found = recordings.find(lambda r: r.provider in ("gemini", "vertex") and r.status != 200)
    assert len(found) > 20
    for recording in found:
        response = recording.load()["response"]
        details = response["body"]["error"]
        for body in (response["body"], [response["body"]]):
            error = gemini.parse_error(recording.status, {}, orjson.dumps(body), 0.0)
            bad_key = details["message"].startswith("API key not valid")
            if bad_key:
                assert (error.status, error.code) == (502, "upstream_auth_error"), recording.file
                assert "API key" not in error.message, recording.file
            elif recording.status == 403:  # of a cache that is gone
                assert (error.status, error.message) == (400, details["message"]), recording.file
            else:
                assert error.status == TOLD.get(recording.status, recording.status), recording.file
            if error.status in (400, 404):
                assert error.message == details["message"], recording.file
            if recording.status == 429:
                assert (error.code, error.retry_after_seconds) == ("upstream_rate_limited", 48.0), recording.file
            if "models/" in details["message"] or "Publisher Model" in details["message"]:
                assert error.code == "model_not_found", recording.file


# --- requests -----------------------------------------------------------------------------------------------------


def validate(body: dict[str, Any]) -> None:
    """Raise unless the vendor's own types take every field of a body."""
    rest = dict(body)
    for content in rest.pop("contents"):
        types.Content.model_validate(content)
    if "systemInstruction" in rest:
        types.Content.model_validate(rest.pop("systemInstruction"))
    config = types.GenerateContentConfig.model_validate(
        {
            **rest.pop("generationConfig", {}),
            **{
                name: rest.pop(name)
                for name in ("tools", "toolConfig", "safetySettings", "cachedContent")
                if name in rest
            },
        }
    )
    for tool in config.tools or []:
        assert isinstance(tool, types.Tool)
    assert rest == {}


REFUSED = {"url": 9, "modalities": 1, "web_search_options": 1, "tools": 1}
"""Why recorded requests are refused, and how many: pictures by address, what chat completions of Gemini's have not."""


@pytest.mark.parametrize("target", [LEVELS, BUDGET, OLD], ids=["levels", "budget", "old"])
def test_recorded_openai_requests_are_built_as_the_vendors_types_have_them_or_refused(target: BuildTarget) -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    built = 0
    refused: Counter[str] = Counter()
    for recording in recordings.find(lambda r: r.provider == "openai" and r.api == "chat.completions"):
        body = recording.load()["request"]["body"]
        if not isinstance(body, dict):
            continue
        answer = build(body, target)
        if isinstance(answer, GatewayError):
            told = (answer.status, answer.code, answer.param is not None)
            assert told == (400, "unsupported_parameter", True), (recording.file, answer.message)
            place = str(answer.param)
            refused["url" if place.startswith("messages.") else place.partition(".")[0]] += 1
        else:
            built += 1
            validate(answer)
    assert built > 800
    assert set(refused) <= set(REFUSED)
    assert refused.total() <= sum(REFUSED.values())


def build(body: dict[str, Any], target: BuildTarget) -> dict[str, Any] | GatewayError:
    try:
        call = gemini.build_request(parse_request(body), target)
    except GatewayError as error:
        return error
    built: dict[str, Any] = json.loads(call.body)
    return built


# --- the same scenario, recorded of both vendors ------------------------------------------------------------------

DIFFERENT = {
    "Mirascope/mirascope|python:test_structured_output_with_tools/*/async|0": "the client adds a tool of its own",
    "Mirascope/mirascope|python:test_structured_output_with_tools/*/async|1": "the client adds a tool of its own",
    "Mirascope/mirascope|python:test_validation_retry/*/async_stream|1": "the model had answered another number",
    "Mirascope/mirascope|typescript:context-prompt/*/streams-model-with-context|0": "the client sets a maximum",
    "Mirascope/mirascope|typescript:prompt/*/calls-model-with-string-model-id|0": "the client sets a maximum",
    "pydantic/pydantic-ai|test_multimodal_tool_return_matrix|1": "the recorded pair is of different files",
    "pydantic/pydantic-ai|test_multimodal_tool_return_matrix|2": "the recorded pair is of different files",
    "pydantic/pydantic-ai|test_tool_availability_portability_matrix|0": "the client does not merge the user's turns",
    "pydantic/pydantic-ai|test_tool_choice_matrix|0": "the client sends only the tools that are allowed",
    "pydantic/pydantic-ai|test_tool_choice_matrix|1": "the recorded pair is of different prompts",
    "pydantic/pydantic-ai|test_tool_search_eval|4": "the client had found other tools",
    "pydantic/pydantic-ai|test_tool_search_eval|5": "the client had found other tools",
}
"""Scenarios in which the recorded native request says something else than the recorded OpenAI one, and why."""


def test_what_is_sent_means_what_the_native_request_of_the_same_scenario_means() -> None:
    same = 0
    for scenario, (asked, native) in pairs().items():
        meanings = [meaning(load(file)) for file in native]
        for file in asked:
            built = build(load(file), BUDGET)
            if not isinstance(built, GatewayError) and meaning(built) in meanings:
                same += 1
            else:
                assert scenario in DIFFERENT, (scenario, built)
    assert same > 50


def load(file: str) -> dict[str, Any]:
    place = recordings.folder()
    assert place is not None
    body: dict[str, Any] = json.loads((place / file).read_text())["request"]["body"]
    return body


def pairs() -> dict[str, tuple[list[str], list[str]]]:
    """Scenario to the files of OpenAI's and of Google's exchanges."""
    place = recordings.folder()
    if place is None:
        pytest.skip(recordings.MISSING)
    found = {}
    for scenario, files in json.loads((place / "PAIRS.json").read_text()).items():
        asked = [file for file in files if file.startswith("openai/chat.completions/")]
        native = [file for file in files if file.split("/")[0] in ("gemini", "vertex") and file.split("/")[1] in APIS]
        if asked and native:
            found[scenario] = (asked, native)
    return found


def meaning(body: dict[str, Any]) -> dict[str, Any]:
    """What a native request says: turns with the user's texts, the system's text, tools, and settings."""
    system = (body.get("systemInstruction") or {}).get("parts") or []
    config = body.get("generationConfig") or {}
    tools = [tool.get("functionDeclarations") or tool.get("function_declarations") for tool in body.get("tools") or ()]
    names = ("temperature", "maxOutputTokens", "topP", "seed", "stopSequences", "responseMimeType")
    return {
        "turns": [
            (turn["role"], [part_meaning(turn["role"], part) for part in parts(turn)]) for turn in body["contents"]
        ],
        "system": "".join(part["text"] for part in (system if isinstance(system, list) else [system])),
        "tools": sorted(function["name"] for functions in tools for function in functions or ()),
        "settings": {name: config[name] for name in names if config.get(name) is not None},
    }


def parts(turn: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in turn["parts"] if part != {"text": ""} and not part.get("thought")]


def part_meaning(role: str, part: dict[str, Any]) -> tuple[str, str]:
    for name in ("function_call", "functionCall", "function_response", "functionResponse"):
        if name in part:
            return name.replace("_", "").lower(), part[name]["name"]
    if "text" in part:
        return "text", part["text"] if role == "user" else ""
    return next(iter(part)).replace("_", "").lower(), ""


# --- there and back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["gemini", "vertex"])
def test_an_answer_that_a_client_returns_reaches_the_model_as_it_was(provider: str) -> None:
    for recording in wanted(provider):
        bodies = gemini_reading.bodies_of(recording.load()["response"])
        expected = gemini_reading.of_bodies(bodies)
        if expected.failed:
            continue
        message = build_response(stream(bodies, 0), answer_id="", created_s=0, model="m")["choices"][0]["message"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in message.get("tool_calls", ())
        ]
        conversation = [{"role": "user", "content": "go"}, message, *results, {"role": "user", "content": "on"}]
        built = build({"model": "m", "messages": conversation}, BUDGET)
        assert not isinstance(built, GatewayError), recording.file
        returned = gemini_reading.of_bodies([{"candidates": [{"content": built["contents"][1]}]}]).choices[0]
        said = expected.choices[0]
        assert (returned.text, returned.reasoning) == (said.text, said.reasoning), recording.file
        assert returned.images == said.images, recording.file
        assert [(call.name, call.arguments, call.signature) for call in returned.calls] == [
            (call.name, call.arguments, call.signature) for call in said.calls
        ], recording.file
        assert returned.signature == said.signature, recording.file
