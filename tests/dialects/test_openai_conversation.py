"""An OpenAI request read whole: every part in its place, and every mistake named."""

from __future__ import annotations

from typing import Any

import pytest

from inferxgate.canonical.conversation import (
    Audio,
    Bytes,
    CacheMark,
    Conversation,
    Document,
    FileId,
    Image,
    Message,
    Reasoning,
    Refused,
    ResponseFormat,
    ServerBlock,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Url,
)
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.openai_conversation import parse_conversation
from inferxgate.errors import GatewayError
from tests.support import recordings

USER: dict[str, Any] = {"role": "user", "content": "Hello"}
CALL: dict[str, Any] = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def read(*messages: dict[str, Any], **fields: Any) -> Conversation:
    return parse_conversation(parse_request({"model": "m", "messages": list(messages or (USER,)), **fields}))


def parts(*content: Any, role: str = "user") -> tuple[Any, ...]:
    return read({"role": role, "content": list(content)}).messages[0].parts


def test_an_empty_id_stays_one_for_the_call_and_for_its_result() -> None:
    talk = read(
        USER,
        {"role": "assistant", "tool_calls": [{**CALL, "id": ""}, {**CALL, "id": ""}]},
        {"role": "tool", "tool_call_id": "", "content": "first"},
        {"role": "tool", "tool_call_id": "", "content": "second"},
    )
    assert [part.id for part in talk.messages[1].parts if isinstance(part, ToolUse)] == ["", ""]
    assert talk.messages[2].parts == (ToolResult("", "f", (Text("first"),)), ToolResult("", "f", (Text("second"),)))


def test_roles() -> None:
    turns = read(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": "c", "name": "ann"},
        {"role": "assistant", "content": "d"},
    ).messages
    assert turns == (
        Message("system", (Text("a"),)),
        Message("system", (Text("b"),)),
        Message("user", (Text("c"),), "ann"),
        Message("assistant", (Text("d"),)),
    )


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "text", "text": "x"}, Text("x")),
        ({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}, Text("x", CacheMark())),
        (
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            Text("x", CacheMark("1h")),
        ),
        ("x", Text("x")),
        (
            {"type": "image_url", "image_url": {"url": "https://h/i.png", "detail": "low"}},
            Image(Url("https://h/i.png"), "low"),
        ),
        ({"type": "image_url", "image_url": "https://h/i.png"}, Image(Url("https://h/i.png"))),
        ({"type": "image_url", "image_url": {"url": "data:image/PNG;base64,AAAA"}}, Image(Bytes("image/png", "AAAA"))),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;charset=utf-8;base64,AAAA"}},
            Image(Bytes("image/png", "AAAA")),
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/JPG;base64,AAAA"}},
            Image(Bytes("image/jpeg", "AAAA")),
        ),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, Audio(Bytes("audio/wav", "AAAA"))),
        ({"type": "file", "file": {"file_id": "file-1"}}, Document(FileId("file-1"))),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
            Document(Bytes("application/pdf", "AAAA"), "a.pdf"),
        ),
        (
            {"type": "file", "file": {"filename": "a.txt", "file_data": "AAAA"}},
            Document(Bytes("text/plain", "AAAA"), "a.txt"),
        ),
        ({"type": "file", "file": {"file_data": "AAAA"}}, Document(Bytes("application/pdf", "AAAA"))),
        (
            {"type": "file", "file": {"filename": "a.json", "file_data": "e30="}},
            Document(Bytes("application/json", "e30="), "a.json"),
        ),
        (
            {"type": "file", "file": {"filename": "a.txt", "file_data": "JVBERi0="}},
            Document(Bytes("application/pdf", "JVBERi0="), "a.txt"),
        ),
        (
            {"type": "file", "file": {"filename": "a.docx", "file_data": "UEsDBBQ="}},
            Document(Bytes("application/zip", "UEsDBBQ="), "a.docx"),
        ),
        ({"type": "file", "file": {"file_data": "https://h/a.pdf"}}, Document(Url("https://h/a.pdf"))),
        (
            {"type": "file", "file": {"file_id": "f"}, "title": "T", "context": "C", "citations": {"enabled": True}},
            Document(FileId("f"), title="T", context="C", citations=True),
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}, "title": "T"},
            Document(Bytes("text/plain", "w6k="), title="T"),
        ),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/PDF", "data": "AAAA"},
                "cache_control": {"type": "ephemeral"},
                "citations": {"enabled": False},
            },
            Document(Bytes("application/pdf", "AAAA"), cache=CacheMark(), citations=False),
        ),
        ({"type": "document", "source": {"type": "url", "url": "https://h/a.pdf"}}, Document(Url("https://h/a.pdf"))),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}, "citations": {}}, Document(FileId("f"))),
        ({"type": "refusal", "refusal": "no"}, Refused("no")),
        ({"type": "thinking", "thinking": "hm", "signature": "S"}, Reasoning("hm", signature="S")),
        ({"type": "redacted_thinking", "data": "D"}, Reasoning("", redacted="D")),
    ],
)
def test_parts(part: Any, value: Any) -> None:
    assert parts(part) == (value,)


IMAGE = {"type": "image_url", "image_url": {"url": "https://h/i.png", "detail": "low"}}
FILE = {"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}}


@pytest.mark.parametrize(
    ("last", "marked"),
    [
        ({"type": "text", "text": "b"}, Text("b", CacheMark("1h"))),
        (IMAGE, Image(Url("https://h/i.png"), "low", CacheMark("1h"))),
        (FILE, Document(FileId("file-1"), "a.pdf", CacheMark("1h"))),
        ({"type": "text", "text": "b", "cache_control": {"ttl": "5m"}}, Text("b", CacheMark("5m"))),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, Audio(Bytes("audio/wav", "AAAA"))),
    ],
)
def test_a_mark_on_a_message_goes_to_its_last_part_where_that_can_have_one(last: Any, marked: Any) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "a"}, last], "cache_control": {"ttl": "1h"}}
    assert read(message).messages[0].parts == (Text("a"), marked)


def test_an_assistants_turn_keeps_thought_text_and_calls_in_order() -> None:
    turn = {
        "role": "assistant",
        "content": "I look",
        "thinking_blocks": [
            {"type": "thinking", "thinking": "hm", "signature": "S"},
            {"type": "redacted_thinking", "data": "D"},
        ],
        "tool_calls": [CALL, {**CALL, "id": "call_b", "extra_content": {"google": {"thought_signature": "T"}}}],
        "refusal": None,
    }
    assert read(USER, turn).messages[1].parts == (
        Reasoning("hm", signature="S"),
        Reasoning("", redacted="D"),
        Text("I look"),
        ToolUse("call_a", "f", '{"x": 1}'),
        ToolUse("call_b", "f", '{"x": 1}', "T"),
    )


def test_images_that_a_model_made_are_part_of_its_turn() -> None:
    image = {"index": 0, "type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    turn = {"role": "assistant", "content": "Here", "images": [image, {**image, "index": 1, **GOOGLES}]}
    assert read(USER, turn).messages[1].parts == (
        Text("Here"),
        Image(Bytes("image/png", "AA")),
        Image(Bytes("image/png", "AA"), signature="G"),
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"images": {"a": 1}}, "messages.1.images"),
        ({"images": [None]}, "messages.1.images.0"),
        ({"images": [{"type": "image_url"}]}, "messages.1.images.0.image_url"),
        ({"audio": {"id": "audio_1"}}, "messages.1.audio"),
    ],
)
def test_what_a_turn_cannot_have_said_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(USER, {"role": "assistant", "content": None, **fields})
    assert (caught.value.status, caught.value.param) == (400, param)


def piece(text: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, **more}


OPAQUE = {"type": "redacted_thinking", "data": "D"}
GOOGLES = {"extra_content": {"google": {"thought_signature": "G"}}}


@pytest.mark.parametrize(
    ("blocks", "thoughts"),
    [
        ([piece("a"), piece("b"), piece(signature="S")], [Reasoning("ab", "S")]),
        ([piece("a", signature=""), piece("b"), piece(signature="S")], [Reasoning("ab", "S")]),
        ([piece("a", signature="S"), piece("b", signature="T")], [Reasoning("a", "S"), Reasoning("b", "T")]),
        ([piece(signature="S"), piece(signature="T")], [Reasoning("", "S"), Reasoning("", "T")]),
        ([piece("a", signature="S"), piece("b"), piece("c")], [Reasoning("a", "S"), Reasoning("bc")]),
        ([piece("a"), OPAQUE, piece("b")], [Reasoning("a"), Reasoning("", redacted="D"), Reasoning("b")]),
        ([piece("a"), piece("b", **GOOGLES), piece("c")], [Reasoning("ab", thought_signature="G"), Reasoning("c")]),
        (
            [
                piece("a", index=0),
                piece("x", index=1),
                piece("b", index=0, signature="S"),
                piece(index=1, signature="T"),
            ],
            [Reasoning("ab", "S"), Reasoning("x", "T")],
        ),
        ([piece("a", index=0), piece("b", index=1)], [Reasoning("a"), Reasoning("b")]),
        ([piece("a", index=0), piece("b")], [Reasoning("a"), Reasoning("b")]),
        ([piece("a"), piece("b", index=0), piece("c")], [Reasoning("a"), Reasoning("b"), Reasoning("c")]),
        (
            [piece("a", index=0, signature="S"), piece("b", index=0, signature="T")],
            [Reasoning("a", "S"), Reasoning("b", "T")],
        ),
    ],
)
def test_pieces_of_a_streamed_thought_are_one_block_until_its_signature(
    blocks: list[dict[str, Any]], thoughts: list[Reasoning]
) -> None:
    turn = {"role": "assistant", "content": None, "thinking_blocks": blocks}
    assert read(USER, turn).messages[1].parts == tuple(thoughts)


def server_block(name: str, thoughts: int, characters: int, calls: int) -> dict[str, Any]:
    before = {"thinking_blocks": thoughts, "content": characters, "tool_calls": calls}
    return {"block": {"type": "server_tool_use", "name": name}, "before": before}


A, B, C = (ServerBlock({"type": "server_tool_use", "name": name}) for name in "abc")


def test_blocks_of_anthropics_own_tools_stand_where_they_stood() -> None:
    turn = {
        "role": "assistant",
        "content": "one two",
        "thinking_blocks": [piece("x", signature="S"), piece("y", signature="T")],
        "tool_calls": [CALL, {**CALL, "id": "call_b"}],
        "extra_content": {
            "anthropic": {
                "blocks": [server_block("a", 1, 0, 0), server_block("b", 2, 3, 0), server_block("c", 1, 3, 1)]
            }
        },
    }
    one, two = ToolUse("call_a", "f", '{"x": 1}'), ToolUse("call_b", "f", '{"x": 1}')
    assert read(USER, turn).messages[1].parts == (
        Reasoning("x", "S"), A, Reasoning("y", "T"), Text("one"), B, one, C, Text(" two"), two,
    )  # fmt: skip
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    whole = {**turn, "content": parts, "thinking_blocks": None, "tool_calls": None}
    assert read(USER, whole).messages[1].parts == (A, B, C, Text("one"), Text("two"))
    assert read(USER, {**whole, "content": None}).messages[1].parts == (A, B, C)


@pytest.mark.parametrize(
    "extra",
    [
        "x",
        {"anthropic": "x"},
        {"anthropic": {"blocks": "x"}},
        {"anthropic": {"blocks": ["x", {"block": {}, "before": {}}, {"block": {"type": "x_tool_use"}}]}},
    ],
)
def test_what_is_no_such_block_is_passed_over(extra: Any) -> None:
    turn = {"role": "assistant", "content": "x", "extra_content": extra}
    assert read(USER, turn).messages[1].parts == (Text("x"),)


def test_results_of_one_turn_come_together_with_their_functions_names() -> None:
    turns = read(
        USER,
        {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "call_b"}]},
        {"role": "tool", "tool_call_id": "call_b", "content": '{"$ref": "kept as it is"}'},
        {"role": "tool", "tool_call_id": "call_a", "content": [{"type": "text", "text": "x"}], "is_error": True},
        {"role": "tool", "tool_call_id": "call_zz", "content": "orphan"},
        USER,
    ).messages
    assert turns[2] == Message(
        "user",
        (
            ToolResult("call_b", "f", (Text('{"$ref": "kept as it is"}'),)),
            ToolResult("call_a", "f", (Text("x"),), is_error=True),
            ToolResult("call_zz", None, (Text("orphan"),)),
        ),
    )
    assert turns[3] == Message("user", (Text("Hello"),))


def test_the_deprecated_functions_are_read() -> None:
    talk = read(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "done"},
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    assert talk.messages[1].parts == (ToolUse("function_f", "f", "{}"),)
    assert talk.messages[2].parts == (ToolResult("function_f", "f", (Text("done"),)),)
    assert talk.tools == (Tool("f", None, {"type": "object"}),)
    assert talk.tool_choice == ToolChoice("named", ("f",))


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("named", ("f",))),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "f"}}]}},
            ToolChoice("allowed", ("f",), required=True),
        ),
        ({"type": "allowed_tools", "tools": [{"function": {"name": "f"}}]}, ToolChoice("allowed", ("f",))),
    ],
)
def test_tool_choices(given: Any, choice: ToolChoice) -> None:
    assert read(tool_choice=given).tool_choice == choice


def test_every_setting_has_its_place_and_the_rest_is_extra() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    talk = read(
        max_tokens=5, max_completion_tokens=7, stop="x", temperature=0, top_p=0.5, n=2, seed=-1, presence_penalty=1,
        frequency_penalty=2, logit_bias={"1": 2}, logprobs=True, top_logprobs=3, reasoning_effort="low",
        modalities=["text"], user="ann", service_tier="auto", metadata={"a": "b"}, parallel_tool_calls=False,
        response_format=schema, cache_control={"type": "ephemeral"}, thinking={"type": "adaptive"}, top_k=3, empty=None,
    )  # fmt: skip
    assert talk == Conversation(
        messages=(Message("user", (Text("Hello"),)),), parallel_tool_calls=False,
        response_format=ResponseFormat("json_schema", "n", {"type": "object"}, True), max_tokens=7, stop=("x",),
        temperature=0, top_p=0.5, n=2, seed=-1, presence_penalty=1, frequency_penalty=2, logit_bias={"1": 2},
        logprobs=True, top_logprobs=3, reasoning_effort="low", modalities=("text",), user="ann", service_tier="auto",
        metadata={"a": "b"}, cache=CacheMark(), extra={"thinking": {"type": "adaptive"}, "top_k": 3},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [1]}, "stop.0"),
        ({"stop": {"a": 1}}, "stop"),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": [7]}, "tools.0"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools.0.function.parameters"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}},
            "tool_choice",
        ),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"metadata": "x"}, "metadata"),
    ],
)
def test_a_wrong_setting_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "wizard", "content": "x"}, "messages.0.role"),
        ({"role": "user"}, "messages.0.content"),
        ({"role": "user", "content": 7}, "messages.0.content"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0.text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages.0.content.0.image_url"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,raw"}}]},
            "messages.0.content.0.image_url",
        ),
        ({"role": "user", "content": [{"type": "document"}]}, "messages.0.content.0.source"),
        (
            {"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": []}}]},
            "messages.0.content.0.source.type",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}, "citations": True}]},
            "messages.0.content.0.citations",
        ),
        ({"role": "tool", "content": "x"}, "messages.0.tool_call_id"),
        (
            {
                "role": "tool",
                "tool_call_id": "c",
                "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}],
            },
            "messages.0.content.0",
        ),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "messages.0.tool_calls.0.function"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "messages.0.tool_calls.0.id"),
        ({"role": "assistant", "tool_calls": "f"}, "messages.0.tool_calls"),
        (
            {"role": "assistant", "tool_calls": [CALL, {"id": "c", "type": "custom", "custom": {"name": "f"}}]},
            "messages.0.tool_calls.1",
        ),
    ],
)
def test_a_wrong_message_is_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(message)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_recorded_requests_are_read_or_refused_by_name() -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    read_whole = 0
    refused: list[tuple[str, str | None]] = []
    for recording in recordings.find(lambda r: r.api == "chat.completions"):
        body = recording.load()["request"].get("body")
        if not isinstance(body, dict):
            continue
        try:
            parse_conversation(parse_request({"model": "m", **body}))
            read_whole += 1
        except GatewayError as error:
            refused.append((recording.file, error.param))
    assert read_whole > 1_500
    assert len(refused) / read_whole < 0.01
    assert [file for file, param in refused if param is None] == [], "what is refused is refused by name"
