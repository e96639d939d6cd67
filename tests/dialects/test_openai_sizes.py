"""How large a request may be: what budgets reserve and what windows count before anything is known."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.openai_sizes import (
    IMAGE_BYTES,
    MESSAGE_BYTES,
    PromptSize,
    choices,
    measure,
    most_output_tokens,
)


def size_of(*messages: dict[str, Any], **more: Any) -> PromptSize:
    return measure(parse_request({"model": "m", "messages": list(messages), **more}).source.body)


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def test_text_messages_and_images() -> None:
    size = size_of({"role": "system", "content": "abc"}, user([{"type": "text", "text": "ä"}, IMAGE, IMAGE]))
    assert size == PromptSize(5, 2, 2)
    assert size.most_tokens == 5 + 2 * MESSAGE_BYTES + 2 * IMAGE_BYTES
    assert size.likely_tokens == -(-size.most_tokens // 4)
    assert size.text_tokens == 2


@pytest.mark.parametrize(
    ("part", "text", "images"),
    [
        ({"type": "text", "text": "Grüße"}, 7, 0),
        ({"type": "refusal", "refusal": "no"}, 2, 0),
        ({"type": "thinking", "thinking": "hmm"}, 3, 0),
        ({"type": "thinking", "thinking": None}, 0, 0),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, 0, 1),
        ({"type": "file", "file": {"file_id": "f"}}, 0, 1),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64," + "A" * 77}}, 75, 0),
        (
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64," + base64.b64encode(b"x" * 70_000).decode()},
            },
            *(0, 3),
        ),
        ({"type": "document", "source": {"type": "text", "data": "abc"}}, 3, 0),
        ({"type": "document", "source": {"type": "url", "url": "https://h/a.pdf"}}, 0, 1),
        ({"type": "something_new"}, 0, 0),
        ("a part that is no object", 0, 0),
        ({"type": "text", "text": 5}, 0, 0),
    ],
)
def test_parts(part: object, text: int, images: int) -> None:
    audio = int(isinstance(part, dict) and part.get("type") == "input_audio")
    assert size_of(user([part])) == PromptSize(text, 1, images, audio)


def test_calls_and_definitions_are_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assistant = {"role": "assistant", "content": None, "tool_calls": [call, 5], "reasoning_content": "hm"}
    result = {"role": "tool", "tool_call_id": "c", "content": "42"}
    size = size_of(assistant, result, tools=[TOOL], response_format={"type": "json_object"})
    written = len(orjson.dumps([call["function"]])) + len("hm") + len("42")
    assert size.text_bytes == written + len(orjson.dumps([TOOL])) + len(orjson.dumps({"type": "json_object"}))
    old = {"role": "assistant", "content": "", "function_call": {"name": "f"}}
    assert size_of(old).text_bytes == len(b'{"name":"f"}')


def test_what_cannot_be_written_has_no_size() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert size_of(user("a"), tools=deep).text_bytes == 1
    assert size_of(user("\ud800")).text_bytes == 3


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "9"}, None),
        ({"max_tokens": 9}, 9),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 9),
        ({"max_completion_tokens": 7, "n": 3}, 21),
        ({"max_completion_tokens": 7, "n": None}, 7),
        ({"max_completion_tokens": 7, "n": True}, 7),
    ],
)
def test_the_most_that_an_answer_may_have(body: dict[str, Any], most: int | None) -> None:
    assert most_output_tokens(body) == most


def test_choices() -> None:
    assert [choices({"n": n}) for n in (None, 0, 2, True, "2")] == [1, 1, 2, 1, 1]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_bytes_are_those_of_utf_8(texts: list[str]) -> None:
    expected = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    assert size_of(*(user(text) for text in texts)) == PromptSize(expected, len(texts), 0)
    parts = [{"type": "text", "text": text} for text in texts]
    assert size_of(user(parts)) == PromptSize(expected, 1, 0)


def test_all_tokens_are_those_of_text_images_and_sound() -> None:
    size = PromptSize(text_bytes=100, messages=3, images=5, audio=2)
    assert size.most_tokens == size.most_text_tokens + size.image_tokens + size.audio_tokens
    assert (size.image_tokens, size.audio_tokens) == (3 * IMAGE_BYTES, 2 * IMAGE_BYTES)
