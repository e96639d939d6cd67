"""Tools and an answer in JSON at once, for models that take both and for those that do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferxgate.canonical.chat import collect
from inferxgate.catalog.models import abilities_of
from inferxgate.dialects import gemini
from inferxgate.dialects.tool_names import JSON_ANSWER_DESCRIPTION, JSON_ANSWER_TOOL
from inferxgate.framing.sse import SSEEvent
from tests.dialects.gemini_asking import Json, function, refusal, sent, target

OLD = target(json_with_tools=False)
NEW = target("gemini-3-pro-preview")
PERSON: Json = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
NAMED = {"type": "function", "function": {"name": "look"}}


def form(schema: Json | None = None, **more: Any) -> Json:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema or PERSON}},
        **more,
    }


TOOLS: Json = {"tools": [function("look")]}


@pytest.mark.parametrize("model", ["gemini-1.5-pro", "gemini-pro", "gemini-2.0-flash", "gemini-2.5-pro"])
def test_models_up_to_2_5_do_not_take_both(model: str) -> None:
    assert not abilities_of("gemini", model).json_with_tools
    assert abilities_of("gemini", "gemini-3-flash-preview").json_with_tools
    assert abilities_of("gemini", "gemini-flash-latest").json_with_tools


def test_a_model_that_takes_both_is_asked_for_both() -> None:
    body = sent(form(**TOOLS), NEW)
    assert body["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": PERSON}
    assert [each["name"] for each in body["tools"][0]["functionDeclarations"]] == ["look"]
    assert "toolConfig" not in body


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"parallel_tool_calls": True}])
def test_a_form_beside_tools_is_one_more_tool(choice: Json) -> None:
    body = sent(form(**TOOLS, **choice), OLD)
    assert "generationConfig" not in body
    look, answer = body["tools"][0]["functionDeclarations"]
    assert look == {"name": "look"}
    assert answer == {
        "name": JSON_ANSWER_TOOL,
        "description": JSON_ANSWER_DESCRIPTION,
        "parametersJsonSchema": PERSON,
    }
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}


def test_a_form_that_is_a_reference_can_be_a_tool() -> None:
    schema = {"$ref": "#/$defs/P", "$defs": {"P": PERSON}}
    answer = sent(form(schema, **TOOLS), OLD)["tools"][0]["functionDeclarations"][1]
    assert answer["parametersJsonSchema"] == schema
    narrow = target(json_with_tools=False, json_schema=False)
    answer = sent(form(schema, **TOOLS), narrow)["tools"][0]["functionDeclarations"][1]
    assert answer["parameters"] == PERSON


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_where_a_call_must_be_made_no_text_has_a_form(choice: Any) -> None:
    body = sent(form(**TOOLS, tool_choice=choice), OLD)
    assert "generationConfig" not in body
    assert len(body["tools"][0]["functionDeclarations"]) == 1


def test_where_no_call_may_be_made_no_tool_is_named() -> None:
    body = sent(form(**TOOLS, tool_choice="none"), OLD)
    assert body["generationConfig"]["responseJsonSchema"] == PERSON
    assert "tools" not in body
    assert "toolConfig" not in body


def test_either_alone_is_as_it_was() -> None:
    assert sent(form(), OLD)["generationConfig"]["responseMimeType"] == "application/json"
    assert "toolConfig" not in sent({**TOOLS, "response_format": {"type": "text"}}, OLD)


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        form({"type": "array", "items": PERSON}),
        form({"anyOf": [PERSON, {"type": "object"}]}),
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
    ],
)
def test_a_form_that_is_no_objects_names_both(body: Json) -> None:
    error = refusal({**body, **TOOLS}, OLD)
    assert (error.code, error.param) == ("unsupported_parameter", "response_format")
    assert "'tools'" in error.message
    assert "'response_format'" in error.message
    assert "google" in error.message


def answer(*calls: tuple[str, Json | None]) -> Json:
    parts = [{"functionCall": {"name": name, "args": args}} for name, args in calls]
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}


@pytest.mark.parametrize(
    ("calls", "text", "names", "reason"),
    [
        ([(JSON_ANSWER_TOOL, {"name": "Ann"})], '{"name":"Ann"}', [], "stop"),
        ([(JSON_ANSWER_TOOL, None)], "{}", [], "stop"),
        ([("look", {})], "", ["look"], "tool_calls"),
        ([("look", {}), (JSON_ANSWER_TOOL, {"name": "Ann"})], '{"name":"Ann"}', ["look"], "tool_calls"),
    ],
)
def test_the_answers_tool_comes_back_as_text(
    calls: list[tuple[str, Json | None]], text: str, names: list[str], reason: str
) -> None:
    body = answer(*calls)
    whole = collect(gemini.parse_response(json.dumps(body).encode())[1])
    event = gemini.StreamReader().feed(SSEEvent(json.dumps(body).encode()))
    assert event is not None
    for read in (whole, collect(event.chunks)):
        choice = read.choices[0]
        assert choice.text == text
        assert [call.name for call in choice.tool_calls.values()] == names
        assert choice.finish_reason == reason
