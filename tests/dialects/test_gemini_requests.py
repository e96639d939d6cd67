"""What Gemini is sent for what an OpenAI client asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from inferxgate.canonical.conversation import Bytes
from inferxgate.dialects.protocol import MediaNeeded
from tests.dialects.gemini_asking import (
    LEVELS,
    STAND_IN,
    Json,
    assistant,
    call_for,
    config,
    contents,
    function,
    refusal,
    result,
    sent,
    target,
    tool_call,
    user,
)

# --- requests: messages -------------------------------------------------------------------------------------------


def test_roles_and_system_messages_from_everywhere() -> None:
    built = sent(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                user("a"),
                {"role": "developer", "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": ""}]},
                user("b"),
                assistant("c"),
                assistant("d"),
                user("e"),
            ]
        }
    )
    assert built == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
            {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
            {"role": "user", "parts": [{"text": "e"}]},
        ],
    }


def test_the_body_never_names_what_the_client_did_not() -> None:
    assert sent({}) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_system_alone_and_empty_messages() -> None:
    only = sent({"messages": [{"role": "system", "content": "s"}]})
    assert only["contents"] == [{"role": "user", "parts": [{"text": ""}]}]
    assert contents(user("a"), assistant(None), user("")) == [{"role": "user", "parts": [{"text": "a"}, {"text": ""}]}]
    assert contents(user([])) == [{"role": "user", "parts": [{"text": ""}]}]


def test_system_messages_hold_text_only() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    error = refusal({"messages": [user("a"), {"role": "system", "content": [picture]}]})
    assert error.param == "messages.1.content.0"


def test_media_that_came_with_the_request() -> None:
    parts = contents(
        user(
            [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/webp;base64,AAAA", "detail": "auto"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
                {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}},
                {"type": "input_audio", "input_audio": {"data": "DDDD", "format": "mp3"}},
            ]
        )
    )[0]["parts"]
    assert parts == [
        {"text": "look"},
        {"inlineData": {"mimeType": "image/webp", "data": "AAAA"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "BBBB"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "CCCC"}},
        {"inlineData": {"mimeType": "audio/mp3", "data": "DDDD"}},
    ]


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("gs://bucket/a.png", {"fileUri": "gs://bucket/a.png", "mimeType": "image/png"}),
        ("https://youtu.be/abc", {"fileUri": "https://youtu.be/abc", "mimeType": "video/mp4"}),
        (
            "https://www.youtube.com/watch?v=abc",
            {"fileUri": "https://www.youtube.com/watch?v=abc", "mimeType": "video/mp4"},
        ),
        (
            "https://generativelanguage.googleapis.com/v1beta/files/abc-1",
            {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc-1"},
        ),
    ],
)
def test_media_that_google_has(url: str, data: Json) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert contents(user([part]))[0]["parts"] == [{"fileData": data}]


def test_what_is_said_of_a_document_has_no_place() -> None:
    file = {"type": "file", "file": {"file_data": "AAAA"}, "title": "T", "context": "C", "citations": {"enabled": True}}
    call = call_for({"messages": [user([file])]})
    assert call.dropped == tuple(f"messages.0.content.0.{name}" for name in ("title", "context", "citations"))
    assert refusal({"messages": [user([file])]}, target(strict=True)).param == "messages.0.content.0.title"
    assert call_for({"messages": [user([{**file, "title": None, "context": "", "citations": {}}])]}).dropped == ()


def test_a_file_by_its_id_at_google() -> None:
    file = {"type": "file", "file": {"file_id": "files/abc", "filename": "a.pdf"}}
    assert contents(user([file]))[0]["parts"] == [
        {
            "fileData": {
                "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc",
                "mimeType": "application/pdf",
            }
        }
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "https://youtube.com.example.com/watch"}},
        {"type": "image_url", "image_url": {"url": "http://youtu.be/x"}},
        {"type": "image_url", "image_url": {"url": "https://[bad"}},
        {"type": "file", "file": {"file_id": "file-abc"}},
        {"type": "file", "file": {"file_id": "files/../models"}},
    ],
)
def test_what_would_have_to_be_fetched_is_refused_and_told_how_to_be_sent(part: Json) -> None:
    error = refusal({"messages": [user("a"), user([{"type": "text", "text": "x"}, part])]})
    assert (error.code, error.param) == ("unsupported_parameter", "messages.1.content.1")
    assert "data URL" in error.message


PICTURE = {"type": "image_url", "image_url": {"url": "HTTPS://example.com/a.png?x"}}
GOOGLES = {"google": {"thought_signature": "G"}}
PAPER = {"type": "file", "file": {"file_id": "https://example.com/a.pdf", "filename": "a.pdf"}}
IN_A_RESULT = [user("q"), assistant(None, tool_call(signature="cw==")), result([PICTURE])]


def test_what_would_have_to_be_fetched_is_named_with_what_is_taken_there() -> None:
    with pytest.raises(MediaNeeded) as raised:
        call_for({"messages": [*IN_A_RESULT, user([PAPER, PICTURE])]})
    picture, paper = "HTTPS://example.com/a.png?x", "https://example.com/a.pdf"
    either = {"image/png", "application/pdf"}
    wanted = {each.where: (each.url, either & each.accepts) for each in raised.value.wanted}
    assert wanted == {
        "messages.2.content.0": (picture, {"image/png"}),
        "messages.3.content.0": (paper, either),
        "messages.3.content.1": (picture, {"image/png"}),
    }
    assert raised.value.param in wanted


def test_what_was_fetched_stands_where_its_urls_did() -> None:
    fetched = {
        "HTTPS://example.com/a.png?x": Bytes("image/png", "AA=="),
        "https://example.com/a.pdf": Bytes("application/pdf", "BB=="),
    }
    built = contents(*IN_A_RESULT, user([PAPER, PICTURE]), to=replace(LEVELS, fetched=fetched))
    picture = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    paper = {"inlineData": {"mimeType": "application/pdf", "data": "BB=="}}
    assert built[2]["parts"][0]["functionResponse"]["parts"] == [picture]
    assert built[2]["parts"][1:] == [paper, picture]


@pytest.mark.parametrize(
    "wrong",
    [
        {"web_search_options": {}},
        {"stop": ["a"] * 6},
        {"google": {"contents": []}},
        {"messages": [user([PICTURE]), user([{"type": "file", "file": {"file_id": "file-abc"}}])]},
    ],
)
def test_nothing_is_fetched_for_what_is_refused_anyway(wrong: Json) -> None:
    assert not isinstance(refusal({"messages": [user([PICTURE])], **wrong}), MediaNeeded)
    with pytest.raises(MediaNeeded):
        call_for({"messages": [user([PICTURE])]})


def test_details_and_names_are_left_out_and_named() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "high"}}
    call = call_for({"messages": [{**user([picture]), "name": "ann"}]})
    assert call.dropped == ("messages.0.name", "messages.0.content.0.image_url.detail")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user([{"type": "refusal", "refusal": "no"}]), "messages.0.content.0"),
        (assistant([{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]), "messages.0.content.0"),
    ],
)
def test_parts_in_the_wrong_place(message: Json, param: str) -> None:
    assert refusal({"messages": [message]}).param == param


def test_an_answer_that_goes_on_is_a_question_of_the_model() -> None:
    messages = [user("a"), assistant("Once")]
    assert contents(*messages)[-1] == {"role": "model", "parts": [{"text": "Once"}]}
    assert refusal({"messages": messages}, target(prefill=False)).param == "messages"


# --- requests: tools and their results ----------------------------------------------------------------------------


def test_calls_and_results() -> None:
    built = contents(
        user("q"),
        assistant("I look.", tool_call(arguments='{"a": [1, 2.5, null, "é"]}'), tool_call("c2", "find", "")),
        result("x", "c2"),
        result("y"),
        user("and?"),
    )
    assert built[1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"id": "c1", "name": "look", "args": {"a": [1, 2.5, None, "é"]}}},
                {"functionCall": {"id": "c2", "name": "find", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "look", "response": {"output": "y"}}},
                {"functionResponse": {"id": "c2", "name": "find", "response": {"output": "x"}}},
                {"text": "and?"},
            ],
        },
    ]


def test_calls_with_empty_ids_are_told_apart_by_their_order() -> None:
    calls = assistant(None, tool_call(""), tool_call("", "find"))
    built = contents(user("q"), calls, result("x", ""), result("y", ""))
    assert [part["functionCall"] for part in built[1]["parts"]] == [
        {"name": "look", "args": {}},
        {"name": "find", "args": {}},
    ]
    assert [part["functionResponse"] for part in built[2]["parts"]] == [
        {"name": "look", "response": {"output": "x"}},
        {"name": "find", "response": {"output": "y"}},
    ]


@pytest.mark.parametrize(
    ("content", "more", "response"),
    [
        ('{"$ref": "#/x", "output": 1}', {}, {"output": '{"$ref": "#/x", "output": 1}'}),
        ("", {}, {"output": ""}),
        (None, {}, {"output": ""}),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {}, {"output": ["a", "b"]}),
        ("boom", {"is_error": True}, {"error": "boom"}),
    ],
)
def test_results_are_wrapped_and_never_touched(content: object, more: Json, response: Json) -> None:
    built = contents(user("q"), assistant(None, tool_call()), result(content, **more))
    assert built[2]["parts"][0]["functionResponse"]["response"] == response


def test_images_in_results_lie_where_the_model_takes_them() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    data = {"inlineData": {"mimeType": "image/png", "data": "AA"}}
    messages = [
        user("q"),
        assistant(None, tool_call(signature="cw=="), tool_call("c2", "find")),
        result([{"type": "text", "text": "here"}, picture]),
        result("y", "c2"),
    ]
    first = {"id": "c1", "name": "look", "response": {"output": "here"}}
    second = {"functionResponse": {"id": "c2", "name": "find", "response": {"output": "y"}}}
    assert contents(*messages, to=LEVELS)[2]["parts"] == [{"functionResponse": {**first, "parts": [data]}}, second]
    assert contents(*messages)[2]["parts"] == [{"functionResponse": first}, second, data]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user("q"), result()], "messages.1.tool_call_id"),
        ([user("q"), assistant(None, tool_call()), result(), result("y", "c9")], "messages.3.tool_call_id"),
        ([user("q"), assistant(None, tool_call()), result(), result()], "messages.3.tool_call_id"),
        (
            [user("q"), assistant(None, tool_call()), result(), assistant("a"), user("b"), result()],
            "messages.5.tool_call_id",
        ),
        (
            [user("q"), assistant(None, tool_call(), tool_call("c2")), result(), user("b")],
            "messages.1.tool_calls.1",
        ),
        ([user("q"), assistant("text", tool_call())], "messages.1.tool_calls.0"),
        ([user("q"), assistant(None, tool_call()), user("b")], "messages.1.tool_calls.0"),
    ],
)
def test_calls_and_results_that_do_not_match_are_named(messages: list[Json], param: str) -> None:
    error = refusal({"messages": messages})
    assert (error.code, error.param) == ("invalid_value", param)


def test_ids_used_again_in_later_turns_and_within_one() -> None:
    built = contents(
        user("q"),
        assistant(None, tool_call(name="one")),
        result("1"),
        assistant(None, tool_call(name="two"), tool_call(name="three")),
        result("2"),
        result("3"),
    )
    responses = [part["functionResponse"] for turn in built for part in turn["parts"] if "functionResponse" in part]
    assert [(item["name"], item["response"]["output"]) for item in responses] == [
        ("one", "1"),
        ("two", "2"),
        ("three", "3"),
    ]


def test_a_turn_of_several_assistant_messages_and_results_around_a_system_message() -> None:
    built = contents(
        user("q"),
        assistant(None, tool_call()),
        assistant(None, tool_call("c2")),
        result("1"),
        {"role": "system", "content": "s"},
        result("2", "c2"),
        assistant("so"),
    )
    assert [turn["role"] for turn in built] == ["user", "model", "user", "model"]
    assert [len(turn["parts"]) for turn in built] == [1, 2, 2, 1]


@pytest.mark.parametrize("arguments", ["{broken", "[1]", '"text"', "12"])
def test_arguments_that_are_no_object_are_sent_raw_and_named(arguments: str) -> None:
    call = call_for({"messages": [user("q"), assistant(None, tool_call(arguments=arguments)), result()]})
    part = json.loads(call.body)["contents"][1]["parts"][0]
    assert part["functionCall"]["args"] == {"_raw_arguments": arguments}
    assert call.dropped == ("messages.1.tool_calls.0.function.arguments",)


def test_arguments_of_null_are_none() -> None:
    built = contents(user("q"), assistant(None, tool_call(arguments="null")), result())
    assert built[1]["parts"][0]["functionCall"]["args"] == {}


def test_images_that_the_model_made_go_back_with_their_signatures() -> None:
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    turn = assistant("Here", images=[{"index": 0, **url}, {"index": 1, **url, "extra_content": GOOGLES}])
    image = {"inlineData": {"mimeType": "image/png", "data": "AA"}}
    built = contents(user("draw"), turn, user("bluer"))
    assert built[1] == {"role": "model", "parts": [{"text": "Here"}, image, {**image, "thoughtSignature": "G"}]}
    elsewhere = assistant(None, images=[{"image_url": {"url": "https://example.com/a.png"}}])
    assert refusal({"messages": [user("draw"), elsewhere, user("bluer")]}).param == "messages.1.images.0"


# --- requests: reasoning state ------------------------------------------------------------------------------------


def test_signatures_return_to_the_parts_they_came_on() -> None:
    signed_by_google = {"extra_content": {"google": {"thought_signature": "dA=="}}}
    built = contents(
        user("q"),
        assistant(
            "Done.",
            tool_call(signature="cw=="),
            tool_call("c2"),
            thinking_blocks=[
                {"type": "thinking", "thinking": "hm", "signature": "", **signed_by_google},
                {"type": "thinking", "thinking": "so", "signature": ""},
            ],
            extra_content={"google": {"thought_signature": "dGV4dA=="}},
        ),
        result(),
        result("y", "c2"),
        to=LEVELS,
    )
    assert built[1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "dA=="},
        {"text": "so", "thought": True},
        {"text": "Done.", "thoughtSignature": "dGV4dA=="},
        {"functionCall": {"id": "c1", "name": "look", "args": {}}, "thoughtSignature": "cw=="},
        {"functionCall": {"id": "c2", "name": "look", "args": {}}},
    ]


def test_another_vendors_signatures_are_left_out_and_named() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "Claude's"},
        {"type": "redacted_thinking", "data": "Claude's"},
        {"type": "thinking", "thinking": "", "signature": "Claude's"},
    ]
    message = assistant(None, tool_call(), thinking_blocks=blocks)
    call = call_for({"messages": [user("q"), message, result()]}, LEVELS)
    assert json.loads(call.body)["contents"][1]["parts"] == [
        {"text": "hm", "thought": True},
        {"functionCall": {"id": "c1", "name": "look", "args": {}}, "thoughtSignature": STAND_IN},
    ]
    assert call.dropped == tuple(f"messages.1.thinking_blocks.{place}" for place in ("0.signature", "1", "2.signature"))


def test_what_anthropics_own_tools_said_is_left_out_and_named() -> None:
    entry = {"block": {"type": "server_tool_use"}, "before": {"content": 1}}
    message = assistant("ab", extra_content={"anthropic": {"blocks": [entry, entry]}})
    call = call_for({"messages": [user("q"), message, user("r")]})
    assert json.loads(call.body)["contents"][1]["parts"] == [{"text": "a"}, {"text": "b"}]
    assert call.dropped == ("messages.1.extra_content.anthropic",)


def test_a_signature_without_text_gets_empty_text() -> None:
    message = assistant(None, extra_content={"google": {"thought_signature": "dA=="}})
    assert contents(user("q"), message, user("r"))[1]["parts"] == [{"text": "", "thoughtSignature": "dA=="}]


def test_calls_without_any_signature_get_the_stand_in_where_one_is_demanded() -> None:
    messages = [user("q"), assistant(None, tool_call(), tool_call("c2")), result(), result("y", "c2")]
    demanded = contents(*messages, to=LEVELS)[1]["parts"]
    assert [part.get("thoughtSignature") for part in demanded] == [STAND_IN, None]
    assert not any("thoughtSignature" in part for part in contents(*messages)[1]["parts"])
    messages[1] = assistant(None, tool_call(), tool_call("c2", signature="cw=="))
    signed = contents(*messages, to=LEVELS)[1]["parts"]
    assert [part.get("thoughtSignature") for part in signed] == [None, "cw=="]


def test_a_refusal_in_the_history_is_text() -> None:
    assert contents(user("q"), assistant(None, refusal="No."), user("r"))[1]["parts"] == [{"text": "No."}]


# --- requests: tools ----------------------------------------------------------------------------------------------

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/n"}, "e": {"enum": [1, 2]}},
    "additionalProperties": False,
    "$defs": {"n": {"type": ["integer", "null"]}},
}


def test_tools_go_with_their_whole_schema() -> None:
    built = sent({"tools": [function(description="Looks.", parameters=SCHEMA), function("empty")]})
    assert built["tools"] == [
        {
            "functionDeclarations": [
                {"name": "look", "description": "Looks.", "parametersJsonSchema": SCHEMA},
                {"name": "empty"},
            ]
        }
    ]
    assert "toolConfig" not in built


def test_older_models_get_the_subset() -> None:
    old = target(json_schema=False)
    built = sent({"tools": [function(parameters=SCHEMA)]}, old)
    assert built["tools"][0]["functionDeclarations"][0]["parameters"]["properties"]["n"] == {
        "type": "integer",
        "nullable": True,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "a"}}}
    assert config({"response_format": form}, old)["responseSchema"] == {"type": "string", "enum": ["a"]}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False, "title": "None"},
    ],
)
def test_empty_parameters_are_left_out(parameters: Json) -> None:
    assert sent({"tools": [function(parameters=parameters)]})["tools"] == [{"functionDeclarations": [{"name": "look"}]}]


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"type": "object", "properties": {"a": {}}},
    ],
)
def test_parameters_that_say_something_are_sent(parameters: Json) -> None:
    declaration = sent({"tools": [function(parameters=parameters)]})["tools"][0]["functionDeclarations"][0]
    assert declaration["parametersJsonSchema"] == parameters


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", {"mode": "NONE"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "look"}}, {"mode": "ANY", "allowedFunctionNames": ["look"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [function("find")]}},
            {"mode": "ANY", "allowedFunctionNames": ["find"]},
        ),
    ],
)
def test_which_tools_may_or_must_be_called(choice: object, expected: Json) -> None:
    built = sent({"tools": [function(), function("find")], "tool_choice": choice})
    assert built["toolConfig"] == {"functionCallingConfig": expected}
    assert len(built["tools"][0]["functionDeclarations"]) == 2


def test_tools_that_may_but_need_not_be_called_are_the_only_ones_sent() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function("find")]}}
    built = sent({"tools": [function(), function("find")], "tool_choice": allowed})
    assert built["tools"] == [{"functionDeclarations": [{"name": "find"}]}]
    assert built["toolConfig"] == {"functionCallingConfig": {"mode": "AUTO"}}
    nothing = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    assert "tools" not in sent({"tools": [function()], "tool_choice": nothing})


def test_strict_tools_ask_for_valid_calls_of_models_that_have_the_mode() -> None:
    tools = {"tools": [function(strict=True, parameters=SCHEMA)]}
    assert sent(tools)["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert "toolConfig" not in sent(tools, target())
    assert sent({**tools, "tool_choice": "required"})["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [function()], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
    ],
)
def test_tools_that_cannot_be_sent(body: Json, param: str) -> None:
    assert refusal(body).param == param


def test_a_choice_of_no_tools_says_nothing() -> None:
    assert "toolConfig" not in sent({"tool_choice": "none"})
    assert "toolConfig" not in sent({"tool_choice": "auto"})


# --- requests: settings -------------------------------------------------------------------------------------------


def test_settings_go_under_their_own_names() -> None:
    call = call_for(
        {
            "max_tokens": 10,
            "stop": "END",
            "temperature": 0.0,
            "top_p": 0.5,
            "n": 2,
            "seed": 0,
            "presence_penalty": 0.1,
            "frequency_penalty": -0.1,
            "logprobs": True,
            "top_logprobs": 2,
            "top_k": 5,
        }
    )
    assert json.loads(call.body)["generationConfig"] == {
        "maxOutputTokens": 10,
        "stopSequences": ["END"],
        "temperature": 0.0,
        "topP": 0.5,
        "candidateCount": 2,
        "seed": 0,
        "presencePenalty": 0.1,
        "frequencyPenalty": -0.1,
        "responseLogprobs": True,
        "logprobs": 2,
        "topK": 5,
    }
    assert call.dropped == ()
    assert config({"logprobs": True, "top_logprobs": 0}) == {"responseLogprobs": True}
    assert config({"logprobs": False, "top_logprobs": 0}) == {}


@pytest.mark.parametrize(("seed", "taken"), [(2**31 - 1, True), (-(2**31), True), (2**31, False), (-(2**63), False)])
def test_a_seed_that_is_no_int32_is_left_out_and_named(seed: int, taken: bool) -> None:
    call = call_for({"seed": seed})
    assert json.loads(call.body).get("generationConfig") == ({"seed": seed} if taken else None)
    assert call.dropped == (() if taken else ("seed",))


def test_an_empty_stop_sequence_is_left_out_and_named() -> None:
    call = call_for({"stop": ["", "a", "b", "c", "d", "e"]})
    assert json.loads(call.body)["generationConfig"] == {"stopSequences": ["a", "b", "c", "d", "e"]}
    assert call.dropped == ("stop",)
    assert call_for({"stop": ""}).dropped == ("stop",)
    assert refusal({"stop": ""}, target(strict=True)).param == "stop"


def test_what_extra_body_holds_for_somebody_else_is_named() -> None:
    call = call_for({"extra_body": {"chat_template_kwargs": {}, "google": {"top_k": 1}}})
    assert json.loads(call.body)["generationConfig"] == {"topK": 1}
    assert call.dropped == ("extra_body.chat_template_kwargs",)
    assert call_for({"extra_body": 5}).dropped == ("extra_body",)


def test_models_without_sampling_parameters() -> None:
    call = call_for({"temperature": 1, "top_p": 1, "topK": 3}, target(sampling=False))
    assert "generationConfig" not in json.loads(call.body)
    assert call.dropped == ("temperature", "top_p", "topK")
    wrapped = {"extra_body": {"google": {"generation_config": {"top_k": 3}}}}
    assert call_for(wrapped, target(sampling=False)).dropped == ("extra_body.google.generation_config.top_k",)


def test_tuning_without_an_equivalent_is_left_out_and_named_or_refused() -> None:
    body: Json = {
        "parallel_tool_calls": False,
        "logit_bias": {"1": 2},
        "user": "u",
        "service_tier": "flex",
        "metadata": {"a": "b"},
        "verbosity": "low",
        "cache_control": {"type": "ephemeral"},
    }
    call = call_for(body)
    assert sorted(call.dropped) == sorted(body)
    for name, value in body.items():
        error = refusal({name: value}, target(strict=True))
        assert (error.code, error.param) == ("unsupported_parameter", name)
    assert call_for({"parallel_tool_calls": True, "service_tier": "auto"}, target(strict=True)).dropped == ()


def test_cache_marks_are_named_where_they_are() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    text = {"type": "text", "text": "x", **mark}
    call = {**tool_call(), **mark}
    marked: Json = {
        "messages": [user([text, text]), {**assistant("I look", call), **mark}, result([text]), user("and")],
        "tools": [function(), {**function("see"), **mark}, function("hear", **mark)],
        **mark,
    }
    assert call_for(marked).dropped == (
        "cache_control",
        "messages.0.content.0.cache_control",
        "messages.0.content.1.cache_control",
        "messages.1.cache_control",
        "messages.1.tool_calls.0.cache_control",
        "messages.2.content.0.cache_control",
        "tools.1.cache_control",
        "tools.2.function.cache_control",
    )
    assert refusal({"messages": [user([text])]}, target(strict=True)).param == "messages.0.content.0.cache_control"
    assert call_for({"messages": [{**user("x"), "tool_calls": ["of nobody"]}]}).dropped == ()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": ["text", "image"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"stop": ["1", "2", "3", "4", "5", "6"]}, "stop"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
    ],
)
def test_what_means_something_is_refused(body: Json, param: str) -> None:
    assert refusal(body).param == param


def test_images_from_models_that_make_them() -> None:
    painter = target("gemini-2.5-flash-image", image_output=True)
    assert config({"modalities": ["text", "image"]}, painter) == {"responseModalities": ["TEXT", "IMAGE"]}
    assert config({"modalities": ["text"]}, painter) == {}


def test_the_form_of_the_answer() -> None:
    form: Json = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    json_type = "application/json"
    assert config({"response_format": form}) == {"responseMimeType": json_type, "responseJsonSchema": SCHEMA}
    assert config({"response_format": {"type": "json_object"}}) == {"responseMimeType": json_type}
    assert config({"response_format": {"type": "text"}}) == {}
    del form["json_schema"]["schema"]
    assert config({"response_format": form}) == {"responseMimeType": json_type}


# --- requests: the provider's own fields --------------------------------------------------------------------------

SAFETY = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]


@pytest.mark.parametrize("wrap", [lambda google: google, lambda google: {"google": google}])
@pytest.mark.parametrize("camel", [False, True])
def test_native_fields_in_both_spellings(wrap: Any, *, camel: bool) -> None:
    fields: Json = {
        "safetySettings" if camel else "safety_settings": SAFETY,
        "cachedContent" if camel else "cached_content": "cachedContents/1",
        "mediaResolution" if camel else "media_resolution": "MEDIA_RESOLUTION_LOW",
        "generationConfig" if camel else "generation_config": {"top_k": 3, "candidateCount": 1, "newField": 1},
    }
    built = sent({"temperature": 1, **wrap(fields)})
    assert built["safetySettings"] == SAFETY
    assert built["cachedContent"] == "cachedContents/1"
    assert built["generationConfig"] == {
        "temperature": 1,
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
        "topK": 3,
        "candidateCount": 1,
        "newField": 1,
    }


def test_native_tools_and_settings_join_those_of_the_request() -> None:
    built = sent(
        {
            "tools": [function()],
            "tool_choice": "auto",
            "extra_body": {
                "google": {
                    "tools": [{"googleSearch": {}}],
                    "tool_config": {"includeServerSideToolInvocations": True},
                    "service_tier": "flex",
                    "unknownField": {"a_b": 1},
                }
            },
        }
    )
    assert built["tools"] == [{"functionDeclarations": [{"name": "look"}]}, {"googleSearch": {}}]
    assert built["toolConfig"] == {
        "functionCallingConfig": {"mode": "AUTO"},
        "includeServerSideToolInvocations": True,
    }
    assert (built["serviceTier"], built["unknownField"]) == ("flex", {"a_b": 1})


def test_native_thinking_goes_before_effort() -> None:
    call = call_for({"reasoning_effort": "low", "google": {"thinking_config": {"thinking_budget": 7}}})
    assert json.loads(call.body)["generationConfig"]["thinkingConfig"] == {"thinking_budget": 7}
    assert call.dropped == ("reasoning_effort",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"google": {"contents": []}}, "google.contents"),
        ({"extra_body": {"google": {"model": "x"}}}, "extra_body.google.model"),
        ({"google": []}, "google"),
        ({"google": {"tools": {}}}, "google.tools"),
        ({"google": {"tool_config": 1}}, "google.tool_config"),
        ({"generation_config": 1}, "generation_config"),
    ],
)
def test_native_fields_that_cannot_be(body: Json, param: str) -> None:
    assert refusal(body).param == param


def test_json_nested_too_deeply() -> None:
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    assert refusal({"labels": deep}).code == "invalid_json"
