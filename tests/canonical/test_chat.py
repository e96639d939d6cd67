"""The pieces of an answer, folded: what came in many chunks is what one whole answer says."""

from __future__ import annotations

import pytest

from inferxgate.canonical.chat import (
    ChatResponse,
    Choice,
    Chunk,
    Citation,
    Finish,
    ImageOutput,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    Start,
    TextDelta,
    TextSeal,
    Thought,
    ToolCall,
    ToolCallDelta,
    UsageReport,
    collect,
)
from inferxgate.canonical.usage import Usage


def test_pieces_become_one_choice_with_each_kind_in_its_place() -> None:
    cited, drawn = Citation(0, "https://h/a", "A", "words"), ImageOutput(0, "image/png", "AAAA")
    chunks: list[Chunk] = [
        ReasoningDelta(0, "let "),
        ReasoningDelta(0, "me"),
        ReasoningSeal(0, 0, signature="S"),
        ReasoningDelta(0, "see", 1),
        ReasoningSeal(0, 2, redacted="D"),
        TextDelta(0, "Hel"),
        TextDelta(0, "lo"),
        TextSeal(0, "TS"),
        cited,
        drawn,
        RefusalDelta(0, "n"),
        RefusalDelta(0, "o"),
        Finish(0, "stop"),
    ]
    choice = collect(chunks).choices[0]
    assert choice == Choice(
        text="Hello",
        thoughts={0: Thought("let me", signature="S"), 1: Thought("see"), 2: Thought(redacted="D")},
        refusal="no",
        citations=[cited],
        images=[drawn],
        text_signature="TS",
        finish_reason="stop",
    )
    assert choice.reasoning == "let mesee"


def test_calls_and_choices_that_arrive_in_turns_are_kept_apart() -> None:
    response = collect(
        [
            ToolCallDelta(0, 1, "call_b", "g", ""),
            ToolCallDelta(0, 0, "call_a", "f", '{"x"', "S"),
            TextDelta(1, "other"),
            ToolCallDelta(0, 0, None, None, ": 1}"),
            ToolCallDelta(0, 1, None, None, "{}"),
        ]
    )
    assert response.choices[0].tool_calls == {
        0: ToolCall("call_a", "f", '{"x": 1}', "S"),
        1: ToolCall("call_b", "g", "{}"),
    }
    assert (response.choices[0].text, response.choices[1].text) == ("", "other")


def test_the_first_name_of_an_answer_stays_and_its_last_usage_counts() -> None:
    response = collect(
        [
            Start(None, "m"),
            Start("a", None),
            UsageReport(Usage(input_tokens=3)),
            Start("b", "n"),
            UsageReport(Usage(input_tokens=3, output_tokens=2)),
        ]
    )
    assert response == ChatResponse("a", "m", {}, Usage(input_tokens=3, output_tokens=2))


def test_a_seal_without_a_word_takes_nothing_away() -> None:
    response = collect([ReasoningSeal(0, 0, signature="S", redacted="D"), ReasoningSeal(0, 0)])
    assert response.choices[0].thoughts == {0: Thought(signature="S", redacted="D")}


def test_what_is_no_chunk_is_not_lost_without_a_word() -> None:
    with pytest.raises(AssertionError):
        ChatResponse().add("text")  # type: ignore[arg-type]  # the mistake that the type checker would find
