"""Whatever a client gives as a schema is sent, or is a 400 that names it; never a fault of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.canonical.chat import ChatRequest
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget, Call
from inferxgate.dialects.registry import DIALECTS
from inferxgate.errors import GatewayError
from tests.dialects.tool_schemas import SAMPLES

Json = dict[str, Any]

KEYWORDS = [
    "$ref", "$defs", "definitions", "type", "properties", "required", "additionalProperties", "items", "prefixItems",
    "additionalItems", "anyOf", "oneOf", "allOf", "not", "enum", "const", "default", "nullable", "format", "pattern",
    "minimum", "exclusiveMinimum", "maximum", "minLength", "minItems", "description", "title", "patternProperties",
]  # fmt: skip
WORDS = [
    "object", "array", "string", "number", "integer", "boolean", "null", "#", "#/", "#/$defs/a", "#/definitions/a",
    "#/$defs/a/anyOf/0", "#/properties/a", "#/$defs/%zz", "date-time", "(?=", "a", "",
]  # fmt: skip

NUMBERS = st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.sampled_from(WORDS) | st.text()
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=12,
)
SCHEMAS = ANYTHING | st.dictionaries(st.sampled_from(KEYWORDS), ANYTHING, max_size=5)

TARGETS = [
    (dialect, BuildTarget("host", "m", Abilities(json_schema=native, forced_tools=more, json_with_tools=more)))
    for dialect in ("anthropic_messages", "gemini")
    for native, more in ((True, True), (True, False), (False, True))
]
TARGETS.append(("openai_chat", BuildTarget("host", "m", Abilities())))


def with_tool(schema: object) -> Json:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}]}


def with_loose_tool(schema: object) -> Json:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}


def with_format(schema: object) -> Json:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}}


def with_format_beside_a_tool(schema: object) -> Json:
    return {**with_loose_tool({"type": "object"}), **with_format(schema)}


PLACES = [
    (with_tool, "tools.0.function"),
    (with_loose_tool, "tools.0.function"),
    (with_format, "response_format"),
    (with_format_beside_a_tool, "response_format"),
]


def check(place: Callable[[object], Json], where: str, schema: str) -> None:
    """Build the request with a schema, given as JSON, for every target."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **place("@")}
    text = json.dumps(body).replace('"@"', schema)
    for dialect, target in TARGETS:
        request = parse_request(orjson.loads(text))
        for strict in (False, True):
            error, call = outcome(dialect, request, replace(target, strict=strict))
            if error is not None:
                assert error.status == 400
                assert error.param is not None
                assert f"{where}.".startswith(f"{error.param}.") or error.param.startswith(where)
            if call is not None:
                assert isinstance(orjson.loads(call.body), dict)
                assert all(name.startswith(where) for name in call.dropped)


def outcome(dialect: str, request: ChatRequest, target: BuildTarget) -> tuple[GatewayError | None, Call | None]:
    try:
        return None, DIALECTS[dialect].build_request(request, target)
    except GatewayError as error:
        return error, None


@pytest.mark.parametrize(("place", "where"), PLACES)
@given(schema=SCHEMAS)
def test_any_json_as_a_schema(place: Callable[[object], Json], where: str, schema: object) -> None:
    check(place, where, json.dumps(schema))


def spoilt(schema: object, bad: object) -> Iterator[object]:
    """The schema with each part of it in turn, from the outside in, replaced by nonsense."""
    yield bad
    if isinstance(schema, dict):
        for name, value in schema.items():
            for worse in spoilt(value, bad):
                yield {**schema, name: worse}
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            for worse in spoilt(value, bad):
                yield [*schema[:index], worse, *schema[index + 1 :]]


ROOTS: list[Json] = [
    {"anyOf": [{"properties": {"a": {"enum": ["b"]}}, "required": ["a"]}, {"$ref": "#/$defs/P"}], "$defs": {"P": {}}},
    {"allOf": [{"properties": {"a": {"type": ["string", "null"]}}, "additionalProperties": False}], "required": ["a"]},
    {"oneOf": [{"properties": {"a": {"type": "string", "format": "date"}}}], "properties": {"b": {"const": 1}}},
]


@pytest.mark.parametrize(("place", "where"), PLACES)
@pytest.mark.parametrize("bad", [None, 7, "x", [], [[]], {"a": 1}, {"$ref": "#"}])
def test_a_schema_with_one_part_spoilt(place: Callable[[object], Json], where: str, bad: object) -> None:
    for schema in (*ROOTS, *(schema for _, schema, _ in SAMPLES[::9])):
        for worse in spoilt(schema, bad):
            check(place, where, json.dumps(worse))


AROUND = {
    "properties": ('{"type":"object","properties":{"a":', "}}"),
    "items": ('{"type":"array","items":', "}"),
    "anyOf": ('{"anyOf":[', ',{"type":"null"}]}'),
    "allOf": ('{"allOf":[', "]}"),
    "default": ('{"default":[', "]}"),
    "enum": ('{"enum":[', "]}"),
    "const": ('{"const":', "}"),
    "not": ('{"not":', "}"),
}


@pytest.mark.parametrize(("place", "where"), PLACES)
@pytest.mark.parametrize("key", AROUND)
@pytest.mark.parametrize("depth", [60, 61, 120, 400])
def test_a_schema_that_is_nested_absurdly(place: Callable[[object], Json], where: str, key: str, depth: int) -> None:
    before, after = AROUND[key]
    schema = f'{before * depth}{{"type":"string"}}{after * depth}'
    check(place, where, schema)
    check(place, where, f'{{"type":"object","properties":{{"a":{schema}}}}}')
    check(place, where, f'{{"anyOf":[{{"properties":{{"a":{schema}}}}},{{"properties":{{"a":{schema}}}}}]}}')
