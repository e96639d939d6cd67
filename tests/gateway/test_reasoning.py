"""What of an answer is put away, and what it will be known by."""

from __future__ import annotations

from typing import Any

from inferxgate.canonical.chat import (
    Chunk,
    ImageOutput,
    ReasoningDelta,
    ReasoningSeal,
    ServerBlock,
    TextDelta,
    TextSeal,
    ToolCallDelta,
    collect,
)
from inferxgate.dialects.openai_answers import build_response
from inferxgate.dialects.openai_state import opaque
from inferxgate.gateway.reasoning import mark_of, turn_of
from inferxgate.workers.reasoning import Maker, Turn

CLAUDE = Maker("claude", "c0ffee", "claude-sonnet-4-5")
CALLS = [ToolCallDelta(0, 0, "call_a", "f", "{}"), ToolCallDelta(0, 1, "call_b", "g", "{}")]
THOUGHTS: list[Chunk] = [
    ReasoningDelta(0, "let me ", 0),
    ReasoningDelta(0, "see", 0),
    ReasoningSeal(0, 0, signature="SIG"),
    ReasoningSeal(0, 1, redacted="OPAQUE"),
]


def turn(*chunks: Chunk) -> Turn | None:
    return turn_of(collect(chunks).choices[0], CLAUDE)


def test_the_thoughts_that_led_to_calls_are_put_away() -> None:
    assert turn(*THOUGHTS, *CALLS) == Turn(
        CLAUDE,
        (("let me see", "SIG", None, None), ("", None, "OPAQUE", None)),
        {"call_a": None, "call_b": None},
        (mark_of("SIG"), mark_of("OPAQUE")),
    )


def test_nothing_of_a_thought_without_calls_is_put_away_but_its_marks() -> None:
    assert turn(*THOUGHTS, TextDelta(0, "so")) == Turn(CLAUDE, (), {}, (mark_of("SIG"), mark_of("OPAQUE")))


def test_a_calls_own_signature_is_put_away_with_it() -> None:
    signed = ToolCallDelta(0, 0, "call_a", "f", "{}", "TS")
    assert turn(signed, CALLS[1]) == Turn(CLAUDE, (), {"call_a": "TS", "call_b": None}, (mark_of("TS"),))


def test_answers_without_signatures_leave_nothing() -> None:
    assert turn(ReasoningDelta(0, "hm"), *CALLS) is None


def test_an_answer_is_known_by_what_its_client_gets_of_it() -> None:
    """Whatever carries state in the message that a client returns, its mark is one of the answer's."""
    pieces: dict[str, Chunk] = {
        "thought": ReasoningSeal(0, 0, signature="S"),
        "redacted": ReasoningSeal(0, 0, redacted="R"),
        "gemini's thought": ReasoningSeal(0, 0, thought_signature="G"),
        "text": TextSeal(0, "T"),
        "call": ToolCallDelta(0, 0, "call_a", "f", "{}", "C"),
        "image": ImageOutput(0, "image/png", "AAAA", signature="I"),
        "server": ServerBlock(0, {"type": "x_tool_result", "b": 1, "a": {"encrypted_content": "E"}}, 0, 0, 0),
    }
    for name, piece in pieces.items():
        answer: Any = build_response(collect([piece]), answer_id="a", created_s=0, model="m")
        kept = turn(piece)
        carried = tuple(mark_of(each.word) for each in opaque(answer["choices"][0]["message"]))
        assert carried, name
        assert kept is not None, name
        assert kept.marks == carried, name


def test_no_answer_has_more_than_a_few_marks() -> None:
    kept = turn(*[ReasoningSeal(0, number, signature=f"S{number}") for number in range(1_000)])
    assert kept is not None
    assert len(kept.marks) == 16
