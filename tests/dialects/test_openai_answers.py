"""Answers for OpenAI's clients, written from what they mean: whole and streamed alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

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
    ServerBlock,
    Start,
    TextDelta,
    TextSeal,
    Token,
    ToolCallDelta,
    UsageReport,
    collect,
)
from inferxgate.canonical.usage import Usage
from inferxgate.dialects import openai_chat
from inferxgate.dialects.openai_answers import StreamBuilder, build_response, build_usage
from inferxgate.dialects.protocol import Event
from inferxgate.framing.sse import SSEDecoder
from tests.support.accumulating import accumulated, messages_of

ANSWER: list[Chunk] = [
    Start("msg_1", "claude-x"),
    ReasoningDelta(0, "let me", 0),
    ReasoningSeal(0, 0, signature="S"),
    ReasoningSeal(0, 1, redacted="D"),
    TextDelta(0, "Hello"),
    TextSeal(0, "TS"),
    Citation(0, "https://h/a", "A", "words", 0, 5),
    Citation(0, None, "paper", "words"),
    ImageOutput(0, "image/png", "AAAA"),
    ImageOutput(0, "image/png", "AAAA", "IMG"),
    RefusalDelta(0, "no"),
    ToolCallDelta(0, 0, "call_a", "f", '{"x"', "CS"),
    ToolCallDelta(0, 0, None, None, ": 1}"),
    ToolCallDelta(0, 1, "call_b", "g", "{}"),
    Finish(0, "tool_calls"),
    UsageReport(
        Usage(input_tokens=3, cache_read_tokens=4, cache_write_1h_tokens=5, output_tokens=2, reasoning_tokens=1)
    ),
]


def streamed(chunks: list[Chunk], *, include_usage: bool = True) -> list[Any]:
    builder = StreamBuilder(include_usage=include_usage, answer_id="chatcmpl-x", created_s=7, model="asked")
    data = b"".join(builder.build(Event(None, {}, (chunk,))) for chunk in chunks) + builder.finish()
    decoder = SSEDecoder()
    events = [event.data for event in decoder.feed(data) + decoder.flush()]
    assert events[-1] == b"[DONE]"
    return [json.loads(event) for event in events[:-1]]


def whole(chunks: list[Chunk]) -> dict[str, Any]:
    return build_response(collect(chunks), answer_id="chatcmpl-x", created_s=7, model="asked")


def test_a_whole_answer_has_everything_in_its_known_place() -> None:
    answer = whole(ANSWER)
    ChatCompletion.model_validate(answer)
    assert (answer["id"], answer["model"], answer["created"]) == ("msg_1", "claude-x", 7)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert (message["content"], message["refusal"], message["reasoning_content"]) == ("Hello", "no", "let me")
    assert message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "let me", "signature": "S"},
        {"type": "redacted_thinking", "data": "D"},
    ]
    assert message["tool_calls"] == [
        {
            "id": "call_a",
            "type": "function",
            "function": {"name": "f", "arguments": '{"x": 1}'},
            "extra_content": {"google": {"thought_signature": "CS"}},
        },
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert message["extra_content"] == {"google": {"thought_signature": "TS"}}
    assert message["annotations"][0]["url_citation"]["url"] == "https://h/a"
    assert message["citations"] == [{"title": "paper", "text": "words"}]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert message["images"] == [image, {**image, "extra_content": {"google": {"thought_signature": "IMG"}}}]


def test_usage_counts_cached_tokens_as_prompt_and_reasoning_as_completion() -> None:
    assert build_usage(collect(ANSWER).usage or Usage()) == {
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 0},
    }


def test_a_stream_is_one_that_the_sdk_knows() -> None:
    events = streamed(ANSWER)
    for event in events:
        ChatCompletionChunk.model_validate(event)
        assert (event["id"], event["model"], event["created"]) == ("msg_1", "claude-x", 7)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in event["choices"][0]["delta"] for event in events[1:-1])
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]][-1] == "tool_calls"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == 15
    assert "usage" not in json.dumps(streamed(ANSWER, include_usage=False))


def test_a_finish_reason_goes_out_after_the_last_of_the_text() -> None:
    events = streamed([Start("a", "m"), TextDelta(0, "Hel"), Finish(0, "stop"), TextDelta(0, "lo"), Finish(0, "stop")])
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["Hel", "lo", None]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, "stop"]


PIECES: list[Chunk] = [
    Start("msg_1", "claude-x"),
    ReasoningDelta(0, "let ", 0),
    ReasoningDelta(0, "me", 0),
    ReasoningSeal(0, 0, signature="S"),
    ReasoningSeal(0, 2, redacted="D"),
    ReasoningSeal(0, 3, signature="T"),
    ReasoningDelta(0, "see", 4),
    ReasoningSeal(0, 4, thought_signature="G"),
    ReasoningDelta(0, "unsigned", 5),
    TextDelta(0, "Hel"),
    TextSeal(0, "early"),
    Citation(0, "https://h/a", "A", "words", 0, 3),
    Citation(0, None, "paper", "words"),
    TextDelta(0, "lo"),
    TextSeal(0, "late"),
    Citation(0, "https://h/b", "B", "words", 3, 5),
    Citation(0, None, "book", "more words"),
    ImageOutput(0, "image/png", "AAAA"),
    ImageOutput(0, "image/png", "BBBB"),
    RefusalDelta(0, "n"),
    RefusalDelta(0, "o"),
    ToolCallDelta(0, 0, "call_a", "f", '{"x"', "CS"),
    ToolCallDelta(0, 0, None, None, ": 1}"),
    ToolCallDelta(0, 1, "call_b", "g", "{}"),
    TextDelta(1, "two"),
    Logprobs(1, (Token("tw", -0.5, (Token("tw", -0.5), Token("é", -2.0))),)),
    Logprobs(1, (Token("o", 0.0),)),
    ServerBlock(0, {"type": "server_tool_use", "input": {}}, 5, 3, 0),
    ServerBlock(0, {"type": "web_search_tool_result"}, 5, 3, 0),
    ReasoningDelta(1, "hm", 0),
    Citation(1, "https://h/c", None, None),
    Citation(1, "https://h/d", None, None),
    Finish(0, "tool_calls"),
    Finish(1, "stop"),
]


def test_the_sdk_joins_a_stream_to_the_whole_answers_message() -> None:
    joined = messages_of(accumulated(streamed(PIECES)))
    assert joined == messages_of(whole(PIECES))
    assert [block.get("thinking") for block in joined[0]["thinking_blocks"]] == ["let me", None, "", "see", "unsigned"]
    before = {"thinking_blocks": 5, "content": 3, "tool_calls": 0}
    assert joined[0]["extra_content"] == {
        "google": {"thought_signature": "late"},
        "anthropic": {
            "blocks": [
                {"block": {"type": "server_tool_use", "input": {}}, "before": before},
                {"block": {"type": "web_search_tool_result"}, "before": before},
            ]
        },
    }


def test_log_probabilities_have_openais_form() -> None:
    first, second = whole(PIECES)["choices"]
    assert first["logprobs"] is None
    told = {"token": "tw", "logprob": -0.5, "bytes": [116, 119]}
    other = {"token": "é", "logprob": -2.0, "bytes": [195, 169]}
    assert second["logprobs"] == {
        "content": [
            {**told, "top_logprobs": [told, other]},
            {"token": "o", "logprob": 0.0, "bytes": [111], "top_logprobs": []},
        ],
        "refusal": None,
    }
    ChatCompletion.model_validate(whole(PIECES))


def test_pieces_of_one_thought_have_its_place() -> None:
    deltas = [event["choices"][0]["delta"] for event in streamed(PIECES, include_usage=False)]
    places = [block["index"] for delta in deltas for block in delta.get("thinking_blocks", ())]
    assert places == [0, 0, 0, 1, 2, 3, 3, 4, 0]


def test_an_empty_answer_still_has_its_choice() -> None:
    answer = whole([Start(None, None), Finish(0, "stop")])
    assert (answer["id"], answer["model"]) == ("chatcmpl-x", "asked")
    assert answer["choices"][0]["message"]["content"] == ""
    assert "usage" not in answer


@dataclass
class Hologram:
    """A kind of piece that nobody has a place for."""

    choice: int = 0


def test_a_piece_without_a_place_is_not_lost_without_a_word() -> None:
    with pytest.raises(AssertionError):
        streamed([Hologram()])  # type: ignore[list-item]  # the mistake that the type checker would find


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
CHUNKS = st.lists(
    st.one_of(
        st.builds(TextDelta, st.integers(0, 1), TEXT),
        st.builds(ReasoningDelta, st.integers(0, 1), TEXT),
        st.builds(RefusalDelta, st.integers(0, 1), TEXT),
        st.builds(
            lambda c, i, a: ToolCallDelta(c, i, f"call_{c}{i}", f"f{i}", a), st.integers(0, 1), st.integers(0, 2), TEXT
        ),
    ),
    max_size=20,
)


@given(CHUNKS)
def test_a_stream_read_back_means_what_the_whole_answer_means(chunks: list[Chunk]) -> None:
    ends: list[Chunk] = [Finish(index, "stop") for index in (0, 1)]
    usage = UsageReport(Usage(input_tokens=3, cache_read_tokens=1, output_tokens=2))
    answer = [Start("a", "m"), *chunks, *ends, usage]
    parser = openai_chat.StreamParser()
    builder = StreamBuilder(include_usage=True)
    decoder = SSEDecoder()
    back: list[Chunk] = []
    for chunk in answer:
        for sse in decoder.feed(builder.build(Event(None, {}, (chunk,)))):
            event = parser.feed(sse)
            back += event.chunks if event else ()
    for sse in decoder.feed(builder.finish()):
        event = parser.feed(sse)
        back += event.chunks if event else ()
    assert parser.done
    assert parser.complete
    from_whole = openai_chat.response_of(json.dumps(whole(answer)).encode())
    expected = _calls_in_order(collect(answer))
    assert _calls_in_order(collect(back)).choices == expected.choices
    assert collect(back).usage == expected.usage
    assert from_whole.usage == expected.usage
    for index, choice in expected.choices.items():
        other = from_whole.choices[index]
        assert (other.text, other.reasoning, other.refusal) == (choice.text, choice.reasoning, choice.refusal)
        assert [c.arguments for c in other.tool_calls.values()] == [c.arguments for c in choice.tool_calls.values()]


def _calls_in_order(response: ChatResponse) -> ChatResponse:
    response.id = response.model = None
    for choice in response.choices.values():
        choice.tool_calls = dict(sorted(choice.tool_calls.items()))
    return response
