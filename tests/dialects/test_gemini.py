"""What Gemini's answers mean, whole and streamed, and what its failures become."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.canonical.chat import (
    ChatResponse,
    Chunk,
    Citation,
    Finish,
    ImageOutput,
    Logprobs,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    Start,
    TextDelta,
    TextSeal,
    Token,
    ToolCallDelta,
    UsageReport,
    collect,
)
from inferxgate.canonical.usage import Usage
from inferxgate.dialects import gemini
from inferxgate.dialects.openai_answers import build_response
from inferxgate.dialects.protocol import FailedAnswer
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder, SSEEvent
from tests.dialects.gemini_asking import LEVELS, STAND_IN, Json, contents, result, user

# --- answers ------------------------------------------------------------------------------------------------------


def answer(*parts: Json, reason: str | None = "STOP", **more: Any) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "responseId": "r1", "modelVersion": "gemini-x"}


def chunks_of(body: Json) -> list[Chunk]:
    parsed, chunks = gemini.parse_response(orjson.dumps(body))
    assert parsed == body
    return list(chunks)


def read(*bodies: Json) -> ChatResponse:
    """The events of a stream, folded."""
    reader, chunks = gemini.StreamReader(), list[Chunk]()
    for body in bodies:
        event = reader.feed(SSEEvent(orjson.dumps(body)))
        assert event is not None
        chunks += event.chunks
    return collect(chunks)


def test_an_answer_with_everything() -> None:
    chunks = chunks_of(
        answer(
            {"text": "hm", "thought": True},
            {"text": "m", "thought": True, "thoughtSignature": "dA=="},
            {"text": "again", "thought": True},
            {"text": "Hello ", "thoughtSignature": "dGV4dA=="},
            {"text": "you"},
            {"inlineData": {"mimeType": "image/png", "data": "AA"}},
            {"functionCall": {"name": "look", "args": {"é": 1}}, "thoughtSignature": "cw=="},
            {"functionCall": {"name": "find", "id": "own"}},
        )
    )
    first = chunks[-3]
    assert isinstance(first, ToolCallDelta)
    assert first.id is not None
    assert len(first.id) == 29
    assert chunks == [
        Start("r1", "gemini-x"),
        ReasoningDelta(0, "hm", 0),
        ReasoningDelta(0, "m", 0),
        ReasoningSeal(0, 0, thought_signature="dA=="),
        ReasoningDelta(0, "again", 1),
        TextDelta(0, "Hello "),
        TextSeal(0, "dGV4dA=="),
        TextDelta(0, "you"),
        ImageOutput(0, "image/png", "AA"),
        ToolCallDelta(0, 0, first.id, "look", '{"é":1}', "cw=="),
        ToolCallDelta(0, 1, "own", "find", "{}"),
        Finish(0, "tool_calls"),
    ]


def test_a_signature_of_thought_that_is_not_shown() -> None:
    chunks = chunks_of(answer({"thought": True, "thoughtSignature": "dA=="}, {"text": "x"}))
    assert chunks[1:] == [ReasoningSeal(0, 0, thought_signature="dA=="), TextDelta(0, "x"), Finish(0, "stop")]


def test_ids_made_for_calls_are_the_same_each_time_and_no_others() -> None:
    def ids(*bodies: Json) -> list[str]:
        return [call.id for _, call in sorted(read(*bodies).choices[0].tool_calls.items())]

    one, two = {"functionCall": {"name": "a", "args": {}}}, {"functionCall": {"name": "a", "args": {}}}
    whole = ids(answer(one, two))
    assert whole == ids(answer(one, reason=None), answer(two))
    assert len(set(whole)) == 2
    assert set(whole).isdisjoint(ids({**answer(one, two), "responseId": "r2"}))


def test_the_same_call_in_two_answers_without_ids_of_their_own_has_two_ids() -> None:
    body = {**answer({"functionCall": {"name": "a", "args": {}}}), "responseId": None}
    data = orjson.dumps(body)
    ids = []
    for seed in ("x", "y"):
        whole = collect(gemini.parse_response(data, seed)[1])
        event = gemini.StreamReader(seed).feed(SSEEvent(data))
        assert event is not None
        assert collect(event.chunks) == whole
        ids.append(whole.choices[0].tool_calls[0].id)
    assert all(re.fullmatch("call_[0-9a-f]{24}", call_id) for call_id in ids)
    assert ids[0] != ids[1]


def test_log_probabilities_of_tokens() -> None:
    told = {
        "chosenCandidates": [
            {"token": "Hel", "tokenId": 1, "logProbability": -0.5},
            {"token": "lo"},
            {"token": "!", "logProbability": "-Infinity"},
            None,
        ],
        "topCandidates": [
            {"candidates": [{"token": "Hel", "logProbability": -0.5}, {"token": "é", "logProbability": -2}]},
            {},
        ],
    }
    hel = Token("Hel", -0.5, (Token("Hel", -0.5), Token("é", -2.0)))
    expected = [hel, Token("lo", 0.0), Token("!", -9999.0), Token("", 0.0)]
    body = answer({"text": "Hello!"}, logprobsResult=told)
    assert chunks_of(body)[-2:] == [Logprobs(0, tuple(expected)), Finish(0, "stop")]
    begun = answer({"text": "a"}, reason=None, logprobsResult={"chosenCandidates": [{"token": "a"}]})
    assert read(begun, body).choices[0].logprobs == [Token("a", 0.0), *expected]
    assert chunks_of(answer({"text": "x"}, logprobsResult={}))[1:] == [TextDelta(0, "x"), Finish(0, "stop")]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("STOP", "stop"),
        (1, "stop"),
        ("MAX_TOKENS", "length"),
        (2, "length"),
        ("CONTINUATION", "length"),
        *[
            (name, "content_filter")
            for name in (
                "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
                "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "NO_IMAGE", "MODEL_ARMOR", "ESCALATION",
                "OTHER", "SOMETHING_NEW", 3, 99,
            )
        ],
    ],
)  # fmt: skip
def test_finish_reasons(reason: Any, told: str) -> None:
    assert chunks_of(answer({"text": "x"}, reason=reason))[-1] == Finish(0, told)
    with_call = chunks_of(answer({"functionCall": {"name": "f"}}, reason=reason))[-1]
    assert with_call == Finish(0, "tool_calls" if told == "stop" else told)


@pytest.mark.parametrize("reason", ["", "FINISH_REASON_UNSPECIFIED", 0])
def test_no_reason_is_none(reason: Any) -> None:
    assert not any(isinstance(chunk, Finish) for chunk in chunks_of(answer({"text": "x"}, reason=reason)))


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
    ],
)
def test_reasons_that_are_failures(reason: str) -> None:
    for body in (answer(reason=reason), answer({"text": "x"}, reason=reason, finishMessage="because")):
        with pytest.raises(GatewayError, match=reason) as raised:
            gemini.parse_response(orjson.dumps(body))
        assert (raised.value.status, raised.value.code) == (502, "upstream_error")
    assert "because" in raised.value.message


FAILING: list[Json] = [
    answer({"text": "x"}, reason="MALFORMED_FUNCTION_CALL"),
    answer({"text": "x"}, {"functionCall": {"args": {}}}),
    {**answer({"text": "x"}), "error": {"code": 503, "message": "full"}},
]
NULLS = dict.fromkeys(("functionCall", "inlineData", "executableCode", "codeExecutionResult", "thought", "fileData"))


def test_fields_that_are_null_are_as_good_as_absent() -> None:
    choice = collect(chunks_of(answer({"text": "x", "thoughtSignature": "c2ln", **NULLS}))).choices[0]
    assert (choice.text, choice.text_signature, choice.tool_calls, choice.images) == ("x", "c2ln", {}, [])
    choice = collect(chunks_of(answer({"text": None, "inlineData": {"mimeType": "image/png"}}))).choices[0]
    assert (choice.text, choice.images) == ("", [])


def test_an_images_signature_is_its_own() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AA"}, "thoughtSignature": "c2ln"}
    choice = collect(chunks_of(answer({"text": "x"}, image))).choices[0]
    assert choice.images == [ImageOutput(0, "image/png", "AA", "c2ln")]
    assert choice.text_signature is None


@pytest.mark.parametrize("body", FAILING)
def test_what_was_counted_before_a_failure_is_told_with_it(body: Json) -> None:
    counted = {**body, "usageMetadata": {"promptTokenCount": 9, "thoughtsTokenCount": 70}}
    for read in (gemini.parse_response, lambda data: gemini.StreamReader().feed(SSEEvent(data))):
        with pytest.raises(FailedAnswer) as raised:
            read(orjson.dumps(counted))
        assert raised.value.chunks[-1] == UsageReport(Usage(input_tokens=9, reasoning_tokens=70))
        assert not any(isinstance(chunk, Finish) for chunk in raised.value.chunks)


def test_a_blocked_prompt() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "No."}
    body = {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 3}}
    expected = [
        Start(None, None),
        RefusalDelta(0, "The provider blocked the prompt (PROHIBITED_CONTENT): No."),
        Finish(0, "content_filter"),
        UsageReport(Usage(input_tokens=3)),
    ]
    assert chunks_of(body) == expected
    reader = gemini.StreamReader()
    event = reader.feed(SSEEvent(orjson.dumps(body)))
    assert event is not None
    assert list(event.chunks) == expected
    assert reader.complete


def test_feedback_that_blocks_nothing_is_no_refusal() -> None:
    body = {**answer({"text": "x"}), "promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}}
    assert not any(isinstance(chunk, RefusalDelta) for chunk in chunks_of(body))


def test_candidates_without_content_or_parts() -> None:
    for candidate in ({"finishReason": "SAFETY"}, {"content": {"role": "model"}, "finishReason": "SAFETY"}):
        assert chunks_of({"candidates": [candidate]})[-1] == Finish(0, "content_filter")


def test_several_candidates() -> None:
    one = answer({"text": "a"})["candidates"][0]
    two = {**answer({"functionCall": {"name": "f"}})["candidates"][0], "index": 1}
    response = collect(chunks_of({"candidates": [two, one]}))
    assert response.choices[0].text == "a"
    assert (response.choices[0].finish_reason, response.choices[1].finish_reason) == ("stop", "tool_calls")
    del one["index"], two["index"]
    assert sorted(collect(chunks_of({"candidates": [one, two]})).choices) == [0, 1]


def test_code_that_the_provider_ran_is_fenced_text() -> None:
    response = collect(
        chunks_of(
            answer(
                {"text": "So:"},
                {"executableCode": {"language": "PYTHON", "code": "print('```')\n"}, "thoughtSignature": "x"},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
                {"toolCall": {"toolType": "FILE_SEARCH"}, "thoughtSignature": "y"},
                {"newKindOfPart": {}},
            )
        )
    )
    assert response.choices[0].text == "So:\n````python\nprint('```')\n````\n\n```\n1\n```\n"
    assert response.choices[0].text_signature is None


# --- citations ----------------------------------------------------------------------------------------------------

GROUNDING = {
    "groundingChunks": [
        {"web": {"uri": "https://a.example", "title": "A"}},
        {"retrievedContext": {"text": "words", "documentName": "doc"}},
        {"maps": {"uri": "https://maps.example", "title": "M"}},
        {"somethingNew": {}},
    ],
    "groundingSupports": [
        {"segment": {"startIndex": 3, "endIndex": 7, "text": "éé"}, "groundingChunkIndices": [0, 1, 99]},
        {"segment": {"endIndex": 2, "partIndex": 1}, "groundingChunkIndices": [0]},
        {"segment": {}, "groundingChunkIndices": [2, "x"]},
        {"segment": {"startIndex": 90, "endIndex": 99, "text": "nowhere"}, "groundingChunkIndices": [0]},
    ],
}


def test_sources_stand_at_characters_of_the_answer() -> None:
    response = collect(chunks_of(answer({"text": "aé éé."}, {"text": "é!"}, groundingMetadata=GROUNDING)))
    assert response.choices[0].citations == [
        Citation(0, "https://a.example", "A", None, 3, 5),
        Citation(0, None, "doc", "words", 3, 5),
        Citation(0, "https://a.example", "A", None, 6, 7),
        Citation(0, "https://maps.example", "M", None),
        Citation(0, "https://a.example", "A", None),
        Citation(0, None, None, None),
    ]


def test_sources_in_streams_are_told_once_and_found_by_their_words() -> None:
    supports = {
        "groundingChunks": [{"web": {"uri": "https://a.example"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 1, "endIndex": 5, "text": "b cd"}, "groundingChunkIndices": [0]}
        ],
    }
    thought = {"text": "hm", "thought": True}
    response = read(
        answer(thought, {"text": "éb c"}, reason=None),
        answer({"text": "de"}, reason=None, groundingMetadata=supports),
        answer({"text": "!"}, groundingMetadata=supports),
    )
    assert response.choices[0].citations == [Citation(0, "https://a.example", None, None, 1, 5)]


@pytest.mark.parametrize("name", ["citationSources", "citations"])
def test_recited_sources(name: str) -> None:
    sources = {name: [{"startIndex": 0, "endIndex": 3, "uri": "https://a.example", "title": "A"}]}
    response = collect(chunks_of(answer({"text": "é1 and"}, citationMetadata=sources)))
    assert response.choices[0].citations == [Citation(0, "https://a.example", "A", None, 0, 2)]


# --- usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 6, "totalTokenCount": 20},
            Usage(input_tokens=10, output_tokens=4, reasoning_tokens=6),
        ),
        (
            {"promptTokenCount": 10, "cachedContentTokenCount": 8, "toolUsePromptTokenCount": 5},
            Usage(input_tokens=7, cache_read_tokens=8),
        ),
        (
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 60,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 10},
                    {"modality": "AUDIO", "tokenCount": 50},
                    {"modality": "IMAGE", "tokenCount": 20},
                    {"modality": "VIDEO", "tokenCount": 20},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}, {"modality": 2, "tokenCount": 20}],
                "toolUsePromptTokenCount": 3,
                "toolUsePromptTokensDetails": [{"modality": "IMAGE", "tokenCount": 3}],
            },
            Usage(input_tokens=30, cache_read_tokens=60, audio_input_tokens=10, image_input_tokens=3),
        ),
        (
            {
                "candidatesTokenCount": 1290,
                "candidatesTokensDetails": [
                    {"modality": "IMAGE", "tokenCount": 1280},
                    {"modality": 4, "tokenCount": 5},
                ],
            },
            Usage(output_tokens=5, image_output_tokens=1280, audio_output_tokens=5),
        ),
        ({"promptTokenCount": "7", "candidatesTokenCount": 2.0}, Usage(input_tokens=7, output_tokens=2)),
        (
            {"promptTokenCount": 5, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 50}, "x"]},
            Usage(audio_input_tokens=5),
        ),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 9}, Usage(cache_read_tokens=5)),
    ],
)
def test_usage_is_told_in_buckets_that_never_overlap(told: Json, usage: Usage) -> None:
    assert gemini.parse_usage(told) == usage


def test_the_last_count_of_a_stream_is_the_true_one() -> None:
    response = read(
        {**answer({"text": "a"}, reason=None), "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1}},
        {**answer({"text": "b"}, reason=None), "usageMetadata": {"trafficType": "ON_DEMAND"}},
        {**answer({"text": "c"}), "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 3}},
        {"usageMetadata": {"trafficType": "ON_DEMAND"}},
    )
    assert response.usage == Usage(input_tokens=1, output_tokens=3)


# --- streams ------------------------------------------------------------------------------------------------------


def test_an_early_stop_breaks_nothing() -> None:
    response = read(
        answer({"text": "a"}),
        answer({"text": "b"}, reason=None),
        answer({"functionCall": {"name": "f"}}),
    )
    assert (response.choices[0].text, response.choices[0].finish_reason) == ("ab", "tool_calls")


def test_when_a_stream_is_complete() -> None:
    reader = gemini.StreamReader()
    states = [reader.complete]
    for body in (
        answer({"text": "a"}, reason=None),
        answer(),
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]},
        {"candidates": [{"index": 1, "finishReason": "MAX_TOKENS"}]},
    ):
        reader.feed(SSEEvent(orjson.dumps(body)))
        states.append(reader.complete)
    assert states == [False, False, True, False, True]
    assert not reader.done


def test_events_that_say_nothing() -> None:
    reader = gemini.StreamReader()
    assert reader.feed(SSEEvent(b" ")) is None
    event = reader.feed(SSEEvent(b"{}"))
    assert event is not None
    assert event.chunks == (Start(None, None),)
    event = reader.feed(SSEEvent(b'{"aNewField": 1}'))
    assert event is not None
    assert (event.raw, event.chunks) == (None, ())


@pytest.mark.parametrize(
    ("data", "kind", "status", "code"),
    [
        (b'{"error": {"code": 503, "message": "full", "status": "UNAVAILABLE"}}', "", 503, "upstream_overloaded"),
        (b'[{"error": {"message": "full", "status": "RESOURCE_EXHAUSTED"}}]', "", 429, "upstream_rate_limited"),
        (b'{"error": "odd"}', "", 502, "upstream_error"),
        (b'{"error": ["odd"]}', "", 502, "upstream_error"),
        (b'{"code": 400, "message": "bad"}', "error", 400, "invalid_value"),
        (b"{broken", "", 502, "upstream_invalid_response"),
        (b"[]", "", 502, "upstream_invalid_response"),
        (b"12", "", 502, "upstream_invalid_response"),
    ],
)
def test_errors_and_nonsense_in_a_stream(data: bytes, kind: str, status: int, code: str) -> None:
    for first in (True, False):
        reader = gemini.StreamReader()
        if not first:
            reader.feed(SSEEvent(orjson.dumps(answer({"text": "a"}, reason=None))))
        with pytest.raises(GatewayError) as raised:
            reader.feed(SSEEvent(data, kind))
        assert (raised.value.status, raised.value.code) == (status, code)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": {}}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": {"args": {}}}]}}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "willContinue": true}}]}}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": %b}}]}}]}'
        % (b"[" * 400 + b"]" * 400),
    ],
)
def test_nonsense_is_an_error(data: bytes) -> None:
    with pytest.raises(GatewayError) as raised:
        gemini.parse_response(data)
    assert (raised.value.status, raised.value.code) == (502, "upstream_invalid_response")


def test_an_error_in_a_whole_answer() -> None:
    with pytest.raises(GatewayError) as raised:
        gemini.parse_response(b'{"error": {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}}')
    assert (raised.value.status, raised.value.code, raised.value.type) == (404, "model_not_found", "not_found_error")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall", "name", "args", "index",
    "inlineData", "finishReason", "usageMetadata", "promptTokenCount", "promptTokensDetails", "groundingMetadata",
    "groundingSupports", "groundingChunks", "segment", "endIndex", "groundingChunkIndices", "promptFeedback",
    "blockReason", "error", "responseId", "citationMetadata", "citations", "executableCode", "code",
)  # fmt: skip
hostile = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=30,
)


@given(st.lists(hostile, max_size=3))
def test_no_answer_breaks_the_reader(bodies: list[Any]) -> None:
    reader = gemini.StreamReader()
    for body in bodies:
        try:
            reader.feed(SSEEvent(orjson.dumps(body)))
        except GatewayError as error:
            assert 400 <= error.status <= 599  # noqa: PT017 - any failure is fine that a client can be told


# --- any cut, any order -------------------------------------------------------------------------------------------

signatures = st.none() | st.sampled_from(["c2ln", "dHdv"])
texts = st.text(min_size=1, max_size=8)
part_values = st.one_of(
    st.builds(lambda text, sign: {"text": text} | ({"thoughtSignature": sign} if sign else {}), texts, signatures),
    st.builds(lambda text: {"text": text, "thought": True}, texts),
    st.builds(
        lambda name, args, sign: (
            {"functionCall": {"name": name, "args": args}} | ({"thoughtSignature": sign} if sign else {})
        ),
        st.sampled_from(["f", "g.h"]),
        st.dictionaries(texts, json_values, max_size=3),
        signatures,
    ),
    st.builds(lambda data: {"inlineData": {"mimeType": "image/png", "data": data}}, st.sampled_from(["AA", "BB"])),
)


@given(st.lists(part_values, max_size=8), st.data())
def test_a_stream_however_cut_means_what_the_whole_means(parts: list[Json], data: st.DataObject) -> None:
    whole = collect(chunks_of({**answer(*parts), "usageMetadata": {"promptTokenCount": 3}}))
    bodies, rest = [], parts
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        bodies.append(answer(*rest[:count], reason=None))
        rest = rest[count:]
    bodies.append({**answer(), "usageMetadata": {"promptTokenCount": 3}})
    stream = b"".join(b"data: " + orjson.dumps(body) + b"\r\n\r\n" for body in bodies)
    decoder, reader, chunks = SSEDecoder(), gemini.StreamReader(), list[Chunk]()
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        for item in decoder.feed(stream[:cut]):
            event = reader.feed(item)
            assert event is not None
            chunks += event.chunks
        stream = stream[cut:]
    assert collect(chunks) == whole
    assert reader.complete


@given(st.lists(st.tuples(st.integers(0, 2), part_values), max_size=10))
def test_candidates_may_come_in_any_order(parts: list[tuple[int, Json]]) -> None:
    events = [{"candidates": [{"index": index, "content": {"parts": [part]}}]} for index, part in parts]
    mixed = read(*events)
    for index in {index for index, _ in parts}:
        alone = read(*[event for event, (number, _) in zip(events, parts, strict=True) if number == index])
        assert mixed.choices[index] == alone.choices[index]
        calls = mixed.choices[index].tool_calls
        assert sorted(calls) == list(range(len(calls)))


@given(st.lists(part_values, min_size=1, max_size=6))
def test_what_a_client_returns_reaches_the_model_as_it_was(parts: list[Json]) -> None:
    said = collect(chunks_of(answer(*parts)))
    message = build_response(said, answer_id="a", created_s=0, model="m")["choices"][0]["message"]
    results = [result("ok", call["id"]) for call in message.get("tool_calls", ())]
    turn = contents(user("q"), message, *results, user("r"), to=LEVELS)[1]
    again = collect(chunks_of(answer(*turn["parts"])))
    before, after = said.choices[0], again.choices[0]
    assert after.text == before.text
    assert after.reasoning == before.reasoning
    if not (before.text_signature and not before.text):
        assert after.text_signature == before.text_signature
    made = [(call.name, json.loads(call.arguments)) for _, call in sorted(before.tool_calls.items())]
    assert [(call.name, json.loads(call.arguments)) for _, call in sorted(after.tool_calls.items())] == made
    if any(call.signature for call in before.tool_calls.values()):
        assert [call.signature for _, call in sorted(after.tool_calls.items())] == [
            call.signature for _, call in sorted(before.tool_calls.items())
        ]
    elif made:
        assert after.tool_calls[0].signature == STAND_IN


# --- errors -------------------------------------------------------------------------------------------------------


def error_body(status: str, message: str = "words", *details: Json, code: int = 0) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": message, "status": status, "details": list(details)}})


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}


def quota(name: str, value: str = "10") -> Json:
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": name, "quotaValue": value}],
    }


@pytest.mark.parametrize(
    ("status", "body", "told", "code"),
    [
        (400, error_body("INVALID_ARGUMENT"), 400, "invalid_value"),
        (400, error_body("INVALID_ARGUMENT", "API key not valid. Please pass"), 502, "upstream_auth_error"),
        (400, error_body("INVALID_ARGUMENT", "no", {"reason": "API_KEY_INVALID"}), 502, "upstream_auth_error"),
        (400, error_body("INVALID_ARGUMENT", "API key expired."), 502, "upstream_auth_error"),
        (400, error_body("FAILED_PRECONDITION", "User location is not supported"), 400, "invalid_value"),
        (
            400,
            error_body("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens (8)."),
            400,
            "context_length_exceeded",
        ),
        (401, error_body("UNAUTHENTICATED"), 502, "upstream_auth_error"),
        (403, error_body("PERMISSION_DENIED"), 502, "upstream_auth_error"),
        (403, error_body("PERMISSION_DENIED", "File abc or it may not exist."), 400, "invalid_value"),
        (404, error_body("NOT_FOUND", "models/x is not found"), 404, "model_not_found"),
        (404, error_body("NOT_FOUND", "gone"), 404, "model_not_found"),
        (429, error_body("RESOURCE_EXHAUSTED"), 429, "upstream_rate_limited"),
        (429, error_body("RESOURCE_EXHAUSTED", "m", quota("PerProjectPerMinute")), 429, "upstream_rate_limited"),
        (429, error_body("RESOURCE_EXHAUSTED", "m", quota("RequestsPerDay"), RETRY), 429, "upstream_quota_exceeded"),
        (429, error_body("RESOURCE_EXHAUSTED", "m", quota("PerMinute", "0")), 429, "upstream_quota_exceeded"),
        (429, error_body("RESOURCE_EXHAUSTED", "Your credits are depleted"), 429, "upstream_quota_exceeded"),
        (499, error_body("CANCELLED"), 502, "upstream_error"),
        (500, error_body("INTERNAL"), 502, "upstream_error"),
        (503, error_body("UNAVAILABLE"), 503, "upstream_overloaded"),
        (504, error_body("DEADLINE_EXCEEDED"), 504, "upstream_timeout"),
        (500, b"<html>", 502, "upstream_error"),
        (500, b"", 502, "upstream_error"),
        (400, b"[]", 400, "invalid_value"),
        (400, b'"text"', 400, "invalid_value"),
    ],
)
def test_errors(status: int, body: bytes, told: int, code: str) -> None:
    for data in (body, b"[" + body + b"]" if body[:1] == b"{" else body):
        error = gemini.parse_error(status, {}, data, 0.0)
        assert (error.status, error.code) == (told, code)
        assert "API key" not in error.message


@pytest.mark.parametrize(
    ("headers", "message", "details", "seconds"),
    [
        ({}, "m", [RETRY], 37.0),
        ({}, "m", [{"retryDelay": "1.5s"}], 1.5),
        ({}, "Please retry in 48.25s.", [], 48.25),
        ({"retry-after": "5"}, "m", [RETRY], 5.0),
        ({}, "m", [{"retryDelay": {"seconds": 3}}], None),
        ({}, "m", [], None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], message: str, details: list[Json], seconds: float | None) -> None:
    error = gemini.parse_error(429, headers, error_body("RESOURCE_EXHAUSTED", message, *details), 0.0)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize("status", ["ABORTED", "UNKNOWN", "SOMETHING_ELSE", "UNIMPLEMENTED"])
def test_errors_in_streams_by_their_names(status: str) -> None:
    with pytest.raises(GatewayError) as raised:
        gemini.StreamReader().feed(SSEEvent(error_body(status)))
    assert raised.value.status == 502


def test_the_dialect_is_whole() -> None:
    assert gemini.DIALECT.name == "gemini"
    assert gemini.DIALECT.parse_response is gemini.parse_response
