"""What Anthropic is sent for what a client of OpenAI's API asks, and what is left out or refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate import errors
from inferxgate.canonical.conversation import (
    Conversation,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolResult,
    ToolUse,
)
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects.anthropic_messages import DIALECT
from inferxgate.dialects.anthropic_requests import DEFAULT_MAX_TOKENS, JSON_ANSWER_TOOL, build_body
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError
from tests.recordings.anthropic_reading import sent_to_sdk

Json = dict[str, Any]

PLAIN = Abilities(max_output_tokens=8192)
BUDGET = Abilities(max_output_tokens=64_000, thinking="budget", temperature_with_top_p=False)
BOTH = Abilities(max_output_tokens=64_000, thinking="both", prefill=False)
ADAPTIVE = Abilities(max_output_tokens=128_000, thinking="adaptive", prefill=False, sampling=False)
OLD = Abilities(max_output_tokens=4096, json_schema=False)

USER = {"role": "user", "content": "Hello"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def build(*, abilities: Abilities = PLAIN, strict: bool = False, **fields: Any) -> tuple[Json, tuple[str, ...]]:
    """The request's JSON, checked by the SDK's types, and what was left out."""
    request = parse_request({"model": "m", "messages": [USER], **fields})
    call = DIALECT.build_request(request, BuildTarget("claude-host", "claude-x", abilities, strict=strict))
    assert call.operation == "chat"
    body: Json = json.loads(call.body)
    return body, call.dropped


def sent(**fields: Any) -> Json:
    body, dropped = build(**fields)
    assert dropped == ()
    sent_to_sdk(body)
    return body


def refused(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        build(**fields)
    assert caught.value.status == 400
    return caught.value


def said(*messages: Json, **fields: Any) -> list[Json]:
    turns: list[Json] = sent(messages=list(messages), **fields)["messages"]
    return turns


def calls(*ids: str, content: str | None = None) -> Json:
    made = [{"id": one, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": content, "tool_calls": made}


def result(call_id: str, content: Any = "fine") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


# --- the envelope


def test_a_plain_request() -> None:
    assert sent() == {
        "model": "claude-x",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "max_tokens": 8192,
    }
    assert sent(stream=True)["stream"] is True


def test_the_maximum_is_the_clients_else_the_models_else_a_constant() -> None:
    assert sent(max_tokens=7)["max_tokens"] == 7
    assert sent(max_completion_tokens=9)["max_tokens"] == 9
    assert sent()["max_tokens"] == 8192
    assert sent(abilities=Abilities())["max_tokens"] == DEFAULT_MAX_TOKENS


def test_json_too_deep_to_be_written_is_a_400() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    assert refused(context_management=deep).kind is errors.INVALID_JSON


# --- the system's words


def test_system_messages_are_hoisted_in_order_with_their_cache_marks() -> None:
    body = sent(
        messages=[
            {"role": "system", "content": "One"},
            {
                "role": "developer",
                "content": [
                    {"type": "text", "text": "Two", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                    {"type": "text", "text": " "},
                ],
            },
            USER,
            {"role": "system", "content": "Three"},
            {"role": "system", "content": ""},
        ]
    )
    assert body["system"] == [
        {"type": "text", "text": "One"},
        {"type": "text", "text": "Two", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "Three"},
    ]
    assert len(body["messages"]) == 1


def test_a_system_prompt_alone_is_what_the_user_says() -> None:
    body = sent(messages=[{"role": "system", "content": "Tell a joke"}])
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Tell a joke"}]}]
    assert "system" not in body


def test_system_messages_are_of_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    assert refused(messages=[{"role": "system", "content": [image]}, USER]).param == "messages.0.content"


# --- turns


def test_messages_of_one_role_become_one_turn_and_blanks_none() -> None:
    turns = said(
        {"role": "user", "content": "a"},
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "\n"}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "assistant", "content": None, "refusal": "No"},
        {"role": "user", "content": "e"},
    )
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in turns] == [
        ("user", ["a", "b", "c"]),
        ("assistant", ["d", "No"]),
        ("user", ["e"]),
    ]


def test_a_blank_users_message_between_answers_does_not_part_them() -> None:
    turns = said(USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": " "}, calls("c"), result("c"))
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]


def test_the_mark_of_a_blank_goes_to_what_stands_before_it() -> None:
    mark = {"type": "ephemeral"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "", "cache_control": mark}]
    assert said({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "a", "cache_control": mark}
    ]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": ""}], "messages"),
        ([{"role": "system", "content": " "}, {"role": "user", "content": []}], "messages"),
        ([USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": ""}], "messages.2.content"),
    ],
)
def test_nothing_to_answer_is_a_400(messages: list[Json], param: str) -> None:
    assert refused(messages=messages).param == param


def test_the_beginning_of_the_answer() -> None:
    begun = [USER, {"role": "assistant", "content": "It is \n"}]
    assert said(*begun)[-1]["content"] == [{"type": "text", "text": "It is"}]
    error = refused(messages=begun, abilities=ADAPTIVE)
    assert error.param == "messages.1"
    assert "beginning of the answer" in error.message
    assert "claude-host" in error.message
    blank = {"role": "assistant", "content": "\n"}
    assert len(said(USER, blank, abilities=ADAPTIVE)) == 1
    assert len(said(USER, {"role": "assistant", "content": "a"}, blank)) == 2


def test_a_participants_name_is_left_out_and_named() -> None:
    _, dropped = build(messages=[{**USER, "name": "ann"}])
    assert dropped == ("messages.name",)


# --- media


PNG = "iVBORw0KGgo="


def image(url: str, **more: Any) -> Json:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(**fields: Any) -> Json:
    return {"type": "file", "file": fields}


def data(kind: str, content: bytes | str) -> str:
    content = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            image(f"data:image/png;base64,{PNG}"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
        (
            image(f"data:image/jpg;base64,{PNG}", detail="auto"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG}},
        ),
        (
            image("https://x.example/a.png"),
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
        ),
        (
            {**image("https://x.example/a.png"), "cache_control": {"type": "ephemeral"}},
            {
                "type": "image",
                "source": {"type": "url", "url": "https://x.example/a.png"},
                "cache_control": {"type": "ephemeral"},
            },
        ),
        (
            image(data("application/pdf", "%PDF")),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            },
        ),
        (
            file(file_data="JVBERg==", filename="a.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "a.pdf",
            },
        ),
        (
            file(file_data=data("text/csv", "a,ü\n"), filename="t.csv"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "a,ü\n"},
                "title": "t.csv",
            },
        ),
        (
            file(file_data=data("application/json", "{}")),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "{}"}},
        ),
        (
            file(file_data=data("image/gif", "GIF")),
            {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lG"}},
        ),
        (
            file(file_data="https://x.example/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
        ),
        (file(file_id="file_1"), {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
    ],
)
def test_images_and_files(part: Json, block: Json) -> None:
    turns = said({"role": "user", "content": [{"type": "text", "text": "Look"}, part]})
    assert turns[0]["content"][1] == block


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (image("http://x.example/a.png"), "https://"),
        (image("ftp://x.example/a.png"), "data URL"),
        (image(data("image/svg+xml", "<svg/>")), "image/svg+xml"),
        (file(file_data=data("application/zip", "PK")), "application/zip"),
        (file(file_data=data("text/plain", b"\xff\xfe")), "UTF-8"),
        ({"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}, "Audio"),
    ],
)
def test_media_that_is_not_taken_is_a_400_with_its_place(part: Json, says: str) -> None:
    error = refused(messages=[{"role": "user", "content": [{"type": "text", "text": "Look"}, part]}])
    assert error.param == "messages.0.content.1"
    assert says in error.message


def test_the_detail_of_images_is_left_out_and_named() -> None:
    _, dropped = build(messages=[{"role": "user", "content": [image("https://x.example/a.png", detail="low")]}])
    assert dropped == ("image_url.detail",)


# --- calls and results


def test_results_stand_together_and_first_right_after_the_calls() -> None:
    turns = said(
        USER,
        calls("a", "b", content="I look"),
        result("b", "two"),
        {"role": "user", "content": "And?"},
        {"role": "system", "content": "Be kind"},
        result("a", [{"type": "text", "text": "one"}]),
    )
    assert [block["type"] for block in turns[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert turns[2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": "two"},
            {"type": "tool_result", "tool_use_id": "a", "content": "one"},
            {"type": "text", "text": "And?"},
        ],
    }


def test_results_of_every_kind() -> None:
    marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    turns = said(
        USER,
        calls("a", "b", "c", "d", "e"),
        {**result("a", "went wrong"), "is_error": True},
        result("b", ""),
        result("c", [{"type": "text", "text": "see"}, image(f"data:image/png;base64,{PNG}"), file(file_id="f")]),
        result("d", [marked]),
        {**result("e", [{"type": "text", "text": ""}, {"type": "text", "text": ""}]), "cache_control": {"ttl": "5m"}},
    )
    results = turns[2]["content"]
    assert results[0] == {"type": "tool_result", "tool_use_id": "a", "content": "went wrong", "is_error": True}
    assert results[1] == {"type": "tool_result", "tool_use_id": "b", "content": ""}
    assert [block["type"] for block in results[2]["content"]] == ["text", "image", "document"]
    assert results[3]["content"] == [marked]
    assert results[4] == {
        "type": "tool_result",
        "tool_use_id": "e",
        "content": "",
        "cache_control": {"type": "ephemeral", "ttl": "5m"},
    }


@pytest.mark.parametrize("text", ['{"$ref": "#/x", "n": 1.50}', "  blank \n", "<xml/>", "null", "\u0000"])
def test_the_words_of_a_result_are_never_touched(text: str) -> None:
    turns = said(USER, calls("a"), result("a", text))
    assert turns[2]["content"][0]["content"] == text


@pytest.mark.parametrize(
    ("messages", "param", "says"),
    [
        ([USER, result("a")], "messages.1.tool_call_id", "not among the calls"),
        ([USER, calls("a"), result("a"), result("b")], "messages.3.tool_call_id", "not among the calls"),
        ([USER, calls("a"), result("a"), result("a")], "messages.3.tool_call_id", "answered before"),
        (
            [USER, calls("a"), result("a"), {"role": "assistant", "content": "x"}, result("a")],
            "messages.4.tool_call_id",
            "not among the calls",
        ),
        ([USER, calls("a", "b"), result("a")], "messages.1.tool_calls.1", "has no result"),
        ([USER, calls("a"), USER], "messages.1.tool_calls.0", "has no result"),
        ([USER, calls("a")], "messages.1.tool_calls.0", "has no result"),
        (
            [USER, calls("a"), result("a"), calls("b", "c"), result("c"), result("b"), calls("d"), result("x")],
            "messages.7.tool_call_id",
            "not among the calls",
        ),
    ],
)
def test_orphans_are_named_by_the_clients_own_places(messages: list[Json], param: str, says: str) -> None:
    error = refused(messages=messages)
    assert error.param == param
    assert says in error.message


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("", {}),
        ("  ", {}),
        ("{}", {}),
        (' {"a": [1, 2.50, null, "\\u00fc"]} ', {"a": [1, 2.5, None, "ü"]}),
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
    ],
)
def test_arguments_are_sent_as_they_were_written(arguments: str, given: Json) -> None:
    turn = calls("a")
    turn["tool_calls"][0]["function"]["arguments"] = arguments
    assert said(USER, turn, result("a"))[1]["content"][0]["input"] == given


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "null", "NaN", '{"a": NaN}', '{"a": "\\ud800"}'])
def test_arguments_that_are_no_object_are_sent_raw_and_named(arguments: str) -> None:
    turn = calls("a", "b")
    turn["tool_calls"][1]["function"]["arguments"] = arguments
    body, dropped = build(messages=[USER, turn, result("a"), result("b")], strict=True)
    assert body["messages"][1]["content"][1]["input"] == {"_raw_arguments": arguments}
    assert dropped == ("messages.1.tool_calls.1.function.arguments",)


def test_ids_are_made_such_as_the_api_takes() -> None:
    turns = said(
        USER,
        calls("functions.weather:0", "functions_weather_0"),
        result("functions_weather_0", "second"),
        result("functions.weather:0", "first"),
        calls("functions.weather:0"),
        result("functions.weather:0", "again"),
    )
    ids = [block["id"] for turn in turns for block in turn["content"] if block["type"] == "tool_use"]
    assert ids == ["functions_weather_0", "functions_weather_0_2", "functions_weather_0_3"]
    assert [(block["tool_use_id"], block["content"]) for block in turns[2]["content"]] == [
        ("functions_weather_0_2", "second"),
        ("functions_weather_0", "first"),
    ]
    assert turns[4]["content"][0]["tool_use_id"] == ids[2]


def test_a_call_may_be_marked() -> None:
    turn = calls("a")
    turn["tool_calls"][0]["cache_control"] = {"type": "ephemeral"}
    assert said(USER, turn, result("a"))[1]["content"][0]["cache_control"] == {"type": "ephemeral"}


def test_a_call_may_have_no_id() -> None:
    uses = Message("assistant", (ToolUse("", "f", ""), ToolUse("", "g", "")))
    results = Message("user", (ToolResult("", None, (Text("1"),)), ToolResult("", None, (Text("2"),))))
    body, _ = build_body(Conversation(messages=(uses, results)), BuildTarget("h", "m", PLAIN))
    assert [block["id"] for block in body["messages"][0]["content"]] == ["call", "call_2"]
    assert [block["tool_use_id"] for block in body["messages"][1]["content"]] == ["call", "call_2"]


# --- what the model thought


def thinking(*blocks: Json, message: Json) -> Json:
    return {**message, "thinking_blocks": list(blocks)}


SEALED = {"type": "thinking", "thinking": "hm", "signature": "sig"}
EMPTY = {"type": "thinking", "thinking": "", "signature": "sig2"}
REDACTED = {"type": "redacted_thinking", "data": "opaque"}


def test_thoughts_come_back_first_and_unchanged() -> None:
    turns = said(USER, thinking(SEALED, REDACTED, EMPTY, message=calls("a", content="So")), result("a"))
    assert turns[1]["content"][:4] == [SEALED, REDACTED, EMPTY, {"type": "text", "text": "So"}]


def test_a_thought_without_signature_is_left_out_and_named() -> None:
    unsigned = {"type": "thinking", "thinking": "of another provider"}
    body, dropped = build(messages=[USER, thinking(SEALED, unsigned, message=calls("a")), result("a")], strict=True)
    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert dropped == ("messages.1.thinking_blocks.1",)
    alone = thinking(unsigned, message={"role": "assistant", "content": None})
    body, dropped = build(messages=[USER, alone, USER])
    assert len(body["messages"]) == 1
    assert dropped == ("messages.1.thinking_blocks.0",)


def test_a_turn_does_not_end_in_thought() -> None:
    cut = thinking(SEALED, message={"role": "assistant", "content": ""})
    body, dropped = build(messages=[USER, cut, {"role": "user", "content": "Go on"}])
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert [block["text"] for block in body["messages"][0]["content"]] == ["Hello", "Go on"]
    assert dropped == ("messages.1.thinking_blocks.0",)


# --- tools


def test_tools_are_described() -> None:
    marked = {**CLOCK, "cache_control": {"type": "ephemeral"}}
    assert sent(tools=[WEATHER, marked])["tools"] == [
        {
            "name": "weather",
            "description": "Tells the weather",
            "input_schema": WEATHER["function"]["parameters"],  # type: ignore[index]  # a dictionary
        },
        {
            "name": "clock",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral"},
        },
    ]


@pytest.mark.parametrize(
    ("choice", "sent_choice"),
    [
        (None, None),
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "clock"}}, {"type": "tool", "name": "clock"}),
    ],
)
def test_the_choice_of_tools(choice: Any, sent_choice: Json | None) -> None:
    body = sent(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert body.get("tool_choice") == sent_choice
    assert len(body["tools"]) == 2
    one = sent(tools=[WEATHER, CLOCK], tool_choice=choice, parallel_tool_calls=False)["tool_choice"]
    if choice == "none":
        assert one == {"type": "none"}
    else:
        assert one == {**(sent_choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    assert sent(tools=[WEATHER], tool_choice="auto", parallel_tool_calls=True)["tool_choice"] == {"type": "auto"}


@pytest.mark.parametrize(("mode", "kind"), [("auto", "auto"), ("required", "any")])
def test_allowed_tools_are_the_only_ones(mode: str, kind: str) -> None:
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "clock"}}]}
    body = sent(tools=[WEATHER, CLOCK], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["name"] for tool in body["tools"]] == ["clock"]
    assert body["tool_choice"] == {"type": kind}


def test_no_tool_allowed_is_no_tool() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    body = sent(tools=[WEATHER], tool_choice=allowed)
    assert "tools" not in body
    assert "tool_choice" not in body


def test_a_choice_without_tools() -> None:
    assert "tool_choice" not in sent(tool_choice="auto", parallel_tool_calls=False)
    assert "tool_choice" not in sent(tool_choice="none")
    assert refused(tool_choice="required").param == "tools"
    named = {"type": "function", "function": {"name": "other"}}
    assert refused(tools=[WEATHER], tool_choice=named).param == "tool_choice"
    assert refused(tool_choice=named).param == "tool_choice"


def strict_tool(schema: Json) -> Json:
    return {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}


def test_strict_tools_have_what_can_be_enforced() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    tool = sent(tools=[strict_tool(schema)])["tools"][0]
    assert tool["strict"] is True
    assert tool["input_schema"] == {
        "type": "object",
        "properties": {"n": {"type": "integer", "description": "{minimum: 1}"}},
        "required": ["n"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "abilities"), [({"type": "object"}, PLAIN), ({"type": "object", "properties": {"a": {}}}, OLD)]
)
def test_strictness_that_is_not_to_be_had_is_left_out_and_named(schema: Json, abilities: Abilities) -> None:
    body, dropped = build(tools=[strict_tool(schema)], abilities=abilities)
    assert body["tools"][0] == {"name": "f", "input_schema": schema}
    assert dropped == ("tools.0.function.strict",)


def test_parameters_that_are_no_object_are_a_400() -> None:
    assert refused(tools=[CLOCK, strict_tool({"type": "string"})]).param == "tools.1.function.parameters"


# --- the form of the answer

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def form(schema: Json | None) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}


def test_a_schema_is_native_where_the_model_has_that() -> None:
    body = sent(response_format=form(PERSON))
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {**PERSON, "additionalProperties": False}}
    }
    assert "tools" not in body
    assert "output_config" not in sent(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("wanted", "abilities", "schema"),
    [
        (form(PERSON), OLD, PERSON),
        ({"type": "json_object"}, PLAIN, {"type": "object", "additionalProperties": True}),
        (form({"type": "object"}), PLAIN, {"type": "object"}),
    ],
)
def test_else_the_answer_is_the_input_of_a_tool(wanted: Json, abilities: Abilities, schema: Json) -> None:
    body = sent(response_format=wanted, abilities=abilities)
    assert [tool["name"] for tool in body["tools"]] == [JSON_ANSWER_TOOL]
    assert body["tools"][0]["input_schema"] == schema
    assert body["tool_choice"] == {"type": "tool", "name": JSON_ANSWER_TOOL, "disable_parallel_tool_use": True}
    assert "output_config" not in body


def test_other_tools_may_be_called_before_the_answer() -> None:
    wanted = {"response_format": form(PERSON), "abilities": OLD, "tools": [WEATHER]}
    body = sent(**wanted)
    assert [tool["name"] for tool in body["tools"]] == ["weather", JSON_ANSWER_TOOL]
    assert body["tool_choice"] == {"type": "any"}
    one = sent(**wanted, parallel_tool_calls=False)
    assert one["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    none = sent(**wanted, tool_choice="none")
    assert none["tool_choice"]["name"] == JSON_ANSWER_TOOL
    forced = sent(**wanted, tool_choice="required")  # a call is wanted, and no text
    assert [tool["name"] for tool in forced["tools"]] == ["weather"]
    assert forced["tool_choice"] == {"type": "any"}


def test_a_form_that_cannot_be_had_is_a_400() -> None:
    assert refused(response_format=form(None)).param == "response_format.json_schema.schema"
    error = refused(response_format=form({"type": "string"}), abilities=OLD)
    assert error.param == "response_format"
    assert "claude-host" in error.message


# --- thinking


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 1024), ("low", 1024), ("medium", 2048), ("high", 4096), ("xhigh", 8192), ("max", 16384)],
)
def test_effort_as_a_budget(effort: str, budget: int) -> None:
    body = sent(reasoning_effort=effort, abilities=BUDGET)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert body["max_tokens"] == 64_000
    assert "output_config" not in body


def test_the_maximum_is_raised_above_the_budget() -> None:
    body, dropped = build(reasoning_effort="high", max_tokens=500, abilities=BUDGET)
    assert body["max_tokens"] == 4596
    assert dropped == ("max_tokens",)
    assert sent(reasoning_effort="high", max_tokens=5000, abilities=BUDGET)["max_tokens"] == 5000
    small = replace(BUDGET, max_output_tokens=4096)
    body, dropped = build(reasoning_effort="max", max_tokens=100, abilities=small)
    assert body["thinking"]["budget_tokens"] == 2048
    assert body["max_tokens"] == 2148
    unknown = replace(BUDGET, max_output_tokens=None)
    assert sent(reasoning_effort="max", abilities=unknown)["max_tokens"] == 16384 + DEFAULT_MAX_TOKENS
    assert refused(reasoning_effort="high", max_tokens=500, abilities=BUDGET, strict=True).param == "max_tokens"


@pytest.mark.parametrize(
    ("effort", "sent_effort"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "xhigh"), ("max", "max")],
)
def test_effort_of_adaptive_models(effort: str, sent_effort: str) -> None:
    body = sent(reasoning_effort=effort, abilities=ADAPTIVE)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": sent_effort}
    both = sent(reasoning_effort=effort, abilities=BOTH, response_format=form(PERSON))
    assert both["thinking"] == {"type": "adaptive"}
    assert both["output_config"]["effort"] == ("high" if effort == "xhigh" else sent_effort)
    assert "format" in both["output_config"]


def test_effort_none_and_unknown_and_unheard_of() -> None:
    for abilities in (BUDGET, BOTH, ADAPTIVE):
        assert sent(reasoning_effort="none", abilities=abilities)["thinking"] == {"type": "disabled"}
    assert "thinking" not in sent(reasoning_effort="none", abilities=PLAIN)
    assert refused(reasoning_effort="huge", abilities=BUDGET).param == "reasoning_effort"
    body, dropped = build(reasoning_effort="high", abilities=PLAIN)
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)


def test_thinking_that_the_client_spelt_itself_is_sent_as_it_is() -> None:
    given = {"type": "enabled", "budget_tokens": 9000, "display": "omitted"}
    body = sent(thinking=given, abilities=ADAPTIVE)
    assert body["thinking"] == given
    body, dropped = build(thinking=given, max_tokens=10, abilities=BUDGET, reasoning_effort="low")
    assert body["thinking"] == given
    assert body["max_tokens"] == 9010
    assert dropped == ("reasoning_effort", "max_tokens")
    beside = sent(thinking={"type": "adaptive"}, reasoning_effort="max", abilities=ADAPTIVE)
    assert (beside["thinking"], beside["output_config"]) == ({"type": "adaptive"}, {"effort": "max"})
    assert refused(thinking="yes").param == "thinking"


def test_thinking_stands_back_for_what_cannot_go_with_it() -> None:
    forced: Json = {"tools": [WEATHER], "tool_choice": "required", "reasoning_effort": "high"}
    body, dropped = build(**forced, abilities=BUDGET)
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)
    body = sent(**forced, abilities=ADAPTIVE)
    assert "thinking" not in body
    assert body["output_config"] == {"effort": "high"}
    begun = [USER, {"role": "assistant", "content": "It"}]
    _, dropped = build(messages=begun, reasoning_effort="low", abilities=BUDGET)
    assert dropped == ("reasoning_effort",)


def test_a_loop_of_calls_whose_thoughts_are_lost_goes_on_without_thinking() -> None:
    lost = [USER, calls("a"), result("a"), calls("b"), result("b")]
    body, dropped = build(messages=lost, reasoning_effort="low", abilities=BUDGET)
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)
    body, dropped = build(messages=lost, thinking={"type": "enabled", "budget_tokens": 1024}, abilities=BUDGET)
    assert "thinking" not in body
    assert dropped == ("thinking",)
    assert sent(messages=lost, reasoning_effort="low", abilities=BOTH)["thinking"] == {"type": "adaptive"}
    kept = [USER, thinking(SEALED, message=calls("a")), result("a"), calls("b"), result("b")]
    assert "thinking" in sent(messages=kept, reasoning_effort="low", abilities=BUDGET)
    over = [*lost, {"role": "assistant", "content": "Done"}, USER]
    assert "thinking" in sent(messages=over, reasoning_effort="low", abilities=BUDGET)
    earlier = [*kept, {"role": "assistant", "content": "Done"}, USER, calls("c"), result("c")]
    _, dropped = build(messages=earlier, reasoning_effort="low", abilities=BUDGET)
    assert dropped == ("reasoning_effort",)


# --- sampling and the rest


@pytest.mark.parametrize(
    ("fields", "abilities", "kept", "names"),
    [
        ({"temperature": 0.3}, PLAIN, {"temperature": 0.3}, ()),
        ({"temperature": 0.0, "top_k": 5}, PLAIN, {"temperature": 0.0, "top_k": 5}, ()),
        ({"temperature": 1.5}, PLAIN, {}, ("temperature",)),
        ({"temperature": 0.3, "top_p": 0.9}, PLAIN, {"temperature": 0.3, "top_p": 0.9}, ()),
        ({"temperature": 0.3, "top_p": 0.9}, BUDGET, {"temperature": 0.3}, ("top_p",)),
        ({"temperature": 1.5, "top_p": 0.9}, BUDGET, {"top_p": 0.9}, ("temperature",)),
        ({"temperature": 1, "top_p": 0.9, "top_k": 5}, ADAPTIVE, {}, ("temperature", "top_p", "top_k")),
        (
            {"temperature": 0.3, "top_p": 0.9, "top_k": 5, "reasoning_effort": "low"},
            BUDGET,
            {},
            ("temperature", "top_p", "top_k"),
        ),
        ({"temperature": 1, "reasoning_effort": "low"}, BUDGET, {"temperature": 1}, ()),
        ({"top_p": 0.96, "reasoning_effort": "low"}, BUDGET, {"top_p": 0.96}, ()),
    ],
)
def test_sampling_as_far_as_the_model_takes_it(
    fields: Json, abilities: Abilities, kept: Json, names: tuple[str, ...]
) -> None:
    body, dropped = build(**fields, abilities=abilities)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == kept
    assert dropped == names
    for name in names:
        with pytest.raises(GatewayError) as caught:
            build(**fields, abilities=abilities, strict=True)
        assert caught.value.code == "unsupported_parameter"
        assert caught.value.param in names, name
        assert "claude-host" in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("presence_penalty", 0.5),
        ("frequency_penalty", 0.5),
        ("logit_bias", {"1": 2}),
        ("service_tier", "flex"),
        ("store", True),
        ("verbosity", "low"),
        ("prediction", {"type": "content", "content": "x"}),
        ("prompt_cache_key", "k"),
        ("metadata", {"team": "a"}),
        ("stop", ["\n"]),
    ],
)
def test_tuning_that_is_not_taken_is_left_out_and_named(name: str, value: Any) -> None:
    body, dropped = build(**{name: value})
    assert dropped == (name,)
    assert body == sent()
    error = refused(**{name: value}, strict=True)
    assert (error.code, error.param) == ("unsupported_parameter", name)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
)
def test_meaning_that_there_are_no_words_for_is_a_400(fields: Json, param: str) -> None:
    error = refused(**fields)
    assert (error.code, error.param) == ("unsupported_parameter", param)
    assert "claude-host" in error.message


def test_meaning_that_asks_for_nothing_is_no_matter() -> None:
    assert sent(n=1, logprobs=False, top_logprobs=0, modalities=["text"], seed=None, stop=[]) == sent()


def test_stop_sequences() -> None:
    assert sent(stop="END")["stop_sequences"] == ["END"]
    body, dropped = build(stop=["END", " \n", "\nObservation:"])
    assert body["stop_sequences"] == ["END", "\nObservation:"]
    assert dropped == ("stop",)


@pytest.mark.parametrize(
    ("fields", "user_id", "names"),
    [
        ({"user": "u"}, "u", ()),
        ({"safety_identifier": "s"}, "s", ()),
        ({"user": "u", "safety_identifier": "u"}, "u", ()),
        ({"user": "u", "safety_identifier": "s"}, "u", ("safety_identifier",)),
        ({"metadata": {"user_id": "m"}}, "m", ()),
        ({"metadata": {"user_id": "m", "x": "y"}, "user": "u"}, "m", ("user", "metadata")),
    ],
)
def test_who_asks(fields: Json, user_id: str, names: tuple[str, ...]) -> None:
    body, dropped = build(**fields)
    assert body["metadata"] == {"user_id": user_id}
    assert dropped == names


@pytest.mark.parametrize(("tier", "sent_tier"), [("auto", "auto"), ("priority", "auto"), ("default", "standard_only")])
def test_service_tiers(tier: str, sent_tier: str) -> None:
    assert sent(service_tier=tier)["service_tier"] == sent_tier


def test_the_providers_own_settings_go_through() -> None:
    own: Json = {
        "container": "c_1",
        "mcp_servers": [{"type": "url", "url": "https://x.example", "name": "m"}],
        "context_management": {"edits": []},
        "inference_geo": "eu",
        "of_the_future": [1],
    }
    body, dropped = build(**own)
    assert {name: body[name] for name in own} == own
    assert dropped == ()
    assert sent(cache_control={"type": "ephemeral", "ttl": "1h"})["cache_control"]["ttl"] == "1h"


def test_the_providers_own_spelling_joins_or_is_refused() -> None:
    body = sent(output_config={"effort": "max"}, response_format=form(PERSON))
    assert set(body["output_config"]) == {"effort", "format"}
    assert sent(system="Be kind")["system"] == "Be kind"
    both = refused(system="Be kind", messages=[{"role": "system", "content": "x"}, USER])
    assert both.param == "system"
    assert refused(stop="a", stop_sequences=["b"]).param == "stop_sequences"


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({}, None),
        ({"anthropic_beta": ["a-1", "b-2"]}, "a-1,b-2"),
        ({"betas": "a-1, b-2", "anthropic_beta": ["b-2"]}, "b-2,a-1"),
    ],
)
def test_betas_become_a_header(fields: Json, header: str | None) -> None:
    request = parse_request({"model": "m", "messages": [USER], **fields})
    call = DIALECT.build_request(request, BuildTarget("h", "m", PLAIN))
    assert call.headers.get("anthropic-beta") == header
    assert not {"betas", "anthropic_beta"} & json.loads(call.body).keys()


@pytest.mark.parametrize("betas", [["a\r\nx: y"], [1], [""], ["a b"]])
def test_betas_that_are_no_names_are_a_400(betas: Any) -> None:
    assert refused(betas=betas).param == "betas"


# --- build, then read again

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Talks as the API has them: turns in alternation, every call answered at once."""
    messages: list[Message] = []
    for turn in range(draw(st.integers(0, 4))):
        messages.append(Message("user", tuple(draw(st.lists(st.builds(Text, words), min_size=1, max_size=2)))))
        thoughts = st.builds(Reasoning, words, words) | st.builds(lambda data: Reasoning("", redacted=data), words)
        parts: list[Part] = [*draw(st.lists(thoughts, max_size=2)), Text(draw(words))]
        uses = [
            ToolUse(f"c{turn}_{number}", draw(words), json.dumps(draw(st.dictionaries(words, st.integers()))))
            for number in range(draw(st.integers(0, 3)))
        ]
        messages.append(Message("assistant", (*parts, *uses)))
        results = [ToolResult(use.id, None, (Text(draw(words)),), draw(st.booleans())) for use in uses]
        if results:
            messages.append(Message("user", tuple(draw(st.permutations(results)))))
            messages.append(Message("assistant", (Text(draw(words)),)))
    messages.append(Message("user", (Text(draw(words)),)))
    return Conversation(messages=tuple(messages), tools=(Tool("f", None, None),))


def again(body: Json) -> list[Message]:
    """The messages of a request, read back."""
    messages = []
    for turn in body["messages"]:
        parts: list[Part] = []
        for block in turn["content"]:
            match block:
                case {"type": "text", "text": text}:
                    parts.append(Text(text))
                case {"type": "thinking", "thinking": text, "signature": signature}:
                    parts.append(Reasoning(text, signature))
                case {"type": "redacted_thinking", "data": redacted}:
                    parts.append(Reasoning("", redacted=redacted))
                case {"type": "tool_use", "id": call_id, "name": name, "input": given}:
                    parts.append(ToolUse(call_id, name, json.dumps(given)))
                case {"type": "tool_result", "tool_use_id": call_id, "content": text}:
                    parts.append(ToolResult(call_id, None, (Text(text),), block.get("is_error", False)))
        messages.append(Message(turn["role"], tuple(parts)))
    return messages


@given(conversations())
def test_building_and_reading_again_changes_nothing(conversation: Conversation) -> None:
    built, dropped = build_body(conversation, BuildTarget("h", "m", PLAIN))
    body = json.loads(orjson.dumps(built))
    assert dropped == ()
    assert again(body) == list(conversation.messages)
    sent_to_sdk(body)
