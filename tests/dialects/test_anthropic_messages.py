"""Anthropic's answers, streams and errors: what each says, whatever the cuts, the order and the state they come in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate import errors
from inferxgate.canonical.chat import (
    ChatResponse,
    Chunk,
    Citation,
    Finish,
    ReasoningDelta,
    ReasoningSeal,
    ServerBlock,
    Start,
    Thought,
    ToolCallDelta,
    UsageReport,
    collect,
)
from inferxgate.canonical.usage import Usage
from inferxgate.dialects.anthropic_messages import DIALECT, parse_usage
from inferxgate.dialects.protocol import FailedAnswer
from inferxgate.dialects.tool_names import JSON_ANSWER_TOOL
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder, SSEEvent

Json = dict[str, Any]


def message(*content: Json, stop: str | None = "end_turn", **more: Any) -> bytes:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": list(content),
        "stop_reason": stop,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **more,
    }
    return json.dumps(body).encode()


def text(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


def call(name: str, given: Any, call_id: str = "toolu_1") -> Json:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def whole(data: bytes) -> ChatResponse:
    return collect(DIALECT.parse_response(data)[1])


def starts(model: str = "claude-sonnet-4-5", **usage: int) -> Json:
    counted = {"input_tokens": 10, "output_tokens": 1} | usage
    return {"type": "message_start", "message": {"id": "msg_1", "model": model, "content": [], "usage": counted}}


def ends(reason: str | None = "end_turn", **usage: Any) -> list[Json]:
    delta = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5} | usage}
    return [delta, {"type": "message_stop"}]


def block(index: int, opened: Json, *deltas: Json) -> list[Json]:
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def piece(partial: str) -> Json:
    return {"type": "input_json_delta", "partial_json": partial}


def encoded(events: Iterable[Json]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def chunks(events: Iterable[Json]) -> Iterator[Chunk]:
    stream = DIALECT.stream_reader()
    for event in events:
        said = stream.feed(SSEEvent(json.dumps(event).encode(), event.get("type", "")))
        if said is not None:
            assert said.raw is None
            yield from said.chunks


def streamed(*events: Json) -> ChatResponse:
    return collect(chunks(events))


# --- whole answers


def test_an_answer_has_its_text_names_and_counts() -> None:
    body, said = DIALECT.parse_response(message(text("Hello"), text(", you")))
    response = collect(said)
    assert body["id"] == "msg_1"
    assert said[0] == Start("msg_1", "claude-sonnet-4-5")
    assert response.choices[0].text == "Hello, you"
    assert response.choices[0].finish_reason == "stop"
    assert response.usage == Usage(input_tokens=10, output_tokens=5)


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("a_new_reason", "stop"),
    ],
)
def test_every_stop_reason_is_one_of_openais(stop: str, finish: str) -> None:
    assert whole(message(text("x"), stop=stop)).choices[0].finish_reason == finish
    assert streamed(starts(), *block(0, text("x")), *ends(stop)).choices[0].finish_reason == finish


@pytest.mark.parametrize(
    ("stop", "finish"), [("tool_use", "tool_calls"), ("end_turn", "tool_calls"), ("max_tokens", "length")]
)
def test_calls_end_as_calls_unless_they_were_cut_off(stop: str, finish: str) -> None:
    assert whole(message(call("f", {}), stop=stop)).choices[0].finish_reason == finish


def test_no_stop_reason_is_no_finish() -> None:
    assert not any(isinstance(chunk, Finish) for chunk in DIALECT.parse_response(message(text("x"), stop=None))[1])


def test_calls_are_counted_among_themselves_and_keep_their_ids() -> None:
    response = whole(
        message(
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            text("I look"),
            call("weather", {"city": "Köln", "deep": {"list": [1, None, True, '"\\']}}, "toolu_a"),
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
            call("nothing", {}, "toolu_b"),
            stop="tool_use",
        )
    )
    calls = response.choices[0].tool_calls
    assert {index: (one.id, one.name) for index, one in calls.items()} == {
        0: ("toolu_a", "weather"),
        1: ("toolu_b", "nothing"),
    }
    assert json.loads(calls[0].arguments) == {"city": "Köln", "deep": {"list": [1, None, True, '"\\']}}
    assert calls[1].arguments == "{}"


ASKED = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "sky"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "url": "https://h/sky", "title": "Sky", "encrypted_content": "E"}],
}


def test_what_anthropics_own_tools_said_is_kept_where_it_stood() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    cited = {"type": "web_search_result_location", "url": "https://h/sky", "title": "Sky", "cited_text": "words"}
    answer = whole(
        message(thought, text("I look."), ASKED, FOUND, text("Blue.", citations=[cited]), call("f", {}), ASKED)
    )
    choice = answer.choices[0]
    assert choice.server_blocks == [
        ServerBlock(0, ASKED, 1, 7, 0),
        ServerBlock(0, FOUND, 1, 7, 0),
        ServerBlock(0, ASKED, 1, 12, 1),
    ]
    assert choice.text == "I look.Blue."
    assert choice.citations == [Citation(0, "https://h/sky", "Sky", "words", 7, 12)]
    pieces = [piece(""), piece('{"query": '), piece('"sky"}')]
    again = streamed(
        starts(),
        *block(0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "hm"}),
        *block(1, text("I look.")),
        *block(2, ASKED | {"input": {}}, *pieces),
        *block(3, FOUND),
        *ends(),
    )
    assert again.choices[0].server_blocks == choice.server_blocks[:2]


def test_a_block_that_cannot_be_sent_back_is_not_kept() -> None:
    broken = streamed(starts(), *block(0, ASKED | {"input": {}}, piece('{"query": "s')), *ends("max_tokens"))
    assert broken.choices[0].server_blocks == []
    deep: Any = []
    for _ in range(250):
        deep = [deep]
    assert whole(message(FOUND | {"content": deep}, text("x"))).choices[0].server_blocks == []


def test_numbers_in_arguments_keep_their_digits() -> None:
    data = message(call("f", {"n": 12345678901234567890123, "x": 0.1, "y": -0.0, "z": 1e300}), stop="tool_use")
    arguments = whole(data).choices[0].tool_calls[0].arguments
    assert arguments == '{"n":12345678901234567890123,"x":0.1,"y":-0.0,"z":1e+300}'


def test_input_that_a_host_sends_as_text_is_not_quoted_again() -> None:
    assert whole(message(call("f", '{"a":1}'))).choices[0].tool_calls[0].arguments == '{"a":1}'


def test_thoughts_keep_their_signatures_in_order() -> None:
    response = whole(
        message(
            {"type": "thinking", "thinking": "first", "signature": "s1"},
            {"type": "redacted_thinking", "data": "opaque"},
            {"type": "thinking", "thinking": "", "signature": "s3"},
            text("done"),
        )
    )
    assert response.choices[0].thoughts == {
        0: Thought("first", "s1"),
        1: Thought("", None, "opaque"),
        2: Thought("", "s3"),
    }


CITATIONS = [
    {"type": "web_search_result_location", "url": "https://a.example/x", "title": "A", "cited_text": "from A"},
    {"type": "char_location", "document_title": "report.txt", "cited_text": "from a file", "document_index": 0},
    {"type": "page_location", "document_title": None, "cited_text": "from a PDF", "start_page_number": 1},
    {"type": "search_result_location", "source": "https://b.example/", "title": "B", "cited_text": "from B"},
    {"type": "search_result_location", "source": "shelf 7", "title": "C", "cited_text": "from C"},
]
CITED = [
    Citation(0, "https://a.example/x", "A", "from A", 7, 12),
    Citation(0, None, "report.txt", "from a file", 7, 12),
    Citation(0, None, None, "from a PDF", 7, 12),
    Citation(0, "https://b.example/", "B", "from B", 7, 12),
    Citation(0, None, "C", "from C", 7, 12),
]


def test_citations_say_what_text_they_belong_to() -> None:
    assert whole(message(text("Before "), text("cited", citations=CITATIONS), text("."))).choices[0].citations == CITED


def test_citations_of_a_stream_are_those_of_the_whole() -> None:
    deltas = [{"type": "citations_delta", "citation": citation} for citation in CITATIONS]
    events = [
        starts(),
        *block(0, text("Before ")),
        *block(1, text(""), *deltas[:2], {"type": "text_delta", "text": "cited"}, *deltas[2:]),
        *ends(),
    ]
    assert streamed(*events).choices[0].citations == CITED


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "This could harm."}
    choice = whole(message(stop="refusal", stop_details=details)).choices[0]
    assert (choice.refusal, choice.finish_reason) == ("This could harm.", "content_filter")
    end, last = ends("refusal")
    end["delta"]["stop_details"] = details
    assert streamed(starts(), end, last).choices[0].refusal == "This could harm."


def test_blocks_of_other_kinds_say_nothing() -> None:
    odd: list[Any] = [
        {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "url": "https://x.example"}]},
        {"type": "mcp_tool_use", "id": "m", "name": "f", "input": {}},
        {"type": "of_the_future", "text": "?"},
        {"no": "type"},
        "no object",
        {"type": "text", "text": None},
        {"type": "thinking"},
        {"type": "redacted_thinking"},
    ]
    choice = whole(message(*odd, text("said"))).choices[0]
    assert choice.text == "said"
    assert not choice.tool_calls
    assert not choice.thoughts


def test_an_answer_in_json_comes_back_as_text() -> None:
    choice = whole(message(call(JSON_ANSWER_TOOL, {"name": "Ann"}), stop="tool_use")).choices[0]
    assert (json.loads(choice.text), choice.tool_calls, choice.finish_reason) == ({"name": "Ann"}, {}, "stop")
    mixed = whole(message(call(JSON_ANSWER_TOOL, {}), call("f", {"a": 1}), stop="tool_use")).choices[0]
    assert (mixed.text, mixed.finish_reason) == ("{}", "tool_calls")
    assert mixed.tool_calls[0].name == "f"
    pieces = block(0, call(JSON_ANSWER_TOOL, {}), piece('{"name": '), piece('"Ann"}'))
    choice = streamed(starts(), *pieces, *ends("tool_use")).choices[0]
    assert (choice.text, choice.tool_calls, choice.finish_reason) == ('{"name": "Ann"}', {}, "stop")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<html>Bad gateway</html>", "not JSON"),
        (b"", "not JSON"),
        (message(text("cut off"))[:-7], "not JSON"),
        (b"[]", "no object"),
        (b'"text"', "no object"),
        (b"{}", "no 'content'"),
        (b'{"content":"text"}', "no 'content'"),
        (b'{"content":null,"type":"message"}', "no 'content'"),
        (b'{"content":[{"type":"tool_use","input":{"x":1e999}}]}', "not JSON"),
    ],
)
def test_nonsense_is_told_as_such(data: bytes, says: str) -> None:
    with pytest.raises(GatewayError) as caught:
        DIALECT.parse_response(data)
    assert caught.value.kind is errors.UPSTREAM_INVALID_RESPONSE
    assert says in caught.value.message


def test_an_error_that_comes_with_status_200_is_one() -> None:
    with pytest.raises(GatewayError) as caught:
        DIALECT.parse_response(error_body("overloaded_error", "Overloaded"))
    assert caught.value.kind is errors.UPSTREAM_OVERLOADED


def test_input_too_deep_for_an_exact_reading_is_still_read() -> None:
    deep = b'{"content":[{"type":"tool_use","id":"t","name":"f","input":{"a":' + b"[" * 900 + b"]" * 900 + b"}}]}"
    arguments = whole(deep).choices[0].tool_calls[0].arguments
    assert json.loads(arguments)["a"] == json.loads(b"[" * 900 + b"]" * 900)


def test_input_too_deep_to_be_written_is_nonsense() -> None:
    deep = b'{"content":[{"type":"tool_use","id":"t","name":"f","input":{"a":' + b"[" * 1015 + b"]" * 1015 + b"}}]}"
    try:
        assert whole(deep).choices[0].tool_calls[0].arguments  # newer Pythons can
    except GatewayError as error:
        assert error.kind is errors.UPSTREAM_INVALID_RESPONSE  # noqa: PT017  # either is right


# --- usage


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"input_tokens": 3, "output_tokens": 4}, Usage(input_tokens=3, output_tokens=4)),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 9, "output_tokens": 4},
            Usage(input_tokens=3, cache_read_tokens=7, cache_write_5m_tokens=9, output_tokens=4),
        ),
        (
            {
                "input_tokens": 3,
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 7},
                "output_tokens": 40,
                "output_tokens_details": {"thinking_tokens": 30},
            },
            Usage(
                input_tokens=3,
                cache_write_5m_tokens=2,
                cache_write_1h_tokens=7,
                output_tokens=10,
                reasoning_tokens=30,
            ),
        ),
        (
            {"cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 7}},
            Usage(cache_write_5m_tokens=2, cache_write_1h_tokens=7),
        ),
        ({"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 9}}, Usage(reasoning_tokens=5)),
        ({"input_tokens": "12", "output_tokens": None, "cache_read_input_tokens": -3}, Usage(input_tokens=12)),
        ({"input_tokens": True, "cache_creation": 5, "output_tokens_details": []}, Usage()),
    ],
)
def test_usage_is_split_into_disjoint_buckets(given: Json, usage: Usage) -> None:
    assert parse_usage(given) == usage


def test_prompt_tokens_count_the_cache_in() -> None:
    usage = parse_usage({"input_tokens": 3, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 9})
    assert usage.prompt_tokens == 19


# --- streams


def test_a_stream_tells_its_parts_as_they_come() -> None:
    events = [
        starts(cache_read_input_tokens=4),
        {"type": "ping"},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Let me "},
            {"type": "thinking_delta", "thinking": "see"},
            {"type": "signature_delta", "signature": "sig"},
        ),
        *block(1, {"type": "redacted_thinking", "data": "opaque"}),
        *block(2, text(""), {"type": "text_delta", "text": "Looking"}),
        *block(3, call("weather", {}, "toolu_a"), piece(""), piece('{"city": '), piece('"Rome"}')),
        *block(4, call("now", {}, "toolu_b")),
        *block(5, call("also_now", {}, "toolu_c"), piece("")),
        *ends("tool_use", output_tokens=50, output_tokens_details={"thinking_tokens": 20}),
    ]
    stream = DIALECT.stream_reader()
    said: list[Chunk] = []
    for event in SSEDecoder().feed(encoded(events)):
        assert not stream.done
        if (one := stream.feed(event)) is not None:
            said += one.chunks
    assert stream.done
    assert stream.complete
    response = collect(said)
    choice = response.choices[0]
    assert said[0] == Start("msg_1", "claude-sonnet-4-5")
    assert choice.thoughts == {0: Thought("Let me see", "sig"), 1: Thought("", None, "opaque")}
    assert choice.text == "Looking"
    assert [(index, one.id, one.name, one.arguments) for index, one in choice.tool_calls.items()] == [
        (0, "toolu_a", "weather", '{"city": "Rome"}'),
        (1, "toolu_b", "now", "{}"),
        (2, "toolu_c", "also_now", "{}"),
    ]
    assert choice.finish_reason == "tool_calls"
    assert response.usage == Usage(input_tokens=10, cache_read_tokens=4, output_tokens=30, reasoning_tokens=20)
    named = [chunk for chunk in said if isinstance(chunk, ToolCallDelta) and (chunk.id or chunk.name)]
    assert len(named) == 3  # id and name come once for each call


@pytest.mark.parametrize("nothing", ["", None])
def test_a_thought_that_is_not_shown_and_has_no_signature_says_nothing(nothing: str | None) -> None:
    hidden = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": nothing},
        {"type": "signature_delta", "signature": nothing},
    )
    said = list(chunks([starts(), *hidden, *ends()]))
    assert not [chunk for chunk in said if isinstance(chunk, ReasoningDelta | ReasoningSeal)]


def test_counts_that_come_only_at_the_end_are_taken() -> None:
    end = ends(input_tokens=25, cache_creation_input_tokens=6, cache_read_input_tokens=8, server_tool_use=None)
    start = starts()
    start["message"]["usage"] = {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": None}
    assert streamed(start, *end).usage == Usage(
        input_tokens=25, cache_read_tokens=8, cache_write_5m_tokens=6, output_tokens=5
    )


def test_how_long_the_cache_lives_is_remembered_from_the_start() -> None:
    start = starts()
    start["message"]["usage"] |= {
        "cache_creation_input_tokens": 9,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 9},
    }
    usage = streamed(start, *ends(cache_creation_input_tokens=9)).usage
    assert usage is not None
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (0, 9)


def test_the_input_is_counted_before_anything_is_said() -> None:
    assert streamed(starts()).usage == Usage(input_tokens=10, output_tokens=1)


def test_input_that_comes_with_its_block_is_taken_once() -> None:
    one = block(0, call("f", {"a": 1}))
    assert streamed(starts(), *one, *ends("tool_use")).choices[0].tool_calls[0].arguments == '{"a":1}'
    other = block(0, call("f", {"a": 1}), piece('{"a": 2}'))
    assert streamed(starts(), *other, *ends("tool_use")).choices[0].tool_calls[0].arguments == '{"a": 2}'


def test_a_block_that_is_never_closed_is_closed_by_the_end() -> None:
    opened = [event for event in block(0, call("f", {})) if event["type"] != "content_block_stop"]
    choice = streamed(starts(), *opened, *ends("tool_use")).choices[0]
    assert choice.tool_calls[0].arguments == "{}"


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "of_the_future", "x": 1},
        {"type": "ping"},
        {"no": "type"},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "of_the_future", "text": "nowhere"}},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta"},
        {"type": "content_block_delta", "index": [], "delta": []},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "not here"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "of_the_future"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": "x"}},
        {"type": "content_block_stop", "index": 9},
        {"type": "content_block_stop", "index": 9.5},
        {"type": "content_block_start", "index": 4},
        {"type": "message_delta", "delta": {}, "usage": None},
        {"type": "message_delta", "delta": None},
        {"type": "message_start"},
    ],
)
def test_odd_events_are_passed_over(odd: Json) -> None:
    opened, stopped = block(0, text("a"))
    response = streamed(starts(), opened, {"type": "x"}, odd, stopped, *ends())
    assert response.choices[0].text == "a"
    assert response.choices[0].finish_reason == "stop"


def test_words_without_the_start_of_their_block_are_kept() -> None:
    def delta(index: int, **fields: str) -> Json:
        return {"type": "content_block_delta", "index": index, "delta": fields}

    choice = streamed(
        starts(),
        delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="signature_delta", signature="sig"),
        delta(1, type="text_delta", text="not "),
        delta(1, type="text_delta", text="lost"),
        *ends(),
    ).choices[0]
    assert (choice.text, choice.thoughts) == ("not lost", {0: Thought("hm", "sig")})
    with pytest.raises(GatewayError, match="never begun"):
        streamed(starts(), delta(0, **piece('{"a":1}')), *ends("tool_use"))


def test_a_number_that_is_given_twice_is_two_blocks() -> None:
    first, second = block(0, call("f", {}))[:1], block(0, call("g", {"a": 1}, "toolu_2"))
    calls = streamed(starts(), *first, *second, *ends("tool_use")).choices[0].tool_calls
    assert [(one.id, one.name, one.arguments) for one in calls.values()] == [
        ("toolu_1", "f", "{}"),
        ("toolu_2", "g", '{"a":1}'),
    ]


@pytest.mark.parametrize("missing", ["id", "name"])
def test_a_call_that_cannot_be_answered_is_nonsense_and_its_tokens_are_told(missing: str) -> None:
    half = {name: value for name, value in call("f", {}).items() if name != missing}
    with pytest.raises(FailedAnswer, match="no id or no name") as caught:
        DIALECT.parse_response(message(text("x"), half))
    assert caught.value.chunks[-1] == UsageReport(Usage(input_tokens=10, output_tokens=5))
    assert caught.value.kind is errors.UPSTREAM_INVALID_RESPONSE
    with pytest.raises(GatewayError, match="no id or no name"):
        streamed(starts(), *block(0, half))


def test_empty_data_and_pings_say_nothing() -> None:
    stream = DIALECT.stream_reader()
    assert stream.feed(SSEEvent(b"")) is None
    assert stream.feed(SSEEvent(b'{"type": "ping"}', "ping")) is None
    assert not stream.complete


def test_a_stream_that_just_ends_is_not_complete() -> None:
    stream = DIALECT.stream_reader()
    for event in [starts(), *block(0, text("half"))]:
        stream.feed(SSEEvent(json.dumps(event).encode()))
    assert not stream.complete
    assert not stream.done


@pytest.mark.parametrize("data", [b"{", b"[1]", b"null", b"<html>"])
def test_events_of_nonsense_are_told_as_such(data: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        DIALECT.stream_reader().feed(SSEEvent(data))
    assert caught.value.kind is errors.UPSTREAM_INVALID_RESPONSE


@pytest.mark.parametrize("before", [0, 4])
def test_an_error_in_a_stream_is_raised_wherever_it_comes(before: int) -> None:
    stream = DIALECT.stream_reader()
    for event in [starts(), *block(0, text("half"))][:before]:
        stream.feed(SSEEvent(json.dumps(event).encode()))
    with pytest.raises(GatewayError) as caught:
        stream.feed(SSEEvent(error_body("overloaded_error", "Overloaded"), "error"))
    assert caught.value.kind is errors.UPSTREAM_OVERLOADED
    assert "Overloaded" in caught.value.message


@st.composite
def messages(draw: st.DrawFn) -> list[Json]:
    """The content of an answer."""
    words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    plain = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e9, 1e9) | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=5,
    )
    kinds = st.one_of(
        st.builds(text, words),
        st.builds(
            lambda words, title: text(words, citations=[{"url": "https://x.example", "title": title}]), words, words
        ),
        st.builds(lambda thought, seal: {"type": "thinking", "thinking": thought, "signature": seal}, words, words),
        st.builds(lambda data: {"type": "redacted_thinking", "data": data}, words.filter(bool)),
        st.builds(call, words.filter(bool), st.dictionaries(words, plain, max_size=3), words.filter(bool)),
        st.builds(lambda given: {"type": "server_tool_use", "id": "s", "name": "s", "input": given}, plain),
    )
    return draw(st.lists(kinds, max_size=6))


@st.composite
def interleaved(draw: st.DrawFn, content: list[Json]) -> list[Json]:
    """The events of an answer, its blocks in order but their pieces mixed."""
    queues: list[list[Json]] = []
    for index, one in enumerate(content):
        bare, deltas = dict(one), list[Json]()
        match one["type"]:
            case "text":
                bare |= {"text": "", "citations": None}
                deltas = [{"type": "text_delta", "text": letter} for letter in one["text"]]
                for citation in one.get("citations", ()):
                    deltas.insert(draw(st.integers(0, len(deltas))), {"type": "citations_delta", "citation": citation})
            case "thinking":
                bare |= {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": letter} for letter in one["thinking"]]
                deltas.append({"type": "signature_delta", "signature": one["signature"]})
            case "tool_use" | "server_tool_use":
                bare["input"] = {}
                deltas = [piece("")] + [piece(letter) for letter in json.dumps(one["input"])] if one["input"] else []
        queues.append(block(index, bare, *deltas))
    events: list[Json] = []
    opened = 0
    while any(queues):
        ready = [index for index in range(min(opened + 1, len(queues))) if queues[index]]
        index = draw(st.sampled_from(ready))
        opened = max(opened, index + 1)
        events.append(queues[index].pop(0))
        if draw(st.integers(0, 9)) == 0:
            events.append({"type": "ping"})
    return [starts(), *events, *ends("tool_use" if any(one["type"] == "tool_use" for one in content) else "end_turn")]


def meaning(response: ChatResponse) -> Any:
    choice = response.choices[0]
    return (
        [(one.text, one.signature, one.redacted) for _, one in sorted(choice.thoughts.items())],
        [(index, one.id, one.name, json.loads(one.arguments)) for index, one in sorted(choice.tool_calls.items())],
        choice.finish_reason,
    )


@given(st.data())
def test_any_interleaving_and_any_cut_mean_what_the_whole_means(data: st.DataObject) -> None:
    content = data.draw(messages())
    reason = "tool_use" if any(one["type"] == "tool_use" for one in content) else "end_turn"
    expected = whole(message(*content, stop=reason))
    wire = encoded(data.draw(interleaved(content)))
    decoder, stream, response = SSEDecoder(), DIALECT.stream_reader(), ChatResponse()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=8)))
    events = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        events += decoder.feed(wire[start:end])
    for event in events + decoder.flush():
        said = stream.feed(event)
        for chunk in said.chunks if said else ():
            response.add(chunk)
    assert meaning(response) == meaning(expected)
    assert sorted(response.choices[0].text) == sorted(expected.choices[0].text)
    assert len(response.choices[0].citations) == len(expected.choices[0].citations)


@given(messages())
def test_a_stream_in_order_is_the_whole(content: list[Json]) -> None:
    events = [starts()]
    for index, one in enumerate(content):
        events += block(index, one)
    expected = whole(message(*content, stop="end_turn"))
    response = streamed(*events, *ends())
    assert meaning(response) == meaning(expected)
    assert response.choices[0].text == expected.choices[0].text
    assert response.choices[0].citations == expected.choices[0].citations


# --- errors


def error_body(kind: str, says: str, **details: Any) -> bytes:
    error: Json = {"type": kind, "message": says}
    if details:
        error["details"] = details
    return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()


def told(status: int, data: bytes, headers: dict[str, str] | None = None, now_s: float = 0.0) -> GatewayError:
    return DIALECT.parse_error(status, headers or {}, data, now_s)


@pytest.mark.parametrize(
    ("status", "kind", "becomes"),
    [
        (400, "invalid_request_error", (400, "invalid_value")),
        (401, "authentication_error", (502, "upstream_auth_error")),
        (402, "billing_error", (429, "upstream_quota_exceeded")),
        (403, "permission_error", (502, "upstream_auth_error")),
        (404, "not_found_error", (404, "model_not_found")),
        (409, "conflict_error", (502, "upstream_error")),
        (413, "request_too_large", (413, "request_too_large")),
        (429, "rate_limit_error", (429, "upstream_rate_limited")),
        (500, "api_error", (502, "upstream_error")),
        (504, "timeout_error", (504, "upstream_timeout")),
        (529, "overloaded_error", (503, "upstream_overloaded")),
    ],
)
def test_each_type_of_error_is_told_as_the_contract_says(status: int, kind: str, becomes: tuple[int, str]) -> None:
    data = error_body(kind, "What happened")
    error = told(status, data)
    assert (error.status, error.code) == becomes
    assert error.upstream_status == status
    assert ("What happened" in error.message) is (status not in {401, 403})
    with pytest.raises(GatewayError) as caught:  # the same in a stream, where there is no status
        DIALECT.stream_reader().feed(SSEEvent(data, "error"))
    assert (caught.value.status, caught.value.code) == becomes


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (429, error_body("rate_limit_error", "Threshold reached", error_code="enforced_spend_limit_reached")),
        (429, error_body("rate_limit_error", "Contract", error_code="contract_spend_limit_reached")),
        (400, error_body("invalid_request_error", "You have reached your specified API usage limits. Until ...")),
        (400, error_body("invalid_request_error", "You have reached your specified workspace API usage limits.")),
        (400, error_body("invalid_request_error", "Your credit balance is too low to access the Anthropic API.")),
        (402, b""),
    ],
)
def test_money_that_is_used_up_is_not_tried_again(status: int, data: bytes) -> None:
    error = told(status, data)
    assert error.kind is errors.UPSTREAM_QUOTA_EXCEEDED
    assert error.status == 429
    assert error.headers == {"x-should-retry": "false"}
    assert not error.kind.retryable


@pytest.mark.parametrize(
    ("status", "says", "kind", "code"),
    [
        (404, "model: claude-0", "not_found_error", "model_not_found"),
        (404, "No such file", "not_found_error", "model_not_found"),
        (413, "Request exceeds the maximum size", "invalid_request_error", "request_too_large"),
    ],
)
def test_codes_that_clients_test_are_openais(status: int, says: str, kind: str, code: str) -> None:
    error = told(status, error_body("x_error", says))
    assert (error.status, error.code, error.message, error.type) == (status, code, says, kind)


def test_when_to_try_again_is_carried() -> None:
    data = error_body("rate_limit_error", "Slow down")
    assert told(429, data, {"retry-after": "17"}).retry_after_seconds == 17
    limits = {
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "2026-11-23T21:00:00Z",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-23T20:00:30Z",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-23T20:00:20Z",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "soon",
    }
    now = 1795464000.0  # 2026-11-23T20:00:00Z
    assert told(429, data, limits, now).retry_after_seconds == 30
    assert told(429, data, limits, now + 999).retry_after_seconds == 0
    assert told(429, data, {**limits, "retry-after": "5"}, now).retry_after_seconds == 5
    assert told(529, error_body("overloaded_error", "x"), limits, now).retry_after_seconds is None
    assert told(429, data).retry_after_seconds is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", ""),
        (b"<html>nginx</html>", ""),
        (b'{"error": "plain words"}', "plain words"),
        (b'{"error": {"message": "nested"}}', "nested"),
        (b'{"message": "at the top"}', "at the top"),
        (b'{"detail": "of a proxy"}', "of a proxy"),
        (b'{"error": {}, "message": "beside"}', "beside"),
        (b'{"error": ["odd"]}', ""),
        (b"[1]", ""),
    ],
)
def test_errors_of_any_shape_are_told(data: bytes, says: str) -> None:
    error = told(502, data)
    assert error.kind is errors.UPSTREAM_ERROR
    assert says in error.message
    refused = told(400, data)
    assert refused.status == 400
    assert refused.message


def test_an_error_of_unknown_type_in_a_stream_is_the_providers_failure() -> None:
    for data in (b'{"type": "error", "error": {"type": "new_error", "message": "x"}}', b'{"error": "x"}'):
        with pytest.raises(GatewayError) as caught:
            DIALECT.stream_reader().feed(SSEEvent(data))
        assert caught.value.kind is errors.UPSTREAM_ERROR
