"""Opaque state is found wherever it may stand in a message, and taken out without a trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.openai_conversation import parse_conversation
from inferxgate.dialects.openai_state import block_word, opaque, says_nothing, without, words_of_answer

GOOGLE = {"google": {"thought_signature": "G"}}
FIELDS = {"thought_signature": "F"}
SERVER = {"type": "web_search_tool_result", "content": [{"encrypted_content": "E"}]}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "S"}

CARRIERS: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]], dict[str, Any]]] = {
    "thinking blocks": (
        {"content": "x", "thinking_blocks": [{"thinking": "a"}, THOUGHT, {"type": "redacted_thinking", "data": "R"}]},
        [("thinking_blocks", "S", "anthropic_messages"), ("thinking_blocks", "R", "anthropic_messages")],
        {"content": "x"},
    ),
    "thinking blocks of Gemini": (
        {"content": "x", "thinking_blocks": [{"thinking": "a", "signature": "", "extra_content": GOOGLE}]},
        [("thinking_blocks", "G", "gemini")],
        {"content": "x"},
    ),
    "thoughts among the content": (
        {"content": [THOUGHT, {"type": "text", "text": "x"}, {"type": "redacted_thinking", "data": "R"}]},
        [("content.0", "S", "anthropic_messages"), ("content.2", "R", "anthropic_messages")],
        {"content": [{"type": "text", "text": "x"}]},
    ),
    "more than ten thoughts among the content": (
        {"content": [THOUGHT] * 11 + ["x", THOUGHT]},
        [(f"content.{index}", "S", "anthropic_messages") for index in (*range(11), 12)],
        {"content": ["x"]},
    ),
    "nothing but thoughts": (
        {"content": [THOUGHT]},
        [("content.0", "S", "anthropic_messages")],
        {},
    ),
    "a text's signature": (
        {"content": "x", "extra_content": {**GOOGLE, "other": 1}, "provider_specific_fields": {**FIELDS, "b": 2}},
        [
            ("extra_content.google.thought_signature", "G", "gemini"),
            ("provider_specific_fields.thought_signature", "F", "gemini"),
        ],
        {"content": "x", "extra_content": {"other": 1}, "provider_specific_fields": {"b": 2}},
    ),
    "calls' signatures": (
        {"tool_calls": [CALL, {**CALL, "extra_content": GOOGLE}, {**CALL, "provider_specific_fields": FIELDS}]},
        [
            ("tool_calls.1.extra_content.google.thought_signature", "G", "gemini"),
            ("tool_calls.2.provider_specific_fields.thought_signature", "F", "gemini"),
        ],
        {"tool_calls": [CALL, CALL, CALL]},
    ),
    "an image's signature": (
        {"content": "", "images": [{**IMAGE, "extra_content": GOOGLE}]},
        [("images.0.extra_content.google.thought_signature", "G", "gemini")],
        {"content": "", "images": [IMAGE]},
    ),
    "what Anthropic's tools said": (
        {"content": "x", "extra_content": {"anthropic": {"blocks": [{"block": SERVER, "before": {}}]}}},
        [("extra_content.anthropic", block_word(SERVER), "anthropic_messages")],
        {"content": "x"},
    ),
    "reasoning details": (
        {"content": "x", "reasoning_details": [{"text": "hm"}, {"data": "D"}, {"text": "a", "signature": "S"}]},
        [("reasoning_details", "D", "openai_chat"), ("reasoning_details", "S", "openai_chat")],
        {"content": "x"},
    ),
    "encrypted content": (
        {"content": "x", "encrypted_content": "E"},
        [("encrypted_content", "E", "openai_chat")],
        {"content": "x"},
    ),
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_state_is_found_and_taken_out(carrier: str) -> None:
    message, expected, bare = CARRIERS[carrier]
    before = copy.deepcopy(message)
    found = opaque(message)
    assert [(each.place, each.word, each.dialect) for each in found] == expected
    assert without(message, (each.path for each in found)) == bare
    assert message == before, "other requests are built from it"


@given(st.sets(st.sampled_from(sorted(CARRIERS)), min_size=1))
def test_all_of_it_is_taken_out_at_once(names: set[str]) -> None:
    message: dict[str, Any] = {}
    for name in sorted(names):
        for key, value in CARRIERS[name][0].items():
            message[key] = {**message.get(key, {}), **value} if isinstance(value, dict) else value
    new = without(message, (each.path for each in opaque(message)))
    assert opaque(new) == []
    assert all(value not in ({}, []) for value in new.values())


ODD: list[Any] = [None, "x", 7, [], {}, [None], ["x"], [[]], [{}], {"google": "x"}, {"anthropic": {"blocks": [{}, 7]}}]


@pytest.mark.parametrize("name", ["thinking_blocks", "extra_content", "tool_calls", "images", "reasoning_details"])
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_what_is_of_the_wrong_type_is_none(name: str, odd: Any) -> None:
    assert opaque({name: odd}) == []
    assert opaque({"content": odd, "provider_specific_fields": odd, "encrypted_content": 7}) == []
    assert opaque({"thinking_blocks": [{"signature": odd if odd != "x" else None}]}) == []


def test_a_block_nested_too_deeply_to_be_written_is_none() -> None:
    block: dict[str, Any] = {}
    for _ in range(300):
        block = {"a": block}
    assert block_word(block) == ""
    assert opaque({"extra_content": {"anthropic": {"blocks": [{"block": block}]}}}) == []


def test_what_is_left_can_be_read() -> None:
    """By whoever translates it: nothing that belongs together was torn apart."""
    for message, _, _ in CARRIERS.values():
        left = without({"role": "assistant", **message}, (each.path for each in opaque(message)))
        parse_conversation(parse_request({"model": "m", "messages": [left]}))


@pytest.mark.parametrize(
    ("message", "nothing"),
    [
        ({"role": "assistant", "content": None}, True),
        ({"role": "assistant", "content": "", "reasoning_content": "hm"}, True),
        ({"role": "assistant", "content": [], "tool_calls": []}, True),
        ({"role": "assistant", "content": "x"}, False),
        ({"role": "assistant", "tool_calls": [CALL]}, False),
        ({"role": "assistant", "function_call": {"name": "f"}}, False),
        ({"role": "assistant", "refusal": "no"}, False),
        ({"role": "assistant", "audio": {"id": "a"}}, False),
    ],
)
def test_whether_a_message_says_nothing(message: dict[str, Any], nothing: bool) -> None:
    assert says_nothing(message) == nothing


def test_the_state_of_an_answer_or_an_event_is_found() -> None:
    carrier = {"reasoning_details": [{"data": "D"}]}
    assert list(words_of_answer({"choices": [{"message": carrier}, {"message": {"content": "x"}}]})) == ["D"]
    assert list(words_of_answer({"choices": [{"delta": carrier}, {"delta": {"content": "x"}}]})) == ["D"]
    for odd in ({}, {"choices": None}, {"choices": ["x", {}, {"delta": "x"}]}):
        assert list(words_of_answer(odd)) == []
