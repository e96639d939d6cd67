"""Lists of models in each dialect: the names in them, and where they go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from inferxgate.dialects.model_lists import ModelPage, parse_anthropic, parse_gemini, parse_openai
from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError

Parse = Callable[[bytes], ModelPage]


def page(parse: Parse, body: object) -> ModelPage:
    return parse(json.dumps(body).encode())


def test_openais_list() -> None:
    body = {"object": "list", "data": [{"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "openai"}]}
    assert page(parse_openai, body) == ModelPage(("gpt-4o",))


def test_a_bare_list_is_one_too() -> None:
    assert page(parse_openai, [{"id": "a/b", "type": "chat"}, {"id": "c"}]) == ModelPage(("a/b", "c"))


@pytest.mark.parametrize("body", [{"data": []}, {"object": "list", "data": None}, []])
def test_a_host_may_have_no_models(body: object) -> None:
    assert page(parse_openai, body) == ModelPage(())


@pytest.mark.parametrize(
    ("said", "listed"),
    [
        ({}, True),
        ({"active": True}, True),
        ({"active": False}, False),
        ({"type": "chat"}, True),
        ({"type": "language"}, True),
        ({"type": "embedding"}, False),
        ({"type": ["image"]}, True),
        ({"output_modalities": ["text", "image"]}, True),
        ({"output_modalities": ["transcription"]}, False),
        ({"output_modalities": "speech"}, True),
        ({"architecture": {"output_modalities": ["text"]}}, True),
        ({"architecture": {"output_modalities": ["image"]}}, False),
        ({"architecture": {"modality": "text->image"}}, True),
        ({"architecture": "transformer"}, True),
        ({"capabilities": {"completion_chat": True}}, True),
        ({"capabilities": {"completion_chat": False}}, False),
        ({"capabilities": {"vision": False}}, True),
        ({"capabilities": ["completion_chat"]}, True),
    ],
)
def test_what_says_that_it_is_for_something_else_is_left_out(said: dict[str, Any], listed: bool) -> None:
    names = page(parse_openai, {"data": [{"id": "m", **said}, {"id": "other"}]}).names
    assert names == (("m", "other") if listed else ("other",))


@pytest.mark.parametrize("name", ["", " m", "m\n", "m\x1b[31m", "m" * 201, None, 7, ["m"]])
def test_what_is_no_name_is_passed_over(name: object) -> None:
    assert page(parse_openai, {"data": [{"id": name}, {"id": "m" * 200}, "m", {"name": "m"}]}).names == ("m" * 200,)


def test_a_name_is_listed_once() -> None:
    assert page(parse_openai, {"data": [{"id": "b"}, {"id": "a"}, {"id": "b"}]}).names == ("b", "a")


def test_anthropics_list_goes_on_after_its_last_id() -> None:
    body = {"data": [{"id": "claude-a", "type": "model"}], "has_more": True, "first_id": "x", "last_id": "y z"}
    assert page(parse_anthropic, body) == ModelPage(("claude-a",), "y z")
    assert page(parse_anthropic, body | {"has_more": False}) == ModelPage(("claude-a",))
    assert page(parse_anthropic, {"data": [], "has_more": False, "last_id": None}) == ModelPage(())


def test_googles_list_has_names_with_a_folder_and_says_what_they_do() -> None:
    generates = {"supportedGenerationMethods": ["countTokens", "generateContent"]}
    body = {
        "models": [
            {"name": "models/gemini-a", **generates},
            {"name": "models/embedding-a", "supportedGenerationMethods": ["embedContent"]},
            {"name": "models/nothing-said"},
            {"name": "models/", **generates},
            {"name": "tunedModels/b", **generates},
        ],
        "nextPageToken": "t",
    }
    assert page(parse_gemini, body) == ModelPage(("gemini-a", "tunedModels/b"), "t")
    assert page(parse_gemini, body | {"nextPageToken": ""}).after is None
    assert page(parse_gemini, {}) == ModelPage(())


@pytest.mark.parametrize("parse", [parse_openai, parse_anthropic, parse_gemini])
@pytest.mark.parametrize("data", [b"", b"<!doctype html><html>", b"{", b"\xff", b"null", b"7", b'"models"'])
def test_what_is_no_list_is_told(parse: Parse, data: bytes) -> None:
    with pytest.raises(GatewayError, match=r"The provider's answer makes no sense: it ") as caught:
        parse(data)
    assert caught.value.kind is UPSTREAM_INVALID_RESPONSE
    assert caught.value.__cause__ is None, "the bytes are nobody's to see"


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (parse_openai, {"object": "list"}),
        (parse_openai, {"error": {"message": "no"}}),
        (parse_openai, {"data": {}}),
        (parse_openai, {"data": "gpt-4o"}),
        (parse_openai, {"data": ["gpt-4o"]}),
        (parse_openai, {"data": [{"name": "gpt-4o"}]}),
        (parse_anthropic, {}),
        (parse_anthropic, [{"id": "claude"}]),
        (parse_anthropic, {"data": [{"id": "a"}], "has_more": True}),
        (parse_anthropic, {"data": [{"id": "a"}], "has_more": True, "last_id": ""}),
        (parse_anthropic, {"data": [{"id": "a"}], "has_more": True, "last_id": 7}),
        (parse_gemini, {"models": None}),
        (parse_gemini, {"models": [{"id": "a"}]}),
        (parse_gemini, {"models": [], "nextPageToken": ["t"]}),
        (parse_gemini, {"models": [], "nextPageToken": "t" * 1_001}),
    ],
)
def test_a_list_of_another_shape_is_told(parse: Parse, body: object) -> None:
    with pytest.raises(GatewayError, match="makes no sense"):
        page(parse, body)
