"""Thought survives clients that drop it: put away with the answer, put back by the ids that they keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inferxgate.canonical.chat import Choice, ReasoningDelta, ReasoningSeal, ToolCallDelta, collect
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.gateway.reasoning import restored, turn_of
from inferxgate.workers.reasoning import Thoughts, Turn


def answered(*, call_signature: str | None = None) -> Choice:
    return collect(
        [
            ReasoningDelta(0, "let me ", 0),
            ReasoningDelta(0, "see", 0),
            ReasoningSeal(0, 0, signature="SIG"),
            ReasoningSeal(0, 1, redacted="OPAQUE"),
            ToolCallDelta(0, 0, "call_a", "f", "{}", call_signature),
            ToolCallDelta(0, 1, "call_b", "g", "{}"),
        ]
    ).choices[0]


def call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


Recall = Callable[[str], Thoughts | None]


def found(turn: Turn | None) -> Recall:
    """A memory that holds one turn."""
    assert turn is not None
    by_id = {i: Thoughts(turn.provider, turn.blocks, signature) for i, signature in turn.signatures.items()}
    return by_id.get


def mended(recall: Recall, provider: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    request = parse_request({"model": "m", "messages": [{"role": "user", "content": "x"}, *messages]})
    result: list[dict[str, Any]] = restored(request, provider, recall).source.body["messages"]
    return result[1:]


BLOCKS = [
    {"type": "thinking", "thinking": "let me see", "signature": "SIG"},
    {"type": "redacted_thinking", "data": "OPAQUE"},
]


def test_thinking_is_put_back_where_it_was_left_out() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [call("call_a"), call("call_b")]}
    [back] = mended(found(turn_of(answered(), "claude")), "claude", turn)
    assert back == {**turn, "thinking_blocks": BLOCKS}


def test_what_the_client_brought_back_is_left_alone() -> None:
    own = [{"type": "thinking", "thinking": "mine", "signature": "S"}]
    turn = {"role": "assistant", "content": "x", "thinking_blocks": own, "tool_calls": [call("call_a")]}
    [back] = mended(found(turn_of(answered(), "claude")), "claude", turn)
    assert back is turn


def test_thought_that_came_back_without_its_signature_is_put_back_whole() -> None:
    bare = [{"type": "thinking", "thinking": "let me see", "signature": ""}]
    turn = {"role": "assistant", "content": "x", "thinking_blocks": bare, "tool_calls": [call("call_a")]}
    [back] = mended(found(turn_of(answered(), "claude")), "claude", turn)
    assert back == {**turn, "thinking_blocks": BLOCKS}


def test_geminis_signature_of_a_thought_is_put_back_as_its_own() -> None:
    thought, seal = ReasoningDelta(0, "hm"), ReasoningSeal(0, 0, thought_signature="G")
    recall = found(turn_of(collect((thought, seal, ToolCallDelta(0, 0, "c", "f", "{}"))).choices[0], "gemini"))
    [back] = mended(recall, "gemini", {"role": "assistant", "tool_calls": [call("c")]})
    google = {"google": {"thought_signature": "G"}}
    assert back["thinking_blocks"] == [{"type": "thinking", "thinking": "hm", "signature": "", "extra_content": google}]
    [same] = mended(recall, "gemini", back)
    assert same is back


def test_another_providers_thoughts_are_not_put_in() -> None:
    turn = {"role": "assistant", "tool_calls": [call("call_a")]}
    [back] = mended(found(turn_of(answered(), "claude")), "other", turn)
    assert back is turn


def test_unknown_ids_and_other_messages_pass() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [call("call_x"), "odd", {"id": 7}]},
        {"role": "tool", "content": "y"},
    ]
    assert mended(found(turn_of(answered(), "claude")), "claude", *turns) == turns


def test_a_calls_own_signature_is_put_back_on_that_call() -> None:
    recall = found(Turn("gemini", (), {"call_a": "TS", "call_b": None}))
    turn = {"role": "assistant", "tool_calls": [call("call_a"), call("call_b")]}
    [back] = mended(recall, "gemini", turn)
    assert back["tool_calls"] == [
        {**call("call_a"), "extra_content": {"google": {"thought_signature": "TS"}}},
        call("call_b"),
    ]


def test_answers_without_signatures_leave_nothing() -> None:
    choice = collect([ReasoningDelta(0, "hm"), ToolCallDelta(0, 0, "call_a", "f", "{}")]).choices[0]
    assert turn_of(choice, "deepseek") is None
